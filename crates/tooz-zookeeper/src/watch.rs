//! Watches: one task for each, which arms ZooKeeper's one-shot watches anew after every change and tells what is new.
//!
//! A group is watched for its children, who come and go, and for its data, by which updates are told. What happened is read off
//! the difference of two listings; where its counts say that more happened than the difference shows, core reads everything.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{
    Change, Error, GroupId, LockKey, MemberId, PushStream, Pushed, Pusher, Result, decode_name, push_channel,
};
use zookeeper_client::{Client, Error as Zk, OneshotWatcher, Stat};

use crate::connection::Connection;
use crate::group::{read_entries, version};
use crate::record::{self, GroupRecord};
use crate::session::Inner;
use crate::{error, queue};

/// A watch that is armed.
type Armed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The watch of a group.
pub(crate) struct GroupFeed {
    inner: Arc<Inner>,
    path: String,
    pusher: Pusher,
    known: Option<Known>,
}

/// What a group looked like at the last look.
struct Known {
    nodes: HashSet<String>,
    stat: Stat,
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
        Ok((GroupFeed { inner: Arc::clone(self), path: path.clone(), pusher, known: None }, stream))
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
        let mut children: Option<Armed> = None;
        let mut data: Option<Armed> = None;
        loop {
            if self.pusher.is_closed() {
                return Ok(Next::Over);
            }
            match self.look(connection, &mut children, &mut data).await {
                Err(Zk::NoNode) => {
                    self.pusher.push(Pushed::Gone);
                    return Ok(Next::Over);
                }
                looked => looked?,
            }
            tokio::select! {
                biased;
                () = connection.gone() => return Ok(Next::Again),
                () = self.pusher.closed() => return Ok(Next::Over),
                () = fired(&mut children) => children = None,
                () = fired(&mut data) => data = None,
                // A hint may be lost.
                () = sleep(self.inner.link.session_timeout()) => {}
            }
        }
    }

    /// Arms what is not armed, looks at the group, and tells what is new.
    async fn look(
        &mut self,
        connection: &Connection,
        children: &mut Option<Armed>,
        data: &mut Option<Armed>,
    ) -> Result<(), Zk> {
        let client = connection.client()?;
        let looking = async {
            // Both are asked before either is answered. The data goes first: what the listing shows is not older.
            tokio::try_join!(biased; read(&client, &self.path, data), list(&client, &self.path, children))
        };
        let (record, (nodes, stat)) = connection.ask(looking).await?;
        let nodes: HashSet<String> = nodes.into_iter().collect();
        match &self.known {
            None => self.pusher.push(Pushed::Ready),
            Some(known) => {
                let changes = self.changes(connection, &client, known, &nodes, &stat, &record).await?;
                for pushed in changes.unwrap_or_else(|| vec![Pushed::Dirty]) {
                    self.pusher.push(pushed);
                }
            }
        }
        self.known = Some(Known { nodes, stat });
        Ok(())
    }

    /// What happened between two looks, change by change; `None` where the looks do not show it.
    async fn changes(
        &self,
        connection: &Connection,
        client: &Client,
        known: &Known,
        nodes: &HashSet<String>,
        stat: &Stat,
        record: &[u8],
    ) -> Result<Option<Vec<Pushed>>, Zk> {
        let (before, now) = (version(&known.stat), version(stat));
        if before == now {
            return Ok(Some(Vec::new()));
        }
        let came: Vec<String> = nodes.difference(&known.nodes).cloned().collect();
        let went: Vec<&String> = known.nodes.difference(nodes).collect();
        let updates = stat.version.wrapping_sub(known.stat.version);
        let moves = stat.cversion.wrapping_sub(known.stat.cversion);
        let seen = i32::try_from(came.len() + went.len()).unwrap_or(i32::MAX);
        let plain = stat.czxid == known.stat.czxid && moves == seen;
        let changes = match (came.len(), went.len(), updates) {
            // Those who came did so in the order of their transactions.
            (1.., 0, 0) if plain => {
                let mut entries = Vec::new();
                for read in connection.ask(read_entries(client, &self.path, &came)).await? {
                    let Some((Ok(entry), born)) = read else { return Ok(None) };
                    entries.push((born, entry));
                }
                entries.sort_by_key(|(born, _)| *born);
                entries.into_iter().map(|(_, entry)| Change::Joined(entry)).collect()
            }
            (0, 1, 0) if plain => match member_at(went[0]) {
                Some(member) => vec![Change::Left(member)],
                None => return Ok(None),
            },
            (0, 0, 1) if plain => {
                let Ok(GroupRecord { updated: Some(node), .. }) = record::read("a group", record) else {
                    return Ok(None);
                };
                match connection.ask(read_entries(client, &self.path, &[node])).await?.pop() {
                    Some(Some((Ok(entry), _))) => vec![Change::Updated(entry)],
                    _ => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        let counted = (before..now).zip(changes);
        Ok(Some(
            counted.map(|(after, change)| Pushed::Delta { after: Some(after), version: after + 1, change }).collect(),
        ))
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

    /// Looks at the queue and tells if others hold the lock than before. Who waits is of no interest.
    async fn look(&mut self, connection: &Connection, watch: &mut Option<Armed>) -> Result<(), Zk> {
        let looking = async {
            let client = connection.client()?;
            loop {
                match client.list_and_watch_children(&self.path).await {
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
    decode_name(node).and_then(|name| MemberId::new(name).ok())
}

/// The data of a node, with a watch where none is armed.
async fn read(client: &Client, path: &str, watch: &mut Option<Armed>) -> Result<Vec<u8>, Zk> {
    if watch.is_some() {
        return Ok(client.get_data(path).await?.0);
    }
    let (data, _, oneshot) = client.get_and_watch_data(path).await?;
    *watch = Some(armed(oneshot));
    Ok(data)
}

/// The children of a node, with a watch where none is armed.
async fn list(client: &Client, path: &str, watch: &mut Option<Armed>) -> Result<(Vec<String>, Stat), Zk> {
    if watch.is_some() {
        return client.get_children(path).await;
    }
    let (children, stat, oneshot) = client.get_and_watch_children(path).await?;
    *watch = Some(armed(oneshot));
    Ok((children, stat))
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
