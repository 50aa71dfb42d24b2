//! How much one session may hold: ZooKeeper ends it by one record, and one that is too long stops the whole ensemble.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tooz_core::{Coordinator, ErrorKind, LockGuard, Result};
use tooz_testbed::{Cluster, Kind};

use crate::{SERVER, connect_for, namespace, nodes, quirk, soon};

/// So many at a time.
const AT_ONCE: usize = 200;
/// What the issue of a whole fleet would come to.
const MANY: usize = 10_000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk("a_session_that_holds_as_much_as_it_may_can_be_killed", || {
            Box::pin(a_session_that_holds_as_much_as_it_may_can_be_killed())
        }),
        quirk("what_is_too_much_is_refused_and_what_was_given_back_is_not_counted", || {
            Box::pin(what_is_too_much_is_refused_and_what_was_given_back_is_not_counted())
        }),
        quirk("thousands_that_ask_at_once_starve_no_heartbeat", || {
            Box::pin(thousands_that_ask_at_once_starve_no_heartbeat())
        }),
        quirk("the_limit_is_told", || Box::pin(the_limit_is_told())),
    ]
}

fn cluster() -> Cluster {
    Cluster::start(Kind::ZooKeeper).expect("an ensemble can be started")
}

fn long_name(number: usize) -> String {
    let start = format!("{number:06}-");
    format!("{start}{}", "n".repeat(255 - start.len()))
}

/// Takes locks until there are so many or one is refused.
async fn hold(
    coordinator: &Coordinator,
    count: usize,
    name: fn(usize) -> String,
) -> (Vec<LockGuard>, Option<tooz_core::Error>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut asking = JoinSet::new();
    let (mut held, mut refused) = (Vec::new(), None);
    for number in 0..count {
        let permit = Arc::clone(&room).acquire_owned().await.expect("it is never closed");
        while let Some(answer) = asking.try_join_next() {
            match answer.expect("no panic") {
                Ok(guard) => held.push(guard),
                Err(error) => refused = Some(error),
            }
        }
        if refused.is_some() {
            break;
        }
        let lock = coordinator.lock(name(number)).expect("a good name");
        asking.spawn(async move {
            let guard = lock.acquire().await;
            drop(permit);
            guard
        });
    }
    while let Some(answer) = asking.join_next().await {
        match answer.expect("no panic") {
            Ok(guard) => held.push(guard),
            Err(error) => refused = Some(error),
        }
    }
    (held, refused)
}

/// Another process that holds many locks, to be killed.
pub(crate) struct Worker {
    url: String,
}

impl Worker {
    const URL: &str = "TOOZ_QUIRK_WORKER";

    /// If this process is one.
    pub(crate) fn asked_for() -> Option<Self> {
        std::env::var(Self::URL).ok().map(|url| Worker { url })
    }

    pub(crate) fn run(self) -> ExitCode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let coordinator =
                connect_for(&self.url, "worker", "many", Duration::from_secs(20)).await.expect("a connection");
            let (held, refused) = hold(&coordinator, MANY * 3, long_name).await;
            let held: Vec<_> = held.into_iter().filter(LockGuard::is_held).collect();
            println!("{} {refused:?}", held.len());
            std::future::pending::<()>().await;
        });
        ExitCode::SUCCESS
    }
}

/// All servers serve, and each of them starts again with what is in its log.
async fn serves(cluster: &Cluster) -> Result<()> {
    for node in 0..3 {
        cluster.nodes()[node].restart().expect("it starts again");
        cluster.wait_until_whole().expect("the ensemble is whole");
        let coordinator = connect_for(&cluster.url_of(node), "after", "after", Duration::from_secs(10)).await?;
        soon(coordinator.lock("l")?.acquire()).await?.release().await?;
        coordinator.close().await?;
    }
    Ok(())
}

async fn a_session_that_holds_as_much_as_it_may_can_be_killed() -> Result<()> {
    let cluster = cluster();
    let mut worker = Command::new(std::env::current_exe().expect("this program"))
        // A busy machine may take longer than the usual time for one operation.
        .env(Worker::URL, format!("{}?operation_timeout=1m", cluster.url()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it can be started");
    let mut said = String::new();
    let answer = BufReader::new(worker.stdout.take().expect("it is piped")).read_line(&mut said);
    // The end of the session is the same record, whether it expires or is closed.
    worker.kill().expect("it is this process's own");
    worker.wait().expect("it is dead");
    answer.expect("it says what it holds");
    let (held, refused) = said.split_once(' ').expect("how many, and why no more");
    assert!(held.parse::<usize>().expect("a number") > MANY, "{said}");
    assert!(refused.contains("Config") && refused.contains("ZOOKEEPER-4306"), "{said}");
    let next = connect_for(&cluster.url(), "next", "many", Duration::from_secs(10)).await?;
    assert!(soon(next.lock(long_name(MANY - 1))?.acquire()).await?.is_held());
    next.close().await?;
    serves(&cluster).await
}

async fn what_is_too_much_is_refused_and_what_was_given_back_is_not_counted() -> Result<()> {
    let (space, url) = (namespace(), format!("{}?jute_maxbuffer=20000", SERVER.url()));
    // A member's node takes more than a lock's here, so that where there is no room for this there is none for that.
    let coordinator = connect_for(&url, &"m".repeat(80), &space, Duration::from_secs(30)).await?;
    let group = coordinator.group("g")?;
    group.create().await?;
    let (mut held, refused) = hold(&coordinator, 1000, long_name).await;
    assert_eq!(refused.expect("there is a limit").kind(), ErrorKind::Config);
    assert_eq!(nodes(&space, "/locks").len(), held.len() * 2, "a queue each, and nothing of what was refused");
    let weight: usize =
        nodes(&space, "/locks").iter().filter(|node| node.matches('/').count() == 4).map(|node| node.len() + 4).sum();
    assert!((28_000..30_000).contains(&weight), "{weight}");
    // Whatever becomes a node is counted.
    let error = coordinator.lock(long_name(MANY))?.try_acquire().await.expect_err("a try");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let error = group.join(&()).await.expect_err("a membership");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    for round in 0..3 {
        // What is given back makes room, however often.
        held.pop().expect("many").release().await?;
        held.pop().expect("many").release().await?;
        held.pop().expect("many").release().await?;
        let membership = group.join(&()).await?;
        held.push(coordinator.lock(format!("another {round}"))?.acquire().await?);
        membership.leave().await?;
        held.push(coordinator.lock(format!("yet another {round}"))?.acquire().await?);
    }
    assert!(held.iter().all(LockGuard::is_held));
    // A try that gets nothing takes no room either.
    let other = connect_for(&SERVER.url(), "other", &space, Duration::from_secs(30)).await?;
    let theirs = other.lock("theirs")?.acquire().await?;
    held.pop().expect("many").release().await?;
    for _ in 0..50 {
        assert!(coordinator.lock("theirs")?.try_acquire().await?.is_none());
    }
    assert!(coordinator.lock("theirs")?.acquire_within(Duration::from_secs(2)).await?.is_none());
    held.push(coordinator.lock("fits")?.acquire().await?);
    theirs.release().await?;
    other.close().await?;
    held.into_iter().for_each(std::mem::forget);
    coordinator.close().await
}

async fn the_limit_is_told() -> Result<()> {
    let coordinator = connect_for(&SERVER.url(), "m", &namespace(), Duration::from_secs(6)).await?;
    let checkup = coordinator.check_up().await?;
    let room = |finding: &tooz_core::driver::Finding| {
        finding.what.contains("ZOOKEEPER-4306") && finding.what.contains("1572862 bytes")
    };
    assert!(checkup.findings.iter().any(room), "{checkup:?}");
    coordinator.close().await?;
    // A server that takes less than is counted on.
    let url = format!("{}?jute_maxbuffer=3000000", SERVER.url());
    let coordinator = connect_for(&url, "m", &namespace(), Duration::from_secs(6)).await?;
    let checkup = coordinator.check_up().await?;
    assert!(checkup.findings.iter().any(|finding| finding.mend.contains("jute_maxbuffer=")), "{checkup:?}");
    coordinator.close().await?;
    let error = connect_for(&format!("{}?jute_maxbuffer=1", SERVER.url()), "m", "x", Duration::from_secs(6)).await;
    assert_eq!(error.expect_err("no server is like that").kind(), ErrorKind::Config);
    Ok(())
}

/// All of them at once, in a session whose heartbeats are due all the while.
async fn thousands_that_ask_at_once_starve_no_heartbeat() -> Result<()> {
    const THOUSANDS: usize = 8_000;
    let url = format!("{}?operation_timeout=1m", SERVER.url());
    let coordinator = connect_for(&url, "m", &namespace(), Duration::from_secs(15)).await?;
    let first = coordinator.lock("first")?.acquire().await?;
    let mut events = coordinator.events();
    let mut asking = JoinSet::new();
    for number in 0..THOUSANDS {
        let lock = coordinator.lock(long_name(number))?;
        asking.spawn(async move { lock.acquire().await });
    }
    let mut held = Vec::new();
    while let Some(answer) = asking.join_next().await {
        held.push(answer.expect("no panic")?);
    }
    assert!(first.is_held() && held.iter().all(LockGuard::is_held));
    let mut releasing = JoinSet::new();
    for guard in held {
        releasing.spawn(guard.release());
    }
    while let Some(answer) = releasing.join_next().await {
        answer.expect("no panic")?;
    }
    first.release().await?;
    coordinator.close().await?;
    while let Some(event) = events.next().await {
        assert!(!matches!(event, tooz_core::SessionEvent::Lost { .. }), "{event:?}");
    }
    Ok(())
}
