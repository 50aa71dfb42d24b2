//! In place of the meter, where the feature `metrics` is off: nothing is counted.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::metric::Metric;

pub(crate) type Labels = [(&'static str, &'static str); 3];

#[derive(Clone, Default)]
pub(crate) struct MeterOptions;

pub(crate) struct Meter;

impl Meter {
    pub(crate) const IS_ON: bool = false;

    pub(crate) fn new(_driver: &'static str, _namespace: &str, _options: &MeterOptions) -> Self {
        Meter
    }

    pub(crate) fn count(&self, _metric: &'static Metric, _labels: Labels, _subject: Option<(&'static str, &Arc<str>)>) {
    }

    pub(crate) fn change(
        &self,
        _metric: &'static Metric,
        _labels: Labels,
        _subject: Option<(&'static str, &Arc<str>)>,
        _by: f64,
    ) {
    }

    pub(crate) fn level(&self, _metric: &'static Metric, _level: f64) {}

    pub(crate) fn sample(
        &self,
        _metric: &'static Metric,
        _labels: Labels,
        _subject: Option<(&'static str, &Arc<str>)>,
        _time: Duration,
    ) {
    }

    pub(crate) fn flush(&self) {}

    pub(crate) fn end(&self) {}
}
