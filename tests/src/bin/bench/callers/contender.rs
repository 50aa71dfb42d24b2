//! One who takes turns: a thread with what it calls from, which rests between its turns.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::runtime::{Builder, Runtime};

use crate::callers::counts::Counts;
use crate::callers::work::{Caller, Work};
use crate::stats::median;

/// How many pairs a turn has at least, however long they take.
const FEWEST: usize = 3;

/// One turn.
pub(crate) struct Turn {
    /// What each pair took, in nanoseconds.
    pub(crate) times: Vec<u64>,
    /// What the process has done meanwhile.
    pub(crate) counts: Counts,
}

impl Turn {
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a pair")]
    pub(crate) fn median(&self) -> f64 {
        median(&mut self.times.iter().map(|time| *time as f64).collect::<Vec<_>>())
    }
}

/// A thread that measures when it is told to.
pub(crate) struct Contender {
    orders: Sender<Duration>,
    turns: Receiver<Result<Turn>>,
}

impl Contender {
    /// Begins to wait for turns. The thread ends with this.
    pub(crate) fn start(caller: Caller, work: Work) -> Self {
        let (orders, ordered) = channel();
        let (answers, turns) = channel();
        thread::spawn(move || {
            let mut runtime = None;
            let mut work = Some(work);
            for length in ordered {
                let turn = turn(caller, &mut runtime, &mut work, length);
                if answers.send(turn).is_err() {
                    return;
                }
            }
        });
        Contender { orders, turns }
    }

    /// Has it measure for so long.
    pub(crate) fn turn(&mut self, length: Duration) -> Result<Turn> {
        self.orders.send(length).context("a contender has ended")?;
        self.turns.recv().context("a contender has ended")?
    }
}

fn turn(caller: Caller, runtime: &mut Option<Runtime>, work: &mut Option<Work>, length: Duration) -> Result<Turn> {
    let mut own = work.take().context("the last turn has failed")?;
    if runtime.is_none() {
        *runtime = Some(match caller {
            Caller::Blocking | Caller::CurrentThread => Builder::new_current_thread().enable_all().build()?,
            Caller::Worker | Caller::Main => Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
        });
    }
    let runtime = runtime.as_ref().context("it was just made")?;
    let (own, turn) = match caller {
        Caller::Worker => runtime.block_on(runtime.spawn(async move {
            let turn = pairs(&mut own, length).await;
            (own, turn)
        }))?,
        Caller::Blocking | Caller::CurrentThread | Caller::Main => {
            let turn = runtime.block_on(pairs(&mut own, length));
            (own, turn)
        }
    };
    *work = Some(own);
    turn
}

async fn pairs(work: &mut Work, length: Duration) -> Result<Turn> {
    if let Work::Floor(floor) = work {
        floor.begin_turn()?;
    }
    let (before, end) = (Counts::now(), Instant::now() + length);
    let mut times = Vec::new();
    // The first of a turn wakes up what has rested.
    work.pair().await?;
    while times.len() < FEWEST || Instant::now() < end {
        let begun = Instant::now();
        work.pair().await?;
        times.push(u64::try_from(begun.elapsed().as_nanos())?);
    }
    let counts = before.until(&Counts::now());
    if let Work::Floor(floor) = work {
        floor.end_turn()?;
    }
    Ok(Turn { times, counts })
}
