//! Releases that come together go together: one transaction deletes the keys of many, so that thousands of them do not wait for each other.
//!
//! Each has a condition of its own, that the key is the session's. A transaction is all or nothing: where some of the keys are gone, those are taken
//! out, and it is sent once more for the others. One that comes alone is sent at once.

use tokio::sync::oneshot::error::TryRecvError;
use tooz_core::{Outcome, Result};

use crate::client::{Client, Lane};
use crate::error;
use crate::releases::{OPS, PendingRelease, ReleaseReply};
use crate::request::{Op, TxnResult, check_session, delete};
use crate::server_session::ServerSession;

/// Deletes a key of the session, together with others that wait for the same.
pub(crate) async fn release(client: &Client, session: &ServerSession, key: &str) -> Result<ReleaseReply> {
    let mut was_given_up = false;
    let told = |done: Result<ReleaseReply>, was_given_up| {
        done.map(|done| ReleaseReply { was_repeated: done.was_repeated || was_given_up, ..done })
    };
    loop {
        let mut is_done = session.releases.wait(key);
        let turn = tokio::select! {
            biased;
            done = &mut is_done => {
                if let Ok(done) = done {
                    return told(done, was_given_up);
                }
                // The call that did it for this one was given up half-way, perhaps after it was sent.
                was_given_up = true;
                continue;
            }
            turn = session.releases.writing.lock() => turn,
        };
        loop {
            match is_done.try_recv() {
                Ok(done) => return told(done, was_given_up),
                Err(TryRecvError::Closed) => break,
                Err(TryRecvError::Empty) => write(client, session, session.releases.take_some()).await,
            }
        }
        drop(turn);
        was_given_up = true;
    }
}

async fn write(client: &Client, session: &ServerSession, mut some: Vec<PendingRelease>) {
    let (mut gone, mut was_repeated, mut has_lived) = (Vec::new(), false, false);
    while !some.is_empty() {
        // That the key is the session's proves that the session lived until then.
        let ops = some.iter().flat_map(|one| [check_session(&one.key, &session.id), delete(&one.key)]);
        let ops: Vec<Op> = ops.collect();
        let verdict = match session.change(client, Lane::Duty, ops, None).await {
            Ok(reply) => {
                was_repeated |= reply.was_repeated;
                reply.message
            }
            Err(error) => {
                tell(some, &Err(error));
                break;
            }
        };
        let TxnResult::Refused(failed) = verdict else {
            tell(some, &Ok(ReleaseReply { was_there: true, was_repeated }));
            has_lived = true;
            break;
        };
        let (mut missing, mut rest) = (Vec::new(), Vec::new());
        for (number, one) in some.into_iter().enumerate() {
            let is_gone = failed.iter().any(|op| op / OPS == number);
            if is_gone { missing.push((one, was_repeated)) } else { rest.push(one) }
        }
        if missing.is_empty() {
            // Only the stamp was refused, which none but the session writes.
            let error = session.require(client).await.err();
            let error = error.unwrap_or_else(|| error::strange("keys that can't be given back"));
            tell(rest, &Err(error.with_outcome(Outcome::Unknown)));
            break;
        }
        gone.append(&mut missing);
        some = rest;
    }
    tell_gone(client, session, gone, has_lived).await;
}

/// Tells of keys that were gone, each with whether an earlier sending may have deleted it. What was given back after them proves that they did
/// not go with the session; otherwise one question is enough for all.
async fn tell_gone(client: &Client, session: &ServerSession, gone: Vec<(PendingRelease, bool)>, has_lived: bool) {
    let lived = if has_lived || gone.is_empty() { Ok(()) } else { session.require(client).await };
    for (one, was_repeated) in gone {
        let outcome = if was_repeated { Outcome::Unknown } else { Outcome::NotApplied };
        let done = match &lived {
            Ok(()) => Ok(ReleaseReply { was_there: false, was_repeated }),
            Err(error) => Err(error.clone().with_outcome(outcome)),
        };
        let _ = one.done.send(done);
    }
}

fn tell(some: Vec<PendingRelease>, done: &Result<ReleaseReply>) {
    for one in some {
        let _ = one.done.send(done.clone());
    }
}
