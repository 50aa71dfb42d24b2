//! A session timeout that no process can keep up is wrong usage, and not a backend that does not answer.

use std::time::Duration;

use tooz::{Characteristic, Driver};

use crate::failure::CommandFailure;

/// A heartbeat is due in each third of it, and a process may stand still for some milliseconds at any time.
const SHORTEST: Duration = Duration::from_millis(100);

/// Refuses a URL whose session would be lost all the time. What is no duration is refused elsewhere.
pub(super) fn check(url: &str) -> Result<(), CommandFailure> {
    let asked = of(url).filter(|timeout| !timeout.is_zero() && *timeout < SHORTEST);
    match asked {
        Some(timeout) if !is_judged_by_kernel(url) => Err(CommandFailure::usage(format!(
            "session_timeout={} is too short: a heartbeat is due in each third of it, and what is held would be lost between them; write {} or more",
            humantime::format_duration(timeout),
            humantime::format_duration(SHORTEST),
        ))),
        _ => Ok(()),
    }
}

fn of(url: &str) -> Option<Duration> {
    let (_, options) = url.split_once('?')?;
    let value = options.split('&').find_map(|option| option.strip_prefix("session_timeout="))?;
    humantime::parse_duration(value).ok()
}

/// Where the kernel says who lives, there are no heartbeats.
fn is_judged_by_kernel(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    let answers = |driver: &&Driver| driver.schemes().contains(&scheme);
    tooz::drivers().into_iter().find(answers).is_some_and(|driver| driver.can(Characteristic::NonTimeoutBased))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_would_be_lost_between_two_heartbeats_is_refused() {
        assert!(check("memory://m?session_timeout=1ms").is_err());
        assert!(check("memory://m?namespace=x&session_timeout=99ms").is_err());
        assert!(check("memory://m?session_timeout=100ms").is_ok() && check("memory://m").is_ok());
        // There it only says how long a namesake is waited for.
        assert!(check("file:///tmp?session_timeout=1ms").is_ok());
        assert!(check("memory://m?session_timeout=soon").is_ok());
    }
}
