//! Where figures are counted until the recorder of the application takes them: by a thread of its own, so that one that is slow or blocks holds up
//! neither a caller nor the heartbeat.
//!
//! Counters and gauges are added up here, so that none is ever lost. Samples of histograms are kept one by one, up to [`MOST`] of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{Label, Unit};

use crate::base::mutex::Mutex;
use crate::engine::metric::{DROPPED, METRICS, Metric, MetricKind};
use crate::engine::trace::tell;

/// How many samples wait for the recorder at most, and at how many it is asked to take them before its time.
const MOST: usize = 8192;
const MANY: usize = 1024;

/// Labels whose values are known beforehand; an empty name stands for none.
pub(crate) type Labels = [(&'static str, &'static str); 3];

/// How the figures of a coordinator are labelled.
#[derive(Clone, Default)]
pub(crate) struct MeterOptions {
    /// The label `coordinator`, in place of the namespace.
    pub(crate) coordinator: Option<Arc<str>>,
    /// Whether the names of locks and groups are labels too.
    pub(crate) with_names: bool,
}

/// The figures of one coordinator.
pub(crate) struct Meter {
    state: Arc<MeterState>,
    with_names: bool,
}

struct MeterState {
    base: Vec<Label>,
    pending: Mutex<Pending>,
    is_asked: AtomicBool,
    /// From the close on all goes to the recorder at once.
    has_ended: AtomicBool,
}

#[derive(Default)]
struct Pending {
    counts: HashMap<Series, u64>,
    changes: HashMap<Series, f64>,
    levels: HashMap<Series, f64>,
    samples: Vec<(Series, Duration)>,
    dropped: u64,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Series {
    name: &'static str,
    labels: Labels,
    subject: Option<(&'static str, Arc<str>)>,
}

impl Meter {
    /// Whether figures are counted at all.
    pub(crate) const IS_ON: bool = true;

    pub(crate) fn new(driver: &'static str, namespace: &str, options: &MeterOptions) -> Self {
        let coordinator = options.coordinator.as_deref().unwrap_or(namespace).to_owned();
        let base = vec![Label::new("driver", driver), Label::new("coordinator", coordinator)];
        let state = MeterState {
            base,
            pending: Mutex::default(),
            is_asked: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        };
        Meter { state: Arc::new(state), with_names: options.with_names }
    }

    pub(crate) fn count(&self, metric: &'static Metric, labels: Labels, subject: Option<(&'static str, &Arc<str>)>) {
        let series = self.series(metric, labels, subject);
        *self.state.pending.lock().counts.entry(series).or_default() += 1;
        self.state.told();
    }

    pub(crate) fn change(
        &self,
        metric: &'static Metric,
        labels: Labels,
        subject: Option<(&'static str, &Arc<str>)>,
        by: f64,
    ) {
        let series = self.series(metric, labels, subject);
        *self.state.pending.lock().changes.entry(series).or_default() += by;
        self.state.told();
    }

    pub(crate) fn level(&self, metric: &'static Metric, level: f64) {
        let series = self.series(metric, Labels::default(), None);
        self.state.pending.lock().levels.insert(series, level);
    }

    pub(crate) fn sample(
        &self,
        metric: &'static Metric,
        labels: Labels,
        subject: Option<(&'static str, &Arc<str>)>,
        time: Duration,
    ) {
        let series = self.series(metric, labels, subject);
        let many = self.state.pending.lock().keep(series, time);
        if many {
            self.flush();
        } else {
            self.state.told();
        }
    }

    /// Asks the thread that tells to hand everything over.
    pub(crate) fn flush(&self) {
        self.state.flush();
    }

    /// Nothing waits for the next flush any more.
    pub(crate) fn end(&self) {
        self.state.has_ended.store(true, Ordering::Relaxed);
        self.flush();
    }

    fn series(&self, metric: &'static Metric, labels: Labels, subject: Option<(&'static str, &Arc<str>)>) -> Series {
        let subject = subject.filter(|_| self.with_names).map(|(label, name)| (label, Arc::clone(name)));
        Series { name: metric.name, labels, subject }
    }
}

impl Pending {
    /// Keeps a sample, if there is room. Whether it is time to hand them over.
    fn keep(&mut self, series: Series, time: Duration) -> bool {
        if self.samples.len() < MOST {
            self.samples.push((series, time));
        } else {
            self.dropped += 1;
        }
        self.samples.len() >= MANY
    }
}

impl MeterState {
    fn told(self: &Arc<Self>) {
        if self.has_ended.load(Ordering::Relaxed) {
            self.flush();
        }
    }

    fn flush(self: &Arc<Self>) {
        if self.is_asked.swap(true, Ordering::AcqRel) {
            return;
        }
        let state = Arc::clone(self);
        let is_queued = tell(move || {
            state.is_asked.store(false, Ordering::Release);
            state.hand_over();
        });
        if !is_queued {
            self.is_asked.store(false, Ordering::Release);
        }
    }

    fn hand_over(&self) {
        let Pending { counts, changes, levels, samples, dropped } = std::mem::take(&mut *self.pending.lock());
        describe();
        for (series, count) in counts {
            metrics::counter!(series.name, self.labels(&series)).increment(count);
        }
        for (series, change) in changes {
            metrics::gauge!(series.name, self.labels(&series)).increment(change);
        }
        for (series, level) in levels {
            metrics::gauge!(series.name, self.labels(&series)).set(level);
        }
        for (series, time) in samples {
            metrics::histogram!(series.name, self.labels(&series)).record(time);
        }
        if dropped > 0 {
            metrics::counter!(DROPPED.name, self.base.clone()).increment(dropped);
        }
    }

    fn labels(&self, series: &Series) -> Vec<Label> {
        let known = series.labels.iter().filter(|(name, _)| !name.is_empty());
        let known = known.map(|(name, value)| Label::from_static_parts(name, value));
        let subject = series.subject.iter().map(|(label, name)| Label::new(*label, name.to_string()));
        self.base.iter().cloned().chain(known).chain(subject).collect()
    }
}

/// Tells units and words to whichever recorder there is now: it may have come after the coordinator.
fn describe() {
    for metric in METRICS {
        match metric.kind {
            MetricKind::Counter => metrics::describe_counter!(metric.name, Unit::Count, metric.help),
            MetricKind::Gauge if metric.name.ends_with("_seconds") => {
                metrics::describe_gauge!(metric.name, Unit::Seconds, metric.help);
            }
            MetricKind::Gauge => metrics::describe_gauge!(metric.name, Unit::Count, metric.help),
            MetricKind::Histogram => metrics::describe_histogram!(metric.name, Unit::Seconds, metric.help),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::metric::{HOLD, WAITS};

    #[test]
    fn samples_that_find_no_room_are_counted_and_no_count_is_lost() {
        let meter = Meter::new("fake", "tooz", &MeterOptions::default());
        // A recorder that never comes: the thread that tells is not asked.
        meter.state.is_asked.store(true, Ordering::Relaxed);
        for _ in 0..MOST + 7 {
            meter.sample(&HOLD, Labels::default(), None, Duration::from_millis(1));
            meter.count(&WAITS, Labels::default(), None);
        }
        let pending = meter.state.pending.lock();
        assert_eq!((pending.samples.len(), pending.dropped), (MOST, 7));
        assert_eq!(pending.counts.values().sum::<u64>(), (MOST + 7) as u64);
    }

    #[test]
    fn names_are_labels_only_on_request() {
        let name: Arc<str> = "nightly".into();
        let with = MeterOptions { coordinator: Some("billing".into()), with_names: true };
        for (options, expected) in [(MeterOptions::default(), None), (with, Some(("lock", Arc::clone(&name))))] {
            let meter = Meter::new("fake", "tooz", &options);
            assert!(meter.series(&HOLD, Labels::default(), Some(("lock", &name))).subject == expected);
        }
    }
}
