//! To which node sessions belong, and what happens to them when agents, servers and that node go.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tooz_testbed::{Cluster, Kind, Server, Setup};

use crate::Quirk;
use crate::ask;
use crate::stage::{at_once, connect, eventually, moment, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("nodes::a_session_outlives_the_server_that_made_it", || play(server_dies())),
    ("nodes::a_session_outlives_the_agent_that_leaves", || play(agent_leaves())),
    ("nodes::a_fleet_whose_node_is_taken_away_is_told_within_a_second", || play(node_is_taken_away())),
    ("nodes::a_node_of_another_name_is_registered_and_used", || play(another_node())),
    ("nodes::a_loss_by_a_slow_election_is_told_at_the_deadline_and_mended", || play(slow_election())),
];

/// As by default: a server that dies is taken out of the catalogue, and all that belongs to it goes.
const CLEANUP: &str = "autopilot{cleanup_dead_servers=true}";

async fn server_dies() -> Result<()> {
    let cluster = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(CLEANUP).start_cluster()?;
    let leader = cluster.leader()?;
    let (dead, alive) = ((leader + 1) % 3, (leader + 2) % 3);
    let url = |first: usize, second: usize| {
        format!("{},{}?session_timeout=20s", cluster.url_of(first), cluster.nodes()[second].address())
    };
    let one = connect(&url(dead, alive), "one").await?;
    let two = connect(&url(alive, leader), "two").await?;
    let guard = one.lock("x")?.acquire().await?;
    moment().await;
    cluster.nodes()[dead].kill()?;
    let gone = format!("node{dead}");
    let began = Instant::now();
    while ask::http(cluster.nodes()[alive].address(), "GET", "/v1/catalog/nodes", "").contains(&gone) {
        ensure!(began.elapsed() < Duration::from_secs(40), "the dead server stays in the catalogue");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    moment().await;
    ensure!(guard.is_held(), "the session went with the server");
    ensure!(two.lock("x")?.try_acquire().await?.is_none(), "it is another's");
    within("releasing", guard.release()).await??;
    Ok(())
}

async fn agent_leaves() -> Result<()> {
    let cluster = Cluster::start(Kind::Consul)?;
    let agent = cluster.client_agent("")?;
    let url = format!("{},{}?session_timeout=20s", agent.url(), cluster.nodes()[0].address());
    let (one, two) = (connect(&url, "one").await?, connect(&cluster.url(), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    moment().await;
    let nodes = || ask::http(cluster.nodes()[0].address(), "GET", "/v1/catalog/nodes", "");
    ensure!(nodes().contains("\"client\""), "the agent is not in the catalogue");
    // By default an agent that gets SIGTERM leaves, and takes its node with it. (Within its last seconds it may come back there.)
    let agent = std::sync::Arc::new(agent);
    let stopping = tokio::task::spawn_blocking({
        let agent = std::sync::Arc::clone(&agent);
        move || agent.stop()
    });
    eventually("the agent has left", async || Ok(!nodes().contains("\"client\""))).await?;
    within("the end of the agent", stopping).await???;
    moment().await;
    ensure!(guard.is_held() && membership.is_member(), "the session went with the agent");
    ensure!(two.lock("x")?.try_acquire().await?.is_none(), "it is another's");
    within("releasing", guard.release()).await??;
    Ok(())
}

async fn node_is_taken_away() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let url = with(&server.url(), "session_timeout=20s");
    let mut all = Vec::new();
    for index in 0..5 {
        let one = connect(&url, &format!("m{index}")).await?;
        let guard = one.lock(format!("x{index}"))?.acquire().await?;
        all.push((one, guard));
    }
    moment().await;
    let body = r#"{"Node":"tooz-sessions"}"#;
    ask::http(server.address(), "PUT", "/v1/catalog/deregister", body);
    for (_, guard) in &all {
        at_once("the loss", guard.loss().wait()).await?;
    }
    // It is registered again by the next session that is opened.
    for (one, _) in &all {
        drop(within("acquiring anew", one.lock("x")?.acquire()).await??);
    }
    Ok(())
}

async fn another_node() -> Result<()> {
    let server = Server::start(Kind::Consul)?;
    let one = connect(&with(&server.url(), "node=billing-locks"), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    let sessions = ask::http(server.address(), "GET", "/v1/session/node/billing-locks", "");
    ensure!(sessions.contains("\"ID\"") && guard.is_held(), "no session of that node: {sessions}");
    let nodes = ask::http(server.address(), "GET", "/v1/catalog/nodes", "");
    ensure!(!nodes.contains("tooz-sessions"), "registered {nodes}");
    Ok(())
}

/// With Consul's own setting an election outlasts a session of a few seconds: holders stop in time, though Consul would have kept the session.
async fn slow_election() -> Result<()> {
    let setting = "performance{raft_multiplier=5}";
    let cluster = Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(setting).start_cluster()?;
    let one = connect(&format!("{}?session_timeout=4s", cluster.url()), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    moment().await;
    let leader = cluster.leader()?;
    cluster.nodes()[leader].kill()?;
    let began = Instant::now();
    within("the loss", guard.loss().wait()).await?;
    ensure!(!guard.is_held() && began.elapsed() < Duration::from_secs(5), "told after {:?}", began.elapsed());
    let again = one.lock("x")?;
    let guard = tokio::time::timeout(Duration::from_mins(1), again.acquire()).await.context("no new session")??;
    ensure!(guard.is_held(), "it is held in the new session");
    Ok(())
}
