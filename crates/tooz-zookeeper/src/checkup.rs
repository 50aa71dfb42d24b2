//! What an operator wants to know of the ensemble, and the bare round trips that speed is measured in.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tooz_core::driver::LockKey;
use tooz_core::{Checkup, LockName, Probe, Result};
use zookeeper_client::{CreateMode, Error as Zk};

use crate::layout;
use crate::session::Inner;
use crate::tls::Tls;

/// How long a server may take to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(1);

impl Inner {
    pub(crate) async fn probe(&self, probe: Probe) -> Result<()> {
        let connection = self.link.up_within(self.limit).await?;
        let scratch = self.layout.scratch(self.link.session().id().0);
        let probing = async || {
            let client = connection.client()?;
            match probe {
                // Whether the root exists may be asked by anybody.
                Probe::Read => client.check_stat("/").await.map(drop),
                Probe::Write => match client.set_data(&scratch, b"", None).await {
                    Err(Zk::NoNode) => self.make(&client, &scratch, CreateMode::Ephemeral).await,
                    written => written.map(drop),
                },
            }
        };
        let mut probed = connection.ask(probing()).await;
        if matches!(probed, Err(Zk::NoNode)) {
            // Nobody has used the namespace yet.
            self.settle(&connection).await?;
            probed = connection.ask(probing()).await;
        }
        probed.map_err(|why| self.failed("measure the round trip", why))
    }

    pub(crate) async fn check_up(&self) -> Result<Checkup> {
        let mut servers = Vec::new();
        let tls = match &self.settings.certificates {
            Some(certificates) => Some(certificates.load().await?),
            None => None,
        };
        for host in self.link.hosts() {
            let tls = tls.as_ref();
            servers.push((host, about(host, tls, "srvr").await, about(host, tls, "conf").await));
        }
        let mut checkup = Checkup::new(self.title(&servers));
        checkup = self.look_at_terms(checkup);
        checkup = self.look_at_room(checkup).await;
        checkup = self.look_at_secrets(checkup);
        for (host, state, _) in &servers {
            checkup = match state.as_deref().and_then(|state| value(state, "Mode:")) {
                Some(mode) => checkup.good(format!("{host} serves as {mode}")),
                None => checkup.warning(
                    format!("{host} does not say whether it serves"),
                    "check that it is up and has a quorum, or allow the question srvr (4lw.commands.whitelist)",
                ),
            };
        }
        let conf: Vec<_> = servers.iter().filter_map(|(host, _, conf)| Some((*host, conf.as_deref()?))).collect();
        checkup = self.look_at_settings(checkup, &conf);
        self.look_at_ensemble(checkup).await
    }

    fn title(&self, servers: &[(&String, Option<String>, Option<String>)]) -> String {
        let mut title = "ZooKeeper".to_owned();
        let version = servers.iter().find_map(|(_, state, _)| value(state.as_deref()?, "Zookeeper version:"));
        if let Some(version) = version.and_then(|version| version.split(['-', ',']).next()) {
            let _ = write!(title, " {version}");
        }
        let _ = write!(title, " at {}", self.link.hosts().join(", "));
        title
    }

    fn look_at_terms(&self, checkup: Checkup) -> Checkup {
        let (asked, agreed) = (self.link.greeting().session_timeout, self.link.session_timeout());
        if asked == agreed {
            checkup.good(format!("the ensemble agrees to the session timeout of {asked:?}"))
        } else {
            checkup.warning(
                format!("a session timeout of {asked:?} was asked for, and the ensemble made it {agreed:?}"),
                "ask for what it allows, or change minSessionTimeout and maxSessionTimeout of its servers",
            )
        }
    }

    /// How much a session may hold, and whether the servers take as much as is counted on.
    async fn look_at_room(&self, mut checkup: Checkup) -> Checkup {
        let (most, used) = self.holdings.weights();
        // Of a name that stands there as it is; longer ones take less.
        let lock = LockName::new("x".repeat(layout::LONGEST)).map(|name| LockKey::lock(&name));
        let each = lock.map_or(1, |lock| self.layout.weight_of_request(&lock));
        let locks = most.saturating_sub(used) / each.max(1);
        let buffer = self.settings.buffer();
        checkup = checkup.good(format!(
            "this session may hold about {locks} more locks, places in queues and memberships: their paths may take {most} bytes, since \
             servers whose jute.maxbuffer is {buffer} can't read the end of a session beyond {} (ZOOKEEPER-4306)",
            buffer.saturating_mul(2)
        ));
        for host in self.link.hosts() {
            if self.settings.certificates.is_none() && takes(host, buffer).await == Some(false) {
                checkup = checkup.wrong(
                    format!("{host} takes no packet of {buffer} bytes: its jute.maxbuffer is smaller"),
                    "add jute_maxbuffer= with the smallest of the servers' values to the URL, or one session may stop the whole ensemble",
                );
            }
        }
        checkup
    }

    fn look_at_secrets(&self, checkup: Checkup) -> Checkup {
        if self.link.greeting().logs_in() && self.settings.certificates.is_none() {
            return checkup.warning(
                "the password goes to the servers in the clear, at each connection",
                "use zookeeper+tls://, or a network that nobody listens to",
            );
        }
        checkup
    }

    /// Settings that servers tell only where the question `conf` is allowed.
    fn look_at_settings(&self, mut checkup: Checkup, conf: &[(&String, &str)]) -> Checkup {
        let assumed = self.tick();
        let mut most = Vec::new();
        for (host, conf) in conf {
            let number =
                |name: &str| value(conf, name).and_then(|text| text.parse::<u64>().ok()).map(Duration::from_millis);
            most.push(number("maxSessionTimeout="));
            match number("tickTime=") {
                Some(tick) if tick > assumed => {
                    checkup = checkup.wrong(
                        format!("{host} ticks every {tick:?}, and this session counts on {assumed:?}: its margin is too small"),
                        format!("add tick_time={}ms to the URL", tick.as_millis()),
                    );
                }
                Some(tick) => checkup = checkup.good(format!("{host} ticks every {tick:?}")),
                None => {}
            }
        }
        most.dedup();
        if most.len() > 1 {
            checkup = checkup.wrong(
                "the servers do not allow the same session timeouts",
                "give all of them the same minSessionTimeout and maxSessionTimeout: sessions that move are lost otherwise",
            );
        }
        checkup
    }

    async fn look_at_ensemble(&self, checkup: Checkup) -> Result<Checkup> {
        let config = self.look("read the ensemble's configuration", |client| async move {
            match client.get_config().await {
                Ok((data, _)) => Ok(Some(data)),
                Err(Zk::NoNode | Zk::NoAuth) => Ok(None),
                Err(why) => Err(why),
            }
        });
        let Some(config) = config.await? else { return Ok(checkup) };
        let config = String::from_utf8_lossy(&config);
        let voters = config.lines().filter(|line| line.starts_with("server.") && !line.contains(":observer")).count();
        Ok(match voters {
            0 | 1 => checkup.warning(
                "there is one server: nothing is served while it is down",
                "run three servers, so that one of them may be down",
            ),
            _ if voters % 2 == 0 => checkup.warning(
                format!("{voters} servers vote: that bears no more failures than {}", voters - 1),
                "let an odd number of servers vote",
            ),
            _ => checkup.good(format!("{voters} servers vote, {} of them may be down", (voters - 1) / 2)),
        })
    }
}

/// Asks a server one of ZooKeeper's four-letter questions; `None` where it does not answer, or not to everybody.
async fn about(host: &str, tls: Option<&Tls>, question: &str) -> Option<String> {
    let asking = async {
        match tls {
            None => ask(TcpStream::connect(host).await.ok()?, question).await,
            Some(tls) => ask(tls.dial(host).await.ok()?, question).await,
        }
    };
    timeout(PATIENCE, asking).await.ok().flatten()
}

/// Whether a server takes a packet of that length, which it says by hanging up as soon as it has read the length. `None`: nobody knows.
async fn takes(host: &str, length: usize) -> Option<bool> {
    let length = u32::try_from(length).ok()?;
    let mut stream = timeout(PATIENCE, TcpStream::connect(host)).await.ok()?.ok()?;
    stream.write_u32(length).await.ok()?;
    match timeout(Duration::from_millis(250), stream.read_u8()).await {
        Err(_) => Some(true),
        Ok(Err(_)) => Some(false),
        Ok(Ok(_)) => None,
    }
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, question: &str) -> Option<String> {
    stream.write_all(question.as_bytes()).await.ok()?;
    stream.flush().await.ok()?;
    let mut answer = Vec::new();
    // By TLS it may end without a farewell.
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).ok()?;
    (!answer.is_empty() && !answer.contains("not in the whitelist")).then_some(answer)
}

/// What stands behind a name in an answer of several lines.
fn value<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_line_by_line() {
        let answer = "Zookeeper version: 3.8.0-, built on 2022\nMode: follower\n";
        assert_eq!(value(answer, "Mode:"), Some("follower"));
        assert_eq!(value(answer, "tickTime="), None);
    }
}
