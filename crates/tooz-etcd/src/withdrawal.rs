//! Taking back what may still be on its way: the version of the session's key shuts it out.

use tooz_core::Result;

use crate::client::Client;
use crate::error;
use crate::holdings::Holdings;
use crate::lanes::Lane;
use crate::lease::Lease;
use crate::proto::etcdserverpb::TxnRequest;
use crate::request::{delete, exists, get, one, put, ranges, version_is};

/// By how many withdrawals a session may be ahead of a cluster that was set back. More than that happen only in great trouble.
const FURTHEST: i64 = 64;

/// Deletes keys whose making may still be under way, and raises the session's version, so that it comes to nothing.
pub(crate) async fn withdraw(client: &Client, lease: &Lease, places: &[Vec<u8>]) -> Result<()> {
    let mut success = vec![put(&lease.key, lease.record.clone(), lease.id)];
    success.extend(places.iter().map(|place| delete(place)));
    success.push(get(one(&lease.key)));
    let txn = TxnRequest { compare: vec![exists(&lease.key)], success, failure: Vec::new() };
    let asked = client.ask(Lane::Duty, |connection| {
        let txn = txn.clone();
        async move { connection.kv().txn(txn).await }
    });
    let reply = asked.await?.message;
    if !reply.succeeded {
        return Err(error::session_is_gone());
    }
    if let Some(session) = ranges(reply).first().and_then(|found| found.kvs.first()) {
        lease.raise(session.version);
    }
    Ok(())
}

/// Withdraws keys like [`withdraw`]. Where etcd takes no writes, the keys are deleted, and the rest is done as soon as it takes some: until
/// then nothing can be made either.
pub(crate) async fn withdraw_or_owe(
    client: &Client,
    lease: &Lease,
    holdings: &Holdings,
    places: &[Vec<u8>],
) -> Result<()> {
    match withdraw(client, lease, places).await {
        Err(error) if error::is_full(&error) => {
            let success = places.iter().map(|place| delete(place)).collect();
            let txn = TxnRequest { compare: vec![exists(&lease.key)], success, failure: Vec::new() };
            if !client.txn(Lane::Duty, &txn).await?.message.succeeded {
                return Err(error::session_is_gone());
            }
            holdings.owe(places);
            Ok(())
        }
        withdrawn => withdrawn,
    }
}

/// Takes note of how often the session's key was written, where a transaction was refused that has compared it with `asked`.
///
/// It is lower only where the cluster was set back. What is still on its way carries any version up to the known one, so the key is
/// written until it is as far again: what was withdrawn before stays withdrawn.
pub(crate) async fn follow(client: &Client, lease: &Lease, asked: i64, mut there: i64) -> Result<()> {
    let known = asked.max(lease.version());
    if there >= asked {
        lease.raise(there);
        return Ok(());
    }
    if known - there > FURTHEST {
        return Err(error::lost("the cluster was set back to long before, and the session with it"));
    }
    for _ in 0..FURTHEST {
        if there >= known {
            break;
        }
        let txn = TxnRequest {
            compare: vec![version_is(&lease.key, there)],
            success: vec![put(&lease.key, lease.record.clone(), lease.id), get(one(&lease.key))],
            failure: vec![get(one(&lease.key))],
        };
        let reply = client.txn(Lane::First, &txn).await?.message;
        let Some(now) = ranges(reply).first().and_then(|found| found.kvs.first()).map(|key| key.version) else {
            return Err(error::session_is_gone());
        };
        there = now;
    }
    lease.raise(there);
    Ok(())
}
