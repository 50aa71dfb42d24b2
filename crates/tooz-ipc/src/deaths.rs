//! How a session hears of the death of others: each keeps a file open for writing, and the kernel tells when that is closed.
//!
//! The kernel tells of a closed file before it drops the lock of another that is closed with it, and a dying process may take its time for what is between the
//! two: so there are second looks.

use std::collections::VecDeque;
use std::future::pending;
use std::io;
use std::path::Path;
use std::time::Duration;

use inotify::{Inotify, WatchMask};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

const DELAYS: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(150),
    Duration::from_millis(500),
];
/// How many looks may be due after one delay. What is beyond that is found by the sweep.
const MOST: usize = 1024;

/// The deaths that are told.
pub(crate) struct Deaths {
    inotify: AsyncFd<Inotify>,
    closed: VecDeque<usize>,
    rechecks: [VecDeque<(Instant, usize)>; DELAYS.len()],
}

impl Deaths {
    /// Begins to listen. The kernel allows a user some 128 instances; there may be no more.
    pub(crate) fn start(sessions: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        inotify.watches().add(sessions, WatchMask::CLOSE_WRITE | WatchMask::ONLYDIR)?;
        // Tokio renamed this to an unsafe function, because a strange `AsRawFd` could name a descriptor that it does not own.
        // An `Inotify` owns its one descriptor until it is dropped, so that the safe name is as good here.
        #[allow(deprecated)]
        let inotify = AsyncFd::new(inotify)?;
        Ok(Deaths { inotify, closed: VecDeque::new(), rechecks: Default::default() })
    }

    /// The slot of a session that may be dead. Dropped before, it loses nothing.
    pub(crate) async fn next(&mut self) -> io::Result<usize> {
        loop {
            if let Some(slot) = self.closed.pop_front() {
                return Ok(slot);
            }
            let first = self.rechecks.iter_mut().filter(|queue| !queue.is_empty());
            let due = first.min_by_key(|queue| queue.front().map(|(due, _)| *due));
            tokio::select! {
                ready = self.inotify.readable_mut() => {
                    let mut ready = ready?;
                    if let Ok(closed) = ready.try_io(|inotify| read(inotify.get_mut())) {
                        self.closed.extend(closed?);
                    }
                }
                slot = due_one(due) => return Ok(slot),
            }
        }
    }

    /// Looks at a slot again later, as it was not dead yet.
    pub(crate) fn expect(&mut self, slot: usize) {
        let now = Instant::now();
        for (queue, delay) in self.rechecks.iter_mut().zip(DELAYS) {
            if queue.len() < MOST {
                queue.push_back((now + delay, slot));
            }
        }
    }
}

async fn due_one(queue: Option<&mut VecDeque<(Instant, usize)>>) -> usize {
    if let Some(queue) = queue
        && let Some((due, _)) = queue.front().copied()
    {
        sleep_until(due).await;
        if let Some((_, slot)) = queue.pop_front() {
            return slot;
        }
    }
    pending().await
}

fn read(inotify: &mut Inotify) -> io::Result<Vec<usize>> {
    let mut buffer = [0; 4096];
    let events = inotify.read_events(&mut buffer)?;
    Ok(events.filter_map(|event| event.name?.to_str()?.parse().ok()).collect())
}
