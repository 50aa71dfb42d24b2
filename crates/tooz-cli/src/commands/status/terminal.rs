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
            if !TAKEN.load(Ordering::SeqCst) {
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
