//! The page: the run's data in one file with what shows them.

use anyhow::Result;
use serde::Serialize;
use serde_json::json;
use tooz_conformance::history::{Attempt, Fault, History, Response};

use crate::verdict::Verdict;

/// So many attempts are drawn at most: those near what is wrong, or the last.
const MOST: usize = 30_000;

const TEMPLATE: &str = include_str!("page.html");

/// One bar of the timeline.
#[derive(Serialize)]
struct Bar {
    worker: String,
    lock: String,
    mode: char,
    asked: u64,
    granted: Option<u64>,
    until: u64,
    token: Option<u64>,
    lost: bool,
    unknown: bool,
}

/// The page of a run. Times are microseconds since its beginning.
pub(crate) fn page(verdict: &Verdict, history: &History) -> Result<String> {
    let start = verdict.window.0;
    let micros = |time: u64| time.saturating_sub(start) / 1000;
    let bars = |attempts: &[Attempt]| attempts.iter().map(|attempt| bar(attempt, &micros, verdict)).collect::<Vec<_>>();
    let (locks, leads) = (bars(chosen(&history.attempts, verdict)), bars(chosen(&history.campaigns, verdict)));
    let faults = |fault: &Fault| json!({ "name": fault.name, "from": micros(fault.from), "to": micros(fault.to) });
    let stays: Vec<_> = history.stays.iter().map(|stay| {
        let changes: Vec<_> = stay.changes.iter().map(|change| {
            json!({ "at": micros(change.done.unwrap_or(change.asked)), "listed": change.kind.listed().is_some(), "what": format!("{:?}", change.kind) })
        }).collect();
        json!({ "member": stay.member, "changes": changes })
    }).collect();
    let wrong = |violation: &tooz_conformance::checker::Violation| {
        let (from, to) = violation.window();
        json!({ "law": violation.law(), "what": violation.to_string(), "from": micros(from), "to": micros(to), "witness": violation.witness() })
    };
    let data = json!({
        "backend": verdict.backend,
        "seed": verdict.seed,
        "good": verdict.is_good(),
        "length": micros(verdict.window.1),
        "laws": tooz_conformance::checker::Law::ALL.iter().map(|law| json!({
            "name": law.name(), "sentence": law.sentence(), "demanded": verdict.demanded.contains(law),
        })).collect::<Vec<_>>(),
        "violations": verdict.violations.iter().map(wrong).collect::<Vec<_>>(),
        "conceded": verdict.conceded.iter().map(wrong).collect::<Vec<_>>(),
        "stuck": verdict.stuck,
        "left": verdict.left,
        "counts": verdict.counts,
        "errors": verdict.errors,
        "faults": history.faults.iter().map(faults).collect::<Vec<_>>(),
        "locks": locks,
        "leads": leads,
        "stays": stays,
        "drawn": chosen(&history.attempts, verdict).len(),
        "attempts": history.attempts.len(),
    });
    // What would end the element is written in another way, which means the same in JSON.
    let data = serde_json::to_string(&data)?.replace("</", "<\\/");
    let title = format!("chaos {} --seed {}", verdict.backend, verdict.seed);
    Ok(TEMPLATE.replace("{{title}}", &title).replace("{{data}}", &data))
}

fn chosen<'a>(attempts: &'a [Attempt], verdict: &Verdict) -> &'a [Attempt] {
    let wrong = verdict.violations.first().map(|violation| violation.window().1);
    // They are in the order in which they ended, nearly.
    let end = wrong.map_or(attempts.len(), |wrong| {
        attempts.partition_point(|attempt| attempt.asked <= wrong).saturating_add(MOST / 3).min(attempts.len())
    });
    &attempts[end.saturating_sub(MOST)..end]
}

fn bar(attempt: &Attempt, micros: &impl Fn(u64) -> u64, verdict: &Verdict) -> Bar {
    let granted = match &attempt.answer {
        Response::Granted(grant) => Some(grant),
        Response::NotHad { .. } | Response::Unknown { .. } => None,
    };
    let until = match &attempt.answer {
        Response::Granted(grant) => grant.believed_until.unwrap_or(verdict.window.1),
        Response::NotHad { at, .. } => *at,
        Response::Unknown { .. } => attempt.asked,
    };
    Bar {
        worker: attempt.worker.clone(),
        lock: attempt.lock.clone(),
        mode: if attempt.mode == tooz_conformance::history::Mode::Exclusive { 'x' } else { 's' },
        asked: micros(attempt.asked),
        granted: granted.map(|grant| micros(grant.at)),
        until: micros(until),
        token: granted.map(|grant| grant.token),
        lost: granted.is_some_and(|grant| grant.lost.is_some()),
        unknown: matches!(attempt.answer, Response::Unknown { .. }),
    }
}
