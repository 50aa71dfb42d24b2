//! Taking back what may still be on its way: the index of the session's key shuts it out.
//!
//! Requests to Consul go over several connections and by several servers, and a server without a leader keeps them for seconds: one that was given
//! up may be done much later. Every transaction that makes a key of the session compares the index of the session's own key,
//! and every withdrawal writes that key anew, with another value, since an equal one would leave the index where it is.

use tooz_core::Result;

use crate::client::{Client, Lane, Scope};
use crate::error;
use crate::request::{Verdict, check_session, delete, set};
use crate::server_session::ServerSession;

/// Deletes keys whose making may still be under way, and sees that it comes to nothing.
pub(crate) async fn withdraw(client: &Client, session: &ServerSession, places: &[String]) -> Result<()> {
    let mut ops = vec![check_session(&session.key, &session.id), set(&session.key, &session.record()?)];
    ops.extend(places.iter().map(|place| delete(place)));
    match client.transact(Lane::Duty, &ops).await?.message {
        Verdict::Refused(_) => Err(error::session_is_gone()),
        Verdict::Done(entries) => {
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
    let found = client.read(Lane::Duty, &session.key, Scope::One).await?;
    let own = found.entries.first().filter(|own| own.session.as_ref() == Some(&session.id));
    let Some(own) = own else { return Err(error::session_is_gone()) };
    if own.modified < asked {
        return withdraw(client, session, &[]).await;
    }
    session.raise(own.modified);
    Ok(())
}
