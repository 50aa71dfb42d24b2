//! What happens to the session.

use tooz::{Error, LossReason};

use super::event::Event;
use super::words::in_words;
use super::{held, stamp};

/// No answer to a heartbeat, and why, as far as that is known.
pub(crate) fn suspended(why: &str) -> Event {
    let sure = match held::until() {
        Some(until) => {
            format!("; what is held is sure until {}, and is lost then unless a heartbeat comes", stamp::local(until))
        }
        None => String::new(),
    };
    let event = Event::new("suspended", format!("session suspended: {why}{sure}")).with("why", why);
    event.with("sure_until", held::until().map(stamp::utc))
}

pub(crate) fn resumed() -> Event {
    Event::new("resumed", "session resumed: heartbeats are answered again, and nothing was lost")
}

/// With its locks and leaderships.
pub(crate) fn lost(reason: LossReason) -> Event {
    let sentence = format!("session lost: {reason}; its locks and leaderships are gone");
    Event::new("session_lost", sentence).with("reason", reason_name(reason)).with("why", reason.to_string())
}

pub(crate) fn reopened() -> Event {
    Event::new("reopened", "session opened anew")
}

/// Something that stood before does not stand again just now.
pub(crate) fn troubled(error: &Error) -> Event {
    let words = in_words(error);
    let event = Event::new("troubled", format!("{words}; trying again"));
    event.with("kind", error.kind().name()).with("message", words)
}

pub(crate) fn recovered() -> Event {
    Event::new("recovered", "it works again")
}

/// A loss as programs read it: the name that it has in the library's own JSON.
pub(crate) fn reason_name(reason: LossReason) -> serde_json::Value {
    serde_json::to_value(reason).unwrap_or(serde_json::Value::Null)
}
