//! Noticing that the machine did not let the process get on: what is lost then is not the backend's fault.

use std::time::Duration;

use tooz_conformance::history::now;

use crate::record::Record;
use crate::worker::Desk;

/// How often a living process shows that it lives.
const BEAT: Duration = Duration::from_millis(50);

/// Tells of every stretch in which a quarter of the session timeout has gone by at once.
pub(crate) async fn notice(desk: Desk) {
    let most = u64::try_from((desk.role.session_timeout / 4).as_nanos()).unwrap_or(u64::MAX);
    let mut last = now();
    while !desk.is_ending() {
        desk.rest(BEAT).await;
        let at = now();
        if at - last > most {
            desk.say(&Record::Stalled { from: last, to: at });
        }
        last = at;
    }
}
