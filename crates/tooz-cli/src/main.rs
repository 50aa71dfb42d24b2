#![doc = include_str!("../README.md")]
//! The rooms: `args` is what may be typed, `commands` has one file for each subcommand (or a few alike), `run` starts
//! CMD, watches over it and ends it, `output` prints tables and JSON, `exit` has the exit codes.

mod args;
mod commands;
mod exit;
mod output;
mod run;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::Arguments;
use exit::CommandFailure;

fn main() -> ExitCode {
    // A panic is a bug of this program; its user gets one line and the code for errors of its own, not a backtrace.
    std::panic::set_hook(Box::new(|panic| {
        let _ = writeln!(std::io::stderr(), "tooz: this is a bug, please report it: {panic}");
    }));
    let code = std::panic::catch_unwind(|| {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match run::hidden(&arguments) {
            Some(code) => code,
            None => visible(&arguments),
        }
    });
    ExitCode::from(code.unwrap_or(exit::ERROR))
}

fn visible(arguments: &[OsString]) -> u8 {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Nothing is left to be told to when stdout or stderr is closed.
            match without_urls(&error.to_string(), arguments) {
                Some(text) => drop(write!(std::io::stderr(), "{text}")),
                None => drop(error.print()),
            }
            if error.kind() == ErrorKind::UnknownArgument {
                exit::say("a name that begins with a dash is given as --name=-x or --group=-x; CMD comes after --");
            }
            return match error.kind() {
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => exit::SUCCESS,
                _ => exit::ERROR,
            };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return CommandFailure::error(format!("no runtime could be started: {error}")).report(),
    };
    let code = runtime.block_on(commands::dispatch(arguments));
    // A blocked helper thread must not keep the command from ending.
    runtime.shutdown_background();
    match code {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// What is to be said in place of a text that repeats a URL out of the wrong place: it may have a password in it.
fn without_urls(text: &str, arguments: &[OsString]) -> Option<String> {
    let words = arguments.iter().filter_map(|word| word.to_str());
    let parts = words.flat_map(|word| [Some(word), word.split_once('=').map(|(_, value)| value)]).flatten();
    let mut without = text.to_owned();
    for part in parts.filter(|part| part.contains("://") || part.contains('@')) {
        without = without.replace(part, "(a URL, not shown)");
    }
    (without != text).then_some(without)
}
