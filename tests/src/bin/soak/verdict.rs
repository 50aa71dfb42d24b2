//! What came of a soak: each quantity, how it grew, and whether that is a leak.

use std::collections::BTreeMap;

use crate::census::Census;
use crate::curve::{Curve, Growth, Shape};
use crate::diary::{Diary, Sample};

/// The memory of the server is its own affair: most keep a history, or a heap that they fill before they clear it.
const NOT_OURS: &str = "server's memory (KiB)";
/// What belongs to how things are stored, and not to what is stored; and what is kept for names that were used once: files, and memcached's items for
/// an hour.
const ROOM: [&str; 6] = ["room (KiB)", "files", "items", "bytes", "connections", "watches"];

/// One line of the table.
struct Row {
    name: String,
    warm: f64,
    last: f64,
    shape: Shape,
}

/// Shows all, and says whether everything stayed flat.
pub(crate) fn judge(diary: &Diary) -> bool {
    let mut is_good = true;
    for (number, life) in (1..).zip(&diary.lives) {
        let Some(last) = life.last() else { continue };
        println!("process {number} of {}: {} operations in {:.0} s", diary.lives.len(), last.operations, last.at);
        println!("  {:<24}{:>12}{:>12}{:>12}  verdict", "", "warm", "at the end", "late growth");
        for row in rows(life) {
            println!("  {}", row.line(last));
            is_good &= !row.is_wrong();
        }
    }
    is_good
}

/// What the backend keeps beyond what it kept when it had been used once; says each.
pub(crate) fn left_over(floor: &Census, end: &Census) -> Vec<String> {
    let stored = end.iter().filter(|(name, _)| !ROOM.contains(&name.as_str()));
    let more = stored.filter(|(name, count)| **count > floor.get(*name).copied().unwrap_or_default());
    more.map(|(name, count)| format!("{count} {name}, {} before", floor.get(name).copied().unwrap_or_default()))
        .collect()
}

fn rows(life: &[Sample]) -> Vec<Row> {
    let mut curves: BTreeMap<String, Curve> = BTreeMap::new();
    for sample in life {
        for (name, value) in quantities(sample) {
            curves.entry(name).or_default().push(sample.at, value);
        }
    }
    let rows = curves.into_iter().filter_map(|(name, curve)| {
        let (warm, last) = (curve.warm()?, curve.last()?);
        let shape = curve.shape(tolerance(&name, warm));
        Some(Row { name, warm, last, shape })
    });
    rows.collect()
}

fn quantities(sample: &Sample) -> Vec<(String, f64)> {
    let mut all = vec![
        ("memory (KiB)".to_owned(), exact(sample.own.resident)),
        ("threads".to_owned(), exact(sample.own.threads)),
        ("descriptors".to_owned(), exact(sample.own.files)),
    ];
    if let Some(server) = sample.server {
        all.push((NOT_OURS.to_owned(), exact(server.resident)));
        all.push(("server's descriptors".to_owned(), exact(server.files)));
    }
    all.extend(sample.stored.iter().map(|(name, count)| (format!("stored: {name}"), exact(*count))));
    all
}

/// What may be chance: half a MiB and a fiftieth of memory, two of what is counted, or a twentieth of many.
fn tolerance(name: &str, warm: f64) -> f64 {
    if name.contains("KiB") { (warm / 50.0).max(512.0) } else { (warm / 20.0).max(2.0) }
}

impl Row {
    fn is_wrong(&self) -> bool {
        matches!(self.shape, Shape::Growing(_)) && self.name != NOT_OURS
    }

    fn line(&self, last: &Sample) -> String {
        let Row { name, warm, last: end, shape } = self;
        let (growth, verdict) = match shape {
            Shape::TooShort => (String::new(), "too short to tell".to_owned()),
            Shape::Flat(growth) => (format!("{:.0}", growth.by), format!("flat{}", seen(growth, last))),
            Shape::Growing(growth) if self.is_wrong() => (
                format!("{:.0}", growth.by),
                format!("WRONG: it grows, by {:.0} an hour", growth.by / growth.seconds * 3600.0),
            ),
            Shape::Growing(growth) => (format!("{:.0}", growth.by), "grows, which is the server's affair".to_owned()),
        };
        format!("{name:<24}{warm:>12.0}{end:>12.0}{growth:>12}  {verdict}")
    }
}

/// From where on a leak would have been seen, in what each thousand operations leave.
fn seen(growth: &Growth, last: &Sample) -> String {
    let operations = exact(last.operations) / last.at * growth.seconds;
    format!("; {:.3} for each 1000 operations would be seen", growth.tolerance / operations * 1000.0)
}

#[expect(clippy::cast_precision_loss, reason = "no process has 2^53 of anything")]
fn exact(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(keys: u64, connections: u64) -> Census {
        [("keys".to_owned(), keys), ("connections".to_owned(), connections)].into()
    }

    #[test]
    fn what_is_stored_beyond_the_floor_is_left_over() {
        assert!(left_over(&census(3, 1), &census(3, 5)).is_empty());
        assert_eq!(left_over(&census(3, 1), &census(7, 1)), ["7 keys, 3 before"]);
    }

    #[test]
    fn a_key_that_stays_now_and_then_is_wrong_and_the_servers_memory_is_not() {
        let sample = |at: u32, keys: u64| {
            let server = crate::usage::Usage { resident: u64::from(at) * 1000, threads: 4, files: 9 };
            let own = crate::usage::Usage { resident: 20_000, threads: 5, files: 12 };
            Sample { at: f64::from(at), operations: 1, own, server: Some(server), stored: census(keys, 1) }
        };
        let wrong = |life: &[Sample]| {
            let rows = rows(life).into_iter().filter(Row::is_wrong);
            rows.map(|row| row.name).collect::<Vec<_>>()
        };
        assert!(wrong(&(1..=100).map(|at| sample(at, 4)).collect::<Vec<_>>()).is_empty());
        let growing: Vec<_> = (1..=100).map(|at| sample(at, 4 + u64::from(at) / 5)).collect();
        assert_eq!(wrong(&growing), ["stored: keys"]);
    }
}
