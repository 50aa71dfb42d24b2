//! How many requests are under way at a time, so that a heartbeat never has to wait behind ten thousand of them on its connection.
//!
//! Each kind has a gate of its own: what gives something back does not wait behind what asks for something. Heartbeats, and what reads
//! the mail, pass by.

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many of one kind at a time. A server answers them within some milliseconds, and more would not make it faster.
const AT_ONCE: usize = 64;

/// The gates of one session.
pub(crate) struct Gates {
    enter: Semaphore,
    leave: Semaphore,
    others: Semaphore,
    /// For changes that write into a mailbox: those of the same one refuse each other. Several mailboxes share a gate.
    mailboxes: [Semaphore; 16],
}

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) enum Gate {
    /// A place in a queue.
    Enter,
    /// The end of one.
    Leave,
    /// Something about groups and their members, or a question.
    Others,
}

impl Gates {
    pub(crate) fn new() -> Self {
        let gate = || Semaphore::new(AT_ONCE);
        let mailboxes = std::array::from_fn(|_| Semaphore::new(1));
        Gates { enter: gate(), leave: gate(), others: gate(), mailboxes }
    }

    /// Waits until it is this one's turn; first come, first served. The turn lasts as long as what is answered.
    pub(crate) async fn pass(&self, gate: Gate) -> Option<SemaphorePermit<'_>> {
        let gate = match gate {
            Gate::Enter => &self.enter,
            Gate::Leave => &self.leave,
            Gate::Others => &self.others,
        };
        // They are never closed.
        gate.acquire().await.ok()
    }

    /// Waits until no other change of this session is under way to the mailbox of the session with that id.
    pub(crate) async fn pass_to_mailbox(&self, session: i64) -> Option<SemaphorePermit<'_>> {
        let gate = usize::try_from(session.unsigned_abs() % 16).unwrap_or(0);
        self.mailboxes[gate].acquire().await.ok()
    }
}
