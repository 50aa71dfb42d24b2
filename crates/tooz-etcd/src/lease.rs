//! The session's lease and its heartbeat: a keep-alive, then a read that proves who has seen it.

use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tooz_core::driver::Mutex;
use tooz_core::{ErrorKind, Result};

use crate::cluster::{Class, Cluster, Lane, Round};
use crate::endpoint::Line;
use crate::error::{self, Failure, Remedy};
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, ResponseHeader,
};
use crate::request;

/// The stream over which one lease is kept alive. After any failure it is thrown away, so that a late reply to an old
/// keep-alive is never taken for the reply to a new one.
struct Stream {
    line: Line,
    sender: UnboundedSender<LeaseKeepAliveRequest>,
    replies: Streaming<LeaseKeepAliveResponse>,
}

/// One lease.
pub(crate) struct Lease {
    pub(crate) id: i64,
    stream: Mutex<Option<Stream>>,
}

/// How a beat went at one endpoint.
enum Beaten {
    /// It counts; the session's key is at that version.
    Counts { version: i64, header: ResponseHeader },
    /// Both halves were answered, but under two leaders.
    LeaderChanged,
}

impl Lease {
    /// The id is chosen here, so that a lease whose grant was never answered can be revoked all the same.
    pub(crate) fn new() -> Self {
        Lease { id: fastrand::i64(1..), stream: Mutex::default() }
    }

    /// Asks for the lease. Answers the timeout that the server keeps, which is never below what was asked for.
    pub(crate) async fn grant(&self, cluster: &Cluster, timeout: Duration) -> Result<Duration> {
        // etcd counts in whole seconds.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let asked = cluster
            .ask(Lane::First, |line| async move {
                line.lease().lease_grant(LeaseGrantRequest { ttl: seconds, id: self.id }).await
            })
            .await;
        match asked {
            Ok(reply) if !reply.message.error.is_empty() => Err(error::strange(&reply.message.error)),
            Ok(reply) => Ok(Duration::from_secs(u64::try_from(reply.message.ttl.max(seconds)).unwrap_or(0))),
            // An earlier sending of this request has made it.
            Err(error) if error.to_string().contains("lease already exists") => Ok(timeout),
            Err(error) => Err(error.context("ask for a lease")),
        }
    }

    /// Ends the lease: etcd deletes all its keys in one step.
    pub(crate) async fn revoke(&self, cluster: &Cluster) -> Result<()> {
        self.stream.lock().take();
        let asked = cluster
            .ask(Lane::First, |line| async move { line.lease().lease_revoke(LeaseRevokeRequest { id: self.id }).await })
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Lost => Ok(()),
            Err(error) => Err(error.context("revoke the lease")),
        }
    }

    /// One heartbeat. Answers the version of the session's key.
    ///
    /// An endpoint, or the leader behind it, may be cut off from the majority and answer keep-alives all the same (etcd issue
    /// 15247). So a keep-alive counts only if the same endpoint then reads the session's key in a linearizable way, which only
    /// a leader with a majority can answer, *and* both replies were given in the same term of the cluster: else a new leader,
    /// whose clock of this lease began to run before the keep-alive was sent, may have answered the read.
    pub(crate) async fn beat(&self, cluster: &Cluster, session_key: &[u8]) -> Result<i64> {
        let _way = cluster.clear_the_way();
        let mut round = Round::new(cluster, Class::Beat, cluster.limit());
        let mut terms = 0;
        loop {
            let kept = self.stream.lock().take();
            let line = kept.as_ref().map_or_else(|| cluster.line(Class::Beat), |stream| stream.line.clone());
            let (before, patience) = (cluster.history.seen(), round.patience());
            let failure = match timeout(patience, self.beat_over(&line, kept, session_key)).await {
                Ok(Ok(Beaten::Counts { version, header })) => {
                    cluster.history.note(before, Some(&header));
                    return Ok(version);
                }
                Ok(Ok(Beaten::LeaderChanged)) => {
                    terms += 1;
                    if terms < 3 {
                        continue;
                    }
                    error::ended("term of the leader")
                }
                Ok(Err(failure)) => failure,
                Err(_) => cluster.hang_up(&line, patience),
            };
            round.go_on(&line, failure).await?;
        }
    }

    async fn beat_over(&self, line: &Line, kept: Option<Stream>, session_key: &[u8]) -> Result<Beaten, Failure> {
        let request = LeaseKeepAliveRequest { id: self.id };
        let mut stream = if let Some(stream) = kept {
            // If it has ended, its replies say so.
            let _ = stream.sender.send(request);
            stream
        } else {
            let (sender, receiver) = mpsc::unbounded_channel();
            // The server answers a stream only when something came over it.
            let _ = sender.send(request);
            let opened = line.lease().lease_keep_alive(UnboundedReceiverStream::new(receiver)).await;
            let replies = opened.map_err(|status| line.judge(status))?.into_inner();
            Stream { line: line.clone(), sender, replies }
        };
        let reply = match stream.replies.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(error::ended("stream of keep-alives")),
            Err(status) => return Err(line.judge(status)),
        };
        let over = |why| Failure { error: error::lost(why), remedy: Remedy::None };
        if reply.ttl <= 0 {
            return Err(over("the lease has ended at the server"));
        }
        let read = line.kv().range(request::one(session_key)).await.map_err(|status| line.judge(status))?.into_inner();
        let Some(key) = read.kvs.first().filter(|key| key.lease == self.id) else {
            return Err(over("the session's key is gone, and so is the session"));
        };
        let version = key.version;
        *self.stream.lock() = Some(stream);
        Ok(match (reply.header, read.header) {
            (Some(kept), Some(header)) if kept.raft_term == header.raft_term => Beaten::Counts { version, header },
            _ => Beaten::LeaderChanged,
        })
    }
}
