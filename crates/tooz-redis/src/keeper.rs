//! The task that keeps the connection: it reads what comes by itself, and connects anew when a link ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout};
use tooz_core::driver::{Mutex, Pushed};
use tooz_core::{Error, ErrorKind, Result};

use crate::connection::{NO_SESSION, Shared};
use crate::error::strange;
use crate::feed::Heard;
use crate::link::{Dial, Incoming, Link, Peer, number, server_at};
use crate::login::Words;
use crate::options::Target;
use crate::script::Script;
use crate::sentinel::find_primary;
use crate::server::{Server, Visit};
use crate::watch::read_change;

/// The addresses that have led this process to a primary, up to as many: one that leads to a replica now is being switched over, which
/// passes; where it never led to another, the URL is wrong.
static PRIMARIES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
const MOST_PRIMARIES: usize = 1000;

impl Shared {
    /// Connects to the server that is the right one now.
    pub(crate) async fn establish(&self, epoch: u64) -> Result<(Arc<Link>, Incoming)> {
        let settings = &self.settings;
        let limit = self.connect_limit;
        // For each connection anew: passwords are changed while we live.
        let credentials = timeout(limit, self.credentials.read()).await.map_err(|_| {
            Error::new(ErrorKind::TimedOut, format!("the credentials were not there within {limit:?}"))
        })??;
        let (server, known_replicas) = match &settings.target {
            Target::Sentinel(sentinels) => {
                let primary = find_primary(sentinels, &settings.encryption, limit).await?;
                (server_at(&primary.address), primary.replicas)
            }
            target => (target.fixed().ok_or_else(|| strange("no server"))?, 0),
        };
        let dial = Dial {
            peer: Peer::Data,
            server,
            words: Words::in_a_line(credentials)?,
            database: settings.database,
            encryption: &settings.encryption,
            limit: self.limit,
            connect_limit: limit,
        };
        let at = |error: Error| error.context(format!("connect to {}", settings.target));
        let (link, incoming) = Link::open(dial, epoch).await.map_err(at)?;
        let server = Server::read(&link).await.map_err(at)?;
        let address = settings.target.to_string();
        server.judge(settings, if was_a_primary(&address) { Visit::Again } else { Visit::First })?;
        remember_a_primary(address);
        link.load_scripts().await.map_err(at)?;
        {
            let mut replicas = self.replicas();
            replicas.asked(known_replicas, self.timeout);
            replicas.saw(server.seen());
        }
        self.set_trouble(None);
        *self.server() = server;
        Ok((Arc::new(link), incoming))
    }

    /// Serves one link after another.
    pub(crate) async fn keep(self: Arc<Self>, mut link: Arc<Link>, mut incoming: Incoming) {
        loop {
            // In a box, since it is long and the task lives as long as the session.
            Box::pin(self.serve(&link, &mut incoming)).await;
            link.end();
            self.link.send_replace(None);
            self.reporter.disconnected();
            drop(incoming);
            (link, incoming) = self.come_back(link.epoch).await;
            self.link.send_replace(Some(Arc::clone(&link)));
            self.feed.ask_again();
            self.reporter.connected();
        }
    }

    /// Connects until it works, and takes up where the last link has ended.
    async fn come_back(&self, mut epoch: u64) -> (Arc<Link>, Incoming) {
        let mut pause = Duration::from_millis(10);
        loop {
            epoch += 1;
            match self.take_up(epoch).await {
                Ok(taken_up) => return taken_up,
                Err(error) => self.set_trouble(Some(&error)),
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    async fn take_up(&self, epoch: u64) -> Result<(Arc<Link>, Incoming)> {
        let (link, incoming) = self.establish(epoch).await?;
        self.resume(&link).await?;
        Ok((link, incoming))
    }

    /// The first words on a new link. From here on nothing that was under way on an older one takes effect.
    async fn resume(&self, link: &Arc<Link>) -> Result<()> {
        let mut channels = self.feed.channels();
        let is_open = self.is_open();
        if is_open {
            channels.push(format!("{}c:{}", self.channels, self.session));
        }
        if !channels.is_empty() {
            link.subscribe(channels).await?;
        }
        if is_open {
            match self.catch_up(link).await {
                Err(error) if error.kind() == ErrorKind::Lost => self.reporter.session_lost(NO_SESSION),
                result => result?,
            }
        }
        Ok(())
    }

    /// Hears what this session was told while nobody listened, a part at a time.
    async fn catch_up(&self, link: &Arc<Link>) -> Result<()> {
        let (mut messages, mut behind) = (Vec::new(), String::new());
        loop {
            let reply = self.run_on(link, Script::Hello, vec![number(self.feed.heard()), behind.into()]).await?;
            let (last, until) = (reply.number(0)?, reply.number(1)?);
            messages.extend(reply.texts(2)?);
            if until >= last {
                self.feed.begin(link.epoch, u64::try_from(last).unwrap_or(0), &messages);
                return Ok(());
            }
            behind = until.to_string();
        }
    }

    /// Serves a link until it ends.
    async fn serve(&self, link: &Arc<Link>, incoming: &mut Incoming) {
        tokio::select! {
            biased;
            () = self.listen(link, incoming) => {}
            () = self.tend(link) => {}
        }
    }

    /// Reads what comes by itself.
    async fn listen(&self, link: &Arc<Link>, incoming: &mut Incoming) {
        loop {
            tokio::select! {
                biased;
                pushed = incoming.pushes.recv() => match pushed {
                    Ok(message) => {
                        if self.hear(&message) == Heard::Gap {
                            let _ = self.catch_up(link).await;
                        }
                    }
                    Err(RecvError::Lagged(_)) => {
                        self.feed.push_to_all(&Pushed::Gap);
                        let _ = self.catch_up(link).await;
                    }
                    Err(RecvError::Closed) => return,
                },
                () = incoming.running.ended() => return,
                () = link.is_to_end() => return,
            }
        }
    }

    fn hear(&self, message: &Message) -> Heard {
        let Some(text) = message.value.as_string() else { return Heard::Everything };
        let Some(place) = message.channel.strip_prefix(self.channels.as_str()) else { return Heard::Everything };
        if place.starts_with("c:") {
            return self.feed.told(&text);
        }
        if place.starts_with("g:") {
            match read_change(&text) {
                Some((pushed, life)) => {
                    self.feed.push(&message.channel, &pushed);
                    // Somebody new may die before the next look that was planned.
                    if !life.is_zero() {
                        self.look_at(Instant::now() + life);
                    }
                }
                None => self.feed.push(&message.channel, &Pushed::Dirty),
            }
        } else {
            self.feed.push(&message.channel, &Pushed::Dirty);
        }
        Heard::Everything
    }
}

fn was_a_primary(address: &str) -> bool {
    PRIMARIES.lock().contains(address)
}

fn remember_a_primary(address: String) {
    let mut primaries = PRIMARIES.lock();
    if primaries.len() < MOST_PRIMARIES {
        primaries.insert(address);
    }
}
