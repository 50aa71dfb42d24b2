//! `tooz status`: groups, members, leaders and locks as they are: a live screen, tables, or one JSON value.

mod changes;
mod health;
mod json;
mod kept_session;
mod keys;
mod rounds;
mod screen;
mod snapshot;
mod tables;
mod terminal;
mod view;

use std::io::{IsTerminal, stdin, stdout};

use tooz::Coordinator;

use self::health::{Health, Pulse};
use self::snapshot::Snapshot;
use super::{unless_signalled, with_coordinator};
use crate::args::{Global, StatusArguments};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;
use crate::run::Signals;

pub(crate) use terminal::restore as restore_terminal;

pub(super) async fn run(global: &Global, arguments: &StatusArguments) -> Result<u8, CommandFailure> {
    with_coordinator(global, async |coordinator| {
        let mut signals = Signals::listen()?;
        let mut pulse = if arguments.session {
            unless_signalled(&mut signals, Pulse::with_session(coordinator)).await?
        } else {
            Pulse::default()
        };
        let is_screen = !global.json && !arguments.once && stdout().is_terminal() && stdin().is_terminal();
        let result = if is_screen {
            screen::run(coordinator, arguments, &mut pulse, &mut signals).await
        } else {
            let looking = look_once(coordinator, &mut pulse);
            let looked = unless_signalled(&mut signals, async { Ok::<_, CommandFailure>(looking.await) }).await;
            looked.and_then(|(snapshot, health)| print(global, &snapshot.filtered(&arguments.filter), &health))
        };
        pulse.close_session().await;
        result
    })
    .await
}

async fn look_once(coordinator: &Coordinator, pulse: &mut Pulse) -> (Snapshot, Health) {
    let snapshot = Snapshot::take(coordinator).await;
    pulse.measure_often(coordinator).await;
    (snapshot, pulse.health(coordinator))
}

fn print(global: &Global, snapshot: &Snapshot, health: &Health) -> Result<u8, CommandFailure> {
    if global.json {
        output::json(&json::value(snapshot, health))?;
    } else {
        for line in health.lines().into_iter().chain(tables::lines(snapshot, None).into_iter().map(|line| line.text)) {
            output::line(line)?;
        }
    }
    snapshot.trouble().map_or(Ok(exit::SUCCESS), |error| Err(error.into()))
}
