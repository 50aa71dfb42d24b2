//! One server process: started with its output in a file, stopped, continued, killed, and always reaped.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::wait;

/// How long a signal may take that nothing can refuse. A process in the midst of a slow write to the disk takes longest.
const PATIENCE: Duration = Duration::from_secs(10);

/// A process that was started here and has not been reaped yet; so its id is its own, and no signal goes astray.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
}

impl Child {
    /// Starts it in `folder`, which is where the keeper looks for what is to end with this process.
    pub(crate) fn start(mut command: Command, folder: &Path, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C in a terminal is for the tests, not for their servers.
            .process_group(0);
        let program = command.get_program().to_owned();
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Child { process })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How it ended, where it has. Reaps it, so that a zombie does not count as alive.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.process.try_wait()?)
    }

    /// Stops it by SIGSTOP; it stands still when this returns.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        wait::until(PATIENCE, "the process stands still", || Ok(self.all_threads_stand_still()?.then_some(())))
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills and reaps it, paused or not.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.process.kill().context("cannot kill a server")?;
        self.process.wait()?;
        Ok(())
    }

    /// Asks it to end, and kills it where it doesn't.
    pub(crate) fn stop(mut self, word: Signal) -> Result<()> {
        self.signal(word)?;
        // It can't hear the one before it hears the other.
        self.signal(Signal::SIGCONT)?;
        let ended = wait::until(PATIENCE, "the server ends", || self.ended());
        if ended.is_err() {
            return self.kill();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.process.id().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to the process {pid}"))
    }

    /// A process stops thread by thread, and the last one may still be answering a client.
    fn all_threads_stand_still(&self) -> Result<bool> {
        for thread in fs::read_dir(format!("/proc/{}/task", self.process.id()))? {
            let Ok(stat) = fs::read_to_string(thread?.path().join("stat")) else { continue };
            // The name before it may hold anything, parentheses too.
            let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
            if !matches!(state, Some('T' | 't' | 'Z' | 'X')) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail where it has been reaped already, and then there is nothing to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
