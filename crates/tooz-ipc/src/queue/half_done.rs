//! Sessions that die between two steps: what they had not finished is not believed, what they had finished is found without a ring.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tooz_core::LockMode;

use super::{AskEnd, PlaceState, WaitMode};
use crate::critical::stage::{ALONE, Stage, request};
use crate::critical::{Critical, TableWait};
use crate::error::TableError;
use crate::layout::{BlockKind, TOKEN, block};
use crate::process::Process;
use crate::table::Table;

const X: (BlockKind, &[u8]) = (BlockKind::Lock, b"x");

/// One that holds the lock, and one that waits for it.
fn holder_and_waiter(stage: &Stage) -> (Table, PlaceState, Table, PlaceState) {
    let ask = |table: &Table, id| {
        let place = table.enter().unwrap().ask(X, request(id), LockMode::Exclusive, WaitMode::Wait);
        let AskEnd::Place(place) = place.unwrap() else { panic!("it has a place") };
        place
    };
    let (one, two) = (stage.session("one"), stage.session("two"));
    let (held, waits) = (ask(&one, 1), ask(&two, 2));
    assert!(held.token.is_some() && waits.token.is_none());
    (one, held, two, waits)
}

/// Dies as the owner of the table, after that.
fn dies_after(table: Table, act: impl FnOnce(&mut Critical<'_>) -> Result<(), TableError>) {
    let mut inside = table.enter().unwrap();
    act(&mut inside).unwrap();
    std::mem::forget(inside);
    drop(table);
}

#[test]
fn a_grant_that_was_not_finished_is_not_believed() {
    let _alone = ALONE.lock();
    let stage = Stage::new(64);
    let (one, held, two, waits) = holder_and_waiter(&stage);
    dies_after(one, |inside| {
        let lock = inside.find(X.0, X.1)?.ok_or(TableError::Full)?;
        inside.take_out(lock, held.block)?;
        inside.hand_over(lock)
    });
    let token = two.region.word(block(waits.block, TOKEN)).unwrap().load(Ordering::Relaxed);
    assert_ne!(token, 0, "it stands there");
    let place = two.enter().unwrap().place(waits.block, request(2)).unwrap().unwrap();
    assert_eq!(place.token, None, "and is taken back by a look under the table's lock");
    let place = two.enter().unwrap().look_again(waits.block, request(2)).unwrap().0.unwrap();
    assert!(place.token > held.token, "then the dead is out of the way");
    two.enter().unwrap().verify().unwrap();
}

#[test]
fn a_death_between_leaving_and_handing_over_keeps_no_waiter_waiting() {
    let _alone = ALONE.lock();
    let stage = Stage::new(64);
    let (one, held, two, waits) = holder_and_waiter(&stage);
    dies_after(one, |inside| {
        let lock = inside.find(X.0, X.1)?.ok_or(TableError::Full)?;
        inside.take_out(lock, held.block)?;
        inside.commit()
    });
    let place = two.enter().unwrap().place(waits.block, request(2)).unwrap().unwrap();
    assert_eq!(place.token, None);
    let place = two.enter().unwrap().look_again(waits.block, request(2)).unwrap().0.unwrap();
    assert!(place.token > held.token);
}

#[test]
fn who_dies_before_it_has_rung_is_not_missed() {
    let _alone = ALONE.lock();
    let stage = Stage::new(64);
    let (one, held, two, waits) = holder_and_waiter(&stage);
    // The rings go with the guard, unsent.
    dies_after(one, |inside| inside.leave_queue(held.block));
    let place = two.enter().unwrap().look_again(waits.block, request(2)).unwrap().0.unwrap();
    assert!(place.token > held.token);
}

#[test]
fn tokens_grow_over_a_clock_that_was_set_back() {
    let _alone = ALONE.lock();
    let stage = Stage::new(64);
    let (one, held, two, waits) = holder_and_waiter(&stage);
    let ahead = held.token.unwrap() + 3_600_000_000;
    {
        let mut inside = one.enter().unwrap();
        inside.next_token(ahead).unwrap();
        inside.commit().unwrap();
    }
    one.enter().unwrap().leave_queue(held.block).unwrap();
    let place = two.enter().unwrap().place(waits.block, request(2)).unwrap().unwrap();
    assert!(place.token > Some(ahead));
}

#[test]
fn a_slot_that_is_used_again_is_another_session() {
    let _alone = ALONE.lock();
    let stage = Stage::new(64);
    let (one, held, two, waits) = holder_and_waiter(&stage);
    let slot = one.slot();
    let generation = one.generation.load(Ordering::Relaxed);
    drop(one);
    // The slot is locked again before anyone has looked.
    let again = Table::open(&stage.path(), &tooz_core::Namespace::new("n").unwrap()).unwrap().unwrap();
    let next = if again.slot() == slot { again } else { stage.session("next") };
    assert!(!two.enter().unwrap().is_alive(slot, generation).unwrap() || next.slot() != slot);
    next.enter().unwrap().begin_session().unwrap();
    let place = two.enter().unwrap().look_again(waits.block, request(2)).unwrap().0.unwrap();
    assert!(place.token > held.token, "what the dead had does not come to life");
    assert!(next.enter().unwrap().place(held.block, request(1)).unwrap().is_none());
    two.enter().unwrap().verify().unwrap();
}

#[test]
fn the_owner_of_the_table_that_stands_still_is_named() {
    let stage = Stage::new(64);
    let (one, two) = (stage.session("one"), stage.session("two"));
    let inside = one.enter().unwrap();
    assert!(matches!(two.enter().err(), Some(TableError::Busy { by: Some(by), .. }) if by == Process::ours()));
    drop(inside);
    assert!(two.enter().is_ok());
}

#[test]
fn one_of_many_owners_that_get_on_is_not_named() {
    let (patience, by) = (Duration::from_millis(20), Some(Process::ours()));
    let mut wait = TableWait::begin(patience);
    std::thread::sleep(patience * 2);
    assert_eq!(wait.goes_on(by, 1), Err(TableError::Busy { by: None, word: 1 }), "its change has just begun");
    std::thread::sleep(patience);
    assert_eq!(
        wait.goes_on(by, 2),
        Err(TableError::Busy { by: None, word: 2 }),
        "the same process, but another change"
    );
    std::thread::sleep(patience);
    assert_eq!(wait.goes_on(by, 2), Err(TableError::Busy { by, word: 2 }));
    assert_eq!(TableWait::begin(Duration::from_mins(1)).goes_on(by, 2), Ok(()));
}

#[test]
fn a_change_that_fails_leaves_nothing() {
    let stage = Stage::new(64);
    let one = stage.session("one");
    let before = one.enter().unwrap().verify().unwrap();
    let name = "n".repeat(255);
    let mut made = 0;
    let fault = loop {
        let asked = one.enter().unwrap().ask(
            (BlockKind::Lock, format!("{made}{name}").as_bytes()),
            request(made),
            LockMode::Shared,
            WaitMode::Try,
        );
        match asked {
            Ok(_) => made += 1,
            Err(fault) => break fault,
        }
        one.enter().unwrap().verify().unwrap();
    };
    assert_eq!((fault, made > 5), (TableError::Full, true));
    assert_eq!(one.enter().unwrap().verify().unwrap().places, usize::try_from(made).unwrap());
    while one.enter().unwrap().end_session(one.slot()).unwrap() == crate::slots::Remainder::Some {}
    assert_eq!(one.enter().unwrap().verify().unwrap().blocks, before.blocks - 1, "the member's name went as well");
}
