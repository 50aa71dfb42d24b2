//! What a member did, and what may have been listed of it: from what it said.

use std::collections::HashMap;

use tooz_conformance::history::{Change, ChangeKind, Fault};

use crate::chronicle::calm::{Bounds, calm_after, nanos};

/// Which process of which worker, and what of it.
pub(crate) type Key = (usize, u64);

/// A member's changes, and those whose answer is not there.
#[derive(Default)]
pub(crate) struct MemberRecord {
    changes: Vec<Change>,
    open: HashMap<Key, usize>,
    stood: u64,
    is_listed: bool,
    /// It was lost, and is not known to be back.
    is_lost: bool,
    /// Losses by killing, whose end depends on what is broken then: their place, and the time.
    killed: Vec<(usize, u64)>,
    /// Where it joined.
    joins: Vec<usize>,
}

impl MemberRecord {
    /// How many changes there are.
    pub(crate) fn count(&self) -> usize {
        self.changes.len()
    }

    /// It was looked at, and stood.
    pub(crate) fn stands(&mut self, at: u64) {
        self.stood = at;
    }

    pub(crate) fn changing(&mut self, key: Key, kind: ChangeKind, joins: bool, at: u64) {
        self.open.insert(key, self.changes.len());
        if joins {
            self.is_lost = false;
            self.joins.push(self.changes.len());
        }
        self.changes.push(Change { kind, asked: at, done: None });
        self.is_listed |= kind.listed().is_some();
        self.stood = at;
    }

    pub(crate) fn changed(&mut self, key: Key, at: u64) {
        let Some(place) = self.open.remove(&key) else { return };
        let kind = self.changes[place].kind;
        // Where it was lost and came back meanwhile, it is the last of its kind that is done now.
        let last = self.changes.iter().rposition(|change| change.kind == kind).unwrap_or(place);
        match kind {
            ChangeKind::Left if self.is_lost => self.left_what_was_lost(at),
            // Said by the one that was lost, which may end at any time now, or by the one that came back.
            _ if self.is_lost => self.changes.push(Change { kind, asked: self.lost_at(at), done: None }),
            _ => self.changes[last].done = Some(at),
        }
        if place + 1 == self.changes.len() {
            self.is_listed = kind.listed().is_some();
        }
        self.stood = at;
    }

    /// What was lost and is not back is left at once. What the backend has of it goes with the lost session, and an attempt to be back may be on its
    /// way, or have been done and be undone again.
    fn left_what_was_lost(&mut self, at: u64) {
        let lost = self.lost_at(at);
        let strays = |word| {
            let kind = ChangeKind::Stray(word);
            [Change { kind, asked: lost, done: Some(at) }, Change { kind, asked: at, done: None }]
        };
        let strays: Vec<_> = self.words_around_the_loss().into_iter().flat_map(strays).collect();
        self.changes.extend(strays);
    }

    /// What may be listed between a loss and the news that it is back: the last two words before, one of which may have been under way, and what
    /// was said since.
    fn words_around_the_loss(&self) -> Vec<u64> {
        let lost = self.changes.iter().rposition(|change| change.kind == ChangeKind::Lost).unwrap_or_default();
        let (before, since) = self.changes.split_at(lost);
        let before = before.iter().rev().filter_map(|change| change.kind.listed()).take(2);
        let mut words: Vec<u64> = before.chain(since.iter().filter_map(|change| change.kind.listed())).collect();
        words.sort_unstable();
        words.dedup();
        words
    }

    pub(crate) fn not_changed(&mut self, key: Key) {
        // It is the last, since one thing is done after another.
        if let Some(place) = self.open.remove(&key)
            && place + 1 == self.changes.len()
        {
            self.joins.retain(|join| *join != place);
            self.changes.pop();
        }
    }

    pub(crate) fn lost(&mut self, stood: u64) {
        if std::mem::replace(&mut self.is_lost, true) {
            return;
        }
        self.changes.push(Change { kind: ChangeKind::Lost, asked: stood, done: None });
        self.is_listed = false;
    }

    /// When it was lost last, at the latest at that time.
    fn lost_at(&self, at: u64) -> u64 {
        let is_loss = |change: &&Change| change.kind == ChangeKind::Lost;
        self.changes.iter().rev().find(is_loss).map_or(at, |change| change.asked.min(at))
    }

    /// What it says is what it said last. Since it was lost it may have been back and lost again more than once, unseen.
    pub(crate) fn rejoined(&mut self, word: u64, at: u64) {
        let lost = self.lost_at(at);
        let stray = |word| Change { kind: ChangeKind::Stray(word), asked: lost, done: Some(at) };
        let strays: Vec<_> = self.words_around_the_loss().into_iter().map(stray).collect();
        self.changes.extend(strays);
        let done = self.open.is_empty().then_some(at);
        self.changes.push(Change { kind: ChangeKind::Says(word), asked: lost, done });
        (self.is_listed, self.is_lost) = (true, false);
        self.stood = at;
    }

    pub(crate) fn killed(&mut self, at: u64) {
        self.open.clear();
        if self.is_listed {
            self.killed.push((self.changes.len(), at));
            self.changes.push(Change { kind: ChangeKind::Lost, asked: self.stood, done: None });
        }
    }

    pub(crate) fn end(mut self, faults: &[Fault], bounds: Bounds) -> Vec<Change> {
        for (place, at) in self.killed {
            let inherited = at.saturating_add(nanos(bounds.inherited));
            let disturbs = |fault: &Fault| {
                // Its own killing is a fault too, and over at once.
                fault.to > at + 1_000_000_000 && fault.from <= inherited
            };
            if !faults.iter().any(disturbs) {
                self.changes[place].done = Some(inherited);
            }
        }
        // From behind, so that the places before stay what they are.
        for place in std::mem::take(&mut self.joins).into_iter().rev() {
            let change = &mut self.changes[place];
            let ChangeKind::Says(word) = change.kind else { continue };
            let stray = Change { kind: ChangeKind::Stray(word), ..change.clone() };
            if change.done.is_some() {
                // Until it was answered it may have been made, lost with its session, and made again.
                self.changes.insert(place, stray);
            } else {
                *change = stray;
            }
        }
        for change in self
            .changes
            .iter_mut()
            .filter(|change| matches!(change.kind, ChangeKind::Stray(_)) && change.done.is_none())
        {
            change.done = Some(calm_after(faults, change.asked).saturating_add(nanos(bounds.settled)));
        }
        self.changes
    }
}
