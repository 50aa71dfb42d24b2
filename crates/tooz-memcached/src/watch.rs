//! What is told of a group or an election. The server pushes nothing: its version is looked at, often after a change and more and more seldom
//! without one; and whether those that it names live, a few times within a session timeout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tooz_core::Result;
use tooz_core::driver::{PushStream, Pushed, Pusher, push_channel, spread};

use crate::client::{Client, Lane};
use crate::journal::SessionId;
use crate::reply::Batch;
use crate::reply::Version;

/// The pauses between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_millis(500);

/// How often those at the head of an election are looked for.
const DEATHS: Duration = Duration::from_millis(200);

/// What is watched, and where it stands.
pub(crate) enum Subject {
    Group(String),
    Election(String),
}

/// What a look has told.
enum Glance {
    Same,
    Changed,
    /// The group was deleted.
    Gone,
}

/// One watch.
struct Watch {
    client: Arc<Client>,
    watched: Subject,
    /// The version that was read last, and the sessions that it names.
    version: Version,
    sessions: BTreeSet<SessionId>,
    deaths: Instant,
}

/// Begins to watch. The task ends with the stream, or with the session.
pub(crate) fn watch(client: &Arc<Client>, watched: Subject, version: Version) -> PushStream {
    let (pusher, stream) = push_channel();
    let client = Arc::clone(client);
    let watch = Watch { client, watched, version, sessions: BTreeSet::new(), deaths: Instant::now() };
    pusher.push(Pushed::Ready);
    tokio::spawn(watch.run(pusher));
    stream
}

impl Watch {
    async fn run(mut self, pusher: Pusher) {
        let mut changed = Instant::now();
        while !pusher.is_closed() {
            match self.look().await {
                Ok(Glance::Changed) => {
                    pusher.push(Pushed::Dirty);
                    changed = Instant::now();
                }
                Ok(Glance::Gone) => {
                    pusher.push(Pushed::Gone);
                    return;
                }
                // What fails is tried again.
                Ok(Glance::Same) | Err(_) => {}
            }
            let pause = spread((changed.elapsed() / 20).clamp(SHORTEST, LONGEST), 0.8..1.0);
            tokio::select! {
                () = self.client.ended() => return,
                () = sleep(pause) => {}
            }
        }
    }

    fn key(&self) -> &str {
        match &self.watched {
            Subject::Group(key) | Subject::Election(key) => key,
        }
    }

    async fn look(&mut self) -> Result<Glance> {
        let mut done = self.client.run(Batch::default().look(self.key()), Lane::Wish).await?;
        let cas = done.next().flags()?.map_or(0, |flags| flags.cas);
        let version = Version { epoch: done.epoch, cas };
        if version != self.version {
            return self.read().await;
        }
        if self.deaths <= Instant::now() {
            self.deaths = Instant::now() + self.between_deaths();
            let gone = self.client.gone_of(self.sessions.iter().copied()).await?;
            if !gone.is_empty() {
                self.bury(&gone).await?;
                return self.read().await;
            }
        }
        Ok(Glance::Same)
    }

    fn between_deaths(&self) -> Duration {
        match self.watched {
            Subject::Election(_) => DEATHS,
            Subject::Group(_) => (self.client.timeout / 10).clamp(DEATHS, LONGEST * 2),
        }
    }

    async fn read(&mut self) -> Result<Glance> {
        match &self.watched {
            Subject::Group(key) => {
                let look = self.client.look_at_group(key).await?;
                self.version = look.seen.version;
                self.sessions = look.sessions();
                Ok(if look.journal.made_by.is_some() { Glance::Changed } else { Glance::Gone })
            }
            Subject::Election(key) => {
                let look = self.client.look_at_lock(key).await?;
                self.version = look.seen.version;
                self.sessions = look.journal.holders().iter().map(|place| place.session).collect();
                Ok(Glance::Changed)
            }
        }
    }

    async fn bury(&self, gone: &BTreeSet<SessionId>) -> Result<()> {
        match &self.watched {
            Subject::Group(key) => self.client.bury_members(key, gone).await.map(drop),
            Subject::Election(key) => self.client.bury(key, gone).await.map(drop),
        }
    }
}
