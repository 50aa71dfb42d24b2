//! `tooz watch`: what happens in a group, one line for each event.

use std::time::SystemTime;

use serde_json::{Map, Value, json};
use tooz::{GroupEvent, Leader, LeaderEvent, RosterEntry};

use super::with_coordinator;
use crate::args::{Global, WatchArguments};
use crate::exit::{self, Failure};
use crate::output;
use crate::run::Signals;

pub(super) async fn run(global: &Global, arguments: &WatchArguments) -> Result<u8, Failure> {
    with_coordinator(global, async |coordinator| {
        let mut signals = Signals::listen()?;
        let group = coordinator.group(arguments.group.name())?;
        if arguments.leader {
            let mut watch = super::unless_signalled(&mut signals, group.watch_leader()).await?;
            while let Some(event) = until_signalled(&mut signals, watch.next()).await {
                print(global, of_leader(&event))?;
            }
        } else {
            let mut watch = super::unless_signalled(&mut signals, group.watch()).await?;
            while let Some(event) = until_signalled(&mut signals, watch.next()).await {
                print(global, of_group(event))?;
            }
        }
        Ok(exit::SUCCESS)
    })
    .await
}

/// A signal is how a watch is ended; that is no failure.
async fn until_signalled<T>(signals: &mut Signals, next: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::select! {
        item = next => item,
        _ = signals.next_to_end() => None,
    }
}

fn print(global: &Global, mut event: Map<String, Value>) -> std::io::Result<()> {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    if global.json {
        event.insert("at".to_owned(), at.into());
        return output::json(&Value::Object(event));
    }
    let mut words = vec![at];
    for value in event.values() {
        match value {
            Value::String(text) => words.push(text.clone()),
            other => words.push(other.to_string()),
        }
    }
    output::line(words.join("\t"))
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
