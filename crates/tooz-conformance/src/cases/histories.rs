//! Random histories under the checker, and a guarded resource with and without its guard.

use std::time::Duration;

use tooz_core::{Characteristic, FenceGate, FencingToken, LockMode};

use crate::cases::Requirement::{EndSession, Has, HasTimeout, Processes, Signals};
use crate::cases::cases;
use crate::checker;
use crate::history::{Attempt, Play};
use crate::process::{Command, Worker};
use crate::stage::{CaseFailure, CaseResult, Stage, ensure, ensure_eq};

cases! { "histories";
    several_coordinators_keep_every_promise [];
    several_coordinators_keep_every_promise_in_both_modes [Has(Characteristic::SharedLocks)];
    lost_sessions_break_no_promise [EndSession];
    several_processes_keep_every_promise [Processes];
    a_killed_process_breaks_no_promise [Processes];
    a_stopped_writer_is_refused_by_the_gate_and_seen_without [Processes, Signals, HasTimeout];
    a_late_writer_is_refused_by_the_gate_and_seen_without [EndSession];
}

/// Long enough for some hundred operations, short enough for every run.
const TIME: Duration = Duration::from_millis(1500);

fn play(name: &str, seed: u64, shared: bool) -> Play {
    Play { name: name.into(), seed, time: TIME, locks: 2, tasks: 2, shared, limits: true }
}

fn judge(attempts: &[Attempt]) -> CaseResult {
    enough(attempts)?;
    checker::check(attempts).map_err(|violation| CaseFailure::new(violation))
}

/// A history of nothing proves nothing.
fn enough(attempts: &[Attempt]) -> CaseResult {
    let granted = attempts.iter().filter(|one| matches!(one.answer, crate::history::Response::Granted(_))).count();
    ensure!(granted >= 10, "only {granted} of {} attempts were granted", attempts.len());
    Ok(())
}

async fn in_one_process(stage: &Stage, shared: bool) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    // Without limits first: nothing of them is under way when refusals are judged strictly.
    for limits in [false, true] {
        let playing = Play { limits, time: TIME / 2, ..play("here", fastrand::u64(..), shared) };
        let attempts = stage.within(TIME + stage.patience(), "the play", playing.perform(&coordinators)).await?;
        judge(&attempts)?;
    }
    Ok(())
}

async fn several_coordinators_keep_every_promise(stage: Stage) -> CaseResult {
    in_one_process(&stage, false).await
}

async fn several_coordinators_keep_every_promise_in_both_modes(stage: Stage) -> CaseResult {
    in_one_process(&stage, true).await
}

fn shares(stage: &Stage) -> bool {
    stage.rig().characteristics().has(Characteristic::SharedLocks)
}

async fn lost_sessions_break_no_promise(stage: Stage) -> CaseResult {
    let coordinators = stage.connect_all(3).await?;
    let playing = play("here", fastrand::u64(..), shares(&stage));
    let limit = TIME + stage.after_a_crash();
    let performing = tokio::spawn(async move { playing.perform(&coordinators).await });
    for turn in 0..4 {
        tokio::time::sleep(TIME / 6).await;
        stage.end_session(&format!("m{}", turn % 3)).await?;
    }
    let attempts = stage.within(limit, "the play", performing).await??;
    // Not what they believed: that a session was ended by an operator's hand, no client can know before its next beat.
    enough(&attempts)?;
    checker::fencing(&attempts).map_err(CaseFailure::new)?;
    checker::linearizability(&attempts).map_err(CaseFailure::new)
}

async fn several_processes_keep_every_promise(stage: Stage) -> CaseResult {
    let mut workers = vec![Worker::start(&stage, "p0").await?];
    for index in 1..3 {
        workers.push(Worker::beside(&stage, &format!("p{index}")).await?);
    }
    for (index, worker) in workers.iter_mut().enumerate() {
        let playing = play(&format!("p{index}"), fastrand::u64(..), shares(&stage));
        worker.tell(&Command::Play(playing)).await?;
    }
    let mut attempts = Vec::new();
    for worker in &mut workers {
        attempts.extend(worker.reply().await?.attempts);
    }
    judge(&attempts)?;
    for worker in workers {
        worker.end().await?;
    }
    Ok(())
}

async fn a_killed_process_breaks_no_promise(stage: Stage) -> CaseResult {
    let mut killed = Worker::start(&stage, "p0").await?;
    let mut living = Worker::beside(&stage, "p1").await?;
    for (worker, name) in [(&mut killed, "p0"), (&mut living, "p1")] {
        worker.tell(&Command::Play(play(name, fastrand::u64(..), shares(&stage)))).await?;
    }
    tokio::time::sleep(TIME / 3).await;
    // The deeds of the dead one are not known; the living ones' promises hold all the same.
    killed.kill().await?;
    let attempts = living.reply().await?.attempts;
    let granted = attempts.iter().filter(|one| matches!(one.answer, crate::history::Response::Granted(_))).count();
    ensure!(granted >= 2, "the living got the lock {granted} times only");
    checker::fencing(&attempts).map_err(CaseFailure::new)?;
    checker::belief(&attempts).map_err(CaseFailure::new)?;
    living.end().await
}

/// A register that counts, and refuses stale writers if it has a gate.
struct Register {
    value: u64,
    gate: Option<FenceGate>,
}

impl Register {
    fn write(&mut self, value: u64, token: FencingToken) -> bool {
        let admitted = self.gate.as_ref().is_none_or(|gate| gate.admit(token, LockMode::Exclusive));
        if admitted {
            self.value = value;
        }
        admitted
    }
}

/// Two registers, with and without a gate, into which both holders write what they read plus one.
fn registers() -> [Register; 2] {
    [Register { value: 0, gate: Some(FenceGate::new()) }, Register { value: 0, gate: None }]
}

/// The old holder read 0 and looked that it holds; the new one counted on to 2; now the old one writes.
fn late_write(old: FencingToken, new: FencingToken) -> CaseResult {
    let mut registers = registers();
    for register in &mut registers {
        let read = register.value;
        for _ in 0..2 {
            let next = register.value + 1;
            ensure!(register.write(next, new), "the present holder is refused");
        }
        register.write(read + 1, old);
    }
    let [guarded, bare] = registers;
    ensure_eq!(guarded.value, 2, "with the gate no update is lost; the register");
    // Without it the harness must see a lost update, else it could see none at all.
    ensure_eq!(bare.value, 1, "without the gate an update is lost; the register");
    Ok(())
}

async fn a_stopped_writer_is_refused_by_the_gate_and_seen_without(stage: Stage) -> CaseResult {
    let lock = stage.connect("here").await?.lock("x")?;
    let mut worker = Worker::start(&stage, "there").await?;
    let old = worker.ask(&Command::Hold { lock: "x".into() }).await?.token;
    let old = FencingToken(old.ok_or_else(|| CaseFailure::new("a grant has a token"))?);
    // It looks, finds that it holds, and is stopped before it can write.
    worker.tell(&Command::CheckThenStop).await?;
    let guard = stage.within(stage.after_a_crash(), "the stopped writer's lock", lock.acquire()).await??;
    worker.resume()?;
    let looked = worker.reply().await?.held;
    ensure_eq!(looked, Some(true), "what the stopped writer had seen");
    late_write(old, guard.fencing_token())?;
    stage.give(guard).await?;
    worker.end().await
}

async fn a_late_writer_is_refused_by_the_gate_and_seen_without(stage: Stage) -> CaseResult {
    let (_a, _b, lock_a, lock_b) = stage.two_locks().await?;
    let former = stage.hold(&lock_a).await?;
    stage.end_session("a").await?;
    let guard = stage.within(stage.after_a_crash(), "the lost lock", lock_b.acquire()).await??;
    late_write(former.fencing_token(), guard.fencing_token())?;
    stage.give(guard).await
}
