//! Other processes: this very binary started again as a worker, which obeys line by line and may be killed or stopped.
//!
//! A worker ends with its input, and is killed with the thread that started it, so that nothing outlives a test that
//! was itself killed, not even a worker that was stopped just then.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

/// Set in the environment of a worker: what it is to be, as JSON.
const VARIABLE: &str = "TOOZ_TESTS_WORKER";

/// The starter's side of a worker. Dropping it kills the process.
pub struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<Words>,
}

/// What a worker says, apart from it: another task may listen while the worker is stopped, resumed and killed.
pub struct Words {
    lines: Lines<BufReader<ChildStdout>>,
}

impl Words {
    /// The next thing that it says; `None`: it has gone, and what it had said was heard.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let Some(line) = self.lines.next_line().await? else { return Ok(None) };
        match serde_json::from_str(&line) {
            Ok(word) => Ok(Some(word)),
            Err(error) => Err(error).with_context(|| format!("the worker said {line:?}")),
        }
    }
}

impl Worker {
    /// Starts this binary again in that role.
    pub fn start(role: &impl Serialize) -> Result<Self> {
        let mut child = tokio::process::Command::new(std::env::current_exe()?)
            .env(VARIABLE, serde_json::to_string(role)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("this binary can't be started again")?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("the worker has no pipes");
        };
        let output = Words { lines: BufReader::new(output).lines() };
        Ok(Worker { child, input: Some(input), output: Some(output) })
    }

    /// Tells it something.
    pub async fn tell(&mut self, word: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_string(word)?;
        line.push('\n');
        let input = self.input.as_mut().context("the worker was told to end")?;
        input.write_all(line.as_bytes()).await.context("the worker does not listen")
    }

    /// Waits for the next thing that it says, at most so long.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn hear<T: DeserializeOwned>(&mut self, limit: Duration) -> Result<T> {
        let output = self.output.as_mut().context("another listens to the worker")?;
        let word = tokio::time::timeout(limit, output.next()).await;
        word.with_context(|| format!("the worker said nothing within {limit:?}"))??.context("the worker has gone")
    }

    /// Lets another task listen in place of [`hear`](Self::hear).
    pub fn words(&mut self) -> Result<Words> {
        self.output.take().context("another listens to the worker")
    }

    /// Ends it as the kernel would: without a word to the backend. Returns when it is dead.
    pub async fn kill(&mut self) -> Result<()> {
        self.child.kill().await.context("the worker can't be killed")
    }

    /// SIGSTOP.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Lets it close and exit.
    pub async fn end(mut self, limit: Duration) -> Result<()> {
        self.input = None;
        let status = tokio::time::timeout(limit, self.child.wait())
            .await
            .with_context(|| format!("the worker did not end within {limit:?}"))??;
        if !status.success() {
            bail!("the worker ended with {status}");
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().context("the worker has gone")?;
        Ok(kill(Pid::from_raw(id.try_into()?), signal)?)
    }
}

/// What this process was started for, if another process of this module started it.
pub fn role<T: DeserializeOwned>() -> Option<T> {
    let role = std::env::var(VARIABLE).ok()?;
    // A stopped worker never sees the end of its input; this it does not need to see.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("every kernel that runs this has it");
    Some(serde_json::from_str(&role).expect("the starter wrote it"))
}

/// What the starter tells, line by line, to the end of its interest or of its life.
pub fn orders<T: DeserializeOwned>() -> impl Iterator<Item = T> {
    let lines = std::io::stdin().lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).expect("the starter wrote it"))
}

/// Says something to the starter.
pub fn say(word: &impl Serialize) {
    let line = serde_json::to_string(word).expect("words of these tests are JSON");
    let mut output = std::io::stdout().lock();
    // A starter that has gone needs no answer.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
