//! What an operator does to a running server: each server's room says it in the server's own words.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// The user as whom programs may log in, where a server was started with one.
pub(crate) const USER: &str = "app";

/// Something that is done to a running server, and stays so over its restarts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Deed<'a> {
    /// Makes the user `app`, with that password and what a member needs.
    MakeUser(&'a str),
    /// Gives that user another password. Its connections stay.
    ChangePassword(&'a str),
    /// Lets that user log in no more, and ends its connections.
    ShutOut,
    /// Takes that back.
    LetIn,
    /// Lets that user write nothing: by its rights, or since the server is read-only.
    RefuseWrites,
    /// Takes that back.
    TakeWrites,
    /// Leaves no room for anything new.
    Fill,
    /// Makes room again.
    MakeRoom,
}

/// Runs one of the server's programs, with that input; the error has what it said. What it prints is returned.
pub(crate) fn run(mut command: Command, input: &str) -> Result<String> {
    use std::io::Write as _;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    // One that ends before it has read all says why.
    let _ = child.stdin.take().context("its input is piped")?.write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{} failed: {}{}", command.get_program().display(), error.trim(), said.trim());
    }
    Ok(said)
}
