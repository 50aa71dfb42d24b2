//! Random operations of several processes under faults, and the judgement of the checker.
//!
//! L1 (tokens), L2 (belief) and L4 (a legal order) are judged over what the workers wrote down, L3 by a register that
//! refuses stale tokens beside one that does not.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tooz_conformance::checker;
use tooz_conformance::history::{Attempt, Play, Response};
use tooz_testbed::Server;

use crate::register::Registers;
use crate::stage::{LONG, PATIENCE, SHORT, Stage, cases, soon};
use crate::worker::{Command, Other};

cases! { "histories", Server, alone: true;
    every_promise_is_kept_while_the_server_is_killed_and_started_again,
    every_promise_is_kept_while_sessions_end_with_the_server,
    every_promise_is_kept_while_processes_are_stopped,
    fencing_and_belief_are_kept_while_processes_are_killed,
    the_register_with_a_gate_loses_nothing_and_the_one_without_does,
}

const PROCESSES: usize = 3;

pub(crate) async fn players(stage: &Stage, session_timeout: Duration, time: Duration) -> Vec<Other> {
    let mut others = Vec::new();
    for index in 0..PROCESSES {
        others.push(Other::start(stage, &format!("p{index}"), session_timeout).await);
    }
    for (index, other) in others.iter_mut().enumerate() {
        play(other, index, time).await;
    }
    others
}

async fn play(other: &mut Other, index: usize, time: Duration) {
    let name = format!("p{index}");
    // Without limits: a withdrawal that waits for a server to come back is under way for as long as that takes.
    let playing = Play { name, seed: fastrand::u64(..), time, locks: 2, tasks: 2, shared: true, limits: false };
    other.tell(&Command::Play(playing)).await;
}

pub(crate) async fn attempts(others: Vec<Other>, time: Duration) -> Vec<Attempt> {
    let mut attempts = Vec::new();
    for mut other in others {
        attempts.extend(other.reply(time + PATIENCE).await.attempts);
        other.end().await;
    }
    attempts
}

pub(crate) fn judge(stage: &Stage, attempts: &[Attempt], least: usize) {
    let granted = attempts.iter().filter(|one| matches!(one.answer, Response::Granted(_))).count();
    let unknown = attempts.iter().filter(|one| matches!(one.answer, Response::Unknown { .. })).count();
    assert!(granted >= least, "only {granted} of {} attempts were granted", attempts.len());
    let begun = Instant::now();
    if let Err(violation) = checker::check(attempts) {
        panic!("{violation}");
    }
    let what = format!("judging {} attempts, {granted} granted, {unknown} unknown", attempts.len());
    stage.note(&what, begun.elapsed());
}

async fn every_promise_is_kept_while_the_server_is_killed_and_started_again(stage: &Stage) {
    let time = Duration::from_secs(9);
    let others = players(stage, LONG, time).await;
    for _ in 0..3 {
        sleep(Duration::from_secs(2)).await;
        stage.break_it(Server::kill);
        sleep(Duration::from_millis(fastrand::u64(..500))).await;
        stage.break_it(Server::restart);
    }
    judge(stage, &attempts(others, time).await, 100);
}

async fn every_promise_is_kept_while_sessions_end_with_the_server(stage: &Stage) {
    let time = Duration::from_secs(10);
    let others = players(stage, SHORT, time).await;
    for _ in 0..2 {
        sleep(Duration::from_secs(1)).await;
        stage.break_it(Server::kill);
        // Around the timeout: some sessions end and some do not.
        sleep(SHORT.mul_f64(0.5 + fastrand::f64())).await;
        stage.break_it(Server::restart);
    }
    judge(stage, &attempts(others, time).await, 30);
}

async fn every_promise_is_kept_while_processes_are_stopped(stage: &Stage) {
    let time = Duration::from_secs(10);
    let others = players(stage, SHORT, time).await;
    for turn in 0..3 {
        sleep(Duration::from_millis(500)).await;
        let other = &others[turn % PROCESSES];
        other.stop();
        sleep(SHORT.mul_f64(0.5 + fastrand::f64())).await;
        other.resume();
    }
    judge(stage, &attempts(others, time).await, 100);
}

/// What a dead process did is not known, so there is no order to be found; what the living were told is binding.
async fn fencing_and_belief_are_kept_while_processes_are_killed(stage: &Stage) {
    let time = Duration::from_secs(8);
    let others = players(stage, SHORT, time).await;
    let mut living = Vec::new();
    for (index, mut other) in others.into_iter().enumerate() {
        if index == 0 {
            living.push(other);
            continue;
        }
        sleep(Duration::from_millis(fastrand::u64(500..1500))).await;
        other.kill().await;
        // The next one of that name begins at once.
        let mut next = Other::start(stage, &format!("p{index}"), SHORT).await;
        play(&mut next, index + PROCESSES, time / 2).await;
        living.push(next);
    }
    let attempts = attempts(living, time).await;
    let granted = attempts.iter().filter(|one| matches!(one.answer, Response::Granted(_))).count();
    assert!(granted >= 30, "the living got a lock {granted} times only");
    for judged in [checker::fencing(&attempts), checker::belief(&attempts)] {
        judged.unwrap_or_else(|violation| panic!("{violation}"));
    }
}

async fn the_register_with_a_gate_loses_nothing_and_the_one_without_does(stage: &Stage) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registers");
    let lock = stage.connect("here", LONG).await.lock("counting").unwrap();
    let mut others = Vec::new();
    for index in 0..PROCESSES {
        others.push(Other::start(stage, &format!("p{index}"), SHORT).await);
    }
    // Time for some stops, each until the server has ended the session of the process that was stopped.
    let time = Duration::from_secs(14).max(stage.ended_after(SHORT) * 5);
    for other in &mut others {
        other.tell(&Command::Count { lock: "counting".into(), file: file.clone(), time }).await;
    }
    let until = Instant::now() + time.saturating_sub(SHORT * 2);
    let mut stops = 0;
    // One stop may hit a holder that had just written.
    while Instant::now() < until && (stops == 0 || !has_lost_a_write(&file)) {
        sleep(Duration::from_millis(300)).await;
        let holders = soon("holders", lock.holders()).await.unwrap();
        let Some(holder) = holders.first() else { continue };
        let index: usize = holder.member.as_str().trim_start_matches('p').parse().unwrap();
        others[index].stop();
        // Until others have gone on without it.
        let counted = writes(&file);
        let patience = Instant::now() + stage.ended_after(SHORT) + Duration::from_secs(2);
        while writes(&file) < counted + 3 && Instant::now() < patience {
            sleep(Duration::from_millis(50)).await;
        }
        others[index].resume();
        stops += 1;
        sleep(Duration::from_millis(200)).await;
    }
    for mut other in others {
        other.reply(time + PATIENCE).await;
        other.end().await;
    }
    let registers = Registers::peek(&file).expect("all workers have written");
    stage.note(&format!("{stops} stops, {registers:?}"), time);
    assert!(registers.guarded.writes >= 50, "hardly anything was counted: {registers:?}");
    assert_eq!(registers.guarded.value, registers.guarded.writes, "with the gate a write was lost: {registers:?}");
    // Without it the harness must see a lost write, else it could see none at all.
    assert!(registers.bare.value < registers.bare.writes, "without the gate no write was lost: {registers:?}");
    assert!(registers.refused > 0, "no write was refused: {registers:?}");
}

fn has_lost_a_write(file: &Path) -> bool {
    Registers::peek(file).is_some_and(|registers| registers.bare.value < registers.bare.writes)
}

fn writes(file: &Path) -> u64 {
    Registers::peek(file).map_or(0, |registers| registers.bare.writes)
}
