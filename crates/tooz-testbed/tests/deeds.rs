//! What an operator does to a running server, for real: clocks, full stores and disks, users, versions. Ignored unless servers may be started.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use tooz_testbed::{Deed, Kind, Server, Setup, for_tests};

fn main() -> ExitCode {
    let trials = vec![
        trial(Kind::Redis, "has_a_clock_that_is_set_ahead_back_and_right", clock_of_redis),
        trial(Kind::Redis, "is_full_and_has_room_again", redis_is_full),
        trial(Kind::Redis, "keeps_its_user_over_a_restart", redis_keeps_its_user),
        trial(Kind::Postgres, "shuts_its_user_out_and_lets_it_in", postgres_shuts_out),
        trial(Kind::MySql, "is_read_only_for_a_while", mysql_is_read_only),
        trial(Kind::Etcd, "takes_nothing_while_it_is_full", etcd_is_full),
        trial(Kind::ZooKeeper, "goes_on_in_a_newer_version", zookeeper_is_upgraded),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn trial(kind: Kind, name: &str, test: fn() -> Result<()>) -> Trial {
    let why_not = for_tests(kind).why_none_to_break(kind);
    let is_ignored = why_not.is_some();
    Trial::test(format!("{kind}::{name}"), move || test().map_err(|error| Failed::from(format!("{error:?}"))))
        .with_ignored_flag(is_ignored)
        .with_kind(why_not.unwrap_or_default())
}

/// What one of the server's programs prints; the error has what it said.
fn said(server: &Server, program: &str, words: &[&str]) -> Result<String> {
    let output = server.tool(program)?.args(words).output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn clock_of_redis() -> Result<()> {
    let server = Setup::new(Kind::Redis).own_clock().start()?;
    let off = || -> Result<i64> {
        let time = said(&server, "redis-cli", &["TIME"])?;
        let there: i64 = time.lines().next().context("it tells seconds")?.parse()?;
        let here = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        Ok(there - i64::try_from(here)?)
    };
    let hour = Duration::from_hours(1);
    ensure!(off()?.abs() < 60, "a clock goes right at first");
    server.set_clock_ahead(hour)?;
    ensure!((off()? - 3600).abs() < 60, "it is an hour ahead");
    server.set_clock_back(hour)?;
    ensure!((off()? + 3600).abs() < 60, "it is an hour behind");
    server.set_clock_right()?;
    ensure!(off()?.abs() < 60, "it goes right again");
    Ok(())
}

fn redis_is_full() -> Result<()> {
    let server = Server::start(Kind::Redis)?;
    server.operate(Deed::Fill)?;
    ensure!(said(&server, "redis-cli", &["SET", "a", "1"])?.starts_with("OOM"), "a full server takes nothing");
    server.operate(Deed::MakeRoom)?;
    ensure!(said(&server, "redis-cli", &["SET", "a", "1"])? == "OK", "it has room again");
    Ok(())
}

fn redis_keeps_its_user() -> Result<()> {
    let server = Setup::new(Kind::Redis).user("first").start()?;
    server.operate(Deed::ChangePassword("second"))?;
    server.restart()?;
    let ping = |word: &str| {
        said(&server, "redis-cli", &["--no-auth-warning", "--user", "app", "--pass", word, "SET", "tooz:a", "1"])
    };
    ensure!(ping("second")? == "OK", "the new password holds");
    // The tool goes on as a user without a password then.
    let refused = server.tool("redis-cli")?.args(["--user", "app", "--pass", "first", "PING"]).output()?;
    let words = String::from_utf8_lossy(&refused.stderr).into_owned() + &String::from_utf8_lossy(&refused.stdout);
    ensure!(words.contains("WRONGPASS"), "and the old one does not: {words}");
    server.operate(Deed::RefuseWrites)?;
    ensure!(ping("second")?.starts_with("NOPERM"), "it may not write");
    server.operate(Deed::TakeWrites)?;
    ensure!(ping("second")? == "OK", "it may write again");
    Ok(())
}

fn postgres_shuts_out() -> Result<()> {
    let server = Setup::new(Kind::Postgres).user("word").start()?;
    let ask = || {
        let mut command = server.tool("psql")?;
        // The last one that is named counts.
        let output =
            command.args(["-U", "app", "-d", "postgres", "-Atc", "SELECT 1"]).env("PGPASSWORD", "word").output()?;
        Ok::<_, anyhow::Error>(output.status.success())
    };
    ensure!(ask()?, "the user is let in");
    server.operate(Deed::ShutOut)?;
    ensure!(!ask()?, "and is not while it is shut out");
    server.operate(Deed::LetIn)?;
    ensure!(ask()?, "and is again");
    server.operate(Deed::ChangePassword("other"))?;
    ensure!(!ask()?, "the old word is no good any more");
    Ok(())
}

fn mysql_is_read_only() -> Result<()> {
    let server = Setup::new(Kind::MySql).user("word").start()?;
    let write = || {
        let mut command = server.tool("mariadb")?;
        let statement = "CREATE DATABASE IF NOT EXISTS tooz; CREATE TABLE IF NOT EXISTS tooz.t (a INT); INSERT INTO tooz.t VALUES (1)";
        let output = command.args(["-u", "app", "-pword", "-e", statement]).output()?;
        Ok::<_, anyhow::Error>(output.status.success())
    };
    ensure!(write()?, "the user may write");
    server.operate(Deed::RefuseWrites)?;
    ensure!(!write()?, "and may not to a server that is read-only");
    server.operate(Deed::TakeWrites)?;
    ensure!(write()?, "and may again");
    Ok(())
}

fn etcd_is_full() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    server.operate(Deed::Fill)?;
    let refused = said(&server, "etcdctl", &["put", "a", "1"]);
    ensure!(refused.is_err_and(|error| error.to_string().contains("space exceeded")), "a full server takes nothing");
    server.operate(Deed::MakeRoom)?;
    said(&server, "etcdctl", &["put", "a", "1"]).map(drop)
}

fn zookeeper_is_upgraded() -> Result<()> {
    let server = Setup::new(Kind::ZooKeeper).version("3.8").start()?;
    said(&server, "zkCli.sh", &["create", "/kept", "word"])?;
    server.upgrade("3.9")?;
    ensure!(said(&server, "zkCli.sh", &["get", "/kept"])?.contains("word"), "the data are there");
    Ok(())
}
