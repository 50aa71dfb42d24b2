//! The watches on the nodes that the session holds, so that the deletion of one by hand is told at once.
//!
//! A watch is set a moment after the grant: a lock that is held for less costs nothing more, and its release would be a second notice of
//! what its owner does by itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tooz_core::Result;
use tooz_core::driver::{Reporter, RequestId};
use zookeeper_client::{Error as ZkError, EventType};

use crate::client::Client;
use crate::connection::Connection;
use crate::error;
use crate::holdings::{Holdings, Revocation};
use crate::tree::Tree;

/// How long something is held before it is watched.
const MOMENT: Duration = Duration::from_millis(100);
/// So many watches are set at once, and then other requests have their turn: after a reconnect there may be ten thousand, and heartbeats go before them.
const AT_ONCE: usize = 32;

/// Notices what others take from a session.
pub(crate) struct NodeWatch {
    pub(crate) client: Arc<Client>,
    pub(crate) tree: Arc<Tree>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) reporter: Reporter,
}

/// What a watch came to.
enum NodeWatchEnd {
    /// The node is gone.
    Gone(RequestId),
    /// Something else happened to it.
    Changed(RequestId),
    WithConnection,
}

impl NodeWatch {
    /// Watches until the session is over.
    pub(crate) async fn run(self: Arc<Self>) {
        while let Ok(connection) = self.client.up().await {
            self.holdings.watch_all_anew();
            if let Err(why) = self.run_over(&connection).await {
                // What can't be watched is found by its owner's release.
                let pause =
                    if error::is_passing(&why) { Duration::from_millis(50) } else { self.client.session_timeout() };
                sleep(pause).await;
            }
        }
    }

    /// Watches for as long as one connection lasts.
    async fn run_over(&self, connection: &Arc<Connection>) -> Result<(), ZkError> {
        let mut watches = JoinSet::new();
        loop {
            let since = Instant::now().checked_sub(MOMENT).unwrap_or_else(Instant::now);
            let (due, next) = self.holdings.unwatched(since, AT_ONCE, |key| self.tree.layout.queue(key));
            if !due.is_empty() {
                self.set(connection, due, &mut watches).await?;
                continue;
            }
            let next_is_due = async {
                match next {
                    Some(held) => sleep_until(held + MOMENT).await,
                    None => self.holdings.unwatched_came.notified().await,
                }
            };
            tokio::select! {
                biased;
                () = connection.gone() => return Ok(()),
                Some(ended) = watches.join_next() => match ended {
                    Ok(NodeWatchEnd::Gone(id)) => self.tell_of(id),
                    Ok(NodeWatchEnd::Changed(id)) => self.holdings.watch_anew(id),
                    Ok(NodeWatchEnd::WithConnection) | Err(_) => {}
                },
                () = next_is_due => {}
            }
        }
    }

    /// Sets some watches in one round trip.
    async fn set(
        &self,
        connection: &Arc<Connection>,
        due: Vec<(RequestId, String)>,
        watches: &mut JoinSet<NodeWatchEnd>,
    ) -> Result<(), ZkError> {
        let setting = async {
            let zookeeper = connection.zookeeper()?;
            let asked: Vec<_> = due.iter().map(|(_, path)| zookeeper.check_and_watch_stat(path)).collect();
            let mut set = Vec::with_capacity(asked.len());
            for answer in asked {
                set.push(answer.await?);
            }
            Ok(set)
        };
        for ((id, _), (stat, watch)) in due.iter().zip(connection.ask(setting).await?) {
            let id = *id;
            // A member's node may be another session's by now, which took it over.
            if stat.is_none_or(|stat| stat.ephemeral_owner != self.client.session_id()) {
                self.tell_of(id);
                continue;
            }
            let connection = Arc::clone(connection);
            watches.spawn(async move {
                tokio::select! {
                    biased;
                    () = connection.gone() => NodeWatchEnd::WithConnection,
                    event = watch.changed() => match event.event_type {
                        EventType::NodeDeleted => NodeWatchEnd::Gone(id),
                        EventType::Session => NodeWatchEnd::WithConnection,
                        _ => NodeWatchEnd::Changed(id),
                    },
                }
            });
        }
        Ok(())
    }

    /// Compares all that is held with what the server has, tells what was taken away, and answers the requests of the locks among it.
    pub(crate) async fn compare_everything(&self) -> Result<Vec<RequestId>> {
        // What is held now has its node before the list is made.
        let held = self.holdings.held(|key| self.tree.layout.queue(key));
        let there: HashSet<String> = self.tree.ephemerals().await?.into_iter().collect();
        let missing = held.into_iter().filter(|(_, path)| !there.contains(path));
        Ok(missing.filter_map(|(id, _)| self.take(id)).collect())
    }

    /// Tells that a node is gone, unless its owner has done that.
    fn tell_of(&self, id: RequestId) {
        if let Some(request) = self.take(id) {
            self.reporter.grant_lost(request);
        }
    }

    /// Tells of a membership that was taken away, and answers the request of a lock that was.
    fn take(&self, id: RequestId) -> Option<RequestId> {
        match self.holdings.taken(id)? {
            Revocation::Lock(request) => Some(request),
            Revocation::Membership(group, join) => {
                self.reporter.membership_lost(&group, join);
                None
            }
        }
    }
}
