//! Asking sessions to write down at once what they hold: not more often than they answer, since what is sent to one that stands still fills its
//! socket, and a back end that waits for that does not see any timeout.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tooz_core::driver::Mutex;

use crate::holdings::PATIENCE;

/// A session is attentive for longer than that once it was asked.
const FIRST_PAUSE: Duration = PATIENCE.checked_div(2).unwrap();
/// A session that does not answer is asked this seldom in the end. It has long been ended by then, unless its session timeout is longer.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// When one coordinator has asked which session.
#[derive(Default)]
pub(crate) struct Asking(Mutex<HashMap<i64, LastQuestion>>);

struct LastQuestion {
    at: Instant,
    /// How long it is not asked again.
    pause: Duration,
}

impl Asking {
    /// Of these sessions, those that are to be asked now. Each pause is twice as long as the one before.
    pub(crate) fn due(&self, sessions: &[i64], now: Instant) -> Vec<i64> {
        let mut asked = self.0.lock();
        asked.retain(|_, one| now < one.at + LONGEST_PAUSE * 2);
        let mut due: Vec<i64> = Vec::new();
        for session in sessions {
            match asked.get_mut(session) {
                None => {
                    asked.insert(*session, LastQuestion { at: now, pause: FIRST_PAUSE });
                }
                Some(one) if now >= one.at + one.pause => {
                    *one = LastQuestion { at: now, pause: (one.pause * 2).min(LONGEST_PAUSE) };
                }
                Some(_) => continue,
            }
            due.push(*session);
        }
        due
    }

    /// This session has written down what it was asked for, or given it back.
    pub(crate) fn answered(&self, session: i64) {
        if let Some(one) = self.0.lock().get_mut(&session) {
            one.pause = FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_does_not_answer_is_asked_ever_more_seldom() {
        let (asking, begun) = (Asking::default(), Instant::now());
        let asked = |from: u64, to: u64| {
            let ticks = (from * 100..to * 100).map(|tick| begun + Duration::from_millis(tick * 10));
            ticks.filter(|now| asking.due(&[1], *now) == [1]).count()
        };
        assert_eq!(asked(0, 10), 5);
        assert_eq!(asked(10, 60), 2);
        asking.answered(1);
        assert_eq!(asked(60, 70), 4);
        assert_eq!(asking.due(&[2, 1], begun), [2], "each has pauses of its own");
    }
}
