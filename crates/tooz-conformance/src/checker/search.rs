//! The search for a legal order of operations on one lock.
//!
//! It is Wing and Gong's with Lowe's memory of configurations seen before ("Testing for linearizability", 2017), and without recursion,
//! since histories are long. A configuration names what is done behind the first operation that is not, so that its size is
//! that of what was under way at once, and not of the history.

use std::collections::HashSet;

use crate::history::Mode;

/// So many configurations are looked at: a search that is longer has lost its way among what may have been lost.
const MOST: usize = 1_000_000;

/// What happens to a lock. The number tells whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OperationKind {
    Take {
        who: usize,
        mode: Mode,
        /// It was never given back: from then on it may go at any time.
        is_lost: bool,
    },
    Refuse(usize, Mode),
    Give(usize, Mode),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: OperationKind,
    pub(crate) call: u64,
    pub(crate) reply: u64,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SearchEnd {
    Legal,
    /// Nothing explains the answer of that moment, whatever the order of what was before.
    Stuck(u64),
    TooLong,
}

/// The holders of a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct LockHolders {
    writer: Option<usize>,
    readers: Vec<usize>,
    /// Those among them that may go at any time.
    fading: Vec<usize>,
}

impl LockHolders {
    fn admits(&self, mode: Mode) -> bool {
        self.writer.is_none() && (mode == Mode::Shared || self.readers.is_empty())
    }

    fn with(&self, who: usize, mode: Mode, is_lost: bool) -> LockHolders {
        let mut state = self.clone();
        match mode {
            Mode::Exclusive => state.writer = Some(who),
            Mode::Shared => insert(&mut state.readers, who),
        }
        if is_lost {
            insert(&mut state.fading, who);
        }
        state
    }

    fn without(&self, who: usize) -> LockHolders {
        let mut state = self.clone();
        state.writer = state.writer.filter(|writer| *writer != who);
        state.readers.retain(|reader| *reader != who);
        state.fading.retain(|one| *one != who);
        state
    }

    fn has(&self, who: usize) -> bool {
        self.writer == Some(who) || self.readers.binary_search(&who).is_ok()
    }
}

fn insert(list: &mut Vec<usize>, who: usize) {
    let place = list.partition_point(|other| *other < who);
    list.insert(place, who);
}

/// How far an order has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    /// The first, by time of call, that is not done.
    first: usize,
    /// What is done of those behind it, in order.
    done: Vec<usize>,
    holders: LockHolders,
}

pub(crate) struct Search {
    /// By time of call.
    operations: Vec<Operation>,
    /// Nothing needs a reason to be refused: then what was lost may as well go at once.
    lost_goes_at_once: bool,
}

impl Search {
    pub(crate) fn new(operations: &[Operation]) -> Self {
        let mut operations = operations.to_vec();
        operations.sort_by_key(|operation| operation.call);
        let is_refusal = |operation: &Operation| matches!(operation.kind, OperationKind::Refuse(..));
        let lost_goes_at_once = !operations.iter().any(is_refusal);
        Search { operations, lost_goes_at_once }
    }

    pub(crate) fn run(&self) -> SearchEnd {
        let start = Configuration { first: 0, done: Vec::new(), holders: LockHolders::default() };
        let mut seen = HashSet::from([start.clone()]);
        // Depth first: the front of the history is settled before the rest is looked at.
        let mut open = vec![start];
        let mut furthest = 0;
        while let Some(configuration) = open.pop() {
            if configuration.first == self.operations.len() {
                return SearchEnd::Legal;
            }
            let (candidates, limit) = self.candidates(&configuration);
            furthest = furthest.max(limit);
            let faded = configuration
                .holders
                .fading
                .iter()
                .map(|who| Configuration { holders: configuration.holders.without(*who), ..configuration.clone() });
            let taken = candidates.iter().rev().filter_map(|index| self.after(&configuration, *index));
            for next in faded.chain(taken) {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
            if seen.len() > MOST {
                return SearchEnd::TooLong;
            }
        }
        SearchEnd::Stuck(furthest)
    }

    /// The operations that may come next, the sooner the reply the earlier: those that were called before the first reply that is still missing,
    /// which is answered too.
    fn candidates(&self, configuration: &Configuration) -> (Vec<usize>, u64) {
        let mut limit = u64::MAX;
        let mut candidates = Vec::new();
        for (index, operation) in self.operations.iter().enumerate().skip(configuration.first) {
            if operation.call > limit {
                break;
            }
            if configuration.done.binary_search(&index).is_err() {
                limit = limit.min(operation.reply);
                candidates.push(index);
            }
        }
        // Later calls may lie before the limit that was found last; those after it are out.
        candidates.retain(|index| self.operations[*index].call <= limit);
        candidates.sort_by_key(|index| self.operations[*index].reply);
        (candidates, limit)
    }

    /// The configuration after that operation; `None`: a lock does not do that.
    fn after(&self, configuration: &Configuration, index: usize) -> Option<Configuration> {
        let holders = &configuration.holders;
        let holders = match self.operations[index].kind {
            OperationKind::Take { mode, .. } if !holders.admits(mode) => return None,
            OperationKind::Take { is_lost: true, .. } if self.lost_goes_at_once => holders.clone(),
            OperationKind::Take { who, mode, is_lost } => holders.with(who, mode, is_lost),
            OperationKind::Refuse(_, mode) if holders.admits(mode) => return None,
            OperationKind::Refuse(..) => holders.clone(),
            OperationKind::Give(who, _) if !holders.has(who) => return None,
            OperationKind::Give(who, _) => holders.without(who),
        };
        let (mut first, mut done) = (configuration.first, configuration.done.clone());
        insert(&mut done, index);
        while done.first() == Some(&first) {
            done.remove(0);
            first += 1;
        }
        Some(Configuration { first, done, holders })
    }
}
