//! Second looks at files that were closed.
//!
//! The kernel tells of a closed file just before it drops the file's locks: a look at once may find the dead alive, so there is another
//! after a moment, and again later in case that processor was busy.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::time::Duration;

use inotify::WatchDescriptor;
use tokio::time::{Instant, sleep_until};

const DELAYS: [Duration; 3] = [Duration::from_millis(2), Duration::from_millis(40), Duration::from_millis(500)];

/// The looks that are due, in one queue for each delay, so that the first of a queue is due first.
#[derive(Default)]
pub(crate) struct Rechecks {
    queues: [VecDeque<Recheck>; DELAYS.len()],
}

struct Recheck {
    due: Instant,
    watch: WatchDescriptor,
    name: OsString,
}

impl Rechecks {
    /// Expects the rechecks of files that were closed just now.
    pub(crate) fn expect(&mut self, closed: Vec<(WatchDescriptor, OsString)>) {
        let now = Instant::now();
        for (watch, name) in closed {
            for (queue, delay) in self.queues.iter_mut().zip(DELAYS) {
                let due = now + delay;
                match queue.back_mut() {
                    // One that is closed again and again is looked at again when that is over.
                    Some(last) if last.watch == watch && last.name == name => last.due = due,
                    _ => queue.push_back(Recheck { due, watch: watch.clone(), name: name.clone() }),
                }
            }
        }
    }

    /// Waits for the next one. Dropped before, it loses nothing.
    pub(crate) async fn next(&mut self) -> (WatchDescriptor, OsString) {
        let first = self.queues.iter_mut().filter(|queue| !queue.is_empty());
        let Some(queue) = first.min_by_key(|queue| queue.front().map(|recheck| recheck.due)) else {
            return std::future::pending().await;
        };
        if let Some(due) = queue.front().map(|recheck| recheck.due) {
            sleep_until(due).await;
        }
        match queue.pop_front() {
            Some(recheck) => (recheck.watch, recheck.name),
            None => std::future::pending().await,
        }
    }
}
