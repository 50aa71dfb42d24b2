//! The task that keeps the connection: it reads what comes by itself, looks for the dead, and connects anew when a link ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fred::types::Message;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, sleep_until};
use tooz_core::{ErrorKind, Pushed, Result};

use crate::connection::{NO_SESSION, Shared};
use crate::error::strange;
use crate::feed::Heard;
use crate::link::{Dial, Incoming, Link, Peer, number, server_at};
use crate::options::Target;
use crate::script::Script;
use crate::sentinel::find_primary;
use crate::server::Server;
use crate::watch::read_change;

/// A session that is due is looked for so much later, and up to as much again: the server's clock ticks in milliseconds, and not
/// all who are curious should look at once.
const TACT: Duration = Duration::from_millis(20);

impl Shared {
    /// Connects to the server that is the right one now.
    pub(crate) async fn establish(&self, epoch: u64) -> Result<(Arc<Link>, Incoming)> {
        let settings = &self.settings;
        let (server, known_replicas) = match &settings.target {
            Target::Sentinel(sentinels) => {
                let primary = find_primary(sentinels, &settings.encryption, self.connect_limit).await?;
                (server_at(&primary.address), Some(primary.replicas))
            }
            target => (target.fixed().ok_or_else(|| strange("no server"))?, None),
        };
        let dial = Dial {
            peer: Peer::Data,
            server,
            credentials: &settings.credentials,
            database: settings.database,
            encryption: &settings.encryption,
            limit: self.limit,
            connect_limit: self.connect_limit,
        };
        let at = |error: tooz_core::Error| error.context(format!("connect to {}", settings.target));
        let (link, incoming) = Link::open(dial, epoch).await.map_err(at)?;
        let server = Server::read(&link, known_replicas).await.map_err(at)?;
        server.judge(settings)?;
        link.load_scripts().await.map_err(at)?;
        *self.server() = server;
        Ok((Arc::new(link), incoming))
    }

    /// Serves one link after another.
    pub(crate) async fn keep(self: Arc<Self>, mut link: Arc<Link>, mut incoming: Incoming) {
        loop {
            self.serve(&link, &mut incoming).await;
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
            if let Ok((link, incoming)) = self.establish(epoch).await
                && self.resume(&link).await.is_ok()
            {
                return (link, incoming);
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// The first words on a new link. From here on nothing that was under way on an older one takes effect.
    async fn resume(&self, link: &Arc<Link>) -> Result<()> {
        let mut channels = self.feed.channels();
        let is_open = self.is_open.load(Ordering::Acquire);
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

    /// Hears what this session was told while nobody listened.
    async fn catch_up(&self, link: &Arc<Link>) -> Result<()> {
        let reply = self.run_on(link, Script::Hello, vec![number(self.feed.heard())]).await?;
        let last = u64::try_from(reply.number(0)?).unwrap_or(0);
        self.feed.begin(link.epoch, last, &reply.texts(1)?);
        Ok(())
    }

    /// Reads what comes by itself, and looks for the dead, until the link ends.
    async fn serve(&self, link: &Arc<Link>, incoming: &mut Incoming) {
        let mut look = self.look.subscribe();
        let mut tidy = tokio::time::interval(self.timeout / 3);
        loop {
            let due = *look.borrow_and_update() + TACT.mul_f64(1.0 + fastrand::f64());
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
                Ok(()) = look.changed() => {}
                () = sleep_until(due), if self.feed.is_curious() => {
                    let next = match self.run_on(link, Script::SweepUp, Vec::new()).await {
                        Ok(reply) => reply.number(0).unwrap_or(-1),
                        Err(_) => 100,
                    };
                    self.look_in(next);
                }
                _ = tidy.tick() => self.unsubscribe_the_gone(link).await,
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
                    let until = Instant::now() + life;
                    if !life.is_zero() && until < *self.look.borrow() {
                        self.look.send_replace(until);
                    }
                }
                None => self.feed.push(&message.channel, &Pushed::Dirty),
            }
        } else {
            self.feed.push(&message.channel, &Pushed::Dirty);
        }
        Heard::Everything
    }

    async fn unsubscribe_the_gone(&self, link: &Arc<Link>) {
        for channel in self.feed.forget_the_gone() {
            let _ = link.unsubscribe(channel.clone()).await;
            // Somebody may have begun to watch it in between.
            if self.feed.is_watched(&channel) && link.subscribe(vec![channel.clone()]).await.is_ok() {
                self.feed.push(&channel, &Pushed::Gap);
            }
        }
    }
}
