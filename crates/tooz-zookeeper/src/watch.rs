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
use tooz_core::driver::{Change, LockKey, PushStream, Pushed, Pusher, push_channel};
use tooz_core::{Error, GroupId, MemberId, Result};
use zookeeper_client::{AddWatchMode, Error as Zk, EventType, OneshotWatcher, PersistentWatcher, WatchedEvent};

use crate::connection::Connection;
use crate::group::{read_entries, version};
use crate::layout::name_at;
use crate::session::Inner;
use crate::{error, queue};

/// How long an event may take that the server has counted already: it was sent before the count.
const MOMENT: Duration = Duration::from_secs(1);

/// A watch that is armed.
type Armed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watch of a group.
pub(crate) struct GroupFeed {
    inner: Arc<Inner>,
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
    /// The data of a member's node was changed; `None` where nobody knows whose.
    Renewed(Option<String>),
    /// The group was deleted. It is not counted any more.
    Gone,
}

/// The watch of a lock's holders.
pub(crate) struct LockFeed {
    inner: Arc<Inner>,
    path: String,
    pusher: Pusher,
    holders: Option<Vec<String>>,
}

/// Whether a watch goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Again,
    Over,
}

impl Inner {
    /// The watch of a group, and what to run for it.
    pub(crate) async fn watch_group(self: &Arc<Self>, group: &GroupId) -> Result<(GroupFeed, PushStream)> {
        let path = &self.layout.group(group);
        let found = self.look("watch the group", |client| async move { client.check_stat(path).await }).await?;
        if found.is_none() {
            return Err(Error::no_group(group));
        }
        let (pusher, stream) = push_channel();
        Ok((GroupFeed { inner: Arc::clone(self), path: path.clone(), pusher, counted: None, renewed: None }, stream))
    }

    /// The watch of a lock, and what to run for it.
    pub(crate) fn watch_lock(self: &Arc<Self>, key: &LockKey) -> (LockFeed, PushStream) {
        let (pusher, stream) = push_channel();
        (LockFeed { inner: Arc::clone(self), path: self.layout.queue(key), pusher, holders: None }, stream)
    }
}

impl GroupFeed {
    /// Watches until nobody listens any more, or the group or the session is gone.
    pub(crate) async fn run(mut self) {
        while let Ok(connection) = self.inner.link.up().await {
            match self.over_one(&connection).await {
                Ok(Next::Again) => {}
                Err(why) if error::is_passing(&why) => sleep(Duration::from_millis(20)).await,
                // After an error the stream ends, and core watches anew.
                Ok(Next::Over) | Err(_) => return,
            }
        }
    }

    /// Watches for as long as one connection lasts.
    async fn over_one(&mut self, connection: &Connection) -> Result<Next, Zk> {
        let arming = async {
            let client = connection.client()?;
            client.watch(&self.path, AddWatchMode::PersistentRecursive).await
        };
        let mut watch = connection.ask(arming).await?;
        self.renewed = None;
        let Some(counted) = self.begin(connection, &mut watch).await? else { return Ok(self.gone()) };
        match self.counted.replace(counted) {
            None => self.pusher.push(Pushed::Ready),
            Some(before) if before != counted => self.pusher.push(Pushed::Dirty),
            Some(_) => {}
        }
        let mut patience = self.inner.link.session_timeout();
        loop {
            let first = tokio::select! {
                biased;
                () = connection.gone() => return Ok(Next::Again),
                () = self.pusher.closed() => return Ok(Next::Over),
                event = watch.changed() => Some(event),
                () = sleep(patience) => None,
            };
            let is_timeout = first.is_none();
            let mut happened = Vec::new();
            let mut next = first;
            while let Some(event) = next {
                if event.event_type == EventType::Session {
                    return Ok(Next::Again);
                }
                happened.extend(self.understand(&event));
                next = at_once(connection, &mut watch).await;
            }
            let Some(now) = self.tell(connection, happened).await? else { return Ok(self.gone()) };
            let behind = now.wrapping_sub(self.counted.unwrap_or(now));
            if behind == 0 {
                patience = self.inner.link.session_timeout();
            } else if is_timeout && patience == MOMENT {
                // Whatever is counted has an event, which comes before the count. A watch for which that does not hold is armed anew.
                return Ok(Next::Again);
            } else {
                patience = MOMENT;
            }
        }
    }

    /// The count of changes at a moment from which every event is one change more; `None` where there is no group.
    async fn begin(&self, connection: &Connection, watch: &mut PersistentWatcher) -> Result<Option<u64>, Zk> {
        loop {
            let client = connection.client()?;
            let Some(stat) = connection.ask(client.check_stat(&self.path)).await? else { return Ok(None) };
            // An event that is there by now may have come before or after that answer; nothing tells. Then it is asked again.
            let mut is_quiet = true;
            while let Some(event) = at_once(connection, watch).await {
                if event.event_type == EventType::Session {
                    return Err(Zk::ConnectionLoss);
                }
                is_quiet = false;
            }
            if is_quiet {
                return Ok(Some(version(&stat)));
            }
        }
    }

    /// Tells what happened, and answers how many changes the server counts by now; `None` where there is no group any more.
    async fn tell(&mut self, connection: &Connection, happened: Vec<Happening>) -> Result<Option<u64>, Zk> {
        let nodes: Vec<String> = happened.iter().filter_map(Happening::to_read).cloned().collect();
        let client = connection.client()?;
        let looking = async {
            // Both are asked before either is answered.
            tokio::try_join!(biased; read_entries(&client, &self.path, &nodes), client.check_stat(&self.path))
        };
        let (entries, stat) = connection.ask(looking).await?;
        let mut entries = entries.into_iter();
        for happening in happened {
            let entry = happening.to_read().and_then(|_| entries.next()).flatten();
            let change = match (happening, entry) {
                (Happening::Came(_), Some(Ok(entry))) => Some(Change::Joined(entry)),
                (Happening::Renewed(Some(_)), Some(Ok(entry))) => Some(Change::Updated(entry)),
                (Happening::Went(node), _) => member_at(&node).map(Change::Left),
                (Happening::Gone, _) => return Ok(None),
                // Whoever it was has gone again, or can't be read.
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
        Ok(stat.as_ref().map(version))
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

    fn gone(&self) -> Next {
        self.pusher.push(Pushed::Gone);
        Next::Over
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

impl LockFeed {
    /// Watches until nobody listens any more, or the session is gone.
    pub(crate) async fn run(mut self) {
        while let Ok(connection) = self.inner.link.up().await {
            match self.over_one(&connection).await {
                Ok(Next::Again) => {}
                Err(why) if error::is_passing(&why) => sleep(Duration::from_millis(20)).await,
                Ok(Next::Over) | Err(_) => return,
            }
        }
    }

    async fn over_one(&mut self, connection: &Connection) -> Result<Next, Zk> {
        let mut watch: Option<Armed> = None;
        loop {
            if self.pusher.is_closed() {
                return Ok(Next::Over);
            }
            self.look(connection, &mut watch).await?;
            tokio::select! {
                biased;
                () = connection.gone() => return Ok(Next::Again),
                () = self.pusher.closed() => return Ok(Next::Over),
                () = fired(&mut watch) => watch = None,
                () = sleep(self.inner.link.session_timeout()) => watch = None,
            }
        }
    }

    /// Looks at the queue and tells if others hold the lock than before. Who waits is of no interest, and does not wake this: where one
    /// alone holds the lock, it is that one's node that is watched, and not the queue.
    async fn look(&mut self, connection: &Connection, watch: &mut Option<Armed>) -> Result<(), Zk> {
        let looking = async {
            let client = connection.client()?;
            loop {
                let children = match client.list_children(&self.path).await {
                    Err(Zk::NoNode) => Vec::new(),
                    children => children?,
                };
                if let Some(holder) = queue::only_holder(&children) {
                    match client.get_and_watch_data(&format!("{}/{holder}", self.path)).await {
                        Ok((_, _, armed)) => return Ok((children, armed)),
                        Err(Zk::NoNode) => continue,
                        Err(why) => return Err(why),
                    }
                }
                match client.list_and_watch_children(&self.path).await {
                    // Somebody has come meanwhile who is to be watched alone.
                    Ok((children, _)) if queue::only_holder(&children).is_some() => continue,
                    Ok((children, armed)) => return Ok((children, armed)),
                    Err(Zk::NoNode) => {}
                    Err(why) => return Err(why),
                }
                // There is no queue yet, or none any more.
                let (found, armed) = client.check_and_watch_stat(&self.path).await?;
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

/// Who had that node; `None` where the name was too long for it.
fn member_at(node: &str) -> Option<MemberId> {
    name_at(node).and_then(|name| MemberId::new(name).ok())
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
