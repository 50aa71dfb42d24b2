//! The connection of those who only look: it reads, changes what belongs to nobody, and listens. It owns nothing, is made when
//! it is needed, and is made anew when it is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::postgres::{PgArguments, PgNotification, PgRow};
use sqlx::query::Query;
use sqlx::{Acquire as _, Executor as _, PgConnection, Postgres};
use tokio::sync::Mutex;
use tooz_core::{Error, ErrorKind, Result};

use crate::holdings::Holdings;
use crate::layout::{Found, Need};
use crate::link::{Link, SharedLink};
use crate::options::Settings;
use crate::setup::{self, Role};
use crate::watch::{Audience, attend};
use crate::{error, schema};

pub(crate) type Question = Query<'static, Postgres, PgArguments>;

pub(crate) struct Look {
    pub(crate) settings: Settings,
    seat: Mutex<Option<Seat>>,
    /// The tables were there, as this version makes them, and this user may own something in them.
    is_current: AtomicBool,
}

/// One connection, and who hears what is told to it.
#[derive(Clone)]
pub(crate) struct Seat {
    pub(crate) link: SharedLink,
    pub(crate) audience: Arc<Audience>,
}

/// Whether a question may be put a second time when the first has got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It only reads, or tells what may be told twice.
    Allowed,
    /// Its second answer would be another one.
    Forbidden,
}

impl Look {
    /// Connects, which shows at once whether the server will do.
    pub(crate) async fn open(settings: &Settings) -> Result<Self> {
        setup::knock(settings).await?;
        let look = Look { settings: settings.clone(), seat: Mutex::new(None), is_current: AtomicBool::new(false) };
        look.seat().await?;
        Ok(look)
    }

    /// The connection, if need be a new one.
    pub(crate) async fn seat(&self) -> Result<Seat> {
        let mut seat = self.seat.lock().await;
        if let Some(seat) = seat.as_ref().filter(|seat| !seat.link.is_dead()) {
            return Ok(seat.clone());
        }
        let audience = Arc::new(Audience::default());
        let hearing = Arc::clone(&audience);
        let link = Arc::new(Link::open(&self.settings, Role::Look, move |word| hearing.tell(&word)).await?);
        // It ends with the link, of which it keeps no hold.
        tokio::spawn(attend(Arc::downgrade(&link), Arc::clone(&audience), self.settings.clone()));
        Ok(seat.insert(Seat { link, audience }).clone())
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
            let Seat { link, .. } = self.seat().await?;
            let (asked, settings) = (question(), self.settings.clone());
            let answer = link
                .run(self.settings.statement_timeout, doing, move |connection| {
                    Box::pin(async move {
                        match asked.fetch_all(&mut *connection).await {
                            Ok(rows) => Ok(Some(rows)),
                            Err(error) if error::is_missing(&error) => {
                                let plain =
                                    connection.acquire().await.map_err(|error| error::on_session(error, doing))?;
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
                    link.cut();
                    if repeats == 0 {
                        return Err(error::outside(error));
                    }
                    repeats -= 1;
                }
                Err(error) => {
                    if error.kind() == ErrorKind::TimedOut {
                        // What hangs would let all others wait.
                        link.cut();
                    }
                    return Err(error);
                }
                Ok(None) => {
                    self.is_current.store(false, Ordering::Release);
                    return Ok(None);
                }
                answer => return answer,
            }
        }
    }

    /// Creates the tables if they are missing, and brings them up to date. What was found in order once is not looked for again: whoever finds
    /// it missing says so.
    pub(crate) async fn ensure_tables(&self) -> Result<()> {
        if self.is_current.load(Ordering::Acquire) {
            return Ok(());
        }
        let Seat { link, .. } = self.seat().await?;
        let settings = self.settings.clone();
        link.run(self.settings.connect_timeout, "look for the tables", move |connection| {
            Box::pin(async move {
                let connection = connection.acquire().await.map_err(|error| error::of(error, "look for the tables"))?;
                schema::ensure(connection, &settings).await
            })
        })
        .await
        .map_err(error::outside)?;
        self.is_current.store(true, Ordering::Release);
        Ok(())
    }

    /// What is in the schema.
    pub(crate) async fn found(&self) -> Result<Found> {
        const DOING: &str = "look for the tables";
        let Seat { link, .. } = self.seat().await?;
        let settings = self.settings.clone();
        link.run(self.settings.statement_timeout, DOING, move |connection| {
            Box::pin(async move {
                let connection = connection.acquire().await.map_err(|error| error::of(error, DOING))?;
                Found::look(connection, &settings).await
            })
        })
        .await
        .map_err(error::outside)
    }

    /// Gives the connection away for a session to live on, where nobody uses it: most members that own something have nothing to
    /// look for, and so make do with one.
    async fn give_away(&self) -> Option<Seat> {
        let mut seat = self.seat.lock().await;
        seat.take_if(|seat| seat.audience.is_empty() && Arc::strong_count(&seat.link) == 1 && !seat.link.is_dead())
    }

    /// A connection for a session: that of those who look, or a new one.
    pub(crate) async fn for_session(&self, holdings: &Arc<Holdings>) -> Result<SharedLink> {
        const DOING: &str = "set the session's connection up";
        let Some(Seat { link, audience }) = self.give_away().await else {
            let audience = Audience::default();
            audience.belongs_to(holdings);
            let news = move |word: PgNotification| audience.tell(&word);
            return Ok(Arc::new(Link::open(&self.settings, Role::Session, news).await?));
        };
        audience.belongs_to(holdings);
        let settings = self.settings.clone();
        link.run(self.settings.connect_timeout, DOING, move |connection| {
            Box::pin(async move {
                let connection = connection.acquire().await.map_err(|error| error::of(error, DOING))?;
                setup::begin(connection, &settings, Role::Session).await
            })
        })
        .await
        .map_err(error::outside)?;
        Ok(link)
    }

    /// One question by a connection of its own, for when the others may hang.
    pub(crate) async fn apart(&self, doing: &'static str, question: Question) -> Result<()> {
        let (mut connection, _pid) = setup::connect(&self.settings, Role::Look).await?;
        let limit = self.settings.statement_timeout;
        match tokio::time::timeout(limit, connection.execute(question)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error::of(error, doing)),
            Err(_) => Err(error::timed_out(limit, doing)),
        }
    }

    /// Closes the connection, and with it ends all watches.
    pub(crate) async fn close(&self) {
        if let Some(seat) = self.seat.lock().await.take() {
            seat.link.cut();
            seat.audience.dismiss();
        }
    }
}

/// Why something in the schema was not found, or not allowed: fine where the tables are not there yet.
async fn explain(connection: &mut PgConnection, settings: &Settings, error: Error) -> Result<()> {
    let found = Found::look(connection, settings).await?;
    if !found.has_tables {
        return Ok(());
    }
    found.refuse_foreign(settings)?;
    found.refuse_lacking(settings, Need::Read)?;
    found.refuse_lacking(settings, Need::Own)?;
    Err(error)
}
