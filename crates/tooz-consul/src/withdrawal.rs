//! Taking back what may still be on its way: the index of the session's key shuts it out.
//!
//! Requests to Consul go over several connections and by several servers, and a server without a leader keeps them for seconds: one that was given
//! up may be done much later. Every transaction that makes a key of the session compares the index of the session's own key,
//! and every withdrawal writes that key anew, with another value, since an equal one would leave the index where it is.
//!
//! All that wait to be withdrawn are so by one transaction, and one reading of the session's key serves all that were refused for its index: each
//! writing of that key refuses all transactions under way, and after an outage hundreds that come one by one would end only each other.

use tokio::sync::oneshot::error::TryRecvError;
use tooz_core::Result;

use crate::client::{Client, Lane, Scope};
use crate::error;
use crate::request::{TxnResult, check_session, delete, set};
use crate::server_session::ServerSession;

/// Deletes keys whose making may still be under way, and sees that it comes to nothing.
///
/// What was sent before this was called is shut out: the transaction is sent after that.
pub(crate) async fn withdraw(client: &Client, session: &ServerSession, places: &[String]) -> Result<()> {
    loop {
        let mut is_done = session.withdrawals.wait(places);
        let turn = tokio::select! {
            biased;
            done = &mut is_done => match done {
                Ok(done) => return done,
                // The call that did it for this one was given up half-way.
                Err(_) => continue,
            },
            turn = session.withdrawals.writing.lock() => turn,
        };
        loop {
            match is_done.try_recv() {
                Ok(done) => return done,
                Err(TryRecvError::Closed) => break,
                Err(TryRecvError::Empty) => {}
            }
            let some = session.withdrawals.take_some();
            let done = write(client, session, some.iter().flat_map(|one| &one.places)).await;
            for one in some {
                let _ = one.done.send(done.clone());
            }
        }
        drop(turn);
    }
}

async fn write(client: &Client, session: &ServerSession, places: impl Iterator<Item = &String>) -> Result<()> {
    let mut ops = vec![check_session(&session.key, &session.id), set(&session.key, &session.record()?)];
    ops.extend(places.map(|place| delete(place)));
    match session.change(client, Lane::Duty, ops, None).await?.message {
        TxnResult::Refused(_) => Err(error::session_is_gone()),
        TxnResult::Done(entries) => {
            let written = entries.iter().filter(|entry| entry.key == session.key).map(|entry| entry.modified);
            session.raise(written.max().unwrap_or(0));
            Ok(())
        }
    }
}

/// Takes note of when the session's key was written, where a transaction was refused that has compared its index with `asked`.
///
/// It is lower only where the servers were set back to an earlier state. What is still on its way may carry that very index, so the key is
/// written once more.
pub(crate) async fn follow(client: &Client, session: &ServerSession, asked: u64) -> Result<()> {
    let _turn = session.withdrawals.reading.lock().await;
    if session.index() > asked {
        return Ok(());
    }
    let found = client.read(Lane::Duty, &session.key, Scope::One).await?;
    let own = found.entries.first().filter(|own| own.session.as_ref() == Some(&session.id));
    let Some(own) = own else { return Err(error::session_is_gone()) };
    if own.modified < asked {
        return withdraw(client, session, &[]).await;
    }
    session.raise(own.modified);
    Ok(())
}
