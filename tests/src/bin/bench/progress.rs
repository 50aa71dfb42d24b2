//! What is being measured just now: a line on a terminal, nothing elsewhere.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The line.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn new(name: &'static str) -> Self {
        Progress(std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix}  {elapsed}  {wide_msg}");
            let bar =
                ProgressBar::new_spinner().with_style(style.expect("the template is a constant")).with_prefix(name);
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        }))
    }

    /// What begins now.
    pub(crate) fn step(&self, what: impl Into<String>) {
        if let Some(bar) = &self.0 {
            bar.set_message(what.into());
        }
    }

    /// Takes the line away.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
