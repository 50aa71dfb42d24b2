//! Watches: one task for each, which tells what is new.
//!
//! A group is watched by a persistent watch, whose events name who came, went, or has new capabilities: a change costs each watcher
//! one small question, however many members there are. The events are counted, and held against the server's own count; where that
//! does not come out, core reads everything. Nothing else may watch the same node: a one-shot watch on it ends the persistent one
//! on servers before 3.9 (ZOOKEEPER-4466).
//!
//! The holders of a lock are watched by one-shot watches, which are armed anew after every change.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Change, Pushed, Pusher};
use zookeeper_client::{AddWatchMode, Error as ZkError, EventType, OneshotWatcher, PersistentWatcher, WatchedEvent};

use crate::client::Client;
use crate::connection::Connection;
use crate::layout::member_at;
use crate::roster::{self, Member};
use crate::{error, queue};

/// How long an event may take that the server has counted already: it was sent before the count.
const MOMENT: Duration = Duration::from_secs(1);

/// A watch that is armed.
type Armed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watch of a group.
pub(crate) struct GroupWatch {
    client: Arc<Client>,
    path: String,
    pusher: Pusher,
    /// The count of changes up to what was told last.
    counted: Option<u64>,
    /// The member whose data has changed, until the group's own has.
    renewed: Option<String>,
}

/// A change of a group, as events tell it. Each is one in the group's count.
enum Happening {
    /// The node of a member was made.
    Came(String),
    /// The node of a member was deleted.
    Went(String),
    /// The data of a member's node was changed; `None` where it is not known whose.
    Renewed(Option<String>),
    /// The group was deleted. It is not counted any more.
    Gone,
}

/// The watch of a lock's holders.
pub(crate) struct LockWatch {
    client: Arc<Client>,
    path: String,
    pusher: Pusher,
    holders: Option<Vec<String>>,
}

/// Whether a watch goes on.
#[derive(PartialEq, Eq)]
enum Continuation {
    Again,
    Over,
}

impl GroupWatch {
    pub(crate) fn new(client: &Arc<Client>, path: String, pusher: Pusher) -> Self {
        GroupWatch { client: Arc::clone(client), path, pusher, counted: None, renewed: None }
    }

    /// Watches until the watcher has gone, or the group or the session is gone.
    pub(crate) async fn run(mut self) {
        while let Ok(connection) = self.client.up().await {
            match self.over_one(&connection).await {
                Ok(Continuation::Again) => {}
                Err(why) if error::is_passing(&why) => sleep(Duration::from_millis(20)).await,
                // After an error the stream ends, and core watches anew.
                Ok(Continuation::Over) | Err(_) => return,
            }
        }
    }

    /// Watches for as long as one connection lasts.
    async fn over_one(&mut self, connection: &Connection) -> Result<Continuation, ZkError> {
        let arming = async {
            let zookeeper = connection.zookeeper()?;
            zookeeper.watch(&self.path, AddWatchMode::PersistentRecursive).await
        };
        let mut watch = connection.ask(arming).await?;
        self.renewed = None;
        let Some(counted) = self.begin(connection, &mut watch).await? else { return Ok(self.gone()) };
        match self.counted.replace(counted) {
            None => self.pusher.push(Pushed::Ready),
            Some(before) if before != counted => self.pusher.push(Pushed::Dirty),
            Some(_) => {}
        }
        let mut patience = self.client.session_timeout();
        loop {
            let first = tokio::select! {
                biased;
                () = connection.gone() => return Ok(Continuation::Again),
                () = self.pusher.closed() => return Ok(Continuation::Over),
                event = watch.changed() => Some(event),
                () = sleep(patience) => None,
            };
            let is_timeout = first.is_none();
            let mut happened = Vec::new();
            let mut next = first;
            while let Some(event) = next {
                if event.event_type == EventType::Session {
                    return Ok(Continuation::Again);
                }
                happened.extend(self.understand(&event));
                next = at_once(connection, &mut watch).await;
            }
            let Some(now) = self.tell(connection, happened).await? else { return Ok(self.gone()) };
            let behind = now.wrapping_sub(self.counted.unwrap_or(now));
            if behind == 0 {
                patience = self.client.session_timeout();
            } else if is_timeout && patience == MOMENT {
                // The server sends the event of a change before the answer that counts it. A watch that missed its event is armed again.
                return Ok(Continuation::Again);
            } else {
                patience = MOMENT;
            }
        }
    }

    /// The count of changes at a moment from which every event is one change more; `None` where there is no group.
    async fn begin(&self, connection: &Connection, watch: &mut PersistentWatcher) -> Result<Option<u64>, ZkError> {
        loop {
            let zookeeper = connection.zookeeper()?;
            let Some(stat) = connection.ask(zookeeper.check_stat(&self.path)).await? else { return Ok(None) };
            // An event that is there by now may have come before or after that answer; nothing tells. Then it is asked again.
            let mut is_quiet = true;
            while let Some(event) = at_once(connection, watch).await {
                if event.event_type == EventType::Session {
                    return Err(ZkError::ConnectionLoss);
                }
                is_quiet = false;
            }
            if is_quiet {
                return Ok(Some(roster::version(&stat)));
            }
        }
    }

    /// Tells what happened, and answers how many changes the server counts by now; `None` where there is no group any more.
    async fn tell(&mut self, connection: &Connection, happened: Vec<Happening>) -> Result<Option<u64>, ZkError> {
        let nodes: Vec<String> = happened.iter().filter_map(Happening::to_read).cloned().collect();
        let zookeeper = connection.zookeeper()?;
        let looking = async {
            // Both are asked before either is answered.
            tokio::try_join!(biased; roster::read(&zookeeper, &self.path, &nodes), zookeeper.check_stat(&self.path))
        };
        let (members, stat) = connection.ask(looking).await?;
        let mut members = members.into_iter();
        for happening in happened {
            let entry = happening.to_read().and_then(|_| members.next()).and_then(Member::entry);
            let change = match (happening, entry) {
                (Happening::Came(_), Some(entry)) => Some(Change::Joined(entry)),
                (Happening::Renewed(Some(_)), Some(entry)) => Some(Change::Updated(entry)),
                (Happening::Went(node), _) => member_at(&node).map(Change::Left),
                (Happening::Gone, _) => return Ok(None),
                // The member has gone again, or can't be read.
                _ => None,
            };
            let after = self.counted.unwrap_or_default();
            let version = after.wrapping_add(1);
            self.counted = Some(version);
            self.pusher.push(match change {
                Some(change) => Pushed::Delta { after: Some(after), version, change },
                None => Pushed::Dirty,
            });
        }
        Ok(stat.as_ref().map(roster::version))
    }

    /// What an event means for the group; `None`: nothing that is counted.
    fn understand(&mut self, event: &WatchedEvent) -> Option<Happening> {
        let below = event.path.strip_prefix(&self.path)?;
        let Some(node) = below.strip_prefix('/') else {
            return match event.event_type {
                EventType::NodeDeleted => Some(Happening::Gone),
                // Its data is written in the same transaction as a member's, and right after it.
                EventType::NodeDataChanged => Some(Happening::Renewed(self.renewed.take())),
                _ => None,
            };
        };
        match event.event_type {
            EventType::NodeCreated => Some(Happening::Came(node.to_owned())),
            EventType::NodeDeleted => Some(Happening::Went(node.to_owned())),
            EventType::NodeDataChanged => {
                self.renewed = Some(node.to_owned());
                None
            }
            _ => None,
        }
    }

    fn gone(&self) -> Continuation {
        self.pusher.push(Pushed::Gone);
        Continuation::Over
    }
}

impl Happening {
    /// The node that shows more of it.
    fn to_read(&self) -> Option<&String> {
        match self {
            Happening::Came(node) => Some(node),
            Happening::Renewed(node) => node.as_ref(),
            Happening::Went(_) | Happening::Gone => None,
        }
    }
}

impl LockWatch {
    /// `path` is that of the lock's queue.
    pub(crate) fn new(client: &Arc<Client>, path: String, pusher: Pusher) -> Self {
        LockWatch { client: Arc::clone(client), path, pusher, holders: None }
    }

    /// Watches until the watcher has gone, or the session is gone.
    pub(crate) async fn run(mut self) {
        while let Ok(connection) = self.client.up().await {
            match self.over_one(&connection).await {
                Ok(Continuation::Again) => {}
                Err(why) if error::is_passing(&why) => sleep(Duration::from_millis(20)).await,
                Ok(Continuation::Over) | Err(_) => return,
            }
        }
    }

    async fn over_one(&mut self, connection: &Connection) -> Result<Continuation, ZkError> {
        let mut watch: Option<Armed> = None;
        loop {
            if self.pusher.is_closed() {
                return Ok(Continuation::Over);
            }
            self.arm(connection, &mut watch).await?;
            tokio::select! {
                biased;
                () = connection.gone() => return Ok(Continuation::Again),
                () = self.pusher.closed() => return Ok(Continuation::Over),
                () = fired(&mut watch) => watch = None,
                () = sleep(self.client.session_timeout()) => watch = None,
            }
        }
    }

    /// Looks at the queue, tells if others hold the lock than before, and arms the watch. Waiters are of no interest, and do not wake this: where one
    /// alone holds the lock, it is that one's node that is watched, and not the queue.
    async fn arm(&mut self, connection: &Connection, watch: &mut Option<Armed>) -> Result<(), ZkError> {
        let looking = async {
            let zookeeper = connection.zookeeper()?;
            loop {
                let children = match zookeeper.list_children(&self.path).await {
                    Err(ZkError::NoNode) => Vec::new(),
                    children => children?,
                };
                if let Some(holder) = queue::only_holder(&children) {
                    match zookeeper.get_and_watch_data(&format!("{}/{holder}", self.path)).await {
                        Ok((_, _, armed)) => return Ok((children, armed)),
                        Err(ZkError::NoNode) => continue,
                        Err(why) => return Err(why),
                    }
                }
                match zookeeper.list_and_watch_children(&self.path).await {
                    // A request has come meanwhile that is to be watched alone.
                    Ok((children, _)) if queue::only_holder(&children).is_some() => continue,
                    Ok((children, armed)) => return Ok((children, armed)),
                    Err(ZkError::NoNode) => {}
                    Err(why) => return Err(why),
                }
                // There is no queue yet, or none any more.
                let (found, armed) = zookeeper.check_and_watch_stat(&self.path).await?;
                if found.is_none() {
                    return Ok((Vec::new(), armed));
                }
            }
        };
        let (children, oneshot) = connection.ask(looking).await?;
        *watch = Some(armed(oneshot));
        let holders: Vec<String> = queue::holders(&children).iter().map(|entry| entry.name.to_owned()).collect();
        match &self.holders {
            None => self.pusher.push(Pushed::Ready),
            Some(before) if *before != holders => self.pusher.push(Pushed::Dirty),
            Some(_) => {}
        }
        self.holders = Some(holders);
        Ok(())
    }
}

/// The next event, if it is there already.
async fn at_once(connection: &Connection, watch: &mut PersistentWatcher) -> Option<WatchedEvent> {
    // A watch panics when the library's task has ended before it.
    if connection.is_gone() {
        return None;
    }
    tokio::select! {
        biased;
        event = watch.changed() => Some(event),
        () = std::future::ready(()) => None,
    }
}

/// Boxed, so that it can be kept armed from one look to the next.
fn armed(watch: OneshotWatcher) -> Armed {
    Box::pin(async move {
        watch.changed().await;
    })
}

async fn fired(watch: &mut Option<Armed>) {
    match watch {
        Some(watch) => watch.await,
        None => std::future::pending().await,
    }
}
