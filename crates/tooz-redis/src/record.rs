//! What stands in keys and comes in messages, read from text: holders, waiters, members, changes of groups, news for a session.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tooz_core::driver::{Change, Granted, Pushed, RequestId};
use tooz_core::{Capabilities, FencingToken, GroupId, Holder, LockMode, MemberId, Result, RosterEntry, Waiter};

use crate::error::strange;
use crate::layout::group_named;

pub(crate) fn request_id(text: &str) -> Result<RequestId> {
    text.parse().map_err(|_| strange(text))
}

/// A mode as it stands in records.
pub(crate) const fn letter(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Exclusive => "X",
        LockMode::Shared => "S",
    }
}

fn mode(letter: &str) -> Option<LockMode> {
    match letter {
        "X" => Some(LockMode::Exclusive),
        "S" => Some(LockMode::Shared),
        _ => None,
    }
}

fn moment(since: Duration) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(since)
}

/// A holder, as `holders.lua` tells it: member, mode, token, and since when in milliseconds.
pub(crate) fn holder(told: &[String]) -> Option<Holder> {
    let [member, letter, token, since] = told else { return None };
    let holder = Holder::new(MemberId::new(member).ok()?, mode(letter)?, FencingToken(token.parse().ok()?));
    let since = moment(Duration::from_millis(since.parse().ok()?));
    Some(since.map_or(holder.clone(), |since| holder.since(since)))
}

/// A waiter, as `waiters.lua` tells it: member, mode, and since when in microseconds, or nothing where that is not known.
pub(crate) fn waiter(told: &[String]) -> Option<Waiter> {
    let [member, letter, since] = told else { return None };
    let waiter = Waiter::new(MemberId::new(member).ok()?, mode(letter)?);
    let since = since.parse().ok().and_then(|since| moment(Duration::from_micros(since)));
    Some(since.map_or(waiter.clone(), |since| waiter.since(since)))
}

/// A member, by what scripts tell of it.
pub(crate) fn entry(member: &str, join: &str, capabilities: &str) -> Result<RosterEntry> {
    Ok(RosterEntry::new(
        MemberId::new(member).map_err(|_| strange(member))?,
        request_id(join)?,
        Capabilities::from_json(capabilities).map_err(|_| strange(capabilities))?,
    ))
}

/// A member with its record, `JOIN SESSION CAPABILITIES`.
pub(crate) fn membership(member: &str, record: &str) -> Result<RosterEntry> {
    let mut parts = record.splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(join), Some(_), Some(capabilities)) => entry(member, join, capabilities),
        _ => Err(strange(record)),
    }
}

/// Reads what `group.lua` pushes, and how long the member lives without a beat. `None`: it can't be understood.
pub(crate) fn change(text: &str) -> Option<(Pushed, Duration)> {
    if text == "gone" {
        return Some((Pushed::Gone, Duration::ZERO));
    }
    let mut parts = text.splitn(7, '\n');
    let after: u64 = parts.next()?.parse().ok()?;
    let version: u64 = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let life = Duration::from_millis(parts.next()?.parse().unwrap_or(0));
    let join = request_id(parts.next()?).ok()?;
    let member = MemberId::new(parts.next()?).ok()?;
    let capabilities = parts.next()?;
    let entry = |member| Some(RosterEntry::new(member, join, Capabilities::from_json(capabilities).ok()?));
    let change = match kind {
        "joined" => Change::Joined(entry(member)?),
        "updated" => Change::Updated(entry(member)?),
        "left" => Change::Left(member),
        _ => return None,
    };
    Some((Pushed::Delta { after: Some(after), version, change }, life))
}

/// One message to a session, `NUMBER\nKIND\nREQUEST…`.
#[derive(Debug)]
pub(crate) struct SessionMessage {
    /// They are numbered from 1 on, without a gap.
    pub(crate) number: u64,
    /// What it says; `None`: it can't be understood.
    pub(crate) news: Option<News>,
}

/// What a session may be told.
#[derive(Debug)]
pub(crate) enum News {
    /// A request that waited has its lock.
    Granted(RequestId, Granted),
    /// A grant was taken away.
    Broken(RequestId),
    /// A membership was taken over.
    Ousted(RequestId, GroupId),
}

impl SessionMessage {
    /// `None`: it is no message at all.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let (number, text) = text.split_once('\n')?;
        Some(SessionMessage { number: number.parse().ok()?, news: News::read(text) })
    }
}

impl News {
    fn read(text: &str) -> Option<Self> {
        let mut words = text.splitn(3, '\n');
        let (kind, request) = (words.next()?, request_id(words.next()?).ok()?);
        match (kind, words.next()) {
            ("granted", Some(token)) => Some(News::Granted(request, Granted::new(FencingToken(token.parse().ok()?)))),
            ("broken", None) => Some(News::Broken(request)),
            ("ousted", Some(group)) => Some(News::Ousted(request, group_named(group)?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layout::group_name;

    /// Pieces of what stands there, and what does not.
    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            "[0-9]{0,22}",
            "[0-9a-f]{32}",
            "X|S|granted|broken|ousted|joined|updated|left|gone|",
            "\\PC{0,8}",
            Just("{\"a\":1}".to_owned()),
            any::<u64>().prop_map(|number| number.to_string()),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_others_wrote_panics(pieces in prop::collection::vec(piece(), 0..9), mark in "[ \n]") {
            let text = pieces.join(&mark);
            let _ = (holder(&pieces), waiter(&pieces), change(&text), SessionMessage::read(&text));
            let _ = (membership("m", &text), membership(&text, ""), entry(&text, &text, &text), request_id(&text));
        }

        #[test]
        fn a_holder_and_a_waiter_read_back_the_same(
            member in "[a-zü ]{1,9}", token: u64, ms in 0..4_000_000_000_000_u64, shared: bool,
        ) {
            let mode = if shared { LockMode::Shared } else { LockMode::Exclusive };
            prop_assume!(MemberId::new(&member).is_ok());
            let told = [member.clone(), letter(mode).to_owned(), token.to_string(), ms.to_string()];
            let since = UNIX_EPOCH + Duration::from_millis(ms);
            let id = MemberId::new(&member).unwrap();
            prop_assert_eq!(holder(&told), Some(Holder::new(id.clone(), mode, FencingToken(token)).since(since)));
            let told = [member.clone(), letter(mode).to_owned(), (ms * 1000).to_string()];
            prop_assert_eq!(waiter(&told), Some(Waiter::new(id.clone(), mode).since(since)));
            let told = [member, letter(mode).to_owned(), String::new()];
            prop_assert_eq!(waiter(&told), Some(Waiter::new(id, mode)));
        }

        #[test]
        fn a_membership_and_its_change_read_back_the_same(
            join: u128, member in "[a-zü]{1,9}", after: u64, version: u64, life in 0..1_000_000_u64, word in "[^\"\\\\\\pC]{0,9}",
        ) {
            let (join, json) = (RequestId(join), format!("{{\"a\":\"{word}\\n \"}}"));
            let read = membership(&member, &format!("{join} 0f {json}")).unwrap();
            prop_assert_eq!((read.id, read.member.as_str(), read.capabilities.as_json()), (join, member.as_str(), json.as_str()));
            let text = format!("{after}\n{version}\njoined\n{life}\n{join}\n{member}\n{json}");
            let (pushed, lives) = change(&text).unwrap();
            prop_assert_eq!(lives, Duration::from_millis(life));
            let Pushed::Delta { after: Some(from), version: to, change: Change::Joined(entry) } = pushed else {
                return Err(TestCaseError::fail("another change"));
            };
            prop_assert_eq!((from, to, entry.id, entry.member.as_str()), (after, version, join, member.as_str()));
        }

        #[test]
        fn a_message_reads_back_the_same(number: u64, request: u128, token: u64, group in "\\PC{1,20}") {
            let request = RequestId(request);
            let read = |text: String| SessionMessage::read(&format!("{number}\n{text}")).map(|message| (message.number, message.news));
            let granted = read(format!("granted\n{request}\n{token}"));
            prop_assert!(matches!(granted, Some((n, Some(News::Granted(r, g)))) if (n, r, g.token.0) == (number, request, token)));
            let broken = read(format!("broken\n{request}"));
            prop_assert!(matches!(broken, Some((_, Some(News::Broken(r)))) if r == request));
            if let Ok(group) = group.parse::<GroupId>() {
                let ousted = read(format!("ousted\n{request}\n{}", group_name(&group)));
                prop_assert!(matches!(&ousted, Some((_, Some(News::Ousted(r, g)))) if *r == request && *g == group));
            }
        }
    }
}
