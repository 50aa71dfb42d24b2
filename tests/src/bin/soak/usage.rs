//! What processes use, where the system tells; zeros elsewhere.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

/// What one process, or several together, use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// Memory, in KiB.
    pub(crate) resident: u64,
    pub(crate) threads: u64,
    pub(crate) files: u64,
}

impl Usage {
    /// This process.
    pub(crate) fn now() -> Self {
        Usage::of("self")
    }

    /// That process and all that it has started.
    pub(crate) fn of_family(pid: u32) -> Self {
        let children = children();
        let (mut waiting, mut sum) = (vec![pid], Usage::default());
        while let Some(pid) = waiting.pop() {
            sum = sum.and(Usage::of(&pid.to_string()));
            waiting.extend(children.get(&pid).into_iter().flatten());
        }
        sum
    }

    fn of(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let files = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |entries| entries.count() as u64);
        Usage { resident: field("VmRSS:").unwrap_or(0), threads: field("Threads:").unwrap_or(0), files }
    }

    fn and(self, other: Usage) -> Self {
        Usage {
            resident: self.resident + other.resident,
            threads: self.threads + other.threads,
            files: self.files + other.files,
        }
    }
}

/// Which process has started which, as far as they still run.
fn children() -> BTreeMap<u32, Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = parent_of(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    children
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_counted_with_all_that_it_has_started() {
        let mut child = std::process::Command::new("sleep").arg("20").spawn().unwrap();
        // Other tests of this program begin and end threads meanwhile.
        let has_one_more = (0..100).any(|_| {
            let (alone, family) = (Usage::now(), Usage::of_family(std::process::id()));
            assert!(alone.resident > 0 && alone.threads > 0 && alone.files > 0, "{alone:?}");
            family.threads > alone.threads
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(has_one_more);
    }
}
