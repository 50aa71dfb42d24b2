//! Groups: each call is one script.

use std::time::Duration;

use fred::types::Value;
use tooz_core::{
    Capabilities, Error, ErrorKind, GroupId, JoinRequest, MemberId, Replace, Result, Roster, RosterEntry, decode_name,
    encode_name,
};

use crate::connection::Connection;
use crate::error::strange;
use crate::reply::{Reply, request_id};
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
    let reply = connection.run(Script::Delete, vec![group_name(group).into()]).await?;
    match reply.word.as_str() {
        "ok" => Ok(()),
        "no group" => Err(Error::no_group(group)),
        "not empty" => Err(Error::group_not_empty(group, usize::try_from(reply.number(0)?).unwrap_or(1))),
        _ => reply.strange(),
    }
}

pub(crate) async fn groups(connection: &Connection) -> Result<Vec<GroupId>> {
    let reply = connection.run(Script::Groups, Vec::new()).await?;
    reply.texts(0)?.iter().map(|name| group_of(name)).collect()
}

pub(crate) async fn join(connection: &Connection, request: &JoinRequest) -> Result<()> {
    let replace = match request.replace {
        Replace::Nobody => "nobody".to_owned(),
        Replace::Own(_) => "own".to_owned(),
        Replace::Anybody => "anybody".to_owned(),
    };
    let mut arguments = names(request);
    arguments.push(request.capabilities.as_json().into());
    arguments.push(replace.into());
    let reply = connection.run_surely(Script::Join, arguments).await?;
    match reply.word.as_str() {
        "ok" => Ok(()),
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
    match connection.run(Script::Leave, names(request)).await {
        // There is nothing to end any more; but that the session is over is news.
        Err(error) if error.kind() == ErrorKind::Lost => {
            connection.tell_of_the_end();
            Ok(())
        }
        result => result.map(drop),
    }
}

pub(crate) async fn members(connection: &Connection, group: &GroupId) -> Result<Roster> {
    let reply = connection.run(Script::Members, vec![group_name(group).into()]).await?;
    match reply.word.as_str() {
        "ok" => roster(&reply),
        "no group" => Err(Error::no_group(group)),
        _ => reply.strange(),
    }
}

fn roster(reply: &Reply) -> Result<Roster> {
    let texts = reply.texts(1)?;
    let members = texts.chunks_exact(3).map(|told| match told {
        [member, join, capabilities] => entry(member, join, capabilities),
        _ => reply.strange(),
    });
    Ok(Roster::new(members.collect::<Result<_>>()?, reply.token(0)?))
}

fn names(request: &JoinRequest) -> Vec<Value> {
    vec![group_name(&request.group).into(), request.member.as_str().into(), request.id.to_string().into()]
}
