//! One run: workers, faults, calm, judgement, report.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tooz_conformance::checker::progress;
use tooz_conformance::history::{History, now};

use crate::Arguments;
use crate::backend::Backend;
use crate::chronicle::Chronicle;
use crate::chronicle::calm::Bounds;
use crate::concessions::given_up;
use crate::crew::{Crew, Shared, lock};
use crate::ground::Ground;
use crate::plan::Plan;
use crate::verdict::Verdict;
use crate::{leftovers, nemesis, report, stalls};

/// By how much a promise in time may be late, because all of this runs on one machine at once.
const LATE: Duration = Duration::from_secs(1);

/// How many times longer they may take because nothing gets on at all.
const MOST: u32 = 5;

/// A run below that is a look in passing.
const BRIEF: Duration = Duration::from_secs(20);

/// Runs, prints and writes; whether all was well.
pub(crate) async fn run(backend: &Backend, arguments: &Arguments) -> Result<bool> {
    // Short enough to be typed.
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let (workers, time) = (usize::from(arguments.workers), arguments.time());
    let plan = Plan::draw(seed, backend, &arguments.faults, time, workers)?;
    eprintln!("chaos {} --seed {seed}: {} faults in {time:?}", backend.name, plan.faults.len());
    let ground = tokio::task::block_in_place(|| Ground::start(backend, workers, &plan.kinds(), arguments.bug))?;
    let chronicle: Shared = Arc::new(Mutex::new(Chronicle::default()));
    let from = now();
    let stalls = stalls::notice(backend, &ground.url(backend), &chronicle)?;
    let mut crew = Crew::start(backend, &ground, seed, workers, Arc::clone(&chronicle))?;
    nemesis::carry_out(&plan, &ground, &mut crew, &chronicle).await?;

    let healed = now();
    let patience = backend.recovery() + LATE;
    eprintln!("        all is mended; each worker has {patience:?} to get on");
    let members = crew.members();
    calm_down(&chronicle, &members, healed, patience, time < BRIEF).await;
    let calm = now();
    let mut stuck = crew.end().await;
    drop(stalls);
    let left = leftovers::look_for(backend, &ground).await?;

    let chronicle = std::mem::take(&mut *lock(&chronicle));
    let (inherited, settled) = (backend.inherited + LATE, backend.recovery() * 2);
    let (history, errors) = chronicle.end(Bounds { inherited, settled });
    for member in progress(&history, &members, (healed, calm)) {
        stuck.push(format!("{member} got no lock within {patience:?} after the last fault"));
    }
    let verdict = Verdict::of(backend, seed, given_up(backend, &plan.kinds()), &history, (from, calm));
    let verdict = Verdict { stuck, left, errors, ..verdict };
    tell(&arguments.folder, &verdict, &history)
}

/// Judges the history of a report once more, and writes it anew.
pub(crate) fn judge_again(file: &Path, folder: &Path) -> Result<bool> {
    let (old, history) = report::read(file)?;
    let backend = Backend::named(&old.backend)?;
    let verdict = Verdict::of(backend, old.seed, old.given_up, &history, old.window);
    let verdict = Verdict { stuck: old.stuck, left: old.left, errors: old.errors, ..verdict };
    tell(folder, &verdict, &history)
}

fn tell(folder: &Path, verdict: &Verdict, history: &History) -> Result<bool> {
    let folder = folder.join(format!("{}-{}", verdict.backend, verdict.seed));
    report::write(&folder, verdict, history)?;
    report::print(verdict, &folder);
    Ok(verdict.is_good())
}

/// Lets workers get on after the last fault: a brief run ends as soon as all have, a long one shows as well that nothing else happens. What the
/// machine or the backend stood still meanwhile is no time in which workers could have got on.
async fn calm_down(chronicle: &Shared, members: &[String], healed: u64, patience: Duration, brief: bool) {
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let (waiting, stood_still) = {
            let chronicle = lock(chronicle);
            (chronicle.waiting_since(members, healed), chronicle.disturbed_since(healed))
        };
        let is_over = begun.elapsed() > patience + stood_still.min(patience * MOST);
        if is_over || brief && waiting.is_empty() {
            return;
        }
    }
}
