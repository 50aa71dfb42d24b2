//! PostgreSQL: how it is started, asked and reached.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::server::backend::{Backend, Plan, text};
use crate::server::keeper::private_folder;
use crate::server::operator::{Deed, USER as APP, run};
use crate::server::probe;

pub(crate) struct Postgres;

/// Where the tables of tooz are.
const SCHEMA: &str = "tooz";

/// The user of the database, and the database: those that are always there.
pub(crate) const USER: &str = "postgres";

/// The user `nobody`, who has this number everywhere. PostgreSQL refuses to run as root.
const NOBODY: u32 = 65534;

impl Backend for Postgres {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.tls.is_some() && plan.unix_socket.is_some() {
            bail!("a server with both tls() and unix_socket() would have two URLs; choose one");
        }
        private_folder(&plan.data())?;
        if let Some(tls) = &plan.tls {
            fs::set_permissions(&tls.key, fs::Permissions::from_mode(0o600))?;
        }
        hand_over(plan)?;
        let mut command = plan.installation.command("initdb")?;
        command
            .args(["-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions", "-D"])
            .arg(plan.data());
        let output = as_somebody(command).stdin(Stdio::null()).output().context("cannot run initdb")?;
        if !output.status.success() {
            bail!("initdb failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        let mut command = plan.installation.command("postgres")?;
        let socket = plan.unix_socket.as_ref().map(|_| text(&plan.folder)).unwrap_or_default();
        let listen = if plan.unix_socket.is_some() { "" } else { "127.0.0.1" };
        command
            .args(["-D", &text(&plan.data()), "-p", &plan.listen.port().to_string(), "-h", listen, "-k", &socket])
            // Small, but with room for suites that run many cases at the same time.
            .args(["-c", "shared_buffers=32MB", "-c", "max_connections=400", "-c", "autovacuum_naptime=5s"])
            // Shared memory that goes with the process, however it ends.
            .args(["-c", "dynamic_shared_memory_type=mmap"]);
        if !plan.durable {
            // Only a crash of the whole machine loses what was not synced, and no test does that.
            command.args(["-F", "-c", "full_page_writes=off"]);
        }
        if let Some(tls) = &plan.tls {
            command
                .args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", text(&tls.certificate))])
                .args(["-c", &format!("ssl_key_file={}", text(&tls.key))]);
        }
        command.args(&plan.arguments);
        Ok(as_somebody(command))
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        let question = greeting()?;
        let enough = |answer: &[u8]| !answer.is_empty();
        let answer = match &plan.unix_socket {
            None => probe::ask(plan.listen, &question, enough)?,
            Some(_) => probe::ask_at(&socket(plan), &question, enough)?,
        };
        // `R`: come in. While it starts or shuts down it answers `E`.
        Ok(answer.first() == Some(&b'R'))
    }

    fn url(&self, plan: &Plan) -> String {
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => format!("postgres://{USER}@{}/{USER}", plan.listen),
            (Some(tls), _) => {
                format!("postgres://{USER}@{}/{USER}?sslmode=verify-full&sslrootcert={}", plan.listen, tls.ca.display())
            }
            (None, Some(_)) => {
                format!("postgres://{USER}@/{USER}?host={}&port={}", plan.folder.display(), plan.listen.port())
            }
        }
    }

    fn url_with_user(&self, plan: &Plan, password_file: &Path) -> Result<String> {
        Ok(format!("postgres://{APP}@{}/{USER}?password_file={}", plan.listen, text(password_file)))
    }

    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        let say = |statements: &str| self.say(plan, statements);
        match deed {
            Deed::MakeUser(password) => {
                ask_for_password(plan)?;
                say(&format!(
                    "CREATE ROLE {APP} LOGIN PASSWORD '{password}'; GRANT CREATE ON DATABASE {USER} TO {APP}; \
                     SELECT pg_reload_conf()"
                ))
            }
            Deed::ChangePassword(password) => say(&format!("ALTER ROLE {APP} PASSWORD '{password}'")),
            Deed::ShutOut => say(&format!(
                "ALTER ROLE {APP} NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{APP}'"
            )),
            Deed::LetIn => say(&format!("ALTER ROLE {APP} LOGIN")),
            Deed::RefuseWrites => {
                say(&format!("REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} FROM {APP}"))
            }
            Deed::TakeWrites => say(&format!("GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {SCHEMA} TO {APP}")),
            Deed::Fill | Deed::MakeRoom => bail!("the testbed can't do {deed:?} to PostgreSQL"),
        }
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let mut command = plan.installation.command(program)?;
        let host = plan.unix_socket.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |_| text(&plan.folder));
        command.args(["-X", "-U", USER, "-h", &host, "-p", &plan.listen.port().to_string()]);
        if let Some(tls) = &plan.tls {
            command.env("PGSSLMODE", "verify-full").env("PGSSLROOTCERT", &tls.ca);
        }
        Ok(command)
    }

    fn stop_signal(&self) -> Signal {
        Signal::SIGINT
    }

    fn family(&self, plan: &Plan) -> Option<PathBuf> {
        Some(plan.data())
    }
}

impl Postgres {
    fn say(&self, plan: &Plan, statements: &str) -> Result<()> {
        let mut command = self.tool(plan, "psql")?;
        command.args(["-q", "-d", USER, "-v", "ON_ERROR_STOP=1"]);
        run(command, &format!("{statements};\n")).map(drop)
    }
}

/// Has the user of programs say its password; all others are let in without, as they were. It is said in the clear, since a proof of it is a burden
/// for a client that was built without optimization.
fn ask_for_password(plan: &Plan) -> Result<()> {
    let file = plan.data().join("pg_hba.conf");
    let others = fs::read_to_string(&file)?;
    Ok(fs::write(&file, format!("host all {APP} 127.0.0.1/32 password\n{others}"))?)
}

/// What a client says first.
pub(crate) fn greeting() -> Result<Vec<u8>> {
    let word = format!("user\0{USER}\0database\0{USER}\0\0");
    let length = u32::try_from(word.len() + 8)?;
    // The length with itself, version 3.0 of the protocol, and who asks for what.
    let mut greeting = Vec::from(length.to_be_bytes());
    greeting.extend(196_608_u32.to_be_bytes());
    greeting.extend(word.bytes());
    Ok(greeting)
}

fn socket(plan: &Plan) -> PathBuf {
    plan.folder.join(format!(".s.PGSQL.{}", plan.listen.port()))
}

/// As whom it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disguise {
    /// In a namespace of its own, in which this user's number is another one if this user is root, and with shared memory of
    /// its own, of which nothing is left after a kill.
    Namespace,
    /// As this user.
    None,
    /// As another user, to whom the files must belong.
    User,
}

impl Disguise {
    fn choose() -> Self {
        let tried = disguised("true").stdin(Stdio::null()).output();
        if tried.is_ok_and(|output| output.status.success()) {
            Disguise::Namespace
        } else if is_root() {
            Disguise::User
        } else {
            Disguise::None
        }
    }
}

pub(crate) fn is_root() -> bool {
    // A process' own entry belongs to the user that it runs as.
    fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn disguised(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let nobody = NOBODY.to_string();
    let mut command = Command::new("unshare");
    command.args(["--user", "--ipc"]);
    if is_root() {
        command.args(["--map-user", &nobody, "--map-group", &nobody]);
    } else {
        command.arg("--map-current-user");
    }
    command.arg(program);
    command
}

/// This command, run as a user that PostgreSQL accepts. The process keeps its id: one becomes the other.
pub(crate) fn as_somebody(mut command: Command) -> Command {
    match Disguise::choose() {
        Disguise::None => command,
        Disguise::Namespace => {
            let mut other = disguised(command.get_program());
            other.args(command.get_args());
            for (name, value) in command.get_envs() {
                match value {
                    Some(value) => other.env(name, value),
                    None => other.env_remove(name),
                };
            }
            other
        }
        Disguise::User => {
            command.uid(NOBODY).gid(NOBODY);
            command
        }
    }
}

/// Where it runs as another user, the folder must be that one's, and be reached by it.
fn hand_over(plan: &Plan) -> Result<()> {
    let data = plan.data();
    let mut paths = vec![plan.folder.as_path(), data.as_path()];
    paths.extend(plan.tls.as_ref().map(|tls| tls.key.as_path()));
    give_to_somebody(&paths)
}

/// Gives the files of a program that is run [`as_somebody`] to that user: its folder first.
pub(crate) fn give_to_somebody(paths: &[&Path]) -> Result<()> {
    if Disguise::choose() != Disguise::User {
        return Ok(());
    }
    for path in paths {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    if let Some(run) = paths.first().and_then(|folder| folder.parent()) {
        fs::set_permissions(run, fs::Permissions::from_mode(0o711))?;
    }
    Ok(())
}
