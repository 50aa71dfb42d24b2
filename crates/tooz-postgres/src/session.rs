//! The session: one connection that owns, and beside it those that look, listen and wait.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::{Acquire as _, Row as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tooz_core::driver::{
    ConnectArgs, Granted, Groups, JoinRequest, LockKey, LockRequest, Locks, Mutex, Owned, PushStream, Reporter,
    RequestId, Roster, Session, Space, Wanted, async_trait,
};
use tooz_core::{Checkup, Error, ErrorKind, GroupId, Holder, MemberId, Probe, Result, Terms};

use crate::holdings::Holdings;
use crate::key::{self, Keys};
use crate::layout::{self, LAYOUT};
use crate::link::SharedLink;
use crate::lock::Way;
use crate::look::{Look, Repeat};
use crate::options::Settings;
use crate::waiter::Waiters;
use crate::{BEST, checkup, error, group, holders, schema, setup, sweep};

/// The clocks of two machines and the timers of the server are not finer than this.
const MARGIN: Duration = Duration::from_millis(50);

pub(crate) struct PostgresSession {
    settings: Settings,
    member: MemberId,
    namespace: String,
    keys: Keys,
    reporter: Reporter,
    look: Look,
    own: OnceLock<Own>,
}

/// What owns: the connection whose life is the session's, and what it holds.
pub(crate) struct Own {
    pub(crate) link: SharedLink,
    pub(crate) keys: Keys,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) waiters: Arc<Waiters>,
    /// The limit of one statement.
    pub(crate) limit: Duration,
    pub(crate) timeout: Duration,
    closing: Arc<watch::Sender<bool>>,
    tasks: Mutex<Vec<AbortHandle>>,
}

pub(crate) async fn connect(args: ConnectArgs) -> Result<Arc<dyn Session>> {
    let settings = Settings::read(&args)?;
    let look = Look::open(&settings).await?;
    Ok(Arc::new(PostgresSession {
        keys: Keys::new(&settings.schema, args.namespace.as_str()),
        member: args.member,
        namespace: args.namespace.to_string(),
        reporter: args.reporter,
        look,
        own: OnceLock::new(),
        settings,
    }))
}

impl Own {
    async fn open(session: &PostgresSession) -> Result<Self> {
        const DOING: &str = "open a session";
        // Null: it is another process of the server than before, or one by which somebody holds locks already. Seen and opened by one
        // statement, so that no two sessions ever live on one process.
        const OPEN: &str = "SELECT CASE WHEN pg_backend_pid() = $6 AND NOT EXISTS \
            (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) \
            THEN open_session($1, $2, $3, $4, $5, $7) END";
        let settings = &session.settings;
        session.look.ensure_tables().await?;
        let number = key::fresh_session();
        let holdings = Arc::new(Holdings::new(number, &session.namespace, session.reporter.clone()));
        let link = session.look.for_session(&holdings).await?;
        let (keys, namespace, member) = (&session.keys, session.namespace.clone(), session.member.to_string());
        let (lifting, lifted) = (keys.lifting(), keys.lifted());
        setup::refuse_pooler(settings, link.pid).await?;
        let (pid, theirs) = (link.pid, settings.clone());
        link.run(settings.connect_timeout, DOING, move |connection| {
            Box::pin(async move {
                let failed = |error| error::of(error, DOING);
                let open = || {
                    sqlx::query_scalar::<_, Option<String>>(OPEN)
                        .bind(number)
                        .bind(namespace.clone())
                        .bind(member.clone())
                        .bind(lifting)
                        .bind(lifted)
                        .bind(pid)
                        .bind(LAYOUT)
                };
                let opened = match open().fetch_one(&mut *connection).await {
                    // The tables were there when they were last looked for.
                    Err(error) if error::is_missing(&error) => {
                        schema::ensure(connection.acquire().await.map_err(failed)?, &theirs).await?;
                        open().fetch_one(&mut *connection).await
                    }
                    opened => opened,
                };
                match opened.map_err(failed)?.as_deref() {
                    Some("ok") => {}
                    Some("taken") => return Err(error::of(sqlx::Error::PoolTimedOut, DOING)),
                    Some(layout) => return Err(layout::foreign(&theirs.schema, layout)),
                    None => return Err(error::pooled()),
                }
                connection.listen(&key::channel(number)).await.map_err(failed)
            })
        })
        .await
        .map_err(error::outside)?;
        let own = Own {
            link,
            keys: keys.clone(),
            holdings,
            waiters: Arc::new(Waiters::new(settings.clone())),
            limit: settings.statement_timeout,
            timeout: settings.session_timeout,
            closing: Arc::new(watch::Sender::new(false)),
            tasks: Mutex::default(),
        };
        own.keep(watch_over(Arc::clone(&own.link), session.reporter.clone(), Arc::clone(&own.closing)));
        own.keep(holders::keep_written(Arc::clone(&own.link), Arc::clone(&own.holdings), own.limit));
        own.keep(sweep::after_opening(Arc::clone(&own.link), Arc::clone(&own.holdings), own.limit));
        Ok(own)
    }

    /// Runs a task until the session is closed.
    fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        let handle = tokio::spawn(task).abort_handle();
        self.tasks.lock().push(handle);
    }

    /// Ends when the session is closed or its connection is dead.
    pub(crate) async fn closed(&self) {
        let mut closing = self.closing.subscribe();
        let _ = closing.wait_for(|closing| *closing).await;
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        const DOING: &str = "beat";
        // Which ones they are is asked where some are missing: a beat costs the same however many there are.
        const BEAT: &str = "SELECT pg_backend_pid() AS pid, CASE WHEN (SELECT count(*) FROM members WHERE session = $1) <> $2 \
            THEN ARRAY(SELECT request FROM members WHERE session = $1) END AS memberships";
        let (holdings, pid) = (Arc::clone(&self.holdings), self.link.pid);
        self.link
            .run_first(self.limit, DOING, move |connection| {
                Box::pin(async move {
                    let failed = |error| error::on_session(error, DOING);
                    let beating = sqlx::query(BEAT).bind(holdings.session).bind(holdings.memberships());
                    let row = beating.fetch_one(connection).await.map_err(failed)?;
                    if row.try_get::<i32, _>("pid").map_err(failed)? != pid {
                        return Err(holdings.shared_connection());
                    }
                    if let Some(there) = row.try_get::<Option<Vec<Vec<u8>>>, _>("memberships").map_err(failed)? {
                        holdings.robbed_of_all_but(&there.iter().filter_map(|id| group::request_id(id)).collect());
                    }
                    Ok(Vec::new())
                })
            })
            .await
    }

    /// Frees all that the session owns, and ends its connections.
    async fn close(&self, look: &Look) -> Result<()> {
        const DOING: &str = "close the session";
        const CLOSE: &str =
            "SELECT CASE WHEN pg_backend_pid() = $1 THEN pg_advisory_unlock_all() IS NOT NULL ELSE false END";
        const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks \
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND mode = 'ExclusiveLock' \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            AND ((classid::bigint << 32) | objid::bigint) = $1";
        self.closing.send_replace(true);
        for task in std::mem::take(&mut *self.tasks.lock()) {
            task.abort();
        }
        self.waiters.close();
        let (number, pid) = (self.holdings.session, self.link.pid);
        let mut result = Ok(());
        if !self.link.is_dead() {
            result = self.bury_own().await;
            if result.is_ok() {
                result = self
                    .link
                    .run(self.limit, DOING, move |connection| {
                        Box::pin(async move {
                            let closing = sqlx::query_scalar::<_, bool>(CLOSE).bind(pid);
                            let closed =
                                closing.fetch_one(connection).await.map_err(|error| error::of(error, DOING))?;
                            if closed { Ok(()) } else { Err(error::pooled()) }
                        })
                    })
                    .await
                    .map_err(error::outside);
            }
            if result.is_err() {
                // Its connection hangs: the server is told by another one, if that gets through.
                result = look.apart(DOING, sqlx::query(TERMINATE).bind(number)).await;
            }
        }
        self.link.cut();
        result
    }

    /// Takes away the session's rows, by small steps: they go before the locks, so that a row is never there without its lock. What the server
    /// refuses is left to those who clear up; an error says that it does not answer.
    async fn bury_own(&self) -> Result<()> {
        const DOING: &str = "take away the session's rows";
        const BURY: &str = "SELECT bury(ARRAY[$1]::bigint[], 500)";
        let number = self.holdings.session;
        loop {
            let burying = self.link.run(self.limit, DOING, move |connection| {
                Box::pin(async move {
                    // The dead may have left something for which nobody else will come.
                    let _ = sweep::step(&mut *connection, number, Duration::ZERO).await;
                    match sqlx::query_scalar::<_, bool>(BURY).bind(number).fetch_one(connection).await {
                        Err(error) if error::is_dead(&error) => Err(error::of(error, DOING)),
                        more => Ok(more.unwrap_or(false)),
                    }
                })
            });
            if !burying.await.map_err(error::outside)? {
                return Ok(());
            }
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
        self.waiters.close();
    }
}

/// Tells core when the connection is dead.
async fn watch_over(link: SharedLink, reporter: Reporter, closing: Arc<watch::Sender<bool>>) {
    link.died().await;
    reporter.session_lost("the connection to the server has ended");
    closing.send_replace(true);
}

impl PostgresSession {
    fn own(&self) -> Result<&Own> {
        let own = self.own.get().ok_or_else(|| Error::new(ErrorKind::Backend, "the session was not opened"))?;
        if own.link.is_dead() { Err(error::lost("ask the session")) } else { Ok(own) }
    }
}

#[async_trait]
impl Session for PostgresSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.settings.session_timeout), BEST).margin(MARGIN)
    }

    async fn open(&self) -> Result<()> {
        let own = Own::open(self).await?;
        let _ = self.own.set(own);
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        self.own()?.beat().await
    }

    async fn owned(&self) -> Result<Owned> {
        Ok(self.own()?.holdings.owned())
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        const DOING: &str = "ask for a sign of life";
        // A write costs no more than a read: what a lock writes does not wait for a disk.
        match self.own.get() {
            Some(own) => {
                own.link
                    .run(own.limit, DOING, |connection| {
                        Box::pin(async move {
                            let asked = sqlx::query("SELECT 1").execute(connection).await;
                            asked.map(drop).map_err(|error| error::on_session(error, DOING))
                        })
                    })
                    .await
            }
            None => self.look.ask(DOING, Repeat::Allowed, || sqlx::query("SELECT 1")).await.map(drop),
        }
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::check_up(&self.look, &self.settings).await
    }

    async fn close(&self) -> Result<()> {
        let result = match self.own.get() {
            Some(own) => own.close(&self.look).await,
            None => Ok(()),
        };
        self.look.close().await;
        result
    }
}

#[async_trait]
impl Locks for PostgresSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        self.own()?.acquire(request, Way::AskAtGate).await
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        self.own()?.wait(request, wanted).await
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.own()?.release(request).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        holders::holders(&self.look, &self.keys, &self.namespace, key).await
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        match key.space {
            Space::Election => self.look.watch(self.keys.doors(key).lock).await.map(Some),
            // Most locks come and go without anybody asking: that is not told.
            Space::Lock => Ok(None),
        }
    }
}

#[async_trait]
impl Groups for PostgresSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        group::create(&self.look, &self.keys, &self.namespace, group).await
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        group::delete(&self.look, &self.namespace, group).await
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        group::list(&self.look, &self.namespace).await
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        self.own()?.join(request).await
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        self.own()?.update(request).await
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let left = match self.own() {
            Ok(own) => own.leave(request).await,
            Err(error) => Err(error),
        };
        match left {
            // The entry counts no longer than the session: with it the membership has ended, which is what was asked for.
            Err(error) if error.kind() == ErrorKind::Lost => {
                self.reporter.session_lost(error);
                Ok(())
            }
            left => left,
        }
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        group::members(&self.look, &self.namespace, group).await
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.look.watch(self.keys.group(group)).await.map(Some)
    }
}
