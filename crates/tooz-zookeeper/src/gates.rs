//! How many requests are under way at a time, so that a heartbeat never has to wait behind ten thousand of them on its connection.
//!
//! Each kind has a gate of its own: what gives something back does not wait behind what asks for something, nor behind what has to wait for
//! others' changes. Heartbeats, and what reads the mail, pass by.

use std::array;

use tokio::sync::{Semaphore, SemaphorePermit};

/// So many of one kind at a time. A server answers them within some milliseconds, and more would not make it faster.
const AT_ONCE: usize = 64;

/// The gates of one session.
pub(crate) struct Gates {
    /// One of each kind.
    kinds: [Semaphore; 5],
    /// For changes that write into a mailbox: those of the same one refuse each other. Several mailboxes share a gate.
    mailboxes: [Semaphore; 16],
}

/// What is asked.
#[derive(Clone, Copy)]
pub(crate) enum RequestKind {
    /// A place in a queue.
    Enter,
    /// The end of one.
    Leave,
    /// The end of another session's.
    Break,
    /// The end of a membership.
    LeaveGroup,
    /// Something else about groups and their members, or a question.
    Others,
}

impl Gates {
    pub(crate) fn new() -> Self {
        Gates { kinds: array::from_fn(|_| Semaphore::new(AT_ONCE)), mailboxes: array::from_fn(|_| Semaphore::new(1)) }
    }

    /// Waits until it is this one's turn; first come, first served. The turn lasts as long as what is answered.
    pub(crate) async fn pass(&self, gate: RequestKind) -> Option<SemaphorePermit<'_>> {
        // They are never closed.
        self.kinds[gate as usize].acquire().await.ok()
    }

    /// Waits until no other change of this session is under way to the mailbox of the session with that id.
    pub(crate) async fn pass_to_mailbox(&self, session: i64) -> Option<SemaphorePermit<'_>> {
        let gate = usize::try_from(session.unsigned_abs() % 16).unwrap_or(0);
        self.mailboxes[gate].acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_kind_has_a_gate_of_its_own() {
        use RequestKind::{Break, Enter, Leave, LeaveGroup, Others};
        let gates = Gates::new();
        let mut turns = Vec::new();
        for gate in [Enter, Leave, Break, LeaveGroup, Others] {
            for _ in 0..AT_ONCE {
                turns.push(gates.pass(gate).await.unwrap());
            }
            assert_eq!(gates.kinds[gate as usize].available_permits(), 0);
        }
        for session in [i64::MIN, -1, 0, 3, i64::MAX] {
            assert!(gates.pass_to_mailbox(session).await.is_some());
        }
    }
}
