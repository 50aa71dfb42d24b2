//! The resource's side of fencing.

use crate::base::mutex::Mutex;
use crate::driver::lock::{FencingToken, LockMode};

/// Refuses what comes from a holder that others have overtaken. The resource asks it before every use.
///
/// A lock can't stop a holder that was paused for longer than its lease; the resource that the lock protects can, if every
/// request brings its token. Exclusive use is refused below the highest token seen of any mode, shared use only below the
/// highest exclusive one, since shared grants that overlap may come in either order. (The idea: Martin Kleppmann, "How to
/// do distributed locking", 2016.)
///
/// ```
/// use tooz_core::{FenceGate, FencingToken, LockMode};
/// let gate = FenceGate::new();
/// assert!(gate.admit(FencingToken(34), LockMode::Exclusive));
/// assert!(!gate.admit(FencingToken(33), LockMode::Exclusive), "a holder from the past");
/// ```
#[derive(Debug, Default)]
pub struct FenceGate(Mutex<Highest>);

#[derive(Debug, Default)]
struct Highest {
    any: Option<FencingToken>,
    exclusive: Option<FencingToken>,
}

impl FenceGate {
    /// A gate that has seen nothing. One that outlives the process is begun with [`admit`](Self::admit) of what was stored.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the holder of this token may go on; remembers the token if so.
    pub fn admit(&self, token: FencingToken, mode: LockMode) -> bool {
        let mut highest = self.0.lock();
        let limit = match mode {
            LockMode::Exclusive => highest.any,
            LockMode::Shared => highest.exclusive,
        };
        if limit.is_some_and(|limit| token < limit) {
            return false;
        }
        highest.any = highest.any.max(Some(token));
        if mode == LockMode::Exclusive {
            highest.exclusive = highest.exclusive.max(Some(token));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_tokens_pass_in_any_order_until_a_writer_came() {
        let gate = FenceGate::new();
        assert!(gate.admit(FencingToken(5), LockMode::Shared));
        assert!(gate.admit(FencingToken(4), LockMode::Shared));
        assert!(!gate.admit(FencingToken(4), LockMode::Exclusive));
        assert!(gate.admit(FencingToken(6), LockMode::Exclusive));
        assert!(!gate.admit(FencingToken(5), LockMode::Shared));
    }
}
