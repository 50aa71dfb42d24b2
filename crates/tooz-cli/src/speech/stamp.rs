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

/// As it is read on a narrow screen: the time of day, or before today the day and the minute.
pub(crate) fn short(time: SystemTime, now: SystemTime) -> String {
    let (time, now) = (local(time), local(now));
    match (time.split_once(' '), now.split_once(' ')) {
        (Some((day, clock)), Some((today, _))) if day == today => clock.to_owned(),
        (Some((day, clock)), _) => format!("{} {}", day.get(5..).unwrap_or(day), clock.get(..5).unwrap_or(clock)),
        _ => time,
    }
}

/// As programs read it: RFC 3339, UTC, to the millisecond.
pub(crate) fn utc(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn today_is_told_by_the_time_of_day() {
        let now = SystemTime::now();
        assert_eq!(short(now, now).len(), "12:34:56".len());
        assert_eq!(short(now - Duration::from_hours(48), now).len(), "11-29 12:34".len());
    }
}
