//! What goes to stdout: tables for people, tab-separated lines for programs, JSON where it is asked for.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

/// Prints one JSON value as a line, and sends it off at once.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    line(value)
}

/// Prints a line and sends it off at once, so that the reader of a watch sees it when it happens.
pub(crate) fn line(text: impl std::fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints rows: with a header and in columns on a terminal, else with tabs between the cells and nothing else.
pub(crate) fn rows(header: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    if stdout.is_terminal() {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(header.iter().map(|title| title.to_uppercase()));
        table.add_rows(rows);
        writeln!(stdout, "{}", table.trim_fmt())?;
    } else {
        for row in rows {
            writeln!(stdout, "{}", row.join("\t"))?;
        }
    }
    stdout.flush()
}

/// Waits until what is printed can't be read any more: the pipe's reader has ended, the terminal was hung up. Never, for a file.
pub(crate) async fn reader_gone() {
    let (sender, gone) = tokio::sync::oneshot::channel();
    // A thread, because it costs nothing while it waits, and ends with the process.
    let watching = std::thread::Builder::new().name("tooz-reader".to_owned()).spawn(move || {
        let stdout = io::stdout();
        loop {
            // Nothing is asked for: errors and the end are told without asking.
            let mut watched = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) if watched[0].any().unwrap_or(true) => {
                    // The receiver is gone where the watch has ended.
                    let _ = sender.send(());
                    return;
                }
                Ok(_) | Err(Errno::EINTR) => {}
                // Then the next line that is printed will tell.
                Err(_) => return,
            }
        }
    });
    if watching.is_err() || gone.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// JSON text as a value to embed; as a string if it should be none.
pub(crate) fn embedded(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or_else(|_| Value::from(json))
}
