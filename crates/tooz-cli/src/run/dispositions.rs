//! Which signals were ignored when `tooz` was started: they stay ignored in `tooz`, and are so again in CMD.
//!
//! The standard library ignores SIGPIPE before `main` begins, and lets every program that it starts die of it, whatever was the case
//! before. So the kernel is asked before the library's beginning, and the answer is handed from `tooz` to the guard and to what becomes CMD.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{SigHandler, Signal, signal};

static AT_START: AtomicU64 = AtomicU64::new(0);

/// The C library runs what is listed in this section before `main`.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "a place in a section can't be checked; this one takes functions of this type, and the function is a safe one"
)]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = remember;

#[cfg(target_os = "linux")]
extern "C" fn remember() {
    AT_START.store(ignored_now(), Ordering::Relaxed);
}

/// A set of signals, as the kernel shows it: the lowest bit is signal 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ignored(pub(super) u64);

impl Ignored {
    /// Those that were ignored when this program was started; none where the kernel does not show it.
    pub(super) fn at_start() -> Self {
        Ignored(AT_START.load(Ordering::Relaxed))
    }

    pub(super) fn has(self, signal: Signal) -> bool {
        self.0 >> (signal as i32 - 1) & 1 == 1
    }

    /// Makes it so again, and all others do what they do by default. For the last step before CMD: nothing here handles a signal any more.
    pub(super) fn restore(self) {
        for one in Signal::iterator() {
            dispose(one, if self.has(one) { SigHandler::SigIgn } else { SigHandler::SigDfl });
        }
    }
}

/// A process that ignores SIGCHLD is not told how its children ended.
pub(super) fn hear_of_children() {
    dispose(Signal::SIGCHLD, SigHandler::SigDfl);
}

#[expect(unsafe_code, reason = "a handler could do what no handler may; ignoring and the default are none")]
fn dispose(one: Signal, handler: SigHandler) {
    // It fails for SIGKILL and SIGSTOP, which can't be ignored.
    // SAFETY: no function of ours is called when the signal comes.
    let _ = unsafe { signal(one, handler) };
}

#[cfg(target_os = "linux")]
fn ignored_now() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
}
