//! `tooz doctor`: connects, measures, tries every primitive between two members, and says what is wrong and how to mend it.

pub(super) mod figures;
mod groups;
mod locks;
mod report;
mod scratch;
mod server;

use std::time::Duration;

use serde_json::json;
use tooz::driver::Verdict;
use tooz::{Characteristic, Coordinator};

use self::report::{Doing, Report};
use self::scratch::Scratch;
use super::{unless_signalled, with_coordinator};
use crate::args::{DoctorArguments, Global};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;
use crate::run::Signals;

/// How much longer than the session timeout a trial may take: nothing that works takes so long, and whatever depends
/// on heartbeats has been told by then.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn run(global: &Global, arguments: &DoctorArguments) -> Result<u8, CommandFailure> {
    // A trial between two members needs a second one.
    let other = Global { member: None, ..global.clone() };
    let (report, json) = with_coordinator(global, async |first| {
        with_coordinator(&other, async |second| {
            let mut signals = Signals::listen()?;
            let mut examination = Examination { first, second, report: Report::default(), scratch: None };
            let server =
                unless_signalled(&mut signals, async { Ok::<_, CommandFailure>(examination.run().await) }).await;
            examination.tidy_up().await;
            let head = vec![
                ("driver", first.driver().name().into()),
                ("server", Some(server?).filter(|server| !server.is_empty()).into()),
                ("member", first.member().as_str().into()),
                ("session", server::session_json(first)),
                (
                    "characteristics",
                    json!(first.characteristics().iter().map(Characteristic::name).collect::<Vec<_>>()),
                ),
            ];
            let json = examination.report.json(head);
            Ok((examination.report, json))
        })
        .await
    })
    .await?;
    if global.json {
        output::json(&json)?;
    } else {
        report.print()?;
    }
    let (wrong, warnings) = (report.count(Verdict::Wrong), report.count(Verdict::Warning));
    if wrong > 0 || (arguments.strict && warnings > 0) {
        return Err(CommandFailure::wrong(format!("found wrong: {wrong}, warnings: {warnings}")));
    }
    Ok(exit::SUCCESS)
}

/// Two members, what was found so far, and the names that they try things out with.
struct Examination<'a> {
    first: &'a Coordinator,
    second: &'a Coordinator,
    report: Report,
    scratch: Option<Scratch>,
}

impl Examination<'_> {
    /// Examines all there is; answers what the server calls itself.
    async fn run(&mut self) -> String {
        let Examination { first, second, report, scratch } = self;
        let server = server::look(first, report).await;
        let scratch = match Scratch::claim(first).await {
            Ok(claimed) => scratch.insert(claimed),
            Err(trouble) => {
                // Without a lock there is no session, and nothing else would say anything new.
                report.trouble("lock", Verdict::Wrong, trouble);
                return server;
            }
        };
        server::session(first, report);
        if !server.is_empty() {
            figures::round_trip(first, report).await;
        }
        figures::uncontended(first, scratch, report).await;
        try_everything(&Pair { first, second, scratch, doing: Doing::new() }, report).await;
        server
    }

    /// Takes away what the trials made, also those that failed or were interrupted.
    async fn tidy_up(&mut self) {
        if let Some(scratch) = self.scratch.take()
            && let Err(trouble) = scratch.give_up(self.first).await
        {
            self.report.trouble("tidying up", Verdict::Warning, trouble);
        }
    }
}

/// What every trial needs.
struct Pair<'a> {
    first: &'a Coordinator,
    second: &'a Coordinator,
    scratch: &'a Scratch,
    doing: Doing,
}

async fn try_everything(pair: &Pair<'_>, report: &mut Report) {
    let can = |what| pair.first.characteristics().has(what);
    let patience = pair.first.session_timeout() + PATIENCE;
    report.trial("lock", patience, &pair.doing, locks::exclusive(pair)).await;
    report.trial("hand-over", patience, &pair.doing, locks::hand_over(pair)).await;
    if can(Characteristic::SharedLocks) {
        report.trial("shared lock", patience, &pair.doing, locks::shared(pair)).await;
    } else {
        report.not_claimed("shared lock");
    }
    if can(Characteristic::BreakableLocks) {
        report.trial("broken lock", patience, &pair.doing, locks::broken(pair)).await;
    } else {
        report.not_claimed("broken lock");
    }
    if can(Characteristic::Groups) {
        report.trial("group", patience, &pair.doing, groups::membership(pair)).await;
        report.trial("election", patience, &pair.doing, groups::election(pair)).await;
        report.trial("partition", patience, &pair.doing, groups::partition(pair)).await;
    } else {
        report.not_claimed("group");
    }
}
