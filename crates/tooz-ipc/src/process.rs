//! The process of a session as it stands in the table: its number, and the namespace of processes in which that number means something.
//!
//! Containers that share a `/dev/shm` may count their processes apart. A number of another namespace is no process here, or a wrong one.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pid: u32,
    /// The inode of its namespace of processes; 0 where there is no `/proc` that says it.
    namespace: u32,
}

impl Process {
    /// This one. Asked anew each time: a forked child may be in another namespace.
    pub(crate) fn ours() -> Self {
        Process { pid: process::id(), namespace: our_namespace() }
    }

    /// As it stands in the table.
    pub(crate) const fn word(self) -> u64 {
        (self.namespace as u64) << 32 | self.pid as u64
    }

    pub(crate) const fn of(word: u64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // The one half, and the other.
        Process { pid: word as u32, namespace: (word >> 32) as u32 }
    }

    /// Its number, if that is one of the namespace that this process is in.
    pub(crate) fn pid_here(self) -> Option<u32> {
        (self.pid != 0 && self.namespace == our_namespace()).then_some(self.pid)
    }

    /// Its number, and the namespace in which that counts, for an operator who has to look for it there.
    pub(crate) const fn elsewhere(self) -> (u32, u32) {
        (self.pid, self.namespace)
    }

    /// Whether it is sure that it does nothing any more. `false` wherever that can't be seen from here.
    ///
    /// A number that another process has by now counts as running: that is late, and never wrong.
    pub(crate) fn is_gone(self) -> bool {
        let Some(pid) = self.pid_here().filter(|_| self.namespace != 0) else { return false };
        let Ok(pid) = i32::try_from(pid) else { return false };
        match kill(Pid::from_raw(pid), None) {
            Err(Errno::ESRCH) => true,
            _ => is_zombie(pid),
        }
    }
}

fn our_namespace() -> u32 {
    let found = fs::metadata("/proc/self/ns/pid").ok();
    found.and_then(|found| u32::try_from(found.ino()).ok()).unwrap_or(0)
}

/// Whether it has ended and only its parent has not asked for it yet.
fn is_zombie(pid: i32) -> bool {
    // A `/proc` of another namespace speaks of another process.
    let is_ours = fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == process::id().to_string().as_str());
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let has_ended = stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X']));
    // The first thread of a process may end before the others.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    is_ours && has_ended && threads == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_stands_in_one_word_with_its_namespace() {
        let ours = Process::ours();
        assert_eq!(Process::of(ours.word()), ours);
        assert_eq!(ours.pid_here(), Some(process::id()));
        assert!(!ours.is_gone());
    }

    #[test]
    fn a_process_of_another_namespace_has_no_number_here_and_is_never_called_gone() {
        let other = Process { namespace: Process::ours().namespace ^ 1, ..Process::ours() };
        assert_eq!((other.pid_here(), other.is_gone()), (None, false));
        // No process has a number that is so large.
        let none = Process { pid: 0x7fff_fffe, ..other };
        assert!(!none.is_gone());
        assert!(!Process { namespace: 0, ..none }.is_gone(), "without a namespace nothing is sure");
        assert!(Process { namespace: Process::ours().namespace, ..none }.is_gone());
    }

    #[test]
    fn a_child_that_has_ended_and_was_not_asked_for_is_gone() {
        let mut child = process::Command::new("true").stdin(process::Stdio::piped()).spawn().unwrap();
        let zombie = Process { pid: child.id(), ..Process::ours() };
        while !zombie.is_gone() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert!(zombie.is_gone());
    }
}
