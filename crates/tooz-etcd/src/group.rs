//! Groups: a marker, and a key for each member under that member's lease. What must hold together is one transaction.

use std::time::Duration;

use tooz_core::driver::{Groups, JoinConflict, JoinRequest, PushStream, Replace, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result};

use crate::client::PAGE;
use crate::error;
use crate::holdings::{Certainty, Holding, HoldingKind};
use crate::lanes::Lane;
use crate::layout::GroupFolder;
use crate::proto::etcdserverpb::{LeaseTimeToLiveRequest, RangeRequest, TxnRequest};
use crate::proto::mvccpb::KeyValue;
use crate::record::{GroupRecord, MemberRecord, write};
use crate::request::{
    absent, all, delete, exists, first, get, none_of, one, put, ranges, revision_of, version_is, without_value,
    written_at,
};
use crate::session::EtcdSession;
use crate::watch;
use crate::withdrawal::{follow, withdraw_or_owe};

/// How many keys that no driver wrote may lie among the members of a group that is to be deleted.
const STRANGERS: usize = 32;

#[async_trait]
impl Groups for EtcdSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.layout.group(group);
        // By this mark a repetition knows its own work from another's.
        let made = format!("{:016x}", fastrand::u64(..));
        let record = write(&GroupRecord { group, made })?;
        for _ in 0..3 {
            let mut success = vec![put(folder.listed(), record.clone(), 0), put(folder.marker(), record.clone(), 0)];
            success.extend(self.layout.write_version());
            let txn = TxnRequest {
                compare: vec![absent(folder.marker()), self.layout.version_unchanged()],
                success,
                failure: vec![
                    get(one(folder.marker())),
                    self.layout.read_version(),
                    get(without_value(folder.listed())),
                ],
            };
            let reply = self.client.txn(Lane::Wish, &txn).await?.message;
            if reply.succeeded {
                return Ok(());
            }
            let found = ranges(reply);
            let [marker, layout, listed] = found.as_slice() else {
                return Err(error::strange("a transaction without answers"));
            };
            self.layout.learn(layout.kvs.first())?;
            match marker.kvs.first() {
                Some(marker) if marker.value == record => return Ok(()),
                Some(marker) => {
                    if listed.kvs.is_empty() {
                        self.list_again(&folder, marker).await?;
                    }
                    return Err(Error::group_exists(group));
                }
                // The namespace was moved into in between.
                None => {}
            }
        }
        Err(error::strange("the record of the layout changes all the time"))
    }

    /// Deletes a group, proving in the same step that it has no members.
    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.layout.group(group);
        let mut strangers: Vec<Vec<u8>> = Vec::new();
        let mut was_repeated = false;
        loop {
            let mut compare = vec![exists(folder.marker())];
            compare.extend(folder.members().without(&strangers).iter().map(none_of));
            let some = RangeRequest { limit: PAGE, ..all(&folder.members()) };
            let txn = TxnRequest {
                compare,
                success: vec![delete(folder.listed()), delete(folder.marker())],
                failure: vec![get(one(folder.marker())), get(some), get(without_value(folder.listed()))],
            };
            let reply = self.client.txn(Lane::Wish, &txn).await?;
            was_repeated |= reply.was_repeated;
            if reply.message.succeeded {
                return Ok(());
            }
            let found = ranges(reply.message);
            let [marker, members, listed] = found.as_slice() else {
                return Err(error::strange("a transaction without answers"));
            };
            match marker.kvs.is_empty() {
                // The first sending has done it.
                true if was_repeated => return Ok(()),
                true if listed.kvs.is_empty() => return Err(Error::no_group(group)),
                true => return self.list_no_more(&folder).await,
                false => {}
            }
            // Only what a driver wrote is a member.
            let (living, others): (Vec<_>, Vec<_>) =
                members.kvs.iter().partition(|kv| folder.entry(&kv.key, &kv.value).is_some());
            let count = usize::try_from(members.count).unwrap_or(0).saturating_sub(others.len());
            let found: Vec<_> = others.into_iter().map(|kv| kv.key.clone()).collect();
            if !living.is_empty() || found == strangers || found.len() > STRANGERS {
                return Err(if living.is_empty() {
                    keys_in_the_way(group, &found)
                } else {
                    Error::group_not_empty(group, count)
                });
            }
            strangers = found;
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let range = RangeRequest { keys_only: true, limit: PAGE, ..all(&self.layout.groups()) };
        let found = self.client.range(Lane::Wish, &range).await?;
        let revision = found.header.as_ref().map_or(0, |header| header.revision);
        let found = self.client.rest(&range, found, revision).await?;
        Ok(found.iter().filter_map(|kv| self.layout.group_of(&kv.key)).collect())
    }

    /// One transaction where no member of that name is there.
    ///
    /// The version of the session's key guards against a join that arrives after its withdrawal, as it does for locks.
    async fn join(&self, request: &JoinRequest) -> Result<()> {
        let lease = self.lease()?;
        let folder = self.layout.group(&request.group);
        let place = folder.member(&request.member);
        let value = write(&MemberRecord::new(&request.member, request.id, &request.capabilities, lease.id)?)?;
        let kind = HoldingKind::Membership { group: request.group.clone(), marker: folder.marker().into() };
        self.holdings.enlist(request.id, Holding::new(&place, kind))?;
        let mut replaced = None;
        loop {
            let version = lease.version();
            let txn = TxnRequest {
                compare: vec![
                    exists(folder.marker()),
                    version_is(&lease.key, version),
                    // Absent, or still the entry that it may take the place of.
                    replaced.map_or_else(|| absent(&place), |revision| written_at(&place, revision)),
                ],
                success: vec![put(&place, value.clone(), lease.id)],
                failure: vec![get(one(folder.marker())), get(one(&lease.key)), get(one(&place))],
            };
            let answered = self.client.txn(Lane::Wish, &txn).await;
            let in_doubt = match &answered {
                Ok(reply) => reply.was_repeated,
                Err(error) => error.outcome() == Outcome::Unknown,
            };
            if in_doubt {
                self.holdings.doubt_making(request.id);
            }
            let result = match answered {
                Err(error) => Err(error),
                Ok(reply) if reply.message.succeeded => {
                    let revision = reply.message.header.map_or(0, |header| header.revision);
                    self.holdings.confirm(request.id, revision);
                    return Ok(());
                }
                Ok(reply) => {
                    let found = ranges(reply.message);
                    let [marker, session, there] = found.as_slice() else {
                        return Err(error::strange("a transaction without answers"));
                    };
                    match (marker.kvs.first(), session.kvs.first(), there.kvs.first()) {
                        (_, None, _) => Err(error::session_is_gone()),
                        (None, _, _) => Err(Error::no_group(&request.group)),
                        (_, Some(session), there) => {
                            match follow(&self.client, lease, version, session.version).await {
                                Err(error) => Err(error),
                                Ok(()) => match meet(request, &folder, there) {
                                    None => {
                                        replaced = None;
                                        continue;
                                    }
                                    Some((there, JoinConflict::Itself)) => {
                                        self.holdings.doubt_making(request.id);
                                        self.holdings.confirm(request.id, there.mod_revision);
                                        return Ok(());
                                    }
                                    Some((there, JoinConflict::Replaces)) => {
                                        replaced = Some(there.mod_revision);
                                        continue;
                                    }
                                    Some((there, JoinConflict::Refused)) => {
                                        Err(self.namesake(request, &folder, there).await)
                                    }
                                },
                            }
                        }
                    }
                }
            };
            // What was surely not done needs no withdrawal.
            return match self.holdings.strike_unmade(request.id) {
                Certainty::Certain => result,
                Certainty::Doubtful => result.map_err(|error| error.with_outcome(Outcome::Unknown)),
            };
        }
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        let lease = self.lease()?;
        let place = self.layout.group(&request.group).member(&request.member);
        let value = write(&MemberRecord::new(&request.member, request.id, &request.capabilities, lease.id)?)?;
        let known = self.holdings.all().get(&request.id).map(|owned| owned.revision).filter(|known| *known > 0);
        let mut revision = known;
        loop {
            // Where nothing is known, this cannot succeed and reads what is there.
            let txn = TxnRequest {
                compare: vec![exists(&place), written_at(&place, revision.unwrap_or(0))],
                success: vec![put(&place, value.clone(), lease.id)],
                failure: vec![get(one(&place))],
            };
            let reply = self.client.txn(Lane::Duty, &txn).await?.message;
            let (done, now) = (reply.succeeded, revision_of(&reply));
            if done {
                self.note_revision(request, now);
                return Ok(());
            }
            let there = first(reply).ok_or_else(|| Error::not_member(request))?;
            if !is_of(request, &there) {
                return Err(Error::not_member(request));
            }
            // Written by an update of ours whose answer was lost.
            self.note_revision(request, there.mod_revision);
            if there.value == value {
                return Ok(());
            }
            revision = Some(there.mod_revision);
        }
    }

    /// Takes the entry out, if it is still that of this join.
    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let lease = self.lease()?;
        let place = self.layout.group(&request.group).member(&request.member);
        // What is told of the deletion must not be taken for one by force.
        let struck = self.holdings.strike(request.id);
        let certain = struck.as_ref().is_some_and(|owned| owned.certainty() == Certainty::Certain);
        let mut revision = struck.map_or(0, |owned| owned.revision);
        if !certain {
            // Nothing is deleted here: the entry may be another's. What may still arrive comes to nothing.
            withdraw_or_owe(&self.client, lease, &self.holdings, &[]).await?;
        }
        loop {
            let txn = TxnRequest {
                compare: vec![exists(&place), written_at(&place, revision)],
                success: vec![delete(&place)],
                failure: vec![get(one(&place))],
            };
            let reply = self.client.txn(Lane::Duty, &txn).await?.message;
            if reply.succeeded {
                return Ok(());
            }
            match first(reply) {
                Some(there) if is_of(request, &there) => revision = there.mod_revision,
                // Nothing, or another member's entry.
                _ => return Ok(()),
            }
        }
    }

    /// The members with their capabilities, and whether there is such a group: one request, for a thousand members at a time.
    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let folder = self.layout.group(group);
        let marker = without_value(folder.marker());
        let members = RangeRequest { limit: PAGE, ..all(&folder.members()) };
        let reading = vec![get(marker), get(members.clone())];
        let reply =
            self.client.txn(Lane::Wish, &TxnRequest { success: reading, ..TxnRequest::default() }).await?.message;
        let revision = revision_of(&reply);
        let Ok([marker, first]) = <[_; 2]>::try_from(ranges(reply)) else {
            return Err(error::strange("a transaction without answers"));
        };
        if marker.kvs.is_empty() {
            return Err(Error::no_group(group));
        }
        let found = self.client.rest(&members, first, revision).await?;
        // What no driver wrote is no member.
        let members = found.iter().filter_map(|kv| folder.entry(&kv.key, &kv.value)).collect();
        Ok(Roster::new(members, revision.unsigned_abs()))
    }

    /// Every change from before its members are read.
    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let folder = self.layout.group(group);
        let found = self.client.range(Lane::Wish, &without_value(folder.marker())).await?;
        if found.kvs.is_empty() {
            return Err(Error::no_group(group));
        }
        let Some(header) = found.header else { return Err(error::strange("a range without a header")) };
        Ok(Some(watch::group(&self.dispatch, folder, header.revision)))
    }
}

impl EtcdSession {
    /// The group is there, but the key was deleted by which it is listed.
    async fn list_again(&self, folder: &GroupFolder, marker: &KeyValue) -> Result<()> {
        let compare = vec![absent(folder.listed()), written_at(folder.marker(), marker.mod_revision)];
        let success = vec![put(folder.listed(), marker.value.clone(), 0)];
        self.client.txn(Lane::Wish, &TxnRequest { compare, success, failure: Vec::new() }).await.map(drop)
    }

    /// There is no such group, but the key by which it would be listed.
    async fn list_no_more(&self, folder: &GroupFolder) -> Result<()> {
        let (compare, success) = (vec![absent(folder.marker())], vec![delete(folder.listed())]);
        self.client.txn(Lane::Wish, &TxnRequest { compare, success, failure: Vec::new() }).await.map(drop)
    }

    /// The refusal, with the time after which the other's lease has ended unless it is kept alive.
    async fn namesake(&self, request: &JoinRequest, folder: &GroupFolder, there: &KeyValue) -> Error {
        if folder.entry(&there.key, &there.value).is_none() {
            let key = String::from_utf8_lossy(&there.key);
            let words = format!("what stands at {key} was written by no driver of tooz: delete it, or take it over");
            return Error::new(ErrorKind::AlreadyExists, words);
        }
        let asking = LeaseTimeToLiveRequest { id: there.lease, keys: false };
        let asked = self
            .client
            .ask(Lane::Wish, |connection| async move { connection.lease().lease_time_to_live(asking).await })
            .await;
        // Whole seconds, rounded down; one that is gone says less than zero.
        let rest = asked.ok().and_then(|reply| u64::try_from(reply.message.ttl + 1).ok());
        let rest = rest.map_or(self.timeout, Duration::from_secs);
        Error::namesake(request).with_retry_after(rest.min(self.timeout))
    }

    fn note_revision(&self, request: &JoinRequest, revision: i64) {
        if let Some(owned) = self.holdings.all().get_mut(&request.id) {
            owned.revision = owned.revision.max(revision);
        }
    }
}

/// What a join meets at its place.
fn meet<'a>(
    request: &JoinRequest,
    folder: &GroupFolder,
    there: Option<&'a KeyValue>,
) -> Option<(&'a KeyValue, JoinConflict)> {
    let there = there?;
    let meeting = match folder.entry(&there.key, &there.value) {
        Some(entry) => request.meets(entry.id),
        // What is no entry can be replaced by a join that may replace any entry.
        None if request.replace == Replace::Anybody => JoinConflict::Replaces,
        None => JoinConflict::Refused,
    };
    Some((there, meeting))
}

/// Whether that is the entry of this join.
fn is_of(request: &JoinRequest, there: &KeyValue) -> bool {
    MemberRecord::read(&there.value).is_some_and(|entry| entry.id == request.id)
}

fn keys_in_the_way(group: &GroupId, keys: &[Vec<u8>]) -> Error {
    let first = keys.first().map(|key| String::from_utf8_lossy(key)).unwrap_or_default();
    let words = format!(
        "among the members of group {group:?} lie {} keys that no driver of tooz wrote, such as {first}: delete them",
        keys.len()
    );
    Error::new(ErrorKind::NotEmpty, words)
}
