//! `PgBouncer`, the pooler that stands before many a PostgreSQL server.

use parking_lot::Mutex;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::provision::companion;
use crate::provision::kind::Kind;
use crate::provision::pgbouncer::PROGRAM;
use crate::server::Server;
use crate::server::child::Child;
use crate::server::keeper;
use crate::server::ports::Port;
use crate::server::postgres;
use crate::server::probe;
use crate::server::wait;

const SETTINGS: &str = "pgbouncer.ini";
const PATIENCE: Duration = Duration::from_mins(1);

/// When a connection to the server goes on to the next client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PoolMode {
    /// When the client goes.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement.
    Statement,
}

/// A `PgBouncer` of this process's own before a [`Server`] of PostgreSQL. Dropping it ends it.
#[derive(Debug)]
pub struct PgBouncer {
    child: Mutex<Option<Child>>,
    folder: PathBuf,
    port: Port,
    url: String,
}

impl PgBouncer {
    /// Starts one before that server, and returns when it answers. `settings` are more lines of its file, such as
    /// `default_pool_size = 2`.
    ///
    /// Its program comes as those of the servers do, but not from Docker.
    pub fn start(server: &Server, mode: PoolMode, settings: &str) -> Result<PgBouncer> {
        if server.kind() != Kind::Postgres {
            bail!("PgBouncer stands before PostgreSQL, and not before {}", server.kind());
        }
        let program = companion(&PROGRAM, &|_| ())?;
        let (folder, port) = (keeper::new_folder("pgbouncer")?, Port::reserve()?);
        fs::write(folder.join(SETTINGS), file(server.address(), port.address(), mode, settings))?;
        let mut command = program.command(PROGRAM.program)?;
        command.arg(folder.join(SETTINGS));
        // Like the server itself it refuses to run as root.
        postgres::give_to_somebody(&[folder.as_path(), folder.join(SETTINGS).as_path()])?;
        let child = Child::start(postgres::as_somebody(command), &folder, &folder.join("log"))?;
        let url = server.url().replace(&server.address().to_string(), &port.address().to_string());
        let bouncer = PgBouncer { child: Mutex::new(Some(child)), folder, port, url };
        bouncer.wait_until_ready()?;
        Ok(bouncer)
    }

    /// What a driver connects to.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let ready = wait::until(PATIENCE, "PgBouncer answers", || {
            if let Some(status) = self.child.lock().as_mut().map(Child::ended).transpose()?.flatten() {
                bail!("it ended with {status}");
            }
            let answer = probe::ask(self.address(), &postgres::greeting()?, |answer| !answer.is_empty());
            Ok(answer.is_ok_and(|answer| answer.first() == Some(&b'R')).then_some(()))
        });
        ready.with_context(|| format!("PgBouncer did not start; its log:\n{}", log(&self.folder)))
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.child.lock().take());
        // The keeper tries once more at the end of this process.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn log(folder: &Path) -> String {
    String::from_utf8_lossy(&fs::read(folder.join("log")).unwrap_or_default()).trim().to_owned()
}

/// Its settings. The startup parameter is one that many clients send, and that it refuses unless told not to.
fn file(server: SocketAddr, listen: SocketAddr, mode: PoolMode, settings: &str) -> String {
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    let (user, host, port) = (postgres::USER, server.ip(), server.port());
    format!(
        "[databases]\n* = host={host} port={port} user={user}\n\
         [pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
         ignore_startup_parameters = extra_float_digits\n{settings}\n",
        listen.ip(),
        listen.port(),
    )
}
