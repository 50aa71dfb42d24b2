//! What stands in the tables: how it is written, and how it is read back, also where another program wrote it.

use std::time::{Duration, SystemTime};

use sqlx::mysql::MySqlRow;
use tooz_core::driver::{LockKey, RequestId};
use tooz_core::{
    Capabilities, Error, ErrorKind, FencingToken, GroupId, Holder, LockMode, LockName, MemberId, Result, RosterEntry,
    Waiter,
};

use crate::answer::{bytes as raw, number, text};
use crate::packet;

/// The server's time in microseconds since 1970, whatever its time zone.
pub(crate) const NOW: &str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";

/// An error says that the row itself can't be read, and the inner one that its content is not of this driver's making.
pub(crate) type Read<T> = Result<Result<T>, sqlx::Error>;

/// An id as it stands in a statement.
pub(crate) fn bytes(id: RequestId) -> String {
    packet::bytes(&id.0.to_be_bytes())
}

pub(crate) fn request_id(bytes: &[u8]) -> Option<RequestId> {
    Some(RequestId(u128::from_be_bytes(bytes.try_into().ok()?)))
}

/// Reads a row of version, member, request and capabilities; `None`: a group without members.
pub(crate) fn entry(row: &MySqlRow) -> Result<Option<Result<RosterEntry>>, sqlx::Error> {
    let Some(member) = raw(row, 1)? else { return Ok(None) };
    let (request, capabilities) = (raw(row, 2)?.unwrap_or_default(), text(row, 3)?.unwrap_or_default());
    Ok(Some(read_entry(&member, request_id(&request), &capabilities)))
}

fn read_entry(member: &[u8], id: Option<RequestId>, capabilities: &str) -> Result<RosterEntry> {
    let strange = || Error::new(ErrorKind::Backend, "an entry of a group is not of this driver's making");
    let member = MemberId::new(std::str::from_utf8(member).map_err(|_| strange())?)?;
    Ok(RosterEntry::new(member, id.ok_or_else(strange)?, Capabilities::from_json(capabilities)?))
}

/// Reads a row of member, whether it is exclusive, token and time.
pub(crate) fn holder(row: &MySqlRow) -> Read<Holder> {
    let member = match MemberId::new(text(row, 0)?.unwrap_or_default()) {
        Ok(member) => member,
        Err(error) => return Ok(Err(error)),
    };
    let (token, since) = (number(row, 2)?.unwrap_or_default(), number(row, 3)?.unwrap_or_default());
    let holder = Holder::new(member, mode(row, 1)?, FencingToken(token.cast_unsigned()));
    Ok(Ok(holder.since(time(since))))
}

fn mode(row: &MySqlRow, column: usize) -> Result<LockMode, sqlx::Error> {
    Ok(if number(row, column)? == Some(1) { LockMode::Exclusive } else { LockMode::Shared })
}

/// A time of the server, in microseconds since 1970.
fn time(micros: i64) -> SystemTime {
    let since = Duration::from_micros(u64::try_from(micros).unwrap_or_default());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Reads a row of member, and whether it waits for the lock alone.
pub(crate) fn waiter(row: &MySqlRow) -> Read<Waiter> {
    let mode = mode(row, 1)?;
    Ok(MemberId::new(text(row, 0)?.unwrap_or_default()).map(|member| Waiter::new(member, mode)))
}

/// Reads a row of space and name.
pub(crate) fn lock_key(row: &MySqlRow) -> Read<LockKey> {
    Ok(read_lock_key(&text(row, 0)?.unwrap_or_default(), &text(row, 1)?.unwrap_or_default()))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_others_have_written_is_read_or_refused(text in ".{0,80}", other in ".{0,80}", raw: Vec<u8>, micros: i64) {
            let _ = (request_id(&raw), time(micros), read_entry(&raw, request_id(&raw), &other));
            let _ = (read_entry(text.as_bytes(), request_id(&[0; 16]), &other), read_lock_key("lock", &text), read_lock_key(&text, &other));
        }

        #[test]
        fn an_id_and_a_name_read_back_the_same(id: u128, name in "[^\\p{Cc}]{1,40}") {
            prop_assert_eq!(request_id(&id.to_be_bytes()), Some(RequestId(id)));
            for key in [LockName::new(&name).map(|name| LockKey::lock(&name)), GroupId::new(&name).map(|name| LockKey::election(&name))] {
                let Ok(key) = key else { continue };
                prop_assert_eq!(read_lock_key(crate::layout::space(key.space), &key.name).unwrap(), key);
            }
        }
    }
}
