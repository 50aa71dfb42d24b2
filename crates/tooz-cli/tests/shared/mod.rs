//! What the end-to-end tests share: a folder of its own for each, a backend, and `tooz` on it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod machine;
pub(crate) mod screen;
pub(crate) mod session;
pub(crate) mod shape;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longer than anything takes on a loaded machine, short enough to end a hopeless wait.
pub(crate) const PATIENCE: Duration = Duration::from_secs(45);

/// A folder, gone with the value, and a backend: by default `file:` in that folder.
pub(crate) struct Bench {
    folder: TempDir,
    url: String,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut bench = Bench::on(String::new());
        bench.url = format!("file://{}", bench.path("backend").display());
        bench
    }

    /// On a backend elsewhere.
    pub(crate) fn on(url: String) -> Self {
        Bench { folder: tempfile::tempdir().unwrap(), url }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tooz` with these words, in the bench's folder.
    pub(crate) fn tooz<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = with_default_signals(env!("CARGO_BIN_EXE_tooz"));
        for variable in ["TOOZ_MEMBER", "TOOZ_JSON", "TOOZ_QUIET", "TOOZ_VERBOSE", "TOOZ_PASSWORD_FILE", "RUST_LOG"] {
            command.env_remove(variable);
        }
        command.env("TOOZ_URL", self.url()).current_dir(self.folder.path()).args(words).stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub(crate) fn run<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Done {
        Done::from(self.tooz(words).output().unwrap())
    }

    /// Starts it, with its output going nowhere.
    pub(crate) fn start<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Running {
        Running(self.tooz(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts `tooz lock NAME -- sh -c SCRIPT`, and waits until the script has written its file `ready`.
    pub(crate) fn hold(&self, name: &str, script: &str) -> Running {
        let ready = self.path(&format!("ready-{name}"));
        let script = format!("echo $$ > ready-{name}.new; mv ready-{name}.new ready-{name}; {script}");
        let running = self.start(["lock", name, "--", "sh", "-c", &script]);
        until("CMD runs", || ready.exists());
        running
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The number that a script wrote into a file of the bench.
    pub(crate) fn number(&self, name: &str) -> i32 {
        until(&format!("{name} is written"), || self.text(name).trim().parse::<i32>().is_ok());
        self.text(name).trim().parse().unwrap()
    }
}

/// A command that no signal is ignored in, whatever the tests themselves were started by: `nohup` ignores SIGHUP, a shell's `&` in a script
/// SIGINT and SIGQUIT, and children inherit it.
pub(crate) fn with_default_signals(program: &str) -> Command {
    with_signals(&[], program)
}

/// The same, but for those that it says.
pub(crate) fn with_signals(ignored: &[&str], program: &str) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal");
    if !ignored.is_empty() {
        command.arg(format!("--ignore-signal={}", ignored.join(",")));
    }
    command.arg(program);
    command
}

/// What was said, without the time before each line: `2026-11-29 15:40:12 tooz: …`.
pub(crate) fn without_times(said: &str) -> String {
    let line = |line: &str| match line.split_once(" tooz: ") {
        Some((time, words)) if time.len() == 19 && time.as_bytes()[10] == b' ' => format!("tooz: {words}\n"),
        _ => format!("{line}\n"),
    };
    said.lines().map(line).collect()
}

/// What became of a run.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Done {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A child that is killed when the test ends before it.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    pub(crate) fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Its exit code, `None` when a signal ended it.
    pub(crate) fn code(&mut self) -> Option<i32> {
        let mut code = None;
        until("it ends", || match self.0.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        code
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn signal(pid: i32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

/// Whether the process runs; a zombie does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

/// The letter for the state of a process: R, S, T, Z …
pub(crate) fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

/// The children of a process.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|one| parent(*one) == Some(pid)).collect()
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?.parse().ok()
}

pub(crate) fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
