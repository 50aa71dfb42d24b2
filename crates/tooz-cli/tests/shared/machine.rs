//! How fast the machine is just now: what it gives to others first, no promise about time can count.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// So many starts of a process are what happens one behind the other between two things that are timed: the command's, its guard's, that of
/// what becomes CMD, CMD's own, and what servers do meanwhile.
const STARTS: u32 = 8;

const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Starts `tooz` again and again, and takes note of the slowest.
pub(crate) struct Machine {
    pace: Arc<Mutex<Pace>>,
    is_over: Arc<AtomicBool>,
}

#[derive(Default)]
struct Pace {
    slowest: Duration,
    under_way: Option<Instant>,
}

impl Machine {
    pub(crate) fn watch() -> Self {
        let (pace, is_over) = (Arc::<Mutex<Pace>>::default(), Arc::<AtomicBool>::default());
        let machine = Machine { pace: Arc::clone(&pace), is_over: Arc::clone(&is_over) };
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                pace.lock().unwrap().under_way = Some(Instant::now());
                let mut start = Command::new(env!("CARGO_BIN_EXE_tooz"));
                start.arg("--version").stdout(Stdio::null()).status().unwrap();
                let mut pace = pace.lock().unwrap();
                let took = pace.under_way.take().map(|begin| begin.elapsed()).unwrap_or_default();
                pace.slowest = pace.slowest.max(took);
                drop(pace);
                std::thread::sleep(BETWEEN_LOOKS);
            }
        });
        machine
    }

    /// How much longer than promised something may have taken for the machine's sake; `least` on one that is idle.
    pub(crate) fn slack(&self, least: Duration) -> Duration {
        let pace = self.pace.lock().unwrap();
        let under_way = pace.under_way.map(|begin| begin.elapsed()).unwrap_or_default();
        least.max(pace.slowest.max(under_way) * STARTS)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
