//! Taking back what may still be on its way: the version of the session's key shuts it out.

use tooz_core::{Error, Result};

use crate::cluster::{Cluster, Lane};
use crate::error;
use crate::proto::etcdserverpb::TxnRequest;
use crate::request::{delete, exists, get, one, put, ranges, version_is};
use crate::session::{Etcd, Opened};

/// By how many withdrawals a session may be ahead of a cluster that was set back. More than that happen only in great trouble.
const FURTHEST: i64 = 64;

impl Etcd {
    /// Deletes keys whose making may still be under way, and sees to it that it comes to nothing. Where etcd takes no writes, they are
    /// deleted, and the rest is done as soon as it takes some: until then nothing can be made either.
    pub(crate) async fn withdraw(&self, opened: &Opened, places: &[Vec<u8>]) -> Result<()> {
        match withdraw(&self.cluster, opened, places).await {
            Err(error) if error::is_full(&error) => {
                let success = places.iter().map(|place| delete(place)).collect();
                let txn = TxnRequest { compare: vec![exists(&opened.key)], success, failure: Vec::new() };
                if !self.txn(Lane::Duty, &txn).await?.message.succeeded {
                    return Err(session_is_gone());
                }
                self.own.owe(places);
                Ok(())
            }
            withdrawn => withdrawn,
        }
    }

    /// Takes note of how often the session's key was written, where a transaction was refused that has compared it with `asked`.
    ///
    /// It is lower only where the cluster was set back. What is still on its way carries any version up to the known one, so the key is
    /// written until it is as far again: what was withdrawn before stays withdrawn.
    pub(crate) async fn follow(&self, opened: &Opened, asked: i64, mut there: i64) -> Result<()> {
        let known = asked.max(opened.version());
        if there >= asked {
            opened.raise(there);
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
                compare: vec![version_is(&opened.key, there)],
                success: vec![put(&opened.key, opened.record.clone(), opened.lease.id), get(one(&opened.key))],
                failure: vec![get(one(&opened.key))],
            };
            let reply = self.txn(Lane::First, &txn).await?.message;
            let Some(now) = ranges(reply).first().and_then(|found| found.kvs.first()).map(|key| key.version) else {
                return Err(session_is_gone());
            };
            there = now;
        }
        opened.raise(there);
        Ok(())
    }
}

/// Deletes keys whose making may still be under way, and raises the session's version, so that it comes to nothing.
pub(crate) async fn withdraw(cluster: &Cluster, opened: &Opened, places: &[Vec<u8>]) -> Result<()> {
    let mut success = vec![put(&opened.key, opened.record.clone(), opened.lease.id)];
    success.extend(places.iter().map(|place| delete(place)));
    success.push(get(one(&opened.key)));
    let txn = TxnRequest { compare: vec![exists(&opened.key)], success, failure: Vec::new() };
    let asked = cluster.ask(Lane::Duty, |line| {
        let txn = txn.clone();
        async move { line.kv().txn(txn).await }
    });
    let reply = asked.await?.message;
    if !reply.succeeded {
        return Err(session_is_gone());
    }
    if let Some(session) = ranges(reply).first().and_then(|found| found.kvs.first()) {
        opened.raise(session.version);
    }
    Ok(())
}

pub(crate) fn session_is_gone() -> Error {
    error::lost("the session's key is gone, and so is the session")
}
