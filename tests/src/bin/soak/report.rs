//! What came of the contention, as a table and as a verdict.

use serde::{Deserialize, Serialize};

/// One turn with the lock; times in nanoseconds of the machine's monotonic clock.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) asked: u64,
    pub(crate) granted: u64,
    /// Until when it was believed to be held; the moment of the grant where it was lost.
    pub(crate) until: u64,
    pub(crate) token: u64,
    pub(crate) lost: bool,
}

/// What one process did.
struct Row {
    turns: usize,
    lost: usize,
    mean_wait: f64,
    worst_wait: f64,
    /// Turns of others between asking and getting, at worst. The first turn of a process is not counted.
    worst_passed: usize,
    errors: Vec<String>,
}

pub(crate) struct Report {
    rows: Vec<Row>,
    turns: usize,
    seconds: f64,
    overlaps: Vec<String>,
    disorders: Vec<String>,
}

/// No process has so many times more turns than another.
const FAIR: f64 = 1.5;
/// No process waits for more than so many turns of all.
const ROUNDS: usize = 3;

impl Report {
    pub(crate) fn of(processes: &[(Vec<Turn>, Vec<String>)]) -> Self {
        let mut all: Vec<&Turn> = processes.iter().flat_map(|(turns, _)| turns).collect();
        all.sort_by_key(|turn| turn.granted);
        let grants: Vec<u64> = all.iter().map(|turn| turn.granted).collect();
        let (mut overlaps, mut disorders) = (Vec::new(), Vec::new());
        let mut latest: Option<&Turn> = None;
        for turn in &all {
            if let Some(before) = latest {
                if turn.granted < before.until {
                    overlaps.push(format!("{turn:?} began within {before:?}"));
                }
                if turn.token <= before.token {
                    disorders.push(format!("{turn:?} came after {before:?}"));
                }
            }
            if latest.is_none_or(|before| before.until <= turn.until) {
                latest = Some(turn);
            }
        }
        let span = |from: u64, to: u64| nanos(to.saturating_sub(from));
        let seconds = match (all.first(), all.last()) {
            (Some(first), Some(last)) => span(first.granted, last.until),
            _ => 0.0,
        };
        let rows = processes.iter().map(|(turns, errors)| {
            let waits = turns.iter().map(|turn| span(turn.asked, turn.granted));
            // Some backends first open the connection on which a process waits: until that stands, it stands in no line.
            let passed = turns.iter().skip(1).map(|turn| {
                let before = |time: u64| grants.partition_point(|granted| *granted < time);
                before(turn.granted) - before(turn.asked)
            });
            Row {
                turns: turns.len(),
                lost: turns.iter().filter(|turn| turn.lost).count(),
                mean_wait: waits.clone().sum::<f64>() / count(turns.len().max(1)),
                worst_wait: waits.fold(0.0, f64::max),
                worst_passed: passed.max().unwrap_or_default(),
                errors: errors.clone(),
            }
        });
        Report { rows: rows.collect(), turns: all.len(), seconds, overlaps, disorders }
    }

    pub(crate) fn print(&self) {
        println!("process   turns   mean wait  worst wait  worst wait in turns   lost  errors");
        for (index, row) in self.rows.iter().enumerate() {
            let Row { turns, lost, mean_wait, worst_wait, worst_passed, errors } = row;
            let (mean, worst) = (mean_wait * 1e3, worst_wait * 1e3);
            let errors = errors.len();
            println!("p{index:<8}{turns:>6}{mean:>9.1} ms{worst:>9.1} ms{worst_passed:>21}{lost:>7}{errors:>8}");
        }
        let rate = count(self.turns) / self.seconds.max(1e-9);
        println!("{} turns in {:.1} s, {rate:.0} for each second", self.turns, self.seconds);
        println!("most turns / fewest turns: {:.2}", self.imbalance());
        println!("worst wait: {:.2} turns of the queue", self.worst_rounds());
        println!("overlaps: {}   tokens out of order: {}", self.overlaps.len(), self.disorders.len());
        for (row, index) in self.rows.iter().zip(0..) {
            for error in row.errors.iter().take(2) {
                println!("p{index}: {error}");
            }
        }
    }

    /// Says what was wrong, if anything was.
    pub(crate) fn judge(&self, fairness: bool) -> bool {
        let mut wrong = Vec::new();
        wrong.extend(self.overlaps.first().map(|first| format!("two held at once: {first}")));
        wrong.extend(self.disorders.first().map(|first| format!("a token did not grow: {first}")));
        for (index, row) in self.rows.iter().enumerate() {
            if row.turns == 0 {
                wrong.push(format!("p{index} had no turn at all"));
            }
        }
        if fairness && self.imbalance() >= FAIR {
            wrong.push(format!("the turns are unevenly shared: {:.2}, not below {FAIR}", self.imbalance()));
        }
        if fairness && self.rows.iter().any(|row| row.worst_passed > ROUNDS * self.rows.len()) {
            wrong
                .push(format!("a waiter waited for {:.2} turns of the queue, more than {ROUNDS}", self.worst_rounds()));
        }
        for one in &wrong {
            println!("WRONG: {one}");
        }
        wrong.is_empty()
    }

    fn imbalance(&self) -> f64 {
        let turns = || self.rows.iter().map(|row| row.turns);
        count(turns().max().unwrap_or_default()) / count(turns().min().unwrap_or_default()).max(f64::MIN_POSITIVE)
    }

    fn worst_rounds(&self) -> f64 {
        let worst = self.rows.iter().map(|row| row.worst_passed).max().unwrap_or_default();
        count(worst) / count(self.rows.len().max(1))
    }
}

#[expect(clippy::cast_precision_loss, reason = "what is shown has three digits")]
fn count(number: usize) -> f64 {
    number as f64
}

#[expect(clippy::cast_precision_loss, reason = "what is shown has three digits")]
fn nanos(number: u64) -> f64 {
    number as f64 / 1e9
}
