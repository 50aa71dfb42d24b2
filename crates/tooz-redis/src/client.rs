//! One connection after another: requests go over that of the moment, and are repeated on the next one where they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};
use tooz_core::driver::{ConnectArgs, CredentialSource, Mutex, MutexGuard, Reporter, Wanted};
use tooz_core::{Characteristics, Error, ErrorKind, Namespace, Outcome, Result};

use crate::connection::{Call, Connection, ReplicaQuestion};
use crate::dispatch::Dispatch;
use crate::error::{no_turn, not_connected, refusal, too_few_replicas};
use crate::holdings::Holdings;
use crate::layout::{Layout, VERSION};
use crate::options::{Confirmation, Settings};
use crate::replicas::Replicas;
use crate::reply::Reply;
use crate::request::Argument;
use crate::script::{Lane, Script};
use crate::server::Server;
use crate::value::Value;

/// How long it takes at most until the end of a connection is seen by all who use it.
const NOTICED: Duration = Duration::from_millis(50);

/// How many requests of each line are under way at once, besides heartbeats and what the driver asks of itself: wishes, duties, waits.
/// What comes to the server before a heartbeat delays it; as many as these take a few milliseconds.
const UNDER_WAY: usize = 128;

/// How many readings of lists are under way at once. One answer has up to a million bytes (`members.lua`), and a server cuts a connection that
/// listens to channels when it has to keep more than 32 MB for it.
const READINGS: usize = 8;

/// Where one session's requests go.
///
/// | there is | and then |
/// |---|---|
/// | a connection | it ends: [`disconnected`](Self::set_connection); requests on it fail, and wait for the next one |
/// | none | the next one stands ([`reconnection`](crate::reconnection)), or the request's time is over |
/// | none for good | the client was [ended](Self::end) |
pub(crate) struct Client {
    pub(crate) settings: Settings,
    pub(crate) credentials: CredentialSource,
    pub(crate) reporter: Reporter,
    /// How long one request may take.
    pub(crate) limit: Duration,
    pub(crate) connect_limit: Duration,
    /// The session's.
    pub(crate) timeout: Duration,
    pub(crate) layout: Arc<Layout>,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) dispatch: Dispatch,
    namespace: Namespace,
    /// The connection, while there is one.
    connection: watch::Sender<Option<Arc<Connection>>>,
    /// What the server of the last connection says of itself.
    server: Mutex<Server>,
    replicas: Mutex<Replicas>,
    /// Why there is no connection, as the last attempt to connect has found out.
    trouble: watch::Sender<Option<Error>>,
    wishes: Semaphore,
    readings: Semaphore,
    /// Apart from wishes: neither is in the way of the other.
    duties: Semaphore,
    /// Those of requests that wait for their lock and have time, apart from the others, which a crowd of them must not delay.
    waits: Semaphore,
    /// Set once the session exists at the server: from then on each new connection begins with its word.
    is_open: AtomicBool,
    /// When to look for the dead, if that is of interest to any wait or watch.
    pub(crate) next_sweep: watch::Sender<Instant>,
    /// A script has left over what others wait for.
    pub(crate) left_over: Notify,
    /// There is more to hear and to acknowledge than fitted into an answer.
    pub(crate) behind: Notify,
}

impl Client {
    /// A client without a connection yet.
    pub(crate) fn new(args: &ConnectArgs) -> Result<Self> {
        let settings = Settings::read(args)?;
        let layout = Arc::new(Layout::of_new_session(&args.namespace, settings.database));
        let holdings = Arc::new(Holdings::new(args.reporter.clone()));
        Ok(Client {
            settings,
            credentials: args.credentials.clone(),
            reporter: args.reporter.clone(),
            limit: args.statement_timeout(),
            connect_limit: args.connect_timeout,
            timeout: args.session_timeout,
            dispatch: Dispatch::new(Arc::clone(&layout), Arc::clone(&holdings)),
            layout,
            holdings,
            namespace: args.namespace.clone(),
            connection: watch::Sender::new(None),
            server: Mutex::default(),
            replicas: Mutex::default(),
            trouble: watch::Sender::new(None),
            wishes: Semaphore::new(UNDER_WAY),
            readings: Semaphore::new(READINGS),
            duties: Semaphore::new(UNDER_WAY),
            waits: Semaphore::new(UNDER_WAY),
            is_open: AtomicBool::new(false),
            next_sweep: watch::Sender::new(Instant::now()),
            left_over: Notify::new(),
            behind: Notify::new(),
        })
    }

    /// The connection, as soon as there is one, but not for longer than a request may take.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        self.connection_until(Instant::now() + self.limit).await
    }

    /// From now on requests go there; `None`: they wait.
    pub(crate) fn set_connection(&self, connection: Option<Arc<Connection>>) {
        self.connection.send_replace(connection);
    }

    /// Runs a script.
    pub(crate) async fn run(&self, script: Script, arguments: Vec<Argument>) -> Result<Reply> {
        self.run_in_turn(script, arguments, Confirmation::None).await
    }

    /// Runs a script that counts only when as many replicas have it as the settings want.
    pub(crate) async fn run_surely(&self, script: Script, arguments: Vec<Argument>) -> Result<Reply> {
        self.run_in_turn(script, arguments, self.settings.confirmation()).await
    }

    /// Runs a script for a request that may wait for its turn as long as it is wanted. `None`: the request is not wanted any more, and the
    /// script was not sent.
    pub(crate) async fn run_patiently(
        &self,
        script: Script,
        arguments: Vec<Argument>,
        wanted: &Wanted,
    ) -> Result<Option<Reply>> {
        let turn = tokio::select! {
            biased;
            turn = self.waits.acquire() => turn,
            () = wanted.unwanted() => return Ok(None),
        };
        let _turn = turn.map_err(|_| no_turn(UNDER_WAY))?;
        self.run_until_answered(script, arguments, self.settings.confirmation()).await.map(Some)
    }

    async fn run_in_turn(&self, script: Script, arguments: Vec<Argument>, wanted: Confirmation) -> Result<Reply> {
        // A request that waits for its turn has asked nothing yet. What keeps or ends the session waits for none.
        let _turn = match script.lane() {
            Lane::First => None,
            Lane::Duty => self.duties.acquire().await.ok(),
            Lane::Wish => Some(self.turn(&self.wishes, UNDER_WAY).await?),
            Lane::Reading => Some(self.turn(&self.readings, READINGS).await?),
        };
        self.run_until_answered(script, arguments, wanted).await
    }

    async fn turn<'a>(&self, turns: &'a Semaphore, most: usize) -> Result<SemaphorePermit<'a>> {
        let turn = timeout_at(Instant::now() + self.limit, turns.acquire()).await;
        turn.ok().and_then(std::result::Result::ok).ok_or_else(|| no_turn(most))
    }

    /// A request whose answer was lost with its connection is repeated on the next one, if that is in time and if it may be.
    async fn run_until_answered(
        &self,
        script: Script,
        arguments: Vec<Argument>,
        wanted: Confirmation,
    ) -> Result<Reply> {
        let deadline = Instant::now() + self.limit;
        let mut before: Option<Error> = None;
        loop {
            let connection = match self.connection_until(deadline).await {
                Ok(connection) => connection,
                // What the last attempt has met says more, and may have been done.
                Err(error) => return Err(before.unwrap_or(error)),
            };
            let mut failed = match self.run_confirmed(&connection, script, &arguments, wanted, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if before.is_some_and(|before| before.outcome() != Outcome::NotApplied) {
                // That this attempt was refused says nothing of the earlier one.
                failed = failed.with_outcome(Outcome::Unknown);
            }
            let may_repeat = script.is_repeatable() || failed.outcome() == Outcome::NotApplied;
            // A connection that has not ended has said no by itself.
            if failed.kind() != ErrorKind::Unavailable || !may_repeat || !self.has_ended(&connection, deadline).await {
                return Err(failed);
            }
            before = Some(failed);
        }
    }

    async fn run_confirmed(
        &self,
        connection: &Connection,
        script: Script,
        arguments: &[Argument],
        wanted: Confirmation,
        deadline: Instant,
    ) -> Result<Reply> {
        let behind = match wanted {
            Confirmation::None => ReplicaQuestion::Nothing,
            Confirmation::Replicas(replicas) => ReplicaQuestion::Replicas(replicas),
            Confirmation::Majority => ReplicaQuestion::ReplicasCounted(self.replicas().needed()),
        };
        let done = connection.run(self.call(script, arguments), behind, deadline).await?;
        let reply = self.read(done.answer)?;
        if let Some(seen) = done.seen {
            self.replicas().saw(seen);
        }
        let needed = if wanted == Confirmation::None { 0 } else { self.needed_replicas() };
        // There are more than there were: the answer counts only when as many of them have it.
        let reached =
            if needed > behind.replicas() { connection.wait_for(needed, deadline).await? } else { done.reached };
        if reached < needed {
            if self.settings.is_watched_by_sentinels() {
                // It may be a deposed primary: the Sentinels are asked again.
                connection.end();
            }
            return Err(too_few_replicas(reached, needed));
        }
        Ok(reply)
    }

    /// Runs a script on that connection and no other, without a turn.
    pub(crate) async fn run_on(
        &self,
        connection: &Connection,
        script: Script,
        arguments: &[Argument],
    ) -> Result<Reply> {
        let deadline = Instant::now() + self.limit;
        self.read(connection.run(self.call(script, arguments), ReplicaQuestion::Nothing, deadline).await?.answer)
    }

    fn call<'a>(&'a self, script: Script, arguments: &'a [Argument]) -> Call<'a> {
        Call { script, layout: &self.layout, arguments }
    }

    /// Reads an answer. Scripts refuse what is kept in another layout, too.
    fn read(&self, answer: Value) -> Result<Reply> {
        let reply = Reply::read(answer)?;
        if reply.is("layout") {
            return Err(Error::foreign_layout(&self.namespace, reply.texts(0)?.concat(), VERSION));
        }
        Ok(reply)
    }

    async fn connection_until(&self, deadline: Instant) -> Result<Arc<Connection>> {
        let present = self.connection.borrow().clone();
        if let Some(present) = present {
            return Ok(present);
        }
        let mut connections = self.connection.subscribe();
        let found = timeout_at(deadline, connections.wait_for(Option::is_some)).await;
        let found = found.ok().and_then(std::result::Result::ok).and_then(|found| (*found).clone());
        found.ok_or_else(|| not_connected(self.trouble.borrow().as_ref().map(ToString::to_string).as_deref()))
    }

    /// Whether that connection is over, or is seen to be within the moment that this takes.
    async fn has_ended(&self, connection: &Arc<Connection>, deadline: Instant) -> bool {
        let is_another = |now: &Option<Arc<Connection>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, connection));
        let mut connections = self.connection.subscribe();
        // One that has ended is another for sure, as soon as the task that makes the next one comes to it.
        let soon = if connection.has_ended() { deadline } else { deadline.min(Instant::now() + NOTICED) };
        timeout_at(soon, connections.wait_for(is_another)).await.is_ok_and(|seen| seen.is_ok())
    }

    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock()
    }

    pub(crate) fn replicas(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock()
    }

    /// How many replicas must have what counts, as of now.
    pub(crate) fn needed_replicas(&self) -> u64 {
        match self.settings.confirmation() {
            Confirmation::None => 0,
            Confirmation::Replicas(replicas) => replicas,
            Confirmation::Majority => self.replicas().needed(),
        }
    }

    /// What can be promised on the server that the last connection has led to.
    pub(crate) fn characteristics(&self) -> Characteristics {
        self.server().characteristics(&self.settings, self.needed_replicas())
    }

    /// Remembers why there is no connection; `None`: there is one.
    pub(crate) fn set_trouble(&self, trouble: Option<&Error>) {
        self.trouble.send_replace(trouble.cloned());
    }

    /// Waits until the next connection is refused for a reason that waiting alone may not mend.
    pub(crate) async fn refused(&self) -> Error {
        let mut troubles = self.trouble.subscribe();
        loop {
            let found = troubles.borrow_and_update().as_ref().and_then(refusal);
            match found {
                Some(error) => return error,
                // The sender is this client's own.
                None => drop(troubles.changed().await),
            }
        }
    }

    /// From now on there is a session at the server.
    pub(crate) fn set_open(&self) {
        self.is_open.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    /// The server says that the session is over.
    pub(crate) fn tell_of_the_end(&self) {
        self.reporter.session_lost("the server has no such session");
    }

    /// A script has left over what others have to wait for.
    pub(crate) fn go_on(&self) {
        self.left_over.notify_one();
    }

    /// The server has said in how many milliseconds another session may be found dead; -1: there is none.
    pub(crate) fn sweep_in(&self, milliseconds: i64) {
        // Those that come later are not known yet: hence once per session timeout at least.
        let wait = u64::try_from(milliseconds).map_or(self.timeout, Duration::from_millis).min(self.timeout);
        self.next_sweep.send_replace(Instant::now() + wait);
    }

    /// A session may be found dead from then on.
    pub(crate) fn sweep_at(&self, moment: Instant) {
        if moment < *self.next_sweep.borrow() {
            self.next_sweep.send_replace(moment);
        }
    }

    /// A watch begins, and the last look for the dead may be long ago.
    pub(crate) fn sweep_soon(&self) {
        if *self.next_sweep.borrow() < Instant::now() {
            self.next_sweep.send_replace(Instant::now());
        }
    }

    /// Ends every wait and every watch.
    pub(crate) fn end_waits(&self) {
        self.holdings.end();
        self.dispatch.end();
    }

    /// Ends the client for good. The task that makes new connections must be over.
    pub(crate) fn end(&self) {
        self.end_waits();
        self.set_connection(None);
    }
}
