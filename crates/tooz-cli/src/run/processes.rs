//! Signals for CMD's process group, and an end for all that CMD started.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// After so long the user is told why nothing happens.
const SLOW: Duration = Duration::from_secs(5);

/// Makes this process the one that inherits orphans: whatever CMD starts stays below us, in whatever group or session.
pub(super) fn adopt_orphans() {
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        // Then only CMD's own group can be found; better that than no CMD.
        crate::speech::warn(format_args!("orphans of CMD can't be watched: {error}"));
    }
}

/// Sends a signal to a group; one that has gone needs none.
pub(super) fn signal_group(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

/// What a round of killing met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct KillRound {
    /// So many are dead now, or will be when the kernel gets to it.
    reached: usize,
    /// So many may not be signalled by this user.
    refused: usize,
}

impl KillRound {
    /// Whether all that are left are another user's: there is nothing that waiting for them would change.
    pub(super) fn is_out_of_reach(self) -> bool {
        self.reached == 0 && self.refused > 0
    }

    pub(super) fn say(self) {
        crate::speech::warn(format_args!(
            "{} processes of CMD belong to another user and can't be ended from here",
            self.refused
        ));
    }
}

/// Sends SIGKILL to every process below this one. One round: what was just being started may be missed, so call it until
/// there is none left.
pub(super) fn kill_below() -> KillRound {
    let own = std::process::id();
    let mut below = KillRound::default();
    for process in all_below(own) {
        match kill_if_below(process, own) {
            Ok(()) => below.reached += 1,
            Err(Errno::EPERM) => below.refused += 1,
            // It has ended by itself.
            Err(_) => {}
        }
    }
    below
}

/// Ids are used again, so the process is taken hold of first, and looked at once more then: it can't become another any more.
#[cfg(target_os = "linux")]
fn kill_if_below(process: u32, ancestor: u32) -> Result<(), Errno> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let errno = |error: rustix::io::Errno| Errno::from_raw(error.raw_os_error());
    let pid = i32::try_from(process).ok().and_then(Pid::from_raw).ok_or(Errno::ESRCH)?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) if is_below(process, ancestor) => pidfd_send_signal(handle, Signal::KILL).map_err(errno),
        Ok(_) => Err(Errno::ESRCH),
        // A kernel before 5.3, or a sandbox that knows no such call.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) if is_below(process, ancestor) => kill_by_id(process),
        Err(error) => Err(errno(error)),
    }
}

#[cfg(not(target_os = "linux"))]
fn kill_if_below(process: u32, ancestor: u32) -> Result<(), Errno> {
    if is_below(process, ancestor) { kill_by_id(process) } else { Err(Errno::ESRCH) }
}

fn kill_by_id(process: u32) -> Result<(), Errno> {
    kill(Pid::from_raw(i32::try_from(process).map_err(|_| Errno::ESRCH)?), Signal::SIGKILL)
}

/// Kills the group and everything below this process, and reaps it all. For when the guard has gone and been reaped, and `tooz` is the one
/// that inherited its orphans. A process that can't be ended, because the kernel does not let go of it, is waited for, and told of.
pub(super) async fn end_all(group: Option<Pid>) {
    if let Some(group) = group.filter(|group| may_signal(*group)) {
        signal_group(group, Signal::SIGKILL);
    }
    let begin = Instant::now();
    let mut said = false;
    loop {
        let below = kill_below();
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
        if below.is_out_of_reach() {
            return below.say();
        }
        if !said && begin.elapsed() > SLOW {
            said = true;
            crate::speech::warn(format_args!(
                "CMD was killed, but {} of its processes are stuck in the kernel: waiting for them",
                below.reached
            ));
        }
        tokio::time::sleep(pause(begin.elapsed())).await;
    }
}

/// How long to wait between two rounds: what can be ended is gone after the first, and what can't is not looked for all the time.
pub(super) fn pause(since: Duration) -> Duration {
    (since / 20).clamp(Duration::from_millis(2), Duration::from_millis(100))
}

/// Whether this is still the group of CMD. Its id is CMD's own as long as CMD has not been reaped, and once the guard has gone only
/// this process, which inherited CMD, does that.
#[cfg(target_os = "linux")]
fn may_signal(group: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{group}/stat")).unwrap_or_default();
    // A zombie counts: it keeps the id.
    parent_of_any(&stat).is_some_and(|(parent, _)| parent == std::process::id())
}

/// Elsewhere orphans are inherited by another process, and the group's id is all there is.
#[cfg(not(target_os = "linux"))]
fn may_signal(_group: Pid) -> bool {
    true
}

/// All living processes whose chain of parents leads to `ancestor`.
fn all_below(ancestor: u32) -> Vec<u32> {
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

/// Whether the chain of a living process's parents leads to `ancestor`, as it is now.
fn is_below(process: u32, ancestor: u32) -> bool {
    let parent = |process: u32| parent_in(&std::fs::read(format!("/proc/{process}/stat")).ok()?);
    let mut at = process;
    // Parents are older than their children, so this ends; the bound is for a chain that changes while it is read.
    for _ in 0..10_000 {
        match parent(at) {
            Some(parent) if parent == ancestor => return true,
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    false
}

/// The parent's id in the text of `/proc/PID/stat`, unless the process is a zombie, which no signal concerns.
pub(super) fn parent_in(stat: &[u8]) -> Option<u32> {
    // A zombie's children have a new parent already.
    parent_of_any(stat).filter(|(_, state)| *state != "Z").map(|(parent, _)| parent)
}

/// The parent's id and the state. The name in parentheses may hold anything, so the fields are counted from its end on.
fn parent_of_any(stat: &[u8]) -> Option<(u32, &str)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    Some((fields.next()?.parse().ok()?, state))
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

    #[test]
    fn a_child_is_below_and_no_other_process_is() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let own = std::process::id();
        assert!(is_below(child.id(), own));
        assert!(!is_below(own, own) && !is_below(1, own));
        assert_eq!(kill_if_below(1, own), Err(Errno::ESRCH));
        assert_eq!(kill_if_below(child.id(), own), Ok(()));
        child.wait().unwrap();
        assert_eq!(kill_if_below(child.id(), own), Err(Errno::ESRCH));
    }
}
