//! The session: what connecting checks, what opening makes, its heartbeat and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::Method;
use tokio::task::AbortHandle;
use tooz_core::driver::{ConnectArgs, ConnectFuture, Mutex, Owned, Reporter, RequestId, Session, Space, async_trait};
use tooz_core::{Characteristic, Characteristics, Checkup, Error, ErrorKind, MemberId, Probe, Result, Terms};

use crate::client::{Client, Lane, Scope};
use crate::crowd::{Crowd, longest_wait};
use crate::holdings::{HoldingKind, Holdings};
use crate::layout::Layout;
use crate::mailbox::Mailbox;
use crate::rounds::Rounds;
use crate::server_session::ServerSession;
use crate::watch::Poller;
use crate::{checkup, error, options};

/// The most that a session promises. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .with(Characteristic::HoldsAcrossRestart);

/// The longest timeout that Consul takes.
const LONGEST_TIMEOUT: Duration = Duration::from_hours(24);

/// One session. It owns nothing at the servers before it is opened.
pub(crate) struct ConsulSession {
    pub(crate) client: Arc<Client>,
    pub(crate) layout: Layout,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) crowd: Crowd,
    pub(crate) member: MemberId,
    pub(crate) timeout: Duration,
    reporter: Reporter,
    server_session: OnceLock<Arc<ServerSession>>,
    mailbox: Mutex<Option<AbortHandle>>,
    /// Whether the last heartbeat failed.
    cut_off: AtomicBool,
    probe: u64,
    probes: AtomicBool,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        if args.session_timeout > LONGEST_TIMEOUT {
            return Err(Error::config("session_timeout is longer than the 24 hours that Consul takes"));
        }
        let settings = options::read(&args)?;
        let client = Arc::new(Client::new(settings, args.statement_timeout()));
        let layout = Layout::new(&args.namespace)?;
        // A little less than the caller waits, who is to hear what is wrong.
        meet(&client, &layout, args.connect_timeout.mul_f64(0.9)).await?;
        let session = ConsulSession {
            client,
            layout,
            holdings: Arc::default(),
            crowd: Crowd::new(longest_wait(args.session_timeout)),
            member: args.member,
            timeout: args.session_timeout,
            reporter: args.reporter,
            server_session: OnceLock::new(),
            mailbox: Mutex::default(),
            cut_off: AtomicBool::new(false),
            probe: fastrand::u64(..),
            probes: AtomicBool::new(false),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

/// Finds out that a Consul is there, that it has a leader, and that the namespace is kept in this driver's layout.
async fn meet(client: &Client, layout: &Layout, limit: Duration) -> Result<()> {
    let mut question = client.question(Method::GET, &format!("kv/{}", layout.version_key()), &["consistent"], "");
    // A change of leaders is no reason to end what has just begun.
    question.is_patient = true;
    let asked = client.ask_within(Lane::Wish, limit, question, |answer, _| Ok(answer)).await;
    let answer = asked.map_err(|error| error.context("ask Consul for the namespace's layout"))?.message;
    if answer.status == 404 && answer.index == 0 {
        // Every answer about a key of Consul's has an index.
        return Err(Error::config("that is no Consul of version 1.8 or later: see to the host and the port"));
    }
    layout.learn(crate::request::Page::read(&answer)?.entries.first())
}

impl ConsulSession {
    /// What an open session has at the servers.
    pub(crate) fn server_session(&self) -> Result<&Arc<ServerSession>> {
        self.server_session.get().ok_or_else(|| error::lost("the session was never opened"))
    }

    /// By what a watch of this session asks.
    pub(crate) fn watching(&self) -> Poller {
        Poller { client: Arc::clone(&self.client), wait: self.crowd.wait() }
    }

    /// All that is locked by the session, and all that it has noted: what is at the servers may be more, and less.
    async fn found(&self, session: &str) -> Result<Owned> {
        let (mut locks, mut members) = (Vec::new(), Vec::new());
        for space in [Space::Lock, Space::Election] {
            let page = self.client.read(Lane::Duty, &self.layout.locks(space), Scope::Below).await?;
            let own = page.entries.iter().filter(|entry| entry.session.as_deref() == Some(session));
            locks.extend(own.filter_map(|entry| self.layout.request_of(space, &entry.key)));
        }
        let page = self.client.read(Lane::Duty, &self.layout.groups(), Scope::Below).await?;
        for entry in page.entries.iter().filter(|entry| entry.session.as_deref() == Some(session)) {
            members.extend(self.layout.membership_of(entry));
        }
        Ok(Owned::new(locks).with_members(members))
    }

    fn end_tasks(&self) {
        if let Some(mailbox) = self.mailbox.lock().take() {
            mailbox.abort();
        }
        self.holdings.clear();
    }

    /// Writes a key that no user has. Of an open session it goes with the session, so that not even a crash leaves it behind.
    async fn probe_write(&self) -> Result<()> {
        let key = self.layout.probe(self.probe);
        let owner = self.server_session.get().map(|session| format!("acquire={}", session.id));
        if owner.is_none() {
            self.probes.store(true, Ordering::Relaxed);
        }
        let query: Vec<&str> = owner.as_deref().into_iter().collect();
        let value = format!("{:016x}", fastrand::u64(..));
        let question = self.client.question(Method::PUT, &format!("kv/{key}"), &query, value);
        self.client.ask(Lane::Wish, question).await.map(drop)
    }
}

impl Drop for ConsulSession {
    fn drop(&mut self) {
        self.end_tasks();
    }
}

#[async_trait]
impl Session for ConsulSession {
    /// Consul ends a session between once and twice its timeout, and in fact after twice: so a holder knows of the loss long before.
    fn terms(&self) -> Terms {
        Terms::new(Some(self.timeout), BEST)
    }

    async fn open(&self) -> Result<()> {
        let new = Arc::new(ServerSession::create(&self.client, &self.layout, &self.member, self.timeout).await?);
        // Noted before it is moved in: whatever becomes of that, closing ends it.
        let session = self.server_session.get_or_init(|| new);
        session.move_in(&self.client, &self.layout).await?;
        let mailbox = Mailbox {
            holdings: Arc::clone(&self.holdings),
            client: Arc::clone(&self.client),
            reporter: self.reporter.clone(),
            session: Arc::clone(session),
            wait: self.crowd.wait(),
        };
        *self.mailbox.lock() = Some(mailbox.start());
        Ok(())
    }

    /// The renewal, and then a look at some of the keys, which only a leader with a majority answers: a leader that was cut off goes on
    /// answering renewals for a while. What was taken away is told by the look itself.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        let session = self.server_session()?;
        let beating = async {
            session.beat(&self.client).await?;
            let (client, holdings, reporter) = (&*self.client, &*self.holdings, &self.reporter);
            Rounds { client, session, holdings, reporter }.look(Lane::Beat).await
        };
        let beaten = beating.await;
        match &beaten {
            Ok(()) => {
                if self.cut_off.swap(false, Ordering::Relaxed) {
                    self.reporter.connected();
                }
                self.client.prune();
            }
            Err(error) if error.kind() == ErrorKind::Lost => {}
            Err(error) => {
                if !self.cut_off.swap(true, Ordering::Relaxed) {
                    self.reporter.disconnected(error.clone());
                }
            }
        }
        beaten.map(|()| Vec::new())
    }

    /// Consul has no list of the keys of a session. But only this process makes any under its id, and notes each before it is sent; only after
    /// the servers were set back to an earlier state everything is read.
    async fn owned(&self) -> Result<Owned> {
        let session = self.server_session()?;
        session.require(&self.client).await?;
        if self.holdings.take_set_back() {
            let found = self.found(&session.id).await;
            return found.inspect_err(|_| self.holdings.note_set_back());
        }
        let all = self.holdings.all();
        let lock = |(id, holding): (&u128, &crate::holdings::Holding)| match &holding.kind {
            HoldingKind::Place(key, _) | HoldingKind::Grant(key) => Some((key.clone(), RequestId(*id))),
            HoldingKind::Membership(_) => None,
        };
        Ok(Owned::new(all.iter().filter_map(lock).collect()))
    }

    async fn probe(&self, probe: Probe) -> Result<()> {
        match probe {
            Probe::Read => self.client.glance(Lane::Wish, &self.layout.probe(self.probe), Scope::One).await.map(drop),
            Probe::Write => self.probe_write().await,
        }
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::check_up(&self.client, &self.layout, self.timeout).await
    }

    async fn close(&self) -> Result<()> {
        self.end_tasks();
        let ended = match self.server_session.get() {
            Some(session) => session.destroy(&self.client).await,
            None => Ok(()),
        };
        // One that was written before there was a session.
        if self.probes.swap(false, Ordering::Relaxed) {
            let key = self.layout.probe(self.probe);
            let question = self.client.question(Method::DELETE, &format!("kv/{key}"), &[], "");
            let _ = self.client.ask(Lane::Duty, question).await;
        }
        self.client.clear();
        ended
    }
}
