//! The signals that are sent to `tooz`.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::dispositions::Ignored;
use super::terminal;
use crate::failure::CommandFailure;
use crate::{exit, speech};

/// So long what is held is given back, whatever signals come.
const TIDYING_UP: Duration = Duration::from_secs(1);

const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
];

/// Whether signals are handled. Once they are, they are so for ever.
static LISTENED: AtomicBool = AtomicBool::new(false);

/// A signal has ended a wait: that is told, and is the exit code.
pub(crate) fn ended_by(signal: i32) -> CommandFailure {
    speech::tell(&speech::command::interrupted(signal, "waiting is given up"));
    CommandFailure::quiet(exit::by_signal(signal))
}

/// The signals that have arrived, one after another.
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// From now on they are handled. One that was ignored when `tooz` was started (`nohup`, a shell's `&` in a script) stays
    /// ignored, here and in CMD.
    pub(crate) fn listen() -> Result<Self, CommandFailure> {
        let ignored = Ignored::at_start();
        let mut streams = Vec::new();
        for one in FORWARDED {
            if !ignored.has(one) {
                let stream = signal(SignalKind::from_raw(one as i32))
                    .map_err(|error| CommandFailure::error(format!("{one} can't be handled: {error}")))?;
                streams.push((one, stream));
            }
        }
        LISTENED.store(true, Ordering::Relaxed);
        Ok(Signals(streams))
    }

    /// Where this program handles signals already, they are handled here too; else they end it without a word.
    pub(crate) fn listen_on() -> Option<Self> {
        LISTENED.load(Ordering::Relaxed).then(Signals::listen)?.ok()
    }

    /// The next one, whichever.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, stream) in &mut self.0 {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that ends a wait. A signal that wants a stop stops this job, as if there were no handler.
    pub(crate) async fn next_to_end(&mut self) -> i32 {
        loop {
            match self.next().await {
                Signal::SIGTSTP if terminal::has_job_control() => terminal::stop_job(),
                Signal::SIGTSTP => {}
                signal => return signal as i32,
            }
        }
    }

    /// A signal that ends a tidying up, which on a healthy backend takes milliseconds: a sender of several signals only means CMD.
    pub(crate) async fn end_tidying_up(&mut self) -> i32 {
        let patience = sleep(TIDYING_UP);
        let signal = self.next_to_end().await;
        patience.await;
        signal
    }
}
