//! The witness of a session: one more connection, asked when a heartbeat has to wait because the session's connection is at work, behind a disk that is slow to
//! write for instance. While the server works for a connection it does not count for how long that is silent; it begins with the end of that work. So what
//! was seen at work lives for the session timeout from then on, as behind a heartbeat.
//!
//! Where the server lets no more connections in, the watchdog testifies in its place, which has one already: between two of its waits.

use tokio::sync::oneshot;
use tokio::time::timeout;
use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::holdings::Holdings;
use crate::options::Settings;
use crate::packet::Packets;
use crate::server::is_on;
use crate::setup::{self, Role};
use crate::watchdog;

/// The place where a heartbeat asks the watchdog to testify.
#[derive(Default)]
pub(crate) struct Summons(Mutex<Option<oneshot::Sender<Testimony>>>);

impl Summons {
    /// The later heartbeat is the one that is waited for.
    fn call(&self) -> oneshot::Receiver<Testimony> {
        let (reply, said) = oneshot::channel();
        *self.0.lock() = Some(reply);
        said
    }

    /// Testifies by that connection, if a heartbeat wants it.
    pub(crate) async fn obey(&self, packets: &mut Packets, holdings: &Holdings) -> Result<(), sqlx::Error> {
        let called = self.0.lock().take();
        let Some(reply) = called.filter(|reply| !reply.is_closed()) else { return Ok(()) };
        let _ = reply.send(ask(packets, holdings).await?);
        Ok(())
    }
}

pub(crate) struct Witness {
    settings: Settings,
    /// Its connection, as long as it is called from time to time.
    current: Mutex<Option<Packets>>,
}

impl Witness {
    pub(crate) fn new(settings: Settings) -> Self {
        Witness { settings, current: Mutex::default() }
    }

    /// Whether the server is at work for the session's connection at this moment. What can't be found out is not said. The error says that the session is lost.
    pub(crate) async fn says_at_work(&self, holdings: &Holdings) -> Result<bool> {
        match self.testify(holdings).await {
            Some(Testimony::ReadOnly) => Err(holdings.read_only()),
            said => Ok(said == Some(Testimony::AtWork)),
        }
    }

    async fn testify(&self, holdings: &Holdings) -> Option<Testimony> {
        // What is given up half-way is closed, since its answer would be taken for that to the next question.
        let kept = self.current.lock().take();
        let mut packets = if let Some(packets) = kept {
            packets
        } else if let Ok((packets, _)) = setup::connect(&self.settings, Role::Client).await {
            packets
        } else {
            let limit = watchdog::slice(self.settings.session_timeout) + self.settings.statement_timeout;
            return timeout(limit, holdings.summons.call()).await.ok()?.ok();
        };
        let said = timeout(self.settings.statement_timeout, ask(&mut packets, holdings)).await.ok()?.ok()?;
        *self.current.lock() = Some(packets);
        Some(said)
    }

    /// It is not needed now.
    pub(crate) fn dismiss(&self) {
        drop(self.current.lock().take());
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Testimony {
    AtWork,
    /// The connection waits for its client, or is not the session's any more.
    NotAtWork,
    ReadOnly,
}

async fn ask(packets: &mut Packets, holdings: &Holdings) -> Result<Testimony, sqlx::Error> {
    let (session, number) = (&holdings.session, holdings.number);
    let question = format!(
        "SELECT CONCAT(@@GLOBAL.read_only); \
         SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number} AND COMMAND = 'Query' AND NOT ({to_client}); \
         SELECT IS_USED_LOCK('{session}') = {number}",
        // A client that does not take its answer is silent, and the server counts.
        to_client = "COALESCE(STATE, '') LIKE '%net%' OR COALESCE(STATE, '') LIKE '%client%'",
    );
    let answer = packets.ask(&question).await?;
    if is_on(&answer.text(0, 0)?.unwrap_or_default()) {
        return Ok(Testimony::ReadOnly);
    }
    Ok(if !answer.rows(1).is_empty() && answer.is(2, 0)? { Testimony::AtWork } else { Testimony::NotAtWork })
}
