//! The terminal: whose process group is in its foreground, and stopping as a shell expects of a job.

use std::fs::File;
use std::io::IsTerminal;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, getsid, tcgetpgrp, tcsetpgrp};

/// Gives the foreground of the terminal, if there is one, to a group. A process in the background may do that only with
/// SIGTTOU blocked.
pub(super) fn give_to(group: Pid) {
    let Some(terminal) = open() else { return };
    let ttou = SigSet::from(Signal::SIGTTOU);
    let blocked = ttou.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK);
    // It fails when the group has just ended, and when the terminal was hung up: then the foreground is not missed.
    let _ = tcsetpgrp(&terminal, group);
    if let Ok(before) = blocked {
        let _ = before.thread_set_mask();
    }
}

/// The terminal that controls this process, whatever stdin and stdout are.
fn open() -> Option<File> {
    File::options().read(true).write(true).open("/dev/tty").ok()
}

fn foreground() -> Option<Pid> {
    tcgetpgrp(open()?).ok()
}

/// Whether `tooz` itself is in the foreground now.
pub(super) fn is_ours() -> bool {
    foreground() == Some(getpgrp())
}

/// Whether CMD begins in the foreground. A part of a pipeline does not: others of it may read the terminal as well (`tooz lock x
/// -- cmd | less`). It gets the foreground when it asks for it.
pub(super) fn hand_over_at_start() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && is_ours()
}

/// Takes the foreground back from CMD's group, if it has it.
pub(super) fn take_back(from: Pid) {
    if foreground() == Some(from) {
        give_to(getpgrp());
    }
}

/// Whether a shell with job control is there, which would continue our group after a stop. Without a terminal or in a
/// group without a parent in the same session there is none, and a stop would be for ever.
pub(crate) fn has_job_control() -> bool {
    let own = getpgrp();
    let parent = std::fs::read(format!("/proc/{own}/stat")).ok().and_then(|stat| super::processes::parent_in(&stat));
    let Some(parent) = parent.and_then(|parent| i32::try_from(parent).ok()).map(Pid::from_raw) else {
        return false;
    };
    let same_session = matches!((getsid(Some(parent)), getsid(None)), (Ok(theirs), Ok(ours)) if theirs == ours);
    let other_group = nix::unistd::getpgid(Some(parent)).is_ok_and(|group| group != own);
    open().is_some() && same_session && other_group
}

/// Stops all of this job, `tooz` included, and comes back when it was continued.
pub(crate) fn stop_job() {
    // SIGSTOP and not SIGTSTP: we have a handler for that, which would see it after the continue and stop once more.
    let _ = killpg(getpgrp(), Signal::SIGSTOP);
}
