//! `cargo xtask serve`: a real server for trying things out, until Ctrl-C.

use std::io::Write;
use std::path::Display;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};
use tooz_testbed::{Cluster, Kind, Server, Setup};

use crate::CommandEnd;
use crate::progress::{Progress, Show};
use crate::servers;

/// What to start.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// The backend whose server to start, such as `redis`
    backend: String,
    /// Start a cluster instead of one server: three members of etcd, or a Redis primary with two replicas and three Sentinels
    #[arg(long)]
    cluster: bool,
    /// The version of the server, one of those that Debian has: `8.0` for Redis, say. An unknown one is an error that lists them
    #[arg(long, value_name = "VERSION")]
    server: Option<String>,
}

/// Whatever runs; it ends when the value is dropped.
enum Running {
    One(Box<Server>),
    Many(Cluster),
}

pub(crate) fn run(options: &Options) -> Result<CommandEnd> {
    let Some(kind) = servers::server_of(&options.backend) else {
        if servers::EMBEDDED.contains(&options.backend.as_str()) {
            bail!(
                "`{0}` needs no server; try: tooz --url '{0}:…' doctor (`tooz drivers` shows a URL of each)",
                options.backend
            );
        }
        let known: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        bail!("there is no server for `{}`; there are: {}", options.backend, known.join(", "));
    };
    // Blocked before any thread is started, so that no other thread is ended by one; waited for below.
    let ends: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
    ends.thread_block().context("cannot block signals")?;

    let progress = Progress::start(format!("serve {kind}"), Show::Glimpse);
    let installation = servers::provide(kind, options.server.as_deref(), &progress)?;
    progress.glimpse("starting");
    let running = Running::start(kind, options.cluster, options.server.as_deref())?;
    progress.finish("up");

    let url = running.url();
    println!("{url}");
    std::io::stdout().flush().context("cannot print the URL")?;
    eprintln!("from {}; its data is in {}", installation.source(), running.folder());
    eprintln!("try:  tooz --url '{url}' lock x -- date");
    eprintln!("      tooz --url '{url}' doctor");
    eprintln!("Ctrl-C ends it and removes its data");

    let signal = ends.wait().context("cannot wait for a signal")?;
    eprintln!("{signal}: stopping");
    running.stop()?;
    Ok(CommandEnd::Passed)
}

impl Running {
    fn start(kind: Kind, cluster: bool, version: Option<&str>) -> Result<Self> {
        let setup = Setup::new(kind);
        let setup = match version {
            Some(version) => setup.version(version),
            None => setup,
        };
        Ok(if cluster { Running::Many(setup.start_cluster()?) } else { Running::One(Box::new(setup.start()?)) })
    }

    fn url(&self) -> String {
        match self {
            Running::One(server) => server.url(),
            Running::Many(cluster) => cluster.url(),
        }
    }

    /// The folder of the server, or the one above those of all members.
    fn folder(&self) -> Display<'_> {
        match self {
            Running::One(server) => server.folder().display(),
            Running::Many(cluster) => {
                let first = cluster.nodes()[0].folder();
                first.parent().unwrap_or(first).display()
            }
        }
    }

    fn stop(self) -> Result<()> {
        match self {
            Running::One(server) => server.stop(),
            Running::Many(cluster) => {
                drop(cluster);
                Ok(())
            }
        }
    }
}
