//! The client of a coordinator: one connection after another, for what needs no session. It reads, and changes what belongs to no session; it owns
//! nothing, is made when it is needed and anew when it is lost, and repeats what may be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tooz_core::{ErrorKind, Result};

use crate::answer::ResultSets;
use crate::connection::Connection;
use crate::options::Settings;
use crate::setup::{self, Role};
use crate::{error, schema};

/// For how long a layout that was seen is not looked at again.
const LAYOUT_HOLDS: Duration = Duration::from_mins(1);

pub(crate) struct Client {
    pub(crate) settings: Settings,
    current: Mutex<Option<Arc<Connection>>>,
    /// Since when the present connection has seen that the tables are kept in the layout that this version speaks.
    layout_seen: tooz_core::driver::Mutex<Option<Instant>>,
    /// The tables were there.
    has_tables: AtomicBool,
}

/// Whether a question may be put a second time when the first has got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or tells what may be told twice.
    Allowed,
    /// Its second answer would be another one.
    Forbidden,
}

/// How a question is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Plain,
    Transaction,
}

impl Client {
    /// Connects, which shows at once whether the server will do.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        let mut client = Client {
            settings: settings.clone(),
            current: Mutex::new(None),
            layout_seen: tooz_core::driver::Mutex::default(),
            has_tables: AtomicBool::new(false),
        };
        client.settings.cases = Some(client.connection().await?.cases);
        Ok(client)
    }

    /// The connection, if need be a new one.
    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut current = self.current.lock().await;
        if let Some(connection) = current.as_ref().filter(|connection| !connection.is_dead()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(Connection::open(&self.settings, Role::Client).await?);
        // Another server may answer now, or the same one with other data.
        *self.layout_seen.lock() = None;
        Ok(Arc::clone(current.insert(connection)))
    }

    /// Asks in tables of the layout that this version speaks: in another one nothing is read or written. That is looked at once for each connection,
    /// and again after a while. `None`: the tables are not there.
    pub(crate) async fn consult(
        &self,
        doing: &'static str,
        repeat: Repeat,
        statements: String,
    ) -> Result<Option<ResultSets>> {
        self.refuse_foreign().await?;
        self.ask(doing, repeat, statements).await
    }

    /// Fails where the tables are kept in another layout.
    async fn refuse_foreign(&self) -> Result<()> {
        const DOING: &str = "look in which layout the tables are kept";
        self.connection().await?;
        if self.layout_seen.lock().is_some_and(|since| since.elapsed() < LAYOUT_HOLDS) {
            return Ok(());
        }
        let asked = schema::kept(&self.settings);
        let Some(answer) = self.ask(DOING, Repeat::Allowed, asked).await? else { return Ok(()) };
        if schema::is_ours(&answer, &self.settings)? {
            *self.layout_seen.lock() = Some(Instant::now());
        }
        Ok(())
    }

    /// Asks, in whatever layout. `None`: the tables are not there.
    pub(crate) async fn ask(
        &self,
        doing: &'static str,
        repeat: Repeat,
        statements: String,
    ) -> Result<Option<ResultSets>> {
        self.put(doing, repeat, Form::Plain, statements).await
    }

    /// Does a transaction in tables of the layout that this version speaks, like `consult`, but once.
    pub(crate) async fn transact(&self, doing: &'static str, statements: String) -> Result<Option<ResultSets>> {
        // A connection that was not used may have ended meanwhile. A question that may be put twice finds that out; a transaction would have no answer.
        *self.layout_seen.lock() = None;
        self.refuse_foreign().await?;
        self.put(doing, Repeat::Forbidden, Form::Transaction, statements).await
    }

    async fn put(
        &self,
        doing: &'static str,
        repeat: Repeat,
        form: Form,
        statements: String,
    ) -> Result<Option<ResultSets>> {
        let mut repeats = u8::from(repeat == Repeat::Allowed);
        let statements: Arc<str> = statements.into();
        loop {
            let connection = self.connection().await?;
            let asked = Arc::clone(&statements);
            let answer = connection
                .run(self.settings.statement_timeout, doing, move |packets| {
                    Box::pin(async move {
                        let answered = match form {
                            Form::Plain => packets.ask(&asked).await,
                            Form::Transaction => packets.transact(&asked).await,
                        };
                        match answered {
                            Ok(answer) => Ok(Some(answer)),
                            Err(error) if error::is_missing(&error) => Ok(None),
                            // `Lost` is the word for the end of this connection, which is not the session's.
                            Err(error) => Err(error::on_session(error, doing)),
                        }
                    })
                })
                .await;
            match answer {
                Err(error) if error.kind() == ErrorKind::Lost => {
                    connection.cut();
                    if repeats == 0 && error.outcome() != tooz_core::Outcome::NotApplied {
                        return Err(error::outside(error));
                    }
                    repeats = repeats.saturating_sub(1);
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

    /// Creates the tables if they are missing. What was found in order once is not looked for again: a question that finds it missing says so.
    pub(crate) async fn ensure_tables(&self) -> Result<()> {
        if self.has_tables.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut ensured = self.ensure().await;
        if ensured.as_ref().is_err_and(|error| error.kind() == ErrorKind::Lost) {
            // Done twice it is what it is done once.
            ensured = self.ensure().await;
        }
        ensured.map_err(error::outside)?;
        self.has_tables.store(true, Ordering::Release);
        Ok(())
    }

    async fn ensure(&self) -> Result<()> {
        let connection = self.connection().await?;
        let settings = self.settings.clone();
        let ensuring = connection.run(self.settings.connect_timeout, "look for the tables", move |packets| {
            Box::pin(async move { schema::ensure(packets, &settings).await })
        });
        let ensured = ensuring.await;
        if ensured.as_ref().is_err_and(|error| error.kind() == ErrorKind::Lost) {
            connection.cut();
        }
        ensured
    }

    /// Gives the connection away for a session to live on, where it is not used: most members that own something have nothing to
    /// look for, and so make do with one.
    async fn give_away(&self) -> Option<Arc<Connection>> {
        self.current.lock().await.take_if(|connection| Arc::strong_count(connection) == 1 && !connection.is_dead())
    }

    /// A connection for a session: the one that is there, or a new one.
    pub(crate) async fn for_session(&self) -> Result<Arc<Connection>> {
        const DOING: &str = "set the session's connection up";
        let Some(connection) = self.give_away().await else {
            return Ok(Arc::new(Connection::open(&self.settings, Role::Session).await?));
        };
        let settings = self.settings.clone();
        let beginning = connection.run(self.settings.connect_timeout, DOING, move |packets| {
            Box::pin(async move { setup::begin(packets, &settings, Role::Session).await.map(drop) })
        });
        match beginning.await {
            Ok(()) => Ok(connection),
            // It has died while it was not used.
            Err(_) if connection.is_dead() => Ok(Arc::new(Connection::open(&self.settings, Role::Session).await?)),
            Err(error) => Err(error::outside(error)),
        }
    }

    /// One question by a connection of its own, for when the others may hang.
    pub(crate) async fn apart(&self, doing: &'static str, statement: &str) -> Result<()> {
        let (mut packets, _) = setup::connect(&self.settings, Role::Client).await?;
        let limit = self.settings.statement_timeout;
        match tokio::time::timeout(limit, packets.ask(statement)).await {
            Ok(Ok(_)) => Ok(()),
            // What was to be ended has ended.
            Ok(Err(error)) if error::is_no_thread(&error) => Ok(()),
            Ok(Err(error)) => Err(error::of(error, doing)),
            Err(_) => Err(error::timed_out(limit, doing)),
        }
    }

    /// Closes the connection.
    pub(crate) async fn close(&self) {
        if let Some(connection) = self.current.lock().await.take() {
            connection.end().await;
        }
    }
}
