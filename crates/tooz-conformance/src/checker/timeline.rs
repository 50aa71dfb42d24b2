//! What may have been listed of a member, and when: made of what the member did.

use std::collections::BTreeMap;

use crate::checker::law::Law;
use crate::checker::terms::Terms;
use crate::history::{Change, ChangeKind, History, Stay};

/// What was listed of a member between two of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    /// Its word; `None`: it was not listed.
    pub(crate) listed: Option<u64>,
    /// The earliest moment of it.
    pub(crate) from: u64,
    /// The latest.
    pub(crate) until: u64,
}

/// All phases of one member in one group, in order. The first begins with the world.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    pub(crate) phases: Vec<Phase>,
    /// What may be listed besides, at any time between.
    strays: Vec<Phase>,
}

impl Timeline {
    fn of(stay: &Stay, terms: &Terms) -> Self {
        let mut phases = vec![Phase { listed: None, from: 0, until: u64::MAX }];
        let mut strays = Vec::new();
        for (index, change) in stay.changes.iter().enumerate() {
            if matches!(change.kind, ChangeKind::Stray(_)) {
                let (listed, until) = (change.kind.listed(), change.done.unwrap_or(u64::MAX));
                strays.push(Phase { listed, from: change.asked, until });
                continue;
            }
            let from = earliest(&stay.changes[..=index], change, terms);
            if let Some(done) = change.done {
                for phase in &mut phases {
                    phase.until = phase.until.min(done);
                }
            }
            phases.push(Phase { listed: change.kind.listed(), from, until: u64::MAX });
        }
        Timeline { phases, strays }
    }

    /// The last moment until which it may have been so, of what may have begun by then.
    pub(crate) fn last(&self, listed: Option<u64>, least: usize, now: u64) -> Option<u64> {
        let all = self.phases.iter().skip(least).chain(&self.strays);
        all.filter(|phase| phase.listed == listed && phase.from <= now).map(|phase| phase.until).max()
    }

    /// When it may have been so between these moments, as far as it was in that place of the order or behind it.
    pub(crate) fn windows(&self, listed: Option<u64>, (from, until): (u64, u64)) -> Vec<(u64, u64)> {
        let all = self.phases.iter().chain(&self.strays);
        let fits = all.filter(|phase| phase.listed == listed);
        let clipped = fits.map(|phase| (phase.from.max(from), phase.until.min(until)));
        clipped.filter(|(from, until)| from <= until).collect()
    }

    /// The first phase from that one on in which it may have been so between these moments; that one itself for what is beside the order.
    pub(crate) fn place(&self, listed: Option<u64>, least: usize, (from, until): (u64, u64)) -> Option<usize> {
        let fits = |phase: &Phase| phase.listed == listed && phase.from <= until && phase.until >= from;
        if self.strays.iter().any(fits) {
            return Some(least);
        }
        let mut rest = self.phases.iter().enumerate().skip(least);
        rest.find(|(_, phase)| fits(phase)).map(|(index, _)| index)
    }
}

/// A loss may have come at any time of the stay before, where the backend has given up that its holders are the first to know.
fn earliest(so_far: &[Change], change: &Change, terms: &Terms) -> u64 {
    let before = so_far.len().checked_sub(2).map(|index| so_far[index].asked);
    match (change.kind, before) {
        (ChangeKind::Lost, Some(before)) if !terms.demands(Law::Belief) => before,
        _ => change.asked,
    }
}

/// The timelines of all members of each group.
pub(crate) type Timelines<'a> = BTreeMap<&'a str, BTreeMap<&'a str, Timeline>>;

pub(crate) fn timelines<'a>(history: &'a History, terms: &Terms) -> Timelines<'a> {
    let mut groups = Timelines::new();
    for stay in &history.stays {
        groups.entry(&stay.group).or_default().insert(&stay.member, Timeline::of(stay, terms));
    }
    groups
}

/// The member that a worker acts for: its name up to the first slash.
pub(crate) fn member_of(worker: &str) -> &str {
    worker.split_once('/').map_or(worker, |(member, _)| member)
}

/// Whether a fault, or what it left behind, may be the reason for something between these moments.
pub(crate) fn is_disturbed(history: &History, terms: &Terms, (from, until): (u64, u64)) -> bool {
    history.faults.iter().any(|fault| fault.from <= until && fault.to.saturating_add(terms.recovery) >= from)
}
