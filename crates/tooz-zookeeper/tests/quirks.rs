//! What is special about ZooKeeper: lost replies, servers that change, what is left behind, and what the URL can get wrong.

// Long because each quirk is a few lines, and they are looked up in one list.

mod burden;
mod ensemble;
mod in_use;
mod layouts;
mod raw;
mod rotation;
mod secure;
mod taken;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tooz_conformance::own::Own;
use tooz_core::driver::Verdict;
use tooz_core::{
    ConnectOptions, Coordinator, ErrorKind, GroupEvent, LeaderEvent, LossReason, Probe, Result, SessionEvent,
};
use tooz_testbed::{Kind, Proxy, Server, Setup, for_tests};

use raw::{Raw, word};

/// What must happen has happened by then, also on a busy machine.
pub(crate) const SOON: Duration = Duration::from_mins(1);

pub(crate) static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start(Kind::ZooKeeper).expect("a ZooKeeper server can be started"));

macro_rules! quirks {
    ($($name:ident),* $(,)?) => { vec![$(quirk(stringify!($name), || Box::pin($name()))),*] };
}

/// They take the whole of a small machine.
const CROWDS: &[&str] = &[
    "a_session_that_holds_as_much_as_it_may_can_be_killed",
    "what_is_too_much_is_refused_and_what_was_given_back_is_not_counted",
    "thousands_that_ask_at_once_starve_no_heartbeat",
    "thousands_of_locks_are_listed",
];

fn main() -> ExitCode {
    if let Some(worker) = burden::Worker::asked_for() {
        return worker.run();
    }
    let mut trials = quirks![
        one_release_wakes_one_of_two_hundred_waiters,
        a_lost_reply_of_acquire_finds_its_node,
        a_lost_reply_of_release_frees_the_lock,
        a_lost_reply_of_join_is_one_member,
        a_lost_reply_of_leave_leaves,
        nothing_is_left_behind,
        tokens_grow_over_a_queue_that_was_cleared_away,
        a_smaller_timeout_after_a_restart_ends_the_session,
        what_the_server_makes_of_the_timeout_counts,
        a_tick_that_is_too_long_is_a_config_error,
        a_chroot_is_made,
        a_user_keeps_to_himself,
        others_can_be_let_in,
        a_dead_host_is_told_with_its_reason,
        a_host_that_hangs_is_left_for_the_next,
        strange_nodes_in_a_queue_are_no_requests,
        a_queue_that_may_not_be_read_keeps_nothing,
        a_deleted_mailbox_is_made_anew,
        capabilities_that_no_node_takes_are_refused,
        a_list_is_whole_however_much_it_is,
        a_broken_waiter_queues_again,
        the_check_up_knows_the_server,
        probing_leaves_nothing,
        a_watch_is_told_of_every_change_once,
        what_a_change_costs_does_not_grow_with_the_group,
        a_group_made_again_is_another_group,
        the_newer_server_does_as_well,
        one_foreign_child_of_a_group_hides_no_member,
        a_timeout_longer_than_asked_tells_of_a_slow_tick,
        a_session_that_is_given_up_is_ended_at_the_server,
        too_many_connections_are_told_as_that,
        who_waits_for_a_leadership_wakes_no_watcher,
        a_chroot_is_for_others_too,
        a_password_in_the_clear_is_told,
        a_namespace_deleted_by_hand_is_made_anew,
        a_close_waits_as_long_as_an_operation_may,
    ];
    trials.extend(burden::trials());
    trials.extend(ensemble::trials());
    trials.extend(in_use::trials());
    trials.extend(layouts::trials());
    trials.extend(rotation::trials());
    trials.extend(secure::trials());
    trials.extend(taken::trials());
    OWN.main(trials)
}

type Quirk = std::pin::Pin<Box<dyn Future<Output = Result<()>>>>;

/// The trials of this program, and whether they can run here.
static OWN: LazyLock<Own> =
    LazyLock::new(|| Own::new(for_tests(Kind::ZooKeeper).why_none_to_break(Kind::ZooKeeper), CROWDS));

pub(crate) fn quirk(name: &'static str, run: fn() -> Quirk) -> Trial {
    OWN.trial(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let limited = runtime.block_on(async { timeout(SOON * 4, run()).await });
        runtime.shutdown_background();
        match limited {
            Ok(result) => result.map_err(|error| Failed::from(format!("{error:?}"))),
            Err(_) => Err(Failed::from("it hangs")),
        }
    })
}

/// A namespace that no other trial has.
pub(crate) fn namespace() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    format!("quirk-{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

pub(crate) async fn connect(url: &str, member: &str, namespace: &str) -> Result<Coordinator> {
    connect_for(url, member, namespace, Duration::from_secs(6)).await
}

pub(crate) async fn connect_for(url: &str, member: &str, namespace: &str, session: Duration) -> Result<Coordinator> {
    static DRIVER: tooz_core::Driver = tooz_zookeeper::DRIVER;
    let mut options = ConnectOptions::new(url)?
        .driver(&DRIVER)
        .member(member)?
        .option("namespace", namespace)
        .session_timeout(session);
    if !url.contains("tick_time") {
        options = options.option("tick_time", "250ms");
    }
    options.connect().await
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it happens soon")
}

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !so() {
        assert!(Instant::now() < end, "{what} does not come true");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn nodes(namespace: &str, branch: &str) -> Vec<String> {
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    let nodes = raw.tree(&format!("/{namespace}{branch}")).expect("the nodes can be listed");
    raw.close().expect("the session can be closed");
    nodes
}

/// Counted by the server: which node is watched by how many, and how many watches a deletion has fired.
async fn one_release_wakes_one_of_two_hundred_waiters() -> Result<()> {
    const WAITERS: usize = 200;
    let server = Server::start(Kind::ZooKeeper).expect("a server of its own, so that nothing else is counted");
    let (space, url) = (namespace(), server.url());
    let minute = Duration::from_mins(1);
    let holder = connect_for(&url, "holder", &space, minute).await?;
    let guard = holder.lock("one")?.acquire().await?;
    let (granted, (go_on, may_go_on)) = (Arc::new(AtomicU32::new(0)), watch::channel(false));
    let mut waiting = Vec::new();
    for number in 0..WAITERS {
        let coordinator = connect_for(&url, &format!("waiter-{number}"), &space, minute).await?;
        let (granted, mut may_go_on) = (Arc::clone(&granted), may_go_on.clone());
        waiting.push(tokio::spawn(async move {
            let guard = coordinator.lock("one")?.acquire().await?;
            granted.fetch_add(1, Ordering::SeqCst);
            may_go_on.wait_for(|go_on| *go_on).await.expect("the trial says so");
            guard.release().await?;
            coordinator.close().await
        }));
    }
    let queue = format!("/{space}/locks/one/");
    let watched = || {
        // Each path, followed by the sessions that watch it, indented.
        let answer = word(server.address(), "wchp");
        let mut watchers = Vec::new();
        for line in answer.lines() {
            if !line.starts_with('\t') {
                watchers.push((line.starts_with(&queue), 0));
            } else if let Some(last) = watchers.last_mut() {
                last.1 += 1;
            }
        }
        watchers.into_iter().filter(|(ours, _)| *ours).map(|(_, count)| count).collect::<Vec<i32>>()
    };
    let fired = || {
        let answer = word(server.address(), "mntr");
        let line = answer.lines().find_map(|line| line.strip_prefix("zk_sum_node_deleted_watch_count"));
        line.expect("the server counts them").trim().parse::<f64>().expect("a number")
    };
    // The holder watches its own node, to hear of its deletion by others; all others are watched by the next one alone.
    let is_calm = |waiters: usize| {
        let mut watched = watched();
        watched.sort_unstable();
        watched.len() == waiters && watched.pop() == Some(2) && watched.iter().all(|watchers| *watchers == 1)
    };
    until("every waiter watches the one before it", || is_calm(WAITERS)).await;
    let before = fired();
    guard.release().await?;
    until("one has got it", || granted.load(Ordering::SeqCst) > 0).await;
    // Time enough for all others that were woken to look.
    sleep(Duration::from_secs(1)).await;
    assert_eq!(granted.load(Ordering::SeqCst), 1, "the lock was given to more than one");
    assert!((fired() - before - 2.0).abs() < 0.1, "{} watches fired, beside the holder's", fired() - before - 1.0);
    assert!(is_calm(WAITERS - 1), "others have looked and watch anew: {:?}", watched());
    go_on.send_replace(true);
    for waiter in waiting {
        soon(waiter).await.expect("no panic")?;
    }
    holder.close().await
}

/// A coordinator behind a proxy that swallows the reply to what has this text in it, and what it is in.
async fn behind_a_proxy(space: &str) -> Result<(Proxy, Coordinator)> {
    let proxy = Proxy::start(SERVER.address()).expect("a proxy starts");
    let coordinator = connect(&proxy.url("zookeeper"), "m", space).await?;
    // The session is open before anything gets lost.
    coordinator.lock("warm")?.acquire().await?.release().await?;
    Ok((proxy, coordinator))
}

async fn a_lost_reply_of_acquire_finds_its_node() -> Result<()> {
    let space = namespace();
    let (proxy, coordinator) = behind_a_proxy(&space).await?;
    coordinator.lock("lost")?.acquire().await?.release().await?;
    let swallowed = proxy.swallow_reply(b"locks/lost/");
    let guard = soon(coordinator.lock("lost")?.acquire()).await?;
    assert!(swallowed.wait(Duration::ZERO), "nothing was lost");
    assert!(guard.is_held());
    assert_eq!(nodes(&space, "/locks/lost").len(), 1, "one acquire, one node");
    guard.release().await?;
    assert_eq!(nodes(&space, "/locks/lost").len(), 0);
    coordinator.close().await
}

async fn a_lost_reply_of_release_frees_the_lock() -> Result<()> {
    let space = namespace();
    let (proxy, coordinator) = behind_a_proxy(&space).await?;
    let other = connect(&SERVER.url(), "other", &space).await?;
    let guard = coordinator.lock("lost")?.acquire().await?;
    let swallowed = proxy.swallow_reply(b"locks/lost/");
    // It may say that it is not known; then it goes on in the background.
    let _ = soon(guard.release()).await;
    assert!(swallowed.wait(Duration::from_secs(5)), "nothing was lost");
    let again = soon(other.lock("lost")?.acquire()).await?;
    assert!(again.is_held());
    assert_eq!(nodes(&space, "/locks/lost").len(), 1);
    other.close().await?;
    coordinator.close().await
}

async fn a_lost_reply_of_join_is_one_member() -> Result<()> {
    let space = namespace();
    let (proxy, coordinator) = behind_a_proxy(&space).await?;
    let group = coordinator.group("g")?;
    group.create().await?;
    let swallowed = proxy.swallow_reply(b"groups/g/m");
    let membership = soon(group.join(&())).await?;
    assert!(swallowed.wait(Duration::ZERO), "nothing was lost");
    assert!(membership.is_member());
    assert_eq!(group.members().await?.len(), 1);
    membership.leave().await?;
    group.delete().await?;
    coordinator.close().await
}

async fn a_lost_reply_of_leave_leaves() -> Result<()> {
    let space = namespace();
    let (proxy, coordinator) = behind_a_proxy(&space).await?;
    let group = coordinator.group("g")?;
    group.create().await?;
    let membership = group.join(&()).await?;
    let swallowed = proxy.swallow_reply(b"groups/g/m");
    let _ = soon(membership.leave()).await;
    assert!(swallowed.wait(Duration::from_secs(5)), "nothing was lost");
    until("the member is gone", || nodes(&space, "/groups/g").is_empty()).await;
    coordinator.close().await
}

async fn nothing_is_left_behind() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    for number in 0..50 {
        let guard = coordinator.lock(format!("lock {number}"))?.acquire().await?;
        let group = coordinator.group(format!("group {number}"))?;
        let membership = group.join_or_create(&()).await?;
        membership.campaign().await?.resign().await?;
        guard.release().await?;
        membership.leave().await?;
        group.delete().await?;
    }
    coordinator.probe(Probe::Write).await?;
    coordinator.close().await?;
    // The server clears empty queues away by itself; the testbed's looks every second.
    let branches = ["/elections", "/groups", "/locks", "/mail", "/sessions"];
    let left =
        || nodes(&space, "").into_iter().filter(|node| !branches.iter().any(|branch| node.ends_with(branch))).count();
    until("everything is cleared away", || left() == 0).await;
    Ok(())
}

async fn tokens_grow_over_a_queue_that_was_cleared_away() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    let lock = coordinator.lock("l")?;
    let guard = lock.acquire().await?;
    let before = guard.fencing_token();
    guard.release().await?;
    until("the queue is cleared away", || nodes(&space, "/locks").is_empty()).await;
    let guard = lock.acquire().await?;
    assert!(guard.fencing_token() > before);
    coordinator.close().await
}

async fn a_smaller_timeout_after_a_restart_ends_the_session() -> Result<()> {
    let server = Server::start(Kind::ZooKeeper).expect("a server of its own");
    let coordinator = connect_for(&server.url(), "m", &namespace(), Duration::from_secs(20)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let settings = server.folder().join("zoo.cfg");
    let text = std::fs::read_to_string(&settings).expect("its settings");
    std::fs::write(&settings, text.replace("maxSessionTimeout=60000", "maxSessionTimeout=5000")).expect("new settings");
    server.restart().expect("it starts again");
    // From now on the server counts to 5 s, and the deadline was further away.
    assert_eq!(soon(guard.loss().wait()).await, LossReason::SessionEnded);
    let again = soon(coordinator.lock("l")?.acquire()).await?;
    assert_eq!(coordinator.terms().and_then(|terms| terms.timeout), Some(Duration::from_secs(5)));
    drop(again);
    coordinator.close().await
}

async fn what_the_server_makes_of_the_timeout_counts() -> Result<()> {
    let coordinator = connect_for(&SERVER.url(), "m", &namespace(), Duration::from_secs(100)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    assert_eq!(coordinator.terms().and_then(|terms| terms.timeout), Some(Duration::from_mins(1)));
    assert!(guard.remaining().is_some_and(|left| left <= Duration::from_secs(45)), "a quarter is the margin");
    let checkup = coordinator.check_up().await?;
    assert!(checkup.findings.iter().any(|finding| finding.verdict == Verdict::Warning && finding.what.contains("60s")));
    coordinator.close().await
}

async fn a_tick_that_is_too_long_is_a_config_error() -> Result<()> {
    let url = format!("{}?tick_time=5s", SERVER.url());
    let coordinator = connect_for(&url, "m", &namespace(), Duration::from_secs(4)).await?;
    let error = coordinator.lock("l")?.acquire().await.expect_err("half a tick and a ping do not fit");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("session_timeout"), "{error}");
    coordinator.close().await
}

async fn a_chroot_is_made() -> Result<()> {
    let space = namespace();
    let url = format!("{}/made/by/{space}", SERVER.url());
    let coordinator = connect(&url, "m", "ns").await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    assert_eq!(raw.tree(&format!("/made/by/{space}/ns/locks/l")).expect("a listing").len(), 1);
    guard.release().await?;
    coordinator.close().await
}

fn as_user(credentials: &str) -> String {
    SERVER.url().replace("://", &format!("://{credentials}@"))
}

async fn a_user_keeps_to_himself() -> Result<()> {
    let space = namespace();
    let owner = connect(&as_user("ann:secret"), "ann", &space).await?;
    let same = connect(&as_user("ann:secret"), "ann2", &space).await?;
    let guard = owner.lock("l")?.acquire().await?;
    assert!(same.lock("l")?.try_acquire().await?.is_none());
    for stranger in [as_user("ann:guessed"), as_user("bob:secret"), SERVER.url()] {
        let stranger = connect(&stranger, "stranger", &space).await?;
        let error = stranger.lock("l")?.acquire().await.expect_err("it is not theirs");
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(!error.to_string().contains("secret") && !error.to_string().contains("guessed"), "{error}");
        stranger.close().await?;
    }
    // The credentials are said again on every connection.
    guard.release().await?;
    owner.close().await?;
    same.close().await
}

async fn others_can_be_let_in() -> Result<()> {
    let space = namespace();
    let owner = connect(&format!("{}?acl=open", as_user("ann:secret")), "ann", &space).await?;
    let guard = owner.lock("l")?.acquire().await?;
    let other = connect(&SERVER.url(), "bob", &space).await?;
    assert!(other.lock("l")?.try_acquire().await?.is_none());
    guard.release().await?;
    assert!(other.lock("l")?.try_acquire().await?.is_some());
    let error = connect(&format!("{}?acl=creator", SERVER.url()), "x", &space).await.expect_err("no creator");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    owner.close().await?;
    other.close().await
}

async fn a_dead_host_is_told_with_its_reason() -> Result<()> {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let began = Instant::now();
    let error = connect(&format!("zookeeper://{unused}"), "m", "x").await.expect_err("no server is there");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains(&unused.to_string()) && error.to_string().contains("refused"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // One that takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = silent.local_addr().expect("its address");
    let error = connect(&format!("zookeeper://{address}"), "m", "x").await.expect_err("no server answers");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    Ok(())
}

async fn a_host_that_hangs_is_left_for_the_next() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent_address = silent.local_addr().expect("its address");
    let proxy = Proxy::start(SERVER.address()).expect("a proxy starts");
    let url = format!("zookeeper://{silent_address},{}", proxy.address());
    let coordinator = connect(&url, "m", &namespace()).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    // The connection breaks; one of the hosts still hangs.
    proxy.reset();
    sleep(Duration::from_secs(5)).await;
    assert!(guard.is_held(), "the session was to live on");
    guard.release().await?;
    coordinator.close().await
}

async fn strange_nodes_in_a_queue_are_no_requests() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    coordinator.lock("l")?.acquire().await?.release().await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    assert!(raw.create(&format!("/{space}/locks/l/lock-0000000000")).expect("an answer"), "the queue is still there");
    assert!(coordinator.lock("l")?.try_acquire().await?.is_some());
    coordinator.close().await
}

/// The node is made before the refusal to list it comes: it must not stand there for ever without a holder.
async fn a_queue_that_may_not_be_read_keeps_nothing() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    coordinator.lock("warm")?.acquire().await?.release().await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    let queue = format!("/{space}/locks/l");
    assert!(raw.create_for(&queue, raw::MAKE_AND_DELETE).expect("an answer"));
    for _ in 0..2 {
        let error = coordinator.lock("l")?.try_acquire().await.expect_err("who queues there can't be seen");
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        let error = coordinator.lock("l")?.acquire().await.expect_err("nor by a waiter");
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    }
    until("nothing is left there", || !word(SERVER.address(), "dump").contains(&queue)).await;
    coordinator.close().await
}

async fn a_deleted_mailbox_is_made_anew() -> Result<()> {
    let space = namespace();
    let coordinator = connect_for(&SERVER.url(), "m", &space, Duration::from_secs(3)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let mailbox = nodes(&space, "/mail").pop().expect("a mailbox");
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    assert!(raw.delete(&mailbox).expect("an answer"));
    until("it is there again", || nodes(&space, "/mail").len() == 1).await;
    assert!(guard.is_held());
    // And it is read again.
    let other = connect(&SERVER.url(), "other", &space).await?;
    let holder = other.lock("l")?.holders().await?.pop().expect("a holder");
    sleep(Duration::from_secs(1)).await;
    other.lock("l")?.break_lock(&holder).await?;
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    other.close().await?;
    coordinator.close().await
}

async fn capabilities_that_no_node_takes_are_refused() -> Result<()> {
    let coordinator = connect(&SERVER.url(), "m", &namespace()).await?;
    let group = coordinator.group("g")?;
    group.create().await?;
    let huge = "x".repeat(1_100_000);
    let error = group.join(&huge).await.expect_err("a megabyte is the most");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let large = "x".repeat(900_000);
    let membership = group.join(&large).await?;
    assert_eq!(group.members().await?.len(), 1);
    membership.leave().await?;
    coordinator.close().await
}

/// More members than are read by one request, and among them more than a megabyte, which is the most that a server takes at once.
async fn a_list_is_whole_however_much_it_is() -> Result<()> {
    const MEMBERS: usize = 210;
    let (space, large) = (namespace(), "x".repeat(900_000));
    let looker = connect(&SERVER.url(), "looker", &space).await?;
    let group = looker.group("many")?;
    group.create().await?;
    let mut there = Vec::new();
    for number in 0..MEMBERS {
        let url = SERVER.url();
        let coordinator = connect_for(&url, &format!("m{number:03}"), &space, Duration::from_mins(1)).await?;
        let said = if number % 50 == 0 { &large } else { "small" };
        let membership = coordinator.group("many")?.join(&(number, said)).await?;
        there.push((coordinator, membership));
    }
    let members = group.members().await?;
    assert_eq!(members.len(), MEMBERS);
    for (number, member) in members.iter().enumerate() {
        let (told, said) = member.capabilities.get::<(usize, String)>()?;
        assert_eq!((member.member.as_str(), told), (format!("m{number:03}").as_str(), number));
        assert_eq!(said.len(), if number % 50 == 0 { large.len() } else { 5 });
    }
    // A member that leaves between the names and the reading is left out, and all others are there.
    let (gone, staying) = there.split_at_mut(MEMBERS / 2);
    let leaving = async {
        for (coordinator, _) in gone.iter_mut() {
            coordinator.close().await?;
        }
        Ok(())
    };
    let looking = async {
        while group.members().await?.len() > staying.len() {}
        Ok::<_, tooz_core::Error>(())
    };
    tokio::try_join!(leaving, looking)?;
    for (coordinator, _) in there {
        coordinator.close().await?;
    }
    looker.close().await
}

async fn a_broken_waiter_queues_again() -> Result<()> {
    let space = namespace();
    let holder = connect(&SERVER.url(), "holder", &space).await?;
    let waiter = connect(&SERVER.url(), "waiter", &space).await?;
    let guard = holder.lock("l")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = waiter.lock("l")?;
        async move { lock.acquire().await }
    });
    until("it waits", || nodes(&space, "/locks/l").len() == 2).await;
    let mut queued = nodes(&space, "/locks/l");
    queued.sort_by_key(|node| node[node.len() - 10..].to_owned());
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    assert!(raw.delete(&queued[1]).expect("an answer"));
    guard.release().await?;
    assert!(soon(waiting).await.expect("no panic")?.is_held());
    holder.close().await?;
    waiter.close().await
}

async fn the_check_up_knows_the_server() -> Result<()> {
    let coordinator = connect(&SERVER.url(), "m", &namespace()).await?;
    let checkup = coordinator.check_up().await?;
    assert!(checkup.server.starts_with("ZooKeeper 3."), "{}", checkup.server);
    let said = |text: &str| checkup.findings.iter().any(|finding| finding.what.contains(text));
    assert!(said("standalone") && said("one server") && said("ticks every 250ms"), "{checkup:?}");
    assert!(checkup.findings.iter().all(|finding| finding.verdict != Verdict::Wrong), "{checkup:?}");
    let slow = connect(&format!("{}?tick_time=100ms", SERVER.url()), "m", &namespace()).await?;
    let checkup = slow.check_up().await?;
    assert!(checkup.findings.iter().any(|finding| finding.mend.contains("tick_time=250ms")), "{checkup:?}");
    slow.close().await?;
    coordinator.close().await
}

async fn probing_leaves_nothing() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    for probe in [Probe::Read, Probe::Write, Probe::Write] {
        coordinator.probe(probe).await?;
    }
    assert_eq!(nodes(&space, "/mail").len(), 1, "the scratch node alone: nothing is owned yet");
    coordinator.close().await?;
    assert_eq!(nodes(&space, "/mail").len(), 0);
    Ok(())
}

async fn a_watch_is_told_of_every_change_once() -> Result<()> {
    let space = namespace();
    let observer = connect(&SERVER.url(), "observer", &space).await?;
    let group = observer.group("g")?;
    group.create().await?;
    let mut watch = group.watch().await?;
    assert_eq!(soon(watch.next()).await, Some(GroupEvent::Snapshot(Vec::new())));
    let member = connect(&SERVER.url(), "member", &space).await?;
    let membership = member.group("g")?.join(&()).await?;
    let joined = soon(watch.next()).await;
    assert!(matches!(&joined, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == "member"), "{joined:?}");
    for number in 0..3 {
        membership.update(&number).await?;
        let updated = soon(watch.next()).await;
        let told = |event: &Option<GroupEvent>| match event {
            Some(GroupEvent::Updated(entry)) => entry.capabilities.get::<i32>().ok(),
            _ => None,
        };
        assert_eq!(told(&updated), Some(number), "{updated:?}");
    }
    raw::end_session(SERVER.address(), &space, "member").expect("the session can be ended");
    let left = soon(watch.next()).await;
    assert!(matches!(&left, Some(GroupEvent::Left(member)) if member.as_str() == "member"), "{left:?}");
    // It comes back by itself.
    let back = soon(watch.next()).await;
    assert!(matches!(&back, Some(GroupEvent::Joined(_))), "{back:?}");
    membership.leave().await?;
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Left(_))));
    member.close().await?;
    observer.close().await
}

/// Counted on the wire of the watcher, whose heartbeats are far apart.
async fn what_a_change_costs_does_not_grow_with_the_group() -> Result<()> {
    const CHANGES: u64 = 10;
    let (space, minute) = (namespace(), Duration::from_mins(1));
    let proxy = Proxy::start(SERVER.address()).expect("a proxy");
    let through = SERVER.url().replace(&SERVER.address().to_string(), &proxy.address().to_string());
    let watcher = connect_for(&through, "watcher", &space, minute).await?;
    let url = SERVER.url();
    let mut there = Vec::new();
    let mut costs = Vec::new();
    for (name, members) in [("small", 2), ("large", 150)] {
        let group = watcher.group(name)?;
        group.create().await?;
        for number in there.len()..members {
            there.push(connect_for(&url, &format!("member-{number:03}"), &space, minute).await?);
        }
        let mut joined = Vec::new();
        for coordinator in &there {
            joined.push(coordinator.group(name)?.join(&0).await?);
        }
        let mut watch = group.watch().await?;
        soon(watch.next()).await;
        let bytes = || {
            let counts = proxy.counts();
            counts.to_server.bytes + counts.to_client.bytes
        };
        let before = bytes();
        for number in 1..=CHANGES {
            let member = joined.pop().expect("it has joined");
            member.update(&number).await?;
            assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Updated(_))));
            member.leave().await?;
            assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Left(_))));
            joined.push(there[joined.len()].group(name)?.join(&0).await?);
            assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Joined(_))));
        }
        costs.push((bytes() - before) / CHANGES);
        drop(watch);
    }
    // A list of that many names would be thrice as much.
    assert!(costs[1] < costs[0] * 3 / 2, "bytes for an update, a leave and a join among 2 and among 150: {costs:?}");
    for coordinator in there {
        coordinator.close().await?;
    }
    watcher.close().await
}

async fn a_group_made_again_is_another_group() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    let group = coordinator.group("g")?;
    for _ in 0..3 {
        group.create().await?;
        let mut watch = group.watch().await?;
        soon(watch.next()).await;
        let membership = group.join(&()).await?;
        assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Joined(_))));
        membership.leave().await?;
        assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Left(_))));
        group.delete().await?;
        assert_eq!(soon(watch.next()).await, Some(GroupEvent::Deleted));
    }
    coordinator.close().await
}

async fn the_newer_server_does_as_well() -> Result<()> {
    // What the testbed takes first is the older version that the suite runs on; this is the other one.
    let server = Setup::new(Kind::ZooKeeper).version("3.9").start().expect("a server of the other version");
    let space = namespace();
    // Long enough for a server of Java to come back within it on a busy machine.
    let lasting = Duration::from_secs(30);
    let one = connect_for(&server.url(), "one", &space, lasting).await?;
    let two = connect_for(&server.url(), "two", &space, lasting).await?;
    assert!(one.check_up().await?.server.starts_with("ZooKeeper 3.9"));
    let mut events = one.events();
    let guard = one.lock("l")?.acquire().await?;
    assert!(two.lock("l")?.try_acquire().await?.is_none());
    let waiting = tokio::spawn({
        let lock = two.lock("l")?;
        async move { lock.acquire().await }
    });
    sleep(Duration::from_millis(200)).await;
    let group = one.group("g")?;
    let membership = group.join_or_create(&()).await?;
    server.restart().expect("it starts again");
    while soon(events.next()).await != Some(SessionEvent::Resumed) {}
    assert!(guard.is_held() && membership.is_member());
    guard.release().await?;
    assert!(soon(waiting).await.expect("no panic")?.is_held());
    one.close().await?;
    two.close().await
}

async fn one_foreign_child_of_a_group_hides_no_member() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    let group = coordinator.group("g")?;
    let membership = group.join_or_create(&1).await?;
    let mut watch = group.watch().await?;
    soon(watch.next()).await;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    assert!(raw.create(&format!("/{space}/groups/g/stranger")).expect("an answer"));
    assert!(raw.create(&format!("/{space}/groups/stranger")).expect("an answer"));
    let members = group.members().await?;
    assert_eq!(members.iter().map(|member| member.member.as_str()).collect::<Vec<_>>(), ["m"]);
    assert_eq!(coordinator.groups().await?.len(), 2);
    membership.update(&2).await?;
    while !matches!(soon(watch.next()).await, Some(GroupEvent::Updated(entry)) if entry.capabilities.get::<i32>()? == 2)
    {
    }
    // Its own name is a stranger's here.
    let other = connect(&SERVER.url(), "stranger", &space).await?;
    let error = other.group("g")?.join(&()).await.expect_err("the place is taken");
    assert!(error.to_string().contains("groups/g/stranger"), "{error}");
    // And so is a place in a queue, which is in the way of all until it is broken.
    let guard = coordinator.lock("l")?.acquire().await?;
    let own = nodes(&space, "/locks/l").pop().expect("a node");
    let before = own.replace(&own[own.len() - 10..], "-000000009");
    assert!(raw.create_with(&before, b"no record", raw::Kept::WithSession).expect("an answer"));
    let holders = coordinator.lock("l")?.holders().await?;
    assert!(holders.iter().any(|holder| holder.member.as_str().starts_with("unreadable")), "{holders:?}");
    guard.release().await?;
    other.close().await?;
    coordinator.close().await
}

async fn a_timeout_longer_than_asked_tells_of_a_slow_tick() -> Result<()> {
    static DRIVER: tooz_core::Driver = tooz_zookeeper::DRIVER;
    let server =
        Setup::new(Kind::ZooKeeper).argument("tickTime=6000 minSessionTimeout=12000").start().expect("a server");
    let options = ConnectOptions::new(&server.url())?.driver(&DRIVER).member("m")?.option("namespace", namespace());
    let coordinator = options.session_timeout(Duration::from_secs(10)).connect().await?;
    coordinator.lock("l")?.acquire().await?.release().await?;
    let terms = coordinator.terms().expect("a session");
    assert_eq!(terms.timeout, Some(Duration::from_secs(12)));
    // The servers tell their leader of a ping after half a tick.
    assert!(terms.margin > Duration::from_secs(4), "{:?}", terms.margin);
    coordinator.close().await
}

async fn a_session_that_is_given_up_is_ended_at_the_server() -> Result<()> {
    let server = Server::start(Kind::ZooKeeper).expect("a server of its own");
    let space = namespace();
    let coordinator = connect_for(&server.url(), "m", &space, Duration::from_mins(1)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let settings = server.folder().join("zoo.cfg");
    let text = std::fs::read_to_string(&settings).expect("its settings");
    std::fs::write(&settings, text.replace("maxSessionTimeout=60000", "maxSessionTimeout=50000"))
        .expect("new settings");
    server.restart().expect("it starts again");
    soon(guard.loss().wait()).await;
    let began = Instant::now();
    let other = connect(&server.url(), "other", &space).await?;
    assert!(soon(other.lock("l")?.acquire()).await?.is_held());
    assert!(began.elapsed() < Duration::from_secs(20), "it was left to its timeout: {:?}", began.elapsed());
    other.close().await?;
    coordinator.close().await
}

async fn too_many_connections_are_told_as_that() -> Result<()> {
    let server = Setup::new(Kind::ZooKeeper).argument("maxClientCnxns=3").start().expect("a server");
    let mut others = Vec::new();
    // Those by which the testbed has asked may be counted for a moment yet.
    until("there is no room for more", || match Raw::connect(server.address()) {
        Ok(raw) => {
            others.push(raw);
            false
        }
        Err(_) => others.len() == 3,
    })
    .await;
    let error = connect(&server.url(), "m", &namespace()).await.expect_err("there is no room");
    assert!(error.to_string().contains("maxClientCnxns") && error.is_retryable(), "{error}");
    assert!(!error.to_string().contains("quorum"), "{error}");
    Ok(())
}

/// Counted on the wire of the watcher, whose heartbeats are far apart.
async fn who_waits_for_a_leadership_wakes_no_watcher() -> Result<()> {
    const CANDIDATES: usize = 20;
    let (space, minute) = (namespace(), Duration::from_mins(1));
    let proxy = Proxy::start(SERVER.address()).expect("a proxy");
    let watcher = connect_for(&proxy.url("zookeeper"), "watcher", &space, minute).await?;
    let group = watcher.group("g")?;
    group.create().await?;
    let mut watch = group.watch_leader().await?;
    let first = connect_for(&SERVER.url(), "first", &space, minute).await?;
    let membership = first.group("g")?.join(&()).await?;
    let leadership = membership.campaign().await?;
    let elected = |event: &Option<LeaderEvent>, who: &str| matches!(event, Some(LeaderEvent::Elected(leader)) if leader.member.as_str() == who);
    while !elected(&soon(watch.next()).await, "first") {}
    sleep(Duration::from_secs(1)).await;
    let before = proxy.counts().to_server.bytes;
    let mut candidates = Vec::new();
    for number in 0..CANDIDATES {
        let coordinator = connect_for(&SERVER.url(), &format!("candidate-{number}"), &space, minute).await?;
        let membership = coordinator.group("g")?.join(&()).await?;
        let campaign =
            tokio::spawn(async move { membership.campaign().await.map(|leadership| (leadership, membership)) });
        candidates.push((coordinator, campaign));
    }
    until("all wait", || nodes(&space, "/elections/g").len() == CANDIDATES + 1).await;
    sleep(Duration::from_millis(500)).await;
    let asked = proxy.counts().to_server.bytes - before;
    // A ping or two, and no list for each of them.
    assert!(asked < 500, "{asked} bytes were asked while others took their places");
    leadership.resign().await?;
    while !matches!(soon(watch.next()).await, Some(LeaderEvent::Elected(leader)) if leader.member.as_str() != "first") {
    }
    for (coordinator, _) in &candidates {
        coordinator.close().await?;
    }
    first.close().await?;
    watcher.close().await
}

async fn a_chroot_is_for_others_too() -> Result<()> {
    let above = namespace();
    let mut held = Vec::new();
    for (user, below) in [("ann:secret@", "one"), ("bob:secret@", "two"), ("", "three"), ("ann:other@", "four")] {
        let url = SERVER.url().replace("://", &format!("://{user}")) + &format!("/{above}/prod/{below}");
        let coordinator = connect(&url, "m", "ns").await?;
        held.push((coordinator.lock("l")?.acquire().await?, coordinator));
    }
    // The namespace itself is the user's who has made it, and says so.
    let url = as_user("ann:wrong") + &format!("/{above}/prod/one");
    let stranger = connect(&url, "m", "ns").await?;
    for error in [
        stranger.group("g")?.create().await.expect_err("it is another password"),
        stranger.lock("l")?.acquire().await.expect_err("it is another password"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        assert!(error.to_string().contains("kept by user ann") && !error.to_string().contains("wrong@"), "{error}");
    }
    for (guard, coordinator) in held {
        guard.release().await?;
        coordinator.close().await?;
    }
    stranger.close().await
}

async fn a_password_in_the_clear_is_told() -> Result<()> {
    let coordinator = connect(&as_user("ann:secret"), "m", &namespace()).await?;
    let checkup = coordinator.check_up().await?;
    assert!(checkup.findings.iter().any(|finding| finding.what.contains("in the clear")), "{checkup:?}");
    coordinator.close().await?;
    let coordinator = connect(&SERVER.url(), "m", &namespace()).await?;
    let checkup = coordinator.check_up().await?;
    assert!(checkup.findings.iter().all(|finding| !finding.what.contains("in the clear")), "{checkup:?}");
    coordinator.close().await
}

async fn a_namespace_deleted_by_hand_is_made_anew() -> Result<()> {
    let space = namespace();
    let coordinator = connect_for(&SERVER.url(), "m", &space, Duration::from_secs(3)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let membership = coordinator.group("g")?.join_or_create(&()).await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    for node in raw.tree(&format!("/{space}")).expect("a listing") {
        assert!(raw.delete(&node).expect("an answer"), "{node}");
    }
    assert!(raw.delete(&format!("/{space}")).expect("an answer"));
    assert_eq!(soon(guard.loss().wait()).await, LossReason::Broken);
    soon(membership.loss().wait()).await;
    let again = soon(coordinator.lock("l")?.acquire()).await?;
    assert!(again.is_held());
    assert_eq!(raw.data(&format!("/{space}")).expect("an answer").as_deref(), Some(&br#"{"layout":2}"#[..]));
    coordinator.close().await
}

/// Longer than one request may take, and than the client library waits for an answer.
async fn a_close_waits_as_long_as_an_operation_may() -> Result<()> {
    let space = namespace();
    let proxy = Proxy::start(SERVER.address()).expect("a proxy");
    let url = format!("{}?operation_timeout=20s", proxy.url("zookeeper"));
    let coordinator = connect_for(&url, "m", &space, Duration::from_secs(6)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    proxy.stall();
    let closing = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { coordinator.close().await }
    });
    sleep(Duration::from_millis(2500)).await;
    proxy.heal();
    soon(closing).await.expect("no panic")?;
    assert!(!guard.is_held());
    assert_eq!(nodes(&space, "/locks/l").len(), 0, "it was said to be ended");
    assert_eq!(nodes(&space, "/mail").len(), 0, "it was said to be ended");
    Ok(())
}
