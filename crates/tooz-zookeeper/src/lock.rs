//! Locks: a queue of ephemeral sequential nodes for each, in which each request waits for the one that is in its way and for no other.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use tooz_core::driver::{Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted, async_trait, push_channel};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, MemberId, Outcome, Result, Waiter};
use zookeeper_client::{Client as ZooKeeper, Error as ZkError, MultiWriteError, Stat};

use crate::batch;
use crate::connection::Connection;
use crate::error;
use crate::gates::RequestKind;
use crate::holdings::NodeState;
use crate::layout;
use crate::mailbox::Mail;
use crate::queue::{self, Position};
use crate::record::{self, LockRecord};
use crate::requests::WithdrawalEnd;
use crate::session::ZooKeeperSession;
use crate::watch::LockWatch;

/// How often a name is looked for again that went with its request.
const ATTEMPTS: usize = 5;
/// So many queues are read at once, and then other requests of the session have their turn.
const AT_ONCE: usize = 1000;

/// What one turn of waiting came to.
enum TurnEnd {
    Granted(Granted),
    Unwanted,
    Again,
}

/// The node of a request as others see it.
struct QueueNode {
    name: String,
    data: Vec<u8>,
    stat: Stat,
}

#[async_trait]
impl Locks for ZooKeeperSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let _turn = self.gates.pass(RequestKind::Enter).await;
        let connection = self.client.connection().await?;
        self.requests.reserve(request)?;
        let mut entered = self.requests.enter(&connection, request).await;
        if matches!(entered, Err(ZkError::NoNode)) {
            self.requests.settle(&connection, request).await?;
            entered = self.requests.enter(&connection, request).await;
        }
        let failed = |why| self.requests.unsettled(request, self.client.failed("enter the queue", why));
        let (node, children) = entered.map_err(failed)?;
        match queue::position(&children, &node.name) {
            Position::Mine => Ok(Some(self.requests.granted(request, &node))),
            Position::After(_) | Position::Absent => {
                self.requests.withdraw(&connection, request).await?;
                Ok(None)
            }
        }
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.requests.reserve(request)?;
        loop {
            let connection = tokio::select! {
                biased;
                connection = self.client.up() => connection.map_err(|why| self.requests.unsettled(request, why))?,
                () = wanted.unwanted() => {
                    // If it may have a node, that can't be taken away now. Core withdraws for as long as it takes.
                    let error = self.requests.unsettled(request, self.client.disconnected(self.client.limit()));
                    return if error.outcome() == Outcome::Unknown { Err(error) } else { Ok(None) };
                }
            };
            match self.wait_once(&connection, request, wanted).await {
                Ok(TurnEnd::Granted(granted)) => return Ok(Some(granted)),
                Ok(TurnEnd::Unwanted) => {
                    let _turn = self.gates.pass(RequestKind::Leave).await;
                    return self.requests.withdraw(&connection, request).await.map(|_| None);
                }
                Ok(TurnEnd::Again) => {}
                Err(ZkError::NoNode) => self.requests.settle(&connection, request).await?,
                // The place, if there is one, is kept; the next connection finds it.
                Err(why) if error::is_passing(&why) => {
                    wanted.trouble(&error::of("wait in the queue", why));
                    sleep(Duration::from_millis(20)).await;
                }
                Err(why) => {
                    return Err(self.requests.unsettled(request, self.client.failed("wait in the queue", why)));
                }
            }
        }
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let _turn = self.gates.pass(RequestKind::Leave).await;
        let connection = self.client.connection().await?;
        match self.requests.withdraw(&connection, request).await? {
            WithdrawalEnd::Ended => Ok(()),
            WithdrawalEnd::GoneBefore => Err(error::gone_before(&request.key)),
        }
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        let mut holders = Vec::new();
        for seen in self.holding(key).await? {
            let Some(entry) = queue::parse(&seen.name) else { continue };
            holders.push(Holder::new(seen.member()?, entry.mode, seen.token()));
        }
        Ok(holders)
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let missing = || {
            Error::new(
                ErrorKind::NotFound,
                format!("no grant with token {token} is there any more; it was not touched"),
            )
        };
        let failed = |why| self.client.failed("break the lock", why);
        let (mut tries, mut turn) = (self.client.tries(), None);
        let _turn = self.gates.pass(RequestKind::Break).await;
        while tries.next().await {
            let found = self.holding(key).await?.into_iter().find(|seen| u64::try_from(seen.stat.czxid) == Ok(token.0));
            let Some(QueueNode { name, stat, .. }) = found else { return Err(missing()) };
            let Some(entry) = queue::parse(&name) else { return Err(missing()) };
            let (path, id) = (format!("{}/{name}", self.layout.queue(key)), entry.id);
            let connection = self.client.connection().await?;
            let mailbox = self.layout.mailbox(stat.ephemeral_owner);
            let reading = async { Mail::read(&connection.zookeeper()?, mailbox).await };
            let letter = match connection.ask(reading).await.map_err(failed)? {
                Some(mail) => Some((mail.path.clone(), mail.version, mail.with_lock(id)?)),
                None => None,
            };
            let breaking = async {
                let zookeeper = connection.zookeeper()?;
                let mut transaction = zookeeper.new_multi_writer();
                // The name is that of one request for ever: what is deleted is that very grant.
                transaction.add_delete(&path, None)?;
                if let Some((path, version, mail)) = &letter {
                    transaction.add_set_data(path, mail, Some(*version))?;
                }
                Ok(transaction.commit().await)
            };
            match connection.ask_to_change(breaking).await.map_err(failed)? {
                Ok(_) => return Ok(()),
                Err(MultiWriteError::OperationFailed { index: 0, source: ZkError::NoNode }) => return Err(missing()),
                // Other mail came, or the holder's session ends just now.
                Err(MultiWriteError::OperationFailed { source: ZkError::BadVersion | ZkError::NoNode, .. }) => {}
                Err(why) => return Err(failed(why.into())),
            }
            if turn.is_none() {
                turn = tries.wait_for(self.gates.pass_to_mailbox(stat.ephemeral_owner)).await.flatten();
            }
        }
        Err(failed(ZkError::BadVersion))
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        self.tree.agree().await?;
        let (pusher, stream) = push_channel();
        self.spawn(LockWatch::new(&self.client, self.layout.queue(key), pusher).run());
        Ok(Some(stream))
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        self.tree.agree().await?;
        let mut keys = Vec::new();
        for space in [Space::Lock, Space::Election] {
            let branch = &self.layout.space(space);
            let listing =
                self.client.ask("list the queues", |zookeeper| async move { children(&zookeeper, branch).await });
            for some in listing.await?.chunks(AT_ONCE) {
                let names = self.names_in_use(branch, some.to_vec()).await?;
                keys.extend(names.into_iter().filter_map(|name| layout::key_of(space, name)));
            }
        }
        Ok(keys)
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let _turn = self.gates.pass(RequestKind::Others).await;
        self.tree.agree().await?;
        let queue = &self.layout.queue(key);
        let waiting = self.client.ask("read the queue", |zookeeper| async move {
            let children = children(&zookeeper, queue).await?;
            let names = queue::waiters(&children).iter().map(|entry| entry.name.to_owned()).collect();
            seen(&zookeeper, queue, names).await
        });
        let mut waiters = Vec::new();
        for seen in waiting.await? {
            let Some(entry) = queue::parse(&seen.name) else { continue };
            let waiter = Waiter::new(seen.member()?, entry.mode);
            waiters.push(seen.made().map_or(waiter.clone(), |since| waiter.since(since)));
        }
        Ok(waiters)
    }
}

impl ZooKeeperSession {
    /// Looks whether it is this request's turn, and if not, waits until it may be.
    async fn wait_once(
        &self,
        connection: &Connection,
        request: &LockRequest,
        wanted: &Wanted,
    ) -> Result<TurnEnd, ZkError> {
        if !wanted.is_wanted() {
            return Ok(TurnEnd::Unwanted);
        }
        let turn = tokio::select! {
            biased;
            turn = self.gates.pass(RequestKind::Enter) => turn,
            () = wanted.unwanted() => return Ok(TurnEnd::Unwanted),
        };
        let (node, children) = self.requests.enter(connection, request).await?;
        let before = match queue::position(&children, &node.name) {
            Position::Mine => return Ok(TurnEnd::Granted(self.requests.granted(request, &node))),
            Position::After(before) => format!("{}/{before}", self.layout.queue(&request.key)),
            Position::Absent => {
                // It was taken away by hand: back to the end, if the next look does not find it after all.
                self.holdings.note(request.id, NodeState::Doubtful);
                return Ok(TurnEnd::Again);
            }
        };
        wanted.queued();
        // Data is watched, not existence: a watch for existence on a node that is gone would wait for ever.
        let watching = async { connection.zookeeper()?.get_and_watch_data(&before).await };
        let watch = match connection.ask(watching).await {
            Ok((_, _, watch)) => watch,
            Err(ZkError::NoNode) => return Ok(TurnEnd::Again),
            Err(why) => return Err(why),
        };
        drop(turn);
        tokio::select! {
            biased;
            () = connection.gone() => Ok(TurnEnd::Again),
            () = wanted.unwanted() => Ok(TurnEnd::Unwanted),
            _ = watch.changed() => Ok(TurnEnd::Again),
            // A hint may be lost.
            () = sleep(self.client.session_timeout()) => Ok(TurnEnd::Again),
        }
    }

    /// The nodes of the requests that hold the lock.
    async fn holding(&self, key: &LockKey) -> Result<Vec<QueueNode>> {
        self.tree.agree().await?;
        let queue = &self.layout.queue(key);
        let holding = self.client.ask("who holds the lock", |zookeeper| async move {
            loop {
                let children = children(&zookeeper, queue).await?;
                let names: Vec<_> = queue::holders(&children).iter().map(|entry| entry.name.to_owned()).collect();
                let is_free = names.is_empty();
                let found = seen(&zookeeper, queue, names).await?;
                // When all have gone meanwhile, the lock is the next ones' by now.
                if is_free || !found.is_empty() {
                    return Ok(found);
                }
            }
        });
        holding.await
    }

    /// The names of those locks that are in use, of some queues of a branch. Each question has a limit of its own.
    async fn names_in_use(&self, branch: &str, mut queues: Vec<String>) -> Result<Vec<String>> {
        let read = async |nodes: &[String]| {
            self.client
                .ask("read the queues", |zookeeper| async move { batch::read(&zookeeper, branch, nodes).await })
                .await
        };
        let mut names = Vec::new();
        for attempt in 0..ATTEMPTS {
            // Many may be empty, of locks that were given back: the server clears them away within a minute.
            let counts = read(&queues).await?.into_iter().map(|content| {
                let count = content.map_or(0, |(_, stat)| stat.num_children);
                usize::try_from(count).unwrap_or(0)
            });
            let full = &queues.into_iter().zip(counts).filter(|(_, count)| *count > 0).collect::<Vec<_>>();
            let listing = self
                .client
                .ask("list the queues", |zookeeper| async move { batch::list(&zookeeper, branch, full).await });
            let mut hashed = Vec::new();
            for ((queue, _), children) in full.iter().zip(listing.await?) {
                let requests = queue::sorted(&children);
                // The name of one that stands there as a hash is known by each of its requests, if that can be read: another each time.
                let Some(request) = requests.get(attempt).or(requests.last()) else { continue };
                match layout::name_at(queue) {
                    Some(name) => names.push(name),
                    None => hashed.push((queue.clone(), format!("{queue}/{}", request.name))),
                }
            }
            let requests: Vec<_> = hashed.iter().map(|(_, request)| request.clone()).collect();
            queues = Vec::new();
            for ((queue, _), content) in hashed.into_iter().zip(read(&requests).await?) {
                let record = content.and_then(|(data, _)| record::read::<LockRecord>("the node of a lock", &data).ok());
                match record.filter(|record| layout::stands_at(&record.name, &queue)) {
                    Some(record) => names.push(record.name),
                    None => queues.push(queue),
                }
            }
            if queues.is_empty() {
                break;
            }
        }
        Ok(names)
    }
}

impl QueueNode {
    /// Whose request it is. Unreadable ones stand in others' way too, and can be told of and broken.
    fn member(&self) -> Result<MemberId> {
        let record = record::read::<LockRecord>("the node of a lock", &self.data);
        match record.and_then(|record| MemberId::new(record.member)) {
            Ok(member) => Ok(member),
            Err(_) => MemberId::new(format!("unreadable-of-session-{:x}", self.stat.ephemeral_owner)),
        }
    }

    fn token(&self) -> FencingToken {
        FencingToken(u64::try_from(self.stat.czxid).unwrap_or(0))
    }

    /// When the request came, by the server's clock.
    fn made(&self) -> Option<SystemTime> {
        let since_epoch = u64::try_from(self.stat.ctime).ok().map(Duration::from_millis)?;
        SystemTime::UNIX_EPOCH.checked_add(since_epoch)
    }
}

/// The children of a node, none where there is no such node. What was done before this call is seen, whichever server it was done at.
async fn children(zookeeper: &ZooKeeper, path: &str) -> Result<Vec<String>, ZkError> {
    let (synced, listed) = (zookeeper.sync(path), zookeeper.list_children(path));
    synced.await?;
    match listed.await {
        Err(ZkError::NoNode) => Ok(Vec::new()),
        children => children,
    }
}

/// Reads requests of a queue; without those that are gone.
async fn seen(zookeeper: &ZooKeeper, queue: &str, names: Vec<String>) -> Result<Vec<QueueNode>, ZkError> {
    let contents = batch::read(zookeeper, queue, &names).await?;
    let there = names.into_iter().zip(contents);
    Ok(there.filter_map(|(name, content)| content.map(|(data, stat)| QueueNode { name, data, stat })).collect())
}
