//! What a pair costs from each kind of caller, beside other clients of the same server: all are alive at once and take turns of some tens of
//! milliseconds, since the machine is not the same from second to second. A ratio is the median over the rounds of what both took in one round.

mod contender;
mod counts;
mod floor;
mod recorder;
mod work;

use std::time::Duration;

use anyhow::Result;

use crate::backend::Backend;
use crate::callers::contender::{Contender, Turn};
use crate::callers::floor::Floor;
use crate::callers::work::{Caller, Work};
use crate::progress::Progress;
use crate::report::Report;
use crate::stats::{Sample, median};
use crate::target::{self, Measure};

/// How long one turn is.
const TURN: Duration = Duration::from_millis(40);

/// One who takes turns, and what its row is compared with: the place of another one in the list.
struct Row {
    what: String,
    contender: Contender,
    beside: Option<usize>,
    target: Option<f64>,
}

pub(crate) async fn measure(backend: &Backend, report: &mut Report, progress: &Progress) -> Result<()> {
    if !backend.has_server() && backend.name != "file" {
        return Ok(());
    }
    progress.step("pairs of each kind of caller, beside other clients");
    let mut rows = rows(backend).await?;
    let rounds = report.rounds(40).max(6);
    // Nothing of this process is to be in the way of whose turn it is, so it is no task that waits.
    let (rows, turns) = tokio::task::spawn_blocking(move || {
        let turns = take_turns(&mut rows, rounds);
        (rows, turns)
    })
    .await?;
    let turns = turns?;
    for (row, own) in rows.iter().zip(&turns) {
        let times = Sample::of(own.iter().flat_map(|turn| &turn.times)).summary();
        let ratio = row.beside.map(|other| ratio(own, &turns[other]));
        report.caller(&row.what, times, ratio, row.target);
        let pairs = own.iter().map(|turn| turn.times.len() + 1).sum();
        let counted: Vec<_> = own.iter().map(|turn| turn.counts).collect();
        for (what, count) in counts::per_pair(&counted, pairs) {
            report.figure(Measure::Callers, format!("  {what}, each pair"), count, "", None);
        }
    }
    Ok(())
}

/// All that are compared, in the order of the table: first what the others are compared with.
async fn rows(backend: &Backend) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut floor = None;
    if let Some(blocking) = Floor::of(backend).await? {
        floor = Some(rows.len());
        let contender = Contender::start(Caller::Blocking, Work::Floor(blocking));
        rows.push(Row {
            what: "the same requests, blocking on a plain socket".into(),
            contender,
            beside: None,
            target: None,
        });
    }
    for caller in Caller::ASYNC {
        let peer = Work::peer_of(backend).await?;
        let mut beside = floor;
        if let Some((name, work)) = peer {
            let target = None;
            let place = rows.len();
            rows.push(Row {
                what: format!("{name}, {caller}"),
                contender: Contender::start(caller, work),
                beside: floor,
                target,
            });
            beside = Some(place);
        }
        let target = target::of_caller(backend.name, caller.is_main());
        // What the target is measured by: another client in the body of main, and else the floor where there is one.
        let beside = if caller.is_main() || backend.name != "redis" { beside } else { floor };
        let work = Work::ours(backend, caller).await?;
        rows.push(Row { what: format!("tooz, {caller}"), contender: Contender::start(caller, work), beside, target });
    }
    Ok(rows)
}

/// So many rounds, in each of which each has one turn; who begins changes.
fn take_turns(rows: &mut [Row], rounds: usize) -> Result<Vec<Vec<Turn>>> {
    let mut turns: Vec<Vec<Turn>> = rows.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for step in 0..rows.len() {
            let place =
                if round % 2 == 0 { (round + step) % rows.len() } else { (round + rows.len() - step) % rows.len() };
            let turn = rows[place].contender.turn(TURN)?;
            // The first round is there to warm up.
            if round > 0 {
                turns[place].push(turn);
            }
        }
    }
    Ok(turns)
}

/// The median over the rounds.
fn ratio(ours: &[Turn], theirs: &[Turn]) -> f64 {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours.median() / theirs.median()).collect();
    median(&mut ratios)
}
