//! One connection after another: requests go over that of the moment, and are repeated on the next one where they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tooz_core::driver::{ConnectArgs, Mutex, MutexGuard, Reporter};
use tooz_core::{Error, ErrorKind, MemberId, Namespace, Outcome, Result};

use crate::connection::Connection;
use crate::error::{no_turn, not_connected};
use crate::holdings::Holdings;
use crate::journal::SessionId;
use crate::layout::Layout;
use crate::options::Settings;
use crate::reply::{Batch, Reply, Version};
use crate::server::Server;
use crate::server_clock::ServerClock;

/// How many requests are under way at once, besides heartbeats, which have a connection of their own, and as many that give back.
const UNDER_WAY: usize = 128;

/// Where one session's requests go.
pub(crate) struct Client {
    pub(crate) settings: Settings,
    pub(crate) namespace: Namespace,
    pub(crate) member: MemberId,
    pub(crate) reporter: Reporter,
    /// How long one request may take.
    pub(crate) limit: Duration,
    pub(crate) connect_limit: Duration,
    /// The session's.
    pub(crate) timeout: Duration,
    pub(crate) layout: Layout,
    pub(crate) session: SessionId,
    /// Where the session stands.
    pub(crate) session_key: String,
    pub(crate) holdings: Holdings,
    /// Taken in turn by what ends a membership and what lets it stand again.
    pub(crate) memberships: tokio::sync::Mutex<()>,
    pub(crate) clock: ServerClock,
    /// The connection, while there is one.
    connection: watch::Sender<Option<Arc<Connection>>>,
    /// What the server of the last connection says of itself.
    server: Mutex<Server>,
    /// Why there is no connection, as the last attempt to connect has found out.
    trouble: Mutex<Option<String>>,
    wishes: Semaphore,
    /// Apart from wishes: neither is in the way of the other.
    duties: Semaphore,
    /// Whether there is a session at the server.
    is_open: AtomicBool,
    /// Whether the server may be full, and evicts nothing.
    is_tight: AtomicBool,
    /// When that was last seen.
    looked: Mutex<Option<Instant>>,
    /// Whether connections to one address have led to several servers.
    has_met_several: AtomicBool,
    /// What was seen of the list of groups.
    pub(crate) list: Mutex<SeenList>,
    /// Set when every wait is to end.
    ended: watch::Sender<bool>,
}

/// What a session has seen of the list of groups.
#[derive(Clone, Copy, Default)]
pub(crate) struct SeenList {
    pub(crate) version: Version,
    /// When it may be read again.
    pub(crate) due: Option<Instant>,
}

/// What was answered.
pub(crate) struct Replies {
    left: std::vec::IntoIter<Reply>,
    /// The connection by which it was.
    pub(crate) epoch: u64,
    /// Whether an earlier attempt may have been done, and may yet be.
    pub(crate) in_doubt: bool,
}

/// Which requests wait for one another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What wants something.
    Wish,
    /// What gives back.
    Duty,
}

impl Replies {
    /// The answer to the next command.
    pub(crate) fn next(&mut self) -> Reply {
        self.left.next().unwrap_or(Reply::Missing)
    }

    /// Those that are left.
    pub(crate) fn rest(self) -> impl Iterator<Item = Reply> {
        self.left
    }
}

impl Client {
    /// A client without a connection yet.
    pub(crate) fn new(args: &ConnectArgs) -> Result<Self> {
        let layout = Layout::of(&args.namespace);
        let session = SessionId(fastrand::u64(..));
        Ok(Client {
            settings: Settings::read(args)?,
            namespace: args.namespace.clone(),
            member: args.member.clone(),
            reporter: args.reporter.clone(),
            limit: args.statement_timeout(),
            connect_limit: args.connect_timeout,
            timeout: args.session_timeout,
            session_key: layout.session(session),
            layout,
            session,
            holdings: Holdings::new(args.reporter.clone()),
            memberships: tokio::sync::Mutex::default(),
            clock: ServerClock::new(),
            connection: watch::Sender::new(None),
            server: Mutex::default(),
            trouble: Mutex::default(),
            wishes: Semaphore::new(UNDER_WAY),
            duties: Semaphore::new(UNDER_WAY),
            is_open: AtomicBool::new(false),
            is_tight: AtomicBool::new(false),
            looked: Mutex::default(),
            has_met_several: AtomicBool::new(false),
            list: Mutex::default(),
            ended: watch::Sender::new(false),
        })
    }

    /// Asks. A request whose answer was lost with its connection is repeated on the next one, if that is in time.
    pub(crate) async fn run(&self, batch: Batch, lane: Lane) -> Result<Replies> {
        let deadline = Instant::now() + self.limit;
        let _turn = self.turn(lane, deadline).await?;
        let mut before: Option<Error> = None;
        loop {
            let connection = match self.connection_until(deadline).await {
                Ok(connection) => connection,
                // What the last attempt has met says more, and may have been done.
                Err(error) => return Err(before.unwrap_or(error)),
            };
            let in_doubt = before.as_ref().is_some_and(|before| before.outcome() != Outcome::NotApplied);
            let mut failed = match connection.run(&batch, deadline).await {
                Ok(replies) => return Ok(Replies { left: replies.into_iter(), epoch: connection.epoch, in_doubt }),
                Err(error) => error,
            };
            if in_doubt {
                failed = failed.with_outcome(Outcome::Unknown);
            }
            if failed.kind() != ErrorKind::Unavailable {
                return Err(failed);
            }
            before = Some(failed);
        }
    }

    /// Asks on the connection with that number and on no other; `None`: it is over, and nothing was sent.
    ///
    /// A server that was restarted counts the versions of values from the beginning, so that on another connection the same number may be that of a stranger's value.
    pub(crate) async fn run_on(&self, epoch: u64, batch: Batch, lane: Lane) -> Result<Option<Replies>> {
        let deadline = Instant::now() + self.limit;
        let _turn = self.turn(lane, deadline).await?;
        let connection = self.connection.borrow().as_ref().map(Arc::clone);
        let Some(connection) = connection.filter(|connection| connection.epoch == epoch) else { return Ok(None) };
        match connection.run(&batch, deadline).await {
            Ok(replies) => Ok(Some(Replies { left: replies.into_iter(), epoch, in_doubt: false })),
            Err(error) if error.outcome() == Outcome::NotApplied => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn turn(&self, lane: Lane, deadline: Instant) -> Result<SemaphorePermit<'_>> {
        let turns = match lane {
            Lane::Wish => &self.wishes,
            Lane::Duty => &self.duties,
        };
        let turn = timeout_at(deadline, turns.acquire()).await;
        turn.ok().and_then(std::result::Result::ok).ok_or_else(|| no_turn(UNDER_WAY))
    }

    /// The connection of the moment, or the next one.
    pub(crate) async fn connection_until(&self, deadline: Instant) -> Result<Arc<Connection>> {
        if let Some(connection) = self.connection.borrow().as_ref().filter(|connection| !connection.has_ended()) {
            return Ok(Arc::clone(connection));
        }
        let mut connections = self.connection.subscribe();
        let lives = |now: &Option<Arc<Connection>>| now.as_ref().is_some_and(|connection| !connection.has_ended());
        let found = timeout_at(deadline, connections.wait_for(lives)).await;
        let found = found.ok().and_then(std::result::Result::ok).and_then(|found| (*found).clone());
        found.ok_or_else(|| not_connected(self.trouble.lock().as_deref()))
    }

    /// From now on requests go there; `None`: they wait.
    pub(crate) fn set_connection(&self, connection: Option<Arc<Connection>>) {
        if let Some(before) = self.connection.send_replace(connection) {
            before.end();
        }
    }

    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock()
    }

    /// From now on the server is that one.
    pub(crate) fn set_server(&self, server: Server) {
        self.is_tight.store(server.is_tight(), Ordering::Release);
        *self.server() = server;
        *self.looked.lock() = Some(Instant::now());
    }

    /// Whether this client has not looked at the server for so long.
    pub(crate) fn has_not_looked_for(&self, long: Duration) -> bool {
        self.looked.lock().is_none_or(|looked| looked.elapsed() > long)
    }

    /// The server has had no room.
    pub(crate) fn set_tight(&self) {
        self.is_tight.store(true, Ordering::Release);
    }

    pub(crate) fn is_tight(&self) -> bool {
        self.is_tight.load(Ordering::Acquire)
    }

    /// Remembers why there is no connection; `None`: there is one.
    pub(crate) fn set_trouble(&self, trouble: Option<&Error>) {
        *self.trouble.lock() = trouble.map(ToString::to_string);
    }

    /// From now on there is a session at the server.
    pub(crate) fn set_open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    /// The server has no such session any more, so nothing is to be ended there.
    pub(crate) fn set_gone(&self) {
        self.is_open.store(false, Ordering::Release);
    }

    pub(crate) fn set_met_several(&self, has: bool) {
        self.has_met_several.store(has, Ordering::Release);
    }

    pub(crate) fn has_met_several(&self) -> bool {
        self.has_met_several.load(Ordering::Acquire)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// Waits until every wait is to end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn ended(&self) {
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Ends every wait.
    pub(crate) fn end_waits(&self) {
        self.ended.send_replace(true);
    }

    /// Ends the client for good. The tasks that use it must be over.
    pub(crate) fn end(&self) {
        self.end_waits();
        self.set_connection(None);
    }
}
