//! Signals for CMD's process group, and an end for all that CMD started.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Makes this process the one that inherits orphans: whatever CMD starts stays below us, in whatever group or session.
pub(super) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        // Then only CMD's own group can be found; better that than no CMD.
        crate::exit::say(format_args!("orphans of CMD can't be watched: {error}"));
    }
}

/// Sends a signal to a group; one that has gone needs none.
pub(super) fn signal_group(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// Sends SIGKILL to every process below this one. One round: what was just being started may be missed, so call it until
/// there is nobody left.
pub(super) fn kill_below() {
    for process in below(std::process::id()) {
        if let Ok(pid) = i32::try_from(process) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Kills the group and everything below this process, and reaps it all. For when the guard has gone and `tooz` is the one that
/// inherited its orphans.
pub(super) fn end_all(group: Option<Pid>) {
    if let Some(group) = group {
        signal_group(group, Signal::SIGKILL);
    }
    loop {
        kill_below();
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(1)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// All living processes whose chain of parents leads to `ancestor`.
fn below(ancestor: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = std::fs::read(entry.path().join("stat")) else { continue };
        if let Some(parent) = parent_in(&stat) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        found.extend(parents.iter().filter(|one| one.1 == parent).map(|one| one.0));
    }
    found.remove(0);
    found
}

/// The parent's id in the text of `/proc/PID/stat`, unless the process is a zombie, which no signal concerns. The name in
/// parentheses may hold anything, so the fields are counted from its end on.
pub(super) fn parent_in(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // A zombie's children have a new parent already.
    (state != "Z").then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in(b"12 (a) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in(b"12 (x) R 1 (\xff\n) y) S 42 12"), Some(42));
        assert_eq!(parent_in(b"12 (a) Z 7 12 12 0"), None);
        assert_eq!(parent_in(b""), None);
    }
}
