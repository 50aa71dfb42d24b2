//! What is said of the session while something goes on: that heartbeats fail, and why; that it is lost; that it is open again.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tooz::{Coordinator, LossReason, SessionEvent};

use crate::speech::words::in_words;
use crate::speech::{self, held};

/// How much later than what was held the session may be told to be lost.
const SHORTLY: Duration = Duration::from_millis(500);

/// How many losses of the session have been told.
static TOLD: LazyLock<watch::Sender<u64>> = LazyLock::new(|| watch::Sender::new(0));

/// The losses that were told before something was had: so the next one is that of its session.
pub(super) struct LossesBefore(u64);

impl LossesBefore {
    pub(super) fn now() -> Self {
        LossesBefore(*TOLD.borrow())
    }

    /// Where it was the session that took it away, that is told first.
    pub(super) async fn let_the_next_be_told(&self, reason: Option<LossReason>) {
        if reason.is_some_and(is_of_the_session) {
            let mut told = TOLD.subscribe();
            // Where it is not told at all, the rest is.
            let _ = timeout(SHORTLY, told.wait_for(|count| *count > self.0)).await;
        }
    }
}

/// Whether it went with the session: core joins again then.
pub(super) fn is_of_the_session(reason: LossReason) -> bool {
    matches!(reason, LossReason::Expired | LossReason::SessionEnded | LossReason::DriverPanicked)
}

/// Tells what happens to the session, and what keeps from standing again what stood before, so that a person can mend it; it is tried again
/// until then. Never ends.
pub(super) async fn tell_of_session(coordinator: &Coordinator) {
    let mut events = coordinator.events();
    let mut suspended = Suspended::Not;
    loop {
        tokio::select! {
            biased;
            event = events.next() => match event {
                Some(event) => suspended = tell(event, suspended),
                None => std::future::pending().await,
            },
            // With a long --kill-after CMD is told to end before core calls a heartbeat overdue.
            () = held::heartbeat_is_late(), if suspended == Suspended::Not => {
                suspended = Suspended::ByLateness;
                speech::tell(&speech::session::suspended("a heartbeat is not answered yet"));
            }
            () = held::heartbeat_has_come(), if suspended == Suspended::ByLateness => {
                suspended = Suspended::Not;
                speech::tell(&speech::session::resumed());
            }
        }
    }
}

/// Whether it was told that heartbeats fail.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suspended {
    Not,
    /// Core has said so, and says when it is over.
    ByCore,
    /// The deadline has come nearer than it should, and core has not said anything yet.
    ByLateness,
}

/// Answers whether the session is suspended now.
fn tell(event: SessionEvent, before: Suspended) -> Suspended {
    let is_loss = matches!(event, SessionEvent::Lost(_));
    let now = match event {
        SessionEvent::Suspended(_) => Suspended::ByCore,
        SessionEvent::Resumed | SessionEvent::Lost(_) => Suspended::Not,
        _ => before,
    };
    let told = match event {
        SessionEvent::Suspended(error) => speech::session::suspended(&in_words(&error)),
        SessionEvent::Resumed => speech::session::resumed(),
        SessionEvent::Lost(reason) => speech::session::lost(reason),
        SessionEvent::Reopened => speech::session::reopened(),
        SessionEvent::Troubled(error) => speech::session::troubled(&error),
        SessionEvent::Recovered => speech::session::recovered(),
        // One that this version does not know is told rather than swallowed.
        other => speech::Event::new("other", format!("{other:?}")),
    };
    speech::tell(&told);
    if is_loss {
        TOLD.send_modify(|count| *count += 1);
    }
    now
}
