//! What every driver must show, in shared memory that is taken away afterwards.

use std::path::PathBuf;
use std::process::ExitCode;

// The linker keeps the driver only if something names it.
use tooz_ipc as _;

/// One name for each run, so that two of them do not meet.
fn name() -> String {
    format!("conformance-{}", std::process::id())
}

fn url(tag: &str) -> String {
    // A case has few locks, and memory for many cases may be scarce.
    format!("ipc://{}?namespace={tag}&size=2", name())
}

mod suite {
    tooz_conformance::suite!(tooz_conformance::Rig::new("ipc", super::url).across_processes());

    pub(super) fn run() -> std::process::ExitCode {
        main()
    }
}

fn main() -> ExitCode {
    let code = suite::run();
    let user = nix::unistd::Uid::effective();
    let _ = std::fs::remove_dir_all(PathBuf::from(format!("/dev/shm/tooz-{user}")).join(name()));
    code
}
