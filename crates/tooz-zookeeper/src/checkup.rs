//! What the doctor looks at: what each server says of itself, and what an operator should know of that and of the session.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tooz_core::{Checkup, Result};

use crate::timing::Timing;
use crate::tls::{Certificates, Tls};

/// How long a server may take to answer a question about itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// One host, and its server's answers where it gives any.
pub(crate) struct Server {
    host: String,
    /// To the question `srvr`.
    state: Option<String>,
    /// To the question `conf`.
    settings: Option<String>,
    packet: Packet,
}

/// Whether a server takes a packet as long as is counted on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Packet {
    Revoked,
    Refused,
    Unknown,
}

/// Asks each host. `buffer`: the length of a packet that it should take.
pub(crate) async fn ask_servers(
    hosts: &[String],
    certificates: Option<&Certificates>,
    buffer: usize,
) -> Result<Vec<Server>> {
    let tls = match certificates {
        Some(certificates) => Some(certificates.load().await?),
        None => None,
    };
    let mut servers = Vec::new();
    for host in hosts {
        let tls = tls.as_ref();
        servers.push(Server {
            host: host.clone(),
            state: answer(host, tls, "srvr").await,
            settings: answer(host, tls, "conf").await,
            packet: if tls.is_none() { packet_of(host, buffer).await } else { Packet::Unknown },
        });
    }
    Ok(servers)
}

/// The ensemble in a few words.
pub(crate) fn title(servers: &[Server]) -> String {
    let hosts = servers.iter().map(|server| &*server.host).collect::<Vec<_>>().join(", ");
    let version = servers.iter().find_map(|server| value(server.state.as_deref()?, "Zookeeper version:"));
    match version.and_then(|version| version.split(['-', ',']).next()) {
        Some(version) => format!("ZooKeeper {version} at {hosts}"),
        None => format!("ZooKeeper at {hosts}"),
    }
}

/// What the ensemble has made of the session timeout.
pub(crate) fn terms(checkup: Checkup, timing: Timing) -> Checkup {
    let Timing { asked, negotiated, .. } = timing;
    if asked == negotiated {
        checkup.good(format!("the ensemble agrees to the session timeout of {asked:?}"))
    } else {
        checkup.warning(
            format!("a session timeout of {asked:?} was asked for, and the ensemble made it {negotiated:?}"),
            "ask for what it allows, or change minSessionTimeout and maxSessionTimeout of its servers",
        )
    }
}

/// How much a session may hold (`locks` more, of paths that take `most` bytes), and whether the servers take as much as is counted on.
pub(crate) fn room(mut checkup: Checkup, servers: &[Server], locks: usize, most: usize, buffer: usize) -> Checkup {
    checkup = checkup.good(format!(
        "this session may hold about {locks} more locks, places in queues and memberships: their paths may take {most} bytes, since \
         servers whose jute.maxbuffer is {buffer} can't read the end of a session beyond {} (ZOOKEEPER-4306)",
        buffer.saturating_mul(2)
    ));
    for server in servers.iter().filter(|server| server.packet == Packet::Refused) {
        checkup = checkup.wrong(
            format!("{} takes no packet of {buffer} bytes: its jute.maxbuffer is smaller", server.host),
            "add jute_maxbuffer= with the smallest of the servers' values to the URL, or one session may stop the whole ensemble",
        );
    }
    checkup
}

/// A password that is said without TLS.
pub(crate) fn password_in_the_clear(checkup: Checkup) -> Checkup {
    checkup.warning(
        "the password goes to the servers in the clear, at each connection",
        "use zookeeper+tls://, or a network without listeners",
    )
}

/// As what each server serves.
pub(crate) fn modes(mut checkup: Checkup, servers: &[Server]) -> Checkup {
    for Server { host, state, .. } in servers {
        checkup = match state.as_deref().and_then(|state| value(state, "Mode:")) {
            Some(mode) => checkup.good(format!("{host} serves as {mode}")),
            None => checkup.warning(
                format!("{host} does not say whether it serves"),
                "check that it is up and has a quorum, or allow the question srvr (4lw.commands.whitelist)",
            ),
        };
    }
    checkup
}

/// Settings that servers tell only where the question `conf` is allowed.
pub(crate) fn settings(mut checkup: Checkup, servers: &[Server], assumed_tick: Duration) -> Checkup {
    let mut most = Vec::new();
    for (host, settings) in servers.iter().filter_map(|server| Some((&server.host, server.settings.as_deref()?))) {
        most.push(milliseconds(settings, "maxSessionTimeout="));
        match milliseconds(settings, "tickTime=") {
            Some(tick) if tick > assumed_tick => {
                checkup = checkup.wrong(
                    format!(
                        "{host} ticks every {tick:?}, and this session counts on {assumed_tick:?}: its margin is too small"
                    ),
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

/// How many servers vote, by the ensemble's configuration.
pub(crate) fn voters(checkup: Checkup, configuration: &[u8]) -> Checkup {
    let configuration = String::from_utf8_lossy(configuration);
    let lines = configuration.lines().filter(|line| line.starts_with("server.") && !line.contains(":observer"));
    match lines.count() {
        0 | 1 => checkup.warning(
            "there is one server: nothing is served while it is down",
            "run three servers, so that one of them may be down",
        ),
        voters if voters % 2 == 0 => checkup.warning(
            format!("{voters} servers vote: that bears no more failures than {}", voters - 1),
            "let an odd number of servers vote",
        ),
        voters => checkup.good(format!("{voters} servers vote, {} of them may be down", (voters - 1) / 2)),
    }
}

/// Asks a server one of ZooKeeper's four-letter questions; `None` where it does not answer, or not to this client.
async fn answer(host: &str, tls: Option<&Tls>, question: &str) -> Option<String> {
    let asking = async {
        match tls {
            None => ask(TcpStream::connect(host).await.ok()?, question).await,
            Some(tls) => ask(tls.dial(host).await.ok()?, question).await,
        }
    };
    timeout(PATIENCE, asking).await.ok().flatten()
}

/// A length that no server refuses: that of a login.
const SHORT_PACKET: u32 = 45;

/// A server that takes no packet of a length hangs up as soon as it has read the length. One that hangs up on a short one as well has another reason,
/// such as too many connections.
async fn packet_of(host: &str, length: usize) -> Packet {
    let Ok(length) = u32::try_from(length) else { return Packet::Unknown };
    match is_taken(host, length).await {
        Packet::Refused if is_taken(host, SHORT_PACKET).await != Packet::Revoked => Packet::Unknown,
        answer => answer,
    }
}

async fn is_taken(host: &str, length: u32) -> Packet {
    let Ok(Ok(mut stream)) = timeout(PATIENCE, TcpStream::connect(host)).await else { return Packet::Unknown };
    if stream.write_u32(length).await.is_err() {
        return Packet::Unknown;
    }
    match timeout(Duration::from_millis(250), stream.read_u8()).await {
        Err(_) => Packet::Revoked,
        Ok(Err(_)) => Packet::Refused,
        Ok(Ok(_)) => Packet::Unknown,
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

fn milliseconds(answer: &str, name: &str) -> Option<Duration> {
    value(answer, name).and_then(|text| text.parse().ok()).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn answers_are_read_line_by_line() {
        let answer = "Zookeeper version: 3.8.0-, built on 2022\nMode: follower\n";
        assert_eq!(value(answer, "Mode:"), Some("follower"));
        assert_eq!(value(answer, "tickTime="), None);
    }

    proptest! {
        #[test]
        fn no_answer_panics(state: String, conf in "((tickTime|maxSessionTimeout)=\\PC{0,20}\n|\\PC{0,20}\n){0,5}", config: Vec<u8>) {
            let servers = [Server { host: "h".into(), state: Some(state), settings: Some(conf), packet: Packet::Unknown }];
            let checkup = modes(Checkup::new(title(&servers)), &servers);
            voters(settings(checkup, &servers, Duration::from_secs(2)), &config);
        }

        #[test]
        fn a_number_is_read_back(before in "[a-z]{0,9}", number: u64) {
            let answer = format!("{before}\ntickTime={number}\nmore");
            prop_assert_eq!(milliseconds(&answer, "tickTime="), Some(Duration::from_millis(number)));
        }
    }
}
