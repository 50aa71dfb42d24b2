//! The terminal, taken for a screen and given back as it was, and its keys.

use std::io::{Stdout, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{Event, KeyEvent, KeyEventKind, poll, read};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tooz::driver::Mutex;

use crate::speech;

/// How often the keyboard's thread looks whether it is still wanted.
const KEY_PATIENCE: Duration = Duration::from_millis(50);

/// How long is waited for it to read no more.
const LAST_KEYS: Duration = Duration::from_millis(300);

pub(super) type Screen = Terminal<CrosstermBackend<Stdout>>;

/// Whether the terminal is as this program made it.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Held while keys are read.
static READING: Mutex<()> = Mutex::new(());

/// Gives the terminal back as it was. May be called at any time, also by a panic.
pub(crate) fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // What is typed from now on is the shell's. It is not waited for long: it may be the reading that panics.
        let begin = Instant::now();
        while READING.try_lock().is_none() && begin.elapsed() < LAST_KEYS {
            std::thread::sleep(Duration::from_millis(5));
        }
        // What does not work at the end can't be mended by this program.
        let _ = disable_raw_mode();
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        speech::keep_aside(false);
    }
}

/// Whether it is this program's still: a panic that ended no more than a task gives it back all the same.
pub(super) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

/// The terminal, until this is dropped.
pub(super) struct ScreenTerminal(pub(super) Screen);

impl ScreenTerminal {
    pub(super) fn take() -> std::io::Result<Self> {
        TAKEN.store(true, Ordering::SeqCst);
        // A line on stderr would tear the screen.
        speech::keep_aside(true);
        let begun = Self::begin();
        if begun.is_err() {
            restore();
        }
        begun
    }

    fn begin() -> std::io::Result<Self> {
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(ScreenTerminal(Terminal::new(CrosstermBackend::new(stdout()))?))
    }
}

impl Drop for ScreenTerminal {
    fn drop(&mut self) {
        restore();
    }
}

/// The keys, read on a thread of their own: reading waits.
pub(super) fn keyboard() -> std::io::Result<UnboundedReceiver<KeyEvent>> {
    let (sender, keys) = unbounded_channel();
    std::thread::Builder::new().name("tooz-keyboard".to_owned()).spawn(move || {
        while !sender.is_closed() {
            let reading = READING.lock();
            if !is_taken() {
                drop(reading);
                std::thread::sleep(KEY_PATIENCE);
                continue;
            }
            match poll(KEY_PATIENCE).and_then(|some| if some { read().map(Some) } else { Ok(None) }) {
                Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => drop(sender.send(key)),
                Ok(_) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    use nix::pty::openpty;
    use nix::sys::termios::{LocalFlags, tcgetattr};

    use super::*;

    /// Says that this test program is the one with the screen.
    const HAS_SCREEN: &str = "TOOZ_TEST_HAS_SCREEN";

    /// This test once more, in a process that has the terminal.
    fn with_screen(terminal: &OwnedFd) -> Command {
        let end = || Stdio::from(terminal.try_clone().unwrap());
        let mut other = Command::new("setsid");
        other.args(["--ctty", "--wait"]).arg(std::env::current_exe().unwrap());
        other.args([
            "--exact",
            "--nocapture",
            "commands::status::terminal::tests::a_panic_gives_the_terminal_back_as_it_was",
        ]);
        other.env(HAS_SCREEN, "yes").stdin(end()).stdout(end()).stderr(end());
        other
    }

    #[test]
    fn a_panic_gives_the_terminal_back_as_it_was() {
        if std::env::var_os(HAS_SCREEN).is_some() {
            crate::report_panics();
            let _screen = ScreenTerminal::take().unwrap();
            let _keys = keyboard().unwrap();
            panic!("on purpose");
        }
        let terminal = openpty(None, None).unwrap();
        let before = tcgetattr(&terminal.slave).unwrap();
        let mut other = with_screen(&terminal.slave).spawn().unwrap();
        let mut master = File::from(terminal.master.try_clone().unwrap());
        let reading = std::thread::spawn(move || {
            let (mut written, mut bytes) = (Vec::new(), [0; 1024]);
            // A terminal that was hung up answers by an error.
            while let Ok(length @ 1..) = master.read(&mut bytes) {
                written.extend_from_slice(&bytes[..length]);
            }
            String::from_utf8_lossy(&written).into_owned()
        });
        assert!(!other.wait().unwrap().success());
        let after = tcgetattr(&terminal.slave).unwrap();
        drop(terminal);
        let written = reading.join().unwrap();
        let at = |text: &str| written.find(text).unwrap_or_else(|| panic!("{text:?} is missing: {written:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("this is a bug"), "{written:?}");
        assert!(written.contains("on purpose"), "{written:?}");
        assert_eq!(after.local_flags, before.local_flags);
        assert!(after.local_flags.contains(LocalFlags::ICANON | LocalFlags::ECHO));
    }
}
