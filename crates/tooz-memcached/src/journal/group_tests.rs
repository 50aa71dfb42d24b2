//! What a journal of a group means, by examples, and that writing it anew changes nothing.

use proptest::prelude::*;

use super::*;
use crate::journal::dead;

fn joined(request: u128, session: u64, member: &str, replace: Replace) -> String {
    let (request, session, member) = (RequestId(request), SessionId(session), member.parse().unwrap());
    MemberEntry { request, session, count: 0, member, capabilities: "null".to_owned() }.line(replace)
}

fn read(text: &str) -> GroupJournal {
    GroupJournal::read(text.as_bytes()).unwrap()
}

fn members(text: &str) -> Vec<u128> {
    read(text).members.iter().map(|entry| entry.request.0).collect()
}

const NOBODY: Replace = Replace::Nobody;

#[test]
fn a_join_needs_a_group_and_a_name_of_its_own() {
    assert_eq!(members(&joined(1, 1, "a", NOBODY)), [0; 0]);
    let text = create(1) + &joined(1, 1, "a", NOBODY) + &joined(2, 2, "a", NOBODY) + &joined(3, 2, "b", NOBODY);
    assert_eq!(members(&text), [1, 3]);
    // What was refused where it stood stays so when the other has gone.
    assert_eq!(members(&(text.clone() + &leave(RequestId(1)))), [3]);
    // Asked again it counts, as after the death of the other.
    assert_eq!(members(&(text + &dead(SessionId(1)) + &joined(2, 2, "a", NOBODY))), [3, 2]);
}

#[test]
fn a_take_over_is_one_step_and_tells_whose_place_it_was() {
    let text = create(1) + &joined(1, 1, "a", NOBODY) + &joined(2, 2, "a", Replace::Anybody);
    let journal = read(&text);
    assert_eq!((members(&text), journal.end_of(RequestId(1))), (vec![2], Some(End::Taken)));
    assert_eq!((journal.replaced[0].0, journal.replaced[0].1.session), (RequestId(2), SessionId(1)));
    // Only what the same coordinator has made before is its own.
    let own = Replace::Own(RequestId(1));
    assert_eq!(members(&(create(1) + &joined(1, 1, "a", NOBODY) + &joined(2, 2, "a", own))), [2]);
    let anothers = 1 << 64;
    assert_eq!(members(&(create(1) + &joined(anothers, 1, "a", NOBODY) + &joined(2, 2, "a", own))), [anothers]);
}

#[test]
fn of_a_deletion_and_a_join_exactly_one_counts() {
    let group = create(1);
    let deleted = read(&(group.clone() + &delete(7) + &joined(1, 1, "a", NOBODY)));
    assert!(deleted.deleted_by(7) == Some(1) && deleted.members.is_empty() && deleted.is_nothing());
    let joined = read(&(group + &joined(1, 1, "a", NOBODY) + &delete(7)));
    assert!(joined.deleted_by(7).is_none() && joined.members.len() == 1 && !joined.is_nothing());
}

#[test]
fn capabilities_are_what_was_said() {
    let json = "{\"k\":\t\"a\u{7f}b\u{80}\u{85}\u{9f}\u{2028}c\",\r\n \"l\": 1}";
    let said = Capabilities::from_json(json).unwrap();
    let (request, session, member) = (RequestId(1), SessionId(1), "a".parse().unwrap());
    let entry = MemberEntry { request, session, count: 0, member, capabilities: in_a_line(&said) };
    let journal = read(&(create(1) + &entry.line(NOBODY)));
    assert_eq!(journal.members[0].capabilities, json.replace(['\t', '\r', '\n'], " "));
}

#[test]
fn a_late_update_changes_nothing() {
    let request = |capabilities: &str| {
        let (count, text) = capabilities.split_once(':').unwrap();
        format!("U\t{}\t{count}\t{text}\n", RequestId(1))
    };
    let text = create(1) + &joined(1, 1, "a", NOBODY) + &request("2:\"new\"") + &request("1:\"old\"");
    assert_eq!(read(&text).members[0].capabilities, "\"new\"");
    let compacted = read(&text).compacted(&BTreeSet::new());
    assert_eq!(read(&(compacted + &request("1:\"old\""))).members[0].capabilities, "\"new\"");
}

#[test]
fn a_leave_in_doubt_voids_a_join_that_comes_late() {
    let gone = BTreeSet::new();
    let text = create(1) + &withdraw(RequestId(1), SessionId(1));
    assert_eq!(members(&(read(&text).compacted(&gone) + &joined(1, 1, "a", NOBODY))), [0; 0]);
    assert_eq!(members(&(text + &joined(1, 1, "a", NOBODY) + &joined(2, 1, "a", NOBODY))), [2]);
}

#[test]
fn capabilities_are_written_in_one_line() {
    let pretty = Capabilities::from_json("{\n\t\"a\": [1,\r\n 2]\n}").unwrap();
    assert_eq!(in_a_line(&pretty), "{  \"a\": [1,   2] }");
}

fn any_entry() -> impl Strategy<Value = String> {
    let request = 0..6_u128;
    let name = prop_oneof![Just("a"), Just("b")];
    let replace = prop_oneof![Just(Replace::Nobody), Just(Replace::Anybody), Just(Replace::Own(RequestId(0)))];
    prop_oneof![
        3 => (any::<u64>()).prop_map(create),
        1 => (any::<u64>()).prop_map(delete),
        8 => (request.clone(), name, replace).prop_map(|(request, name, replace)| {
            joined(request, u64::try_from(request % 3).unwrap(), name, replace)
        }),
        3 => (request.clone(), 0..4_u64).prop_map(|(request, count)| {
            format!("U\t{}\t{count}\t{count}\n", RequestId(request))
        }),
        2 => request.clone().prop_map(|request| leave(RequestId(request))),
        2 => request.prop_map(|request| withdraw(RequestId(request), SessionId(u64::try_from(request % 3).unwrap()))),
        1 => (0..3_u64).prop_map(|session| dead(SessionId(session))),
    ]
}

proptest! {
    /// Names are never there twice, and a text that was written anew says the same.
    #[test]
    fn a_text_that_was_written_anew_says_the_same(texts in proptest::collection::vec(any_entry(), 0..40)) {
        let journal = read(&texts.concat());
        let mut names: Vec<_> = journal.members.iter().map(|entry| entry.member.clone()).collect();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), journal.members.len());
        prop_assert!(journal.made_by.is_some() || journal.members.is_empty());
        let again = read(&journal.compacted(&BTreeSet::new()));
        prop_assert_eq!(&again.members, &journal.members);
        prop_assert_eq!(again.made_by, journal.made_by);
        prop_assert!(again.members.iter().all(|entry| !again.withdrawn.contains_key(&entry.request)));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "([CDJULWX]\t[0-9a-f]{1,3}(\t[0-9a-f*-]{1,3}){0,6}\n|\\PC{0,9}){0,6}") {
        let _ = GroupJournal::read(text.as_bytes());
    }
}
