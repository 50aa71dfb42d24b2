//! Showing what runs: a spinner on a terminal, one plain line per step elsewhere.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How much of the output of a step is shown while it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// The last line, and only where it can be overwritten.
    Glimpse,
    All,
}

/// One step on its way. Everything goes to the standard error, so that results can be piped.
pub(crate) struct Progress {
    title: String,
    show: Show,
    started: Instant,
    /// There is one only on a terminal.
    spinner: Option<ProgressBar>,
    /// Elsewhere: the title is written and waits for its result on the same line.
    line_is_open: Cell<bool>,
}

impl Progress {
    pub(crate) fn start(title: String, show: Show) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| spinner(&title));
        let plain = spinner.is_none();
        if plain {
            eprint!("{title} ... ");
            // A person who waits for a long step must see which one it is.
            let _ = std::io::stderr().flush();
        }
        Self { title, show, started: Instant::now(), spinner, line_is_open: Cell::new(plain) }
    }

    /// The same for a step that runs beside others: below one another on a terminal; elsewhere a line at its end.
    pub(crate) fn start_beside(title: String, show: Show, others: &MultiProgress) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| others.add(spinner(&title)));
        Self { title, show, started: Instant::now(), spinner, line_is_open: Cell::new(false) }
    }

    /// A line of the output of what runs.
    pub(crate) fn line(&self, line: &str) {
        if self.show == Show::All {
            self.announce(line);
        } else {
            self.glimpse(line);
        }
    }

    /// What is going on right now: seen only where it can be overwritten.
    pub(crate) fn glimpse(&self, text: &str) {
        let text = text.trim();
        if let Some(spinner) = &self.spinner
            && !text.is_empty()
        {
            spinner.set_message(text.to_owned());
        }
    }

    /// A line that stays, on the standard error.
    pub(crate) fn announce(&self, line: &str) {
        self.undisturbed(|| eprintln!("{line}"));
    }

    /// A line that stays, on the standard output.
    pub(crate) fn print(&self, line: &str) {
        self.undisturbed(|| println!("{line}"));
    }

    pub(crate) fn finish(self, result: &str) -> Duration {
        let elapsed = self.started.elapsed();
        let result = format!("{result} ({})", readable(elapsed));
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        if self.line_is_open.get() {
            eprintln!("{result}");
        } else {
            eprintln!("{} ... {result}", self.title);
        }
        elapsed
    }

    fn undisturbed(&self, write: impl FnOnce()) {
        if let Some(spinner) = &self.spinner {
            spinner.suspend(write);
            return;
        }
        if self.line_is_open.replace(false) {
            eprintln!();
        }
        write();
    }
}

fn spinner(title: &str) -> ProgressBar {
    let template = "{spinner} {prefix}  {elapsed}  {wide_msg:.dim}";
    let style = ProgressStyle::with_template(template).expect("the template is a constant");
    let spinner = ProgressBar::new_spinner().with_style(style).with_prefix(title.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

/// A time as people read it.
pub(crate) fn readable(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1} s", time.as_secs_f64())
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_readable() {
        assert_eq!(readable(Duration::from_millis(1250)), "1.2 s");
        assert_eq!(readable(Duration::from_secs(125)), "2 min 05 s");
    }
}
