//! What an answer of Consul or a broken connection means: its kind, its outcome, words that tell what to do, and the driver's own remedy.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use tooz_core::{Error, ErrorKind, Outcome};

use crate::connection::{ExchangeError, HttpResponse};
use crate::wire::ConnectError;

/// A failure in two tongues: the error for the caller, and what the driver itself does about it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) remedy: Remedy,
}

/// What the driver does about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Another agent may do better.
    AskAnother,
    /// The servers have no leader just now, or no time: another agent may do better, and so may this one a little later.
    AskLater,
    /// The connection had been idle for some time and was found dead: a new one is no worse than another agent's.
    ConnectAnew,
    /// The token may be an old one: a new connection reads it again.
    LogIn,
    /// Consul has spoken: the same question gets the same answer.
    None,
}

impl Remedy {
    /// Whether it is for the agents to do better.
    pub(crate) const fn is_about_agents(self) -> bool {
        matches!(self, Remedy::AskAnother | Remedy::AskLater)
    }
}

type Classification = (ErrorKind, Outcome, Remedy, &'static str);

/// What Consul answers where it has no such thing, or where a condition of a transaction does not hold: no failures.
const fn is_an_answer(status: u16) -> bool {
    matches!(status, 200 | 404 | 409)
}

/// Judges the answer of the agent at that address to what was asked at that path.
pub(crate) fn judge(answer: HttpResponse, address: &str, path: &str) -> Result<HttpResponse, Failure> {
    if is_an_answer(answer.status) {
        return Ok(answer);
    }
    let text = String::from_utf8_lossy(&answer.body);
    let (kind, outcome, remedy, advice) = verdict(answer.status, text.trim(), path);
    let words = format!("consul at {address} answers {} {:.300}; {advice}", answer.status, text.trim());
    Err(Failure { error: Error::new(kind, words).with_outcome(outcome), remedy })
}

fn verdict(status: u16, text: &str, path: &str) -> Classification {
    match status {
        403 => refused(text, path),
        // A path that is not its own canonical form. To follow would be to read another key.
        301 | 302 | 307 | 308 => (
            ErrorKind::Backend,
            Outcome::NotApplied,
            Remedy::None,
            "it sends the request elsewhere, which is never followed",
        ),
        413 => (
            ErrorKind::Config,
            Outcome::NotApplied,
            Remedy::None,
            "a transaction of Consul takes 512 KB: say less in the capabilities",
        ),
        429 => too_many(),
        503 => {
            (ErrorKind::Unavailable, Outcome::NotApplied, Remedy::AskLater, "the agent is overloaded: try again later")
        }
        400 => (ErrorKind::Config, Outcome::NotApplied, Remedy::None, "is that a Consul of version 1.8 or later?"),
        // It is not known how far it had come, whatever the words are: some are said after a leader has passed it on to the others.
        500.. => server_error(text, path),
        _ => (ErrorKind::Backend, Outcome::NotApplied, Remedy::None, "this driver does not know that answer"),
    }
}

fn server_error(text: &str, path: &str) -> Classification {
    let config = |advice| (ErrorKind::Config, Outcome::NotApplied, Remedy::None, advice);
    // The answer of a server comes by way of an agent, whose own status it loses.
    if is_refusal(text) {
        refused(text, path)
    } else if text.contains("Invalid Session TTL") {
        config(
            "choose a longer session_timeout, or let the servers take shorter ones by session_ttl_min (10s by default)",
        )
    } else if is_without_node(text) {
        config("the node of the sessions is not in the catalogue")
    } else if text.contains("Invalid Behavior") {
        config("is that a Consul of version 1.8 or later?")
    } else if text.contains("No path to datacenter") {
        config("these agents reach no such datacenter: see to the option datacenter")
    } else if text.contains("No cluster leader") {
        let advice = "a majority of the servers must run and reach one another";
        (ErrorKind::Unavailable, Outcome::Unknown, Remedy::AskLater, advice)
    } else {
        (ErrorKind::Unavailable, Outcome::Unknown, Remedy::AskLater, "see to the servers' logs; try again")
    }
}

fn refused(text: &str, path: &str) -> Classification {
    (ErrorKind::Unauthorized, Outcome::NotApplied, Remedy::LogIn, right_for(text, path))
}

/// The right that the token lacks: Consul does not say which it is.
fn right_for(text: &str, path: &str) -> &'static str {
    let is_below = |folder: &str| path.strip_prefix("/v1/").is_some_and(|rest| rest.starts_with(folder));
    if text.contains("ACL not found") {
        "these servers do not know the token: see to the options token and token_file"
    } else if text.contains("ACL support disabled") {
        "these servers have no ACLs: leave the token out"
    } else if is_below("session/") {
        "the token needs session \"tooz-sessions\" { policy = \"write\" } (or the name that the option node gives)"
    } else if is_below("catalog/register") {
        "the token needs node \"tooz-sessions\" { policy = \"write\" } (or the name that the option node gives) until that node is registered; \
         an operator may register it instead"
    } else if is_below("agent/") {
        "the token needs agent_prefix \"\" { policy = \"read\" }"
    } else if is_below("catalog/") || is_below("health/") {
        "the token needs node_prefix \"\" { policy = \"read\" }"
    } else {
        "the token needs key_prefix \"tooz/\" { policy = \"write\" }, with no narrower rule that denies"
    }
}

const fn too_many() -> Classification {
    (
        ErrorKind::Unavailable,
        Outcome::NotApplied,
        Remedy::AskAnother,
        "an agent takes 200 connections of one address unless limits.http_max_conns_per_client says otherwise",
    )
}

/// Whether these are the words for rights that lack, or for a token that is not known.
pub(crate) fn is_refusal(text: &str) -> bool {
    ["Permission denied", "ACL not found", "ACL support disabled"].iter().any(|words| text.contains(words))
}

/// Whether these are the words for a session without a node.
pub(crate) fn is_without_node(text: &str) -> bool {
    text.contains("Missing node registration")
}

/// The transaction was refused for want of rights.
pub(crate) fn not_allowed(address: &str, what: &str) -> Failure {
    let (kind, outcome, remedy, advice) = refused(what, "/v1/txn");
    let words = format!("consul at {address} refuses a transaction: {what}; {advice}");
    Failure { error: Error::new(kind, words).with_outcome(outcome), remedy }
}

/// A connection could not be made.
pub(crate) fn unreached(cause: ConnectError, address: &str) -> Failure {
    if let Some(said) = cause.0.downcast_ref::<Error>() {
        // A file of certificates, or that of the token, is not as it should be.
        let error = Error::new(said.kind(), format!("consul at {address}: {said}")).with_outcome(Outcome::NotApplied);
        return Failure { error, remedy: Remedy::AskAnother };
    }
    let words = chain(&*cause.0);
    let (kind, advice) = if is_about_certificates(&words) {
        let advice =
            "name the authority that vouches for the server in the option ca, and a client's own in cert and key";
        (ErrorKind::Config, advice)
    } else {
        (ErrorKind::Unavailable, "see whether an agent serves there, with or without TLS")
    };
    let error = Error::new(kind, format!("consul at {address}: {words}; {advice}"));
    Failure { error: error.with_outcome(Outcome::NotApplied).with_source(cause.0), remedy: Remedy::AskAnother }
}

/// A connection broke under a request. `answered`: how many were answered over it before.
pub(crate) fn broken(broken: ExchangeError, address: &str, answered: u64) -> Failure {
    let words = chain(&*broken.cause);
    let outcome = if broken.was_sent { Outcome::Unknown } else { Outcome::NotApplied };
    if is_about_certificates(&words) {
        // By TLS 1.3 a client hears only now that its certificate was refused.
        let error =
            Error::new(ErrorKind::Config, format!("consul at {address}: {words}; see to the options cert and key"));
        return Failure { error: error.with_outcome(outcome).with_source(broken.cause), remedy: Remedy::AskAnother };
    }
    let is_fresh = answered == 0;
    let advice = if is_fresh && was_reset(&*broken.cause) {
        // An agent that is full resets what is new, and so does a proxy in front of a dead one.
        "it ended before anything was answered: see whether an agent runs behind that address, with or without TLS; one that runs takes 200 \
         connections of one address unless limits.http_max_conns_per_client says otherwise"
    } else {
        "the connection has ended: see whether the agent runs, with or without TLS"
    };
    let error = Error::new(ErrorKind::Unavailable, format!("consul at {address}: {words}; {advice}"));
    let remedy = if is_fresh { Remedy::AskAnother } else { Remedy::ConnectAnew };
    Failure { error: error.with_outcome(outcome).with_source(broken.cause), remedy }
}

/// No answer came in time.
pub(crate) fn no_answer(address: &str, limit: Duration) -> Failure {
    let words = format!(
        "no answer from consul at {address} within {limit:?}; see whether it runs, is reached and has a leader"
    );
    Failure { error: Error::new(ErrorKind::TimedOut, words), remedy: Remedy::AskAnother }
}

/// It has not been sent.
pub(crate) fn no_turn(limit: Duration) -> Error {
    let words = format!("others are under way, and this one has not had its turn within {limit:?}");
    Error::new(ErrorKind::TimedOut, words).with_outcome(Outcome::NotApplied)
}

/// A question that waits for a change has to be asked anew.
pub(crate) fn was_set_back() -> Error {
    Error::new(ErrorKind::Unavailable, "the servers were set back to an earlier state")
        .with_outcome(Outcome::NotApplied)
}

/// The session is over at the server.
pub(crate) fn lost(why: &str) -> Error {
    Error::new(ErrorKind::Lost, why)
}

/// The session's key is gone, which lives as long as the session.
pub(crate) fn session_is_gone() -> Error {
    lost("the session is gone at the server")
}

/// An answer that no Consul gives to what was asked.
pub(crate) fn strange(what: &str) -> Error {
    Error::new(ErrorKind::Backend, format!("Consul's answer makes no sense: {what}"))
}

/// The words of an error and of all that caused it, each once.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let text = one.to_string();
        if !words.contains(&text) {
            let _ = write!(words, ": {text}");
        }
        cause = one.source();
    }
    words
}

fn was_reset(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
    causes.any(|cause| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(kind, Some(io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe))
            || cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
    })
}

fn is_about_certificates(words: &str) -> bool {
    let words = words.to_lowercase();
    words.contains("certificate") || words.contains("received fatal alert")
}

#[cfg(test)]
mod tests {
    use hyper::body::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn of(status: u16, text: &str) -> Failure {
        let answer = HttpResponse { status, index: 0, body: Bytes::copy_from_slice(text.as_bytes()) };
        judge(answer, "h:8500", "/v1/kv/x").unwrap_err()
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 0_u16..700, text: String) {
            let answer = HttpResponse { status, index: 0, body: text.into_bytes().into() };
            if let Err(failure) = judge(answer, "h:8500", "/v1/kv/x") {
                prop_assert!(failure.error.to_string().contains("h:8500"));
                prop_assert!(failure.remedy != Remedy::LogIn || failure.error.outcome() == Outcome::NotApplied);
            }
        }
    }

    #[test]
    fn every_answer_that_decides_something_has_its_kind() {
        for (status, text, kind, outcome) in [
            (403, "Permission denied", ErrorKind::Unauthorized, Outcome::NotApplied),
            (500, "rpc error making call: ACL not found", ErrorKind::Unauthorized, Outcome::NotApplied),
            (500, "leadership lost while committing log", ErrorKind::Unavailable, Outcome::Unknown),
            (500, "No cluster leader", ErrorKind::Unavailable, Outcome::Unknown),
            (500, "Invalid Session TTL '1s', must be between [10s=", ErrorKind::Config, Outcome::NotApplied),
            (301, "", ErrorKind::Backend, Outcome::NotApplied),
            (413, "", ErrorKind::Config, Outcome::NotApplied),
            (429, "", ErrorKind::Unavailable, Outcome::NotApplied),
        ] {
            let failure = of(status, text);
            assert_eq!((failure.error.kind(), failure.error.outcome()), (kind, outcome), "{status} {text}");
        }
        for (text, path, right) in [
            ("Permission denied", "/v1/session/create", "session \"tooz-sessions\""),
            ("Permission denied", "/v1/catalog/register", "node \"tooz-sessions\""),
            ("Permission denied", "/v1/kv/tooz/x", "key_prefix"),
            ("ACL not found", "/v1/kv/tooz/x", "do not know the token"),
        ] {
            let words = right_for(text, path);
            assert!(words.contains(right), "{path}: {words}");
        }
        assert!(of(500, "Invalid Session TTL").error.to_string().contains("session_ttl_min"));
        assert!(of(429, "").error.to_string().contains("http_max_conns_per_client"));
        let reset = || Box::new(io::Error::from(io::ErrorKind::ConnectionReset));
        let words = broken(ExchangeError { cause: reset(), was_sent: true }, "h:8500", 0).error.to_string();
        let dead = words.find("whether an agent runs");
        assert!(dead.is_some() && dead < words.find("http_max_conns_per_client"), "the likelier first: {words}");
    }
}
