#![doc = include_str!("../README.md")]
//! The rooms: `args` is what may be typed, `commands` has one file for each subcommand (or a few alike), `run` starts
//! CMD, watches over it and ends it, `speech` is what is said meanwhile, `output` prints tables and JSON, `exit` has the exit codes, `failure`
//! what ends the command with one of them, `schemes` the drivers that are not linked.

mod args;
mod commands;
mod exit;
mod failure;
mod output;
mod run;
mod schemes;
mod speech;
mod usage;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use args::Arguments;
use failure::CommandFailure;
use speech::Manner;

fn main() -> ExitCode {
    report_panics();
    let code = std::panic::catch_unwind(|| {
        let arguments: Vec<OsString> = std::env::args_os().collect();
        match run::hidden(&arguments) {
            Some(code) => code,
            None => visible(&arguments),
        }
    });
    speech::finish();
    ExitCode::from(code.unwrap_or(exit::ERROR))
}

/// A panic is a bug of this program; its user gets one line and the code for errors of its own, not a backtrace.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        commands::restore_terminal();
        let _ = writeln!(std::io::stderr(), "tooz: this is a bug, please report it: {panic}");
    }));
}

fn visible(words: &[OsString]) -> u8 {
    let arguments = match usage::parse(words) {
        Ok(arguments) => arguments,
        Err(code) => return code,
    };
    let code = match begin_to_speak(&arguments).and_then(|()| run_to_the_end(arguments)) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    };
    speech::tell(&speech::command::exit(code));
    code
}

fn begin_to_speak(arguments: &Arguments) -> Result<(), CommandFailure> {
    let global = &arguments.global;
    let manner = Manner {
        quiet: global.quiet,
        json: global.json,
        events: arguments.command.events_descriptor(),
        is_first: true,
    };
    if let Err(error) = speech::begin(manner) {
        // What is wrong with it is said in the same manner.
        let _ = speech::begin(Manner { events: None, ..manner });
        return Err(CommandFailure::usage(format!("--events-fd: {}", error.0)));
    }
    speech::trace::begin(global.verbose).map_err(CommandFailure::usage)
}

fn run_to_the_end(arguments: Arguments) -> Result<u8, CommandFailure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CommandFailure::error(format!("no runtime could be started: {error}")))?;
    let code = runtime.block_on(commands::dispatch(arguments));
    // A blocked helper thread must not keep the command from ending.
    runtime.shutdown_background();
    code
}
