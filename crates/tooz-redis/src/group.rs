//! Groups: each call is one script, except where a group is too long for one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tooz_core::driver::{Groups, JoinRequest, PushStream, Replace, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Result, RosterEntry};

use crate::error::strange;
use crate::layout::{group_name, group_named, membership_place};
use crate::record::membership;
use crate::reply::FROM_THE_FIRST;
use crate::request::Argument;
use crate::script::Script;
use crate::session::RedisSession;

/// How often a group that takes more than one request is read again when it has changed in between. Whatever changed after the version that
/// is answered is pushed as well, so that watchers lose nothing by it.
const READINGS: usize = 5;

/// The longest capabilities of one member, in bytes. What is sent at once to one connection (a few readings, see `client`) stays with them far below the 32 MB
/// at which a server cuts a connection that listens to channels (`client-output-buffer-limit pubsub`), and with it the heartbeats.
const MOST_CAPABILITIES: usize = 64 * 1024;

/// The capabilities of a request, if they are not too large.
fn capabilities(request: &JoinRequest) -> Result<Argument> {
    request.refuse_more_than(MOST_CAPABILITIES)?;
    Ok(request.capabilities.as_json().into())
}

impl RedisSession {
    /// Reads them, and which versions the group had at the first request and at the last.
    async fn read_members(&self, group: &GroupId) -> Result<(BTreeMap<String, RosterEntry>, u64, u64)> {
        let mut members = BTreeMap::new();
        let mut place = FROM_THE_FIRST.to_owned();
        let mut first = None;
        loop {
            let reply = self.client.run(Script::Members, vec![group_name(group).into(), place.as_str().into()]).await?;
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
                // What another program has written there is no member.
                members.extend(membership(member, record).ok().map(|entry| (member.clone(), entry)));
            }
            let first = *first.get_or_insert(version);
            if next == FROM_THE_FIRST {
                return Ok((members, first, version));
            }
            place.clone_from(next);
        }
    }
}

fn names(request: &JoinRequest) -> Vec<Argument> {
    vec![group_name(&request.group).into(), request.member.as_str().into(), request.id.to_string().into()]
}

#[async_trait]
impl Groups for RedisSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let reply = self.client.run(Script::Create, vec![group_name(group).into()]).await?;
        match reply.word.as_str() {
            "ok" => Ok(()),
            "exists" => Err(Error::group_exists(group)),
            _ => reply.strange(),
        }
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let reply = loop {
            let reply = self.client.run(Script::Delete, vec![group_name(group).into()]).await?;
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

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let mut names = BTreeSet::new();
        let mut place = FROM_THE_FIRST.to_owned();
        loop {
            let reply = self.client.run(Script::Groups, vec![place.as_str().into()]).await?;
            let mut texts = reply.texts(0)?.into_iter();
            place = texts.next().ok_or_else(|| strange(&reply))?;
            names.extend(texts);
            if place == FROM_THE_FIRST {
                return Ok(names.iter().filter_map(|name| group_named(name)).collect());
            }
        }
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let replace = match request.replace {
            Replace::Nobody => "nobody",
            Replace::Own(_) => "own",
            Replace::Anybody => "anybody",
        };
        let mut arguments = names(request);
        arguments.push(capabilities(request)?);
        arguments.push(Argument::Word(replace));
        let reply = self.client.run_surely(Script::Join, arguments).await?;
        match reply.word.as_str() {
            "ok" => {
                let place = membership_place(&request.group, &request.member);
                self.client.holdings.join(request.id, request.group.clone(), place);
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

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let mut arguments = names(request);
        arguments.push(capabilities(request)?);
        let reply = self.client.run(Script::Update, arguments).await?;
        match reply.word.as_str() {
            "ok" => Ok(()),
            "not member" => Err(Error::not_member(request)),
            _ => reply.strange(),
        }
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        self.client.holdings.leave(request.id);
        match self.client.run(Script::Leave, names(request)).await {
            // There is nothing to end any more; but that the session is over is news.
            Err(error) if error.kind() == ErrorKind::Lost => {
                self.client.tell_of_the_end();
                Ok(())
            }
            result => result.map(drop),
        }
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let mut readings = 0;
        loop {
            readings += 1;
            let (members, first, last) = self.read_members(group).await?;
            if first == last || readings == READINGS {
                return Ok(Roster::new(members.into_values().collect(), first));
            }
        }
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        self.watch(self.client.layout.group_channel(group)).await.map(Some)
    }
}
