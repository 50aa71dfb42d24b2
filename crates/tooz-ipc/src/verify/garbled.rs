//! A table in which another program has written: whatever is asked ends, with an answer or an error, and never with a panic.

use std::sync::atomic::Ordering;

use proptest::prelude::*;
use tooz_core::LockMode;
use tooz_core::driver::JoinConflict;

use crate::critical::stage::{Stage, request};
use crate::error::TableError;
use crate::layout::{AT_OWNER, AT_UNDO, BLOCK, BlockKind, UNDO_AT, block, bucket, slot};
use crate::queue::{AskEnd, WaitMode};
use crate::roster::Newcomer;
use crate::table::Table;

const NAMES: [&[u8]; 3] = [b"x", b"y", b"z"];

/// Anywhere that says something: the header but the beginning, the undo log, the first slots, the buckets of the names, the first blocks.
fn place() -> impl Strategy<Value = usize> {
    prop_oneof![
        1 => AT_OWNER..AT_OWNER + 8,
        1 => UNDO_AT..UNDO_AT + 16,
        2 => slot(0, 0)..slot(4, 0),
        1 => (0..NAMES.len()).prop_map(|name| bucket(crate::index::hash_of(BlockKind::Lock, NAMES[name]))),
        6 => block(1, 0)..block(40, BLOCK - 1),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..50_u64, 1 => any::<u64>(), 1 => Just(u64::MAX), 1 => Just(AT_UNDO as u64)]
}

/// Asks for everything there is; what comes of it does not matter.
fn ask_everything(table: &Table) -> Result<(), TableError> {
    for (id, name) in (100..).zip(NAMES) {
        let place = table.enter()?.ask((BlockKind::Lock, name), request(id), LockMode::Shared, WaitMode::Wait);
        let _ = table.enter()?.places(BlockKind::Lock, name);
        if let Ok(AskEnd::Place(place)) = place {
            let _ = table.enter()?.look_again(place.block, request(id));
            let _ = table.enter()?.leave_queue(place.block);
        }
    }
    let newcomer = Newcomer { group: "g", member: "new", id: request(200), capabilities: "null" };
    let _ = table.enter()?.join(&newcomer, |_| JoinConflict::Replaces);
    let _ = table.enter()?.members("g");
    let _ = table.enter()?.records(0, usize::MAX);
    let _ = table.enter()?.break_lock(BlockKind::Lock, b"y", 7);
    let _ = table.enter()?.delete_group("g");
    let _ = table.enter()?.sweep();
    for one in 0..4 {
        let _ = table.enter()?.bury(one);
        let _ = table.enter()?.session(one);
    }
    let _ = table.enter()?.end_session(table.slot());
    table.enter()?.verify().map(drop)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_stands_in_a_table_makes_anyone_panic(written in prop::collection::vec((place(), value()), 1..12)) {
        let stage = Stage::new(128);
        let (one, two) = (stage.session("one"), stage.session("two"));
        for (id, name) in (1..).zip(NAMES) {
            one.enter().unwrap().ask((BlockKind::Lock, name), request(id), LockMode::Exclusive, WaitMode::Wait).unwrap();
            two.enter().unwrap().ask((BlockKind::Lock, name), request(id + 10), LockMode::Shared, WaitMode::Wait).unwrap();
        }
        one.enter().unwrap().create_group("g").unwrap();
        let member = Newcomer { group: "g", member: "one", id: request(50), capabilities: "{}" };
        one.enter().unwrap().join(&member, |_| JoinConflict::Refused).unwrap();
        let record = two.enter().unwrap().find(BlockKind::Group, b"g").unwrap().unwrap();
        two.enter().unwrap().watch(record, None).unwrap();
        for (at, value) in written {
            one.region.word(at).unwrap().store(value, Ordering::Relaxed);
        }
        let _ = ask_everything(&two);
        let _ = ask_everything(&one);
        drop(one);
        let late = Table::open(&stage.path(), &tooz_core::Namespace::new("n").unwrap()).unwrap().unwrap();
        let begun = late.enter().map(|mut inside| inside.begin_session());
        if matches!(begun, Ok(Ok(_))) {
            let _ = ask_everything(&late);
        }
    }
}
