//! Connecting, closing, and what a session is.

// Long because closing has many sides and each is a case of its own.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::{
    Characteristic, Characteristics, ConnectOptions, Coordinator, ErrorKind, Group, Leadership, Lock, LockGuard,
    Membership, Namespace, SessionState,
};

use crate::cases::Requirement::{Cut, Has, HasTimeout, Quiet, Restart, Workers};
use crate::cases::cases;
use crate::process::{Command, Worker};
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq, refused};

cases! { "lifecycle";
    an_unknown_option_lists_the_valid_ones [];
    a_bad_duration_says_what_would_be_right [];
    a_scheme_without_a_driver_lists_the_linked_ones [];
    a_password_is_never_shown [];
    require_names_what_is_missing [];
    what_is_there_can_be_required [];
    a_session_promises_no_more_than_the_card [];
    looking_owns_nothing [];
    handles_and_grants_can_go_to_any_thread [];
    no_runtime_is_needed [];
    closing_frees_what_was_held [];
    closing_twice_is_fine [];
    closing_closes_every_clone [];
    closing_works_without_a_runtime [];
    after_close_every_call_answers_closed [];
    after_close_every_group_call_answers_closed [Has(Characteristic::Groups)];
    after_close_every_grant_is_lost [];
    after_close_every_membership_is_lost [Has(Characteristic::Groups)];
    closing_ends_a_waiting_acquire [];
    closing_ends_the_event_stream [];
    closing_while_cut_off_does_not_hang [Cut];
    a_member_comes_back_under_its_id [];
    dropping_everything_frees_what_was_held [];
    closing_ends_the_heart_thread [Workers];
    a_hundred_coordinators_come_and_go_without_a_trace [Workers, Quiet];
    the_heart_beats_while_every_worker_is_blocked [];
    remaining_counts_to_a_deadline_within_the_timeout [HasTimeout];
    namespaces_keep_fleets_apart [];
    a_restart_of_the_server_loses_nothing [Restart, Has(Characteristic::HoldsAcrossRestart)];
}

async fn an_unknown_option_lists_the_valid_ones(stage: Stage) -> CaseResult {
    let options = stage.options_for(&stage.url_with("nmespace=x"), "a")?;
    let error = refused("an unknown option", stage.soon("connecting", options.connect()).await?, ErrorKind::Config)?;
    let text = error.to_string();
    ensure!(text.contains("nmespace"), "the message does not name the wrong option: {text}");
    for option in tooz_core::driver::COMMON_OPTIONS {
        ensure!(text.contains(option.name), "the message does not list {}: {text}", option.name);
    }
    Ok(())
}

async fn a_bad_duration_says_what_would_be_right(stage: Stage) -> CaseResult {
    let options = ConnectOptions::new(&stage.url_with("operation_timeout=soon"))?.member("a")?;
    let options = match stage.rig().named_driver() {
        Some(driver) => options.driver(driver),
        None => options,
    };
    let error = refused("a bad duration", stage.soon("connecting", options.connect()).await?, ErrorKind::Config)?;
    let text = error.to_string();
    ensure!(text.contains("operation_timeout") && text.contains("10s"), "no example of a duration in: {text}");
    Ok(())
}

async fn a_scheme_without_a_driver_lists_the_linked_ones(stage: Stage) -> CaseResult {
    let result = stage.soon("connecting", tooz_core::connect("nosuchscheme://x", "a")).await?;
    let text = refused("an unknown scheme", result, ErrorKind::Config)?.to_string();
    for driver in tooz_core::drivers() {
        ensure!(text.contains(driver.schemes()[0]), "the message does not list {}: {text}", driver.name());
    }
    Ok(())
}

async fn a_password_is_never_shown(stage: Stage) -> CaseResult {
    let scheme = stage.url().split(':').next().unwrap_or_default().to_owned();
    for url in [
        format!("{scheme}://user:hunter2@localhost:1/x?nmespace=x"),
        format!("{scheme}://user:hunter2@localhost:1/x?session_timeout=hunter2never"),
    ] {
        let options = ConnectOptions::new(&url)?.member("a")?;
        let shown = format!("{options:?}");
        ensure!(!shown.contains("hunter2"), "Debug of the options shows it: {shown}");
        if url.contains("nmespace") {
            let error = refused("the URL", stage.soon("connecting", options.connect()).await?, ErrorKind::Config)?;
            let shown = format!("{error} {error:?}");
            ensure!(!shown.contains("hunter2"), "the error shows it: {shown}");
        }
    }
    Ok(())
}

async fn require_names_what_is_missing(stage: Stage) -> CaseResult {
    let all: Characteristics = Characteristic::ALL.iter().copied().collect();
    let missing = stage.rig().characteristics().missing(all);
    if missing.is_empty() {
        return Ok(());
    }
    let result = stage.soon("connecting", stage.options("a")?.require(all).connect()).await?;
    let text = match result {
        Ok(_) => return Err(CaseFailure::new("all was required, and it connected")),
        Err(error) => error.to_string(),
    };
    for one in missing.iter() {
        ensure!(text.contains(one.name()), "the message does not name {one}: {text}");
    }
    Ok(())
}

async fn what_is_there_can_be_required(stage: Stage) -> CaseResult {
    let probe = stage.connect("probe").await?;
    drop(stage.hold(&probe.lock("x")?).await?);
    let options = stage.options("a")?.require(probe.characteristics());
    stage.connect_with(options).await?;
    Ok(())
}

async fn a_session_promises_no_more_than_the_card(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    let more = stage.rig().characteristics().missing(coordinator.characteristics());
    ensure!(more.is_empty(), "the session has what the card does not know: {more}");
    stage.give(guard).await
}

async fn looking_owns_nothing(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    stage.soon("holders", coordinator.lock("x")?.holders()).await??;
    if coordinator.characteristics().has(Characteristic::Groups) {
        stage.group_names(&coordinator).await?;
    }
    ensure_eq!(coordinator.state(), SessionState::Idle, "a look opened a session");
    drop(stage.hold(&coordinator.lock("x")?).await?);
    ensure_eq!(coordinator.state(), SessionState::Open, "a lock is held");
    Ok(())
}

#[allow(clippy::unused_async)]
async fn handles_and_grants_can_go_to_any_thread(_stage: Stage) -> CaseResult {
    fn travels<T: Send + Sync + 'static>() {}
    travels::<Coordinator>();
    travels::<Lock>();
    travels::<Group>();
    travels::<LockGuard>();
    travels::<Membership>();
    travels::<Leadership>();
    Ok(())
}

/// The smallest executor there is: it parks the thread until it is woken.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

async fn no_runtime_is_needed(stage: Stage) -> CaseResult {
    let (first, second) = (stage.options("a")?, stage.options("b")?);
    let with_groups = stage.rig().characteristics().has(Characteristic::Groups);
    let (done, is_done) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let result = block_on(async {
            let (a, b) = (first.connect().await?, second.connect().await?);
            let guard = a.lock("x")?.acquire().await?;
            let waiting = b.lock("x")?;
            assert!(waiting.acquire_within(Duration::from_millis(700)).await?.is_none(), "held by another");
            guard.release().await?;
            waiting.acquire().await?.release().await?;
            if with_groups {
                let group = a.group("g")?;
                let membership = group.join_or_create(&1).await?;
                group.watch().await?.next().await.expect("a snapshot comes first");
                membership.leave().await?;
            }
            a.close().await?;
            b.close().await
        });
        let _ = done.send(result);
    });
    match stage.soon("a thread without a runtime", is_done).await? {
        Ok(result) => Ok(result?),
        Err(_) => Err(CaseFailure::new("the thread without a runtime panicked")),
    }
}

async fn closing_frees_what_was_held(stage: Stage) -> CaseResult {
    // The end of the session by itself comes too late to pass for the close.
    let a = stage.connect_with(stage.options("a")?.session_timeout(stage.long_session())).await?;
    let (lock_a, lock_b) = (a.lock("the lock")?, stage.connect("b").await?.lock("the lock")?);
    let _guard = stage.hold(&lock_a).await?;
    let waiter = tokio::spawn(async move { lock_b.acquire().await });
    tokio::time::sleep(stage.moment()).await;
    stage.soon("closing", a.close()).await??;
    drop(stage.soon("the waiter", waiter).await???);
    Ok(())
}

async fn closing_twice_is_fine(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let _guard = stage.hold(&coordinator.lock("x")?).await?;
    let (first, second) = tokio::join!(coordinator.close(), coordinator.close());
    first?;
    second?;
    stage.soon("closing again", coordinator.close()).await??;
    ensure_eq!(coordinator.state(), SessionState::Closed, "it was closed");
    Ok(())
}

async fn closing_closes_every_clone(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let clone = coordinator.clone();
    stage.soon("closing", coordinator.close()).await??;
    refused("a clone", stage.soon("trying", clone.lock("x")?.try_acquire()).await?, ErrorKind::Closed)?;
    Ok(())
}

async fn closing_works_without_a_runtime(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    let _guard = stage.hold(&lock).await?;
    let closing = {
        let coordinator = coordinator.clone();
        tokio::task::spawn_blocking(move || {
            // A plain thread stands for code that never heard of a runtime.
            thread::spawn(move || coordinator.close_blocking()).join()
        })
    };
    match stage.soon("close_blocking", closing).await?? {
        Ok(result) => result?,
        Err(_) => return Err(CaseFailure::new("close_blocking panicked")),
    }
    ensure_eq!(coordinator.state(), SessionState::Closed, "it was closed");
    Ok(())
}

async fn after_close_every_call_answers_closed(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let lock = coordinator.lock("x")?;
    stage.give(stage.hold(&lock).await?).await?;
    stage.soon("closing", coordinator.close()).await??;
    let closed = ErrorKind::Closed;
    refused("try_acquire", stage.soon("it", lock.try_acquire()).await?, closed)?;
    refused("acquire", stage.soon("it", lock.acquire()).await?, closed)?;
    refused("acquire_within", stage.soon("it", lock.acquire_within(Duration::from_secs(1))).await?, closed)?;
    refused("holders", stage.soon("it", lock.holders()).await?, closed)?;
    if stage.rig().characteristics().has(Characteristic::SharedLocks) {
        refused("a shared try", stage.soon("it", lock.shared().try_acquire()).await?, closed)?;
    }
    Ok(())
}

async fn after_close_every_group_call_answers_closed(stage: Stage) -> CaseResult {
    let (coordinator, group) = stage.with_group("a", "g").await?;
    stage.soon("closing", coordinator.close()).await??;
    let closed = ErrorKind::Closed;
    refused("create", stage.soon("it", group.create()).await?, closed)?;
    refused("delete", stage.soon("it", group.delete()).await?, closed)?;
    refused("groups", stage.soon("it", coordinator.groups()).await?, closed)?;
    refused("join", stage.soon("it", group.join(&1)).await?, closed)?;
    refused("members", stage.soon("it", group.members()).await?, closed)?;
    refused("watch", stage.soon("it", group.watch()).await?, closed)?;
    refused("leader", stage.soon("it", group.leader()).await?, closed)?;
    refused("watch_leader", stage.soon("it", group.watch_leader()).await?, closed)?;
    refused("partitioner", stage.soon("it", group.partitioner()).await?, closed)?;
    Ok(())
}

async fn after_close_every_grant_is_lost(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    let loss = guard.loss();
    ensure!(guard.is_held() && !loss.is_lost(), "it was just acquired");
    stage.soon("closing", coordinator.close()).await??;
    ensure!(!guard.is_held(), "the coordinator is closed");
    stage.soon("the loss", loss.wait()).await?;
    ensure!(stage.soon("releasing", guard.release()).await?.is_err(), "what was lost can't be given back");
    Ok(())
}

async fn after_close_every_membership_is_lost(stage: Stage) -> CaseResult {
    let (coordinator, group) = stage.with_group("a", "g").await?;
    let membership = stage.join(&group).await?;
    let leadership = stage.soon("being elected", membership.campaign()).await??;
    stage.soon("closing", coordinator.close()).await??;
    ensure!(!membership.is_member(), "the coordinator is closed");
    ensure!(!leadership.is_leader(), "the coordinator is closed");
    stage.soon("the loss", membership.loss().wait()).await?;
    stage.soon("the leadership's loss", leadership.loss().wait()).await?;
    Ok(())
}

async fn closing_ends_a_waiting_acquire(stage: Stage) -> CaseResult {
    let (_a, b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    let waiter = tokio::spawn(async move { lock_b.acquire().await });
    tokio::time::sleep(stage.moment()).await;
    stage.soon("closing", b.close()).await??;
    refused("the waiting acquire", stage.soon("the waiter's end", waiter).await??, ErrorKind::Closed)?;
    ensure!(guard.is_held(), "another's close is none of its business");
    stage.give(guard).await
}

async fn closing_ends_the_event_stream(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut events = coordinator.events();
    drop(stage.hold(&coordinator.lock("x")?).await?);
    stage.soon("closing", coordinator.close()).await??;
    stage.soon("the end of the events", async { while events.next().await.is_some() {} }).await
}

async fn closing_while_cut_off_does_not_hang(stage: Stage) -> CaseResult {
    let limit = Duration::from_secs(1);
    let a = stage.connect_with(stage.options("a")?.operation_timeout(limit)).await?;
    let _guard = stage.hold(&a.lock("x")?).await?;
    stage.cut("a").await?;
    let begun = Instant::now();
    // Whether it worked is not asked: this can't be known.
    let _ = stage.soon("closing", a.close()).await?;
    let took = begun.elapsed();
    stage.heal("a").await?;
    ensure!(took <= limit + Duration::from_secs(2), "closing took {took:?} with an operation timeout of {limit:?}");
    ensure_eq!(a.state(), SessionState::Closed, "it was closed");
    Ok(())
}

async fn a_member_comes_back_under_its_id(stage: Stage) -> CaseResult {
    let with_groups = stage.rig().characteristics().has(Characteristic::Groups);
    for round in 0..3 {
        let coordinator = stage.connect("phoenix").await?;
        let guard = stage.attempt(&coordinator.lock("x")?).await?;
        ensure!(guard.is_some(), "round {round}: the lock of the closed coordinator is not free");
        if with_groups {
            let _membership = stage.soon("joining", coordinator.group("g")?.join_or_create(&round)).await??;
        }
        stage.soon("closing", coordinator.close()).await??;
    }
    Ok(())
}

async fn dropping_everything_frees_what_was_held(stage: Stage) -> CaseResult {
    let other = stage.connect("b").await?;
    {
        // Not registered for closing: this case is about what happens without it.
        let options = stage.options("a")?.session_timeout(stage.long_session());
        let coordinator = stage.soon("connecting", options.connect()).await??;
        let _guard = stage.hold(&coordinator.lock("x")?).await?;
    }
    drop(stage.hold(&other.lock("x")?).await?);
    Ok(())
}

async fn closing_ends_the_heart_thread(stage: Stage) -> CaseResult {
    // A process of its own, since hearts of other cases beat in this one.
    let mut worker = Worker::start(&stage, "a").await?;
    let reply = worker.ask(&Command::CountHearts { coordinators: 3 }).await?;
    // Systems that do not list threads answer nothing; where they do, each coordinator has its heart.
    if let Some(before) = reply.before {
        ensure_eq!(before, 3, "threads named tooz-heart of three coordinators");
        ensure_eq!(reply.after, Some(0), "threads named tooz-heart after close");
    }
    worker.end().await
}

async fn a_hundred_coordinators_come_and_go_without_a_trace(stage: Stage) -> CaseResult {
    let mut worker = Worker::start(&stage, "a").await?;
    // A few first, so that what is made once for ever is there already.
    worker.ask(&Command::ComeAndGo { times: 20 }).await?;
    let first = worker.ask(&Command::ComeAndGo { times: 1 }).await?;
    let last = worker.ask(&Command::ComeAndGo { times: 100 }).await?;
    let grown = |before: Option<u64>, after: Option<u64>| match (before, after) {
        (Some(before), Some(after)) => after.saturating_sub(before),
        _ => 0,
    };
    ensure!(grown(first.threads, last.threads) <= 4, "threads grew from {:?} to {:?}", first.threads, last.threads);
    ensure!(grown(first.files, last.files) <= 8, "open files grew from {:?} to {:?}", first.files, last.files);
    worker.end().await
}

async fn the_heart_beats_while_every_worker_is_blocked(stage: Stage) -> CaseResult {
    let options = stage.options("a")?;
    let other = stage.connect("b").await?;
    let blocked = stage.session_timeout() * 3;
    let holder = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime of two threads can be made");
        runtime.block_on(async move {
            let coordinator = options.connect().await?;
            let guard = coordinator.lock("x")?.acquire().await?;
            let workers = [0, 1].map(|_| tokio::spawn(async move { thread::sleep(blocked) }));
            thread::sleep(blocked);
            let held = guard.is_held();
            for worker in workers {
                worker.await.expect("sleeping does not panic");
            }
            guard.release().await?;
            coordinator.close().await?;
            Ok::<_, tooz_core::Error>(held)
        })
    });
    tokio::time::sleep(stage.session_timeout() * 2).await;
    let got = stage.attempt(&other.lock("x")?).await?;
    ensure!(got.is_none(), "the lock of a blocked application was given away");
    let held = stage.within(blocked + stage.patience(), "the blocked application", holder).await???;
    ensure!(held, "the session was lost while the application was blocked");
    Ok(())
}

async fn remaining_counts_to_a_deadline_within_the_timeout(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    let timeout = coordinator.terms().and_then(|terms| terms.timeout);
    let timeout =
        timeout.ok_or_else(|| CaseFailure::new("the session has no timeout, but does not declare NonTimeoutBased"))?;
    for _ in 0..20 {
        let (Some(remaining), Some(expires)) = (guard.remaining(), guard.expires_in()) else {
            return Err(CaseFailure::new("a session with a timeout has a deadline"));
        };
        ensure!(remaining <= timeout && expires <= timeout, "{remaining:?} and {expires:?} of {timeout:?}");
        // Two reads at two moments: the second is the later one.
        ensure!(
            expires + Duration::from_millis(50) >= remaining,
            "the deadline {remaining:?} is after the expiry {expires:?}"
        );
        tokio::time::sleep(timeout / 20).await;
    }
    ensure!(guard.is_held(), "the heart did not keep the session");
    stage.give(guard).await
}

async fn namespaces_keep_fleets_apart(stage: Stage) -> CaseResult {
    if stage.url().contains("namespace=") {
        // The rig itself keeps its cases apart that way: every other case has shown it.
        return Ok(());
    }
    let first = stage.connect_with(stage.options("a")?.namespace(&Namespace::new("fleet/1")?)).await?;
    let second = stage.connect_with(stage.options("a")?.namespace(&Namespace::new("fleet")?)).await?;
    let _one = stage.hold(&first.lock("1/x")?).await?;
    let two = stage.attempt(&second.lock("1/x")?).await?;
    ensure!(two.is_some(), "a lock of the same name in another namespace is another lock");
    if first.characteristics().has(Characteristic::Groups) {
        stage.soon("creating", first.group("g")?.create()).await??;
        ensure_eq!(stage.group_names(&second).await?, Vec::<String>::new(), "groups of another namespace are listed");
    }
    Ok(())
}

async fn a_restart_of_the_server_loses_nothing(stage: Stage) -> CaseResult {
    // However long the restart takes on a busy machine, it is well within the timeout.
    let long = stage.long_session();
    let a = stage.connect_with(stage.options("a")?.session_timeout(long)).await?;
    let b = stage.connect_with(stage.options("b")?.session_timeout(long)).await?;
    let (lock_a, lock_b) = (a.lock("the lock")?, b.lock("the lock")?);
    let guard = stage.hold(&lock_a).await?;
    let mut waiter = stage.begin(async move { lock_b.acquire().await }).await?;
    tokio::time::sleep(stage.moment()).await;
    let begun = Instant::now();
    stage.restart().await?;
    let took = begun.elapsed();
    // A server may have given less than was asked for.
    let timeout = a.terms().and_then(|terms| terms.timeout).unwrap_or(long);
    ensure!(took < timeout / 2, "the restart took {took:?} of {timeout:?} and shows nothing");
    ensure!(guard.is_held(), "the lock was lost in a restart of {took:?}: {:?}", guard.loss().reason());
    stage.not_yet("the waiter's grant", &mut waiter).await?;
    stage.give(guard).await?;
    drop(stage.within(stage.after_a_crash(), "the waiter's grant after the restart", waiter).await???);
    Ok(())
}
