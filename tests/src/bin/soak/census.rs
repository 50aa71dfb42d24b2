//! What is stored at the server, counted by the server's own means.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use std::{fs, str};

use anyhow::{Context as _, Result, bail};
use tooz_testbed::{Kind, Server};

/// What is counted, and how much there is of it.
pub(crate) type Census = BTreeMap<String, u64>;

/// How long the server may take to answer; beside many others on one machine it is slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// The statements that count the rows of each table, written by the database itself.
const POSTGRES_ROWS: &str =
    "SELECT format('SELECT count(*) FROM %I.%I', schemaname, relname) FROM pg_stat_user_tables \\gexec\n";
const POSTGRES_LOCKS: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
const POSTGRES_CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
const MYSQL_ROWS: &str = "SELECT concat('SELECT count(*) FROM `', table_schema, '`.`', table_name, '`;') \
    FROM information_schema.tables \
    WHERE table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')";
const MYSQL_CONNECTIONS: &str = "SELECT count(*) FROM information_schema.processlist";

/// Counts what that server has.
pub(crate) fn of_server(server: &Server) -> Result<Census> {
    let counts = match server.kind() {
        Kind::Redis => vec![("keys", number(&ask(server, "redis-cli", &["DBSIZE"], "")?)?)],
        Kind::Etcd => of_etcd(server)?,
        Kind::Consul => of_consul(server)?,
        Kind::ZooKeeper => of_zookeeper(server)?,
        Kind::Memcached => of_memcached(server)?,
        Kind::Postgres => vec![
            ("rows", sum(&postgres(server, POSTGRES_ROWS)?)?),
            ("advisory locks", number(&postgres(server, POSTGRES_LOCKS)?)?),
            ("connections", number(&postgres(server, POSTGRES_CONNECTIONS)?)?),
        ],
        Kind::MySql => {
            let tables = mysql(server, MYSQL_ROWS)?;
            let rows = if tables.trim().is_empty() { 0 } else { sum(&mysql(server, &tables)?)? };
            vec![("rows", rows), ("connections", number(&mysql(server, MYSQL_CONNECTIONS)?)?)]
        }
        other => bail!("what {other} has can't be counted"),
    };
    Ok(named(counts))
}

/// Counts what lies below that folder, and how much room it takes.
pub(crate) fn of_folder(folder: &Path) -> Census {
    let (mut files, mut room, mut folders) = (0, 0, vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        // What is looked at may go at any moment.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(about) = entry.metadata() else { continue };
            files += 1;
            room += room_of(&about);
            if about.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    named(vec![("files", files), ("room (KiB)", room)])
}

#[cfg(unix)]
fn room_of(about: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(about) / 2
}

#[cfg(not(unix))]
fn room_of(about: &fs::Metadata) -> u64 {
    about.len() / 1024
}

fn named(counts: Vec<(&str, u64)>) -> Census {
    counts.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
}

fn of_etcd(server: &Server) -> Result<Vec<(&'static str, u64)>> {
    let counted = ask(server, "etcdctl", &["get", "", "--prefix", "--count-only", "--write-out=fields"], "")?;
    let keys = field(&counted, "\"Count\" :")?;
    let leases = field(&ask(server, "etcdctl", &["lease", "list"], "")?, "found ")?;
    Ok(vec![("keys", keys), ("leases", leases)])
}

fn of_consul(server: &Server) -> Result<Vec<(&'static str, u64)>> {
    let keys = get(server, "/v1/kv/?keys")?.matches('"').count() / 2;
    let sessions = get(server, "/v1/session/list")?.matches("\"ID\":").count();
    let nodes = get(server, "/v1/catalog/nodes")?.matches("\"Node\":").count();
    Ok(vec![("keys", keys as u64), ("sessions", sessions as u64), ("nodes", nodes as u64)])
}

fn of_zookeeper(server: &Server) -> Result<Vec<(&'static str, u64)>> {
    let said = talk(server, "mntr", |_| false)?;
    Ok(vec![
        ("nodes", field(&said, "zk_znode_count\t")?),
        ("ephemerals", field(&said, "zk_ephemerals_count\t")?),
        ("watches", field(&said, "zk_watch_count\t")?),
        ("connections", field(&said, "zk_num_alive_connections\t")?),
    ])
}

fn of_memcached(server: &Server) -> Result<Vec<(&'static str, u64)>> {
    let said = talk(server, "stats\r\n", |answer| answer.ends_with("END\r\n"))?;
    Ok(vec![
        ("items", field(&said, "STAT curr_items ")?),
        ("bytes", field(&said, "STAT bytes ")?),
        ("connections", field(&said, "STAT curr_connections ")?),
    ])
}

fn postgres(server: &Server, statement: &str) -> Result<String> {
    ask(server, "psql", &["-d", "postgres", "-qAt", "-v", "ON_ERROR_STOP=1", "-f", "-"], statement)
}

fn mysql(server: &Server, statement: &str) -> Result<String> {
    ask(server, "mariadb", &["-N", "-B"], statement)
}

/// What one of the server's own programs answers.
fn ask(server: &Server, program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = server.tool(program)?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} can't be started"))?;
    child.stdin.take().context("its input is piped")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{program} {arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(str::from_utf8(&output.stdout)?.to_owned())
}

fn get(server: &Server, path: &str) -> Result<String> {
    let answer = talk(server, &format!("GET {path} HTTP/1.0\r\n\r\n"), |_| false)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer without an end of its head")?;
    match head.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        // Nothing is there.
        Some("404") => Ok(String::new()),
        _ => bail!("{path} was answered by {head}"),
    }
}

/// What it answers to a word on a connection of its own.
fn talk(server: &Server, word: &str, is_whole: impl Fn(&str) -> bool) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&server.address(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(word.as_bytes())?;
    let (mut answer, mut piece) = (String::new(), [0; 4096]);
    while !is_whole(&answer) {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            break;
        }
        answer.push_str(str::from_utf8(&piece[..length])?);
    }
    Ok(answer)
}

fn number(text: &str) -> Result<u64> {
    text.trim().parse().with_context(|| format!("{text:?} is no number"))
}

fn sum(lines: &str) -> Result<u64> {
    lines.lines().map(number).sum()
}

/// The number behind that word, at the beginning of a line.
fn field(text: &str, word: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word));
    let digits: String = line.unwrap_or_default().trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("there is no number behind {word:?} in {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_behind_their_words() {
        assert_eq!(field("found 3 leases\nab", "found ").unwrap(), 3);
        assert_eq!(field("\"More\" : false\n\"Count\" : 17\n", "\"Count\" :").unwrap(), 17);
        assert!(field("nothing", "found ").unwrap_err().to_string().contains("\"found \""));
        assert_eq!(sum("1\n2\n40\n").unwrap(), 43);
        assert!(sum("1\nx\n").is_err());
    }

    #[test]
    fn a_folder_is_counted_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("a")).unwrap();
        fs::write(folder.path().join("a/b"), "text").unwrap();
        assert_eq!(of_folder(folder.path())["files"], 2);
        assert_eq!(of_folder(&folder.path().join("gone"))["files"], 0);
    }
}
