//! What an error of etcd or of the connection means: its kind, its outcome, words that tell what to do, and the driver's own remedy.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::time::Duration;

use tonic::{Code, Status};
use tooz_core::{Error, ErrorKind, Outcome};

use crate::tls::ConnectError;

/// A failure in two tongues: the error for the caller, and what the driver itself does about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) remedy: Remedy,
}

/// What the driver does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another endpoint may do better.
    AskAnother,
    /// This one hangs: another that surely does not is looked for.
    FindAnother,
    /// There is no token, or it has run out: authenticate, then ask again.
    LogIn,
    /// etcd has spoken: the same question gets the same answer.
    None,
}

/// What etcd or the library said, in words for people. The library's own form of it is for programmers.
#[derive(Debug)]
struct StatusMessage {
    words: String,
    status: Status,
}

impl fmt::Display for StatusMessage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.words)
    }
}

impl StdError for StatusMessage {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.status.source()
    }
}

/// Judges the answer of the etcd at that address, or of the library where there was none.
pub(crate) fn judge(status: Status, address: &str) -> Failure {
    if let Some(failure) = unusable_files(&status, address) {
        return failure;
    }
    let text = status.message().trim_start_matches("etcdserver: ").to_owned();
    let verdict = refusal(status.code(), &text).unwrap_or_else(|| trouble(&status, &text));
    let (kind, outcome, remedy, advice) = verdict;
    let words = if status.source().is_some() { chain(&status) } else { text };
    let message = format!("etcd at {address}: {words}; {advice}");
    let error = Error::new(kind, message).with_outcome(outcome).with_source(StatusMessage { words, status });
    Failure { error, remedy }
}

type Classification = (ErrorKind, Outcome, Remedy, &'static str);

/// What etcd says no to, whichever of its members is asked.
fn refusal(code: Code, text: &str) -> Option<Classification> {
    Some(match code {
        Code::NotFound if text.contains("lease not found") => {
            (ErrorKind::Lost, Outcome::NotApplied, Remedy::None, "the session has ended at the server")
        }
        Code::Unauthenticated => {
            (ErrorKind::Unauthorized, Outcome::NotApplied, Remedy::LogIn, "see to the user and the password")
        }
        Code::InvalidArgument if text.contains("revision of auth store is old") => {
            (ErrorKind::Unauthorized, Outcome::NotApplied, Remedy::LogIn, "try again")
        }
        Code::InvalidArgument if text.contains("authentication failed") => {
            (ErrorKind::Unauthorized, Outcome::NotApplied, Remedy::None, "see to the user and the password")
        }
        Code::InvalidArgument if text.contains("user name is empty") => (
            ErrorKind::Unauthorized,
            Outcome::NotApplied,
            // Users were switched on while this session ran, or the URL names none.
            Remedy::LogIn,
            "this etcd wants a user: write etcd://user:password@host:2379, or name a password_file",
        ),
        Code::PermissionDenied => (
            ErrorKind::Unauthorized,
            Outcome::NotApplied,
            Remedy::None,
            "the user needs a role that may read and write all keys that begin with /tooz/NAMESPACE/",
        ),
        // Not `Unavailable`: a waiter would go on waiting without a word until an operator makes room.
        Code::ResourceExhausted if text.contains("database space exceeded") => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::None,
            "etcd takes no writes: compact and defragment it, or raise its quota, then disarm the alarm NOSPACE",
        ),
        // Waiting mends nothing either: a member's data differ from the others'.
        Code::DataLoss if text.contains("corrupt cluster") => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::None,
            "etcd takes no writes: restore the damaged member from its peers, then disarm the alarm CORRUPT",
        ),
        Code::InvalidArgument if text.contains("request is too large") => too_large(),
        // A message that is too large, said by the transport below etcd, which would say so for ever.
        Code::ResourceExhausted | Code::OutOfRange if text.contains("message") && text.contains("larger than") => {
            too_large()
        }
        Code::InvalidArgument if text.contains("too many operations in txn") => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::None,
            "this driver asks for up to 128 at once, etcd's own default: see to --max-txn-ops",
        ),
        // A reading in several pages has met a compaction.
        Code::OutOfRange if text.contains("has been compacted") => {
            (ErrorKind::Unavailable, Outcome::NotApplied, Remedy::None, "try again")
        }
        Code::OutOfRange if text.contains("too large lease TTL") => {
            (ErrorKind::Config, Outcome::NotApplied, Remedy::None, "choose a shorter session_timeout")
        }
        Code::Unimplemented => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::None,
            "that is no etcd of version 3.4 or later: see to the host and the port",
        ),
        _ => return None,
    })
}

/// What another member may do better, and what is not known.
fn trouble(status: &Status, text: &str) -> Classification {
    match status.code() {
        Code::ResourceExhausted => {
            (ErrorKind::Unavailable, Outcome::NotApplied, Remedy::AskAnother, "etcd is overloaded: try again later")
        }
        _ if text.contains("not supported for learner") => (
            ErrorKind::Unavailable,
            Outcome::NotApplied,
            Remedy::AskAnother,
            "this member is a learner: take it out of the URL",
        ),
        // Asked with `hasleader`, a member without a leader refuses before it does anything.
        Code::Unavailable if text == "no leader" => (
            ErrorKind::Unavailable,
            Outcome::NotApplied,
            Remedy::AskAnother,
            "this member sees no leader: a majority of the members must run and reach one another",
        ),
        // A status with a cause was made by the library: there, cancelled means that the connection went away.
        Code::DeadlineExceeded | Code::Cancelled if status.source().is_none() => {
            (ErrorKind::TimedOut, Outcome::Unknown, Remedy::AskAnother, "try again")
        }
        Code::Unavailable if text.contains("timed out") => {
            (ErrorKind::TimedOut, Outcome::Unknown, Remedy::AskAnother, "etcd is slow, or has no leader just now")
        }
        _ if status.source().is_some() && is_about_certificates(status) => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::AskAnother,
            "name the authority that vouches for the server in the option ca, and a client's own in cert and key",
        ),
        // The library's own errors come as these: nothing listens, a reset connection, something that is no HTTP/2.
        Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Aborted
        | Code::DataLoss
        | Code::DeadlineExceeded
        | Code::Cancelled => {
            let outcome = if never_sent(status) { Outcome::NotApplied } else { Outcome::Unknown };
            (
                ErrorKind::Unavailable,
                outcome,
                Remedy::AskAnother,
                "see whether etcd runs there, with or without TLS, and whose certificates it takes",
            )
        }
        _ => (ErrorKind::Backend, Outcome::NotApplied, Remedy::None, "this driver does not know that answer"),
    }
}

const fn too_large() -> Classification {
    let advice = "etcd takes about 1.5 MB (--max-request-bytes): say less in the capabilities";
    (ErrorKind::Config, Outcome::NotApplied, Remedy::None, advice)
}

/// The certificates' files are read at each connection, and what is wrong with them is said in the words of the reading.
fn unusable_files(status: &Status, address: &str) -> Option<Failure> {
    let said = causes(status).find_map(|cause| cause.downcast_ref::<Error>())?;
    let error = Error::new(said.kind(), format!("etcd at {address}: {said}")).with_outcome(Outcome::NotApplied);
    Some(Failure { error, remedy: Remedy::AskAnother })
}

/// No answer came in time.
pub(crate) fn no_answer(address: &str, limit: Duration) -> Failure {
    let words = format!("no answer from {address} within {limit:?}; see whether etcd runs there and is reached");
    Failure { error: Error::new(ErrorKind::TimedOut, words), remedy: Remedy::FindAnother }
}

/// A stream that the server or the network has ended.
pub(crate) fn ended(what: &str) -> Failure {
    let words = format!("the {what} was ended by the server");
    Failure { error: Error::new(ErrorKind::Unavailable, words), remedy: Remedy::AskAnother }
}

/// Whether etcd said that its space is used up: it still deletes, but takes no writes.
pub(crate) fn is_full(error: &Error) -> bool {
    error.kind() == ErrorKind::Config && error.to_string().contains("database space exceeded")
}

/// The session is over at the server.
pub(crate) fn lost(why: &str) -> Error {
    Error::new(ErrorKind::Lost, why)
}

/// The session's key is gone, which lives as long as its lease.
pub(crate) fn session_is_gone() -> Error {
    lost("the session's key is gone, and so is the session")
}

/// An answer that no etcd gives to what was asked.
pub(crate) fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("etcd's answer makes no sense: {what}"))
}

/// What layers of the client library call an error of the layer below them.
const LAYERS: [&str; 2] = ["transport error", "tcp connect error"];

/// The words of an error and of all that caused it, each once.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut words = match error.source() {
        // What the library says first is less than its cause.
        Some(_) => String::new(),
        None => error.to_string(),
    };
    let mut cause = error.source();
    while let Some(one) = cause {
        let text = one.to_string();
        let is_told_by_its_cause = one.source().is_some() && LAYERS.contains(&text.as_str());
        if !is_told_by_its_cause && !words.contains(&text) {
            let _ = write!(words, "{}{text}", if words.is_empty() { "" } else { ": " });
        }
        cause = one.source();
    }
    words
}

/// Whether the request died before it left: there was no connection to send it over.
fn never_sent(status: &Status) -> bool {
    causes(status).any(|cause| {
        cause.is::<ConnectError>()
            || cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
            // The library's word for any failure to connect, in text since its type is private.
            || matches!(cause.to_string().as_str(), "tcp connect error" | "dns error")
    })
}

/// Whether a certificate is what one side has against the other. By TLS 1.3 a client hears only later that it was refused.
fn is_about_certificates(status: &Status) -> bool {
    let words = chain(status).to_lowercase();
    words.contains("certificate") || words.contains("received fatal alert")
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), |cause| (*cause).source())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_answer_panics(code in 0..20, text: String) {
            let failure = judge(Status::new(Code::from_i32(code), &text), "h:2379");
            prop_assert!(failure.error.to_string().contains("h:2379"));
            prop_assert!(failure.remedy != Remedy::LogIn || failure.error.outcome() == Outcome::NotApplied);
        }
    }

    #[test]
    fn every_answer_that_decides_something_has_its_kind() {
        for (code, text, kind, remedy) in [
            (Code::NotFound, "etcdserver: requested lease not found", ErrorKind::Lost, Remedy::None),
            (Code::Unauthenticated, "etcdserver: invalid auth token", ErrorKind::Unauthorized, Remedy::LogIn),
            (Code::PermissionDenied, "etcdserver: permission denied", ErrorKind::Unauthorized, Remedy::None),
            (Code::Unavailable, "etcdserver: no leader", ErrorKind::Unavailable, Remedy::AskAnother),
            (Code::Unavailable, "etcdserver: request timed out", ErrorKind::TimedOut, Remedy::AskAnother),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", ErrorKind::Config, Remedy::None),
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (3 vs. 2)",
                ErrorKind::Config,
                Remedy::None,
            ),
            (Code::ResourceExhausted, "etcdserver: too many requests", ErrorKind::Unavailable, Remedy::AskAnother),
            (Code::DataLoss, "etcdserver: corrupt cluster", ErrorKind::Config, Remedy::None),
            (Code::InvalidArgument, "etcdserver: user name is empty", ErrorKind::Unauthorized, Remedy::LogIn),
        ] {
            let failure = judge(Status::new(code, text), "h:2379");
            assert_eq!((failure.error.kind(), failure.remedy), (kind, remedy), "{text}");
        }
        let outcome = |text: &str| judge(Status::new(Code::Unavailable, text), "h:2379").error.outcome();
        assert_eq!(outcome("etcdserver: no leader"), Outcome::NotApplied);
        assert_eq!(outcome("etcdserver: leader changed"), Outcome::Unknown);
    }
}
