//! A process dies at any instruction, and the table is as before the change or as after it.
//!
//! A child goes through each kind of change under `ptrace`, one instruction at a time. Whatever it has in registers dies with it, so what a kill leaves is what
//! stands in the table just then: after each instruction that changed the table, a copy of it is taken over as that of the dead is, taken back, and verified. And
//! children are killed for good at instructions that are spread over all of them.

use std::sync::atomic::Ordering;

use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use tooz_core::driver::JoinConflict;
use tooz_core::{LockMode, Namespace};

use super::stage::{ALONE, Stage, request, session};
use super::{OWNER_MASK, now};
use crate::error::TableError;
use crate::layout::{AT_OWNER, AT_TOKEN, AT_UNDONE, BlockKind, SLOTS, slot};
use crate::queue::{AskEnd, WaitMode};
use crate::roster::{JoinEnd, Newcomer};
use crate::slots::Remainder;
use crate::table::Table;

/// Room for what the child does.
const BLOCKS: usize = 128;
/// The slots of those that take part.
const SEEN_SLOTS: usize = 4;
/// How many children are killed for good.
const KILLS: usize = 60;

/// What came of it.
#[derive(Debug, Default)]
struct KillEnd {
    instructions: usize,
    /// After how many of them the table was the child's.
    inside: usize,
    /// How many of them changed the table.
    states: usize,
    undone: u64,
    broken: usize,
    /// After which instructions the table had changed.
    changed_at: Vec<usize>,
}

#[test]
fn a_kill_at_every_instruction_leaves_no_broken_table_and_without_the_undo_log_it_does() {
    let _alone = ALONE.lock();
    let outcome = step_through(true);
    println!(
        "{} instructions, {} of them inside of the critical section, {} states of the table: {} broken, {} undone",
        outcome.instructions, outcome.inside, outcome.states, outcome.broken, outcome.undone
    );
    assert!(outcome.inside > 1000 && outcome.states > 200 && outcome.undone > 100, "{outcome:?}");
    assert_eq!(outcome.broken, 0);
    let (killed, inside) = kill_for_good(&outcome.changed_at);
    println!("{killed} children were killed, {inside} of them inside of the critical section");
    assert!(inside > 0);
    let control = step_through(false);
    println!("without the undo log {} of {} states are broken", control.broken, control.states);
    assert!(control.broken > 20, "{control:?}");
}

/// What the others have: a lock that is shared, one that the child has to wait for, and a group with a member.
fn others(stage: &Stage) -> Table {
    let table = stage.session("other");
    let mut inside = table.enter().unwrap();
    inside.ask((BlockKind::Lock, b"shared"), request(1), LockMode::Shared, WaitMode::Try).unwrap();
    inside.ask((BlockKind::Lock, b"taken"), request(2), LockMode::Exclusive, WaitMode::Try).unwrap();
    assert!(inside.create_group("group").unwrap());
    let other = Newcomer { group: "group", member: "other", id: request(3), capabilities: "1" };
    inside.join(&other, |_| JoinConflict::Refused).unwrap();
    let record = inside.find(BlockKind::Group, b"group").unwrap().unwrap();
    inside.watch(record, None).unwrap();
    drop(inside);
    table
}

/// Each kind of change once.
fn go_through_all(table: &Table) -> Result<(), TableError> {
    let ask =
        |name: &[u8], id, mode| match table.enter()?.ask((BlockKind::Lock, name), request(id), mode, WaitMode::Wait)? {
            AskEnd::Place(place) => Ok(place),
            AskEnd::Refused | AskEnd::DeadAhead => Err(TableError::Full),
        };
    let free = ask(b"free, with a name that is longer than a block", 10, LockMode::Exclusive)?;
    let beside = ask(b"shared", 11, LockMode::Shared)?;
    let waiting = ask(b"taken", 12, LockMode::Exclusive)?;
    let ours = Newcomer { group: "group", member: "child", id: request(13), capabilities: "{}" };
    let JoinEnd::Done(membership) = table.enter()?.join(&ours, |_| JoinConflict::Refused)? else {
        return Err(TableError::Full);
    };
    table.enter()?.update(membership, request(13), &"x".repeat(300))?;
    table.enter()?.leave_queue(free.block)?;
    table.enter()?.leave_queue(beside.block)?;
    table.enter()?.leave_queue(waiting.block)?;
    table.enter()?.end_membership(membership)?;
    table.enter()?.delete_group("no such group")?;
    table.enter()?.end_session(table.slot()).map(drop)
}

/// Starts a child that stops before the first instruction and after the last.
fn start(stage: &Stage, keeps_undo: bool) -> Pid {
    let path = stage.path();
    #[expect(unsafe_code, reason = "there is no safe fork; the child leaves by _exit")]
    // SAFETY: the child calls nothing that takes a lock which another thread may hold, but the system's allocator, which is made for that.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => {
            assert!(matches!(waitpid(child, None), Ok(WaitStatus::Stopped(_, Signal::SIGSTOP))));
            // It goes with the test, whatever becomes of that.
            ptrace::setoptions(child, ptrace::Options::PTRACE_O_EXITKILL).unwrap();
            child
        }
        ForkResult::Child => {
            let mut table = session(&path, "child");
            table.keeps_undo = keeps_undo;
            let is_traced = ptrace::traceme().and_then(|()| raise(Signal::SIGSTOP)).is_ok();
            let done = is_traced && go_through_all(&table).is_ok();
            let _ = raise(Signal::SIGSTOP);
            #[expect(unsafe_code, reason = "the parent's exit handlers are not the child's to run")]
            // SAFETY: _exit takes no arguments that could be wrong.
            unsafe {
                libc::_exit(i32::from(!done))
            }
        }
    }
}

/// One instruction further. `false`: that was the last.
fn step(child: Pid) -> bool {
    ptrace::step(child, None).unwrap();
    match waitpid(child, None).unwrap() {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => true,
        WaitStatus::Stopped(_, Signal::SIGSTOP) => false,
        other => panic!("{other:?}"),
    }
}

fn end(child: Pid) {
    kill(child, Signal::SIGKILL).unwrap();
    let _ = waitpid(child, None);
}

fn step_through(keeps_undo: bool) -> KillEnd {
    let (stage, copy) = (Stage::new(BLOCKS), Stage::new(BLOCKS));
    let (others, heir) = (others(&stage), heir(&copy));
    let before = others.enter().unwrap().get(AT_TOKEN).unwrap();
    let child = start(&stage, keeps_undo);
    let mut snapshot = Snapshot::of(&others);
    let mut outcome = KillEnd::default();
    while step(child) {
        outcome.instructions += 1;
        if snapshot.renew(&others) {
            outcome.states += 1;
            outcome.changed_at.push(outcome.instructions);
            match judge(&heir, &snapshot, before) {
                Ok(undone) => outcome.undone += undone,
                Err(_) => outcome.broken += 1,
            }
        }
        outcome.inside += usize::from(snapshot.is_owned());
    }
    ptrace::cont(child, None).unwrap();
    assert!(matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0))), "the child came to the end");
    others.enter().unwrap().verify().unwrap();
    outcome
}

/// What stands in the table: all but the slots that no session has.
struct Snapshot(Vec<u64>);

impl Snapshot {
    fn places(table: &Table) -> impl Iterator<Item = usize> + use<> {
        (0..slot(SEEN_SLOTS, 0)).chain(slot(SLOTS, 0)..table.region.len())
    }

    fn of(table: &Table) -> Self {
        Snapshot(Self::places(table).map(|at| word(table, at)).collect())
    }

    /// Takes what has changed since then. `false`: nothing has.
    fn renew(&mut self, table: &Table) -> bool {
        let mut has_changed = false;
        for (at, old) in Self::places(table).zip(&mut self.0) {
            let new = word(table, at);
            has_changed |= *old != new;
            *old = new;
        }
        has_changed
    }

    fn is_owned(&self) -> bool {
        self.0[AT_OWNER] & OWNER_MASK != 0
    }

    fn write_to(&self, table: &Table) {
        for (at, value) in Self::places(table).zip(&self.0) {
            table.region.word(at).unwrap().store(*value, Ordering::Relaxed);
        }
    }
}

fn word(table: &Table, at: usize) -> u64 {
    table.region.word(at).unwrap().load(Ordering::Relaxed)
}

/// The session that comes after the dead, in a slot that none of them had.
fn heir(copy: &Stage) -> Table {
    let namespace = Namespace::new("n").unwrap();
    let open = || Table::open(&copy.path(), &namespace).unwrap().unwrap();
    let dead: Vec<_> = (0..SEEN_SLOTS).map(|_| open()).collect();
    let heir = open();
    drop(dead);
    heir
}

/// Takes over a copy, as the next one does after a kill. Answers how many changes were undone.
fn judge(heir: &Table, snapshot: &Snapshot, token: u64) -> Result<u64, TableError> {
    snapshot.write_to(heir);
    let mut inside = heir.enter()?;
    let undone = inside.get(AT_UNDONE)?;
    inside.verify()?;
    for dead in 0..SEEN_SLOTS {
        while inside.bury(dead)? == Remainder::Some {}
    }
    let census = inside.verify()?;
    let is_clean = (census.locks, census.places, census.members, census.watches) == (0, 0, 0, 0) && census.groups == 1;
    let is_newer = inside.get(AT_TOKEN)? >= token && inside.next_token(now())? > token;
    if is_clean && is_newer { Ok(undone) } else { Err(TableError::Garbled("something of the dead is left")) }
}

/// Kills children at instructions after which the table had changed. Answers how many, and how many of them while the table was theirs.
fn kill_for_good(changed_at: &[usize]) -> (usize, usize) {
    let stage = Stage::new(BLOCKS);
    let others = others(&stage);
    let (mut killed, mut inside) = (0, 0);
    for instruction in changed_at.iter().step_by(changed_at.len().div_ceil(KILLS)) {
        let before = others.enter().unwrap().get(AT_TOKEN).unwrap();
        let child = start(&stage, true);
        for _ in 0..*instruction {
            assert!(step(child));
        }
        inside += usize::from(Snapshot::of(&others).is_owned());
        end(child);
        killed += 1;
        let mut table = others.enter().unwrap();
        table.verify().unwrap();
        while table.bury(1).unwrap() == Remainder::Some {}
        let census = table.verify().unwrap();
        assert_eq!((census.places, census.members, census.watches), (2, 1, 1), "what the other has stays");
        assert!(table.get(AT_TOKEN).unwrap() >= before);
    }
    (killed, inside)
}
