//! What stands in the tables and in notifications: how it is written, and how it is read back, also where another program wrote it.

use std::time::{Duration, SystemTime};

use serde::Deserialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use tooz_core::driver::{Change, LockKey, Pushed, RequestId};
use tooz_core::{
    Capabilities, Error, ErrorKind, FencingToken, GroupId, Holder, LockMode, LockName, MemberId, Result, RosterEntry,
    Waiter,
};

/// What is told to a session whose grants a reader wants to see that finds nothing written down of them.
pub(crate) const ASKED: &str = "who holds what?";

/// What is told to a session on its own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionNotice {
    /// A reader wants to know what it holds.
    Asked,
    /// Another session has taken the membership of that join over.
    TakenOver(RequestId),
}

/// A grant as a reader finds it.
#[derive(Debug)]
pub(crate) enum GrantRow {
    Written(Holder),
    /// It is held, but not written down yet.
    Young(MemberId),
}

/// An error says that the row itself can't be read, and the inner one that its content is not of this driver's making.
pub(crate) type Read<T> = Result<Result<T>, sqlx::Error>;

/// Reads what was told to a session; `None`: by another version.
pub(crate) fn told(payload: &str) -> Option<SessionNotice> {
    match payload {
        ASKED => Some(SessionNotice::Asked),
        id => id.parse().ok().map(SessionNotice::TakenOver),
    }
}

/// An id as the tables have it.
pub(crate) fn bytes(id: RequestId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

pub(crate) fn request_id(bytes: &[u8]) -> Option<RequestId> {
    Some(RequestId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// Reads a row of `members.sql`; `None`: a group without members.
pub(crate) fn entry(row: &PgRow) -> Result<Option<Result<RosterEntry>>, sqlx::Error> {
    let Some(member) = row.try_get::<Option<&str>, _>("member")? else { return Ok(None) };
    let (request, capabilities): (&[u8], &str) = (row.try_get("request")?, row.try_get("capabilities")?);
    Ok(Some(read_entry(member, request_id(request), capabilities)))
}

fn read_entry(member: &str, id: Option<RequestId>, capabilities: &str) -> Result<RosterEntry> {
    let strange =
        || Error::new(ErrorKind::Backend, format!("the entry of member {member:?} is not of this driver's making"));
    Ok(RosterEntry::new(MemberId::new(member)?, id.ok_or_else(strange)?, Capabilities::from_json(capabilities)?))
}

/// The member of a session's row. What can't be one is the row's fault, and no word about what the caller asked.
fn member(name: &str) -> Result<MemberId> {
    MemberId::new(name).map_err(|error| {
        Error::new(
            ErrorKind::Backend,
            format!("the session of member {name:?} is not of this driver's making: {error}"),
        )
    })
}

/// Reads a row of `holders.sql`.
pub(crate) fn grant(row: &PgRow) -> Read<GrantRow> {
    let member = match member(row.try_get("member")?) {
        Ok(member) => member,
        Err(error) => return Ok(Err(error)),
    };
    let Some(token) = row.try_get::<Option<i64>, _>("token")? else { return Ok(Ok(GrantRow::Young(member))) };
    let mode = if row.try_get("exclusive")? { LockMode::Exclusive } else { LockMode::Shared };
    let holder = Holder::new(member, mode, FencingToken(token.cast_unsigned()));
    Ok(Ok(GrantRow::Written(holder.since(time(row.try_get("since")?)))))
}

/// A time of the server, in seconds since 1970.
fn time(seconds: f64) -> SystemTime {
    let since = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads a row of `waiters.sql`.
pub(crate) fn waiter(row: &PgRow) -> Read<Waiter> {
    let mode = if row.try_get("shared")? { LockMode::Shared } else { LockMode::Exclusive };
    Ok(member(row.try_get("member")?).map(|member| Waiter::new(member, mode)))
}

/// Reads a row of `locks.sql`; `None`: the name is not written down yet.
pub(crate) fn lock_key(row: &PgRow) -> Result<Option<Result<LockKey>>, sqlx::Error> {
    let Some(space) = row.try_get::<Option<&str>, _>("space")? else { return Ok(None) };
    Ok(Some(read_lock_key(space, row.try_get("name")?)))
}

fn read_lock_key(space: &str, name: &str) -> Result<LockKey> {
    match space {
        "lock" => LockName::new(name).map(|name| LockKey::lock(&name)),
        "election" => GroupId::new(name).map(|group| LockKey::election(&group)),
        _ => {
            Err(Error::new(ErrorKind::Backend, format!("the grant of {space} {name:?} is not of this driver's making")))
        }
    }
}

/// A change of a group as `schema.sql` tells it.
#[derive(Deserialize)]
struct ChangeNotice {
    version: u64,
    kind: String,
    member: String,
    request: String,
    capabilities: String,
}

/// Reads what was told of a group or an election.
pub(crate) fn pushed(payload: &str) -> Pushed {
    match payload {
        "" => Pushed::Dirty,
        "gone" => Pushed::Gone,
        // What can't be read is a reason to look.
        payload => serde_json::from_str(payload).ok().and_then(|told| delta(&told)).unwrap_or(Pushed::Dirty),
    }
}

fn delta(told: &ChangeNotice) -> Option<Pushed> {
    let entry = || read_entry(&told.member, told.request.parse::<RequestId>().ok(), &told.capabilities).ok();
    let change = match told.kind.as_str() {
        "joined" => Change::Joined(entry()?),
        "updated" => Change::Updated(entry()?),
        "left" => Change::Left(MemberId::new(&told.member).ok()?),
        _ => return None,
    };
    Some(Pushed::Delta { after: told.version.checked_sub(1), version: told.version, change })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_others_have_written_is_read_or_refused(text in ".{0,80}", other in ".{0,80}", raw: Vec<u8>, seconds: f64) {
            let _ = (told(&text), pushed(&text), request_id(&raw), time(seconds));
            let _ = (read_entry(&text, request_id(&raw), &other), read_lock_key("lock", &text), read_lock_key(&text, &other));
        }

        #[test]
        fn no_change_that_another_program_tells_is_too_much(
            version in "-?[1-9][0-9]{0,21}", kind in "joined|updated|left|[a-z]{0,4}", member in ".{0,20}", request in "[0-9a-fA-F+-]{0,40}",
            capabilities in ".{0,20}",
        ) {
            let change = serde_json::json!({
                "version": version.parse::<serde_json::Number>().unwrap(), "kind": kind, "member": member, "request": request,
                "capabilities": capabilities,
            });
            let _ = pushed(&change.to_string());
        }

        #[test]
        fn an_id_and_a_name_read_back_the_same(id: u128, name in "[^\\p{Cc}]{1,40}") {
            let id = RequestId(id);
            prop_assert_eq!(request_id(&bytes(id)), Some(id));
            prop_assert_eq!(told(&id.to_string()), Some(SessionNotice::TakenOver(id)));
            for key in [LockName::new(&name).map(|name| LockKey::lock(&name)), GroupId::new(&name).map(|name| LockKey::election(&name))] {
                let Ok(key) = key else { continue };
                prop_assert_eq!(read_lock_key(crate::layout::space(key.space), &key.name).unwrap(), key);
            }
        }

        /// As `tell_change` of `schema.sql` tells it.
        #[test]
        fn a_change_reads_back_the_same(version in 1_u64.., id: u128, name in "[^\\p{Cc}]{1,40}", value: Option<String>) {
            let capabilities = Capabilities::new(&value).unwrap();
            let Ok(member) = MemberId::new(&name) else { return Ok(()) };
            let change = |kind: &str| {
                serde_json::json!({
                    "version": version, "kind": kind, "member": name, "request": format!("{id:032x}"),
                    "capabilities": if kind == "left" { "" } else { capabilities.as_json() },
                })
                .to_string()
            };
            for kind in ["joined", "updated", "left"] {
                let Pushed::Delta { after, version: made, change } = pushed(&change(kind)) else {
                    return Err(TestCaseError::fail(change(kind)));
                };
                prop_assert_eq!((after, made), (Some(version - 1), version));
                match change {
                    Change::Left(left) => prop_assert_eq!(&left, &member),
                    Change::Joined(entry) | Change::Updated(entry) => {
                        prop_assert_eq!(entry, RosterEntry::new(member.clone(), RequestId(id), capabilities.clone()));
                    }
                }
            }
        }
    }

    #[test]
    fn a_session_is_told_what_it_is_told() {
        assert_eq!(told(ASKED), Some(SessionNotice::Asked));
        assert_eq!(told(""), None);
    }

    #[test]
    fn a_change_is_read_and_what_is_no_change_is_a_reason_to_look() {
        let told = r#"{"version":8,"kind":"joined","member":"a","request":"000000000000000000000000000000ff","capabilities":"[1]"}"#;
        let Pushed::Delta { after: Some(7), version: 8, change: Change::Joined(entry) } = pushed(told) else {
            panic!("{:?}", pushed(told))
        };
        assert_eq!((entry.member.as_str(), entry.id, entry.capabilities.as_json()), ("a", RequestId(255), "[1]"));
        let left = told.replace("joined", "left");
        assert!(matches!(pushed(&left), Pushed::Delta { change: Change::Left(member), .. } if member.as_str() == "a"));
        assert!(matches!(pushed("gone"), Pushed::Gone));
        for other in ["", "x", "{}", &told.replace("joined", "danced"), &told.replace("[1]", "[")] {
            assert!(matches!(pushed(other), Pushed::Dirty), "{other}");
        }
    }
}
