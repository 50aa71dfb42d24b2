//! What waits to be withdrawn, together: see `withdrawal.rs`.

use tokio::sync::oneshot;
use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::history;
use crate::request::BATCH;

/// How many keys one transaction withdraws, beside what it does with the session's own and with its stamp.
const MOST: usize = BATCH - 2 - history::OPS;

/// What is to be withdrawn, and whose turn it is to do it.
#[derive(Default)]
pub(crate) struct Withdrawals {
    waiting: Mutex<Vec<PendingWithdrawal>>,
    /// Held by the call that writes for all.
    pub(crate) writing: tokio::sync::Mutex<()>,
    /// Held by the call that reads the session's key for all.
    pub(crate) reading: tokio::sync::Mutex<()>,
}

/// One that waits to be withdrawn.
pub(crate) struct PendingWithdrawal {
    pub(crate) places: Vec<String>,
    pub(crate) done: oneshot::Sender<Result<()>>,
}

impl Withdrawals {
    pub(crate) fn wait(&self, places: &[String]) -> oneshot::Receiver<Result<()>> {
        let (done, is_done) = oneshot::channel();
        self.waiting.lock().push(PendingWithdrawal { places: places.to_vec(), done });
        is_done
    }

    /// Those that came first, as many as one transaction takes.
    pub(crate) fn take_some(&self) -> Vec<PendingWithdrawal> {
        let mut waiting = self.waiting.lock();
        let mut places = 0;
        let fits = |one: &&PendingWithdrawal| {
            let is_first = places == 0;
            places += one.places.len().max(1);
            is_first || places <= MOST
        };
        let count = waiting.iter().take_while(fits).count();
        waiting.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_withdrawn_at_once_as_one_transaction_takes() {
        let withdrawals = Withdrawals::default();
        let place = |count: usize| vec!["place".to_owned(); count];
        let _asked: Vec<_> = [2, 56, 0, 2, 100, 1].map(|count| withdrawals.wait(&place(count))).into();
        let taken = || withdrawals.take_some().iter().map(|one| one.places.len()).collect::<Vec<_>>();
        assert_eq!(taken(), [2, 56, 0]);
        assert_eq!(taken(), [2]);
        assert_eq!(taken(), [100], "more than fits is the server's to refuse");
        assert_eq!(taken(), [1]);
        assert!(taken().is_empty());
    }
}
