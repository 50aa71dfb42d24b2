//! On a terminal: a line that moves, so that a person sees that it waits and since when.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tooz::driver::{Mutex, MutexGuard};

use super::manner;

/// How often it moves.
const TICK: Duration = Duration::from_millis(250);

static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Shown until it is dropped.
pub(crate) struct WaitingLine {
    /// There is none where no person would see it.
    bar: Option<ProgressBar>,
}

/// Shows that it waits for something, where a person may see that.
pub(crate) fn show(what: String) -> WaitingLine {
    let manner = manner();
    if !stderr().is_terminal() || manner.quiet || manner.json {
        return WaitingLine { bar: None };
    }
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.set_message(what);
    bar.enable_steady_tick(TICK);
    *shown() = Some(bar.clone());
    WaitingLine { bar: Some(bar) }
}

/// Writes something else, without tearing the line apart.
pub(super) fn beside(write: impl FnOnce()) {
    // A terminal that was stopped keeps no other from the line.
    let bar = shown().clone();
    match bar {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

fn shown() -> MutexGuard<'static, Option<ProgressBar>> {
    SHOWN.lock()
}

impl WaitingLine {
    /// It waits for something else now.
    pub(crate) fn change(&self, what: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(what);
        }
    }
}

impl Drop for WaitingLine {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            shown().take();
            bar.finish_and_clear();
        }
    }
}
