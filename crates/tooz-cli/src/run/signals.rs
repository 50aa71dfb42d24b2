//! The signals that somebody sends to `tooz`.

use std::future::poll_fn;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal;
use crate::exit::Failure;

const FORWARDED: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
];

/// The signals that have arrived, one after another.
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// From now on they are handled. One that was ignored when `tooz` was started (`nohup`, a shell's `&` in a script) stays
    /// ignored, here and in CMD.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let ignored = ignored();
        let mut streams = Vec::new();
        for one in FORWARDED {
            let number = one as i32;
            if ignored >> (number - 1) & 1 == 0 {
                let stream = signal(SignalKind::from_raw(number))
                    .map_err(|error| Failure::error(format!("{one} can't be handled: {error}")))?;
                streams.push((one, stream));
            }
        }
        Ok(Signals(streams))
    }

    /// The next one, whichever.
    pub(super) async fn next(&mut self) -> Signal {
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

    /// The next one that ends a wait. What wants a stop stops this job, as if there were no handler.
    pub(crate) async fn next_to_end(&mut self) -> i32 {
        loop {
            match self.next().await {
                Signal::SIGTSTP if terminal::has_job_control() => terminal::stop_job(),
                Signal::SIGTSTP => {}
                signal => return signal as i32,
            }
        }
    }
}

/// The set of ignored signals, as the kernel shows it; empty where it does not.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}
