//! `PgBouncer` in between. In session mode each client has a connection of its own and all is well; in the other modes a lock would be
//! all clients'.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tooz_core::{ErrorKind, GroupEvent, LeaderEvent, connect};
use tooz_testbed::{Kind, PgBouncer, PoolMode, Setup};

use crate::bed::{LATE, Process, Store, within};

/// A server with such a pooler before it, and how members connect.
struct Pooled {
    store: Store,
    bouncer: PgBouncer,
}

impl Pooled {
    fn start(mode: PoolMode, settings: &str) -> Self {
        let store = Store::own(Setup::new(Kind::Postgres));
        let bouncer = PgBouncer::start(&store.server, mode, settings).unwrap();
        Pooled { store, bouncer }
    }

    fn url(&self) -> String {
        format!("{}?session_timeout=2s&namespace=own", self.bouncer.url())
    }
}

pub(crate) async fn in_transaction_mode_is_refused(_shared: Store) {
    is_refused(PoolMode::Transaction).await;
}

pub(crate) async fn in_statement_mode_is_refused(_shared: Store) {
    is_refused(PoolMode::Statement).await;
}

async fn is_refused(mode: PoolMode) {
    let pooled = Pooled::start(mode, "");
    let ours = within(connect(&pooled.url(), "ours")).await.unwrap();
    ours.groups().await.unwrap();
    for _ in 0..2 {
        let lock = ours.lock("x").unwrap();
        for error in [
            within(lock.try_acquire()).await.expect_err("a try was answered"),
            within(lock.acquire()).await.expect_err("a lock was granted"),
            within(ours.group("g").unwrap().join_or_create(&1)).await.expect_err("a member has joined"),
        ] {
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let text = error.to_string();
            assert!(text.contains("pooler") && text.contains("session mode"), "{text}");
        }
    }
    // Nothing stays on connections that the pooler keeps.
    assert_eq!(pooled.store.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), "0");
    assert_eq!(pooled.store.sql("SELECT count(*) FROM tooz.sessions"), "0");
}

/// Whatever slips through while all connections of the pooler change hands all the time: it is found before two hold the same lock.
pub(crate) async fn in_transaction_mode_grants_nothing_twice_however_busy(_shared: Store) {
    // It lends the connection that was used last, or each one in its turn.
    let in_turn = "default_pool_size = 3\nmin_pool_size = 3\nserver_round_robin = 1";
    for settings in ["default_pool_size = 3", in_turn] {
        grants_nothing_twice(&Pooled::start(PoolMode::Transaction, settings)).await;
    }
}

async fn grants_nothing_twice(pooled: &Pooled) {
    let holding = Arc::new(AtomicUsize::new(0));
    let until = Instant::now() + Duration::from_secs(4);
    let mut members = tokio::task::JoinSet::new();
    for index in 0..6 {
        let (url, holding) = (pooled.url(), Arc::clone(&holding));
        members.spawn(async move {
            let (mut granted, mut refused) = (0, 0);
            while Instant::now() < until {
                let Ok(ours) = connect(&url, format!("m{index}").as_str()).await else { continue };
                let lock = ours.lock("x").unwrap();
                for _ in 0..20 {
                    match lock.acquire_within(Duration::from_millis(100)).await {
                        Ok(Some(guard)) => {
                            granted += 1;
                            assert_eq!(holding.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                            tokio::time::sleep(Duration::from_millis(2)).await;
                            holding.fetch_sub(1, Ordering::SeqCst);
                            let _ = guard.release().await;
                        }
                        Ok(None) => {}
                        Err(_) => refused += 1,
                    }
                }
                let _ = ours.close().await;
            }
            (granted, refused)
        });
    }
    let answers = tokio::time::timeout(Duration::from_mins(1), members.join_all()).await.unwrap();
    println!("granted and refused, by member: {answers:?}");
    assert!(answers.iter().map(|(_, refused)| refused).sum::<usize>() > 0, "no request was refused");
}

pub(crate) async fn in_session_mode_will_do(_shared: Store) {
    let pooled = Pooled::start(PoolMode::Session, "");
    let ours = within(connect(&pooled.url(), "ours")).await.unwrap();
    let direct = pooled.store.connect("direct").await;
    let group = ours.group("g").unwrap();
    group.create().await.unwrap();
    let mut watch = group.watch().await.unwrap();
    let mut leaders = group.watch_leader().await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Snapshot(members)) if members.is_empty()));
    assert_eq!(within(leaders.next()).await, Some(LeaderEvent::Vacant));
    // Pushes come through it, and members that come by it and those that don't are one.
    let membership = within(direct.group("g").unwrap().join(&1)).await.unwrap();
    assert!(matches!(within(watch.next()).await, Some(GroupEvent::Joined(_))));
    let leadership = within(membership.campaign()).await.unwrap();
    assert!(matches!(within(leaders.next()).await, Some(LeaderEvent::Elected(_))));
    leadership.resign().await.unwrap();
    let guard = direct.lock("x").unwrap().acquire().await.unwrap();
    assert!(ours.lock("x").unwrap().try_acquire().await.unwrap().is_none());
    let lock = ours.lock("x").unwrap();
    let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    guard.release().await.unwrap();
    within(waiting).await.unwrap().release().await.unwrap();

    // The dead are noticed behind it as well, at once, and the stopped in time.
    for (how, limit) in [("KILL", LATE), ("STOP", Duration::from_secs(2) + LATE)] {
        let mut holder = Process::start(&pooled.url(), how, &["hold", "x"]);
        let held: u64 = holder.line().parse().unwrap();
        let lock = ours.lock("x").unwrap();
        let waiting = tokio::spawn(async move { lock.acquire().await.unwrap() });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let ended = Instant::now();
        holder.signal(how);
        let next = within(waiting).await.unwrap();
        println!("{how} of a holder behind the pooler to the next grant: {:?}", ended.elapsed());
        assert!(ended.elapsed() <= limit, "it took {:?}", ended.elapsed());
        assert!(next.fencing_token().0 > held);
        next.release().await.unwrap();
        holder.signal("CONT");
        holder.kill();
    }
}

/// `PgBouncer` as it comes does not let this client in.
pub(crate) async fn that_refuses_what_is_sent_is_told_as_one(_shared: Store) {
    let pooled = Pooled::start(PoolMode::Session, "ignore_startup_parameters =");
    let error = within(connect(&pooled.url(), "ours")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let text = error.to_string();
    assert!(text.contains("pooler") && text.contains("ignore_startup_parameters"), "{text}");
}
