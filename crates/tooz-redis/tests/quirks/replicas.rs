//! Behind Sentinels: replicas that join later.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tooz_core::{ErrorKind, LockGuard};
use tooz_testbed::{Cluster, Kind, Proxy, Server};

use crate::bed::{cli, connect, soon, trials};

trials! {
    replicas_that_join_later_are_waited_for
    replicas_that_came_and_went_between_two_heartbeats_are_waited_for
}

/// A cluster whose primary has no replicas, as far as is known.
async fn alone() -> (Cluster, usize) {
    let cluster =
        tokio::task::spawn_blocking(|| Cluster::start(Kind::Redis).expect("a cluster can be started")).await.unwrap();
    let primary = cluster.leader().unwrap();
    for replica in replicas(&cluster, primary) {
        replica.kill().unwrap();
    }
    for sentinel in cluster.sentinels() {
        cli(sentinel, &["SENTINEL", "RESET", "tooz"]);
    }
    let known = |sentinel: &Server| {
        let said = cli(sentinel, &["SENTINEL", "MASTER", "tooz"]);
        said.lines().skip_while(|line| *line != "num-slaves").nth(1).map(str::to_owned)
    };
    while !cluster.sentinels().iter().all(|sentinel| known(sentinel).as_deref() == Some("0")) {
        sleep(Duration::from_millis(100)).await;
    }
    (cluster, primary)
}

fn replicas(cluster: &Cluster, primary: usize) -> impl Iterator<Item = &Server> {
    cluster.nodes().iter().enumerate().filter(move |(node, _)| *node != primary).map(|(_, server)| server)
}

async fn join(cluster: &Cluster, primary: usize) {
    replicas(cluster, primary).for_each(|replica| replica.restart().unwrap());
    let online = || cli(&cluster.nodes()[primary], &["INFO", "replication"]).matches("state=online").count();
    while online() < 2 {
        sleep(Duration::from_millis(20)).await;
    }
}

/// The URL of a member that reaches one Sentinel alone, through this.
fn through(sentinel: &Proxy, options: &str) -> String {
    format!("redis://{}/0?sentinel=tooz&{options}", sentinel.address())
}

/// The next one must not have it before the first one knows that it is lost.
async fn is_taken_from(guard: &LockGuard, cluster: &Cluster) {
    let b = connect(&format!("{}&session_timeout=12s", cluster.url()), "b").await;
    let begun = Instant::now();
    let next = loop {
        if let Ok(Some(next)) = b.lock("x").unwrap().acquire_within(Duration::from_secs(5)).await {
            break next;
        }
        assert!(begun.elapsed() < Duration::from_secs(40), "no waiter gets it");
    };
    assert!(!guard.is_held(), "two believe to hold it");
    assert!(next.is_held() && next.fencing_token() > guard.fencing_token());
}

async fn replicas_that_join_later_are_waited_for() {
    let (cluster, primary) = alone().await;
    let sentinel = Proxy::start(cluster.sentinels()[0].address()).unwrap();
    let a = connect(&through(&sentinel, "session_timeout=4s"), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    join(&cluster, primary).await;
    cluster.wait_until_whole().unwrap();
    sleep(Duration::from_secs(2)).await;
    assert!(guard.is_held(), "that they join costs no holder its lock");
    cluster.partition(primary);
    sentinel.refuse();
    sentinel.reset();
    let error = soon(a.lock("y").unwrap().try_acquire()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error}");
    cluster.leader_other_than(primary).unwrap();
    is_taken_from(&guard, &cluster).await;
}

async fn replicas_that_came_and_went_between_two_heartbeats_are_waited_for() {
    let (cluster, primary) = alone().await;
    let sentinel = Proxy::start(cluster.sentinels()[0].address()).unwrap();
    // Not one heartbeat until all is over.
    let a = connect(&through(&sentinel, "session_timeout=20s&operation_timeout=10s"), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    join(&cluster, primary).await;
    replicas(&cluster, primary).for_each(|replica| replica.kill().unwrap());
    sentinel.refuse();
    while cli(&cluster.nodes()[primary], &["INFO", "replication"]).contains("slave0:") {
        sleep(Duration::from_millis(20)).await;
    }
    // Its next heartbeat is seconds away, and still nothing new is granted.
    let error = soon(a.lock("y").unwrap().try_acquire()).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut), "{error}");
    drop(guard);
}
