//! What a server's own tool prints.

use std::process::Command;

/// The lines that a command prints, without the empty ones.
pub(crate) fn lines(command: &mut Command) -> Vec<String> {
    let output = command.output().expect("the server's tool starts");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}: {text}{errors}", output.status);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
