//! Many processes on one lock: the workers, and their start at one moment.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tooz::{ConnectOptions, Lock};
use tooz_conformance::history::now;
use tooz_tests::process::{Worker, orders, say};

use crate::Arguments;
use crate::report::{Report, Turn};

/// How long a worker may need beyond its time: to be granted once more over a restart, to close, to write its turns.
const GRACE: Duration = Duration::from_secs(30);

/// What a worker is to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Role {
    url: String,
    member: String,
    lock: String,
    time: Duration,
    section: Duration,
    session_timeout: Duration,
}

/// All that the starter ever tells.
#[derive(Serialize, Deserialize)]
struct Go;

/// What a worker says.
#[derive(Serialize, Deserialize)]
enum Word {
    Ready,
    /// So many turns so far.
    Progress(usize),
    /// All its turns, and what went wrong meanwhile.
    Done {
        turns: Vec<Turn>,
        errors: Vec<String>,
    },
}

/// Contends, prints and judges.
pub(crate) async fn run(arguments: &Arguments) -> Result<bool> {
    let time = Duration::from_secs(arguments.seconds);
    let mut workers = Vec::new();
    for index in 0..arguments.processes {
        workers.push(Worker::start(&Role {
            url: arguments.url()?.to_owned(),
            member: format!("p{index}"),
            lock: arguments.lock.clone(),
            time,
            section: Duration::from_micros(arguments.section),
            session_timeout: Duration::from_millis(arguments.session_timeout),
        })?);
    }
    for worker in &mut workers {
        worker.hear::<Word>(GRACE).await.context("a worker did not connect")?;
    }
    for worker in &mut workers {
        worker.tell(&Go).await?;
    }
    let progress = Progress::new(workers.len(), arguments.seconds);
    let mut followers = tokio::task::JoinSet::new();
    for (index, worker) in workers.into_iter().enumerate() {
        let progress = progress.clone();
        followers.spawn(async move { follow(index, worker, &progress, time).await });
    }
    let mut all = vec![(Vec::new(), Vec::new()); arguments.processes];
    while let Some(followed) = followers.join_next().await {
        let (index, turns, errors) = followed??;
        all[index] = (turns, errors);
    }
    progress.end();
    let report = Report::of(&all);
    report.print();
    Ok(report.judge(!arguments.with_faults))
}

async fn follow(
    index: usize,
    mut worker: Worker,
    progress: &Progress,
    time: Duration,
) -> Result<(usize, Vec<Turn>, Vec<String>)> {
    loop {
        match worker.hear(time + GRACE).await.with_context(|| format!("process {index}"))? {
            Word::Ready => {}
            Word::Progress(turns) => progress.show(index, turns),
            Word::Done { turns, errors } => {
                worker.end(GRACE).await.with_context(|| format!("process {index}"))?;
                return Ok((index, turns, errors));
            }
        }
    }
}

/// One line on a terminal, nothing elsewhere.
#[derive(Clone)]
struct Progress(std::sync::Arc<std::sync::Mutex<Shown>>);

struct Shown {
    turns: Vec<usize>,
    begun: std::time::Instant,
    seconds: u64,
    terminal: bool,
}

impl Progress {
    fn new(processes: usize, seconds: u64) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let shown = Shown { turns: vec![0; processes], begun: std::time::Instant::now(), seconds, terminal };
        Progress(std::sync::Arc::new(std::sync::Mutex::new(shown)))
    }

    fn show(&self, index: usize, turns: usize) {
        let mut shown = self.0.lock().expect("no thread panics with it");
        shown.turns[index] = turns;
        if shown.terminal {
            let (elapsed, all) = (shown.begun.elapsed().as_secs(), shown.turns.iter().sum::<usize>());
            let least = shown.turns.iter().min().copied().unwrap_or_default();
            let most = shown.turns.iter().max().copied().unwrap_or_default();
            eprint!("\r{elapsed} of {} s: {all} turns, {least} to {most} for each process\x1b[K", shown.seconds);
        }
    }

    fn end(&self) {
        if self.0.lock().expect("no thread panics with it").terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// A worker's life: take a turn, again and again, until the time is over.
pub(crate) async fn worker(role: Role) -> Result<()> {
    let options = ConnectOptions::new(&role.url)?.member(role.member.as_str())?.session_timeout(role.session_timeout);
    let coordinator = options.connect().await?;
    let lock = coordinator.lock(role.lock.as_str())?;
    say(&Word::Ready);
    if tokio::task::spawn_blocking(|| orders::<Go>().next()).await?.is_none() {
        return Ok(());
    }
    let end = tokio::time::Instant::now() + role.time;
    let (mut turns, mut errors) = (Vec::new(), Vec::new());
    let mut shown = tokio::time::Instant::now();
    // A waiter withdraws when the time is over.
    while let Ok(turn) = tokio::time::timeout_at(end, take_turn(&lock, role.section, &mut errors)).await {
        turns.extend(turn);
        if shown.elapsed() > Duration::from_millis(500) {
            shown = tokio::time::Instant::now();
            say(&Word::Progress(turns.len()));
        }
    }
    if let Err(error) = coordinator.close().await {
        errors.push(error.to_string());
    }
    say(&Word::Done { turns, errors });
    Ok(())
}

async fn take_turn(lock: &Lock, section: Duration, errors: &mut Vec<String>) -> Option<Turn> {
    let asked = now();
    let guard = match lock.acquire().await {
        Ok(guard) => guard,
        Err(error) => {
            errors.push(error.to_string());
            // An error that repeats at once would fill the report with nothing.
            tokio::time::sleep(Duration::from_millis(20)).await;
            return None;
        }
    };
    let granted = now();
    tokio::time::sleep(section).await;
    // First the time, then the look, so that a belief is never written down too long.
    let ended = now();
    let lost = !guard.is_held();
    let token = guard.fencing_token().0;
    if let Err(error) = guard.release().await
        && !lost
    {
        errors.push(error.to_string());
    }
    Some(Turn { asked, granted, until: if lost { granted } else { ended }, token, lost })
}
