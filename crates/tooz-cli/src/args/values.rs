//! Values as they are typed: durations, nodes, counts.

use std::time::Duration;

/// `500ms`, `10s`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; a duration looks like 500ms, 10s or 2m"))
}

/// The same, or seconds without a unit, as `flock -w` has them.
pub(super) fn duration_or_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.map_or_else(|| duration(text), Ok)
}

/// How often; an empty variable is one that is not set.
pub(super) fn count(text: &str) -> Result<u8, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| format!("{text:?} is no count; write 0, 1 or 2"))
}

/// `NAME` or `NAME=WEIGHT`.
pub(super) fn node(text: &str) -> Result<(String, u32), String> {
    let (name, weight) = match text.rsplit_once('=') {
        None => (text, 1),
        Some((name, weight)) => {
            let weight = weight.parse().map_err(|_| {
                format!("the weight {weight:?} is no whole number; a node is NAME or NAME=WEIGHT (a name with = in it needs its weight)")
            })?;
            (name, weight)
        }
    };
    if name.is_empty() {
        return Err("the node has no name; a node is NAME or NAME=WEIGHT".to_owned());
    }
    Ok((name.to_owned(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_a_name_with_or_without_a_weight() {
        assert_eq!(node("a").unwrap(), ("a".to_owned(), 1));
        assert_eq!(node("a=b=0").unwrap(), ("a=b".to_owned(), 0));
        assert!(node("a=b").unwrap_err().contains("NAME=WEIGHT"));
        assert!(node("=2").unwrap_err().contains("no name"));
    }

    #[test]
    fn a_wait_may_be_in_seconds_alone() {
        assert_eq!(duration_or_seconds("0").unwrap(), Duration::ZERO);
        assert_eq!(duration_or_seconds("1.5").unwrap(), Duration::from_millis(1500));
        assert_eq!(duration_or_seconds("2m").unwrap(), Duration::from_mins(2));
        assert!(duration_or_seconds("-1").is_err() && duration_or_seconds("NaN").is_err());
        assert!(duration_or_seconds("soon").unwrap_err().contains("500ms"));
    }
}
