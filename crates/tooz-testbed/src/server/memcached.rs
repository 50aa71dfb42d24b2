//! memcached: how it is started, asked and reached. It keeps nothing over a restart.

mod fill;

use std::process::Command;

use anyhow::{Result, bail};

use crate::server::backend::{Backend, Plan, text};
use crate::server::keeper::private_folder;
use crate::server::operator::Deed;
use crate::server::postgres::is_root;
use crate::server::probe;

pub(crate) struct Memcached;

/// What the kernel has room for.
const LONGEST_SOCKET: usize = 107;

/// How many connections it takes: below what most systems let a plain user have.
const CONNECTIONS: &str = "4000";

impl Backend for Memcached {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.tls.is_some() && plan.unix_socket.is_some() {
            bail!("a server with both tls() and unix_socket() would have two URLs; choose one");
        }
        if let Some(socket) = plan.unix_socket.as_ref().filter(|socket| socket.as_os_str().len() > LONGEST_SOCKET) {
            bail!("{} is too long for a Unix socket; set TMPDIR to a shorter path", socket.display());
        }
        private_folder(&plan.data())
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let mut command = plan.installation.command("memcached")?;
        // No UDP, and it would not run as root unless it is told to.
        command.args(["-U", "0", "-c", CONNECTIONS]);
        if is_root() {
            command.args(["-u", "root"]);
        }
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => {
                command.args(["-l", "127.0.0.1", "-p", &plan.listen.port().to_string()]);
            }
            (Some(tls), _) => {
                // A plain port beside it, by which it can be asked.
                command.args(["-l", &format!("{},notls:{}", plan.listen, plan.health), "-Z"]);
                command.args(["-o", &format!("ssl_chain_cert={}", text(&tls.certificate))]);
                command.args(["-o", &format!("ssl_key={}", text(&tls.key))]);
            }
            (None, Some(socket)) => {
                command.arg("-s").arg(socket).args(["-a", "0700"]);
            }
        }
        // A test that says how much memory it has wants to see what becomes of a full server, and says what that is to be.
        if !plan.arguments.iter().any(|argument| argument.starts_with("-m")) {
            command.args(["-m", &fill::MUCH.to_string(), "-M"]);
        }
        command.args(&plan.arguments);
        Ok(command)
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        let answer = ask(plan, b"mn\r\n", b"\r\n")?;
        // One that wants a log-in serves those who have it.
        Ok(answer.starts_with(b"MN") || answer.starts_with(b"CLIENT_ERROR unauthenticated"))
    }

    /// What it counts by itself: reads, writes, touches and deletions, of which some are parts of one request.
    fn requests(&self, plan: &Plan) -> Result<Option<u64>> {
        let stats = ask(plan, b"stats\r\n", b"END\r\n")?;
        let stats = String::from_utf8_lossy(&stats).into_owned();
        let counted = ["cmd_get", "cmd_set", "cmd_touch", "delete_hits", "delete_misses"];
        let counts = stats.lines().filter_map(|line| {
            let (name, count) = line.strip_prefix("STAT ")?.split_once(' ')?;
            counted.contains(&name).then(|| count.trim().parse::<u64>().ok())?
        });
        Ok(Some(counts.sum()))
    }

    fn url(&self, plan: &Plan) -> String {
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => format!("memcached://{}", plan.address),
            (Some(_), _) => format!("memcached+tls://{}", plan.address),
            (None, Some(socket)) => format!("memcached+unix://{}", socket.display()),
        }
    }

    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        match deed {
            Deed::Fill => fill::fill(plan),
            Deed::MakeRoom => fill::make_room(plan),
            _ => bail!("the testbed can't do {deed:?} to memcached"),
        }
    }

    fn tool(&self, _plan: &Plan, program: &str) -> Result<Command> {
        bail!("memcached has no program `{program}` that would talk to it; it is asked in lines of text")
    }
}

fn ask(plan: &Plan, question: &[u8], end: &'static [u8]) -> Result<Vec<u8>> {
    let whole = |answer: &[u8]| answer.ends_with(end);
    match (&plan.tls, &plan.unix_socket) {
        (Some(_), _) => probe::ask(plan.health, question, whole),
        (None, Some(socket)) => probe::ask_at(socket, question, whole),
        (None, None) => probe::ask(plan.listen, question, whole),
    }
}
