//! Which figures a coordinator gives out, by the names and units that Prometheus users expect.

/// What kind of figure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How long something took, in seconds.
    Histogram,
}

/// One figure.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: MetricKind,
    pub(crate) help: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, help }
}

pub(crate) static WAITS: Metric = counter("tooz_waits_total", "Calls for a lock or a leadership that have ended.");
pub(crate) static WAIT: Metric =
    histogram("tooz_wait_seconds", "How long calls for a lock or a leadership took until they were granted.");
pub(crate) static WAITING: Metric = gauge("tooz_waiting", "Calls for a lock or a leadership that wait now.");
pub(crate) static HOLD: Metric = histogram("tooz_hold_seconds", "How long locks and leaderships were held.");
pub(crate) static HELD: Metric = gauge("tooz_held", "Locks and leaderships that this process has in hand now.");
pub(crate) static LOSSES: Metric = counter("tooz_losses_total", "What was lost without being given back, by reason.");
pub(crate) static SESSIONS: Metric = counter("tooz_sessions_opened_total", "Sessions that were opened.");
pub(crate) static REMAINING: Metric = gauge(
    "tooz_session_remaining_seconds",
    "How long the session lives for sure without another heartbeat; 0 while it is lost.",
);
pub(crate) static HEARTBEATS: Metric = counter("tooz_heartbeats_total", "Heartbeats that were answered or failed.");
pub(crate) static HEARTBEAT: Metric =
    histogram("tooz_heartbeat_seconds", "How long answered heartbeats were under way.");
pub(crate) static MEMBERSHIPS: Metric = gauge("tooz_memberships", "Groups that this process is a member of now.");
pub(crate) static MEMBERS: Metric =
    gauge("tooz_group_members", "Members of the groups that are watched, as the watches know them.");
pub(crate) static LEADER_CHANGES: Metric =
    counter("tooz_leader_changes_total", "Changes of the leader that a watch has seen.");
pub(crate) static REQUESTS: Metric = counter("tooz_requests_total", "Requests to the backend, by outcome.");
pub(crate) static REQUEST: Metric =
    histogram("tooz_request_seconds", "How long requests took; that of a wait ends with the grant.");
pub(crate) static DROPPED: Metric =
    counter("tooz_dropped_samples_total", "Samples of histograms that a recorder was too slow for.");

/// All of them.
pub(crate) static METRICS: [&Metric; 16] = [
    &WAITS,
    &WAIT,
    &WAITING,
    &HOLD,
    &HELD,
    &LOSSES,
    &SESSIONS,
    &REMAINING,
    &HEARTBEATS,
    &HEARTBEAT,
    &MEMBERSHIPS,
    &MEMBERS,
    &LEADER_CHANGES,
    &REQUESTS,
    &REQUEST,
    &DROPPED,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind_and_the_guide_tells_all_names() {
        let guide = include_str!("../../../tooz/docs/metrics.md");
        for metric in METRICS {
            assert_eq!(metric.name.ends_with("_total"), metric.kind == MetricKind::Counter, "{}", metric.name);
            assert!(metric.kind != MetricKind::Histogram || metric.name.ends_with("_seconds"), "{}", metric.name);
            assert!(guide.contains(&format!("`{}`", metric.name)), "the guide does not tell of {}", metric.name);
            assert!(metric.help.ends_with('.'));
        }
    }
}
