//! Locks: a queue of ephemeral sequential nodes, in which each waits for the one that is in its way and for nobody else.
//!
//! A request's node has the request's id in its name. So a node whose making was not answered is found again, and nobody takes
//! another's node for its own. The token is the transaction that made the node: who conflicts is granted in that order.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{
    Error, ErrorKind, FencingToken, Granted, GroupId, Holder, LockKey, LockName, LockRequest, MemberId, Outcome, Owned,
    RequestId, Result, Space, Wanted, decode_name,
};
use zookeeper_client::{CreateMode, Error as Zk, MultiWriteError, Stat};

use crate::bulk;
use crate::connection::Connection;
use crate::error;
use crate::queue::{self, Turn};
use crate::record::{self, LockRecord};
use crate::session::{Inner, lock};

/// How often a queue is made again that the server took away as empty just before somebody entered it, and the like.
const ATTEMPTS: usize = 5;

/// What is known of a request's node.
#[derive(Clone)]
pub(crate) enum Standing {
    /// It was asked for, and the answer did not come.
    Doubtful,
    /// It is there, or was.
    Placed(Place),
}

/// A place in a queue.
#[derive(Clone)]
pub(crate) struct Place {
    node: String,
    token: FencingToken,
}

/// What one look at the queue came to.
enum Look {
    Granted(Granted),
    Unwanted,
    Again,
}

impl Inner {
    pub(crate) async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let connection = self.link.up_within(self.limit).await?;
        let looked = self.stand(&connection, request).await;
        let (place, children) = looked.map_err(|why| self.unsettled(request, error::of("enter the queue", why)))?;
        match queue::turn(&children, &place.node) {
            Turn::Mine => Ok(Some(Granted::new(place.token))),
            Turn::After(_) | Turn::Absent => {
                self.withdraw(&connection, request).await?;
                Ok(None)
            }
        }
    }

    pub(crate) async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        loop {
            let connection = tokio::select! {
                biased;
                connection = self.link.up() => connection?,
                () = wanted.unwanted() => return match self.standing(request.id) {
                    None => Ok(None),
                    // Its node can't be taken away now. Core withdraws for as long as it takes.
                    Some(_) => Err(error::disconnected(self.limit).with_outcome(Outcome::Unknown)),
                },
            };
            match self.look_and_wait(&connection, request, wanted).await {
                Ok(Look::Granted(granted)) => return Ok(Some(granted)),
                Ok(Look::Unwanted) => return self.withdraw(&connection, request).await.map(|()| None),
                Ok(Look::Again) => {}
                // The place, if there is one, is kept; the next connection finds it.
                Err(why) if error::is_passing(&why) => sleep(Duration::from_millis(20)).await,
                Err(why) => return Err(self.unsettled(request, error::of("wait in the queue", why))),
            }
        }
    }

    /// Looks whether it is this request's turn, and if not, waits until it may be.
    async fn look_and_wait(&self, connection: &Connection, request: &LockRequest, wanted: &Wanted) -> Result<Look, Zk> {
        if !wanted.is_wanted() {
            return Ok(Look::Unwanted);
        }
        let (place, children) = self.stand(connection, request).await?;
        let before = match queue::turn(&children, &place.node) {
            Turn::Mine => return Ok(Look::Granted(Granted::new(place.token))),
            Turn::After(before) => format!("{}/{before}", self.layout.queue(&request.key)),
            Turn::Absent => {
                // Somebody took it away by hand: back to the end, if the next look does not find it after all.
                lock(&self.standings).insert(request.id, Standing::Doubtful);
                return Ok(Look::Again);
            }
        };
        wanted.queued();
        // Data is watched, not existence: a watch for existence on a node that is gone would wait for ever.
        let watching = async { connection.client()?.get_and_watch_data(&before).await };
        let watch = match connection.ask(watching).await {
            Ok((_, _, watch)) => watch,
            Err(Zk::NoNode) => return Ok(Look::Again),
            Err(why) => return Err(why),
        };
        tokio::select! {
            biased;
            () = connection.gone() => Ok(Look::Again),
            () = wanted.unwanted() => Ok(Look::Unwanted),
            _ = watch.changed() => Ok(Look::Again),
            // A hint may be lost.
            () = sleep(self.link.session_timeout()) => Ok(Look::Again),
        }
    }

    /// The place of a request, made if need be, and a view of the queue that is not older than it.
    async fn stand(&self, connection: &Connection, request: &LockRequest) -> Result<(Place, Vec<String>), Zk> {
        let queue = self.layout.queue(&request.key);
        match self.standing(request.id) {
            Some(Standing::Placed(place)) => {
                let listing = async { connection.client()?.list_children(&queue).await };
                match connection.ask(listing).await {
                    // Without a node of ours in it the server took the queue away.
                    Err(Zk::NoNode) => Ok((place, Vec::new())),
                    children => Ok((place, children?)),
                }
            }
            Some(Standing::Doubtful) => match self.find(connection, &queue, request.id).await? {
                Some(found) => Ok(found),
                None => self.enter(connection, &queue, request).await,
            },
            None => self.enter(connection, &queue, request).await,
        }
    }

    /// Makes the node of a request and looks at the queue, in one round trip: a server answers a reading only after the
    /// writing of the same session before it.
    async fn enter(
        &self,
        connection: &Connection,
        queue: &str,
        request: &LockRequest,
    ) -> Result<(Place, Vec<String>), Zk> {
        let prefix = format!("{queue}/{}", queue::prefix(request.id, request.mode));
        let data = serde_json::to_vec(&LockRecord::new(&self.member, &request.key)).unwrap_or_default();
        let options = self.made(CreateMode::EphemeralSequential);
        for _ in 0..ATTEMPTS {
            lock(&self.standings).insert(request.id, Standing::Doubtful);
            let entering = async {
                let client = connection.client()?;
                let created = client.create(&prefix, &data, &options);
                let listed = client.list_children(queue);
                Ok((created.await, listed.await))
            };
            let (created, listed) = connection.ask(entering).await?;
            match created {
                Ok((stat, sequence)) => {
                    let node = format!("{}{sequence}", queue::prefix(request.id, request.mode));
                    let place = self.place(request.id, node, &stat)?;
                    return Ok((place, listed?));
                }
                Err(Zk::NoNode) => {
                    lock(&self.standings).remove(&request.id);
                    // A container, which the server takes away when it has been empty for a while.
                    let making = async { self.make(&connection.client()?, queue, CreateMode::Container).await };
                    connection.ask(making).await?;
                }
                Err(why) => {
                    if !error::is_doubtful(&why) {
                        lock(&self.standings).remove(&request.id);
                    }
                    return Err(why);
                }
            }
        }
        Err(Zk::NoNode)
    }

    /// Finds the node of a request whose making was not answered.
    async fn find(
        &self,
        connection: &Connection,
        queue: &str,
        id: RequestId,
    ) -> Result<Option<(Place, Vec<String>)>, Zk> {
        let finding = async {
            let client = connection.client()?;
            let children = match client.list_children(queue).await {
                Err(Zk::NoNode) => return Ok(None),
                children => children?,
            };
            let Some(node) =
                queue::sorted(&children).iter().find(|entry| entry.id == id).map(|entry| entry.name.to_owned())
            else {
                return Ok(None);
            };
            let stat = client.check_stat(&format!("{queue}/{node}")).await?;
            Ok(stat.map(|stat| (node, stat, children)))
        };
        let Some((node, stat, children)) = connection.ask(finding).await? else { return Ok(None) };
        Ok(Some((self.place(id, node, &stat)?, children)))
    }

    /// Notes a place, if it is this session's: a node lives as long as the session that made it, whoever finds it.
    fn place(&self, id: RequestId, node: String, stat: &Stat) -> Result<Place, Zk> {
        if stat.ephemeral_owner != self.link.session().id().0 {
            return Err(Zk::SessionExpired);
        }
        let token = FencingToken(u64::try_from(stat.czxid).unwrap_or(0));
        let place = Place { node, token };
        lock(&self.standings).insert(id, Standing::Placed(place.clone()));
        Ok(place)
    }

    /// The error of a request that may have a node: whatever the server refused last, the node may stand. Core withdraws it then.
    fn unsettled(&self, request: &LockRequest, error: Error) -> Error {
        let settled = error.kind() == ErrorKind::Lost || self.standing(request.id).is_none();
        if settled { error } else { error.with_outcome(Outcome::Unknown) }
    }

    fn standing(&self, id: RequestId) -> Option<Standing> {
        lock(&self.standings).get(&id).cloned()
    }

    pub(crate) async fn release(&self, request: &LockRequest) -> Result<()> {
        let connection = self.link.up_within(self.limit).await?;
        self.withdraw(&connection, request).await
    }

    /// Takes a request's node away, whatever it stands for. It comes after everything that was sent for the request before.
    async fn withdraw(&self, connection: &Connection, request: &LockRequest) -> Result<()> {
        let queue = self.layout.queue(&request.key);
        let withdrawing = async {
            let client = connection.client()?;
            let nodes = match self.standing(request.id) {
                Some(Standing::Placed(place)) => vec![place.node],
                Some(Standing::Doubtful) | None => match client.list_children(&queue).await {
                    Err(Zk::NoNode) => Vec::new(),
                    children => {
                        let children = children?;
                        let entries = queue::sorted(&children);
                        let own = entries.iter().filter(|entry| entry.id == request.id);
                        own.map(|entry| entry.name.to_owned()).collect()
                    }
                },
            };
            for node in nodes {
                match client.delete(&format!("{queue}/{node}"), None).await {
                    Ok(()) | Err(Zk::NoNode) => {}
                    Err(why) => return Err(why),
                }
            }
            Ok(())
        };
        let withdrawn = connection.ask(withdrawing).await;
        withdrawn.map_err(|why| self.unsettled(request, error::of("leave the queue", why)))?;
        lock(&self.standings).remove(&request.id);
        Ok(())
    }

    pub(crate) async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let mut holders = Vec::new();
        for (node, data, stat) in self.holding(key).await? {
            let Some(entry) = queue::parse(&node) else { continue };
            let record: LockRecord = record::read("the node of a lock", &data)?;
            let token = FencingToken(u64::try_from(stat.czxid).unwrap_or(0));
            holders.push(Holder::new(MemberId::new(record.member)?, entry.mode, token));
        }
        Ok(holders)
    }

    /// The nodes of those who hold the lock.
    async fn holding(&self, key: &LockKey) -> Result<Vec<(String, Vec<u8>, Stat)>> {
        let queue = &self.layout.queue(key);
        self.look("who holds the lock", |client| async move {
            loop {
                // Whatever was done before this call is seen, whichever server it was done at.
                let (synced, listed) = (client.sync(queue), client.list_children(queue));
                synced.await?;
                let children = match listed.await {
                    Err(Zk::NoNode) => return Ok(Vec::new()),
                    children => children?,
                };
                let nodes: Vec<_> = queue::holders(&children).iter().map(|entry| entry.name.to_owned()).collect();
                let contents = bulk::read(&client, queue, &nodes).await?;
                let found: Vec<_> = nodes
                    .into_iter()
                    .zip(contents)
                    .filter_map(|(node, content)| content.map(|(data, stat)| (node, data, stat)))
                    .collect();
                // When all have gone meanwhile, the lock is the next ones' by now.
                if !found.is_empty() || children.is_empty() || queue::holders(&children).is_empty() {
                    return Ok(found);
                }
            }
        })
        .await
    }

    pub(crate) async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("no grant with token {token} is there any more; it was not touched"),
            )
        };
        let failed = |why| error::of("break the lock", why);
        for _ in 0..ATTEMPTS {
            let holding = self.holding(key).await?;
            let found = holding.into_iter().find(|(_, _, stat)| u64::try_from(stat.czxid) == Ok(token.0));
            let Some((node, _, stat)) = found else { return Err(missing()) };
            let Some(entry) = queue::parse(&node) else { return Err(missing()) };
            let (path, id) = (format!("{}/{node}", self.layout.queue(key)), entry.id);
            let connection = self.link.up_within(self.limit).await?;
            let reading = async { self.mailbox_of(&connection.client()?, stat.ephemeral_owner).await };
            let mailbox = connection.ask(reading).await.map_err(failed)?;
            let mail = match mailbox {
                Some(mailbox) => Some((mailbox.path.clone(), mailbox.version, mailbox.with_lock(id)?)),
                None => None,
            };
            let breaking = async {
                let client = connection.client()?;
                let mut transaction = client.new_multi_writer();
                // The name is that of one request for ever: what is deleted is that very grant.
                transaction.add_delete(&path, None)?;
                if let Some((path, version, mail)) = &mail {
                    transaction.add_set_data(path, mail, Some(*version))?;
                }
                Ok(transaction.commit().await)
            };
            match connection.ask(breaking).await.map_err(failed)? {
                Ok(_) => return Ok(()),
                Err(MultiWriteError::OperationFailed { index: 0, source: Zk::NoNode }) => return Err(missing()),
                // Other mail came, or the holder's session ends just now.
                Err(MultiWriteError::OperationFailed { source: Zk::BadVersion | Zk::NoNode, .. }) => {}
                Err(why) => return Err(failed(why.into())),
            }
        }
        Err(failed(Zk::BadVersion))
    }

    /// What the ensemble has of this session in all queues.
    pub(crate) async fn owned(&self) -> Result<Owned> {
        let root = self.layout.root();
        let paths =
            self.look("list what this session owns", |client| async move { client.list_ephemerals(root).await });
        let mut locks = Vec::new();
        for path in paths.await? {
            let Some((space, encoded, id)) = self.layout.parse_request(&path) else { continue };
            let name = match decode_name(encoded) {
                Some(name) => name,
                None => match self.full_name(&path).await? {
                    Some(name) => name,
                    None => continue,
                },
            };
            let key = match space {
                Space::Lock => LockKey::lock(&LockName::new(name)?),
                Space::Election => LockKey::election(&GroupId::new(name)?),
            };
            locks.push((key, id));
        }
        Ok(Owned::new(locks))
    }

    /// The name of a lock that was too long for its container.
    async fn full_name(&self, path: &str) -> Result<Option<String>> {
        let data = self.look("read a lock's name", |client| async move {
            match client.get_data(path).await {
                Ok((data, _)) => Ok(Some(data)),
                Err(Zk::NoNode) => Ok(None),
                Err(why) => Err(why),
            }
        });
        match data.await? {
            Some(data) => Ok(Some(record::read::<LockRecord>("the node of a lock", &data)?.name)),
            None => Ok(None),
        }
    }
}
