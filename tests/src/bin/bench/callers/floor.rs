//! The floor: the driver's own requests, sent again by a blocking client, which has nothing between itself and the socket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tooz::{ConnectOptions, Coordinator};

use crate::backend::{Backend, with_namespace};
use crate::callers::recorder::{Passage, Recorder};

/// So long that no heartbeat comes in a turn.
const SESSION_TIMEOUT: Duration = Duration::from_mins(10);

/// A pair as it was recorded, on the connection of the session that asked for it.
pub(crate) struct Floor {
    passage: Arc<Passage>,
    acquire: (Vec<u8>, usize),
    release: (Vec<u8>, usize),
    room: Vec<u8>,
    /// Both are kept as long as this is used.
    _coordinator: Coordinator,
    _recorder: Recorder,
}

impl Floor {
    /// Where a pair is two requests that can be asked again and again: what memcached is asked is a line that counts once.
    pub(crate) async fn of(backend: &Backend) -> Result<Option<Self>> {
        if !matches!(backend.name, "redis" | "postgres" | "mysql") {
            return Ok(None);
        }
        let Some(server) = &backend.server else { return Ok(None) };
        let recorder = Recorder::before(server.address())?;
        let url = backend.plain_url().replace(&server.address().to_string(), &recorder.address().to_string());
        let options = ConnectOptions::new(&with_namespace(&url, "floor"))?.member("floor")?;
        let coordinator = options.session_timeout(SESSION_TIMEOUT).connect().await?;
        let lock = coordinator.lock("floor")?;
        // What is asked only once is over after the first pair.
        lock.acquire().await?.release().await?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            recorder.forget();
            let guard = lock.acquire().await?;
            let acquire = recorder.heard();
            guard.release().await?;
            let release = recorder.heard();
            if let (Some((passage, acquire, granted)), Some((same, release, released))) = (acquire, release)
                && Arc::ptr_eq(&passage, &same)
            {
                let (acquire, release) = ((acquire, granted), (release, released));
                let floor = Floor {
                    passage,
                    acquire,
                    release,
                    room: Vec::new(),
                    _coordinator: coordinator,
                    _recorder: recorder,
                };
                return Ok(Some(floor));
            }
        }
        anyhow::bail!("other requests came between those of a pair, again and again")
    }

    pub(crate) fn begin_turn(&mut self) -> Result<()> {
        self.passage.lend()
    }

    pub(crate) fn end_turn(&mut self) -> Result<()> {
        self.passage.give_back()
    }

    pub(crate) fn pair(&mut self) -> Result<()> {
        for (question, length) in [&self.acquire, &self.release] {
            self.passage.ask(question, *length, &mut self.room).context("the floor")?;
        }
        Ok(())
    }
}
