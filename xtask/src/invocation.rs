//! Running another program: its output is read line by line while it runs.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a silent program is asked whether it ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long the output may stay open after the program's end. Killed servers need a moment to disappear;
/// a process that is still there after that was left behind.
const LINGER: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 5 });

/// A program with its arguments, ready to run as often as wanted.
#[derive(Clone)]
pub(crate) struct Invocation {
    program: OsString,
    /// What to show in place of the program, where its path is too long to be typed.
    shown: Option<String>,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    folder: PathBuf,
}

/// What a program left.
pub(crate) struct Finished {
    pub(crate) success: bool,
    /// Both streams, in the order in which they were written.
    pub(crate) output: Vec<String>,
    /// What is to be said about its end, beyond its own output.
    pub(crate) ending: Vec<String>,
}

impl Invocation {
    pub(crate) fn new(program: impl Into<OsString>, folder: &Path) -> Self {
        Self {
            program: program.into(),
            shown: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            folder: folder.to_path_buf(),
        }
    }

    /// What to show of it: words that do the same, and after which its arguments follow.
    pub(crate) fn standing_for(mut self, words: String) -> Self {
        self.shown = Some(words);
        self
    }

    /// The same cargo that started this command, so that the toolchain is the same too.
    pub(crate) fn cargo(folder: &Path) -> Self {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        Self::new(cargo, folder)
    }

    pub(crate) fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub(crate) fn environment(mut self, name: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// Runs the program to its end and hands on each line when it comes.
    ///
    /// The program belongs to our process group, so Ctrl-C on a terminal ends both.
    pub(crate) fn run(&self, mut on_line: impl FnMut(&str)) -> Result<Finished> {
        // One pipe for both streams keeps their order, and one reader can't deadlock.
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        let mut child = {
            // The block ends our own writing ends: the reader sees the end when the children's are closed.
            let mut command = Command::new(&self.program);
            command
                .args(&self.arguments)
                .current_dir(&self.folder)
                // Colours would hide the results from the reader of the lines.
                .env("CARGO_TERM_COLOR", "never")
                .envs(self.environment.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(writer.try_clone().context("cannot make a pipe")?)
                .stderr(writer);
            command.spawn().with_context(|| format!("cannot start `{self}`"))?
        };

        let lines = read_lines(reader);
        let mut output = Vec::new();
        let mut left_open = false;
        let mut ended: Option<Instant> = None;
        loop {
            match lines.recv_timeout(LOOK_AGAIN) {
                Ok(line) => {
                    on_line(&line);
                    output.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if ended.is_none() && child.try_wait()?.is_some() {
                ended = Some(Instant::now());
            }
            if ended.is_some_and(|end| end.elapsed() > LINGER) {
                left_open = true;
                break;
            }
        }
        let status = child.wait()?;
        let mut ending = Vec::new();
        if left_open {
            ending.push("error: a process that was started here is still running".to_owned());
        }
        if !status.success() {
            ending.push(format!("`{self}` ended with {status}"));
        }
        Ok(Finished { success: status.success() && !left_open, output, ending })
    }
}

/// As one would type it.
impl fmt::Display for Invocation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What cargo sets for a test program, it sets by itself.
        for (name, value) in self.environment.iter().filter(|(name, _)| !name.starts_with("CARGO_MANIFEST")) {
            write!(formatter, "{name}={} ", quoted(&value.to_string_lossy()))?;
        }
        // Where the program lies is of no interest, and for cargo it is a long path.
        let program = Path::new(&self.program).file_stem().unwrap_or(&self.program).to_string_lossy();
        formatter.write_str(self.shown.as_deref().unwrap_or(&program))?;
        for argument in &self.arguments {
            write!(formatter, " {}", quoted(&argument.to_string_lossy()))?;
        }
        Ok(())
    }
}

fn quoted(word: &str) -> String {
    if word.is_empty() || word.contains([' ', '"', '*', '$']) { format!("'{word}'") } else { word.to_owned() }
}

/// A thread of its own reads, because a pipe that is never closed would block the reader for ever.
fn read_lines(reader: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        // A read error is the end of the output, as far as anyone can tell.
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            if sender.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str) -> Invocation {
        Invocation::new("sh", Path::new(".")).arguments(["-c", script])
    }

    #[test]
    fn both_streams_arrive_in_order() {
        let mut seen = Vec::new();
        let finished = shell("echo one; echo two >&2; printf three").run(|line| seen.push(line.to_owned())).unwrap();
        assert!(finished.success);
        assert_eq!(finished.output, ["one", "two", "three"]);
        assert_eq!(seen, finished.output);
    }

    #[test]
    fn more_output_than_a_pipe_holds_does_not_block() {
        let finished = shell("yes | head -n 200000; yes | head -n 200000 >&2").run(|_| ()).unwrap();
        assert_eq!(finished.output.len(), 400_000);
    }

    #[test]
    fn a_failure_is_told_with_its_status() {
        let finished = shell("exit 3").run(|_| ()).unwrap();
        assert!(!finished.success);
        assert_eq!(finished.ending, ["`sh -c 'exit 3'` ended with exit status: 3"]);
    }

    #[test]
    fn a_process_that_stays_behind_is_a_failure_and_not_a_hang() {
        let finished = shell("sleep 20 & echo $!").run(|_| ()).unwrap();
        assert!(!finished.success);
        assert!(finished.ending.iter().any(|line| line.contains("still running")));
        shell(&format!("kill {}", finished.output[0])).run(|_| ()).unwrap();
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = Invocation::new("no-such-program", Path::new(".")).run(|_| ()).err().expect("an error");
        assert!(error.to_string().contains("no-such-program"));
    }
}
