//! The way to the server: requests go over the link of the moment, and are repeated on the next one where they may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fred::types::Value;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tooz_core::driver::{ConnectArgs, CredentialSource, Mutex, MutexGuard, Reporter, Wanted, encode_name};
use tooz_core::{Characteristics, Checkup, Error, ErrorKind, Namespace, Outcome, Result};

use crate::error::{no_turn, not_connected, too_few_replicas};
use crate::feed::{FIRST_EPOCH, Feed};
use crate::layout::LAYOUT;
use crate::link::{Behind, Link, number};
use crate::options::{Confirmation, Settings};
use crate::replicas::Replicas;
use crate::reply::Reply;
use crate::script::Script;
use crate::server::Server;

/// How long it takes at most until the end of a connection is seen by all who use it.
const NOTICED: Duration = Duration::from_millis(50);

/// How many requests are under way at once, besides heartbeats and what the driver asks of itself; and as many that may wait for their lock.
/// What comes to the server before a heartbeat delays it; as many as these take a few milliseconds.
const UNDER_WAY: usize = 128;

pub(crate) const NO_SESSION: &str = "the server has no such session";

/// Where one session's requests go. Dropping it closes the connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    keeper: AbortHandle,
}

/// What the requests and the [keeper](crate::keeper) share.
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) credentials: CredentialSource,
    pub(crate) namespace: Namespace,
    pub(crate) reporter: Reporter,
    /// How long one request may take.
    pub(crate) limit: Duration,
    pub(crate) connect_limit: Duration,
    pub(crate) timeout: Duration,
    pub(crate) prefix: String,
    pub(crate) channels: String,
    pub(crate) session: String,
    pub(crate) feed: Feed,
    /// The link, while there is one.
    pub(crate) link: watch::Sender<Option<Arc<Link>>>,
    pub(crate) server: Mutex<Server>,
    pub(crate) replicas: Mutex<Replicas>,
    /// Why there is no link, as the last attempt to connect has found out.
    pub(crate) trouble: Mutex<Option<String>>,
    turns: Semaphore,
    /// Those of requests that have time, apart from the others: a crowd of them is in nobody's way.
    patient_turns: Semaphore,
    /// Set once the session exists at the server: from then on each new link begins with its word.
    pub(crate) is_open: AtomicBool,
    /// When to look for the dead, if anybody is curious.
    pub(crate) look: watch::Sender<Instant>,
    /// A script has left over what others wait for.
    pub(crate) left_over: Notify,
    /// There is more to hear and to acknowledge than fitted into an answer.
    pub(crate) behind: Notify,
}

impl Connection {
    pub(crate) async fn open(args: &ConnectArgs) -> Result<Self> {
        let settings = Settings::read(args)?;
        let namespace = encode_name(args.namespace.as_str(), 765);
        let prefix = format!("tooz:{{{namespace}}}:");
        let shared = Arc::new(Shared {
            channels: format!("tooz:{{{namespace}}}@{}:", settings.database),
            prefix,
            session: format!("{:032x}", fastrand::u128(..)),
            settings,
            credentials: args.credentials.clone(),
            namespace: args.namespace.clone(),
            reporter: args.reporter.clone(),
            limit: args.statement_timeout(),
            connect_limit: args.connect_timeout,
            timeout: args.session_timeout,
            feed: Feed::new(args.reporter.clone()),
            link: watch::Sender::new(None),
            server: Mutex::default(),
            replicas: Mutex::default(),
            trouble: Mutex::default(),
            turns: Semaphore::new(UNDER_WAY),
            patient_turns: Semaphore::new(UNDER_WAY),
            is_open: AtomicBool::new(false),
            look: watch::Sender::new(Instant::now()),
            left_over: Notify::new(),
            behind: Notify::new(),
        });
        let (link, incoming) = shared.establish(FIRST_EPOCH).await?;
        shared.link.send_replace(Some(Arc::clone(&link)));
        let keeper = tokio::spawn(Arc::clone(&shared).keep(link, incoming)).abort_handle();
        Ok(Connection { shared, keeper })
    }

    pub(crate) fn feed(&self) -> &Feed {
        &self.shared.feed
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// What can be promised on the server that the last link has led to.
    pub(crate) fn characteristics(&self) -> Characteristics {
        self.shared.server().characteristics(&self.shared.settings, self.shared.needed_replicas())
    }

    /// What the server says of itself now.
    pub(crate) async fn check_up(&self) -> Result<Checkup> {
        let server = Server::read(&*self.link().await?).await?;
        self.shared.replicas().saw(server.seen());
        Ok(server.check_up(&self.shared.settings, self.shared.needed_replicas()))
    }

    pub(crate) fn session_channel(&self) -> String {
        self.channel("c:", &self.shared.session)
    }

    pub(crate) fn channel(&self, kind: &str, name: &str) -> String {
        format!("{}{kind}{name}", self.shared.channels)
    }

    /// The link, as soon as there is one, but not for longer than a request may take.
    pub(crate) async fn link(&self) -> Result<Arc<Link>> {
        self.shared.present_link(Instant::now() + self.shared.limit).await
    }

    /// Runs a script.
    pub(crate) async fn run(&self, script: Script, arguments: Vec<Value>) -> Result<Reply> {
        self.run_until_answered(script, arguments, Confirmation::None).await
    }

    /// The same, and it counts only when as many replicas have it as the settings want.
    pub(crate) async fn run_surely(&self, script: Script, arguments: Vec<Value>) -> Result<Reply> {
        self.run_until_answered(script, arguments, self.shared.settings.confirmation()).await
    }

    /// The same for a request that has time: it waits for its turn as long as it is wanted; `None`: it is not any more, and was not sent.
    pub(crate) async fn run_patiently(
        &self,
        script: Script,
        arguments: Vec<Value>,
        wanted: &Wanted,
    ) -> Result<Option<Reply>> {
        let turn = tokio::select! {
            biased;
            turn = self.shared.patient_turns.acquire() => turn,
            () = wanted.unwanted() => return Ok(None),
        };
        let _turn = turn.map_err(|_| no_turn(UNDER_WAY))?;
        self.run_now(script, arguments, self.shared.settings.confirmation()).await.map(Some)
    }

    async fn run_until_answered(&self, script: Script, arguments: Vec<Value>, wanted: Confirmation) -> Result<Reply> {
        // Whoever waits for a turn has asked nothing yet. What keeps or ends the session waits for nobody.
        let _turn = if script.waits_for_its_turn() {
            let turn = timeout_at(Instant::now() + self.shared.limit, self.shared.turns.acquire());
            Some(turn.await.ok().and_then(std::result::Result::ok).ok_or_else(|| no_turn(UNDER_WAY))?)
        } else {
            None
        };
        self.run_now(script, arguments, wanted).await
    }

    /// A request whose answer was lost with its connection is repeated on the next one, if that is in time and if it may be.
    async fn run_now(&self, script: Script, arguments: Vec<Value>, wanted: Confirmation) -> Result<Reply> {
        let deadline = Instant::now() + self.shared.limit;
        let mut before: Option<Error> = None;
        loop {
            let link = match self.shared.present_link(deadline).await {
                Ok(link) => link,
                // What the last attempt has met says more, and may have been done.
                Err(error) => return Err(before.unwrap_or(error)),
            };
            let mut failed = match self.run_on(&link, script, arguments.clone(), wanted, deadline).await {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            };
            if before.is_some_and(|before| before.outcome() != Outcome::NotApplied) {
                // That this attempt was refused says nothing of the earlier one.
                failed = failed.with_outcome(Outcome::Unknown);
            }
            let may_repeat = script.is_repeatable() || failed.outcome() == Outcome::NotApplied;
            // A link that has not ended has said no by itself.
            if failed.kind() != ErrorKind::Unavailable || !may_repeat || !self.shared.has_ended(&link, deadline).await {
                return Err(failed);
            }
            before = Some(failed);
        }
    }

    async fn run_on(
        &self,
        link: &Link,
        script: Script,
        arguments: Vec<Value>,
        wanted: Confirmation,
        deadline: Instant,
    ) -> Result<Reply> {
        let behind = match wanted {
            Confirmation::None => Behind::NOTHING,
            Confirmation::Replicas(replicas) => Behind { replicas, look: false },
            Confirmation::Majority => Behind { replicas: self.shared.replicas().needed(), look: true },
        };
        let done = link.run(script, self.shared.called(link, arguments), behind, deadline).await?;
        let reply = self.shared.read(done.answer)?;
        if let Some(seen) = done.seen {
            self.shared.replicas().saw(seen);
        }
        let needed = if wanted == Confirmation::None { 0 } else { self.shared.needed_replicas() };
        // There are more than there were: the answer counts only when as many of them have it.
        let reached = if needed > behind.replicas { link.wait_for(needed, deadline).await? } else { done.reached };
        if reached < needed {
            if self.shared.settings.is_watched_by_sentinels() {
                // It may be a deposed primary: the Sentinels are asked again.
                link.end();
            }
            return Err(too_few_replicas(reached, needed));
        }
        Ok(reply)
    }

    /// Whether grants and beats have to be confirmed by replicas, if there are any.
    pub(crate) fn confirms(&self) -> bool {
        self.shared.settings.confirmation() != Confirmation::None
    }

    /// A script has left over what others have to wait for.
    pub(crate) fn go_on(&self) {
        self.shared.left_over.notify_one();
    }

    /// The server says that the session is over.
    pub(crate) fn tell_of_the_end(&self) {
        self.shared.reporter.session_lost(NO_SESSION);
    }

    /// From now on there is a session at the server.
    pub(crate) fn set_open(&self) {
        self.shared.is_open.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// The server has said in how many milliseconds somebody may be found dead; -1: there is nobody.
    pub(crate) fn look_in(&self, milliseconds: i64) {
        self.shared.look_in(milliseconds);
    }

    /// Somebody begins to be curious, and nobody may have looked for long.
    pub(crate) fn look_soon(&self) {
        if *self.shared.look.borrow() < Instant::now() {
            self.shared.look.send_replace(Instant::now());
        }
    }

    /// Ends the connection for good.
    pub(crate) fn end(&self) {
        self.shared.feed.end();
        self.keeper.abort();
        self.shared.link.send_replace(None);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
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

    /// Remembers why there is no link; `None`: there is one.
    pub(crate) fn set_trouble(&self, trouble: Option<&Error>) {
        *self.trouble.lock() = trouble.map(ToString::to_string);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Acquire)
    }

    fn no_link(&self) -> Error {
        not_connected(self.trouble.lock().as_deref())
    }

    pub(crate) fn look_in(&self, milliseconds: i64) {
        // Nobody knows of those who come later: hence once per session timeout at least.
        let wait = u64::try_from(milliseconds).map_or(self.timeout, Duration::from_millis).min(self.timeout);
        self.look.send_replace(Instant::now() + wait);
    }

    async fn present_link(&self, deadline: Instant) -> Result<Arc<Link>> {
        let mut links = self.link.subscribe();
        let found = timeout_at(deadline, links.wait_for(Option::is_some)).await;
        match found {
            Ok(Ok(link)) => (*link).clone().ok_or_else(|| self.no_link()),
            _ => Err(self.no_link()),
        }
    }

    /// Whether that link is over, or is seen to be within the moment that this takes.
    async fn has_ended(&self, link: &Arc<Link>, deadline: Instant) -> bool {
        let is_another = |now: &Option<Arc<Link>>| now.as_ref().is_none_or(|now| !Arc::ptr_eq(now, link));
        let mut links = self.link.subscribe();
        // One that was ended here is over for sure, as soon as its keeper comes to it.
        let soon = if link.was_ended() { deadline } else { deadline.min(Instant::now() + NOTICED) };
        timeout_at(soon, links.wait_for(is_another)).await.is_ok_and(|seen| seen.is_ok())
    }

    fn called(&self, link: &Link, arguments: Vec<Value>) -> Vec<Value> {
        let mut all = Vec::with_capacity(arguments.len() + 4);
        all.push(Value::from(self.prefix.as_str()));
        all.push(Value::from(self.channels.as_str()));
        all.push(Value::from(self.session.as_str()));
        all.push(number(link.epoch));
        all.extend(arguments);
        all
    }

    pub(crate) async fn run_on(&self, link: &Link, script: Script, arguments: Vec<Value>) -> Result<Reply> {
        let deadline = Instant::now() + self.limit;
        self.read(link.run(script, self.called(link, arguments), Behind::NOTHING, deadline).await?.answer)
    }

    /// Reads an answer. Scripts refuse what is kept in another layout, too.
    fn read(&self, answer: Value) -> Result<Reply> {
        let reply = Reply::read(answer)?;
        if reply.is("layout") {
            return Err(Error::foreign_layout(&self.namespace, reply.texts(0)?.concat(), LAYOUT));
        }
        Ok(reply)
    }
}
