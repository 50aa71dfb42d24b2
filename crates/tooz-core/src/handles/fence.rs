//! The resource's side of fencing.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
///
/// // What it has seen is stored with what it protects, and outlives the process.
/// let stored = serde_json::to_string(&gate)?;
/// let gate: FenceGate = serde_json::from_str(&stored)?;
/// assert!(!gate.admit(FencingToken(33), LockMode::Exclusive), "still from the past");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct FenceGate(Mutex<Highest>);

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Highest {
    any: Option<FencingToken>,
    exclusive: Option<FencingToken>,
}

impl FenceGate {
    /// A gate that has seen nothing. One that outlives the process is stored by `serde`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The highest token seen in that mode: of exclusive holders alone, or of any.
    pub fn highest(&self, mode: LockMode) -> Option<FencingToken> {
        let highest = self.0.lock();
        match mode {
            LockMode::Exclusive => highest.exclusive,
            LockMode::Shared => highest.any,
        }
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

/// A copy, which remembers for itself from then on.
impl Clone for FenceGate {
    fn clone(&self) -> Self {
        FenceGate(Mutex::new(*self.0.lock()))
    }
}

impl Serialize for FenceGate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let highest = *self.0.lock();
        highest.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for FenceGate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Highest::deserialize(deserializer).map(|highest| FenceGate(Mutex::new(highest)))
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

    #[test]
    fn what_was_seen_can_be_stored() {
        let gate = FenceGate::new();
        assert!(gate.admit(FencingToken(5), LockMode::Shared) && gate.admit(FencingToken(4), LockMode::Shared));
        let stored = serde_json::to_string(&gate).unwrap();
        assert_eq!(stored, r#"{"any":5,"exclusive":null}"#);
        let again: FenceGate = serde_json::from_str(&stored).unwrap();
        assert_eq!(
            (again.highest(LockMode::Shared), again.highest(LockMode::Exclusive)),
            (Some(FencingToken(5)), None)
        );
        assert!(!again.admit(FencingToken(4), LockMode::Exclusive) && again.admit(FencingToken(3), LockMode::Shared));
        let copy = gate.clone();
        assert!(copy.admit(FencingToken(9), LockMode::Exclusive));
        assert_eq!(gate.highest(LockMode::Exclusive), None, "a copy remembers for itself");
    }
}
