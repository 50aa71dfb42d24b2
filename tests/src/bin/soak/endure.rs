//! Hours of work on a backend of one's own: everything is looked at all the while, and must stay flat.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use crate::Arguments;
use crate::census::Census;
use crate::diary::{Diary, Pen, Sample};
use crate::ground::Ground;
use crate::usage::Usage;
use crate::verdict;
use crate::work::{Tally, Task, clear, once};

/// How many looks there are in a whole run, if that is neither too often nor too seldom.
const LOOKS: u32 = 240;
const OFTEN: Duration = Duration::from_secs(1);
const SELDOM: Duration = Duration::from_secs(30);
/// How long what was given back may take to go at the backend: twice what the slowest needs for a session that was dropped.
const CLEARING: Duration = Duration::from_mins(2);
/// Until what is stored is looked at once more.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the tasks may take to close, once the time is over.
const CLOSING: Duration = Duration::from_mins(2);

/// One process's part of a soak.
struct Life {
    ground: Arc<Ground>,
    tally: Arc<Tally>,
    begun: Instant,
}

/// Works, looks and judges.
pub(crate) async fn run(arguments: &Arguments, backend: &str) -> Result<bool> {
    let path = diary_of(arguments, backend);
    let before = if arguments.afresh { Diary::default() } else { Diary::read(&path)? };
    let before = if before.is_ended() { Diary::default() } else { before };
    let asked = arguments.time();
    let left = asked.saturating_sub(Duration::from_secs_f64(before.seconds()));
    if before.seconds() > 0.0 {
        let (seconds, operations) = (before.seconds(), before.operations());
        println!(
            "going on after {seconds:.0} s of {} s, and {operations} operations; --afresh begins anew",
            asked.as_secs()
        );
    }
    let ground = tokio::task::block_in_place(|| Ground::start(backend))?;
    let life = Life { ground: Arc::new(ground), tally: Arc::default(), begun: Instant::now() };
    let task = |number| Task {
        url: life.ground.url(),
        number,
        session_timeout: Duration::from_millis(arguments.session_timeout),
        names: life.ground.names(),
        leak: arguments.leak,
    };
    once(&task(0)).await.with_context(|| format!("{backend} can't do all that a soak does"))?;
    let floor = life.census()?;
    let mut tasks = JoinSet::new();
    for number in 0..arguments.tasks {
        tasks.spawn(task(number).work(Arc::clone(&life.tally)));
    }
    let mut pen = Pen::take(&path, &before)?;
    life.look_on(left, asked, &mut pen).await?;
    life.tally.is_over.store(true, Ordering::Relaxed);
    let closed = tokio::time::timeout(CLOSING, tasks.join_all()).await.is_ok();
    pen.end()?;
    clear(&task(0)).await.context("what the tasks have left can't be cleared")?;
    let left_over = life.left_over(&floor).await?;
    let is_flat = verdict::judge(&Diary::read(&path)?);
    for (kind, count) in life.tally.errors() {
        println!("errors: {count} {kind}");
    }
    for what in &left_over {
        println!("WRONG: left at the backend when all is closed: {what}");
    }
    if !closed {
        println!("WRONG: the tasks did not end within {CLOSING:?}");
    }
    println!("what was seen stands in {}", path.display());
    Ok(is_flat && left_over.is_empty() && closed)
}

fn diary_of(arguments: &Arguments, backend: &str) -> PathBuf {
    arguments.folder.join(format!("{backend}.jsonl"))
}

impl Life {
    /// Looks at everything for so long.
    async fn look_on(&self, time: Duration, asked: Duration, pen: &mut Pen) -> Result<()> {
        let mut ticks = tokio::time::interval((asked / LOOKS).clamp(OFTEN, SELDOM));
        let terminal = std::io::stderr().is_terminal();
        while self.begun.elapsed() < time {
            ticks.tick().await;
            let sample = self.sample()?;
            pen.sample(&sample)?;
            if terminal {
                let Sample { at, operations, own, stored, .. } = &sample;
                eprint!("\r{at:.0} of {} s: {operations} operations, {own:?}, {stored:?}\x1b[K", time.as_secs());
            }
        }
        if terminal {
            eprint!("\r\x1b[K");
        }
        Ok(())
    }

    fn sample(&self) -> Result<Sample> {
        Ok(Sample {
            at: self.begun.elapsed().as_secs_f64(),
            operations: self.tally.operations.load(Ordering::Relaxed),
            own: Usage::now(),
            server: self.ground.usage(),
            stored: self.census()?,
        })
    }

    fn census(&self) -> Result<Census> {
        tokio::task::block_in_place(|| self.ground.census())
    }

    /// What is left beyond the floor when it had its time to go.
    async fn left_over(&self, floor: &Census) -> Result<Vec<String>> {
        let limit = Instant::now() + CLEARING;
        loop {
            let left_over = verdict::left_over(floor, &self.census()?);
            if left_over.is_empty() || Instant::now() > limit {
                return Ok(left_over);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
