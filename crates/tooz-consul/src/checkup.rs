//! What the doctor looks at: each agent, the servers, the settings that cost locks, the node of the sessions, the token and the layout.

use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use tooz_core::{Checkup, Error, ErrorKind, Result};

use crate::client::{Client, Lane, Scope};
use crate::crowd::longest_wait;
use crate::layout::Layout;

/// The oldest version that this driver speaks to, as major and minor.
const OLDEST: (u32, u32) = (1, 8);
/// What Consul takes for the least timeout of a session unless told otherwise.
const LEAST: Duration = Duration::from_secs(10);
/// So many times the election timeout goes by until a new leader serves: 3.0 s of 1 s and 15.3 s of 5 s were measured.
const ELECTIONS: u32 = 3;
/// The part of a session timeout that an outage may take. Of the timeout a third may have gone by since the last heartbeat, the margin is a tenth, and a
/// command below `tooz lock` gets a quarter for its end.
const BEARABLE: f64 = 1.0 - 1.0 / 3.0 - 0.1 - 0.25;

/// What an agent says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SelfPortrait {
    config: Config,
    debug_config: DebugConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    #[serde(default)]
    server: bool,
    version: String,
    #[serde(default)]
    datacenter: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct DebugConfig {
    #[serde(rename = "ConsulRaftElectionTimeout")]
    election_timeout: String,
    #[serde(rename = "SessionTTLMin")]
    session_ttl_min: String,
    #[serde(rename = "HTTPMaxConnsPerClient")]
    http_connections: u32,
    max_query_time: String,
    #[serde(rename = "ACLsEnabled")]
    has_acls: Option<bool>,
}

/// Looks at every agent of the URL and at what they say of the servers.
pub(crate) async fn check_up(client: &Client, layout: &Layout, session_timeout: Duration) -> Result<Checkup> {
    let mut answers = Vec::new();
    for number in 0..client.settings.agents.len() {
        answers.push(leader_seen_by(client, number).await);
    }
    if answers.iter().all(Result::is_err) {
        let words = answers.into_iter().find_map(Result::err).map(|error| error.to_string()).unwrap_or_default();
        return Err(Error::new(ErrorKind::Unavailable, words));
    }
    let portrait = portrait(client).await;
    let version = portrait.as_ref().map_or_else(|_| String::new(), |portrait| format!(" {}", portrait.config.version));
    let mut checkup = Checkup::new(format!("Consul{version} at {}", client.address()));
    for (agent, answer) in client.settings.agents.iter().zip(&answers) {
        checkup = of_agent(checkup, &agent.address, answer.as_ref());
    }
    checkup = match &portrait {
        Ok(portrait) => {
            let own = &portrait.config.datacenter;
            let other = client.settings.datacenter.as_ref().filter(|named| !named.eq_ignore_ascii_case(own));
            let checkup = of_version(checkup, &portrait.config.version);
            let checkup = match other {
                Some(named) => checkup.good(format!(
                    "datacenter {named} keeps everything, and the agent is in {own}: how the servers there are set up was not looked at"
                )),
                None => of_servers_settings(checkup, portrait, session_timeout),
            };
            of_agents_settings(checkup, &portrait.debug_config)
        }
        Err(error) => checkup.warning(
            format!("the agent does not say how it is set up: {error}"),
            "give the token the right agent_prefix \"\" { policy = \"read\" } for a full check",
        ),
    };
    checkup = of_servers(checkup, client).await;
    let has_acls = portrait.ok().and_then(|portrait| portrait.debug_config.has_acls);
    checkup = of_node(checkup, client, has_acls).await;
    checkup = of_token(checkup, client, has_acls);
    Ok(of_layout(checkup, client, layout).await)
}

async fn leader_seen_by(client: &Client, number: usize) -> Result<String> {
    let question = client.question(Method::GET, "status/leader", &[], "");
    let answer = client.ask_agent(number, question).await?;
    Ok(serde_json::from_slice(&answer.body).unwrap_or_default())
}

fn of_agent(checkup: Checkup, address: &str, leader: Result<&String, &Error>) -> Checkup {
    match leader {
        Err(error) => {
            checkup.warning(format!("{address} does not serve: {error}"), "start that agent, or take it out of the URL")
        }
        Ok(leader) if leader.is_empty() => checkup
            .wrong(format!("{address} sees no leader"), "a majority of the servers must run and reach one another"),
        Ok(_) => checkup.good(format!("{address} serves and sees a leader")),
    }
}

async fn portrait(client: &Client) -> Result<SelfPortrait> {
    let question = client.question(Method::GET, "agent/self", &[], "");
    let answer = client.ask(Lane::Wish, question).await?.message;
    serde_json::from_slice(&answer.body)
        .map_err(|_| Error::new(ErrorKind::Backend, "what it says of itself makes no sense"))
}

/// A version of another make is no reason to refuse.
fn is_too_old(version: &str) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
    matches!((parts.next(), parts.next()), (Some(major), Some(minor)) if (major, minor) < OLDEST)
}

fn of_version(checkup: Checkup, version: &str) -> Checkup {
    if is_too_old(version) {
        let words = format!("this is Consul {version}, but {}.{} or later is needed", OLDEST.0, OLDEST.1);
        return checkup.wrong(words, "upgrade the servers and agents");
    }
    checkup.good(format!("version {version}"))
}

/// An agent that is a server is set up like the other servers.
fn of_servers_settings(mut checkup: Checkup, portrait: &SelfPortrait, session_timeout: Duration) -> Checkup {
    let debug = &portrait.debug_config;
    if portrait.config.server {
        checkup = of_waits(checkup, debug, session_timeout);
        let least = duration(&debug.session_ttl_min).filter(|least| !least.is_zero()).unwrap_or(LEAST);
        checkup = if least > session_timeout {
            checkup.wrong(
                format!("the servers take no session_timeout below {least:?}, and this is {session_timeout:?}"),
                "set session_ttl_min in the servers' configuration, or choose a longer session_timeout",
            )
        } else {
            checkup.good(format!("a session_timeout of {session_timeout:?} is taken (session_ttl_min: {least:?})"))
        };
        if let Some(election) = duration(&debug.election_timeout) {
            let outage = election * ELECTIONS;
            checkup = if outage > session_timeout.mul_f64(BEARABLE) {
                checkup.warning(
                    format!(
                        "a change of leaders takes about {outage:?} (raft_multiplier {}), so that it may end sessions of {session_timeout:?}, and commands \
                         below `tooz lock` before",
                        election.as_secs()
                    ),
                    if election > Duration::from_secs(1) {
                        "set performance { raft_multiplier = 1 } in the servers' configuration, or session_timeout=60s"
                    } else {
                        "ask for a longer session_timeout"
                    },
                )
            } else {
                checkup.good(format!(
                    "a change of leaders takes about {outage:?}, which a session_timeout of {session_timeout:?} bears"
                ))
            };
        }
    } else {
        let words =
            "the agent asked is no server: session_ttl_min, raft_multiplier and max_query_time were not looked at";
        checkup = checkup.good(words);
    }
    checkup
}

/// A server with a low `max_query_time` answers questions that wait for a change long before there is one, with all that is asked for.
fn of_waits(checkup: Checkup, debug: &DebugConfig, session_timeout: Duration) -> Checkup {
    let wait = longest_wait(session_timeout);
    match duration(&debug.max_query_time).filter(|most| !most.is_zero() && *most < wait) {
        Some(most) => checkup.warning(
            format!("the servers answer after {most:?} what would wait for a change for {wait:?} (max_query_time): watches cost them more"),
            "raise max_query_time in the servers' configuration",
        ),
        None => checkup,
    }
}

fn of_agents_settings(checkup: Checkup, debug: &DebugConfig) -> Checkup {
    let most = debug.http_connections;
    if (1..100).contains(&most) {
        return checkup.warning(
            format!("the agent takes {most} connections of one address, and a coordinator has up to 22"),
            "raise limits { http_max_conns_per_client }",
        );
    }
    checkup.good(format!("the agent takes {most} connections of one address (a coordinator has up to 22)"))
}

async fn of_servers(checkup: Checkup, client: &Client) -> Checkup {
    let asked = client.ask(Lane::Wish, client.question(Method::GET, "status/peers", &[], "")).await;
    let peers: Vec<String> = match asked {
        Ok(reply) => serde_json::from_slice(&reply.message.body).unwrap_or_default(),
        Err(error) => return checkup.warning(format!("the servers can't be listed: {error}"), "see the line before"),
    };
    match peers.len() {
        1 => checkup.warning(
            "there is one server: while it is down, no lock can be had",
            "run three servers where that matters",
        ),
        even if even % 2 == 0 => checkup.warning(
            format!("there are {even} servers, which stand no more failures than {}", even.saturating_sub(1)),
            "run an odd number of servers",
        ),
        odd => checkup.good(format!("{odd} servers, which stand the loss of {}", odd / 2)),
    }
}

/// Whether the node of the sessions is that of no agent and has no checks: an agent's node goes with the agent, and one with checks goes with them.
async fn of_node(checkup: Checkup, client: &Client, has_acls: Option<bool>) -> Checkup {
    let node = &client.settings.node;
    let seen = client.ask(Lane::Wish, client.question(Method::GET, &format!("catalog/node/{node}"), &[], "")).await;
    // What a token may not read looks as if it were not there.
    if seen.is_ok_and(|reply| reply.message.body.trim_ascii() == b"null") {
        return if has_acls == Some(false) {
            checkup.good(format!("the node {node:?} of the sessions is not registered yet: the first session does it"))
        } else {
            checkup.warning(
                format!("the node {node:?} of the sessions can't be seen: it is not registered yet, or this token may not read it"),
                format!("give the token the right node \"{node}\" {{ policy = \"read\" }} for a full check"),
            )
        };
    }
    let asked = client.ask(Lane::Wish, client.question(Method::GET, &format!("health/node/{node}"), &[], "")).await;
    let checks: Vec<serde::de::IgnoredAny> = match asked {
        Ok(reply) => serde_json::from_slice(&reply.message.body).unwrap_or_default(),
        Err(error) => return checkup.warning(format!("the node {node:?} can't be looked at: {error}"), ""),
    };
    if checks.is_empty() {
        return checkup
            .good(format!("the node {node:?} of the sessions has no checks: nothing ends them but their timeout"));
    }
    checkup.wrong(
        format!("the node {node:?} of the sessions has {} checks: it is an agent's, and ends with it", checks.len()),
        "name a node of its own in the option node",
    )
}

fn of_token(checkup: Checkup, client: &Client, has_acls: Option<bool>) -> Checkup {
    match (client.settings.login.is_somebody(), has_acls) {
        (true, Some(false)) => checkup.warning(
            "a token is given, but these agents have no ACLs: they let every client in",
            "set acl { enabled = true }, or restrict the network",
        ),
        (true, _) if client.settings.tls.is_none() => checkup.warning(
            "the token is sent in the clear with each request",
            "use consul+https://, or a network on which no other listens",
        ),
        (true, _) => checkup.good("the token is sent by TLS"),
        (false, _) => checkup,
    }
}

/// Whether the namespace is kept as this driver keeps it.
async fn of_layout(checkup: Checkup, client: &Client, layout: &Layout) -> Checkup {
    let read = client.read(Lane::Wish, layout.version_key(), Scope::One).await;
    match read.and_then(|page| layout.learn(page.entries.first())) {
        Ok(()) => checkup.good("the namespace is kept in this driver's layout, or is new"),
        Err(error) => checkup.wrong(format!("{error}"), "see to the rights of the token and to the namespace"),
    }
}

/// A duration as Go writes it, such as `1m30s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit = rest[end..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |next| end + next);
        let seconds = match &rest[end..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_is_said_panics(text: String, numbers in "[0-9.hms]{0,20}") {
            let _ = (is_too_old(&text), is_too_old(&numbers), duration(&text), duration(&numbers));
        }
    }

    #[test]
    fn durations_and_versions_are_read() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("2h0m0s"), Some(Duration::from_hours(2)));
        assert_eq!(duration("52ms"), Some(Duration::from_millis(52)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("soon"), None);
        for (version, old) in
            [("1.8.7", false), ("1.7.9", true), ("2.0.0", false), ("mine", false), ("1.18.1+ent", false)]
        {
            assert_eq!(is_too_old(version), old, "{version}");
        }
    }
}
