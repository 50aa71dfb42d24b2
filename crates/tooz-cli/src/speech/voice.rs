//! The thread that speaks. A terminal that was stopped with Ctrl-S, or a log whose disk hangs, must not keep a deadline from being moved, nor
//! the guard from ending CMD.

use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigSet, Signal};
use tooz::driver::Mutex;

use super::event::Event;
use super::manner::{EventsError, Manner};
use super::sink::EventSink;
use super::words::{on_one_line, plain};
use super::{stamp, waiting};

/// How long is waited for the last words before it is looked what keeps them from being written: twice as long for a reader that does not read.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// So many times as long for a machine that gives this program no time to write them.
const PATIENCE: usize = 20;

/// How long of that a slow reader of events may take: what people are told comes behind it.
const LAST_EVENTS: Duration = Duration::from_millis(500);

/// How many writes have begun or ended: with an odd number one is under way, and may wait for a reader.
static WRITES: AtomicU64 = AtomicU64::new(0);

static MANNER: OnceLock<Manner> = OnceLock::new();
static VOICE: Mutex<Option<Voice>> = Mutex::new(None);

/// What is said while a screen has the terminal, for the screen to show.
static ASIDE: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// What is to be written.
enum Utterance {
    /// For people, at that moment.
    Sentence(SystemTime, String),
    Line(String),
    Event(String),
    /// All before it has been written.
    End(Sender<()>),
}

struct Voice {
    words: Sender<Utterance>,
    has_events: bool,
}

/// From now on it is spoken in this manner. A second call changes nothing.
pub(crate) fn begin(manner: Manner) -> Result<(), EventsError> {
    let events = manner.open_events()?;
    let _ = MANNER.set(manner);
    start(events);
    Ok(())
}

/// How is spoken.
pub(crate) fn manner() -> Manner {
    MANNER.get().copied().unwrap_or_default()
}

fn start(events: Option<File>) {
    let (words, heard) = channel();
    let has_events = events.is_some();
    let speaking = std::thread::Builder::new()
        .name("tooz-voice".to_owned())
        .spawn(move || speak(&heard, events.map(EventSink::new)));
    if speaking.is_ok() {
        *VOICE.lock() = Some(Voice { words, has_events });
    }
}

/// Says what happened, without waiting until it was read.
pub(crate) fn tell(event: &Event) {
    if event.is_heard_by(manner().quiet) {
        utter(for_people(event));
    }
    utter(Utterance::Event(event.json()));
}

/// What is written on stderr of it.
fn for_people(event: &Event) -> Utterance {
    if manner().json {
        return Utterance::Line(event.json());
    }
    Utterance::Sentence(SystemTime::now(), event.sentence().to_owned())
}

/// A line of a library's trace, as it is.
pub(super) fn line(text: String) {
    utter(Utterance::Line(text));
}

fn with_time(moment: SystemTime, sentence: &str) -> String {
    format!("{} {}", stamp::local(moment), on_one_line(&format!("tooz: {sentence}")))
}

/// From now on it is kept for a screen, or written again.
pub(crate) fn keep_aside(is_kept: bool) {
    *ASIDE.lock() = is_kept.then(Vec::new);
}

/// What was said meanwhile.
pub(crate) fn said_aside() -> Vec<String> {
    ASIDE.lock().as_mut().map(std::mem::take).unwrap_or_default()
}

fn utter(utterance: Utterance) {
    if let Some(aside) = &mut *ASIDE.lock() {
        match utterance {
            Utterance::Sentence(_, sentence) => aside.push(on_one_line(&sentence)),
            Utterance::Line(line) => aside.push(line),
            Utterance::End(written) => drop(written.send(())),
            Utterance::Event(_) => {}
        }
        return;
    }
    let voice = VOICE.lock();
    match (&*voice, utterance) {
        (Some(voice), Utterance::Event(_)) if !voice.has_events => {}
        (Some(voice), utterance) => drop(voice.words.send(utterance)),
        // Before the beginning, and where no thread can be had.
        (None, Utterance::Line(line)) => write_line(&line),
        (None, Utterance::Sentence(moment, sentence)) => write_line(&with_time(moment, &sentence)),
        (None, _) => {}
    }
}

/// Waits until all is written, but not for a reader that does not read.
pub(crate) fn finish() {
    let (written, all) = channel();
    utter(Utterance::End(written));
    let mut before = None;
    for _ in 0..PATIENCE {
        let is_over = !matches!(all.recv_timeout(LAST_WORDS), Err(RecvTimeoutError::Timeout));
        let now = Some(WRITES.load(Ordering::Relaxed)).filter(|count| count % 2 == 1);
        if is_over || (now.is_some() && now == before) {
            return;
        }
        before = now;
    }
}

fn speak(words: &Receiver<Utterance>, mut events: Option<EventSink>) {
    // CMD has the terminal's foreground. After `stty tostop` a word from the background would stop this program, and with it the heartbeats.
    let _ = SigSet::from(Signal::SIGTTOU).thread_block();
    for utterance in words {
        match utterance {
            Utterance::Sentence(moment, sentence) => write_line(&with_time(moment, &sentence)),
            Utterance::Line(line) => write_line(&line),
            Utterance::Event(event) => {
                let wrong = events.as_mut().and_then(|events| events.write(&event));
                if let Some(error) = wrong.filter(|_| manner().is_first) {
                    complain(&error);
                }
            }
            Utterance::End(written) => {
                if let Some(events) = &mut events {
                    events.finish(LAST_EVENTS);
                }
                let _ = written.send(());
            }
        }
    }
}

/// The one that asked for events gets none: that is no reason to end what runs, but to be told.
fn complain(error: &io::Error) {
    let why = plain(&error.to_string());
    let message = format!("--events-fd: events can't be written: {why}; it is tried again with each");
    match for_people(&Event::new("warning", message.clone()).with("message", message)) {
        Utterance::Sentence(moment, sentence) => write_line(&with_time(moment, &sentence)),
        Utterance::Line(line) => write_line(&line),
        _ => {}
    }
}

/// A caller that closed stderr does not want to know.
fn write_line(line: &str) {
    let line = format!("{line}\n");
    WRITES.fetch_add(1, Ordering::Relaxed);
    waiting::beside(|| drop(io::stderr().write_all(line.as_bytes())));
    WRITES.fetch_add(1, Ordering::Relaxed);
}
