//! Each cluster for real: leaders killed, nodes cut off and back. Ignored unless servers may be started.

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tooz_testbed::{Cluster, Kind, Provided, Server, for_tests};

/// What hangs is waited for this long.
const MOMENT: &str = "1";

fn main() -> ExitCode {
    // PostgreSQL has one primary, and no cluster to start.
    let trials = Kind::ALL.iter().filter(|&&kind| !matches!(kind, Kind::Postgres | Kind::MySql)).flat_map(|&kind| {
        [
            trial(kind, "is_one_and_survives_the_death_of_its_leader", is_one_and_survives_the_death_of_its_leader),
            trial(kind, "moves_on_from_a_paused_leader", moves_on_from_a_paused_leader),
            trial(kind, "moves_on_from_a_leader_that_is_cut_off", moves_on_from_a_leader_that_is_cut_off),
            trial(kind, "keeps_its_leader_when_another_is_cut_off", keeps_its_leader_when_another_is_cut_off),
        ]
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

type Test = fn(&Cluster) -> anyhow::Result<()>;

fn trial(kind: Kind, name: &str, test: Test) -> Trial {
    let (reason, ignored) = match for_tests(kind) {
        Provided::MayStart => (String::new(), false),
        Provided::Own(_) => ("starts servers of its own: TOOZ_TESTBED=1".to_owned(), true),
        Provided::Missing(reason) => (reason, true),
    };
    let run = move || Cluster::start(kind).and_then(|cluster| test(&cluster));
    Trial::test(format!("{kind}::{name}"), move || run().map_err(|error| Failed::from(format!("{error:?}"))))
        .with_ignored_flag(ignored)
        .with_kind(reason)
}

/// Writes (`Some`) or reads one key with the server's own program. `None`: no answer, or an error.
fn talk(server: &Server, write: Option<&str>) -> Option<String> {
    if server.kind() == Kind::ZooKeeper {
        return talk_to_zookeeper(server, write);
    }
    let redis = server.kind() == Kind::Redis;
    let consul = server.kind() == Kind::Consul;
    let command = server
        .tool(if redis {
            "redis-cli"
        } else if consul {
            "consul"
        } else {
            "etcdctl"
        })
        .unwrap();
    let mut limited = std::process::Command::new("timeout");
    limited.arg(MOMENT).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    match (redis, write) {
        (false, Some(value)) if consul => limited.args(["kv", "put", "key", value]),
        (false, None) if consul => limited.args(["kv", "get", "key"]),
        (true, Some(value)) => limited.args(["set", "key", value]),
        (true, None) => limited.args(["get", "key"]),
        (false, Some(value)) => limited.args(["put", "key", value]),
        (false, None) => limited.args(["get", "key", "--print-value-only"]),
    };
    let output = limited.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    // Shown where a test fails.
    eprintln!("{}: {write:?}: {} {said}", server.url(), output.status);
    (output.status.success() && !said.starts_with("READONLY")).then_some(said)
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

/// Waits until a node has the value; replicas of Redis get it after the answer.
fn comes_to_have(server: &Server, value: &str) {
    let end = Instant::now() + Duration::from_secs(20);
    while talk(server, None).as_deref() != Some(value) {
        assert!(Instant::now() < end, "{} has not come to have {value}", server.url());
        thread::sleep(Duration::from_millis(20));
    }
}

fn told(what: &str, since: Instant) {
    eprintln!("{what} after {:?}", since.elapsed());
}

fn is_one_and_survives_the_death_of_its_leader(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader()?;
    assert!(talk(&cluster.nodes()[leader], Some("one")).is_some());
    for node in cluster.nodes() {
        comes_to_have(node, "one");
    }
    let began = Instant::now();
    cluster.nodes()[leader].kill()?;
    let next = cluster.leader()?;
    told("new leader after kill", began);
    assert_ne!(next, leader);
    assert!(talk(&cluster.nodes()[next], Some("two")).is_some());
    let began = Instant::now();
    cluster.nodes()[leader].restart()?;
    cluster.wait_until_whole()?;
    told("whole", began);
    comes_to_have(&cluster.nodes()[leader], "two");
    Ok(())
}

fn moves_on_from_a_paused_leader(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader()?;
    let began = Instant::now();
    cluster.nodes()[leader].pause()?;
    let next = cluster.leader_other_than(leader)?;
    told("new leader after pause", began);
    assert!(talk(&cluster.nodes()[next], Some("two")).is_some());
    cluster.nodes()[leader].resume()?;
    cluster.wait_until_whole()?;
    comes_to_have(&cluster.nodes()[leader], "two");
    Ok(())
}

fn moves_on_from_a_leader_that_is_cut_off(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader()?;
    let old = &cluster.nodes()[leader];
    let began = Instant::now();
    cluster.partition(leader);
    let next = cluster.leader_other_than(leader)?;
    told("new leader after partition", began);
    assert!(talk(&cluster.nodes()[next], Some("two")).is_some());
    match old.kind() {
        // It knows no better, and goes on answering: a client must not believe it.
        Kind::Redis => assert!(talk(old, Some("astray")).is_some()),
        _ => assert_eq!(talk(old, None), None, "a node without the others must not answer"),
    }
    let began = Instant::now();
    cluster.heal();
    cluster.wait_until_whole()?;
    told("whole", began);
    comes_to_have(old, "two");
    Ok(())
}

fn keeps_its_leader_when_another_is_cut_off(cluster: &Cluster) -> anyhow::Result<()> {
    let leader = cluster.leader()?;
    let other = (leader + 1) % 3;
    assert!(talk(&cluster.nodes()[leader], Some("one")).is_some());
    comes_to_have(&cluster.nodes()[other], "one");
    cluster.partition_wholly(other);
    assert!(talk(&cluster.nodes()[leader], Some("two")).is_some());
    assert_eq!(talk(&cluster.nodes()[other], None), None, "clients are cut off too");
    thread::sleep(Duration::from_secs(2));
    assert_eq!(cluster.leader()?, leader);
    cluster.heal();
    cluster.wait_until_whole()?;
    comes_to_have(&cluster.nodes()[other], "two");
    Ok(())
}
