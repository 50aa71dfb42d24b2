//! Each server for real: started, killed, paused, restarted, stopped. Ignored unless servers may be started.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use libtest_mimic::{Arguments, Failed, Trial};
use tooz_testbed::{Kind, Provided, Server, Setup, for_tests};

fn main() -> ExitCode {
    let trials = Kind::ALL.iter().flat_map(|&kind| {
        [
            trial(kind, "serves_and_is_gone_when_dropped", serves_and_is_gone_when_dropped),
            trial(kind, "keeps_its_data_over_kill_and_restart", keeps_its_data_over_kill_and_restart),
            trial(kind, "stands_still_while_paused", stands_still_while_paused),
            trial(kind, "is_killed_while_paused", is_killed_while_paused),
            trial(kind, "stops_twice", stops_twice),
            trial(kind, "says_why_it_does_not_start", says_why_it_does_not_start),
            trial(kind, "speaks_tls", speaks_tls),
            trial(kind, "comes_in_other_versions", comes_in_other_versions),
            trial(
                kind,
                "runs_on_nothing_of_this_machine_where_it_was_fetched",
                runs_on_nothing_of_this_machine_where_it_was_fetched,
            ),
        ]
    });
    let only_redis = trial(Kind::Redis, "listens_on_a_unix_socket", listens_on_a_unix_socket);
    // Debian's packages of PostgreSQL bear the version in their names, and the testbed knows those of one. Of Consul there is one version.
    let of_one_version = ["postgres::comes_in_other_versions", "consul::comes_in_other_versions"];
    let trials = trials.filter(|trial| !of_one_version.contains(&trial.name())).chain([only_redis]);
    // It keeps nothing, says its version only when it is asked, and no program of its own speaks TLS.
    let not_of_memcached =
        ["keeps_its_data_over_kill_and_restart", "stops_twice", "speaks_tls", "comes_in_other_versions"];
    let of_memcached = [
        trial(Kind::Memcached, "forgets_its_data_over_kill_and_restart", forgets_its_data_over_kill_and_restart),
        trial(Kind::Memcached, "says_its_version_and_speaks_tls", says_its_version_and_speaks_tls),
    ];
    let trials = trials
        .filter(|trial| trial.name().strip_prefix("memcached::").is_none_or(|name| !not_of_memcached.contains(&name)));
    let trials = trials.chain(of_memcached);
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

type Test = fn(Kind) -> anyhow::Result<()>;

fn trial(kind: Kind, name: &str, test: Test) -> Trial {
    let (reason, ignored) = match for_tests(kind) {
        Provided::MayStart => (String::new(), false),
        // A server of the user's own is not for these tests to kill.
        Provided::Own(_) => ("starts servers of its own: TOOZ_TESTBED=1".to_owned(), true),
        Provided::Missing(reason) => (reason, true),
    };
    Trial::test(format!("{kind}::{name}"), move || test(kind).map_err(|error| Failed::from(format!("{error:?}"))))
        .with_ignored_flag(ignored)
        .with_kind(reason)
}

/// Writes or reads one value with the server's own program; `None` when it does not answer within three seconds.
fn talk(server: &Server, write: Option<&str>) -> Option<String> {
    if server.kind() == Kind::ZooKeeper {
        return talk_to_zookeeper(server, write);
    }
    if server.kind() == Kind::Memcached {
        let question = match write {
            Some(value) => format!("set key 0 0 {}\r\n{value}\r\n", value.len()),
            None => "get key\r\n".to_owned(),
        };
        return ask_memcached(server, &question).filter(|answer| !answer.is_empty());
    }
    let mut command = match server.kind() {
        Kind::Redis => server.tool("redis-cli").unwrap(),
        Kind::Postgres => server.tool("psql").unwrap(),
        Kind::Consul => server.tool("consul").unwrap(),
        Kind::MySql => server.tool("mariadb").unwrap(),
        _ => server.tool("etcdctl").unwrap(),
    };
    match (server.kind(), write) {
        (Kind::Redis, Some(value)) => command.args(["set", "key", value]),
        (Kind::Redis, None) => command.args(["get", "key"]),
        (Kind::Postgres, Some(value)) => {
            command.args(["-q", "-c", "DROP TABLE IF EXISTS t", "-c", &format!("SELECT '{value}' AS v INTO t")])
        }
        (Kind::Postgres, None) => command.args(["-qAt", "-c", "SELECT v FROM t"]),
        (Kind::Consul, Some(value)) => command.args(["kv", "put", "key", value]),
        (Kind::Consul, None) => command.args(["kv", "get", "key"]),
        (Kind::MySql, Some(value)) => {
            let sql = format!("CREATE DATABASE IF NOT EXISTS d; CREATE OR REPLACE TABLE d.t AS SELECT '{value}' AS v");
            command.args(["-e", &sql])
        }
        (Kind::MySql, None) => command.args(["-N", "-B", "--connect-timeout=3", "-e", "SELECT v FROM d.t"]),
        (_, Some(value)) => command.args(["put", "key", value]),
        (_, None) => command.args(["get", "key", "--print-value-only"]),
    };
    let program = command.get_program().to_owned();
    let mut limited = std::process::Command::new("timeout");
    limited.arg("10").arg(program).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let output = limited.output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

/// The first line that memcached answers, or the value; empty where there is none.
fn ask_memcached(server: &Server, question: &str) -> Option<String> {
    let mut stream = TcpStream::connect(server.address()).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(3))).ok()?;
    stream.write_all(question.as_bytes()).ok()?;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let line = lines.next()?;
    if line.starts_with("VALUE") { lines.next() } else { Some(line.replace("END", "")) }
}

fn forgets_its_data_over_kill_and_restart(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    assert!(talk(&server, Some("one")).is_some());
    let (pid, url) = (server.pid(), server.url());
    server.kill()?;
    assert!(!is_alive(pid));
    assert_eq!(talk(&server, None), None);
    server.restart()?;
    assert_eq!(server.url(), url);
    assert_eq!(ask_memcached(&server, "get key\r\n").as_deref(), Some(""));
    server.stop()?;
    server.stop()?;
    assert!(!is_alive(server.pid()));
    Ok(())
}

fn says_its_version_and_speaks_tls(kind: Kind) -> anyhow::Result<()> {
    for version in ["1.6.18", "1.6.38"] {
        let server = Setup::new(kind).version(version).start()?;
        assert_eq!(ask_memcached(&server, "version\r\n"), Some(format!("VERSION {version}")));
        assert!(server.requests()?.is_some());
    }
    let server = Setup::new(kind).tls().start()?;
    assert_eq!(server.url(), format!("memcached+tls://{}", server.address()));
    assert!(fs::read_to_string(server.ca_file().unwrap())?.starts_with("-----BEGIN CERTIFICATE"));
    let server = Setup::new(kind).unix_socket().start()?;
    assert!(server.url().starts_with("memcached+unix:///"), "{}", server.url());
    Ok(())
}

/// The same for ZooKeeper: its program is of Java and starts slowly, makes a node or changes it, and says more than was asked.
fn talk_to_zookeeper(server: &Server, write: Option<&str>) -> Option<String> {
    let run = |arguments: &[&str]| {
        let command = server.tool("zkCli.sh").unwrap();
        let mut limited = std::process::Command::new("timeout");
        limited.arg("10").arg(command.get_program()).args(command.get_args()).args(arguments);
        for (name, value) in command.get_envs() {
            limited.env(name, value.unwrap_or_default());
        }
        let output = limited.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        output.status.success().then(|| said.trim().lines().last().unwrap_or_default().to_owned())
    };
    match write {
        Some(value) => run(&["create", "/key", value]).or_else(|| run(&["set", "/key", value])),
        None => run(&["get", "/key"]),
    }
}

fn serves_and_is_gone_when_dropped(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    let user = match kind {
        Kind::Postgres => "postgres@",
        Kind::MySql => "root@",
        _ => "",
    };
    assert!(server.url().starts_with(&format!("{kind}://{user}127.0.0.1:")), "{}", server.url());
    assert!(talk(&server, Some("one")).is_some());
    assert_eq!(talk(&server, None).as_deref(), Some("one"));
    let (pid, folder) = (server.pid(), server.folder().to_owned());
    assert!(is_alive(pid) && folder.is_dir());
    drop(server);
    assert!(!is_alive(pid) && !folder.exists());
    Ok(())
}

fn keeps_its_data_over_kill_and_restart(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    for value in ["one", "two"] {
        assert!(talk(&server, Some(value)).is_some());
        let (pid, url) = (server.pid(), server.url());
        if value == "one" {
            server.kill()?;
            server.kill()?;
            assert!(!is_alive(pid));
            assert_eq!(talk(&server, None), None);
        }
        server.restart()?;
        assert_ne!(server.pid(), pid);
        assert_eq!(server.url(), url);
        assert_eq!(talk(&server, None).as_deref(), Some(value));
    }
    Ok(())
}

fn stands_still_while_paused(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    assert!(talk(&server, Some("one")).is_some());
    server.pause()?;
    assert_eq!(talk(&server, None), None);
    server.resume()?;
    assert_eq!(talk(&server, None).as_deref(), Some("one"));
    Ok(())
}

fn is_killed_while_paused(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    for end in [Server::kill, Server::stop] {
        server.pause()?;
        let (pid, began) = (server.pid(), Instant::now());
        end(&server)?;
        assert!(!is_alive(pid));
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(server.pause().is_err());
        server.restart()?;
    }
    Ok(())
}

fn stops_twice(kind: Kind) -> anyhow::Result<()> {
    let server = Server::start(kind)?;
    assert!(talk(&server, Some("one")).is_some());
    server.stop()?;
    server.stop()?;
    assert!(!is_alive(server.pid()));
    server.restart()?;
    assert_eq!(talk(&server, None).as_deref(), Some("one"));
    Ok(())
}

fn says_why_it_does_not_start(kind: Kind) -> anyhow::Result<()> {
    let start = |setup: Setup| setup.start().err().context("it must not start");
    // What it does not know ZooKeeper takes for a property; it insists on numbers.
    let wrong = if kind == Kind::ZooKeeper { "tickTime=no-such-option" } else { "--no-such-option yes" };
    let error = start(Setup::new(kind).argument(wrong))?;
    let text = format!("{error:#}");
    assert!(text.contains("no-such-option"), "{text}");
    let error = start(Setup::new(kind).version("0.1"))?;
    assert!(error.to_string().contains("there are: "), "{error:#}");
    Ok(())
}

fn speaks_tls(kind: Kind) -> anyhow::Result<()> {
    let server = Setup::new(kind).tls().start()?;
    let scheme = match kind {
        Kind::Redis => "rediss",
        Kind::ZooKeeper => "zookeeper+tls",
        Kind::Consul => "consul+https",
        _ => "etcd+https",
    };
    if kind == Kind::Postgres {
        assert!(server.url().contains("?sslmode=verify-full&sslrootcert=/"), "{}", server.url());
    } else if kind == Kind::MySql {
        assert!(server.url().contains("?ca=/"), "{}", server.url());
    } else {
        assert_eq!(server.url(), format!("{scheme}://{}", server.address()));
    }
    assert!(fs::read_to_string(server.ca_file().unwrap())?.starts_with("-----BEGIN CERTIFICATE"));
    assert!(talk(&server, Some("one")).is_some());
    server.restart()?;
    assert_eq!(talk(&server, None).as_deref(), Some("one"));
    assert!(Server::start(kind)?.ca_file().is_none());
    Ok(())
}

fn listens_on_a_unix_socket(kind: Kind) -> anyhow::Result<()> {
    let server = Setup::new(kind).unix_socket().start()?;
    assert!(server.url().starts_with("redis+unix:///"), "{}", server.url());
    assert!(talk(&server, Some("one")).is_some());
    assert_eq!(talk(&server, None).as_deref(), Some("one"));
    assert!(TcpStream::connect(server.address()).is_err());
    Ok(())
}

fn comes_in_other_versions(kind: Kind) -> anyhow::Result<()> {
    let version = match kind {
        Kind::Redis => "8.0",
        Kind::ZooKeeper => "3.9",
        Kind::MySql => "11.8",
        _ => "3.4",
    };
    let server = Setup::new(kind).version(version).start()?;
    assert!(talk(&server, Some("one")).is_some());
    // Each says it in its own way when it starts.
    let log = fs::read_to_string(server.folder().join("log"))?.to_lowercase();
    let said = [
        format!("version={version}."),
        format!("version: {version}."),
        format!("version\":\"{version}."),
        format!("starting mariadb {version}."),
    ];
    assert!(said.iter().any(|said| log.contains(said)), "{log}");
    Ok(())
}

/// A zombie is not alive.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}

/// Libraries of a fetched server are the fetched ones, but for the C library's, and so are archives of Java. Java itself is this machine's, and
/// so are its libraries, where there is one.
fn runs_on_nothing_of_this_machine_where_it_was_fetched(kind: Kind) -> anyhow::Result<()> {
    const OF_C: [&str; 8] = ["ld-linux", "libc.", "libm.", "libdl.", "librt.", "libpthread.", "libresolv.", "libnss_"];
    let server = Server::start(kind)?;
    let found = tooz_testbed::at_hand(kind)?.context("it runs")?;
    if *found.source() == tooz_testbed::Origin::Path {
        return Ok(());
    }
    let process = Path::new("/proc").join(server.pid().to_string());
    let maps = fs::read_to_string(process.join("maps"))?;
    let mapped = maps.lines().filter_map(|line| Some(line[line.find('/')?..].to_owned()));
    let open = fs::read_dir(process.join("fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    let used: Vec<String> = mapped.chain(open.map(|path| path.display().to_string())).collect();
    let strange = used.iter().filter(|path| !path.contains("/testbed/") && !path.contains(&fetched_to()));
    let strange = strange.filter(|path| match kind {
        Kind::ZooKeeper => path.contains(".jar"),
        _ => path.contains(".so"),
    });
    let strange: Vec<&String> =
        strange.filter(|path| !OF_C.iter().any(|name| path.contains(&format!("/{name}")))).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(kind != Kind::ZooKeeper || used.iter().any(|path| path.contains("zookeeper") && path.contains(".jar")));
    Ok(())
}

/// Where the fetched programs are, if that is another folder than usual.
fn fetched_to() -> String {
    std::env::var("TOOZ_TESTBED_DIR").ok().filter(|folder| !folder.is_empty()).unwrap_or_else(|| "/testbed/".to_owned())
}
