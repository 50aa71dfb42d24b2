//! `cargo xtask`: the project's own commands, written in Rust so that they need nothing but cargo.

mod bench;
mod chaos;
mod codegen;
mod dist;
mod invocation;
mod itest;
mod mutants;
mod on_server;
mod programs;
mod progress;
mod room;
mod serve;
mod servers;
mod soak;
mod steps;
mod summary;
mod tally;
mod test;
mod tidy;
mod tools;
mod turns;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's own commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything that a change has to pass: format, lints, docs, licences, tests, every backend
    Test(test::Options),
    /// Run the tests of some backends on their real servers, one line per case
    Itest(itest::Options),
    /// Start a server for trying things out; its URL is printed, and Ctrl-C ends it
    Serve(serve::Options),
    /// Measure every operation beside the raw round trip of the same server
    #[command(disable_help_flag = true)]
    Bench(bench::Options),
    /// Break a backend in every way while workers use it, and judge what they were told
    #[command(disable_help_flag = true)]
    Chaos(chaos::Options),
    /// Work on a backend for hours, and see that nothing piles up
    #[command(disable_help_flag = true)]
    Soak(soak::Options),
    /// Put known faults into core, one by one, and see that core's own tests notice each
    Mutants(mutants::Options),
    /// Write anew what is generated and checked in
    Codegen,
    /// Write the manual pages and completion scripts of the command to `target/dist`
    Dist,
    /// Check the house rules that no compiler knows
    Tidy,
}

/// What a command found, as opposed to an error, which means that it could not even look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CommandEnd {
    Passed,
    Failed,
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let verdict = Workspace::discover().and_then(|workspace| match command {
        Command::Test(options) => test::run(&workspace, &options),
        Command::Itest(options) => itest::run(&workspace, &options),
        Command::Serve(options) => serve::run(&options),
        Command::Bench(options) => bench::run(&workspace, &options),
        Command::Chaos(options) => chaos::run(&workspace, &options),
        Command::Soak(options) => soak::run(&workspace, &options),
        Command::Mutants(options) => mutants::run(&workspace, &options),
        Command::Codegen => codegen::run(&workspace),
        Command::Dist => dist::run(&workspace),
        Command::Tidy => tidy::run(&workspace),
    });
    match verdict {
        Ok(CommandEnd::Passed) => ExitCode::SUCCESS,
        Ok(CommandEnd::Failed) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
