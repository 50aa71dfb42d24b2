//! From the words of the command line to what they mean, or to what is said of wrong ones: as JSON where they ask for it, and with no part of a
//! URL, which may have a password in it.

use std::ffi::OsString;
use std::io::Write;

use clap::builder::{OsStr, Resettable};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::Arguments;
use crate::exit;
use crate::failure::CommandFailure;
use crate::speech::{self, Manner};

/// What else is said of an option that there is none of.
const DASHES: &str = "a name that begins with a dash is given as --name=-x or --group=-x; CMD comes after --";

/// Reads the words; where they are no command to run, answers the exit code.
pub(crate) fn parse(words: &[OsString]) -> Result<Arguments, u8> {
    read(Arguments::command(), words).map_err(|error| {
        // What a variable says would stand in the line of usage as if it had to be typed.
        let without_variables = Arguments::command().mut_args(|argument| argument.env(Resettable::<OsStr>::Reset));
        tell(&read(without_variables, words).err().unwrap_or(error), words)
    })
}

fn read(command: clap::Command, words: &[OsString]) -> clap::error::Result<Arguments> {
    let matches = command.try_get_matches_from(words)?;
    let mut arguments = Arguments::from_arg_matches(&matches)?;
    arguments.global = arguments.global.without_empty_variables(|name| is_given(&matches, name));
    Ok(arguments)
}

/// Whether an option stands on the command line, before or after the subcommand.
fn is_given(matches: &ArgMatches, name: &str) -> bool {
    let here = matches.value_source(name) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, below)| {
        below.try_contains_id(name).unwrap_or(false) && below.value_source(name) == Some(ValueSource::CommandLine)
    })
}

/// Help and the version are no failures.
fn tell(error: &clap::Error, words: &[OsString]) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let printed = error.print().and_then(|()| std::io::stdout().flush());
        return printed.map_or_else(|error| CommandFailure::from(error).report(), |()| exit::SUCCESS);
    }
    let text = without_urls(&error.to_string(), words);
    if wants_json(words) {
        let _ = speech::begin(Manner { json: true, ..Manner::default() });
        let message = text.as_deref().map_or_else(|| error.to_string(), str::to_owned);
        return CommandFailure::usage(message.trim_start_matches("error: ").trim_end()).report();
    }
    match text {
        Some(text) => drop(write!(std::io::stderr(), "{text}")),
        None => drop(error.print()),
    }
    if error.kind() == ErrorKind::UnknownArgument {
        let _ = writeln!(std::io::stderr(), "tooz: {DASHES}");
    }
    exit::USAGE
}

/// Whether the words ask for JSON, although they are wrong.
fn wants_json(words: &[OsString]) -> bool {
    let asked = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    asked || std::env::var("TOOZ_JSON").is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false" | "no" | "off"))
}

/// What is to be said in place of a text that repeats a URL out of the wrong place: it may have a password in it.
fn without_urls(text: &str, words: &[OsString]) -> Option<String> {
    let words = words.iter().filter_map(|word| word.to_str());
    let parts = words.flat_map(|word| [Some(word), word.split_once('=').map(|(_, value)| value)]).flatten();
    let mut without = text.to_owned();
    for part in parts.filter(|part| part.contains("://") || part.contains('@')) {
        without = without.replace(part, "(a URL, not shown)");
    }
    (without != text).then_some(without)
}
