//! Groups: a marker, and a key for each member that its session has locked. What must hold together is one transaction.

use std::time::Duration;

use tooz_core::driver::{Groups, JoinConflict, JoinRequest, PushStream, Replace, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result, RosterEntry};

use crate::client::{Lane, Scope};
use crate::holdings::{Certainty, Holding, HoldingKind};
use crate::layout::{GroupFolder, letter};
use crate::record::{GroupRecord, Letter, MemberRecord, write};
use crate::request::{KeyEntry, Op, TxnResult, check_absent, check_index, delete_at, get, lock, set, set_at};
use crate::server_session::timeout_of;
use crate::session::ConsulSession;
use crate::watch;
use crate::withdrawal::{follow, withdraw};

/// How often something is tried that others change meanwhile.
const TRIES: usize = 20;
/// How many keys that no driver wrote may lie in the folder of a group that is to be deleted.
const STRANGERS: usize = 32;
/// How late Consul is in ending a session.
const LATE: Duration = Duration::from_millis(300);
/// The largest entry of a member, in bytes, its capabilities among them: Consul takes 512 KiB for a transaction, with the third that base64 adds.
const LARGEST: usize = 256 << 10;

#[async_trait]
impl Groups for ConsulSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.layout.group(group);
        // By this mark a repetition knows its own work from another's.
        let record = mark(group, "made")?;
        for _ in 0..TRIES {
            let mut ops = vec![check_absent(folder.marker()), set(folder.marker(), &record)];
            ops.extend(self.layout.version_unchanged());
            let reply = self.client.transact(Lane::Wish, &ops).await?;
            if let TxnResult::Done(_) = reply.message {
                return Ok(());
            }
            if reply.message.fails(0) {
                match self.one(folder.marker()).await? {
                    Some(marker) if marker.value == record => return Ok(()),
                    Some(_) => return Err(Error::group_exists(group)),
                    // It was deleted in between.
                    None => continue,
                }
            }
            self.layout.learn(self.one(self.layout.version_key()).await?.as_ref())?;
        }
        Err(changes_all_the_time(group))
    }

    /// Deletes a group if no join has come since its members were read.
    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.layout.group(group);
        let mut was_repeated = false;
        for _ in 0..TRIES {
            let page = self.client.read_folder(Lane::Wish, folder.marker()).await?;
            let entries = page.map(|page| page.entries).unwrap_or_default();
            let (marker, others): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(|entry| entry.key == folder.marker());
            let Some(marker) = marker.first() else {
                // The first sending has done it.
                return if was_repeated { Ok(()) } else { Err(Error::no_group(group)) };
            };
            // Only what a driver wrote is a member; the rest goes with the group.
            let (members, strangers): (Vec<_>, Vec<_>) = others.iter().partition(|entry| folder.entry(entry).is_some());
            if !members.is_empty() {
                return Err(Error::group_not_empty(group, members.len()));
            }
            if strangers.len() > STRANGERS {
                return Err(keys_in_the_way(group, &strangers));
            }
            let mut ops = vec![delete_at(folder.marker(), marker.modified)];
            ops.extend(strangers.iter().map(|entry| delete_at(&entry.key, entry.modified)));
            let reply = self.client.transact(Lane::Wish, &ops).await?;
            was_repeated |= reply.was_repeated;
            if let TxnResult::Done(_) = reply.message {
                return Ok(());
            }
        }
        Err(changes_all_the_time(group))
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let folders = self.client.names(&self.layout.groups()).await?;
        Ok(folders.iter().filter_map(|folder| self.layout.group_of(folder)).collect())
    }

    /// One transaction where no member of that name is there.
    ///
    /// The index of the session's key guards against a join that arrives after its withdrawal, as it does for locks; that of the marker against a
    /// deletion that has counted the members before.
    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let folder = self.layout.group(&request.group);
        let place = folder.member(&request.member);
        let value = member_value(request)?;
        let kind = HoldingKind::Membership(request.group.clone());
        self.holdings.enlist(request.id, Holding::new(place.clone(), kind))?;
        let mut replaced = None;
        for _ in 0..TRIES {
            match self.join_once(request, &folder, &value, replaced.as_ref()).await {
                Ok(JoinEnd::Done) => return Ok(()),
                Ok(JoinEnd::Again(there)) => replaced = there,
                // What was surely not done needs no withdrawal.
                Err(error) => {
                    return Err(match self.holdings.strike_unmade(request.id) {
                        Certainty::Certain => error,
                        Certainty::Doubtful => error.with_outcome(Outcome::Unknown),
                    });
                }
            }
        }
        self.holdings.doubt_making(request.id);
        Err(changes_all_the_time(&request.group).with_outcome(Outcome::Unknown))
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let place = self.layout.group(&request.group).member(&request.member);
        let value = member_value(request)?;
        let mut known =
            self.holdings.all().get(&request.id.0).map(|holding| holding.modified).filter(|index| *index > 0);
        for _ in 0..TRIES {
            if let Some(index) = known {
                let ops = vec![set_at(&place, &value, index)];
                let reply = self.server_session()?.change(&self.client, Lane::Duty, ops, None).await?;
                if let TxnResult::Done(entries) = reply.message {
                    self.note_index(request, entries.first().map_or(0, |entry| entry.modified));
                    return Ok(());
                }
            }
            let there = self.one(&place).await?.ok_or_else(|| Error::not_member(request))?;
            if !is_of(request, &there) || there.session.as_ref() != Some(&self.server_session()?.id) {
                return Err(Error::not_member(request));
            }
            // Written by an update of ours whose answer was lost.
            self.note_index(request, there.modified);
            if there.value == value {
                return Ok(());
            }
            known = Some(there.modified);
        }
        Err(changes_all_the_time(&request.group))
    }

    /// Takes the entry out, if it is still that of this join.
    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let session = self.server_session()?;
        let place = self.layout.group(&request.group).member(&request.member);
        // What is told of the deletion must not be taken for one by force.
        let struck = self.holdings.strike(request.id);
        let certain = struck.as_ref().is_some_and(|holding| holding.certainty() == Certainty::Certain);
        if !certain {
            // Nothing is deleted here: the entry may be another's. What may still arrive comes to nothing.
            withdraw(&self.client, session, &[]).await?;
        }
        let mut known = struck.map(|holding| holding.modified).filter(|index| certain && *index > 0);
        for _ in 0..TRIES {
            if let Some(index) = known {
                let reply = session.change(&self.client, Lane::Duty, vec![delete_at(&place, index)], None).await?;
                if let TxnResult::Done(_) = reply.message {
                    return Ok(());
                }
            }
            match self.one(&place).await? {
                Some(there) if is_of(request, &there) => known = Some(there.modified),
                // Nothing, or another member's entry.
                _ => return Ok(()),
            }
        }
        Err(changes_all_the_time(&request.group))
    }

    /// The members with their capabilities, and whether there is such a group: one request.
    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let folder = self.layout.group(group);
        let page = self.client.read_folder(Lane::Wish, folder.marker()).await?;
        let page = page.ok_or_else(|| Error::no_group(group))?;
        // What no driver wrote is no member.
        let members: Vec<RosterEntry> = page.entries.iter().filter_map(|entry| folder.entry(entry)).collect();
        Ok(Roster::new(members, page.index))
    }

    /// Every change from before its members are read.
    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let folder = self.layout.group(group);
        let page = self.client.read_folder(Lane::Wish, folder.marker()).await?;
        let page = page.ok_or_else(|| Error::no_group(group))?;
        Ok(Some(watch::group(self.watching(), folder, &page)))
    }
}

/// How one transaction of a join went.
enum JoinEnd {
    Done,
    /// It is to be tried again, in the place of that entry if there is one.
    Again(Option<KeyEntry>),
}

impl ConsulSession {
    /// One key, by the word of a leader that has proved to be one.
    async fn one(&self, key: &str) -> Result<Option<KeyEntry>> {
        Ok(self.client.read(Lane::Duty, key, Scope::One).await?.entries.into_iter().next())
    }

    async fn join_once(
        &self,
        request: &JoinRequest,
        folder: &GroupFolder,
        value: &[u8],
        replaced: Option<&KeyEntry>,
    ) -> Result<JoinEnd> {
        let session = self.server_session()?;
        let (place, index) = (folder.member(&request.member), session.index());
        let mut ops = vec![
            get(folder.marker()),
            set(folder.marker(), &mark(&request.group, &request.id.to_string())?),
            check_index(&session.key, index),
            // Absent, or still the entry that it may take the place of.
            replaced.map_or_else(|| check_absent(&place), |there| delete_at(&place, there.modified)),
            lock(&place, value, &session.id),
        ];
        ops.extend(replaced.and_then(|there| self.farewell(folder, there, &session.id)));
        let reply = match session.change(&self.client, Lane::Wish, ops, None).await {
            Ok(reply) => reply,
            Err(error) => {
                if error.outcome() == Outcome::Unknown {
                    self.holdings.doubt_making(request.id);
                }
                return Err(error);
            }
        };
        if reply.was_repeated {
            self.holdings.doubt_making(request.id);
        }
        let verdict = reply.message;
        if let TxnResult::Done(entries) = &verdict {
            let own = entries.iter().rev().find(|entry| entry.key == place).map_or(0, |own| own.modified);
            self.holdings.confirm(request.id, own);
            return Ok(JoinEnd::Done);
        }
        if verdict.fails(0) {
            return Err(Error::no_group(&request.group));
        }
        if verdict.fails(2) {
            follow(&self.client, session, index).await?;
        } else if !verdict.fails(3) && !verdict.fails(5) {
            // Only the session can hinder the lock then.
            session.require(&self.client).await?;
        }
        let Some(there) = self.one(&place).await? else { return Ok(JoinEnd::Again(None)) };
        match self.meet(request, folder, &there) {
            JoinConflict::Itself => {
                self.holdings.doubt_making(request.id);
                self.holdings.confirm(request.id, there.modified);
                Ok(JoinEnd::Done)
            }
            JoinConflict::Replaces => Ok(JoinEnd::Again(Some(there))),
            JoinConflict::Refused => Err(self.namesake(request, folder, &there).await),
        }
    }

    /// Tells the session of the entry that it was taken over; one's own knows.
    fn farewell(&self, folder: &GroupFolder, there: &KeyEntry, own: &str) -> Option<Op> {
        let (entry, victim) = (folder.entry(there)?, there.session.as_deref()?);
        let told = write(&Letter::Replaced(entry.id.to_string())).ok()?;
        (victim != own).then(|| lock(&letter(&self.layout.session(victim), fastrand::u64(..)), &told, victim))
    }

    /// What a join meets at its place.
    fn meet(&self, request: &JoinRequest, folder: &GroupFolder, there: &KeyEntry) -> JoinConflict {
        let is_own = there.session.as_ref() == self.server_session().ok().map(|session| &session.id);
        match folder.entry(there) {
            // The id alone does not do: the session that made it may be another by now.
            Some(entry) => match request.meets(entry.id) {
                JoinConflict::Itself if !is_own => JoinConflict::Replaces,
                met => met,
            },
            // What is no entry can be replaced by a join that may replace any entry.
            None if request.replace == Replace::Anybody => JoinConflict::Replaces,
            None => JoinConflict::Refused,
        }
    }

    /// The refusal, with the time after which the other's session has ended unless it is kept alive: twice its timeout, since Consul ends none
    /// before.
    async fn namesake(&self, request: &JoinRequest, folder: &GroupFolder, there: &KeyEntry) -> Error {
        if folder.entry(there).is_none() {
            let key = &there.key;
            let words = format!("what stands at {key} was written by no driver of tooz: delete it, or take it over");
            return Error::new(ErrorKind::AlreadyExists, words);
        }
        let theirs = match &there.session {
            Some(session) => timeout_of(&self.client, session).await.ok().flatten(),
            None => None,
        };
        Error::namesake(request).with_retry_after(theirs.unwrap_or(self.timeout) * 2 + LATE)
    }

    fn note_index(&self, request: &JoinRequest, index: u64) {
        if let Some(holding) = self.holdings.all().get_mut(&request.id.0) {
            holding.modified = holding.modified.max(index);
        }
    }
}

/// What is to stand at a group's marker, never the same twice.
fn mark(group: &GroupId, by: &str) -> Result<Vec<u8>> {
    write(&GroupRecord { group, last: format!("{by}-{:08x}", fastrand::u32(..)) })
}

fn member_value(request: &JoinRequest) -> Result<Vec<u8>> {
    let value = write(&MemberRecord::new(&request.member, request.id, &request.capabilities)?)?;
    if value.len() > LARGEST {
        let words = format!(
            "the entry of this member has {} bytes, of which {} are its capabilities, and it may have {LARGEST}: Consul takes 512 KiB for a whole transaction",
            value.len(),
            request.capabilities.as_json().len(),
        );
        return Err(Error::config(words));
    }
    Ok(value)
}

/// Whether that is the entry of this join.
fn is_of(request: &JoinRequest, there: &KeyEntry) -> bool {
    MemberRecord::read(&there.value).is_some_and(|entry| entry.id == request.id)
}

fn changes_all_the_time(group: &GroupId) -> Error {
    Error::new(ErrorKind::Unavailable, format!("group {group:?} changes all the time: try again"))
        .with_outcome(Outcome::NotApplied)
}

fn keys_in_the_way(group: &GroupId, keys: &[&KeyEntry]) -> Error {
    let first = keys.first().map_or("", |entry| entry.key.as_str());
    let words = format!(
        "among the members of group {group:?} lie {} keys that no driver of tooz wrote, such as {first}: delete them",
        keys.len()
    );
    Error::new(ErrorKind::NotEmpty, words)
}
