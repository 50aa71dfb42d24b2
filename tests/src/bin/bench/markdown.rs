//! The short table, one line a backend, as it stands in the README.

use std::fmt::Write as _;

use crate::report::{Report, Row};
use crate::stats::words;
use crate::target::Measure;

const HEAD: &str = "\
| driver | unit | acquire + release | release → the waiter owns it | join | list 50 members | kill -9 → next owns it, at most |
|---|--:|--:|--:|--:|--:|--:|
";

/// Medians, each with its ratio to the unit; a target that was missed is marked by `!`, and its reason stands below.
pub(crate) fn table(reports: &[Report]) -> String {
    let mut table = HEAD.to_owned();
    for report in reports {
        let unit = report.unit().map(|(name, p50)| format!("{name} {}", words(p50))).unwrap_or_default();
        let _ = write!(table, "| `{}` | {unit} |", report.backend);
        for measure in [Measure::Pair, Measure::WakeUp, Measure::Join, Measure::List] {
            let _ = write!(table, " {} |", report.row(measure).map(median).unwrap_or_default());
        }
        let _ = writeln!(table, " {} |", report.row(Measure::Crash).map(worst).unwrap_or_default());
    }
    for report in reports {
        for (what, why) in report.reasons() {
            let _ = write!(table, "\n`{}`, {what}: {why}.\n", report.backend);
        }
    }
    table
}

fn median(row: &Row) -> String {
    let Some(times) = &row.times else { return String::new() };
    // Beside a call of the system all but a pair of them is far away, and a ratio says nothing.
    let ratio = row.ratio.filter(|ratio| *ratio < 100.0).map(|ratio| format!(" ({ratio:.1} ×)")).unwrap_or_default();
    format!("{}{ratio}{}", words(times.p50), mark(row))
}

fn worst(row: &Row) -> String {
    let Some(times) = &row.times else { return String::new() };
    format!("{}{}", words(times.max), mark(row))
}

fn mark(row: &Row) -> &'static str {
    if row.met == Some(false) { " !" } else { "" }
}
