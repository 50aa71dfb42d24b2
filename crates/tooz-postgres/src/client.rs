//! The client of a coordinator: one connection after another, for what needs no session. It reads, changes what belongs to no session, and
//! listens; it owns nothing, is made when it is needed and anew when it is lost, and repeats what may be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Acquire as _, Executor as _, PgConnection, Postgres};
use tokio::sync::Mutex;
use tooz_core::{Error, ErrorKind, Result};

use crate::asking::Asking;
use crate::connection::Connection;
use crate::dispatch::Dispatch;
use crate::error;
use crate::holdings::Holdings;
use crate::options::Settings;
use crate::schema::{self, Purpose, Schema};
use crate::setup::{self, Role};
use crate::sweep;

/// For how long a layout that was seen is not looked at again.
const LAYOUT_HOLDS: Duration = Duration::from_mins(1);

pub(crate) type Question = Query<'static, Postgres, PgArguments>;

pub(crate) struct Client {
    pub(crate) settings: Settings,
    current: Mutex<Option<Arc<Connection>>>,
    /// The tables were there, as this version makes them, and this user may own something in them.
    has_tables: AtomicBool,
    /// On which connection, and when, the schema was last seen to be of a layout that this version speaks.
    layout_seen: tooz_core::driver::Mutex<Option<(i32, Instant)>>,
    /// Which sessions were asked what they hold.
    pub(crate) asking: Asking,
}

/// Whether a question may be put a second time when the first has got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or tells what may be told twice.
    Allowed,
    /// Its second answer would be another one.
    Forbidden,
}

impl Client {
    /// Connects, which shows at once whether the server will do.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        setup::knock(settings).await?;
        let client = Client {
            settings: settings.clone(),
            current: Mutex::new(None),
            has_tables: AtomicBool::new(false),
            layout_seen: tooz_core::driver::Mutex::default(),
            asking: Asking::default(),
        };
        client.connection().await?;
        Ok(client)
    }

    /// The connection, if need be a new one.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_dead()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(Connection::open(&self.settings, Role::Client, Dispatch::default()).await?);
        let (weak, dispatch) = (Arc::downgrade(&connection), Arc::clone(&connection.dispatch));
        tokio::spawn(sweep::while_watched(weak, dispatch, self.settings.clone()));
        Ok(Arc::clone(current.insert(connection)))
    }

    /// Asks in a schema of a layout that this version speaks: in another one nothing is read or written. That is looked at once for each
    /// connection, and again after a while.
    pub(crate) async fn consult(
        &self,
        doing: &'static str,
        repeat: Repeat,
        question: impl Fn() -> Question + Send + Sync,
    ) -> Result<Option<Vec<PgRow>>> {
        self.refuse_foreign().await?;
        self.ask(doing, repeat, question).await
    }

    /// Fails in a schema of another layout.
    pub(crate) async fn refuse_foreign(&self) -> Result<()> {
        let pid = self.connection().await?.pid;
        let seen = *self.layout_seen.lock();
        if seen.is_some_and(|(of, since)| of == pid && since.elapsed() < LAYOUT_HOLDS) {
            return Ok(());
        }
        self.schema().await?.refuse_foreign(&self.settings)?;
        *self.layout_seen.lock() = Some((pid, Instant::now()));
        Ok(())
    }

    /// Asks. `None`: the tables are not there.
    pub(crate) async fn ask(
        &self,
        doing: &'static str,
        repeat: Repeat,
        question: impl Fn() -> Question + Send + Sync,
    ) -> Result<Option<Vec<PgRow>>> {
        let mut repeats = u8::from(repeat == Repeat::Allowed);
        loop {
            let connection = self.connection().await?;
            let (asked, settings) = (question(), self.settings.clone());
            let answer = connection
                .run(self.settings.statement_timeout, doing, move |listener| {
                    Box::pin(async move {
                        match asked.fetch_all(&mut *listener).await {
                            Ok(rows) => Ok(Some(rows)),
                            Err(error) if error::is_missing(&error) => {
                                let plain =
                                    listener.acquire().await.map_err(|error| error::on_session(error, doing))?;
                                explain(plain, &settings, error::of(error, doing)).await.map(|()| None)
                            }
                            // `Lost` is the word for the end of this connection, which is not the session's.
                            Err(error) => Err(error::on_session(error, doing)),
                        }
                    })
                })
                .await;
            match answer {
                Err(error) if error.kind() == ErrorKind::Lost => {
                    connection.cut();
                    if repeats == 0 {
                        return Err(error::outside(error));
                    }
                    repeats -= 1;
                }
                Err(error) => {
                    if error.kind() == ErrorKind::TimedOut {
                        // What hangs would let all others wait.
                        connection.cut();
                    }
                    return Err(error);
                }
                Ok(None) => {
                    self.has_tables.store(false, Ordering::Release);
                    return Ok(None);
                }
                answer => return answer,
            }
        }
    }

    /// Creates the tables if they are missing, and brings them up to date. What was found in order once is not looked for again: a question
    /// that finds it missing says so.
    pub(crate) async fn ensure_tables(&self) -> Result<()> {
        if self.has_tables.load(Ordering::Acquire) {
            return Ok(());
        }
        let connection = self.connection().await?;
        let settings = self.settings.clone();
        connection
            .run(self.settings.connect_timeout, "look for the tables", move |listener| {
                Box::pin(async move {
                    let plain = listener.acquire().await.map_err(|error| error::of(error, "look for the tables"))?;
                    schema::ensure(plain, &settings).await
                })
            })
            .await
            .map_err(error::outside)?;
        self.has_tables.store(true, Ordering::Release);
        Ok(())
    }

    /// What is in the schema.
    pub(crate) async fn schema(&self) -> Result<Schema> {
        const DOING: &str = "look for the tables";
        let connection = self.connection().await?;
        let settings = self.settings.clone();
        connection
            .run(self.settings.statement_timeout, DOING, move |listener| {
                Box::pin(async move {
                    let plain = listener.acquire().await.map_err(|error| error::of(error, DOING))?;
                    Schema::look(plain, &settings).await
                })
            })
            .await
            .map_err(error::outside)
    }

    /// Gives the connection away for a session to live on, where it is not used: most members that own something have nothing to
    /// look for, and so make do with one.
    async fn give_away(&self) -> Option<Arc<Connection>> {
        self.current.lock().await.take_if(|connection| {
            connection.dispatch.is_empty() && Arc::strong_count(connection) == 1 && !connection.is_dead()
        })
    }

    /// A connection for a session: the one that is there, or a new one.
    pub(crate) async fn for_session(&self, holdings: &Arc<Holdings>) -> Result<Arc<Connection>> {
        const DOING: &str = "set the session's connection up";
        let Some(connection) = self.give_away().await else {
            let dispatch = Dispatch::default();
            dispatch.belongs_to(holdings);
            return Ok(Arc::new(Connection::open(&self.settings, Role::Session, dispatch).await?));
        };
        connection.dispatch.belongs_to(holdings);
        let settings = self.settings.clone();
        connection
            .run(self.settings.connect_timeout, DOING, move |listener| {
                Box::pin(async move {
                    let plain = listener.acquire().await.map_err(|error| error::of(error, DOING))?;
                    setup::begin(plain, &settings, Role::Session).await
                })
            })
            .await
            .map_err(error::outside)?;
        Ok(connection)
    }

    /// One question by a connection of its own, for when the others may hang.
    pub(crate) async fn apart(&self, doing: &'static str, question: Question) -> Result<()> {
        let (mut connection, _pid) = setup::connect(&self.settings, Role::Client).await?;
        let limit = self.settings.statement_timeout;
        match tokio::time::timeout(limit, connection.execute(question)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error::of(error, doing)),
            Err(_) => Err(error::timed_out(limit, doing)),
        }
    }

    /// Closes the connection, and with it ends all watches.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.current.lock().await.take() {
            connection.cut();
            connection.dispatch.end();
        }
    }
}

/// Why something in the schema was not found, or not allowed: fine where the tables are not there yet.
async fn explain(connection: &mut PgConnection, settings: &Settings, error: Error) -> Result<()> {
    let found = Schema::look(connection, settings).await?;
    if !found.has_tables {
        return Ok(());
    }
    found.refuse_foreign(settings)?;
    found.refuse_lacking(settings, Purpose::Read)?;
    found.refuse_lacking(settings, Purpose::Own)?;
    Err(error)
}
