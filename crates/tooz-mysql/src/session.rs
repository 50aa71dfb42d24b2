//! The session: how it connects, opens, beats and closes.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tooz_core::driver::{ConnectArgs, ConnectFuture, Owned, Reporter, RequestId, Session, async_trait};
use tooz_core::{Characteristic, Characteristics, Checkup, Error, ErrorKind, MemberId, Outcome, Probe, Result, Terms};

use crate::client::{Client, Repeat};
use crate::connection::Connection;
use crate::fence::{Fence, MASK, RESERVED};
use crate::holdings::Holdings;
use crate::layout::{Cases, LAYOUT, Layout, Name, fresh_session};
use crate::open_session::OpenSession;
use crate::options::Settings;
use crate::packet::{name, seconds};
use crate::record::NOW;
use crate::setup::statement_limit;
use crate::{checkup, error, grants, memberships, schema, server, shares, sweep, upkeep, watchdog};

/// What one primary server gives. Each is defended in the README.
pub(crate) const BEST: Characteristics = Characteristics::FULL_SERVICE
    .and(Characteristics::MANY_HOSTS)
    .and(Characteristics::LINEARIZABLE)
    .and(Characteristics::SAME_VIEW)
    .without(Characteristic::BreakableLocks)
    .without(Characteristic::PushedWatches);

/// The clocks of two machines and the timers of the server are not finer than this.
const MARGIN: Duration = Duration::from_millis(50);

pub(crate) struct MySqlSession {
    member: MemberId,
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
        let cases = client.settings.cases.unwrap_or(Cases::Alike);
        let session = MySqlSession {
            layout: Layout::new(&settings.database, args.namespace.as_str(), cases),
            member: args.member,
            reporter: args.reporter,
            client,
            open: OnceLock::new(),
        };
        Ok(Arc::new(session) as Arc<dyn Session>)
    })
}

/// How an attempt to enter has ended.
enum EntranceEnd {
    /// The session lives, with this number of its connection.
    In(i64, Fence),
    /// The tables are not there.
    NoTables,
}

impl MySqlSession {
    /// What the session has, if it is open and lives.
    pub(crate) fn opened(&self) -> Result<&OpenSession> {
        let open = self.open.get().ok_or_else(|| Error::new(ErrorKind::Backend, "the session was not opened"))?;
        if open.connection.is_dead() { Err(error::lost("ask the session")) } else { Ok(open) }
    }

    /// Enters a session of that name, which lives on this connection from then on.
    async fn enter(&self, connection: &Connection, session: &Name) -> Result<(i64, Fence)> {
        const DOING: &str = "open a session";
        let settings = self.client.settings.clone();
        let (entering, name) = (enter(&self.layout, &self.member, session, &settings), session.clone());
        connection
            .run(settings.connect_timeout, DOING, move |packets| {
                Box::pin(async move {
                    for _ in 0..2 {
                        let entered = match packets.ask(&entering).await {
                            Err(error) if error::is_missing(&error) => EntranceEnd::NoTables,
                            Err(error) => return Err(error::of(error, DOING)),
                            Ok(answer) => entered(&answer, &settings, &name)?,
                        };
                        match entered {
                            EntranceEnd::In(number, fence) => return Ok((number, fence)),
                            // They were there when they were last looked for.
                            EntranceEnd::NoTables => schema::ensure(packets, &settings).await?,
                        }
                    }
                    Err(Error::new(ErrorKind::Backend, format!("{DOING}: the tables were made, and are not there")))
                })
            })
            .await
            .map_err(error::outside)
    }
}

/// The statements by which a session enters: it takes its own named lock, and as the first one since all others have ended it lifts the tokens.
/// Where what was written of them is lost while others live, it is for those to write it once more: they know up to where the tokens have come.
/// While `lifting` is held no other session opens, so none takes a token meanwhile.
/// The limit of a statement would end the wait for that, on MariaDB without an error: it is off meanwhile.
fn enter(layout: &Layout, member: &MemberId, session: &str, settings: &Settings) -> String {
    let (sessions, fence, kept) = (layout.table("sessions"), layout.table("fence"), layout.table("layout"));
    let (lifting, patience) = (layout.lifting(), seconds(settings.connect_timeout));
    let (unlimited, limited) = (statement_limit(Duration::ZERO), statement_limit(settings.statement_timeout));
    let (namespace, member) = (name(layout.namespace()), name(member.as_str()));
    format!(
        "DO RELEASE_ALL_LOCKS(); {unlimited}; \
         SET @tooz_in = IF(GET_LOCK('{lifting}', {patience}) = 1, GET_LOCK('{session}', 0), 0); \
         SET @tooz_in = IF((SELECT layout FROM {kept} WHERE one = 1) = {LAYOUT}, @tooz_in, 0); \
         INSERT INTO {sessions} (session, namespace, member, conn, since) \
             SELECT '{session}', {namespace}, {member}, CONNECTION_ID(), {NOW} FROM DUAL WHERE @tooz_in = 1; \
         SET @tooz_alone = @tooz_in = 1 AND NOT EXISTS \
             (SELECT 1 FROM {sessions} WHERE session <> '{session}' AND IS_USED_LOCK(session) = conn); \
         SET @tooz_counter = UUID_SHORT() & {MASK}; \
         INSERT INTO {fence} (one, sub, reserved) SELECT 1, CAST(@tooz_counter AS SIGNED) - {NOW}, {NOW} + {RESERVED} FROM DUAL WHERE @tooz_alone = 1 \
             ON DUPLICATE KEY UPDATE sub = CAST(@tooz_counter AS SIGNED) - GREATEST(reserved + 1, {NOW}), reserved = GREATEST(reserved + 1, {NOW}) + {RESERVED}; \
         SELECT @tooz_in, CONNECTION_ID(), (SELECT sub FROM {fence} WHERE one = 1 AND reserved > 0), (SELECT layout FROM {kept} WHERE one = 1); \
         DO RELEASE_LOCK('{lifting}'); {limited}"
    )
}

fn entered(answer: &crate::answer::ResultSets, settings: &Settings, session: &str) -> Result<EntranceEnd> {
    const DOING: &str = "open a session";
    const LAST: usize = 8;
    let failed = |error| error::of(error, DOING);
    let number = |column| answer.number(LAST, column).map_err(failed);
    match number(3)? {
        Some(LAYOUT) => {}
        Some(other) => return Err(schema::foreign(&settings.database, &other.to_string())),
        None => return Ok(EntranceEnd::NoTables),
    }
    if number(0)? != Some(1) {
        let word = format!("{DOING}: others are opening theirs, or {session} is taken");
        return Err(Error::new(ErrorKind::Unavailable, word).with_outcome(Outcome::NotApplied));
    }
    if let (Some(connection), Some(sub)) = (number(1)?, number(2)?) {
        return Ok(EntranceEnd::In(connection, Fence::new(sub)));
    }
    let word = "the row of tooz_fence was taken away; those that live write it once more with their next heartbeat";
    Err(Error::new(ErrorKind::Unavailable, format!("{DOING}: {word}")).with_outcome(Outcome::NotApplied))
}

/// A heartbeat by the session's own connection.
async fn beat(open: &OpenSession) -> Result<Vec<RequestId>> {
    const DOING: &str = "beat";
    let holdings = Arc::clone(&open.holdings);
    let beat = format!("SELECT {}, CONCAT(@@GLOBAL.read_only)", holdings.is_ours());
    open.connection
        .run_first(open.limit, DOING, move |packets| {
            Box::pin(async move {
                let failed = |error| error::on_session(error, DOING);
                let answer = packets.ask(&beat).await.map_err(failed)?;
                if !answer.is(0, 0).map_err(failed)? {
                    holdings.shared_connection();
                    return Err(error::lost(DOING));
                }
                if server::is_on(&answer.text(0, 1).map_err(failed)?.unwrap_or_default()) {
                    return Err(holdings.read_only());
                }
                if holdings.has_memberships() {
                    holdings.news.notify_one();
                }
                holdings.beats.send_modify(|beats| *beats += 1);
                Ok(Vec::new())
            })
        })
        .await
}

#[async_trait]
impl Session for MySqlSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.client.settings.session_timeout), BEST).margin(MARGIN)
    }

    async fn open(&self) -> Result<()> {
        let settings = &self.client.settings;
        self.client.ensure_tables().await?;
        let session = fresh_session();
        let connection = self.client.for_session().await?;
        let (number, fence) = self.enter(&connection, &session).await?;
        let (member, layout, reporter) = (self.member.clone(), self.layout.clone(), self.reporter.clone());
        let holdings = Arc::new(Holdings::new(session, number, member, layout, fence, reporter));
        let open = OpenSession::new(connection, holdings, settings);
        let (connection, holdings) = (&open.connection, &open.holdings);
        open.keep(watchdog::stand(Arc::clone(connection), Arc::clone(holdings), settings.clone()));
        open.keep(upkeep::keep_listed(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(grants::keep_written(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(grants::keep_checked(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(shares::keep_few(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(shares::keep_checked(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(memberships::keep_checked(Arc::clone(connection), Arc::clone(holdings), open.limit));
        open.keep(sweep::from_time_to_time(Arc::clone(connection), Arc::clone(holdings), open.limit));
        let _ = self.open.set(open);
        Ok(())
    }

    /// Touches no table, so that no lock on one of them is an obstacle. What stands in the tables is looked at behind it. Where the session's connection is at
    /// work for long, a witness is asked.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        let open = self.opened()?;
        let pause = open.limit / 2;
        let beating = beat(open);
        tokio::pin!(beating);
        if let Ok(beaten) = tokio::time::timeout(pause, &mut beating).await {
            open.witness.dismiss();
            return beaten;
        }
        loop {
            let is_at_work = tokio::select! {
                biased;
                beaten = &mut beating => return beaten,
                said = open.witness.says_at_work(&open.holdings) => said?,
            };
            if is_at_work {
                return Ok(Vec::new());
            }
            if let Ok(beaten) = tokio::time::timeout(pause, &mut beating).await {
                return beaten;
            }
        }
    }

    async fn owned(&self) -> Result<Owned> {
        Ok(self.opened()?.holdings.owned())
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        const DOING: &str = "ask for a sign of life";
        // An uncontended lock writes nothing.
        const PROBE: &str = "SELECT 1";
        let Some(open) = self.open.get() else {
            return self.client.ask(DOING, Repeat::Allowed, PROBE.to_owned()).await.map(drop);
        };
        open.connection
            .run(open.limit, DOING, |packets| {
                Box::pin(async move {
                    let asked = packets.ask(PROBE).await;
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
        let mut result = Ok(());
        if let Some(open) = self.open.get() {
            open.end_waits();
            if !open.connection.is_dead() {
                result = sweep::bury_own(open).await;
                if result.is_ok() {
                    let ours = open.holdings.is_ours();
                    let close = format!("SELECT IF({ours}, RELEASE_ALL_LOCKS(), NULL)");
                    let closing = open.connection.run(open.limit, DOING, move |packets| {
                        Box::pin(async move {
                            let failed = |error| error::of(error, DOING);
                            let answer = packets.ask(&close).await.map_err(failed)?;
                            match answer.number(0, 0).map_err(failed)? {
                                Some(_) => Ok(()),
                                None => Err(error::behind_pooler()),
                            }
                        })
                    });
                    result = closing.await.map_err(error::outside);
                }
                if result.is_err() {
                    // Its connection hangs: the server is told by another one, if that gets through.
                    let kill = format!("KILL CONNECTION IS_USED_LOCK('{}')", open.holdings.session);
                    result = self.client.apart(DOING, &kill).await;
                    open.connection.cut();
                }
            }
            open.connection.end().await;
        }
        self.client.close().await;
        result
    }
}
