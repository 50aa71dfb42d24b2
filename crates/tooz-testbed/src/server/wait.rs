//! Waiting for something of which no message tells, with patience and a word about what was waited for.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Servers are ready after some tens of milliseconds: this finds them soon and costs them nothing.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until there is something to see. An error of `look` ends the waiting; what just is not so yet is `None`.
pub(crate) fn until<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(seen) = look()? {
            return Ok(seen);
        }
        if Instant::now() >= end {
            bail!("waited {patience:?} in vain until {what}");
        }
        thread::sleep(BETWEEN_LOOKS);
    }
}
