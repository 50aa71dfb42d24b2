//! What was found, as a table for people and as JSON for machines.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::backend::{Backend, Unit};
use crate::memory_floor::MemoryFloor;
use crate::stats::{Summary, words};
use crate::target::{self, Measure, Target};

/// All that was found out about one backend.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) backend: &'static str,
    /// What the ratios are ratios to.
    unit: Option<&'static str>,
    /// The median of the unit in nanoseconds.
    unit_p50: Option<u64>,
    /// The median of the unit where it is used as rarely as a hand-over.
    rare_unit_p50: Option<u64>,
    /// What the memory driver takes for the same, where that is a target.
    #[serde(skip)]
    pub(crate) memory_floor: Option<MemoryFloor>,
    #[serde(skip)]
    pub(crate) quick: bool,
    pub(crate) rows: Vec<Row>,
}

/// One line.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) measure: Measure,
    pub(crate) what: String,
    /// Durations in nanoseconds.
    pub(crate) times: Option<Summary>,
    /// What is no duration.
    figure: Option<f64>,
    figure_unit: Option<&'static str>,
    pub(crate) ratio: Option<f64>,
    target: Option<String>,
    pub(crate) met: Option<bool>,
    /// Why a target was missed, where that is known.
    why: Option<&'static str>,
}

impl Report {
    pub(crate) fn new(backend: &Backend, quick: bool) -> Self {
        let unit = match backend.unit {
            Unit::Absolute => None,
            Unit::Fcntl => Some("fcntl pair"),
            Unit::Memory => Some("memory pair"),
            Unit::Read => Some("raw round trip"),
            Unit::Write => Some("bare write"),
        };
        Report {
            backend: backend.name,
            unit,
            unit_p50: None,
            rare_unit_p50: None,
            memory_floor: None,
            quick,
            rows: Vec::new(),
        }
    }

    /// `full` rounds, or a tenth of that where it has to be quick.
    pub(crate) fn rounds(&self, full: usize) -> usize {
        if self.quick { (full / 10).max(1) } else { full }
    }

    /// The unit of all ratios.
    pub(crate) fn set_unit(&mut self, what: &str, times: Summary) {
        self.unit_p50 = Some(times.p50);
        self.push(Row { ratio: Some(1.0), ..Row::new(Measure::Raw, what.to_owned()).times(times) });
    }

    /// The unit of what happens after a silence.
    pub(crate) fn rare_unit(&mut self, what: &str, times: Summary) {
        self.rare_unit_p50 = Some(times.p50);
        self.times(Measure::Raw, what, times, None);
    }

    /// What the memory driver takes for the same: where a driver between processes has its targets from.
    pub(crate) fn set_memory_floor(&mut self, floor: MemoryFloor) {
        for (what, time) in [
            ("the memory driver: release → the waiter on another thread", floor.wake_up),
            ("the memory driver: join", floor.join),
        ] {
            self.figure(Measure::OverBare, what, time.as_secs_f64() * 1e6, "µs", None);
        }
        self.memory_floor = Some(floor);
    }

    /// Durations, with their ratio to the unit.
    pub(crate) fn times(&mut self, measure: Measure, what: impl Into<String>, times: Summary, target: Option<Target>) {
        self.times_by(self.unit_p50, measure, what.into(), times, target);
    }

    /// Durations of what happens after a silence, with their ratio to the unit after a silence.
    pub(crate) fn rare_times(&mut self, measure: Measure, what: &str, times: Summary, target: Option<Target>) {
        self.times_by(self.rare_unit_p50.or(self.unit_p50), measure, what.to_owned(), times, target);
    }

    /// Durations, with their ratio to the unit as it was measured between them, where it was.
    pub(crate) fn times_beside(
        &mut self,
        unit: &Summary,
        measure: Measure,
        what: &str,
        times: Summary,
        target: Option<Target>,
    ) {
        let unit = if unit.count > 0 { Some(unit.p50) } else { self.unit_p50 };
        self.times_by(unit, measure, what.to_owned(), times, target);
    }

    fn times_by(&mut self, unit: Option<u64>, measure: Measure, what: String, times: Summary, target: Option<Target>) {
        #[allow(clippy::cast_precision_loss)]
        let ratio = unit.map(|unit| times.p50 as f64 / unit as f64);
        let met = target.map(|target| match target {
            Target::Ratio(limit) => ratio.is_some_and(|ratio| ratio <= limit),
            Target::Within(limit) => u128::from(times.p50) <= limit.as_nanos(),
            Target::Always(limit) => u128::from(times.max) <= limit.as_nanos(),
            Target::AtMost(_) => false,
        });
        let target = target.map(|target| target.to_string());
        self.push(Row { ratio, target, met, ..Row::new(measure, what).times(times) });
    }

    /// A pair of one kind of caller, with its ratio to another one that took turns with it.
    pub(crate) fn caller(&mut self, what: &str, times: Summary, ratio: Option<f64>, limit: Option<f64>) {
        let met = limit.map(|limit| ratio.is_some_and(|ratio| ratio <= limit));
        let target = limit.map(|limit| Target::Ratio(limit).to_string());
        self.push(Row { ratio, target, met, ..Row::new(Measure::Callers, what.to_owned()).times(times) });
    }

    /// A figure that is no duration.
    pub(crate) fn figure(
        &mut self,
        measure: Measure,
        what: impl Into<String>,
        figure: f64,
        unit: &'static str,
        limit: Option<f64>,
    ) {
        let row = Row::new(measure, what.into());
        let target = limit.map(|limit| Target::AtMost(limit).to_string());
        let met = limit.map(|limit| figure <= limit);
        self.push(Row { figure: Some(figure), figure_unit: Some(unit), target, met, ..row });
    }

    fn push(&mut self, row: Row) {
        let why = target::why_missed(self.backend, row.measure).filter(|_| row.met == Some(false));
        self.rows.push(Row { why, ..row });
    }

    /// Each reason for which a target was missed, once, with what it is a reason of.
    pub(crate) fn reasons(&self) -> Vec<(&str, &'static str)> {
        let mut reasons: Vec<(&str, &str)> = Vec::new();
        for row in &self.rows {
            if let Some(why) = row.why.filter(|why| reasons.iter().all(|(_, known)| known != why)) {
                reasons.push((row.what.trim(), why));
            }
        }
        reasons
    }

    /// What the ratios are ratios to, and its median.
    pub(crate) fn unit(&self) -> Option<(&'static str, u64)> {
        self.unit.zip(self.unit_p50)
    }

    /// The first line of that measure which has a duration.
    pub(crate) fn row(&self, measure: Measure) -> Option<&Row> {
        self.rows.iter().find(|row| row.measure == measure && row.times.is_some())
    }

    pub(crate) fn print(&self) {
        let unit = self.unit.map_or_else(String::new, |unit| format!(", × = one {unit}"));
        println!("\n{}{unit}", self.backend);
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header(["", "p50", "p99", "max", "×", "target", "met"]);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        for column in 1..5 {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        for (what, why) in self.reasons() {
            println!("{what}: {why}.");
        }
    }
}

impl Row {
    fn new(measure: Measure, what: String) -> Self {
        Row {
            measure,
            what,
            times: None,
            figure: None,
            figure_unit: None,
            ratio: None,
            target: None,
            met: None,
            why: None,
        }
    }

    fn times(mut self, times: Summary) -> Self {
        self.times = Some(times);
        self
    }

    fn cells(&self) -> [String; 7] {
        let figure = self.figure.map(|figure| format!("{} {}", rounded(figure), self.figure_unit.unwrap_or_default()));
        let time = |pick: fn(&Summary) -> u64| self.times.as_ref().map(|times| words(pick(times))).unwrap_or_default();
        [
            self.what.clone(),
            figure.unwrap_or_else(|| time(|times| times.p50)),
            time(|times| times.p99),
            time(|times| times.max),
            self.ratio.map(rounded).unwrap_or_default(),
            self.target.clone().unwrap_or_default(),
            self.met.map_or("", |met| if met { "yes" } else { "NO" }).to_owned(),
        ]
    }
}

fn rounded(figure: f64) -> String {
    if figure >= 100.0 || (figure - figure.round()).abs() < 0.005 {
        format!("{figure:.0}")
    } else {
        format!("{figure:.2}")
    }
}
