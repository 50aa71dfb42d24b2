//! What this process has asked of the kernel, as `/proc` counts it: that does not drift as times do.

use std::fs;

/// Sums since the process began, or between two moments.
#[derive(Clone, Copy, Default)]
pub(crate) struct Counts {
    /// How often a thread has gone to sleep.
    switches: u64,
    /// Calls of `write` and its like: each wake-up of a runtime by its `eventfd` is one, and a request that goes out by `writev`; one by `send` is not.
    writes: u64,
}

impl Counts {
    /// Zero where the system has no such files.
    pub(crate) fn now() -> Self {
        let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
        let switches =
            threads.filter_map(|thread| field(&thread.path().join("status"), "voluntary_ctxt_switches:")).sum();
        Counts { switches, writes: field("/proc/self/io".as_ref(), "syscw:").unwrap_or_default() }
    }

    pub(crate) fn until(self, later: &Counts) -> Counts {
        Counts {
            switches: later.switches.saturating_sub(self.switches),
            writes: later.writes.saturating_sub(self.writes),
        }
    }
}

fn field(file: &std::path::Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

/// What each of so many pairs has cost.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
pub(crate) fn per_pair(turns: &[Counts], pairs: usize) -> [(&'static str, f64); 2] {
    let sum = |pick: fn(&Counts) -> u64| turns.iter().map(pick).sum::<u64>() as f64 / pairs.max(1) as f64;
    [("voluntary switches", sum(|counts| counts.switches)), ("writes (eventfd, writev)", sum(|counts| counts.writes))]
}
