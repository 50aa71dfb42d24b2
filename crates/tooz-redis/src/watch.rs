//! Watches: a channel for each group and each lock, on the session's own connection.

use std::time::Duration;

use tooz_core::driver::{Change, LockKey, PushStream, Pushed, push_channel};
use tooz_core::{Capabilities, GroupId, MemberId, Result, RosterEntry};

use crate::connection::Connection;
use crate::group::group_name;
use crate::lock::lock_id;
use crate::reply::request_id;

pub(crate) async fn watch_group(connection: &Connection, group: &GroupId) -> Result<PushStream> {
    watch(connection, connection.channel("g:", &group_name(group))).await
}

pub(crate) async fn watch_lock(connection: &Connection, key: &LockKey) -> Result<PushStream> {
    watch(connection, connection.channel("", &lock_id(key))).await
}

async fn watch(connection: &Connection, channel: String) -> Result<PushStream> {
    let link = connection.link().await?;
    let (pusher, stream) = push_channel();
    // Whatever is read behind the subscription on the same connection is not older than it.
    pusher.push(Pushed::Ready);
    connection.feed().watch(&channel, pusher);
    link.subscribe(vec![channel]).await?;
    connection.look_soon();
    Ok(stream)
}

/// Reads what `group.lua` pushes, and how long the member lives without a beat. `None`: it can't be understood.
pub(crate) fn read_change(text: &str) -> Option<(Pushed, Duration)> {
    if text == "gone" {
        return Some((Pushed::Gone, Duration::ZERO));
    }
    let mut parts = text.splitn(7, '\n');
    let after: u64 = parts.next()?.parse().ok()?;
    let version: u64 = parts.next()?.parse().ok()?;
    let kind = parts.next()?;
    let life = Duration::from_millis(parts.next()?.parse().unwrap_or(0));
    let join = request_id(parts.next()?).ok()?;
    let member = MemberId::new(parts.next()?).ok()?;
    let capabilities = parts.next()?;
    let entry = |member| Some(RosterEntry::new(member, join, Capabilities::from_json(capabilities).ok()?));
    let change = match kind {
        "joined" => Change::Joined(entry(member)?),
        "updated" => Change::Updated(entry(member)?),
        "left" => Change::Left(member),
        _ => return None,
    };
    Some((Pushed::Delta { after: Some(after), version, change }, life))
}
