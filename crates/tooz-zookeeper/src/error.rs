//! The only place where an error of the client library becomes one of ours.

use std::fmt;
use std::time::Duration;

use tooz_core::driver::LockKey;
use tooz_core::{Error, ErrorKind, Outcome};
use zookeeper_client::Error as ZkError;

/// A node would have to be an ephemeral one of a session that lives on one server alone.
const EPHEMERAL_ON_LOCAL_SESSION: i32 = -120;
/// The server gave up a request.
const REQUEST_TIMEOUT: i32 = -122;

/// What went wrong while `what` was asked, such as `create /tooz/locks/x`.
pub(crate) fn of(what: impl fmt::Display, error: ZkError) -> Error {
    let (kind, why, outcome) = match &error {
        ZkError::SessionExpired => {
            return Error::new(ErrorKind::Lost, format!("{what}: the server says that the session is over"));
        }
        ZkError::NoAuth | ZkError::InvalidAcl => (
            ErrorKind::Unauthorized,
            "ZooKeeper refuses it: check user:password@ in the URL, and who may do it by the node's ACL (getAcl)",
            Outcome::NotApplied,
        ),
        ZkError::AuthFailed => (
            ErrorKind::Unauthorized,
            "ZooKeeper refuses the credentials: check user:password@ in the URL",
            Outcome::NotApplied,
        ),
        ZkError::Timeout => (ErrorKind::TimedOut, "no answer in time", Outcome::Unknown),
        ZkError::UnexpectedErrorCode(REQUEST_TIMEOUT) => {
            (ErrorKind::TimedOut, "the server gave it up", Outcome::Unknown)
        }
        ZkError::Throttled => (ErrorKind::Unavailable, "the server has too much to do", Outcome::NotApplied),
        ZkError::SessionMoved => {
            (ErrorKind::Unavailable, "the session has moved to another server", Outcome::NotApplied)
        }
        ZkError::NotReadOnly => {
            (ErrorKind::Unavailable, "the server has no quorum and only reads", Outcome::NotApplied)
        }
        ZkError::ConnectionLoss
        | ZkError::NoHosts
        | ZkError::ClientClosed
        | ZkError::Custom(_)
        | ZkError::UnexpectedError(_) => (ErrorKind::Unavailable, "the connection was lost", Outcome::Unknown),
        ZkError::UnexpectedErrorCode(EPHEMERAL_ON_LOCAL_SESSION) => (
            ErrorKind::Config,
            "the ensemble has local sessions that are never upgraded: set localSessionsUpgradingEnabled=true",
            Outcome::NotApplied,
        ),
        ZkError::Unimplemented => (
            ErrorKind::Backend,
            "the server does not know this request; ZooKeeper 3.6 or later is needed",
            Outcome::NotApplied,
        ),
        // Each change is bound to what it has seen. It was tried again for as long as there was time.
        ZkError::BadVersion => (
            ErrorKind::Unavailable,
            "others changed the same node again and again at the same moment; try again",
            Outcome::NotApplied,
        ),
        ZkError::NoNode | ZkError::NodeExists | ZkError::NotEmpty => {
            (ErrorKind::Unavailable, "others made or deleted nodes at the same moment; try again", Outcome::NotApplied)
        }
        ZkError::QuotaExceeded => (ErrorKind::Backend, "a quota of the ensemble is used up", Outcome::NotApplied),
        ZkError::BadArguments(_) => (ErrorKind::Backend, "the client refuses it", Outcome::NotApplied),
        _ => (ErrorKind::Backend, "an answer that was not expected", Outcome::NotApplied),
    };
    Error::new(kind, format!("{what}: {why} ({error})")).with_outcome(outcome).with_source(error)
}

/// Whether the same request may go through on this or the next connection.
pub(crate) fn is_passing(error: &ZkError) -> bool {
    matches!(
        error,
        ZkError::Timeout
            | ZkError::UnexpectedErrorCode(REQUEST_TIMEOUT)
            | ZkError::Throttled
            | ZkError::SessionMoved
            | ZkError::NotReadOnly
            | ZkError::ConnectionLoss
            | ZkError::NoHosts
            | ZkError::Custom(_)
            | ZkError::UnexpectedError(_)
    )
}

/// Whether the request may have been done all the same, or may be done yet.
pub(crate) fn is_doubtful(error: &ZkError) -> bool {
    matches!(
        error,
        ZkError::Timeout
            | ZkError::UnexpectedErrorCode(REQUEST_TIMEOUT)
            | ZkError::ConnectionLoss
            | ZkError::NoHosts
            | ZkError::ClientClosed
            | ZkError::Custom(_)
            | ZkError::UnexpectedError(_)
            | ZkError::UnmarshalError { .. }
    )
}

/// There is no connection, and nothing was sent. What the last attempt to make one came to says more.
pub(crate) fn disconnected(limit: Duration, last: Option<&ConnectTrouble>) -> Error {
    let why = last.map(|last| format!(": {}", last.why)).unwrap_or_default();
    let kind = last.map_or(ErrorKind::Unavailable, |last| last.kind);
    Error::new(kind, format!("no connection to the ensemble within {limit:?}{why}")).with_outcome(Outcome::NotApplied)
}

/// The connection has ended, by what a server did or did not do.
pub(crate) fn cut_off() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection to the server was lost, or left because the server was silent or of no use",
    )
}

/// Why a connection can't be made now. It is tried again, whatever it is.
#[derive(Clone, Debug)]
pub(crate) struct ConnectTrouble {
    pub(crate) kind: ErrorKind,
    pub(crate) why: String,
}

/// A grant that was not there any more when it was to be given back.
pub(crate) fn gone_before(key: &LockKey) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "the {key} had been taken away from this session before it was given back; a later holder was not touched"
        ),
    )
    .with_outcome(Outcome::NotApplied)
}

/// More nodes than a session may have.
pub(crate) fn too_much(nodes: usize, weight: usize, most: usize) -> Error {
    Error::config(format!(
        "this session has {nodes} locks, places in queues and memberships, whose paths take {weight} bytes of {most}: ZooKeeper ends a \
         session by one record with all its paths, and one that is too long stops the whole ensemble (ZOOKEEPER-4306). Give some back, spread \
         them over more coordinators, or shorten the chroot and the namespace"
    ))
    .with_outcome(Outcome::NotApplied)
}

/// A heartbeat that the leader might hear of too late.
pub(crate) fn stood_still() -> Error {
    Error::new(ErrorKind::Unavailable, "heartbeat: this process stood still, and goes on over a new connection")
        .with_outcome(Outcome::NotApplied)
}

/// The session has ended, and why.
pub(crate) fn over(why: &str) -> Error {
    Error::new(ErrorKind::Lost, why.to_owned())
}

/// No host of the URL has a server that serves.
pub(crate) fn unreachable(reasons: &[String]) -> Error {
    let reasons = reasons.join("; ");
    Error::new(ErrorKind::Unavailable, format!("no server of the ensemble can be reached: {reasons}"))
        .with_outcome(Outcome::NotApplied)
}

/// No host of the URL takes this client, because of a certificate each time: theirs or ours.
pub(crate) fn distrusted(reasons: &[String]) -> Error {
    Error::config(format!("no server of the ensemble can be reached: {}", reasons.join("; ")))
}

/// A node that other programs have made, where ours would have to be.
pub(crate) fn foreign_node(path: &str) -> Error {
    Error::new(
        ErrorKind::Backend,
        format!("{path} is there, and nothing of tooz's: delete it, or choose another namespace"),
    )
    .with_outcome(Outcome::NotApplied)
}

/// Nodes of other programs keep a group from being deleted; this is one of them.
pub(crate) fn foreign_child(path: &str) -> Error {
    let why = format!("{path} is there, and nothing of tooz's: delete it with `deleteall {path}` in zkCli.sh");
    Error::new(ErrorKind::Backend, why).with_outcome(Outcome::NotApplied)
}

/// Another program wrote into our nodes, or a value is not what it should be.
pub(crate) fn unreadable(what: &str, why: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Backend, format!("{what} can't be read: {why}"))
}

/// More data than a node takes.
pub(crate) fn too_large(bytes: usize, most: usize) -> Error {
    Error::config(format!(
        "these capabilities take {bytes} bytes, and a node of ZooKeeper at most {most}: store them elsewhere and say where"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_of_unknown_outcome() {
        for error in [ZkError::Timeout, ZkError::ConnectionLoss, ZkError::NoHosts] {
            assert!(is_doubtful(&error) && is_passing(&error));
            let error = of("create /x", error);
            assert_eq!(error.outcome(), Outcome::Unknown);
            assert!(error.is_retryable());
        }
        for error in [ZkError::BadVersion, ZkError::NoNode, ZkError::NodeExists] {
            let error = of("break the lock", error);
            assert!(error.is_retryable() && error.outcome() == Outcome::NotApplied, "{error}");
        }
        for error in [ZkError::NoAuth, ZkError::Throttled, ZkError::SessionMoved] {
            assert!(!is_doubtful(&error));
            assert_eq!(of("create /x", error).outcome(), Outcome::NotApplied);
        }
        assert_eq!(of("beat", ZkError::SessionExpired).kind(), ErrorKind::Lost);
    }
}
