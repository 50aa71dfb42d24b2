//! What is this backend's own: what the kernel, a dead process, and other programs do to shared memory.
//!
//! A case has a name of its own in `/dev/shm`, which is taken away afterwards. Processes are this program, started again with a role.

mod bed;
mod dead;
mod foreign;
mod full;
mod mounts;
mod role;
mod stopped;
mod taken;
mod users;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use tooz_conformance::turn;

fn main() -> ExitCode {
    if let Some(given) = bed::role() {
        role::play(&given);
        return ExitCode::SUCCESS;
    }
    let trials = [
        dead::trials(),
        foreign::trials(),
        full::trials(),
        mounts::trials(),
        stopped::trials(),
        taken::trials(),
        users::trials(),
    ];
    let trials = turn::in_order(trials.into_iter().flatten().collect(), &[]);
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
