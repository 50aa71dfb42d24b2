//! What the servers' own tools say that is left: the driver may be blind for what it has left itself.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tooz_testbed::{Kind, Server};

use crate::ground::{Ground, shared_folder};

/// What is there of tooz and is not what the driver's README says that stays, in the words of the tool.
pub(super) fn what_is_left(ground: &Ground) -> Result<Vec<String>> {
    match ground {
        // There is no tool but the driver itself.
        Ground::Memory(..) => Ok(Vec::new()),
        Ground::Folder(folder, _) => of_folder(&folder.path().join("tooz"), &["sessions", "groups"]),
        // The files of places in the table stay for the sessions that have those places next.
        Ground::Shared(name) => of_folder(&shared_folder(name).join("tooz"), &["groups"]),
        Ground::Server(lone, ..) => of_server(&lone.server),
        Ground::Cluster(cluster) => of_server(&cluster.nodes()[cluster.leader()?]),
    }
}

fn of_server(server: &Server) -> Result<Vec<String>> {
    match server.kind() {
        Kind::Redis => of_redis(server),
        Kind::Etcd => of_etcd(server),
        Kind::Consul => of_consul(server),
        Kind::ZooKeeper => of_zookeeper(server),
        Kind::Postgres => of_postgres(server),
        Kind::MySql => of_mysql(server),
        Kind::Memcached => of_memcached(server),
        other => bail!("there is no tool to look at {other}"),
    }
}

/// The tokens' counter, the layout's number and the list of groups stay.
fn of_redis(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("redis-cli")?;
    command.args(["--scan", "--pattern", "tooz:*"]);
    let stays = |key: &str| ["fence", "layout", "groups"].iter().any(|name| key == format!("tooz:{{tooz}}:{name}"));
    Ok(lines(command)?.into_iter().filter(|key| !stays(key)).map(|key| format!("redis-cli --scan: {key}")).collect())
}

/// The layout's record stays.
fn of_etcd(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("etcdctl")?;
    command.args(["get", "--prefix", "/tooz/", "--keys-only"]);
    let strange = lines(command)?.into_iter().filter(|key| !key.is_empty() && key != "/tooz/tooz/layout");
    Ok(strange.map(|key| format!("etcdctl get --prefix: {key}")).collect())
}

/// The layout's record stays.
fn of_consul(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("consul")?;
    command.args(["kv", "get", "-keys", "-separator=", "tooz/"]);
    let strange = lines(command)?.into_iter().filter(|key| !key.is_empty() && key != "tooz/tooz/layout");
    Ok(strange.map(|key| format!("consul kv get -keys: {key}")).collect())
}

/// The folders stay, and empty queues until the server clears them away.
fn of_zookeeper(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("zkCli.sh")?;
    command.args(["ls", "-R", "/tooz"]);
    let nodes = lines(command)?;
    let paths = nodes.iter().filter(|line| line.starts_with("/tooz"));
    let strange = paths.filter(|path| {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let is_queue = matches!(parts[..], [_, "locks" | "elections", _]);
        parts.len() > 2 && !is_queue
    });
    Ok(strange.map(|path| format!("zkCli.sh ls -R: {path}")).collect())
}

const TABLES_OF_POSTGRES: [&str; 4] = ["sessions", "members", "grants", "groups"];

/// No advisory lock, and no row of the living; the counter, the layout and the marks of the sweep stay.
fn of_postgres(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("psql")?;
    let counts = TABLES_OF_POSTGRES.map(|table| format!("SELECT 'rows of tooz.{table}', count(*) FROM tooz.{table}"));
    // Tables of another database would be other numbers.
    let locks = "SELECT 'advisory locks', count(*) FROM pg_locks WHERE locktype = 'advisory'";
    command.args([
        "-d",
        "postgres",
        "-At",
        "-F",
        "\t",
        "-c",
        &format!("{} UNION ALL {locks}", counts.join(" UNION ALL ")),
    ]);
    Ok(counted(&lines(command)?, "psql"))
}

const TABLES_OF_MYSQL: [&str; 6] = ["sessions", "members", "grants", "sharers", "waits", "groups"];

/// No row of the living; what tokens begin with and the layout stay.
fn of_mysql(server: &Server) -> Result<Vec<String>> {
    let mut command = server.tool("mariadb")?;
    let counts = TABLES_OF_MYSQL.map(|table| format!("SELECT 'rows of tooz_{table}', COUNT(*) FROM tooz.tooz_{table}"));
    command.args(["--batch", "--skip-column-names", "-e", &counts.join(" UNION ALL ")]);
    Ok(counted(&lines(command)?, "mariadb"))
}

/// Lines of a name and a number, of those where the number is not zero.
fn counted(lines: &[String], tool: &str) -> Vec<String> {
    let some = lines.iter().filter_map(|line| line.split_once('\t')).filter(|(_, count)| *count != "0");
    some.map(|(what, count)| format!("{tool}: {count} {what}")).collect()
}

/// The journals of free locks and elections stay for an hour; the clock, the layout and the list of groups for longer.
fn of_memcached(server: &Server) -> Result<Vec<String>> {
    let mut stream = TcpStream::connect(server.address())?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"lru_crawler metadump all\r\n")?;
    let mut answer = String::new();
    while !answer.ends_with("END\r\n") && !answer.starts_with("BUSY") {
        let mut piece = [0; 4096];
        let length = stream.read(&mut piece).context("memcached does not end its list")?;
        answer += &String::from_utf8_lossy(&piece[..length]);
        if length == 0 {
            break;
        }
    }
    if answer.starts_with("BUSY") {
        return Ok(vec!["memcached is busy with another list of its keys".to_owned()]);
    }
    let keys = answer.lines().filter_map(|line| line.strip_prefix("key=")?.split(' ').next());
    let keys: BTreeSet<String> = keys.map(|key| key.replace("%3A", ":")).collect();
    let stays = |key: &&String| {
        let known = ["tooz:tooz:l:", "tooz:tooz:e:"].iter().any(|start| key.starts_with(start));
        known || ["groups", "clock", "layout"].iter().any(|name| **key == format!("tooz:tooz:{name}"))
    };
    Ok(keys.iter().filter(|key| !stays(key)).map(|key| format!("lru_crawler metadump: {key}")).collect())
}

/// No session, no group, no member; the files of locks stay.
fn of_folder(folder: &Path, empty: &[&str]) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for inside in empty {
        let Ok(entries) = std::fs::read_dir(folder.join(inside)) else { continue };
        for entry in entries {
            left.push(format!("ls: {}", entry?.path().display()));
        }
    }
    Ok(left)
}

/// What a tool prints, line by line.
fn lines(mut command: Command) -> Result<Vec<String>> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
