//! `tooz watch`: what happens in a group, one line for each event.

use std::time::SystemTime;

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use tooz::{Error, ErrorKind, Group, GroupEvent, Leader, LeaderEvent, RosterEntry};

use super::{missing_group, with_coordinator};
use crate::args::{Global, WatchArguments};
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;
use crate::run::Signals;

/// The signals by which a watch is ended: that is no failure.
const ENDS_WELL: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];

pub(super) async fn run(global: &Global, arguments: &WatchArguments) -> Result<u8, CommandFailure> {
    with_coordinator(global, async |coordinator| {
        let mut signals = Signals::listen()?;
        let group = coordinator.group(arguments.group.name())?;
        let watching = async {
            if arguments.leader {
                leaders(global, &group, arguments).await
            } else {
                members(global, &group, arguments).await
            }
        };
        tokio::select! {
            // The reader has gone: the next event need not be waited for.
            biased;
            () = output::reader_gone() => Ok(exit::SUCCESS),
            signal = signals.next_to_end() => {
                let well = ENDS_WELL.iter().any(|one| *one as i32 == signal);
                Ok(if well { exit::SUCCESS } else { exit::by_signal(signal) })
            }
            result = watching => result,
        }
    })
    .await
}

async fn members(global: &Global, group: &Group, arguments: &WatchArguments) -> Result<u8, CommandFailure> {
    let mut watch = missing_group::wait_for(group.name(), arguments.wait, async || group.watch().await).await?;
    while let Some(event) = watch.next().await {
        let is_last = event == GroupEvent::Deleted;
        print(global, of_group(event)).await?;
        if is_last {
            return Ok(exit::SUCCESS);
        }
    }
    Err(ended(watch.end()))
}

async fn leaders(global: &Global, group: &Group, arguments: &WatchArguments) -> Result<u8, CommandFailure> {
    let mut watch = missing_group::wait_for(group.name(), arguments.wait, async || group.watch_leader().await).await?;
    while let Some(event) = watch.next().await {
        print(global, of_leader(&event)).await?;
    }
    match watch.end() {
        // The group was deleted: it will have no leader.
        Some(error) if error.kind() == ErrorKind::NotFound => {
            print(global, of_group(GroupEvent::Deleted)).await?;
            Ok(exit::SUCCESS)
        }
        why => Err(ended(why)),
    }
}

/// A script that waits for events must not take silence for a good end.
fn ended(why: Option<Error>) -> CommandFailure {
    why.map_or_else(|| CommandFailure::error("nothing says why"), CommandFailure::from).context("the watch ended")
}

/// On a thread of its own: a reader that does not read must not keep a signal from ending the watch.
async fn print(global: &Global, mut event: Map<String, Value>) -> std::io::Result<()> {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let text = if global.json {
        event.insert("at".to_owned(), at.into());
        Value::Object(event).to_string()
    } else {
        let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let words: Vec<String> = std::iter::once(at).chain(event.values().map(cell)).collect();
        words.join("\t")
    };
    tokio::task::spawn_blocking(move || output::line(text))
        .await
        .unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// A member as it stands in lists and events, its capabilities as JSON and not as a text of it.
pub(super) fn member(entry: &RosterEntry) -> Value {
    json!({ "member": entry.member.as_str(), "capabilities": output::embedded(entry.capabilities.as_json()) })
}

pub(super) fn leader(leader: Option<&Leader>) -> Value {
    match leader {
        None => Value::Null,
        Some(leader) => json!({ "member": leader.member.as_str(), "epoch": leader.epoch.0 }),
    }
}

fn of_group(event: GroupEvent) -> Map<String, Value> {
    let members = |word: &str, mut members: Vec<RosterEntry>| {
        members.sort_by(|one, other| one.member.cmp(&other.member));
        object(word, json!({ "members": members.iter().map(member).collect::<Vec<_>>() }))
    };
    match event {
        GroupEvent::Snapshot(list) => members("snapshot", list),
        GroupEvent::Reset(list) => members("reset", list),
        GroupEvent::Joined(entry) => object("joined", member(&entry)),
        GroupEvent::Updated(entry) => object("updated", member(&entry)),
        GroupEvent::Left(id) => object("left", json!({ "member": id.as_str() })),
        GroupEvent::Deleted => object("deleted", Value::Null),
        // Events that this version does not know are shown rather than swallowed.
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        other => object("other", json!({ "text": format!("{other:?}") })),
    }
}

fn of_leader(event: &LeaderEvent) -> Map<String, Value> {
    match event {
        LeaderEvent::Elected(elected) => object("elected", leader(Some(elected))),
        LeaderEvent::Vacant => object("vacant", Value::Null),
        #[allow(unreachable_patterns, reason = "the enum may grow")]
        other => object("other", json!({ "text": format!("{other:?}") })),
    }
}

fn object(word: &str, fields: Value) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("event".to_owned(), word.into());
    if let Value::Object(fields) = fields {
        object.extend(fields);
    }
    object
}
