//! Redis: how it is started, asked and reached.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::server::backend::{Backend, Plan, ServerRole, text};
use crate::server::keeper::private_folder;
use crate::server::operator::{Deed, USER, run};
use crate::server::probe;

pub(crate) struct Redis;

/// The name by which Sentinels know the primary.
pub(crate) const NAME: &str = "tooz";

const SETTINGS: &str = "redis.conf";

/// Where the users are, so that they stay over restarts.
const USERS: &str = "users.acl";

/// What a member needs, and no more.
const RIGHTS: &str = "+@all -@admin -@dangerous +info";

/// What the kernel has room for.
const LONGEST_SOCKET: usize = 107;

impl Backend for Redis {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.tls.is_some() && plan.unix_socket.is_some() {
            bail!("a server with both tls() and unix_socket() would have two URLs; choose one");
        }
        if let Some(socket) = socket(plan).filter(|socket| socket.as_os_str().len() > LONGEST_SOCKET) {
            bail!("{} is too long for a Unix socket; set TMPDIR to a shorter path", socket.display());
        }
        private_folder(&plan.data())?;
        if plan.has_user {
            fs::write(plan.folder.join(USERS), "user default on nopass ~* &* +@all\n")?;
        }
        match settings(plan) {
            Some(settings) => Ok(fs::write(plan.folder.join(SETTINGS), settings)?),
            None => Ok(()),
        }
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let mut command = plan.installation.command("redis-server")?;
        if !matches!(plan.role, ServerRole::Alone) {
            command.arg(plan.folder.join(SETTINGS));
        }
        if matches!(plan.role, ServerRole::RedisSentinel { .. }) {
            // The caller's arguments are meant for the servers that keep the data.
            command.arg("--sentinel");
            return Ok(command);
        }
        let port = plan.listen.port().to_string();
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => command.args(["--port", &port]),
            (Some(tls), _) => command
                .args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no"])
                .arg("--tls-cert-file")
                .arg(&tls.certificate)
                .arg("--tls-key-file")
                .arg(&tls.key)
                .arg("--tls-ca-cert-file")
                .arg(&tls.ca),
            (None, Some(_)) => command.args(["--port", "0"]),
        };
        if let Some(socket) = socket(plan) {
            command.arg("--unixsocket").arg(socket);
        }
        command
            .args(["--bind", "127.0.0.1"])
            .args(["--dir", &text(&plan.data()), "--daemonize", "no"])
            // What was answered is kept over `kill -9`, which is what a restart with the data kept means: with `no` it is written
            // before the answer goes out, every time, and only the machine's death loses it. `everysec` may write it after the answer.
            .args(["--save", "", "--appendonly", "yes", "--appendfsync", if plan.durable { "everysec" } else { "no" }])
            .args(&plan.arguments);
        if plan.has_user {
            command.arg("--aclfile").arg(plan.folder.join(USERS));
        }
        Ok(command)
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        let whole = |answer: &[u8]| answer.ends_with(b"\r\n");
        let answer = match socket(plan) {
            None => probe::ask(plan.listen, b"PING\r\n", whole)?,
            Some(socket) => probe::ask_at(&socket, b"PING\r\n", whole)?,
        };
        // One that wants a password serves those who have it. While it loads its data it says `-LOADING`.
        Ok(answer.starts_with(b"+PONG") || answer.starts_with(b"-NOAUTH"))
    }

    fn url(&self, plan: &Plan) -> String {
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => format!("redis://{}", plan.address),
            (Some(_), _) => format!("rediss://{}", plan.address),
            (None, Some(socket)) => format!("redis+unix://{}", socket.display()),
        }
    }

    fn url_with_user(&self, plan: &Plan, password_file: &Path) -> Result<String> {
        Ok(format!("redis://{USER}@{}?password_file={}", plan.address, text(password_file)))
    }

    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        let user = |rules: &str| self.say(plan, &format!("ACL SETUSER {USER} {rules}"));
        match deed {
            Deed::MakeUser(password) => user(&format!("on >{password} ~tooz:* &tooz:* {RIGHTS}")),
            Deed::ChangePassword(password) => user(&format!("resetpass >{password}")),
            Deed::ShutOut => {
                user("off")?;
                self.say(plan, &format!("CLIENT KILL USER {USER}"))
            }
            Deed::LetIn => user("on"),
            Deed::RefuseWrites => user("-@write"),
            Deed::TakeWrites => user(RIGHTS),
            Deed::Fill => self.say(plan, "CONFIG SET maxmemory 1"),
            Deed::MakeRoom => self.say(plan, "CONFIG SET maxmemory 0"),
        }
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let mut command = plan.installation.command(program)?;
        match &plan.unix_socket {
            None => command.args(["-h", "127.0.0.1", "-p", &plan.address.port().to_string()]),
            Some(socket) => command.arg("-s").arg(socket),
        };
        if let Some(tls) = &plan.tls {
            command.arg("--tls").arg("--cacert").arg(&tls.ca);
        }
        Ok(command)
    }
}

impl Redis {
    /// Says that to the server, and has it keep its users.
    fn say(&self, plan: &Plan, command: &str) -> Result<()> {
        let save = if plan.has_user { "ACL SAVE\n" } else { "" };
        let answers = run(self.tool(plan, "redis-cli")?, &format!("{command}\n{save}"))?;
        // The program ends well whatever the answer.
        match answers.lines().find(|line| *line != "OK" && line.parse::<u64>().is_err() && !line.is_empty()) {
            Some(refused) => bail!("Redis answers to `{command}`: {refused}"),
            None => Ok(()),
        }
    }
}

/// The socket by which it can be asked without TLS, or is reached altogether.
fn socket(plan: &Plan) -> Option<PathBuf> {
    let to_ask = || plan.tls.as_ref().map(|_| plan.folder.join("socket"));
    plan.unix_socket.clone().or_else(to_ask)
}

/// Servers that Sentinels watch keep their settings in a file, into which a Sentinel has them write what it made of them: a
/// primary that was replaced is a replica after its restart too, once it has been told. Sentinels write their own.
fn settings(plan: &Plan) -> Option<String> {
    let announced = plan.address.port();
    match plan.role {
        ServerRole::RedisNode { replica_of } => {
            let replica = replica_of.map(|primary| format!("replicaof 127.0.0.1 {}\n", primary.port()));
            Some(format!(
                "replica-announce-ip 127.0.0.1\nreplica-announce-port {announced}\nrepl-diskless-sync-delay 0\n{}",
                replica.unwrap_or_default()
            ))
        }
        ServerRole::RedisSentinel { primary } => Some(format!(
            "port {}\nbind 127.0.0.1\ndir {}\n\
             sentinel announce-ip 127.0.0.1\nsentinel announce-port {announced}\n\
             sentinel monitor {NAME} 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 2000\nsentinel parallel-syncs {NAME} 2\n",
            plan.listen.port(),
            text(&plan.data()),
            primary.port()
        )),
        _ => None,
    }
}
