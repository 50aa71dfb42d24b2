//! The table against a model of it: several sessions do anything in any order, some die, and after each step the table is whole and says what the model says.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use tooz_core::LockMode;
use tooz_core::driver::{JoinConflict, RequestId};

use super::{AskEnd, Occupant, PlaceState, WaitMode};
use crate::critical::Critical;
use crate::critical::stage::{ALONE, Stage, request};
use crate::doorbell::RingReason;
use crate::layout::BlockKind;
use crate::roster::{DeleteEnd, JoinEnd, Newcomer};
use crate::slots::Remainder;
use crate::table::Table;

const SESSIONS: usize = 4;
const LOCKS: [&str; 3] = [
    "x",
    "y",
    "a name that is longer than what one block has room for, with some more of it to be sure; and then a little more",
];
const GROUPS: [&str; 2] = ["g", "h"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Ask { session: usize, lock: usize, mode: LockMode, patience: WaitMode },
    Leave { nth: usize },
    Break { session: usize, lock: usize },
    Die { session: usize },
    Bury { session: usize },
    Create { session: usize, group: usize },
    Delete { session: usize, group: usize },
    Join { session: usize, group: usize, member: usize, takes_over: bool },
    Update { nth: usize, length: usize },
    Part { nth: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (session, lock, group) = (0..SESSIONS, 0..LOCKS.len(), 0..GROUPS.len());
    let mode = prop_oneof![Just(LockMode::Exclusive), Just(LockMode::Shared)];
    let patience = prop_oneof![1 => Just(WaitMode::Try), 3 => Just(WaitMode::Wait)];
    prop_oneof![
        8 => (session.clone(), lock.clone(), mode, patience)
            .prop_map(|(session, lock, mode, patience)| Step::Ask { session, lock, mode, patience }),
        6 => any::<usize>().prop_map(|nth| Step::Leave { nth }),
        1 => (session.clone(), lock).prop_map(|(session, lock)| Step::Break { session, lock }),
        1 => session.clone().prop_map(|session| Step::Die { session }),
        1 => session.clone().prop_map(|session| Step::Bury { session }),
        1 => (session.clone(), group.clone()).prop_map(|(session, group)| Step::Create { session, group }),
        1 => (session.clone(), group.clone()).prop_map(|(session, group)| Step::Delete { session, group }),
        3 => (session, group, 0..3_usize, any::<bool>())
            .prop_map(|(session, group, member, takes_over)| Step::Join { session, group, member, takes_over }),
        1 => (any::<usize>(), 0..500_usize).prop_map(|(nth, length)| Step::Update { nth, length }),
        2 => any::<usize>().prop_map(|nth| Step::Part { nth }),
    ]
}

/// A place in the model's queue.
#[derive(Clone, Copy, Debug)]
struct QueuedPlace {
    session: usize,
    id: RequestId,
    block: usize,
    mode: LockMode,
    holds: bool,
}

#[derive(Clone, Debug)]
struct Member {
    session: usize,
    id: RequestId,
    block: usize,
    name: String,
    capabilities: String,
}

/// What the table should say. A session that dies is gone at once here.
#[derive(Default)]
struct Model {
    locks: BTreeMap<usize, Vec<QueuedPlace>>,
    groups: BTreeMap<usize, Vec<Member>>,
    /// The places that got their lock after a wait: their sessions have to be rung for.
    handed_over: Vec<(usize, usize)>,
}

impl Model {
    fn admits(&self, lock: usize, mode: LockMode) -> bool {
        self.locks.get(&lock).is_none_or(|queue| queue.iter().all(|one| one.holds && !one.mode.conflicts_with(mode)))
    }

    fn hand_over(&mut self) {
        for queue in self.locks.values_mut() {
            for at in 0..queue.len() {
                let one = queue[at];
                let fits = queue[..at].iter().all(|before| before.holds && !before.mode.conflicts_with(one.mode));
                if !one.holds && fits {
                    queue[at].holds = true;
                    self.handed_over.push((one.session, one.block));
                }
            }
        }
    }

    fn remove(&mut self, gone: impl Fn(&QueuedPlace) -> bool) {
        for queue in self.locks.values_mut() {
            queue.retain(|one| !gone(one));
        }
        self.hand_over();
    }

    fn places(&self) -> Vec<(usize, QueuedPlace)> {
        self.locks.iter().flat_map(|(lock, queue)| queue.iter().map(|one| (*lock, *one))).collect()
    }

    fn members(&self) -> Vec<(usize, Member)> {
        self.groups.iter().flat_map(|(group, members)| members.iter().map(|one| (*group, one.clone()))).collect()
    }
}

/// The table with its sessions, beside the model.
struct Play {
    stage: Stage,
    sessions: Vec<Table>,
    model: Model,
    /// Which places were rung for.
    rung: HashSet<usize>,
    requests: u128,
    last_token: u64,
}

impl Play {
    fn new() -> Self {
        let stage = Stage::new(400);
        let sessions = (0..SESSIONS).map(|one| stage.session(&format!("s{one}"))).collect();
        Play { stage, sessions, model: Model::default(), rung: HashSet::new(), requests: 0, last_token: 0 }
    }

    fn inside<T>(
        &mut self,
        session: usize,
        act: impl FnOnce(&mut Critical<'_>) -> Result<T, crate::error::TableError>,
    ) -> T {
        let mut inside = self.sessions[session].enter().unwrap();
        let result = act(&mut inside).unwrap();
        self.rung.extend(inside.rings.iter().filter(|ring| ring.what == RingReason::Place).map(|ring| ring.block));
        result
    }

    /// The places of the living.
    fn places(&mut self, session: usize, lock: usize) -> Vec<Occupant> {
        self.inside(session, |table| {
            let seen = table.places(BlockKind::Lock, LOCKS[lock].as_bytes())?;
            Ok(seen.into_iter().filter(|one| table.is_alive(one.owner.0, one.owner.1).unwrap()).collect())
        })
    }

    fn next_request(&mut self) -> RequestId {
        self.requests += 1;
        request(self.requests)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Ask { session, lock, mode, patience } => self.ask(session, lock, mode, patience),
            Step::Leave { nth } => self.leave(nth),
            Step::Break { session, lock } => self.break_lock(session, lock),
            Step::Die { session } => self.die(session),
            Step::Bury { session } => {
                for slot in 0..SESSIONS + 2 {
                    while self.inside(session, |table| table.bury(slot)) == Remainder::Some {}
                }
            }
            Step::Create { session, group } => {
                let made = self.inside(session, |table| table.create_group(GROUPS[group]));
                assert_eq!(
                    made,
                    self.model
                        .groups
                        .insert(group, Vec::new())
                        .map(|old| self.model.groups.insert(group, old))
                        .is_none()
                );
            }
            Step::Delete { session, group } => {
                let expected = match self.model.groups.get(&group).map(Vec::len) {
                    None => DeleteEnd::NoGroup,
                    Some(0) => DeleteEnd::Done,
                    Some(members) => DeleteEnd::Inhabited(members),
                };
                assert_eq!(self.inside(session, |table| table.delete_group(GROUPS[group])), expected);
                if expected == DeleteEnd::Done {
                    self.model.groups.remove(&group);
                }
            }
            Step::Join { session, group, member, takes_over } => self.join(session, group, member, takes_over),
            Step::Update { nth, length } => self.update(nth, length),
            Step::Part { nth } => self.part(nth),
        }
    }

    fn ask(&mut self, session: usize, lock: usize, mode: LockMode, patience: WaitMode) {
        let id = self.next_request();
        let admits = self.model.admits(lock, mode);
        let place =
            self.inside(session, |table| table.ask((BlockKind::Lock, LOCKS[lock].as_bytes()), id, mode, patience));
        match place {
            AskEnd::DeadAhead => panic!("there are few"),
            AskEnd::Refused => assert!(!admits && patience == WaitMode::Try),
            AskEnd::Place(PlaceState { block, token }) => {
                assert_eq!(token.is_some(), admits);
                if let Some(token) = token {
                    assert!(token > self.last_token);
                    self.last_token = token;
                }
                self.rung.remove(&block);
                let queued = QueuedPlace { session, id, block, mode, holds: admits };
                self.model.locks.entry(lock).or_default().push(queued);
            }
        }
    }

    fn leave(&mut self, nth: usize) {
        let places = self.model.places();
        if places.is_empty() {
            return;
        }
        let (_, one) = places[nth % places.len()];
        assert!(self.inside(one.session, |table| table.place(one.block, one.id)).is_some());
        self.inside(one.session, |table| table.leave_queue(one.block));
        assert!(self.inside(one.session, |table| table.place(one.block, one.id)).is_none());
        self.model.remove(|other| other.id == one.id);
    }

    fn break_lock(&mut self, session: usize, lock: usize) {
        let seen = self.places(session, lock);
        let Some(token) = seen.first().and_then(|seen| seen.token) else { return };
        let broken = self.inside(session, |table| table.break_lock(BlockKind::Lock, LOCKS[lock].as_bytes(), token));
        assert!(broken);
        assert!(
            !self.inside(session, |table| table.break_lock(BlockKind::Lock, LOCKS[lock].as_bytes(), token)),
            "once"
        );
        let first = self.model.locks[&lock][0].id;
        self.model.remove(|one| one.id == first);
    }

    fn die(&mut self, session: usize) {
        // Another session comes, in its slot or in one that no session had.
        let other = self.stage.session("newcomer");
        drop(std::mem::replace(&mut self.sessions[session], other));
        self.model.remove(|one| one.session == session);
        for members in self.model.groups.values_mut() {
            members.retain(|one| one.session != session);
        }
    }

    fn join(&mut self, session: usize, group: usize, member: usize, takes_over: bool) {
        let id = self.next_request();
        let name = format!("m{member}");
        let newcomer = Newcomer { group: GROUPS[group], member: &name, id, capabilities: "null" };
        let conflict = if takes_over { JoinConflict::Replaces } else { JoinConflict::Refused };
        let joined = self.inside(session, |table| table.join(&newcomer, |_| conflict));
        let Some(members) = self.model.groups.get_mut(&group) else { return assert_eq!(joined, JoinEnd::NoGroup) };
        let is_there = members.iter().any(|one| one.name == name);
        match joined {
            JoinEnd::Done(block) => {
                assert!(!is_there || takes_over);
                members.retain(|one| one.name != name);
                members.push(Member { session, id, block, name, capabilities: "null".to_owned() });
            }
            refused => assert!(refused == JoinEnd::Refused && is_there && !takes_over),
        }
    }

    fn update(&mut self, nth: usize, length: usize) {
        let members = self.model.members();
        if members.is_empty() {
            return;
        }
        let (group, one) = &members[nth % members.len()];
        let text = "x".repeat(length);
        assert!(self.inside(one.session, |table| table.update(one.block, one.id, &text)));
        let all = self.model.groups.get_mut(group).unwrap();
        all.iter_mut().find(|member| member.id == one.id).unwrap().capabilities = text;
    }

    fn part(&mut self, nth: usize) {
        let members = self.model.members();
        if members.is_empty() {
            return;
        }
        let (group, one) = &members[nth % members.len()];
        assert!(self.inside(one.session, |table| table.is_membership(one.block, one.id)));
        self.inside(one.session, |table| table.end_membership(one.block));
        self.model.groups.get_mut(group).unwrap().retain(|member| member.id != one.id);
    }

    /// The table is whole, and says what the model says.
    fn compare(&mut self) {
        self.inside(0, |table| table.verify());
        for lock in 0..LOCKS.len() {
            let seen = self.places(0, lock);
            let seen: Vec<_> = seen.iter().map(|one| (one.mode, one.token.is_some())).collect();
            let expected = self.model.locks.get(&lock).map_or(&[][..], Vec::as_slice);
            assert_eq!(seen, expected.iter().map(|one| (one.mode, one.holds)).collect::<Vec<_>>());
        }
        let token = self.inside(0, |table| table.get(crate::layout::AT_TOKEN));
        assert!(token >= self.last_token);
        self.last_token = token;
        for (group, name) in GROUPS.iter().enumerate() {
            let seen = self.inside(0, |table| {
                let Some(seen) = table.members(name)? else { return Ok(None) };
                let living = seen.into_iter().filter(|one| table.is_alive(one.owner.0, one.owner.1).unwrap());
                Ok(Some(living.collect::<Vec<_>>()))
            });
            let seen =
                seen.map(|seen| seen.into_iter().map(|one| (one.member, one.id, one.capabilities)).collect::<Vec<_>>());
            let expected = self.model.groups.get(&group).map(|members| {
                members.iter().map(|one| (one.name.clone(), one.id, one.capabilities.clone())).collect::<Vec<_>>()
            });
            assert_eq!(seen, expected);
        }
        for (_, block) in std::mem::take(&mut self.model.handed_over) {
            let is_there = self.model.places().iter().any(|(_, one)| one.block == block);
            assert!(!is_there || self.rung.contains(&block), "who got it after a wait is rung for");
        }
        self.inside(0, |table| table.verify());
    }

    /// All end, and nothing is left.
    fn end(mut self) {
        for session in 0..SESSIONS {
            let slot = self.sessions[session].slot();
            while self.inside(session, |table| table.end_session(slot)) == Remainder::Some {}
        }
        let last = self.stage.session("last");
        let mut inside = last.enter().unwrap();
        for slot in (0..SESSIONS * 3).filter(|slot| *slot != last.slot()) {
            while inside.bury(slot).unwrap() == Remainder::Some {}
        }
        let census = inside.verify().unwrap();
        assert_eq!((census.places, census.members, census.watches, census.locks), (0, 0, 0, 0));
        assert_eq!(census.blocks, 1 + 2 * census.groups, "a member's name, and two blocks for each group");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 2000, ..ProptestConfig::default() })]

    #[test]
    fn sessions_that_do_anything_leave_the_table_as_the_model_says(steps in prop::collection::vec(step(), 1..80)) {
        let _alone = ALONE.lock();
        let mut play = Play::new();
        for step in steps {
            play.take(step);
            play.compare();
        }
        play.end();
    }
}
