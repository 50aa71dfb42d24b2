//! An error in plain words, each of its causes once.

use tooz::Error;

/// The longest line, in characters: what a server says of itself may be a page.
const LONGEST: usize = 2_000;

/// An error with its causes, in plain words. The last one is the one that says "permission denied"; each is added unless the message has it
/// already.
pub(crate) fn in_words(error: &Error) -> String {
    let mut message = plain(&error.to_string());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = plain(&cause.to_string());
        if !message.to_lowercase().contains(&text.to_lowercase()) {
            message = format!("{message}: {text}");
        }
        source = cause.source();
    }
    message
}

/// What a library prints of an error of the system, as people say it: `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`
/// and `Connection refused (os error 111)` are both "Connection refused".
pub(crate) fn plain(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some((before, inside, after)) = between(&text, "Os { code:", "}") {
        let message = between(&inside, "message: \"", "\"").map_or_else(|| inside.clone(), |(_, message, _)| message);
        text = format!("{before}{message}{after}");
    }
    while let Some((before, _, after)) = between(&text, " (os error ", ")") {
        text = format!("{before}{after}");
    }
    text
}

/// What stands before, between and after two marks.
fn between(text: &str, begin: &str, end: &str) -> Option<(String, String, String)> {
    let (before, rest) = text.split_once(begin)?;
    let (inside, after) = rest.split_once(end)?;
    Some((before.to_owned(), inside.to_owned(), after.to_owned()))
}

/// The words of a server or a file go to a terminal, which obeys some characters.
pub(crate) fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for (count, character) in text.trim_end().chars().enumerate() {
        match character {
            _ if count == LONGEST => {
                line.push('…');
                break;
            }
            '\n' => line.push(' '),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use tooz::ErrorKind;

    use super::*;

    #[test]
    fn a_terminal_is_not_told_what_to_do_by_a_server() {
        assert_eq!(on_one_line("a\nb\u{1b}[2J\u{7}\n"), "a b\\u{1b}[2J\\u{7}");
        assert_eq!(on_one_line(&"x".repeat(3_000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn the_systems_errors_are_told_in_plain_words_and_once() {
        let refused = "Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" }";
        assert_eq!(plain(&format!("tcp: {refused}!")), "tcp: Connection refused!");
        assert_eq!(plain("Connection refused (os error 111)"), "Connection refused");
        let error = Error::new(ErrorKind::Unavailable, "connect to h: connection refused")
            .with_source("Connection refused (os error 111)");
        assert_eq!(in_words(&error), "connect to h: connection refused");
    }
}
