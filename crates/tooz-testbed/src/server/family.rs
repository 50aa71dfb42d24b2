//! The processes of a server that is more than one: each connection to PostgreSQL has one of its own, which goes on when its parent is
//! stopped, and for a moment when it is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::wait;

/// How long they may take to follow their parent.
const PATIENCE: Duration = Duration::from_secs(10);

/// All processes that work in a folder of the server's own.
#[derive(Debug)]
pub(crate) struct Family {
    folder: PathBuf,
}

impl Family {
    pub(crate) fn in_folder(folder: &Path) -> Self {
        Family { folder: folder.to_owned() }
    }

    /// Stops all by SIGSTOP; they stand still when this returns. The parent has to stand still already, so that no new one comes.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP);
        wait::until(PATIENCE, "all processes of the server stand still", || {
            Ok(self.living().iter().all(|(_, state)| *state == 'T').then_some(()))
        })
    }

    pub(crate) fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills what is left after the parent has gone, and returns when nothing is.
    pub(crate) fn kill(&self) -> Result<()> {
        wait::until(PATIENCE, "the last process of the server has gone", || {
            // Those that are stopped can't notice that their parent has gone.
            self.signal(Signal::SIGKILL);
            Ok(self.living().is_empty().then_some(()))
        })
    }

    fn signal(&self, signal: Signal) {
        for (pid, _) in self.living() {
            // One that has just ended by itself is no error.
            let _ = kill(pid, signal);
        }
    }

    /// Those that work in the folder, with the state of each; zombies have no folder any more.
    fn living(&self) -> Vec<(Pid, char)> {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let living = processes.filter_map(|process| {
            let pid: i32 = process.file_name().to_str()?.parse().ok()?;
            let works_here = fs::read_link(process.path().join("cwd")).ok()? == self.folder;
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            let state = stat.rsplit_once(") ")?.1.chars().next()?;
            (works_here && !matches!(state, 'Z' | 'X')).then_some((Pid::from_raw(pid), state))
        });
        living.collect()
    }
}
