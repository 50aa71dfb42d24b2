//! What is held, a lock or the leadership: it is looked at while it is held, so that it is known until when its holder believed in it.

use std::time::Duration;

use tooz::{Leadership, LockGuard, LockMode};
use tooz_conformance::history::{Mode, now};

use crate::record::Record;
use crate::worker::Desk;

/// How often something that is held for long is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// Something that is held.
pub(crate) trait Held {
    fn token(&self) -> u64;
    fn is_held(&self) -> bool;
    async fn give_back(self) -> tooz::Result<()>;
}

impl Held for LockGuard {
    fn token(&self) -> u64 {
        self.fencing_token().0
    }

    fn is_held(&self) -> bool {
        LockGuard::is_held(self)
    }

    async fn give_back(self) -> tooz::Result<()> {
        self.release().await
    }
}

impl Held for Leadership {
    fn token(&self) -> u64 {
        self.epoch().0
    }

    fn is_held(&self) -> bool {
        self.is_leader()
    }

    async fn give_back(self) -> tooz::Result<()> {
        self.resign().await
    }
}

/// Holds it for so long or until it is lost, and gives it back.
pub(crate) async fn hold(desk: &Desk, number: u64, held: impl Held, time: Duration) {
    let mut believed_until = now();
    desk.say(&Record::Granted { number, at: believed_until, token: held.token() });
    let end = tokio::time::Instant::now() + time;
    loop {
        // The order matters: first the time, then the look, so that a belief is never written down too long.
        let at = now();
        if !held.is_held() {
            return desk.say(&Record::Ended { number, believed_until, released: None, lost: Some(now()) });
        }
        believed_until = at;
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() || desk.is_ending() {
            break;
        }
        if left > LOOK {
            desk.say(&Record::Held { number, at });
        }
        desk.rest(left.min(LOOK)).await;
    }
    give_back_held(desk, number, held, believed_until).await;
}

/// Gives back what was held for a moment only.
pub(crate) async fn give_back(desk: &Desk, number: u64, held: impl Held) {
    let at = now();
    if !held.is_held() {
        return desk.say(&Record::Ended { number, believed_until: at, released: None, lost: Some(now()) });
    }
    give_back_held(desk, number, held, at).await;
}

async fn give_back_held(desk: &Desk, number: u64, held: impl Held, believed_until: u64) {
    let given = held.give_back().await;
    let at = now();
    let lost = matches!(&given, Err(error) if error.kind() == tooz::ErrorKind::Lost).then_some(at);
    desk.say(&Record::Ended { number, believed_until, released: given.is_ok().then_some(at), lost });
}

/// The mode as it stands in a history.
pub(crate) fn mode_of(mode: LockMode) -> Mode {
    if mode == LockMode::Exclusive { Mode::Exclusive } else { Mode::Shared }
}
