//! The witness of a session: one more connection, asked when a heartbeat has to wait because the session's connection is at work, behind a disk that is slow to
//! write for instance. While the server works for a connection it does not count for how long that is silent; it begins with the end of that work. So what
//! was seen at work lives for the session timeout from then on, as behind a heartbeat.
//!
//! Where the server lets no more connections in, the watchdog testifies in its place, which has one already: between two of its waits.

use tokio::time::timeout;
use tooz_core::Result;
use tooz_core::driver::Mutex;

use crate::holdings::Holdings;
use crate::options::Settings;
use crate::packet::Packets;
use crate::setup::{self, Role};
use crate::summons::Testimony;
use crate::testimony::ask;
use crate::watchdog;

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
