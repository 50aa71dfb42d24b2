//! Consul: how it is started, asked and reached.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::server::backend::{Backend, Plan, ServerRole, text};
use crate::server::keeper::private_folder;
use crate::server::probe;

pub(crate) struct Consul;

const SETTINGS: &str = "settings.json";

/// The number of an agent that is no server, among the addresses.
const CLIENT: usize = 8;

/// Where a server with that number is found by the others: at the port at which it listens itself, since that is what it announces.
pub(crate) fn door(id: usize, listen: SocketAddr) -> SocketAddr {
    let last = u8::try_from(id + 1).unwrap_or(u8::MAX);
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)), listen.port())
}

impl Backend for Consul {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.unix_socket.is_some() {
            bail!("unix_socket() is not for Consul: its drivers expect TCP");
        }
        private_folder(&plan.data())?;
        Ok(fs::write(plan.folder.join(SETTINGS), settings(plan))?)
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let mut command = plan.installation.command("consul")?;
        command.args(["agent", "-config-file", &text(&plan.folder.join(SETTINGS))]).args(&plan.arguments);
        Ok(command)
    }

    /// Whether it knows a leader that answers a consistent read. One that wants a token says no, and serves.
    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        Ok(leader_seen_by(plain(plan))?.is_some() && serves(plain(plan))?)
    }

    fn requests(&self, plan: &Plan) -> Result<Option<u64>> {
        let metrics = probe::get(plain(plan), "/v1/agent/metrics?format=prometheus")?;
        let of_http = metrics.lines().filter(|line| line.starts_with("consul_http_") && line.contains("_count"));
        // Those by which the testbed asks are its own.
        let of_others = of_http.filter(|line| !line.contains("_v1_agent_") && !line.contains("_v1_status_"));
        Ok(Some(of_others.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()))
    }

    fn url(&self, plan: &Plan) -> String {
        let scheme = if plan.tls.is_some() { "consul+https" } else { "consul" };
        format!("{scheme}://{}", plan.address)
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let mut command = plan.installation.command(program)?;
        let address = if plan.tls.is_some() { plan.health } else { plan.address };
        command.env("CONSUL_HTTP_ADDR", format!("http://{address}"));
        Ok(command)
    }
}

/// Where it can be asked without TLS.
fn plain(plan: &Plan) -> SocketAddr {
    if plan.tls.is_some() { plan.health } else { plan.listen }
}

/// The leader's address among the servers, as that agent sees it.
pub(crate) fn leader_seen_by(address: SocketAddr) -> Result<Option<SocketAddr>> {
    let answer = probe::get(address, "/v1/status/leader")?;
    let body = answer.rsplit("\r\n\r\n").next().unwrap_or_default().trim().trim_matches('"');
    if body.is_empty() {
        return Ok(None);
    }
    body.parse().map(Some).with_context(|| format!("no leader's address: {answer}"))
}

/// Whether it answers a consistent read.
pub(crate) fn serves(address: SocketAddr) -> Result<bool> {
    let answer = probe::get(address, "/v1/kv/tooz-testbed?consistent")?;
    Ok(["200", "403", "404"].iter().any(|code| answer.starts_with(&format!("HTTP/1.1 {code}"))))
}

/// All that is not said on the command line. Sessions of 1 s and many connections of one client are for tests; dead servers stay members
/// of the cluster, so that a server that comes back votes at once.
fn settings(plan: &Plan) -> String {
    let (name, id, is_server, expect, gossip) = match &plan.role {
        ServerRole::ConsulServer { id, gossip, .. } => (format!("node{id}"), *id, true, gossip.len(), gossip.clone()),
        ServerRole::ConsulClient { gossip } => ("client".to_owned(), CLIENT, false, 0, gossip.clone()),
        _ => ("node".to_owned(), 0, true, 1, Vec::new()),
    };
    let own = door(id, plan.health);
    // A proxy has the announced address, where there is one.
    let (bind, advertise) = match &plan.role {
        ServerRole::ConsulServer { advertised, .. } => (plan.peers.ip(), advertised.ip()),
        _ => (own.ip(), own.ip()),
    };
    let (http, https) = match &plan.tls {
        Some(_) => (i32::from(plan.health.port()), i32::from(plan.listen.port())),
        None => (i32::from(plan.listen.port()), -1),
    };
    let join: Vec<String> = gossip.iter().map(|address| format!("\"{address}\"")).collect();
    let mut parts = vec![
        format!("\"node_name\":\"{name}\",\"node_id\":\"{}\"", node_id()),
        format!("\"server\":{is_server},\"data_dir\":\"{}\"", text(&plan.data())),
        format!("\"bind_addr\":\"{bind}\",\"advertise_addr\":\"{advertise}\",\"serf_lan\":\"{}\"", own.ip()),
        format!("\"client_addr\":\"{}\"", plan.listen.ip()),
        format!(
            "\"ports\":{{\"http\":{http},\"https\":{https},\"server\":{},\"serf_lan\":{},\"serf_wan\":-1,\"dns\":-1,\"grpc\":-1}}",
            plan.peers.port(),
            own.port()
        ),
        format!("\"retry_join\":[{}],\"retry_interval\":\"200ms\",\"retry_max\":0", join.join(",")),
        "\"datacenter\":\"dc1\",\"log_level\":\"WARN\",\"disable_update_check\":true,\"connect\":{\"enabled\":false}".to_owned(),
        "\"performance\":{\"raft_multiplier\":1,\"leave_drain_time\":\"0s\"},\"reconnect_timeout\":\"8h\"".to_owned(),
        "\"session_ttl_min\":\"1s\",\"limits\":{\"http_max_conns_per_client\":5000}".to_owned(),
        "\"telemetry\":{\"prometheus_retention_time\":\"10h\",\"disable_hostname\":true}".to_owned(),
        "\"gossip_lan\":{\"probe_interval\":\"200ms\",\"probe_timeout\":\"100ms\",\"gossip_interval\":\"50ms\",\"suspicion_mult\":2}"
            .to_owned(),
    ];
    if is_server {
        parts.push(format!(
            "\"bootstrap_expect\":{expect},\"leave_on_terminate\":false,\"skip_leave_on_interrupt\":true"
        ));
        parts.push("\"autopilot\":{\"cleanup_dead_servers\":false,\"server_stabilization_time\":\"100ms\"}".to_owned());
    }
    if let Some(tls) = &plan.tls {
        parts.push(format!(
            "\"cert_file\":\"{}\",\"key_file\":\"{}\",\"ca_file\":\"{}\"",
            text(&tls.certificate),
            text(&tls.key),
            text(&tls.ca)
        ));
    }
    format!("{{{}}}", parts.join(","))
}

/// An id of its own, in the form that Consul wants. Two agents of one host would have the same.
fn node_id() -> String {
    let bits = fastrand::u128(..);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    )
}
