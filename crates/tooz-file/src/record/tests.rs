//! What is written is read back the same, and what others wrote is told from it.

use proptest::prelude::*;

use super::*;

#[test]
fn a_token_grows_over_garbage_and_over_a_clock_that_went_back() {
    assert_eq!(next_token(&counter(41), 7), 42);
    assert_eq!(next_token(&counter(41), 100), 100);
    assert_eq!(next_token(&[], 7), 7);
    assert_eq!(next_token(&[0xff; 16], 7), 7);
    assert_eq!(next_token(&counter(u64::MAX), 7), 7);
    assert_eq!(next_token(&counter(41)[..15], 7), 7);
}

#[test]
fn what_others_wrote_is_told_from_what_was_lost() {
    for lost in [&b""[..], &[0; 4096], b"tooz fi", b"tooz file 1\n", b"tooz file 1\nhalf a na"] {
        assert_eq!(Name::of(lost), Name::Lost);
    }
    assert_eq!(Name::of(&head("a b")), Name::Of(b"a b"));
    for foreign in [&b"#!/bin/sh\n"[..], &[0xff; 4096], b"\n", b"tooz file 2\nx\n"] {
        assert_eq!(Name::of(foreign), Name::Foreign);
    }
}

#[test]
fn a_record_is_read_whole_or_told_torn() {
    let file = tempfile::tempfile().unwrap();
    assert!(matches!(read_slot(&file, 3).unwrap(), Slot::Empty));
    let member = MemberId::new("\"\\".repeat(127)).unwrap();
    let mut bytes = Vec::new();
    append(&mut bytes, &member, LockMode::Shared, (1 << 53) - 1, u64::MAX >> 11, u32::MAX);
    assert!(bytes.len() <= 1024 - 32, "{}", bytes.len());
    file.write_all_at(&bytes, slot_at(3)).unwrap();
    match read_slot(&file, 3).unwrap() {
        Slot::Held(holder) => assert_eq!((holder.member, holder.mode), (member, LockMode::Shared)),
        _ => panic!("it was written"),
    }
    file.write_all_at(b"zzz", slot_at(3) + 20).unwrap();
    assert!(matches!(read_slot(&file, 3).unwrap(), Slot::Torn));
}

fn name() -> impl Strategy<Value = String> {
    "[^\\x00-\\x1f\\x7f]{1,60}"
}

fn a_member() -> impl Strategy<Value = MemberId> {
    name().prop_filter_map("no id", |name| MemberId::new(name).ok())
}

proptest! {
    #[test]
    fn a_name_is_read_back(name in name(), rest in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut file = head(&name);
        file.extend_from_slice(&rest);
        prop_assert_eq!(Name::of(&file), Name::Of(name.as_bytes()));
    }

    #[test]
    fn half_a_name_is_lost_and_never_another(name in name(), cut in any::<prop::sample::Index>()) {
        let head = head(&name);
        prop_assert_eq!(Name::of(&head[..cut.index(head.len())]), Name::Lost);
    }

    #[test]
    fn a_holder_is_read_back(
        member in a_member(), is_shared in any::<bool>(), token in 0..LARGEST_TOKEN, since in 0..LARGEST_TOKEN, pid in any::<u32>(),
    ) {
        let mode = if is_shared { LockMode::Shared } else { LockMode::Exclusive };
        let mut bytes = Vec::new();
        append(&mut bytes, &member, mode, token, since, pid);
        let since = UNIX_EPOCH + Duration::from_micros(since);
        match Slot::of(&bytes) {
            Slot::Held(holder) => {
                prop_assert_eq!(holder, Holder::new(member, mode, FencingToken(token)).since(since).pid(pid));
            }
            _ => prop_assert!(false, "it was written"),
        }
    }

    #[test]
    fn a_slot_may_hold_anything(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Slot::of(&bytes);
        let _ = Name::of(&bytes);
        let _ = next_token(&bytes, 7);
        // Also behind a true length and a true checksum.
        let mut framed = u32::try_from(bytes.len()).unwrap().to_le_bytes().to_vec();
        framed.extend_from_slice(&checksum(&bytes).to_le_bytes());
        framed.extend_from_slice(&bytes);
        let is_held = matches!(Slot::of(&framed), Slot::Held(_));
        prop_assert!(!is_held);
    }

    #[test]
    fn a_record_with_any_numbers_is_read_or_told_torn(token in any::<u64>(), since in any::<u64>(), mode in any::<char>()) {
        let json = serde_json::json!({ "member": "a", "mode": mode, "token": token, "since": since, "pid": 1 }).to_string();
        let mut framed = u32::try_from(json.len()).unwrap().to_le_bytes().to_vec();
        framed.extend_from_slice(&checksum(json.as_bytes()).to_le_bytes());
        framed.extend_from_slice(json.as_bytes());
        let is_empty = matches!(Slot::of(&framed), Slot::Empty);
        prop_assert!(!is_empty);
    }

    #[test]
    fn a_token_always_grows(last in 0..LARGEST_TOKEN, now in 0..LARGEST_TOKEN) {
        let next = next_token(&counter(last), now);
        prop_assert!(next > last && next >= now);
    }

    #[test]
    fn a_member_is_read_back(member in a_member(), id in any::<u128>(), text in ".{0,40}", number in any::<i64>()) {
        let capabilities = Capabilities::new(&serde_json::json!({ "text": text, "number": number })).unwrap();
        let content = MemberRecord::write(&member, RequestId(id), &capabilities).unwrap();
        prop_assert!(content.starts_with(br#"{"member":"#), "that is how the dead are known");
        let entry = MemberRecord::read(Path::new("x"), &content).unwrap();
        prop_assert_eq!(entry, RosterEntry::new(member, RequestId(id), capabilities));
    }

    #[test]
    fn a_members_file_may_hold_anything(content in prop::collection::vec(any::<u8>(), 0..200), text in "[{}\",:a-z0-9]{0,60}") {
        prop_assert!(MemberRecord::read(Path::new("x"), &content).is_err());
        prop_assert!(MemberRecord::read(Path::new("x"), text.as_bytes()).is_err());
    }
}
