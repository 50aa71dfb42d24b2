//! The session: a key at the server that lives as long as its heartbeats.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};
use tooz_core::driver::{ConnectArgs, ConnectFuture, Owned, RequestId, Session, async_trait};
use tooz_core::{Checkup, Error, ErrorKind, Probe, Result, Terms};

use crate::client::{Client, Lane};
use crate::connection::Connection;
use crate::error::{lost, stood_still, strange};
use crate::layout::VERSION;
use crate::reconnection;
use crate::reply::{Batch, Flags, KEPT, Reply};
use crate::server::Server;
use crate::server_clock::{ClockReading, TICK, kept};
use crate::upkeep;

/// What a heartbeat that is counted may be wrong by.
const MARGIN: Duration = Duration::from_millis(250);

pub(crate) struct MemcachedSession {
    pub(crate) client: Arc<Client>,
    /// Heartbeats have a connection of their own, so that no request is before them.
    beats: tokio::sync::Mutex<Option<Arc<Connection>>>,
    tasks: [AbortHandle; 2],
}

pub(crate) fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let (client, reconnection) = reconnection::start(&args).await?;
        let upkeep = tokio::spawn(upkeep::keep_up(Arc::clone(&client))).abort_handle();
        Ok(Arc::new(MemcachedSession { client, beats: tokio::sync::Mutex::default(), tasks: [reconnection, upkeep] })
            as Arc<dyn Session>)
    })
}

impl MemcachedSession {
    /// Closes the connections for good.
    fn end(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        self.client.end();
        if let Ok(mut beats) = self.beats.try_lock()
            && let Some(connection) = beats.take()
        {
            connection.end();
        }
    }

    /// Sees that the namespace is kept in this layout. What is missing alone is written: a full server deletes what it can't write.
    async fn check_layout(&self) -> Result<()> {
        let (client, version) = (&self.client, self.client.layout.version());
        let mut found = client.read(&version).await?.text;
        if found.is_none() {
            let batch = Batch::default().add(&version, VERSION, 0).get(&version);
            let mut done = client.run(batch, Lane::Duty).await?;
            done.next().was_done()?;
            found = done.next().value()?.map(|(text, _)| text);
        }
        let found = String::from_utf8_lossy(&found.unwrap_or_default()).into_owned();
        if found == VERSION { Ok(()) } else { Err(Error::foreign_layout(&client.namespace, found, VERSION)) }
    }

    /// Makes the session's key, by a request that is not repeated: a session whose key is missing is gone for ever. Answers whether the
    /// server's clock goes right.
    async fn make(&self, connection: &Connection, deadline: Instant) -> Result<bool> {
        let client = &self.client;
        let batch = Batch::default().get(&client.layout.clock()).add(&client.session_key, "", kept(client.timeout));
        let timed = TimedReply::run(connection, &batch, deadline).await?;
        if timed.done.clone().was_done()?.is_none() {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "there is a session of the same number; the next has another",
            ));
        }
        // The clock that was read last is that of the server to which requests go.
        if !client.clock.is_read_by(timed.clock.as_ref().map(|(mark, _)| mark.as_slice()))
            && let Err(error) = client.must_lead_there(connection, deadline).await
        {
            // It is of no use there, and would end by itself.
            let _ = connection.run(&Batch::default().delete(&client.session_key), deadline).await;
            return Err(error);
        }
        // Not before that: the other session is not this one's to end.
        client.set_open();
        self.judge(connection, timed, deadline).await
    }

    /// One heartbeat by the connection that is there. Answers whether it counts: whether the server's clock goes right.
    async fn beat_by(&self, connection: &Connection, deadline: Instant) -> Result<bool> {
        let client = &self.client;
        let batch = Batch::default().get(&client.layout.clock()).touch(&client.session_key, kept(client.timeout));
        let timed = TimedReply::run(connection, &batch, deadline).await?;
        if !timed.done.clone().found()? {
            client.set_gone();
            return Err(lost());
        }
        self.judge(connection, timed, deadline).await
    }

    /// Whether the server's clock goes right, as it was read. Where it can't be read the key for that is made, and the next reading begins with that.
    async fn judge(&self, connection: &Connection, timed: TimedReply, deadline: Instant) -> Result<bool> {
        let TimedReply { clock, sent, received, .. } = timed;
        let Some((mark, flags)) = clock else {
            let mark = format!("{:016x}", fastrand::u64(..));
            connection.run(&Batch::default().add(&self.client.layout.clock(), &mark, KEPT), deadline).await?;
            return Ok(false);
        };
        let mark = String::from_utf8_lossy(&mark);
        Ok(self.client.clock.read(&ClockReading { mark: &mark, left: flags.left, sent, received }))
    }
}

/// What was answered to a look at the clock and to what is counted from it, and when.
struct TimedReply {
    clock: Option<(Vec<u8>, Flags)>,
    done: Reply,
    sent: Instant,
    received: Instant,
}

impl TimedReply {
    async fn run(connection: &Connection, batch: &Batch, deadline: Instant) -> Result<Self> {
        let sent = Instant::now();
        let replies = connection.run(batch, deadline).await?;
        let received = Instant::now();
        let [clock, done] = <[Reply; 2]>::try_from(replies).map_err(strange)?;
        Ok(TimedReply { clock: clock.value()?, done, sent, received })
    }
}

#[async_trait]
impl Session for MemcachedSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.client.timeout), self.client.server().characteristics()).margin(MARGIN)
    }

    /// Made by the connection for heartbeats: where the server takes no second connection there is no session that could be lost for that.
    async fn open(&self) -> Result<()> {
        self.check_layout().await?;
        let deadline = Instant::now() + self.client.connect_limit;
        let mut beats = self.beats.lock().await;
        let connection = Connection::open(&self.client.settings, 0, deadline).await?;
        *beats = Some(Arc::clone(&connection));
        let mut goes_right = self.make(&connection, deadline).await?;
        // The server may have counted from a clock that stood still. When that has ticked, a heartbeat counts from the right one.
        while !goes_right {
            sleep(TICK).await;
            goes_right = self.beat_by(&connection, deadline).await?;
        }
        Ok(())
    }

    async fn beat(&self) -> Result<Vec<RequestId>> {
        let deadline = Instant::now() + self.client.limit;
        let mut beats = self.beats.lock().await;
        let connection = match beats.take().filter(|connection| !connection.has_ended()) {
            Some(connection) => connection,
            None => Connection::open(&self.client.settings, 0, deadline).await?,
        };
        match self.beat_by(&connection, deadline).await {
            Err(error) if !matches!(error.kind(), ErrorKind::Lost) && connection.has_ended() => return Err(error),
            result => {
                *beats = Some(connection);
                if result? { Ok(Vec::new()) } else { Err(stood_still()) }
            }
        }
    }

    /// After a reconnect everything is looked at: what the server does not have is told as lost.
    async fn owned(&self) -> Result<Owned> {
        let (held, joined) = (self.client.holdings.held(), self.client.holdings.joined());
        self.client.look_after(&held, &joined).await?;
        Ok(Owned::new(held.into_iter().map(|(request, grant)| (grant.lock, request)).collect()))
    }

    async fn probe(&self, _probe: Probe) -> Result<()> {
        // A write costs the server no more than a question.
        self.client.run(Batch::default().nothing(), Lane::Wish).await.map(drop)
    }

    async fn check_up(&self) -> Result<Checkup> {
        let mut done = self.client.run(Server::questions(), Lane::Wish).await?;
        let server = Server::read(|| done.next())?;
        Ok(server.check_up(&self.client.settings))
    }

    async fn close(&self) -> Result<()> {
        // A wait must not keep the close waiting.
        self.client.end_waits();
        // What has ended already leaves nothing to be said: the server may have been restarted, and not be asked yet.
        if self.client.is_open() {
            self.client.hand_over().await?;
        }
        self.end();
        Ok(())
    }
}

impl Drop for MemcachedSession {
    fn drop(&mut self) {
        self.end();
    }
}
