//! What keeps the session alive at the server: its lease, its key, and the heartbeat, a keep-alive with a read that proves which leader has seen it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedSender};
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tooz_core::driver::Mutex;
use tooz_core::{ErrorKind, MemberId, Result};

use crate::client::{Client, Round};
use crate::connection::Connection;
use crate::endpoints::Class;
use crate::error::{self, Failure, Remedy};
use crate::lanes::Lane;
use crate::layout::Layout;
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, ResponseHeader,
};
use crate::record::{SessionRecord, write};
use crate::request;

/// The stream over which one lease is kept alive. After any failure it is thrown away, so that a late reply to an old
/// keep-alive is never taken for the reply to a new one.
struct Stream {
    connection: Connection,
    sender: UnboundedSender<LeaseKeepAliveRequest>,
    replies: Streaming<LeaseKeepAliveResponse>,
}

/// A lease, and the key of its session.
pub(crate) struct Lease {
    pub(crate) id: i64,
    /// The session's own key, which lives as long as the lease.
    pub(crate) key: Vec<u8>,
    /// What stands there.
    pub(crate) record: Vec<u8>,
    /// How often the session's key was written: see `withdrawal.rs` for what that guards against.
    version: AtomicI64,
    stream: Mutex<Option<Stream>>,
}

/// How a beat went at one endpoint.
enum BeatReply {
    /// It counts.
    Counts { header: ResponseHeader },
    /// Both halves were answered, but under two leaders.
    LeaderChanged,
}

impl Lease {
    /// The id is chosen here, so that a lease whose grant was never answered can be revoked all the same.
    pub(crate) fn new(layout: &Layout, member: &MemberId) -> Result<Self> {
        let id = fastrand::i64(1..);
        let record = write(&SessionRecord { member })?;
        Ok(Lease { id, key: layout.session(id), record, version: AtomicI64::new(1), stream: Mutex::default() })
    }

    /// How often the session's key was written, as far as is known.
    pub(crate) fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    pub(crate) fn raise(&self, version: i64) {
        self.version.fetch_max(version, Ordering::AcqRel);
    }

    /// Asks for the lease. Answers the timeout that the server keeps, which is never below what was asked for.
    pub(crate) async fn grant(&self, client: &Client, timeout: Duration) -> Result<Duration> {
        // etcd counts in whole seconds.
        let seconds = timeout.as_secs() + u64::from(timeout.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let asked = client
            .ask(Lane::First, |connection| async move {
                connection.lease().lease_grant(LeaseGrantRequest { ttl: seconds, id: self.id }).await
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
    pub(crate) async fn revoke(&self, client: &Client) -> Result<()> {
        self.stream.lock().take();
        let asked = client
            .ask(Lane::First, |connection| async move {
                connection.lease().lease_revoke(LeaseRevokeRequest { id: self.id }).await
            })
            .await;
        match asked {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Lost => Ok(()),
            Err(error) => Err(error.context("revoke the lease")),
        }
    }

    /// One heartbeat.
    ///
    /// An endpoint, or the leader behind it, may be cut off from the majority and answer keep-alives all the same (etcd issue
    /// 15247). So a keep-alive counts only if the same endpoint then reads the session's key in a linearizable way, which only
    /// a leader with a majority can answer, *and* both replies were given in the same term of the cluster: else a new leader,
    /// whose clock of this lease began to run before the keep-alive was sent, may have answered the read.
    pub(crate) async fn beat(&self, client: &Client) -> Result<()> {
        let _lanes = client.lanes.clear();
        let mut round = Round::new(client, Class::Beat, client.limit());
        let mut terms = 0;
        loop {
            let kept = self.stream.lock().take();
            let fresh = || client.endpoints.connection(Class::Beat);
            let connection = kept.as_ref().map_or_else(fresh, |stream| stream.connection.clone());
            let (before, patience) = (client.history.seen(), round.patience());
            let failure = match timeout(patience, self.beat_over(&connection, kept)).await {
                Ok(Ok(BeatReply::Counts { header })) => {
                    client.history.note(before, Some(&header));
                    return Ok(());
                }
                Ok(Ok(BeatReply::LeaderChanged)) => {
                    terms += 1;
                    if terms < 3 {
                        continue;
                    }
                    error::ended("term of the leader")
                }
                Ok(Err(failure)) => failure,
                Err(_) => client.endpoints.hang_up(&connection, patience),
            };
            round.go_on(&connection, failure).await?;
        }
    }

    async fn beat_over(&self, connection: &Connection, kept: Option<Stream>) -> Result<BeatReply, Failure> {
        let request = LeaseKeepAliveRequest { id: self.id };
        let mut stream = if let Some(stream) = kept {
            // If it has ended, its replies say so.
            let _ = stream.sender.send(request);
            stream
        } else {
            let (sender, receiver) = mpsc::unbounded_channel();
            // The server answers a stream only when something came over it.
            let _ = sender.send(request);
            let opened = connection.lease().lease_keep_alive(UnboundedReceiverStream::new(receiver)).await;
            let replies = opened.map_err(|status| connection.judge(status))?.into_inner();
            Stream { connection: connection.clone(), sender, replies }
        };
        let reply = match stream.replies.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return Err(error::ended("stream of keep-alives")),
            Err(status) => return Err(connection.judge(status)),
        };
        let over = |error| Failure { error, remedy: Remedy::None };
        if reply.ttl <= 0 {
            return Err(over(error::lost("the lease has ended at the server")));
        }
        let read = connection.kv().range(request::one(&self.key)).await.map_err(|status| connection.judge(status))?;
        let read = read.into_inner();
        let Some(key) = read.kvs.first().filter(|key| key.lease == self.id) else {
            return Err(over(error::session_is_gone()));
        };
        let version = key.version;
        *self.stream.lock() = Some(stream);
        Ok(match (reply.header, read.header) {
            (Some(kept), Some(header)) if kept.raft_term == header.raft_term => {
                self.raise(version);
                BeatReply::Counts { header }
            }
            _ => BeatReply::LeaderChanged,
        })
    }
}
