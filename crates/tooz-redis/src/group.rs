//! Groups: each call is one script.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fred::types::Value;
use tooz_core::driver::{JoinRequest, Replace, Roster, decode_name, encode_name};
use tooz_core::{Capabilities, Error, ErrorKind, GroupId, MemberId, Result, RosterEntry};

use crate::connection::Connection;
use crate::error::strange;
use crate::reply::{FROM_THE_FIRST, request_id};
use crate::script::Script;

/// A group's name as it stands in keys; long enough that none is cut.
pub(crate) fn group_name(group: &GroupId) -> String {
    encode_name(group.as_str(), 765).into_owned()
}

/// The group of that name in keys.
pub(crate) fn group_of(name: &str) -> Result<GroupId> {
    GroupId::new(decode_name(name).ok_or_else(|| strange(name))?).map_err(|_| strange(name))
}

/// A member, as scripts tell it.
pub(crate) fn entry(member: &str, join: &str, capabilities: &str) -> Result<RosterEntry> {
    Ok(RosterEntry::new(
        MemberId::new(member).map_err(|_| strange(member))?,
        request_id(join)?,
        Capabilities::from_json(capabilities).map_err(|_| strange(capabilities))?,
    ))
}

pub(crate) async fn create(connection: &Connection, group: &GroupId) -> Result<()> {
    let reply = connection.run(Script::Create, vec![group_name(group).into()]).await?;
    match reply.word.as_str() {
        "ok" => Ok(()),
        "exists" => Err(Error::group_exists(group)),
        _ => reply.strange(),
    }
}

pub(crate) async fn delete(connection: &Connection, group: &GroupId) -> Result<()> {
    let reply = loop {
        let reply = connection.run(Script::Delete, vec![group_name(group).into()]).await?;
        if !reply.is("again") {
            break reply;
        }
    };
    match reply.word.as_str() {
        "ok" => Ok(()),
        "no group" => Err(Error::no_group(group)),
        "not empty" => Err(Error::group_not_empty(group, usize::try_from(reply.number(0)?).unwrap_or(1))),
        _ => reply.strange(),
    }
}

pub(crate) async fn groups(connection: &Connection) -> Result<Vec<GroupId>> {
    let mut names = BTreeSet::new();
    let mut place = FROM_THE_FIRST.to_owned();
    loop {
        let reply = connection.run(Script::Groups, vec![place.as_str().into()]).await?;
        let mut texts = reply.texts(0)?.into_iter();
        place = texts.next().ok_or_else(|| strange(&reply))?;
        names.extend(texts);
        if place == FROM_THE_FIRST {
            return names.iter().map(|name| group_of(name)).collect();
        }
    }
}

pub(crate) async fn join(connection: &Connection, request: &JoinRequest) -> Result<()> {
    let replace = match request.replace {
        Replace::Nobody => "nobody".to_owned(),
        Replace::Own(_) => "own".to_owned(),
        Replace::Anybody => "anybody".to_owned(),
    };
    let mut arguments = names(request);
    arguments.push(request.capabilities.as_json().into());
    arguments.push(replace.as_str().into());
    let reply = connection.run_surely(Script::Join, arguments).await?;
    match reply.word.as_str() {
        "ok" => {
            let place = format!("g:{}\n{}", group_name(&request.group), request.member);
            connection.feed().join(request.id, request.group.clone(), place);
            Ok(())
        }
        "no group" => Err(Error::no_group(&request.group)),
        "namesake" => {
            let left = u64::try_from(reply.number(0)?).unwrap_or(0);
            Err(Error::namesake(request).with_retry_after(Duration::from_millis(left)))
        }
        _ => reply.strange(),
    }
}

pub(crate) async fn update(connection: &Connection, request: &JoinRequest) -> Result<()> {
    let mut arguments = names(request);
    arguments.push(request.capabilities.as_json().into());
    let reply = connection.run(Script::Update, arguments).await?;
    match reply.word.as_str() {
        "ok" => Ok(()),
        "not member" => Err(Error::not_member(request)),
        _ => reply.strange(),
    }
}

pub(crate) async fn leave(connection: &Connection, request: &JoinRequest) -> Result<()> {
    connection.feed().leave(request.id);
    match connection.run(Script::Leave, names(request)).await {
        // There is nothing to end any more; but that the session is over is news.
        Err(error) if error.kind() == ErrorKind::Lost => {
            connection.tell_of_the_end();
            Ok(())
        }
        result => result.map(drop),
    }
}

/// How often a group that takes more than one request is read again when it has changed in between. Whatever changed after the version that
/// is answered is pushed as well, so that those who watch lose nothing by it.
const READINGS: usize = 5;

pub(crate) async fn members(connection: &Connection, group: &GroupId) -> Result<Roster> {
    let mut readings = 0;
    loop {
        readings += 1;
        let (members, first, last) = read_members(connection, group).await?;
        if first == last || readings == READINGS {
            return Ok(Roster::new(members.into_values().collect(), first));
        }
    }
}

/// Reads them, and which versions the group had at the first request and at the last.
async fn read_members(connection: &Connection, group: &GroupId) -> Result<(BTreeMap<String, RosterEntry>, u64, u64)> {
    let mut members = BTreeMap::new();
    let mut place = FROM_THE_FIRST.to_owned();
    let mut first = None;
    loop {
        let reply = connection.run(Script::Members, vec![group_name(group).into(), place.as_str().into()]).await?;
        match reply.word.as_str() {
            "ok" => {}
            "no group" => return Err(Error::no_group(group)),
            _ => return reply.strange(),
        }
        let version = reply.token(0)?;
        let texts = reply.texts(1)?;
        let (next, told) = texts.split_first().ok_or_else(|| strange(&reply))?;
        for told in told.chunks_exact(2) {
            let [member, record] = told else { return reply.strange() };
            members.insert(member.clone(), entry_in(member, record)?);
        }
        let first = *first.get_or_insert(version);
        if next == FROM_THE_FIRST {
            return Ok((members, first, version));
        }
        place.clone_from(next);
    }
}

/// A member with its record, `JOIN SESSION CAPABILITIES`.
fn entry_in(member: &str, record: &str) -> Result<RosterEntry> {
    let mut parts = record.splitn(3, ' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(join), Some(_), Some(capabilities)) => entry(member, join, capabilities),
        _ => Err(strange(record)),
    }
}

fn names(request: &JoinRequest) -> Vec<Value> {
    vec![group_name(&request.group).into(), request.member.as_str().into(), request.id.to_string().into()]
}
