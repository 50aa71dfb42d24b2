//! Times as they are written: local for people, UTC for programs.

use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// As people read it: local, to the second.
pub(crate) fn local(time: SystemTime) -> String {
    match Timestamp::try_from(time) {
        Ok(stamp) => stamp.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        // Beyond the year 9999: a clock that is wrong.
        Err(_) => utc(time),
    }
}

/// As programs read it: RFC 3339, UTC, to the millisecond.
pub(crate) fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
