//! The figures that a coordinator tells the recorder of its application.

#![allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "all figures here are small whole numbers")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tooz_core::{ConnectOptions, LeaderEvent};
use tooz_memory as _;

/// Counters, gauges and the numbers of samples, added up over all that was seen.
#[derive(Default)]
struct Figures(BTreeMap<String, f64>);

impl Figures {
    /// Takes in what is new: a snapshot sets everything back to nothing.
    fn read(&mut self, snapshotter: &Snapshotter) {
        for (key, _, _, value) in snapshotter.snapshot().into_vec() {
            let labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let figure = self.0.entry(format!("{}{{{}}}", key.key().name(), labels.join(","))).or_default();
            match value {
                DebugValue::Counter(count) => *figure += count as f64,
                DebugValue::Gauge(change) => *figure += change.into_inner(),
                DebugValue::Histogram(samples) => *figure += samples.len() as f64,
            }
        }
    }

    fn of(&self, name: &str, labels: &[&str]) -> f64 {
        let is_meant =
            |key: &&String| key.starts_with(&format!("{name}{{")) && labels.iter().all(|label| key.contains(label));
        self.0.keys().filter(is_meant).map(|key| self.0[key]).sum()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_is_told_in_figures() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    recorder.install().unwrap();
    let options =
        |label: &str| ConnectOptions::new("memory://metrics").unwrap().metrics_label(label).metrics_with_names();
    let one = options("one").member("one").unwrap().connect().await.unwrap();
    let two = options("two").member("two").unwrap().connect().await.unwrap();

    let (lock, other) = (one.lock("nightly").unwrap(), two.lock("nightly").unwrap());
    let guard = lock.acquire().await.unwrap();
    assert!(other.try_acquire().await.unwrap().is_none());
    let cancelled = tokio::time::timeout(Duration::from_millis(50), other.acquire()).await;
    assert!(cancelled.is_err());
    let [holder] = &lock.holders().await.unwrap()[..] else { panic!("one holds it") };
    other.break_lock(holder).await.unwrap();
    guard.loss().wait().await;
    drop(guard);
    other.acquire().await.unwrap().release().await.unwrap();

    let group = one.group("workers").unwrap();
    let membership = group.join_or_create("ready").await.unwrap();
    let (watch, mut leaders) = (group.watch().await.unwrap(), group.watch_leader().await.unwrap());
    assert_eq!(leaders.next().await, Some(LeaderEvent::Vacant));
    let leadership = membership.campaign().await.unwrap();
    assert!(matches!(leaders.next().await, Some(LeaderEvent::Elected(_))));

    let expected: &[(&str, &[&str], f64)] = &[
        ("tooz_waits_total", &["coordinator=one", "kind=lock", "outcome=granted", "lock=nightly"], 1.0),
        ("tooz_waits_total", &["coordinator=two", "outcome=busy"], 1.0),
        ("tooz_waits_total", &["coordinator=two", "outcome=cancelled"], 1.0),
        ("tooz_waits_total", &["kind=election", "outcome=granted", "group=workers"], 1.0),
        ("tooz_wait_seconds", &["kind=lock"], 2.0),
        ("tooz_hold_seconds", &["coordinator=one", "end=lost"], 1.0),
        ("tooz_hold_seconds", &["coordinator=two", "end=released"], 1.0),
        ("tooz_losses_total", &["what=lock", "reason=broken"], 1.0),
        ("tooz_held", &["kind=election"], 1.0),
        ("tooz_held", &["kind=lock"], 0.0),
        ("tooz_waiting", &[], 0.0),
        ("tooz_memberships", &[], 1.0),
        ("tooz_group_members", &["group=workers"], 1.0),
        ("tooz_leader_changes_total", &["group=workers"], 1.0),
        ("tooz_sessions_opened_total", &[], 2.0),
        ("tooz_requests_total", &["operation=break_lock", "outcome=ok"], 1.0),
        ("tooz_requests_total", &["operation=join", "outcome=NotFound"], 1.0),
        ("tooz_request_seconds", &["operation=join"], 2.0),
    ];
    let mut figures = Figures::default();
    let differs = |figures: &Figures| {
        let wrong = |&&(name, labels, value): &&(&str, &[&str], f64)| figures.of(name, labels) != value;
        expected.iter().filter(wrong).map(|(name, labels, _)| format!("{name} {labels:?}")).collect::<Vec<_>>()
    };
    let end = Instant::now() + Duration::from_secs(20);
    while !differs(&figures).is_empty() && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        figures.read(&snapshotter);
    }
    assert!(differs(&figures).is_empty(), "{:?} of {:#?}", differs(&figures), figures.0);

    // What no watch knows any more is not counted, though the member stays.
    drop((watch, leaders));
    while figures.of("tooz_group_members", &[]) != 0.0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        figures.read(&snapshotter);
    }
    assert_eq!(figures.of("tooz_group_members", &[]), 0.0);
    leadership.resign().await.unwrap();
    membership.leave().await.unwrap();
    one.close().await.unwrap();
    two.close().await.unwrap();
    let gauges = ["tooz_held", "tooz_waiting", "tooz_memberships", "tooz_group_members"];
    let stand = |figures: &Figures| gauges.iter().any(|name| figures.of(name, &[]) != 0.0);
    while stand(&figures) && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        figures.read(&snapshotter);
    }
    assert!(!stand(&figures), "a gauge is left up: {:#?}", figures.0);
}
