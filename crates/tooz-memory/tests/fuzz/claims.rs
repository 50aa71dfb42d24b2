//! What each believes to hold: no two whose grants exclude each other, and tokens that grow.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tooz_core::{FencingToken, LockMode, Loss};

/// Every grant that was handed out and is not known to be lost.
#[derive(Default)]
pub(crate) struct Claims(Mutex<HashMap<String, Held>>);

#[derive(Default)]
struct Held {
    grants: Vec<(LockMode, FencingToken, Loss)>,
    /// The highest token of any grant, and of an exclusive one.
    highest: [u64; 2],
}

impl Claims {
    /// This grant was given just now.
    pub(crate) fn check_in(&self, what: &str, mode: LockMode, token: FencingToken, loss: Loss) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let held = all.entry(what.to_owned()).or_default();
        held.grants.retain(|(_, _, loss)| !loss.is_lost());
        for (other, theirs, others_loss) in &held.grants {
            // Both are asked one after the other: only a grant that is held before and after has been held beside the other.
            let both = other.conflicts_with(mode) && !loss.is_lost() && !others_loss.is_lost() && !loss.is_lost();
            assert!(!both, "{what}: {mode:?} with token {token} beside {other:?} with token {theirs}");
        }
        let conflicting = held.highest[usize::from(mode == LockMode::Shared)];
        // A grant that was lost before it was handed out may come later than the next one.
        assert!(
            token.0 > conflicting || loss.is_lost(),
            "{what}: {mode:?} got token {token} after a conflicting one got {conflicting}"
        );
        held.highest[0] = held.highest[0].max(token.0);
        if mode == LockMode::Exclusive {
            held.highest[1] = held.highest[1].max(token.0);
        }
        held.grants.push((mode, token, loss));
    }
}
