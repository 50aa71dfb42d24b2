//! Locks: a queue of ephemeral sequential nodes, in which each waits for the one that is in its way and for nobody else.
//!
//! A request's node has the request's id in its name. So a node whose making was not answered is found again, and nobody takes
//! another's node for its own. The token is the transaction that made the node: who conflicts is granted in that order.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Granted, LockKey, LockRequest, Owned, RequestId, Space, Wanted};
use tooz_core::{Error, ErrorKind, FencingToken, GroupId, Holder, LockName, MemberId, Outcome, Result};
use zookeeper_client::{CreateMode, Error as Zk, MultiWriteError, Stat};

use crate::bulk;
use crate::connection::Connection;
use crate::error;
use crate::gates::Gate;
use crate::holdings::{Leaving, Place, Standing};
use crate::layout;
use crate::queue::{self, Turn};
use crate::record::{self, LockRecord};
use crate::session::Inner;

/// How often a queue is made again that the server took away as empty just before somebody entered it, and the like.
const ATTEMPTS: usize = 5;

/// What taking a request's node away came to.
enum Withdrawn {
    Ended,
    /// It was held, and somebody else had taken its node away before.
    GoneBefore,
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
        self.reserve(request)?;
        let mut looked = self.stand(&connection, request).await;
        if matches!(looked, Err(Zk::NoNode)) {
            self.settle_for(&connection, request).await?;
            looked = self.stand(&connection, request).await;
        }
        let (place, children) = looked.map_err(|why| self.unsettled(request, self.failed("enter the queue", why)))?;
        match queue::turn(&children, &place.node) {
            Turn::Mine => Ok(Some(self.granted(request, &place))),
            Turn::After(_) | Turn::Absent => {
                self.withdraw(&connection, request).await?;
                Ok(None)
            }
        }
    }

    pub(crate) async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.reserve(request)?;
        loop {
            let connection = tokio::select! {
                biased;
                connection = self.link.up() => connection.map_err(|why| self.unsettled(request, why))?,
                () = wanted.unwanted() => {
                    // If it may have a node, that can't be taken away now. Core withdraws for as long as it takes.
                    let error = self.unsettled(request, self.link.disconnected(self.limit));
                    return if error.outcome() == Outcome::Unknown { Err(error) } else { Ok(None) };
                }
            };
            match self.look_and_wait(&connection, request, wanted).await {
                Ok(Look::Granted(granted)) => return Ok(Some(granted)),
                Ok(Look::Unwanted) => {
                    let _turn = self.gates.pass(Gate::Leave).await;
                    return self.withdraw(&connection, request).await.map(|_| None);
                }
                Ok(Look::Again) => {}
                Err(Zk::NoNode) => self.settle_for(&connection, request).await?,
                // The place, if there is one, is kept; the next connection finds it.
                Err(why) if error::is_passing(&why) => {
                    wanted.trouble(&error::of("wait in the queue", why));
                    sleep(Duration::from_millis(20)).await;
                }
                Err(why) => return Err(self.unsettled(request, self.failed("wait in the queue", why))),
            }
        }
    }

    /// Looks whether it is this request's turn, and if not, waits until it may be.
    async fn look_and_wait(&self, connection: &Connection, request: &LockRequest, wanted: &Wanted) -> Result<Look, Zk> {
        if !wanted.is_wanted() {
            return Ok(Look::Unwanted);
        }
        let turn = tokio::select! {
            biased;
            turn = self.gates.pass(Gate::Enter) => turn,
            () = wanted.unwanted() => return Ok(Look::Unwanted),
        };
        let (place, children) = self.stand(connection, request).await?;
        let before = match queue::turn(&children, &place.node) {
            Turn::Mine => return Ok(Look::Granted(self.granted(request, &place))),
            Turn::After(before) => format!("{}/{before}", self.layout.queue(&request.key)),
            Turn::Absent => {
                // Somebody took it away by hand: back to the end, if the next look does not find it after all.
                self.holdings.stands(request.id, Standing::Doubtful);
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
        drop(turn);
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
        match self.holdings.standing(request.id) {
            Standing::Placed(place) => {
                let listing = async { connection.client()?.list_children(&queue).await };
                match connection.ask(listing).await {
                    // Without a node of ours in it the server took the queue away.
                    Err(Zk::NoNode) => Ok((place, Vec::new())),
                    children => Ok((place, children?)),
                }
            }
            Standing::Doubtful => match self.find(connection, &queue, request.id).await? {
                Some(found) => Ok(found),
                None => self.enter(connection, &queue, request).await,
            },
            Standing::Unasked => self.enter(connection, &queue, request).await,
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
            self.holdings.stands(request.id, Standing::Doubtful);
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
                    self.holdings.stands(request.id, Standing::Unasked);
                    // A container, which the server takes away when it has been empty for a while.
                    let making = async { self.make(&connection.client()?, queue, CreateMode::Container).await };
                    connection.ask(making).await?;
                }
                Err(why) => {
                    if !error::is_doubtful(&why) {
                        self.holdings.stands(request.id, Standing::Unasked);
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
        self.holdings.stands(id, Standing::Placed(place.clone()));
        Ok(place)
    }

    /// Sees to the namespace, which somebody has deleted by hand.
    async fn settle_for(&self, connection: &Connection, request: &LockRequest) -> Result<()> {
        self.settle(connection).await.map_err(|why| self.unsettled(request, why))?;
        // Whoever deletes it again and again is not answered as fast as it goes.
        sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    /// Counts the node that the request is going to have, or says that the session has too many.
    fn reserve(&self, request: &LockRequest) -> Result<()> {
        self.holdings.enter(request, || self.layout.weight_of_request(&request.key))
    }

    fn granted(&self, request: &LockRequest, place: &Place) -> Granted {
        self.holdings.granted(request.id);
        Granted::new(place.token)
    }

    /// The error of a request that may have a node: whatever the server refused last, the node may stand. Core withdraws it then.
    fn unsettled(&self, request: &LockRequest, error: Error) -> Error {
        let is_unasked = matches!(self.holdings.standing(request.id), Standing::Unasked);
        if is_unasked {
            self.holdings.forget(request.id);
        }
        match error.kind() {
            ErrorKind::Lost => error,
            _ if is_unasked => error.with_outcome(Outcome::NotApplied),
            _ => error.with_outcome(Outcome::Unknown),
        }
    }

    pub(crate) async fn release(&self, request: &LockRequest) -> Result<()> {
        let connection = self.link.up_within(self.limit).await?;
        match self.withdraw(&connection, request).await? {
            Withdrawn::Ended => Ok(()),
            Withdrawn::GoneBefore => Err(error::gone_before(&request.key)),
        }
    }

    /// Takes a request's node away, whatever it stands for. It comes after everything that was sent for the request before.
    async fn withdraw(&self, connection: &Connection, request: &LockRequest) -> Result<Withdrawn> {
        let queue = self.layout.queue(&request.key);
        let Leaving { standing, is_first } = self.holdings.leave(request.id);
        let withdrawing = async {
            let client = connection.client()?;
            let nodes = match standing {
                Standing::Unasked => Vec::new(),
                Standing::Placed(place) => vec![place.node],
                Standing::Doubtful => match client.list_children(&queue).await {
                    Err(Zk::NoNode) => Vec::new(),
                    children => {
                        let children = children?;
                        let entries = queue::sorted(&children);
                        let own = entries.iter().filter(|entry| entry.id == request.id);
                        own.map(|entry| entry.name.to_owned()).collect()
                    }
                },
            };
            let mut withdrawn = Withdrawn::GoneBefore;
            for node in nodes {
                match client.delete(&format!("{queue}/{node}"), None).await {
                    Ok(()) => withdrawn = Withdrawn::Ended,
                    Err(Zk::NoNode) => {}
                    Err(why) => return Err(why),
                }
            }
            Ok(withdrawn)
        };
        let withdrawn = connection.ask(withdrawing).await;
        let withdrawn = withdrawn.map_err(|why| match self.failed("leave the queue", why) {
            error if error.kind() == ErrorKind::Lost => error,
            error => error.with_outcome(Outcome::Unknown),
        })?;
        self.holdings.forget(request.id);
        // Only the first one knows: what a later one does not find may have been taken away by an earlier one that was not answered.
        Ok(if is_first { withdrawn } else { Withdrawn::Ended })
    }

    pub(crate) async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let mut holders = Vec::new();
        for (node, data, stat) in self.holding(key).await? {
            let Some(entry) = queue::parse(&node) else { continue };
            // Whoever wrote it stands in everybody's way, and can be told of and broken.
            let record = record::read::<LockRecord>("the node of a lock", &data);
            let member = record.and_then(|record| MemberId::new(record.member));
            let member = match member {
                Ok(member) => member,
                Err(_) => MemberId::new(format!("unreadable-of-session-{:x}", stat.ephemeral_owner))?,
            };
            let token = FencingToken(u64::try_from(stat.czxid).unwrap_or(0));
            holders.push(Holder::new(member, entry.mode, token));
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
        let failed = |why| self.failed("break the lock", why);
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
            match connection.ask_to_change(breaking).await.map_err(failed)? {
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
        let paths = self.ephemerals().await?;
        let (mut locks, mut strange) = (Vec::new(), Vec::new());
        for path in &paths {
            let Some((space, node, id)) = self.layout.parse_request(path) else { continue };
            // The full name of one that stands there as a hash is known here, but for requests that were given up.
            match self.holdings.key(id).or_else(|| key(space, layout::name_at(node)?)) {
                Some(key) => locks.push((key, id)),
                None => strange.push((space, id, path.clone())),
            }
        }
        let nodes = &strange.iter().map(|(_, _, path)| path.clone()).collect::<Vec<_>>();
        let contents =
            self.look("read the names of locks", |client| async move { bulk::read_all(&client, nodes).await });
        for ((space, id, _), content) in strange.iter().zip(contents.await?) {
            let record = content.and_then(|(data, _)| record::read::<LockRecord>("the node of a lock", &data).ok());
            locks.extend(record.and_then(|record| key(*space, record.name)).map(|key| (key, *id)));
        }
        Ok(Owned::new(locks))
    }

    /// The paths of all nodes of this session in the namespace.
    pub(crate) async fn ephemerals(&self) -> Result<Vec<String>> {
        let root = self.layout.root();
        self.look("list what this session owns", |client| async move { client.list_ephemerals(root).await }).await
    }
}

/// The lock of that name; `None` where no lock can have it.
fn key(space: Space, name: String) -> Option<LockKey> {
    match space {
        Space::Lock => LockName::new(name).ok().map(|name| LockKey::lock(&name)),
        Space::Election => GroupId::new(name).ok().map(|group| LockKey::election(&group)),
    }
}
