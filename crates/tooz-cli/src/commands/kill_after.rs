//! When CMD is told to end before the deadline, and when a heartbeat is so late that people are told.

use std::time::Duration;

use tooz::{Characteristic, Coordinator};

use crate::failure::CommandFailure;

/// How long before the deadline something is due.
#[derive(Clone, Copy)]
pub(super) struct Notice {
    /// CMD gets SIGTERM.
    pub(super) kill_after: Duration,
    /// A heartbeat that has not been answered by now is told, unless core has said why: two thirds of the way from its time to the SIGTERM, so
    /// that this stands before it.
    pub(super) late: Duration,
}

/// What `--kill-after` comes to. Refused is what would end CMD although every heartbeat is on time.
pub(super) fn notice(coordinator: &Coordinator, wanted: Option<Duration>) -> Result<Notice, CommandFailure> {
    let terms = coordinator.terms();
    let timeout = terms.and_then(|terms| terms.timeout).unwrap_or_else(|| coordinator.session_timeout());
    let margin = terms.map_or(Duration::ZERO, |terms| terms.margin);
    let spare = spare(timeout, margin);
    let judged_by_kernel = coordinator.characteristics().has(Characteristic::NonTimeoutBased);
    let kill_after = match wanted {
        Some(wanted) if wanted > longest(timeout, spare) && !judged_by_kernel => {
            return Err(CommandFailure::usage(format!(
                "--kill-after {} is more than {}, which is what the session timeout of {} leaves for it here: CMD would be ended between two heartbeats",
                humantime::format_duration(wanted),
                humantime::format_duration(longest(timeout, spare)),
                humantime::format_duration(timeout),
            )));
        }
        Some(wanted) => wanted,
        None => (timeout / 4).min(spare / 2),
    };
    Ok(Notice { kill_after, late: kill_after + spare.saturating_sub(kill_after) / 3 })
}

/// How far away the deadline still is when a heartbeat goes out on time: the margin is at least a tenth, and a heartbeat is due in each third.
fn spare(timeout: Duration, margin: Duration) -> Duration {
    timeout.saturating_sub(timeout / 3).saturating_sub(margin.max(timeout / 10))
}

fn longest(timeout: Duration, spare: Duration) -> Duration {
    let millis = (timeout / 2).min(spare * 9 / 10).as_millis();
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cmd_is_ended_between_no_two_heartbeats_that_are_on_time() {
        let seconds = Duration::from_secs;
        // With a margin of a tenth.
        assert_eq!(longest(seconds(10), spare(seconds(10), seconds(1))), seconds(5));
        assert!(seconds(10) / 4 < spare(seconds(10), seconds(1)) / 2);
        // ZooKeeper with a tick of 6 s makes a session of 10 s one of 12.
        let spare = spare(seconds(12), Duration::from_millis(5100));
        assert_eq!(spare, Duration::from_millis(2900));
        assert!(spare / 2 < seconds(12) / 4 && longest(seconds(12), spare) < spare);
    }
}
