//! The session: a key at the server that lives as long as its heartbeats.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;
use tooz_core::driver::{ConnectArgs, ConnectFuture, Owned, RequestId, Session, async_trait};
use tooz_core::{Checkup, Error, ErrorKind, Probe, Result, Terms};

use crate::client::{Client, Lane};
use crate::connection::Connection;
use crate::error::{lost, stood_still, strange};
use crate::layout::VERSION;
use crate::reconnection;
use crate::reply::{Batch, KEPT};
use crate::server::Server;
use crate::server_clock::{Reading, kept};
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

    /// One heartbeat by the connection that is there.
    async fn beat_by(&self, connection: &Connection, deadline: Instant) -> Result<()> {
        let client = &self.client;
        let (clock, session) = (client.layout.clock(), client.session_key.as_str());
        let batch = Batch::default().get(&clock).touch(session, kept(client.timeout));
        let sent = Instant::now();
        let mut replies = connection.run(&batch, deadline).await?.into_iter();
        let received = Instant::now();
        let mut next = || replies.next().ok_or_else(|| strange("nothing"));
        let (clock_read, touched) = (next()?.value()?, next()?);
        if !touched.found()? {
            return Err(lost());
        }
        let Some((mark, flags)) = clock_read else {
            let mark = format!("{:016x}", fastrand::u64(..));
            connection.run(&Batch::default().add(&clock, &mark, KEPT), deadline).await?;
            return Err(stood_still());
        };
        let mark = String::from_utf8_lossy(&mark);
        let goes_right = client.clock.read(&Reading { mark: &mark, left: flags.left, sent, received });
        if goes_right { Ok(()) } else { Err(stood_still()) }
    }
}

#[async_trait]
impl Session for MemcachedSession {
    fn terms(&self) -> Terms {
        Terms::new(Some(self.client.timeout), self.client.server().characteristics()).margin(MARGIN)
    }

    /// The key is made once, by a request that is not repeated: a session whose key is missing is gone for ever.
    async fn open(&self) -> Result<()> {
        let client = &self.client;
        self.check_layout().await?;
        let batch = Batch::default().get(&client.layout.clock()).add(&client.session_key, "", kept(client.timeout));
        let sent = Instant::now();
        let mut done = client.run_once(batch, Lane::Duty).await?;
        let received = Instant::now();
        let (clock, made) = (done.next().value()?, done.next().was_done()?.is_some());
        client.set_open();
        if !made {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "there is a session of the same number; the next has another",
            ));
        }
        if let Some((mark, flags)) = clock {
            let mark = String::from_utf8_lossy(&mark);
            client.clock.read(&Reading { mark: &mark, left: flags.left, sent, received });
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
                result?;
            }
        }
        Ok(Vec::new())
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
        let mut done = self.client.run(Batch::default().nothing().stats().settings(), Lane::Wish).await?;
        let server = Server::read(done.next(), done.next(), done.next())?;
        Ok(server.check_up(&self.client.settings))
    }

    async fn close(&self) -> Result<()> {
        // A wait must not keep the close waiting.
        self.client.end_waits();
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
