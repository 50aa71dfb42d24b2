//! What every driver must show. `chalk` claims little, and the suite lists what it does not claim.

use chalk_driver as _;
use tooz_conformance::Rig;

tooz_conformance::suite!(Rig::new("chalk", |tag| format!("chalk://{tag}")).hides_locks().hides_waiters());
