//! The only place where an error of the wire or of the server becomes one of ours.

use std::fmt;
use std::io;
use std::time::Duration;

use tooz_core::{Error, ErrorKind, Outcome};

/// The words with which a server refuses for now, before it does anything.
const NOT_NOW: &[&str] = &["LOADING", "BUSY", "MASTERDOWN", "READONLY", "MISCONF", "NOREPLICAS", "OOM", "TRYAGAIN"];

/// What the server says where it says no.
pub(crate) fn of_server(said: &str) -> Error {
    let begins = |words: &[&str]| words.iter().any(|word| said.starts_with(word));
    let made = |kind, message: &str| Error::new(kind, format!("{message}: {said}"));
    if said.contains("user executing the script can't") {
        // It may have done a part before it was refused.
        return made(ErrorKind::Unauthorized, "the server refuses this user a command of a script; check its ACL")
            .with_outcome(Outcome::Unknown);
    }
    if begins(&["NOPERM", "NOAUTH", "WRONGPASS"]) {
        return made(ErrorKind::Unauthorized, "the server refuses this user; check user, password and ACL");
    }
    if begins(&["BUSYGROUP", "BUSYKEY"]) {
        return made(ErrorKind::Backend, "the server answers");
    }
    if said.contains("counter fence is at its end") {
        return Error::new(
            ErrorKind::Backend,
            "the counter `fence` of this namespace is no number below 2^53, which only another program can have made of it: there is no \
             greater token any more. Use another namespace, or delete that key once nothing remembers a token of before",
        )
        .with_outcome(Outcome::NotApplied);
    }
    if said.contains("READONLY") {
        // Every write of a replica is refused, so that none was done.
        return made(ErrorKind::Unavailable, "the server is a replica by now").with_outcome(Outcome::NotApplied);
    }
    if said.contains("MISCONF") || said.contains("OOM command") {
        // A script may have done a part before it was refused.
        return made(ErrorKind::Unavailable, "the server takes no writes just now");
    }
    if begins(NOT_NOW) {
        return made(ErrorKind::Unavailable, "the server can't serve just now").with_outcome(Outcome::NotApplied);
    }
    if said.contains("max number of clients") {
        return made(ErrorKind::Unavailable, "the server has no room for another client: raise its maxclients")
            .with_outcome(Outcome::NotApplied);
    }
    if begins(&["NOPROTO", "ERR unknown command"]) {
        return made(ErrorKind::Config, "this driver needs Redis 6.2 or later, or Valkey");
    }
    if said.contains("DB index") {
        return made(ErrorKind::Config, "this server has no database of that number");
    }
    made(ErrorKind::Backend, "the server answers")
}

/// Whether the server does not know the script, so that nothing was done.
pub(crate) fn is_unknown_script(said: &str) -> bool {
    said.starts_with("NOSCRIPT")
}

/// Whether this connection can't be used any more: its server has become a replica, or wants to be logged in at again.
pub(crate) fn ends_the_connection(said: &str) -> bool {
    said.contains("READONLY") || said.starts_with("MASTERDOWN") || said.starts_with("NOAUTH")
}

/// The connection could not be made.
pub(crate) fn unreached(error: io::Error) -> Error {
    broken("the server can't be reached", error).with_outcome(Outcome::NotApplied)
}

/// The connection failed.
pub(crate) fn failed(error: io::Error) -> Error {
    broken("the connection was lost", error)
}

fn broken(what: &str, error: io::Error) -> Error {
    let said = error.to_string();
    // What rustls says of one that it does not trust.
    if said.contains("invalid peer certificate") {
        let message = format!("the server's certificate is not trusted; ca= names who signed it: {said}");
        return Error::config(message).with_source(error);
    }
    Error::new(ErrorKind::Unavailable, format!("{what}: {said}")).with_source(error)
}

/// The server has not answered in time.
pub(crate) fn silent(limit: Duration) -> Error {
    Error::new(ErrorKind::TimedOut, format!("the server did not answer within {limit:?}"))
}

/// The server sends what can't be read. It is not known what it has done.
pub(crate) fn garbled(what: impl fmt::Display) -> Error {
    Error::new(
        ErrorKind::Backend,
        format!("the server's answer can't be read, so that the connection was ended: {what}"),
    )
    .with_outcome(Outcome::Unknown)
}

/// The connection was over before anything was sent.
pub(crate) fn cut_before() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost before this was sent")
        .with_outcome(Outcome::NotApplied)
}

/// The connection ended while something was under way.
pub(crate) fn cut() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost while this was under way")
}

/// The connection ended.
pub(crate) fn gone() -> Error {
    Error::new(ErrorKind::Unavailable, "the connection to the server was lost")
}

/// What is to be told of a heartbeat, or a connection, that failed by this: a refusal that waiting alone may not mend. `None`: it was not
/// refused, or that passes by itself.
pub(crate) fn refusal(error: &Error) -> Option<Error> {
    match error.kind() {
        ErrorKind::Lost | ErrorKind::Closed | ErrorKind::TimedOut => None,
        ErrorKind::Unavailable => {
            let said = error.to_string();
            let is_refused = ["MISCONF", "NOREPLICAS", "OOM command"].iter().any(|word| said.contains(word));
            is_refused.then(|| Error::new(ErrorKind::Backend, said).with_outcome(error.outcome()))
        }
        _ => Some(error.clone()),
    }
}

/// There is no connection at all, and why the last attempt to make one has failed.
pub(crate) fn not_connected(why: Option<&str>) -> Error {
    let message = match why {
        Some(why) => format!("there is no connection to the server: {why}"),
        None => "there is no connection to the server".to_owned(),
    };
    Error::new(ErrorKind::Unavailable, message).with_outcome(Outcome::NotApplied)
}

/// So many requests are under way that this one has not had its turn.
pub(crate) fn no_turn(most: usize) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("{most} requests are under way, and this one has not had its turn in time"),
    )
    .with_outcome(Outcome::NotApplied)
}

/// The session is over at the server.
pub(crate) fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the session has ended")
}

/// The server answered what no script of ours answers.
pub(crate) fn strange(what: impl fmt::Debug) -> Error {
    Error::new(ErrorKind::Backend, format!("the server's answer can't be understood: {what:?}"))
}

/// Too few replicas have seen it: the server may have been deposed.
pub(crate) fn too_few_replicas(found: u64, wanted: u64) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!(
            "only {found} of {wanted} replicas have acknowledged it in time, so that it may be lost in a fail-over; \
             mend the replicas, or set wait="
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(said: &str) -> (ErrorKind, Outcome) {
        let error = of_server(said);
        (error.kind(), error.outcome())
    }

    #[test]
    fn a_script_that_is_refused_half_way_may_have_done_a_part() {
        let said =
            "ERR The user executing the script can't run this command or subcommand script: 1f, on @user_script:40.";
        assert_eq!(read(said), (ErrorKind::Unauthorized, Outcome::Unknown));
        let said = "NOPERM this user has no permissions to run the 'evalsha' command";
        assert_eq!(read(said), (ErrorKind::Unauthorized, Outcome::NotApplied));
    }

    #[test]
    fn what_the_wire_says_is_that_the_connection_failed() {
        assert_eq!(failed(io::ErrorKind::ConnectionReset.into()).outcome(), Outcome::Unknown);
        let refused = unreached(io::ErrorKind::ConnectionRefused.into());
        assert_eq!((refused.kind(), refused.outcome()), (ErrorKind::Unavailable, Outcome::NotApplied));
        let distrusted = failed(io::Error::other("invalid peer certificate: UnknownIssuer"));
        assert_eq!(distrusted.kind(), ErrorKind::Config);
        assert!(distrusted.to_string().contains("ca="), "{distrusted}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_server_says_is_read(said in "(ERR |NOPERM |OOM command |READONLY )?\\PC{0,30}") {
            read(&said);
        }
    }
}
