//! The nodes of lock requests: made, found again, and taken away.
//!
//! A request's node has the request's id in its name. So a node whose making was not answered is found again, and no request takes
//! another's node for its own. The token is the transaction that made the node: requests that conflict are granted in that order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Granted, LockRequest, RequestId};
use tooz_core::{Error, ErrorKind, FencingToken, MemberId, Outcome, Result};
use zookeeper_client::{CreateMode, Error as ZkError, Stat};

use crate::client::Client;
use crate::connection::Connection;
use crate::error;
use crate::holdings::{Holdings, Leave, Leaving, NodeState, RequestNode};
use crate::queue;
use crate::record::LockRecord;
use crate::tree::Tree;

/// How often a queue is made again that the server took away as empty just before a request entered it.
const ATTEMPTS: usize = 5;

/// The requests of one session.
pub(crate) struct Requests {
    pub(crate) client: Arc<Client>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) member: MemberId,
}

/// What taking a request's node away came to.
pub(crate) enum WithdrawalEnd {
    Ended,
    /// It was held, and another session or a hand had taken its node away before.
    GoneBefore,
}

impl Requests {
    /// Counts the node that the request is going to have, or says that the session has too many.
    pub(crate) fn reserve(&self, request: &LockRequest) -> Result<()> {
        self.holdings.enter(request, || self.tree.layout.weight_of_request(&request.key))
    }

    /// The node of a request, made if need be, and a view of the queue that is not older than it.
    pub(crate) async fn enter(
        &self,
        connection: &Connection,
        request: &LockRequest,
    ) -> Result<(RequestNode, Vec<String>), ZkError> {
        let queue = self.tree.layout.queue(&request.key);
        match self.holdings.known(request.id) {
            NodeState::Made(node) => {
                let listing = async { connection.zookeeper()?.list_children(&queue).await };
                match connection.ask(listing).await {
                    // Without a node of ours in it the server took the queue away.
                    Err(ZkError::NoNode) => Ok((node, Vec::new())),
                    children => Ok((node, children?)),
                }
            }
            NodeState::Doubtful => match self.find(connection, &queue, request.id).await? {
                Some(found) => Ok(found),
                None => self.make(connection, &queue, request).await,
            },
            NodeState::Unasked => self.make(connection, &queue, request).await,
        }
    }

    /// Makes the node of a request and looks at the queue, in one round trip: a server answers a reading only after the
    /// writing of the same session before it.
    async fn make(
        &self,
        connection: &Connection,
        queue: &str,
        request: &LockRequest,
    ) -> Result<(RequestNode, Vec<String>), ZkError> {
        let prefix = format!("{queue}/{}", queue::prefix(request.id, request.mode));
        let data = serde_json::to_vec(&LockRecord::new(&self.member, &request.key)).unwrap_or_default();
        let options = self.tree.made(CreateMode::EphemeralSequential);
        for _ in 0..ATTEMPTS {
            self.holdings.note(request.id, NodeState::Doubtful);
            let entering = async {
                let zookeeper = connection.zookeeper()?;
                let created = zookeeper.create(&prefix, &data, &options);
                let listed = zookeeper.list_children(queue);
                Ok((created.await, listed.await))
            };
            let (created, listed) = connection.ask(entering).await?;
            match created {
                Ok((stat, sequence)) => {
                    let name = format!("{}{sequence}", queue::prefix(request.id, request.mode));
                    let node = self.note_made(request.id, name, &stat)?;
                    return Ok((node, listed?));
                }
                Err(ZkError::NoNode) => {
                    self.holdings.note(request.id, NodeState::Unasked);
                    // A container, which the server takes away when it has been empty for a while.
                    let making = async { self.tree.make(&connection.zookeeper()?, queue, CreateMode::Container).await };
                    connection.ask(making).await?;
                }
                Err(why) => {
                    if !error::is_doubtful(&why) {
                        self.holdings.note(request.id, NodeState::Unasked);
                    }
                    return Err(why);
                }
            }
        }
        Err(ZkError::NoNode)
    }

    /// Finds the node of a request whose making was not answered.
    async fn find(
        &self,
        connection: &Connection,
        queue: &str,
        id: RequestId,
    ) -> Result<Option<(RequestNode, Vec<String>)>, ZkError> {
        let finding = async {
            let zookeeper = connection.zookeeper()?;
            let children = match zookeeper.list_children(queue).await {
                Err(ZkError::NoNode) => return Ok(None),
                children => children?,
            };
            let Some(name) =
                queue::sorted(&children).iter().find(|entry| entry.id == id).map(|entry| entry.name.to_owned())
            else {
                return Ok(None);
            };
            let stat = zookeeper.check_stat(&format!("{queue}/{name}")).await?;
            Ok(stat.map(|stat| (name, stat, children)))
        };
        let Some((name, stat, children)) = connection.ask(finding).await? else { return Ok(None) };
        Ok(Some((self.note_made(id, name, &stat)?, children)))
    }

    /// Notes a node, if it is this session's: a node lives as long as the session that made it, whichever session finds it.
    fn note_made(&self, id: RequestId, name: String, stat: &Stat) -> Result<RequestNode, ZkError> {
        if stat.ephemeral_owner != self.client.session_id() {
            return Err(ZkError::SessionExpired);
        }
        let token = FencingToken(u64::try_from(stat.czxid).unwrap_or(0));
        let node = RequestNode { name, token };
        self.holdings.note(id, NodeState::Made(node.clone()));
        Ok(node)
    }

    /// The request has the lock.
    pub(crate) fn granted(&self, request: &LockRequest, node: &RequestNode) -> Granted {
        self.holdings.granted(request.id);
        Granted::new(node.token)
    }

    /// Sees to the namespace, which was deleted by hand.
    pub(crate) async fn settle(&self, connection: &Connection, request: &LockRequest) -> Result<()> {
        self.tree.settle(connection).await.map_err(|why| self.unsettled(request, why))?;
        // It may be deleted again and again, and is made again less fast.
        sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// The error of a request that may have a node: whatever the server refused last, the node may be there. Core withdraws it then.
    pub(crate) fn unsettled(&self, request: &LockRequest, error: Error) -> Error {
        let is_unasked = matches!(self.holdings.known(request.id), NodeState::Unasked);
        if is_unasked {
            self.holdings.forget(request.id);
        }
        match error.kind() {
            ErrorKind::Lost => error,
            _ if is_unasked => error.with_outcome(Outcome::NotApplied),
            _ => error.with_outcome(Outcome::Unknown),
        }
    }

    /// Takes a request's node away, whatever it is there for. It comes after everything that was sent for the request before.
    pub(crate) async fn withdraw(&self, connection: &Connection, request: &LockRequest) -> Result<WithdrawalEnd> {
        let queue = self.tree.layout.queue(&request.key);
        let Leaving { known, kind } = self.holdings.leave(request.id);
        let withdrawing = async {
            let zookeeper = connection.zookeeper()?;
            let names = match known {
                NodeState::Unasked => Vec::new(),
                NodeState::Made(node) => vec![node.name],
                NodeState::Doubtful => match zookeeper.list_children(&queue).await {
                    Err(ZkError::NoNode) => Vec::new(),
                    children => {
                        let children = children?;
                        let entries = queue::sorted(&children);
                        let own = entries.iter().filter(|entry| entry.id == request.id);
                        own.map(|entry| entry.name.to_owned()).collect()
                    }
                },
            };
            let mut withdrawn = WithdrawalEnd::GoneBefore;
            for name in names {
                match zookeeper.delete(&format!("{queue}/{name}"), None).await {
                    Ok(()) => withdrawn = WithdrawalEnd::Ended,
                    Err(ZkError::NoNode) => {}
                    Err(why) => return Err(why),
                }
            }
            Ok(withdrawn)
        };
        let withdrawn = connection.ask(withdrawing).await;
        let withdrawn = withdrawn.map_err(|why| match self.client.failed("leave the queue", why) {
            error if error.kind() == ErrorKind::Lost => error,
            error => error.with_outcome(Outcome::Unknown),
        })?;
        self.holdings.forget(request.id);
        match kind {
            Leave::Grant => Ok(withdrawn),
            Leave::Rest => Ok(WithdrawalEnd::Ended),
        }
    }
}
