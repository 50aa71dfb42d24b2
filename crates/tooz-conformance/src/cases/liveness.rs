//! Life and death: killed, stopped and cut-off members, lost sessions, and what comes back by itself.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tooz_core::{Characteristic, JoinOptions, LossReason, SessionEvent, SessionEvents, SessionState};

use crate::cases::Requirement::{AdvanceClock, Cut, EndSession, Has, HasTimeout, Processes, Quiet, Signals};
use crate::cases::cases;
use crate::process::{Command, Worker};
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq};

const GROUPS: Characteristic = Characteristic::Groups;

// Long because each way to die is a case of its own.

cases! { "liveness";
    a_killed_holder_frees_its_lock [Processes];
    a_killed_waiter_is_skipped [Processes];
    a_killed_holder_of_many_locks_frees_them_all [Processes];
    a_killed_member_leaves [Processes, Has(GROUPS)];
    a_killed_member_comes_back_under_its_id [Processes, Has(GROUPS)];
    a_group_is_deletable_after_a_crash [Processes, Has(GROUPS)];
    a_killed_leader_is_replaced [Processes, Has(GROUPS)];
    a_stopped_holder_loses_its_lock_and_knows [Processes, Signals, HasTimeout];
    a_stopped_holder_keeps_its_lock [Processes, Signals, Has(Characteristic::NonTimeoutBased)];
    a_stopped_waiter_is_no_obstacle_for_ever [Processes, Signals, HasTimeout];
    a_thousand_locks_live_on_one_heartbeat [Quiet];
    the_first_look_after_a_jump_of_the_clock_sees_the_loss [AdvanceClock];
    a_short_jump_of_the_clock_loses_nothing [AdvanceClock];
    an_ended_session_is_told_and_replaced [EndSession];
    locks_are_never_retaken_silently [EndSession];
    memberships_come_back_with_their_latest_capabilities [EndSession, Has(GROUPS)];
    who_left_does_not_come_back [EndSession, Has(GROUPS)];
    a_member_cut_off_for_long_loses_what_it_holds [Cut, HasTimeout];
    a_short_cut_loses_nothing [Cut, HasTimeout];
    a_cut_is_told_as_suspended_and_healed_as_resumed [Cut, HasTimeout];
    a_try_while_cut_off_is_an_error [Cut];
    a_stalled_application_loses_its_session_if_it_asked_for_that [HasTimeout];
}

async fn a_killed_holder_frees_its_lock(stage: Stage) -> CaseResult {
    let lock = stage.connect("here").await?.lock("x")?;
    let mut worker = Worker::start(&stage, "there").await?;
    let token = worker.ask(&Command::Hold { lock: "x".into() }).await?.token;
    ensure!(stage.attempt(&lock).await?.is_none(), "the worker holds it");
    worker.kill().await?;
    let guard = stage.within(stage.after_a_crash(), "the dead holder's lock", lock.acquire()).await??;
    ensure!(Some(guard.fencing_token().0) > token, "the token did not grow over a crash");
    let holders = stage.soon("holders", lock.holders()).await??;
    ensure_eq!(holders.len(), 1, "the holders after a crash");
    stage.give(guard).await
}

async fn a_killed_waiter_is_skipped(stage: Stage) -> CaseResult {
    let first = stage.connect("first").await?.lock("x")?;
    let last = stage.connect("last").await?.lock("x")?;
    let guard = stage.hold(&first).await?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Wait { lock: "x".into() }).await?;
    sleep(stage.moment() * 2).await;
    let waiter = tokio::spawn(async move { last.acquire().await });
    sleep(stage.moment()).await;
    worker.kill().await?;
    stage.give(guard).await?;
    drop(stage.within(stage.after_a_crash(), "the waiter behind a dead one", waiter).await???);
    Ok(())
}

async fn a_killed_holder_of_many_locks_frees_them_all(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("here").await?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::HoldMany { count: 50 }).await?;
    worker.kill().await?;
    for index in 0..50 {
        let lock = coordinator.lock(format!("many-{index}"))?;
        drop(stage.within(stage.after_a_crash(), "one of the dead holder's locks", lock.acquire()).await??);
    }
    Ok(())
}

async fn a_killed_member_leaves(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("here", "g").await?;
    let mut watch = stage.soon("watching", group.watch()).await??;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Join { group: "g".into() }).await?;
    ensure_eq!(stage.member_names(&group).await?, ["there"], "the members");
    // A driver may read only when it is told that something changed: a member that comes and goes between two readings is not seen.
    let joined = async {
        loop {
            match watch.next().await {
                Some(tooz_core::GroupEvent::Joined(_)) => return Ok(()),
                Some(_) => {}
                None => return Err(CaseFailure::new("the watch has ended")),
            }
        }
    };
    stage.soon("the news of the join", joined).await??;
    worker.kill().await?;
    stage
        .within(stage.after_a_crash(), "the news of the death", async {
            loop {
                match watch.next().await {
                    Some(tooz_core::GroupEvent::Left(_)) => return Ok(()),
                    Some(tooz_core::GroupEvent::Reset(all)) if all.is_empty() => return Ok(()),
                    Some(_) => {}
                    None => return Err(CaseFailure::new("the watch has ended")),
                }
            }
        })
        .await??;
    ensure_eq!(stage.member_names(&group).await?, Vec::<String>::new(), "the members after a crash");
    Ok(())
}

async fn a_killed_member_comes_back_under_its_id(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("here", "g").await?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Join { group: "g".into() }).await?;
    worker.kill().await?;
    // What a service does that was started again after a crash: its own dead session is in the way for a while.
    let again = stage.connect("there").await?.group("g")?;
    let joining = again.join_with(JoinOptions::new().wait());
    let membership = stage.within(stage.after_a_crash(), "the dead member's id", joining).await??;
    ensure!(membership.is_member(), "it was just joined");
    ensure_eq!(stage.member_names(&group).await?, ["there"], "the members");
    Ok(())
}

async fn a_group_is_deletable_after_a_crash(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("here", "g").await?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Lead { group: "g".into() }).await?;
    worker.kill().await?;
    stage
        .eventually(stage.after_a_crash(), "the dead member's group can be deleted", async || {
            Ok(group.delete().await.is_ok())
        })
        .await
}

async fn a_killed_leader_is_replaced(stage: Stage) -> CaseResult {
    let (_coordinator, group) = stage.with_group("here", "g").await?;
    let membership = stage.join(&group).await?;
    let mut worker = Worker::start(&stage, "there").await?;
    let epoch = worker.ask(&Command::Lead { group: "g".into() }).await?.token;
    let mut campaign = Box::pin(membership.campaign());
    stage.not_yet("a second leader", &mut campaign).await?;
    worker.kill().await?;
    let leadership = stage.within(stage.after_a_crash(), "the dead leader's place", campaign).await??;
    ensure!(Some(leadership.epoch().0) > epoch, "the epoch did not grow over a crash");
    Ok(())
}

async fn a_stopped_holder_loses_its_lock_and_knows(stage: Stage) -> CaseResult {
    let lock = stage.connect("here").await?.lock("x")?;
    let mut worker = Worker::start(&stage, "there").await?;
    let token = worker.ask(&Command::Hold { lock: "x".into() }).await?.token;
    worker.stop()?;
    let guard = stage.within(stage.after_a_crash(), "the stopped holder's lock", lock.acquire()).await??;
    ensure!(Some(guard.fencing_token().0) > token, "the token did not grow");
    worker.resume()?;
    let first = worker.ask(&Command::IsHeld).await?;
    ensure_eq!(first.held, Some(false), "the first look after the continue");
    let begun = Instant::now();
    worker.ask(&Command::AwaitLoss).await?;
    let took = begun.elapsed();
    ensure!(took <= Duration::from_secs(3), "the loss was told {took:?} after the continue");
    // Whatever the stopped worker does now, the lock is ours.
    let _ = worker.ask(&Command::Release).await;
    sleep(stage.moment()).await;
    ensure!(guard.is_held(), "the stopped holder's release freed it");
    stage.give(guard).await?;
    worker.end().await
}

async fn a_stopped_holder_keeps_its_lock(stage: Stage) -> CaseResult {
    let lock = stage.connect("here").await?.lock("x")?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Hold { lock: "x".into() }).await?;
    worker.stop()?;
    sleep(stage.session_timeout() * 2).await;
    ensure!(stage.attempt(&lock).await?.is_none(), "a stopped holder's lock was given away");
    worker.resume()?;
    ensure_eq!(worker.ask(&Command::IsHeld).await?.held, Some(true), "after the continue");
    worker.ask(&Command::Release).await?;
    drop(stage.hold(&lock).await?);
    worker.end().await
}

async fn a_stopped_waiter_is_no_obstacle_for_ever(stage: Stage) -> CaseResult {
    let first = stage.connect("first").await?.lock("x")?;
    let last = stage.connect("last").await?.lock("x")?;
    let guard = stage.hold(&first).await?;
    let mut worker = Worker::start(&stage, "there").await?;
    worker.ask(&Command::Wait { lock: "x".into() }).await?;
    sleep(stage.moment() * 2).await;
    worker.stop()?;
    let waiter = tokio::spawn(async move { last.acquire().await });
    sleep(stage.moment()).await;
    stage.give(guard).await?;
    drop(stage.within(stage.after_a_crash(), "the waiter behind a stopped one", waiter).await???);
    worker.resume()?;
    worker.kill().await
}

async fn a_thousand_locks_live_on_one_heartbeat(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let other = stage.connect("b").await?;
    let mut acquires = tokio::task::JoinSet::new();
    for index in 0..1000 {
        let lock = coordinator.lock(format!("lock-{index}"))?;
        acquires.spawn(async move { lock.acquire().await });
    }
    let mut guards = Vec::new();
    while let Some(guard) = stage.within(stage.patience() * 2, "one of a thousand locks", acquires.join_next()).await? {
        guards.push(guard??);
    }
    sleep(stage.session_timeout() * 3 / 2).await;
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    ensure_eq!(lost, 0, "locks that were lost");
    ensure!(stage.attempt(&other.lock("lock-999")?).await?.is_none(), "a held lock was given away");
    let begun = Instant::now();
    stage.within(stage.patience() * 2, "closing with a thousand locks", coordinator.close()).await??;
    let took = begun.elapsed();
    ensure!(took <= Duration::from_secs(7), "closing took {took:?}, more than the operation timeout");
    ensure!(stage.attempt(&other.lock("lock-0")?).await?.is_some(), "closing did not free them");
    Ok(())
}

async fn the_first_look_after_a_jump_of_the_clock_sees_the_loss(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    ensure!(guard.is_held(), "it was just acquired");
    // No await between the move and the look: nothing else has run.
    stage.advance_clock(stage.session_timeout() * 2);
    ensure!(!guard.is_held(), "the deadline has passed");
    ensure_eq!(guard.remaining(), Some(Duration::ZERO), "the remaining time");
    let reason = stage.soon("the loss", guard.loss().wait()).await?;
    ensure!(matches!(reason, LossReason::Expired | LossReason::SessionEnded), "the reason is {reason}");
    // A loss is for ever, also when the next beat works.
    sleep(stage.session_timeout() / 2).await;
    ensure!(!guard.is_held(), "a lost grant came back");
    // The coordinator goes on in a new session.
    drop(stage.within(stage.after_a_crash(), "acquiring in a new session", coordinator.lock("x")?.acquire()).await??);
    Ok(())
}

async fn a_short_jump_of_the_clock_loses_nothing(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    for _ in 0..6 {
        stage.advance_clock(stage.session_timeout() / 4);
        ensure!(guard.is_held(), "a quarter of the timeout is no reason");
        // The heart hears of the move and beats.
        sleep(stage.moment()).await;
    }
    stage.give(guard).await
}

async fn await_event(
    stage: &Stage,
    events: &mut SessionEvents,
    what: &str,
    wanted: impl Fn(&SessionEvent) -> bool,
) -> CaseResult {
    stage
        .within(stage.after_a_crash(), what, async {
            loop {
                match events.next().await {
                    Some(event) if wanted(&event) => return Ok(()),
                    Some(_) => {}
                    None => return Err(CaseFailure::new(format!("the events ended before {what}"))),
                }
            }
        })
        .await?
}

async fn an_ended_session_is_told_and_replaced(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut events = coordinator.events();
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    stage.end_session("a").await?;
    await_event(&stage, &mut events, "Lost", |event| matches!(event, SessionEvent::Lost(_))).await?;
    ensure!(!guard.is_held(), "the session is lost, and with it what it held");
    stage.within(stage.after_a_crash(), "the loss", guard.loss().wait()).await?;
    let again =
        stage.within(stage.after_a_crash(), "acquiring in a new session", coordinator.lock("x")?.acquire()).await??;
    await_event(&stage, &mut events, "Reopened", |event| matches!(event, SessionEvent::Reopened)).await?;
    ensure_eq!(coordinator.state(), SessionState::Open, "after reopening");
    ensure!(again.is_held() && !guard.is_held(), "the new grant is another one");
    ensure!(again.fencing_token() > guard.fencing_token(), "the token did not grow");
    Ok(())
}

async fn locks_are_never_retaken_silently(stage: Stage) -> CaseResult {
    let (a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    stage.end_session("a").await?;
    stage.within(stage.after_a_crash(), "the loss", guard.loss().wait()).await?;
    // A new session is there, by another lock; the old lock is free.
    drop(stage.within(stage.after_a_crash(), "another lock", a.lock("another")?.acquire()).await??);
    let other = stage.within(stage.after_a_crash(), "the lost lock", lock_b.acquire()).await??;
    ensure!(!guard.is_held(), "a lost lock was taken again without a word");
    stage.give(other).await
}

async fn memberships_come_back_with_their_latest_capabilities(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let coordinator = stage.connect("a").await?;
    let mut events = coordinator.events();
    let membership = stage.soon("joining", coordinator.group("g")?.join(&"first")).await??;
    stage.soon("updating", membership.update(&"latest")).await??;
    let loss = membership.loss();
    stage.end_session("a").await?;
    stage.within(stage.after_a_crash(), "the loss", loss.wait()).await?;
    await_event(&stage, &mut events, "Reopened", |event| matches!(event, SessionEvent::Reopened)).await?;
    stage
        .within(stage.after_a_crash(), "the membership to stand again", membership.wait_standing())
        .await?
        .map_err(|reason| CaseFailure::new(format!("it is over: {reason}")))?;
    ensure!(membership.is_member() && membership.over().is_none(), "it stands again");
    let members = stage.soon("listing", group.members()).await??;
    ensure_eq!(members.len(), 1, "the members");
    ensure_eq!(members[0].capabilities.get::<String>()?, "latest", "the capabilities");
    ensure!(loss.is_lost(), "the loss of the first standing is for ever");
    ensure!(!membership.loss().is_lost(), "the new standing has a loss of its own");
    // It is a membership like any other.
    stage.soon("updating", membership.update(&"newer")).await??;
    stage.soon("leaving", membership.leave()).await??;
    ensure_eq!(stage.member_names(&group).await?, Vec::<String>::new(), "after leaving");
    Ok(())
}

async fn who_left_does_not_come_back(stage: Stage) -> CaseResult {
    let (_watcher, group) = stage.with_group("watcher", "g").await?;
    let coordinator = stage.connect("a").await?;
    for _ in 0..3 {
        let membership = stage.within(stage.after_a_crash(), "joining", coordinator.group("g")?.join(&1)).await??;
        stage.end_session("a").await?;
        // The leave races with the re-join, and must win in the end.
        stage.within(stage.after_a_crash(), "leaving", membership.leave()).await??;
        stage
            .eventually(stage.after_a_crash(), "the member that left is gone", async || {
                Ok(stage.member_names(&group).await?.is_empty())
            })
            .await?;
        sleep(stage.moment()).await;
        ensure_eq!(stage.member_names(&group).await?, Vec::<String>::new(), "the member that left came back");
    }
    Ok(())
}

async fn a_member_cut_off_for_long_loses_what_it_holds(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    stage.cut("a").await?;
    let waiter = tokio::spawn(async move {
        let guard = lock_b.acquire().await;
        (guard, Instant::now())
    });
    stage
        .within(stage.session_timeout() + Duration::from_secs(3), "the loss at the deadline", guard.loss().wait())
        .await?;
    let lost = Instant::now();
    ensure!(!guard.is_held(), "it was cut off for longer than the timeout");
    let (other, granted) = stage.within(stage.after_a_crash(), "the next holder", waiter).await??;
    let other = other?;
    // By the margin the old holder knows before the new one is granted; its task may run a little later.
    ensure!(granted + Duration::from_secs(1) > lost, "another was granted before the old holder knew");
    stage.heal("a").await?;
    ensure!(other.is_held() && !guard.is_held(), "healing brought a lost lock back");
    stage.give(other).await?;
    drop(stage.within(stage.after_a_crash(), "acquiring after healing", lock_a.acquire()).await??);
    Ok(())
}

async fn a_short_cut_loses_nothing(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let guard = stage.hold(&lock_a).await?;
    stage.cut("a").await?;
    sleep(stage.session_timeout() / 4).await;
    stage.heal("a").await?;
    sleep(stage.session_timeout()).await;
    ensure!(guard.is_held(), "a cut of a quarter of the timeout lost the lock");
    ensure!(stage.attempt(&lock_b).await?.is_none(), "the lock was given away");
    stage.within(stage.after_a_crash(), "releasing", guard.release()).await??;
    drop(stage.within(stage.after_a_crash(), "the next holder", lock_b.acquire()).await??);
    Ok(())
}

async fn a_try_while_cut_off_is_an_error(stage: Stage) -> CaseResult {
    let a = stage.connect_with(stage.options("a")?.operation_timeout(Duration::from_secs(1))).await?;
    let lock = a.lock("x")?;
    stage.give(stage.hold(&lock).await?).await?;
    stage.cut("a").await?;
    let result = stage.soon("trying while cut off", lock.try_acquire()).await?;
    stage.heal("a").await?;
    match result {
        Err(error) => {
            ensure!(error.is_retryable() || error.kind() == tooz_core::ErrorKind::Lost, "unexpected {error}");
        }
        Ok(got) => {
            let answer = got.is_some();
            return Err(CaseFailure::new(format!("a try that reached no server answered: granted {answer}")));
        }
    }
    stage
        .eventually(stage.after_a_crash(), "the withdrawn try leaks nothing", async || {
            Ok(matches!(lock.try_acquire().await, Ok(Some(_))))
        })
        .await
}

async fn a_cut_is_told_as_suspended_and_healed_as_resumed(stage: Stage) -> CaseResult {
    let coordinator = stage.connect("a").await?;
    let mut events = coordinator.events();
    let guard = stage.hold(&coordinator.lock("x")?).await?;
    stage.cut("a").await?;
    let suspended =
        await_event(&stage, &mut events, "Suspended", |event| matches!(event, SessionEvent::Suspended(_))).await;
    let found = coordinator.state();
    stage.heal("a").await?;
    suspended?;
    ensure!(
        matches!(found, SessionState::Suspended(_) | SessionState::Lost | SessionState::Troubled(_)),
        "the state while cut off is {found:?}"
    );
    // Whether the heal came in time is the machine's business; told it must be, one way or the other.
    await_event(&stage, &mut events, "Resumed or Reopened", |event| {
        matches!(event, SessionEvent::Resumed | SessionEvent::Lost(_) | SessionEvent::Reopened)
    })
    .await?;
    if guard.is_held() {
        stage.give(guard).await?;
    }
    Ok(())
}

async fn a_stalled_application_loses_its_session_if_it_asked_for_that(stage: Stage) -> CaseResult {
    let options = stage.options("a")?.stall_timeout(stage.session_timeout() / 2);
    let lock = stage.connect("b").await?.lock("x")?;
    let blocked = stage.session_timeout() * 4;
    let (held, is_held) = tokio::sync::oneshot::channel();
    let stalled = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime of one thread can be made");
        runtime.block_on(async move {
            let coordinator = options.connect().await?;
            let guard = coordinator.lock("x")?.acquire().await?;
            let _ = held.send(());
            // The whole runtime is this one thread.
            std::thread::sleep(blocked);
            let held = guard.is_held();
            coordinator.close().await?;
            Ok::<_, tooz_core::Error>(held)
        })
    });
    stage.soon("the stalled application's grant", is_held).await?.map_err(CaseFailure::new)?;
    let guard = stage.within(stage.after_a_crash(), "the stalled application's lock", lock.acquire()).await??;
    let stalled = tokio::task::spawn_blocking(move || stalled.join());
    let held = stage.within(blocked + stage.patience(), "the stalled application", stalled).await??;
    let held = held.map_err(|_| CaseFailure::new("the stalled application panicked"))??;
    ensure!(!held, "the stalled application still believes to hold it");
    ensure!(guard.is_held(), "the stalled application took it back");
    stage.give(guard).await
}
