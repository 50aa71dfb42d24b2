//! Rounds of a fuzzer: a seed for each, told when it fails.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the fuzzers run where nothing else is said.
const SHORT: Duration = Duration::from_secs(4);

/// A round that takes longer hangs.
const ROUND: Duration = Duration::from_mins(1);

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Runs rounds, so many beside each other, each on a thread of its own with a seed of its own, until the time is over.
pub(crate) fn run(name: &str, beside: usize, round: fn(u64)) {
    let given = variable("TOOZ_FUZZ_SEED");
    let time = variable("TOOZ_FUZZ_SECONDS").map_or(SHORT, Duration::from_secs);
    let begun = Instant::now();
    let mut rounds = 0_usize;
    while rounds == 0 || begun.elapsed() < time {
        let started: Vec<_> = (0..beside)
            .map(|_| {
                let seed = given.unwrap_or_else(|| fastrand::u64(..));
                let (sender, ended) = mpsc::channel();
                std::thread::spawn(move || {
                    let _ = sender.send(catch_unwind(AssertUnwindSafe(|| round(seed))));
                });
                (seed, ended)
            })
            .collect();
        for (seed, ended) in started {
            let again = format!("TOOZ_FUZZ_SEED={seed} takes the same decisions again");
            match ended.recv_timeout(ROUND) {
                Ok(Ok(())) => rounds += 1,
                Ok(Err(panic)) => {
                    eprintln!("{name}: a round has failed after {rounds}; {again}");
                    resume_unwind(panic);
                }
                Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                    panic!("{name}: a round after {rounds} has not ended within {ROUND:?}; {again}")
                }
            }
        }
    }
    println!("{name}: {rounds} rounds in {:?}", begun.elapsed());
}
