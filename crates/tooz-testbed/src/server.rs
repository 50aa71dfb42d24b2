//! One running server, and what can be done to it.

use parking_lot::{Mutex, MutexGuard};
pub(crate) mod backend;
pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod consul;
pub(crate) mod disk;
pub(crate) mod etcd;
pub(crate) mod family;
pub(crate) mod keeper;
pub(crate) mod memcached;
pub(crate) mod mysql;
pub(crate) mod operator;
pub(crate) mod ports;
pub(crate) mod postgres;
pub(crate) mod probe;
pub(crate) mod programs;
pub(crate) mod redis;
pub(crate) mod setup;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod zookeeper;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::provision;
use crate::provision::installation::Installation;
use crate::provision::kind::Kind;
use crate::server::backend::{Backend, Plan, ServerRole};
use crate::server::child::Child;
use crate::server::clock::Clock;
use crate::server::disk::Disk;
use crate::server::family::Family;
use crate::server::operator::Deed;
use crate::server::ports::Ports;
use crate::server::programs::Programs;
use crate::server::setup::Setup;
use crate::server::tls::Tls;

/// How long a server may take until it answers. Those that are measured take below one second; this is for a machine
/// that is busy with everything else at the same time.
const PATIENCE: Duration = Duration::from_mins(1);

/// The id of the last process of a server; zero before the first.
pub(crate) type Pid = Arc<Mutex<u32>>;

/// A server of this process's own, on ports of the loopback interface and in a folder of its own.
///
/// Everything can be done through `&self`, from any thread. Dropping it ends the server and removes its folder; so does
/// the end of the process, by whatever death.
#[derive(Debug)]
pub struct Server {
    plan: Plan,
    child: Mutex<Option<Child>>,
    pid: Pid,
    disk: Option<Disk>,
    _ports: Ports,
}

/// How a server of that kind is run.
pub(crate) fn backend_of(kind: Kind) -> &'static dyn Backend {
    match kind {
        Kind::Redis => &redis::Redis,
        Kind::Etcd => &etcd::Etcd,
        Kind::ZooKeeper => &zookeeper::ZooKeeper,
        Kind::Postgres => &postgres::Postgres,
        Kind::Consul => &consul::Consul,
        Kind::Memcached => &memcached::Memcached,
        Kind::MySql => &mysql::MySql,
    }
}

impl Setup {
    /// Provides the programs where they are not there yet, starts the server, and returns when it answers.
    pub fn start(self) -> Result<Server> {
        Server::start_as(&self)
    }
}

impl Server {
    /// Starts one server and returns when it answers.
    ///
    /// Provides its programs first where they are not there yet ([`provision`](crate::provision())), which takes a while
    /// the first time. The error says what is missing and what to do, or shows the end of the server's log.
    pub fn start(kind: Kind) -> Result<Server> {
        Setup::new(kind).start()
    }

    pub(crate) fn start_as(setup: &Setup) -> Result<Server> {
        let installation = provision::provision_version(setup.kind, setup.version.as_deref(), &|_| ())?;
        let ports = ports::three()?;
        let front = ports[0].address();
        let server = Server::new(setup, installation, ports, front, ServerRole::Alone, Pid::default())?;
        server.run()?;
        setup.password.iter().try_for_each(|password| server.operate(Deed::MakeUser(password)))?;
        Ok(server)
    }

    /// A server that does not run yet.
    pub(crate) fn new(
        setup: &Setup,
        installation: Installation,
        ports: Ports,
        front: SocketAddr,
        role: ServerRole,
        pid: Pid,
    ) -> Result<Server> {
        let folder = keeper::new_folder(setup.kind.name())?;
        let tls = if setup.tls { Some(Tls::make(&folder)?) } else { None };
        let unix_socket = setup.unix_socket.then(|| folder.join("socket"));
        let clock = setup.own_clock.then(|| Clock::new(setup.kind, &folder)).transpose()?;
        let plan = Plan {
            kind: setup.kind,
            installation: Programs::new(installation),
            folder,
            health: ports[2].address(),
            tls,
            unix_socket,
            listen: ports[0].address(),
            peers: ports[1].address(),
            address: front,
            role,
            durable: setup.durable,
            clock,
            has_user: setup.password.is_some(),
            arguments: setup.arguments.clone(),
        };
        let disk = setup.disk.map(|megabytes| {
            keeper::private_folder(&plan.data())?;
            Disk::mount(&plan.data(), megabytes)
        });
        let server = Server { plan, child: Mutex::new(None), pid, disk: disk.transpose()?, _ports: ports };
        backend_of(server.plan.kind).prepare(&server.plan)?;
        Ok(server)
    }

    /// What a driver connects to, such as `redis://127.0.0.1:21379`.
    pub fn url(&self) -> String {
        backend_of(self.plan.kind).url(&self.plan)
    }

    /// The same for the user `app`, whose password is in that file. The error says that no user was asked for
    /// ([`Setup::user`]).
    pub fn url_with_user(&self, password_file: &Path) -> Result<String> {
        if !self.plan.has_user {
            bail!("the server was started without a user; see Setup::user()");
        }
        backend_of(self.plan.kind).url_with_user(&self.plan, password_file)
    }

    /// Where clients connect; also while it is down, since the port stays its own. In a cluster that is a proxy, so that
    /// the server can be cut off.
    pub fn address(&self) -> SocketAddr {
        self.plan.address
    }

    /// Where it listens itself, behind that proxy.
    pub(crate) fn direct(&self) -> SocketAddr {
        self.plan.listen
    }

    /// Where it listens for its peers.
    pub(crate) fn peers(&self) -> SocketAddr {
        self.plan.peers
    }

    /// The third of its addresses.
    pub(crate) fn health(&self) -> SocketAddr {
        self.plan.health
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.plan.kind
    }

    /// The id of its process; of the last one, where it is down.
    pub fn pid(&self) -> u32 {
        *self.pid.lock()
    }

    /// Its folder, with `data/` and `log` in it. Gone when the server is dropped.
    pub fn folder(&self) -> &Path {
        &self.plan.folder
    }

    /// The certificate of the authority that vouches for the server, where it speaks TLS.
    pub fn ca_file(&self) -> Option<&Path> {
        self.plan.tls.as_ref().map(|tls| tls.ca.as_path())
    }

    /// Kills it (SIGKILL), paused or not, and returns when the process is gone. Does nothing when it is down already.
    pub fn kill(&self) -> Result<()> {
        self.child().take().map_or(Ok(()), Child::kill)?;
        self.family().map_or(Ok(()), |family| family.kill())
    }

    /// Stops it in its tracks (SIGSTOP): connections stay, and it does not answer. It stands still when this returns.
    pub fn pause(&self) -> Result<()> {
        self.child().as_ref().context("the server is down and cannot be paused")?.pause()?;
        self.family().map_or(Ok(()), |family| family.pause())
    }

    /// Lets it go on after [`pause`](Self::pause).
    pub fn resume(&self) -> Result<()> {
        self.child().as_ref().context("the server is down and cannot be resumed")?.resume()?;
        self.family().iter().for_each(Family::resume);
        Ok(())
    }

    /// Kills it where it runs, starts it again on the same port with its data kept, and returns when it answers.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        self.run()
    }

    /// Ends it gracefully, and starts that version with its data, at the same addresses. Fetches the version where it is not here yet. Going back to an
    /// older one is the caller's risk.
    pub fn upgrade(&self, version: &str) -> Result<()> {
        let installation = provision::provision_version(self.plan.kind, Some(version), &|_| ())?;
        self.stop()?;
        self.plan.installation.replace(installation);
        self.run()
    }

    /// Makes the data folder of one that is down anew.
    pub(crate) fn make_empty(&self) -> Result<()> {
        fs::remove_dir_all(self.plan.data())?;
        backend_of(self.plan.kind).prepare(&self.plan)
    }

    /// Sets its time of day ahead of the right one by so much; for a server that was started with [`Setup::own_clock`].
    pub fn set_clock_ahead(&self, by: Duration) -> Result<()> {
        self.clock()?.set("+", by)
    }

    /// Sets its time of day back behind the right one by so much.
    pub fn set_clock_back(&self, by: Duration) -> Result<()> {
        self.clock()?.set("-", by)
    }

    /// Sets its time of day right.
    pub fn set_clock_right(&self) -> Result<()> {
        self.clock()?.set("+", Duration::ZERO)
    }

    fn clock(&self) -> Result<&Clock> {
        self.plan.clock.as_ref().context("the server was started without a clock of its own; see Setup::own_clock()")
    }

    /// The disk for its data, where it was started with [`Setup::disk`].
    pub fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    /// Whether its process has not ended, by whatever death.
    pub fn is_running(&self) -> Result<bool> {
        self.child().as_mut().map_or(Ok(false), |child| Ok(child.ended()?.is_none()))
    }

    /// Does to it, while it runs, what an operator does. The error says that this can't be done to a server of its kind, or what the server
    /// answered.
    pub fn operate(&self, deed: Deed<'_>) -> Result<()> {
        backend_of(self.plan.kind).operate(&self.plan, deed)
    }

    /// Ends it gracefully, paused or not, and returns when the process is gone. Does nothing when it is down already.
    pub fn stop(&self) -> Result<()> {
        // Those that are stopped could not go on to their end.
        self.family().iter().for_each(Family::resume);
        let word = backend_of(self.plan.kind).stop_signal();
        self.child().take().map_or(Ok(()), |child| child.stop(word))?;
        self.family().map_or(Ok(()), |family| family.kill())
    }

    /// One of the server's own programs, such as `redis-cli` or `etcdctl`, set up to talk to this server: add what it is
    /// to do. The error says that this server has no such program.
    pub fn tool(&self, program: &str) -> Result<Command> {
        backend_of(self.plan.kind).tool(&self.plan, program)
    }

    /// How many requests it has counted since it was started, heartbeats of clients included; `None`: it does not count them.
    pub fn requests(&self) -> Result<Option<u64>> {
        backend_of(self.plan.kind).requests(&self.plan)
    }

    /// Starts the process and waits until it answers.
    pub(crate) fn run(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// Starts the process.
    pub(crate) fn launch(&self) -> Result<()> {
        let mut command = backend_of(self.plan.kind).command(&self.plan)?;
        self.plan.clock.iter().for_each(|clock| clock.put_before(&mut command));
        // A caller that asks which process this is has to wait until that is known.
        let mut pid = self.pid.lock();
        let child = Child::start(command, &self.plan.folder, &self.plan.log())?;
        *pid = child.pid();
        drop(pid);
        // One that was there is killed by being dropped.
        *self.child() = Some(child);
        Ok(())
    }

    /// Waits until the process answers; ends early when it dies.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        let kind = self.plan.kind;
        let mut last = None;
        let ready = wait::until(PATIENCE, "the server answers", || {
            let ended = self.child().as_mut().map(Child::ended).transpose()?.flatten();
            if let Some(status) = ended {
                bail!("it ended with {status}");
            }
            match backend_of(kind).is_ready(&self.plan) {
                Ok(ready) => Ok(ready.then_some(())),
                Err(error) => {
                    last = Some(error);
                    Ok(None)
                }
            }
        });
        ready.map_err(|error| {
            let why = last.map(|last| format!("; at last: {last:#}")).unwrap_or_default();
            error.context(format!("{kind} did not start{why}; its log:\n{}", self.end_of_log()))
        })
    }

    /// The words of its log that tell most.
    pub(crate) fn end_of_log(&self) -> String {
        let log = fs::read(self.plan.log()).unwrap_or_default();
        told_of_log(&String::from_utf8_lossy(&log))
    }

    /// Its other processes, if it is one that has any.
    fn family(&self) -> Option<Family> {
        backend_of(self.plan.kind).family(&self.plan).map(|folder| Family::in_folder(&folder))
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock()
    }
}

/// What was wrong stands first where the rest is a server's usage, and last where the rest is its doings. What a program of Java throws is
/// followed by where it did so, at length; the line that says what it was is kept.
fn told_of_log(log: &str) -> String {
    const FIRST: usize = 5;
    const LAST: usize = 20;
    let lines: Vec<&str> = log.lines().collect();
    if lines.len() <= FIRST + LAST {
        return lines.join("\n");
    }
    let (first, rest) = lines.split_at(FIRST);
    let (middle, last) = rest.split_at(rest.len() - LAST);
    let is_thrown =
        |line: &&&str| !line.trim_start().starts_with("at ") && (line.contains("Exception") || line.contains("Error"));
    // Of what is thrown again and again the latest will do.
    let mut thrown: Vec<&str> = middle.iter().rev().filter(is_thrown).take(5).copied().collect();
    thrown.reverse();
    let pause = ["…"];
    let parts = if thrown.is_empty() { vec![first, &pause, last] } else { vec![first, &pause, &thrown, &pause, last] };
    parts.concat().join("\n")
}

impl Drop for Server {
    fn drop(&mut self) {
        // No caller is left to tell an error to; the keeper tries both once more at the end of this process.
        let _ = self.kill();
        self.disk = None;
        let _ = fs::remove_dir_all(&self.plan.folder);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_thrown_is_told_beside_the_end_of_the_log() {
        let trace = "\tat org.example.Thing.error(Error.java)\n".repeat(30);
        let log = format!("one\ntwo\n{}java.lang.NoSuchMethodError: thing\n{trace}the end", "doing\n".repeat(20));
        let told = told_of_log(&log);
        assert!(told.starts_with("one\n") && told.ends_with("the end"), "{told}");
        assert!(told.contains("NoSuchMethodError: thing") && told.lines().count() < 30, "{told}");
        assert_eq!(told_of_log("short\nand good"), "short\nand good");
    }
}
