//! MariaDB and MySQL: how they are started, asked and reached.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::server::backend::{Backend, Plan, text};
use crate::server::keeper::private_folder;
use crate::server::operator::{Deed, USER as APP, run};
use crate::server::postgres::is_root;
use crate::server::probe;

pub(crate) struct MySql;

/// The user that is always there, with all privileges and no password.
const USER: &str = "root";

/// The database in which the tables of tooz are; the test that needs it makes it.
const DATABASE: &str = "tooz";

/// What the kernel has room for.
const LONGEST_SOCKET: usize = 107;

impl Backend for MySql {
    fn prepare(&self, plan: &Plan) -> Result<()> {
        if plan.tls.is_some() && plan.unix_socket.is_some() {
            bail!("a server with both tls() and unix_socket() would have two URLs; choose one");
        }
        if socket(plan).as_os_str().len() > LONGEST_SOCKET {
            bail!("{} is too long for a Unix socket; set TMPDIR to a shorter path", socket(plan).display());
        }
        private_folder(&plan.data())?;
        if family(plan) == MySqlFamily::MySql {
            return initialize(plan);
        }
        let mut command = plan.installation.command("mariadbd")?;
        command
            .args(["--no-defaults", "--bootstrap", "--log-warnings=0", "--innodb-log-file-size=8M"])
            .args(folders(plan)?)
            .args(as_root());
        let log = File::create(plan.log())?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot run mariadbd --bootstrap")?;
        let mut input = child.stdin.take().context("its input is piped")?;
        let written = input.write_all(bootstrap(plan)?.as_bytes());
        drop(input);
        let status = child.wait()?;
        if !status.success() || written.is_err() {
            bail!("mariadbd --bootstrap failed:\n{}", fs::read_to_string(plan.log())?.trim());
        }
        Ok(())
    }

    fn command(&self, plan: &Plan) -> Result<Command> {
        // What a killed server leaves may bear the number of a process that lives by now.
        for left in ["socket", "socket.lock"] {
            let _ = fs::remove_file(plan.folder.join(left));
        }
        let mut command = plan.installation.command(family(plan).server())?;
        command
            .arg("--no-defaults")
            .args(folders(plan)?)
            .arg(format!("--socket={}", text(&socket(plan))))
            .arg(format!("--pid-file={}", text(&plan.folder.join("pid"))))
            .args(as_root())
            // Small, but with room for suites that run many cases at the same time.
            .args(["--skip-name-resolve", "--innodb-buffer-pool-size=32M", "--performance-schema=OFF"])
            .arg("--max-connections=800")
            .args(family(plan).arguments());
        match &plan.unix_socket {
            Some(_) => command.arg("--skip-networking"),
            None => command.arg("--bind-address=127.0.0.1").arg(format!("--port={}", plan.listen.port())),
        };
        if plan.durable {
            // As in production: what was committed is on the disk, and replicas can be fed from it.
            command.args([
                "--innodb-flush-log-at-trx-commit=1",
                "--log-bin=binlog",
                "--sync-binlog=1",
                "--server-id=1",
            ]);
        } else {
            // Only a crash of the whole machine loses what was not synced, and no test does that.
            command.arg("--innodb-flush-log-at-trx-commit=2");
            command.arg(match family(plan) {
                MySqlFamily::MariaDb => "--innodb-flush-method=nosync",
                MySqlFamily::MySql => "--skip-log-bin",
            });
        }
        if let Some(tls) = &plan.tls {
            command
                .arg(format!("--ssl-ca={}", text(&tls.ca)))
                .arg(format!("--ssl-cert={}", text(&tls.certificate)))
                .arg(format!("--ssl-key={}", text(&tls.key)))
                .arg("--require-secure-transport=ON");
        } else if family(plan) == MySqlFamily::MySql {
            // It would have a certificate of its own, and each connection would pay for that.
            command.arg("--tls-version=");
        }
        command.args(&plan.arguments);
        Ok(command)
    }

    fn is_ready(&self, plan: &Plan) -> Result<bool> {
        // It speaks first: the length and the number of the packet, and then the version of the protocol, or 255 for an error.
        let enough = |answer: &[u8]| answer.len() > 4;
        let answer = match &plan.unix_socket {
            None => probe::ask(plan.listen, b"", enough)?,
            Some(_) => probe::ask_at(&socket(plan), b"", enough)?,
        };
        Ok(answer.get(4) == Some(&10))
    }

    fn url(&self, plan: &Plan) -> String {
        match (&plan.tls, &plan.unix_socket) {
            (None, None) => format!("mysql://{USER}@{}/{DATABASE}", plan.listen),
            (Some(tls), _) => format!("mysql://{USER}@{}/{DATABASE}?ca={}", plan.listen, tls.ca.display()),
            (None, Some(_)) => format!("mysql://{USER}@/{DATABASE}?socket={}", socket(plan).display()),
        }
    }

    fn url_with_user(&self, plan: &Plan, password_file: &Path) -> Result<String> {
        Ok(format!("mysql://{APP}@{}/{DATABASE}?password_file={}", plan.listen, text(password_file)))
    }

    fn operate(&self, plan: &Plan, deed: Deed<'_>) -> Result<()> {
        let say = |statement: &str| self.say(plan, statement).map(drop);
        match deed {
            Deed::MakeUser(password) => say(&format!(
                "CREATE USER {APP}@'%' IDENTIFIED BY '{password}'; GRANT ALL ON {DATABASE}.* TO {APP}@'%'"
            )),
            Deed::ChangePassword(password) => say(&format!("ALTER USER {APP}@'%' IDENTIFIED BY '{password}'")),
            Deed::ShutOut => {
                say(&format!("ALTER USER {APP}@'%' ACCOUNT LOCK"))?;
                let connections = format!("SELECT id FROM information_schema.processlist WHERE user = '{APP}'");
                let connections = self.say(plan, &connections)?;
                // One that has ended meanwhile is an error, and was to end.
                connections.lines().try_for_each(|id| self.say(plan, &format!("KILL {id}")).map_or(Ok(()), |_| Ok(())))
            }
            Deed::LetIn => say(&format!("ALTER USER {APP}@'%' ACCOUNT UNLOCK")),
            Deed::RefuseWrites => say("SET GLOBAL read_only = ON"),
            Deed::TakeWrites => say("SET GLOBAL read_only = OFF"),
            Deed::Fill | Deed::MakeRoom => bail!("the testbed can't do {deed:?} to MariaDB"),
        }
    }

    fn tool(&self, plan: &Plan, program: &str) -> Result<Command> {
        let family = family(plan);
        // The client has another name in each family.
        let program = if family == MySqlFamily::MySql && program == "mariadb" { "mysql" } else { program };
        let mut command = plan.installation.command(program)?;
        command.args(["--no-defaults", "-u", USER]);
        match &plan.unix_socket {
            Some(_) => command.arg(format!("--socket={}", text(&socket(plan)))),
            None => command.args(["--protocol=TCP", "-h", "127.0.0.1", "-P", &plan.listen.port().to_string()]),
        };
        match &plan.tls {
            Some(tls) => command.arg(format!("--ssl-ca={}", text(&tls.ca))),
            None if family == MySqlFamily::MySql => command.arg("--ssl-mode=DISABLED"),
            None => command.arg("--skip-ssl"),
        };
        Ok(command)
    }
}

impl MySql {
    /// What the server answers to that, a row a line.
    fn say(&self, plan: &Plan, statement: &str) -> Result<String> {
        let mut command = self.tool(plan, "mariadb")?;
        command.args(["--batch", "--skip-column-names"]);
        run(command, statement)
    }
}

fn socket(plan: &Plan) -> PathBuf {
    plan.folder.join("socket")
}

/// The tables of the server's own, by the statements that come with it, and `root` with no password.
fn bootstrap(plan: &Plan) -> Result<String> {
    const PARTS: [&str; 3] = ["system_tables.sql", "performance_tables.sql", "system_tables_data.sql"];
    let share = base(plan)?.join("share");
    let mut sql =
        String::from("CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket=NULL;\nSET @skip_auth_anonymous=1;\n");
    for part in PARTS {
        // The names are other ones in newer versions.
        let names = [format!("mysql/mysql_{part}"), format!("mysql/mariadb_{part}"), format!("mariadb/mariadb_{part}")];
        let found = names.iter().map(|name| share.join(name)).find(|path| path.is_file());
        let found = found.with_context(|| format!("there is no {part} in {}", share.display()))?;
        sql += &fs::read_to_string(found)?;
    }
    Ok(sql)
}

/// Makes the data folder and the users of MySQL, which makes its own tables by itself.
fn initialize(plan: &Plan) -> Result<()> {
    let users = plan.folder.join("users.sql");
    fs::write(
        &users,
        format!("CREATE USER '{USER}'@'%' IDENTIFIED BY '';\nGRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"),
    )?;
    let mut command = plan.installation.command("mysqld")?;
    command
        .args(["--no-defaults", "--initialize-insecure"])
        .arg(format!("--init-file={}", text(&users)))
        .args(folders(plan)?)
        .args(MySqlFamily::MySql.arguments())
        // What is settled for ever with the data.
        .args(plan.arguments.iter().filter(|argument| argument.starts_with("--lower-case-table-names")))
        .args(as_root());
    let output = command.stdin(Stdio::null()).output().context("cannot run mysqld --initialize-insecure")?;
    if !output.status.success() {
        bail!("mysqld --initialize-insecure failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Which of the two it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MySqlFamily {
    MariaDb,
    MySql,
}

fn family(plan: &Plan) -> MySqlFamily {
    if plan.installation.find("mariadbd").is_some() { MySqlFamily::MariaDb } else { MySqlFamily::MySql }
}

impl MySqlFamily {
    fn server(self) -> &'static str {
        match self {
            MySqlFamily::MariaDb => "mariadbd",
            MySqlFamily::MySql => "mysqld",
        }
    }

    /// What one of them knows and the other does not.
    fn arguments(self) -> &'static [&'static str] {
        match self {
            MySqlFamily::MariaDb => &["--innodb-log-file-size=8M", "--aria-pagecache-buffer-size=1M"],
            MySqlFamily::MySql => &[
                "--mysqlx=OFF",
                "--innodb-redo-log-capacity=8M",
                "--innodb-doublewrite=OFF",
                "--innodb-use-native-aio=OFF",
                "--secure-file-priv=",
            ],
        }
    }
}

/// Where it finds its own files, and where it keeps its data.
fn folders(plan: &Plan) -> Result<Vec<String>> {
    let base = base(plan)?;
    let mut folders = vec![
        format!("--basedir={}", text(&base)),
        format!("--datadir={}", text(&plan.data())),
        format!("--tmpdir={}", text(&plan.folder)),
    ];
    if family(plan) == MySqlFamily::MySql {
        folders.extend([
            format!("--lc-messages-dir={}", text(&base.join("share/mysql"))),
            format!("--character-sets-dir={}", text(&base.join("share/mysql/charsets"))),
            format!("--plugin-dir={}", text(&base.join("lib/mysql/plugin"))),
        ]);
    }
    Ok(folders)
}

/// The folder in which `share/` is.
fn base(plan: &Plan) -> Result<PathBuf> {
    let server = plan.installation.find(family(plan).server()).context("there is no server")?;
    let folder = server.parent().and_then(Path::parent);
    Ok(folder.context("the server is in a folder of programs")?.to_owned())
}

/// It refuses to run as root unless it is told to.
fn as_root() -> Option<&'static str> {
    is_root().then_some("--user=root")
}
