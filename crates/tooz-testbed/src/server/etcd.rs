//! etcd: how it is started, asked and reached.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::server::backend::{Backend, Plan, ServerRole, text};
use crate::server::keeper::private_folder;
use crate::server::operator::Deed;
use crate::server::probe;

pub(crate) struct Etcd;

/// The file that says that it joins a cluster which is there already.
pub(crate) const JOINS: &str = "joins";

impl Backend for Etcd {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.unix_socket.is_some() {
            bail!("unix_socket() is not for etcd: no client of etcd expects it on one");
        }
        private_folder(&plan.data())
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let scheme = if plan.tls.is_some() { "https" } else { "http" };
        let listen = format!("{scheme}://{}", plan.listen);
        let listen_peers = format!("http://{}", plan.peers);
        let alone = ("node", plan.peers, format!("node={listen_peers}"));
        let (name, advertised, members) = match &plan.role {
            ServerRole::EtcdMember { name, advertised, members } => (name.as_str(), *advertised, members.clone()),
            _ => alone,
        };
        let mut command = plan.installation.command("etcd")?;
        command
            .args(["--name", name, "--data-dir", &text(&plan.data())])
            .args(["--listen-client-urls", &listen, "--advertise-client-urls", &format!("{scheme}://{}", plan.address)])
            .args(["--listen-metrics-urls", &format!("http://{}", plan.health)])
            .args(["--listen-peer-urls", &listen_peers])
            .args(["--initial-advertise-peer-urls", &format!("http://{advertised}")])
            .args(["--initial-cluster", &members]);
        if plan.folder.join(JOINS).exists() {
            command.args(["--initial-cluster-state", "existing"]);
        }
        if !plan.durable {
            // Only a crash of the whole machine loses what was not synced, and no test does that.
            command.arg("--unsafe-no-fsync");
        }
        if let Some(tls) = &plan.tls {
            command.arg("--cert-file").arg(&tls.certificate).arg("--key-file").arg(&tls.key);
        }
        if matches!(plan.role, ServerRole::EtcdMember { .. }) {
            // On one machine nothing takes long: a new leader within a second.
            command.args(["--heartbeat-interval", "50", "--election-timeout", "500"]);
        }
        command.args(&plan.arguments);
        Ok(command)
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        Ok(probe::get(plan.health, "/health")?.contains("\"health\":\"true\""))
    }

    /// All that was asked once and answered once: streams are not counted by their messages.
    fn requests(&self, plan: &Plan) -> Result<Option<u64>> {
        let metrics = probe::get(plan.health, "/metrics")?;
        let started = metrics.lines().filter(|line| line.starts_with("grpc_server_started_total"));
        let unary = started.filter(|line| line.contains("grpc_type=\"unary\""));
        let counts = unary.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A count, written as a float.
        Ok(Some(counts.sum::<f64>() as u64))
    }

    fn url(&self, plan: &Plan) -> String {
        let scheme = if plan.tls.is_some() { "etcd+https" } else { "etcd" };
        format!("{scheme}://{}", plan.address)
    }

    /// A full store is an alarm, which is raised and taken back here by hand: what a member of etcd does then depends on nothing else.
    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        let action = match deed {
            Deed::Fill => "ACTIVATE",
            Deed::MakeRoom => "DEACTIVATE",
            _ => bail!("the testbed can't do {deed:?} to etcd"),
        };
        let status = probe::post(plan.listen, "/v3/maintenance/status", "{}")?;
        let member = status.split_once("\"member_id\":\"").and_then(|(_, rest)| rest.split('"').next());
        let member = member.with_context(|| format!("no member's id: {status}"))?;
        let question = format!("{{\"action\":\"{action}\",\"memberID\":\"{member}\",\"alarm\":\"NOSPACE\"}}");
        let answer = probe::post(plan.listen, "/v3/maintenance/alarm", &question)?;
        if !answer.starts_with("HTTP/1.1 200") {
            bail!("etcd answers: {answer}");
        }
        Ok(())
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let mut command = plan.installation.command(program)?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", &plan.address.to_string()]);
        if let Some(tls) = &plan.tls {
            command.arg("--cacert").arg(&tls.ca);
        }
        Ok(command)
    }
}
