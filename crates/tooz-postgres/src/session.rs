//! The session: how it connects, opens, beats and closes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sqlx::{Acquire as _, Row as _};
use tooz_core::driver::{ConnectArgs, ConnectFuture, Owned, Reporter, RequestId, Session, async_trait};
use tooz_core::{Characteristic, Characteristics, Checkup, Error, ErrorKind, MemberId, Probe, Result, Terms};

use crate::client::{Client, Repeat};
use crate::connection::Connection;
use crate::holdings::Holdings;
use crate::layout::{self, LAYOUT, Layout};
use crate::open_session::OpenSession;
use crate::options::Settings;
use crate::record::request_id;
use crate::{checkup, error, grants, hung, schema, setup, sweep};

/// What one primary server gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .without(Characteristic::BreakableLocks);

/// The clocks of two machines and the timers of the server are not finer than this.
const MARGIN: Duration = Duration::from_millis(50);

pub(crate) struct PostgresSession {
    member: MemberId,
    pub(crate) namespace: String,
    pub(crate) layout: Layout,
    pub(crate) reporter: Reporter,
    /// For what needs no session.
    pub(crate) client: Client,
    open: OnceLock<OpenSession>,
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let settings = Settings::read(&args)?;
        let client = Client::open(&settings).await?;
        let session = PostgresSession {
            layout: Layout::new(&settings.schema, args.namespace.as_str()),
            member: args.member,
            namespace: args.namespace.to_string(),
            reporter: args.reporter,
            client,
            open: OnceLock::new(),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

impl PostgresSession {
    /// What the session has, if it is open and lives.
    pub(crate) fn opened(&self) -> Result<&OpenSession> {
        let open = self.open.get().ok_or_else(|| Error::new(ErrorKind::Backend, "the session was not opened"))?;
        if open.connection.is_dead() { Err(error::lost("ask the session")) } else { Ok(open) }
    }

    /// Enters the session of that number, which lives on this connection from then on.
    async fn enter(&self, connection: &Connection, number: i64) -> Result<()> {
        const DOING: &str = "open a session";
        // Null: it is another process of the server than before, or one by which locks are held already. Seen and opened by one
        // statement, so that no two sessions ever live on one process.
        const OPEN: &str = "SELECT CASE WHEN pg_backend_pid() = $6 AND NOT EXISTS \
            (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()) \
            THEN open_session($1, $2, $3, $4, $5, $7) END";
        let settings = self.client.settings.clone();
        let (namespace, member) = (self.namespace.clone(), self.member.to_string());
        let (lifting, lifted, pid) = (self.layout.lifting(), self.layout.lifted(), connection.pid);
        let entering = connection.run(settings.connect_timeout, DOING, move |listener| {
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
                let opened = match open().fetch_one(&mut *listener).await {
                    // The tables were there when they were last looked for.
                    Err(error) if error::is_missing(&error) => {
                        schema::ensure(listener.acquire().await.map_err(failed)?, &settings).await?;
                        open().fetch_one(&mut *listener).await
                    }
                    opened => opened,
                };
                match opened.map_err(failed)?.as_deref() {
                    Some("ok") => {}
                    Some("taken") => return Err(error::of(sqlx::Error::PoolTimedOut, DOING)),
                    Some(layout) => return Err(schema::foreign(&settings.schema, layout)),
                    None => return Err(error::behind_pooler()),
                }
                listener.listen(&layout::channel(number)).await.map_err(failed)
            })
        });
        entering.await.map_err(error::outside)
    }
}

#[async_trait]
impl Session for PostgresSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.client.settings.session_timeout), BEST).margin(MARGIN)
    }

    async fn open(&self) -> Result<()> {
        let settings = &self.client.settings;
        self.client.ensure_tables().await?;
        let number = layout::fresh_session();
        let holdings = Arc::new(Holdings::new(number, &self.namespace, self.reporter.clone()));
        let connection = self.client.for_session(&holdings).await?;
        setup::refuse_pooler(settings, connection.pid).await?;
        self.enter(&connection, number).await?;
        let open = OpenSession::new(connection, self.layout.clone(), holdings, settings);
        let (connection, holdings) = (&open.connection, &open.holdings);
        open.keep(grants::keep_written(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(sweep::after_opening(Arc::clone(connection), Arc::clone(holdings), open.limit));
        let suspicion = Arc::clone(&open.suspicion);
        open.keep(hung::end_them(Arc::clone(connection), suspicion, open.limit, settings.session_timeout));
        let _ = self.open.set(open);
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        const DOING: &str = "beat";
        // A membership goes with its group, also where that was deleted by hand. Which ones are left is asked where some are missing: a beat costs the same however many there are.
        const BEAT: &str = "SELECT pg_backend_pid() AS pid, \
            CASE WHEN (SELECT count(*) FROM members JOIN groups USING (namespace, name) WHERE session = $1) <> $2 \
            THEN ARRAY(SELECT request FROM members JOIN groups USING (namespace, name) WHERE session = $1) END AS memberships";
        let open = self.opened()?;
        let (holdings, pid) = (Arc::clone(&open.holdings), open.connection.pid);
        open.connection
            .run_first(open.limit, DOING, move |listener| {
                Box::pin(async move {
                    let failed = |error| error::on_session(error, DOING);
                    let beating = sqlx::query(BEAT).bind(holdings.session).bind(holdings.memberships());
                    let row = beating.fetch_one(listener).await.map_err(failed)?;
                    if row.try_get::<i32, _>("pid").map_err(failed)? != pid {
                        return Err(holdings.shared_connection());
                    }
                    if let Some(there) = row.try_get::<Option<Vec<Vec<u8>>>, _>("memberships").map_err(failed)? {
                        holdings.robbed_of_all_but(&there.iter().filter_map(|id| request_id(id)).collect());
                    }
                    Ok(Vec::new())
                })
            })
            .await
    }

    async fn owned(&self) -> Result<Owned> {
        Ok(self.opened()?.holdings.owned())
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        const DOING: &str = "ask for a sign of life";
        // A write costs no more than a read: what a lock writes does not wait for a disk.
        const PROBE: &str = "SELECT 1";
        let Some(open) = self.open.get() else {
            return self.client.ask(DOING, Repeat::Allowed, || sqlx::query(PROBE)).await.map(drop);
        };
        open.connection
            .run(open.limit, DOING, |listener| {
                Box::pin(async move {
                    let asked = sqlx::query(PROBE).execute(listener).await;
                    asked.map(drop).map_err(|error| error::on_session(error, DOING))
                })
            })
            .await
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::check_up(&self.client).await
    }

    /// Frees all that the session owns, and ends its connections.
    async fn close(&self) -> Result<()> {
        const DOING: &str = "close the session";
        const CLOSE: &str =
            "SELECT CASE WHEN pg_backend_pid() = $1 THEN pg_advisory_unlock_all() IS NOT NULL ELSE false END";
        const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_locks \
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND mode = 'ExclusiveLock' \
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
            AND ((classid::bigint << 32) | objid::bigint) = $1";
        let mut result = Ok(());
        if let Some(open) = self.open.get() {
            open.end_waits();
            if !open.connection.is_dead() {
                result = bury(open).await;
                if result.is_ok() {
                    let pid = open.connection.pid;
                    let closing = open.connection.run(open.limit, DOING, move |listener| {
                        Box::pin(async move {
                            let closing = sqlx::query_scalar::<_, bool>(CLOSE).bind(pid).fetch_one(listener);
                            let closed = closing.await.map_err(|error| error::of(error, DOING))?;
                            if closed { Ok(()) } else { Err(error::behind_pooler()) }
                        })
                    });
                    result = closing.await.map_err(error::outside);
                }
                if result.is_err() {
                    // Its connection hangs: the server is told by another one, if that gets through.
                    let number = open.holdings.session;
                    result = self.client.apart(DOING, sqlx::query(TERMINATE).bind(number)).await;
                }
            }
            open.connection.cut();
        }
        self.client.close().await;
        result
    }
}

/// Takes away the session's rows, by small steps: they go before the locks, so that a row is never there without its lock. What the server
/// refuses is left to those that clear up; an error says that it does not answer.
async fn bury(open: &OpenSession) -> Result<()> {
    const DOING: &str = "take away the session's rows";
    const BURY: &str = "SELECT bury(ARRAY[$1]::bigint[], 500)";
    let number = open.holdings.session;
    loop {
        let burying = open.connection.run(open.limit, DOING, move |listener| {
            Box::pin(async move {
                // For what the dead have left no other member may come.
                let _ = sweep::step(&mut *listener, number, Duration::ZERO).await;
                match sqlx::query_scalar::<_, bool>(BURY).bind(number).fetch_one(listener).await {
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
