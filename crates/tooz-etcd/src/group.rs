//! Groups: a marker, and a key for each member under that member's lease. Whatever must hold together is one transaction.

use tooz_core::{Error, ErrorKind, GroupId, JoinRequest, Meeting, Outcome, Result, Roster};

use crate::error;
use crate::keys::{GroupRecord, MemberRecord, write};
use crate::own::{Certainty, Owned, What};
use crate::proto::etcdserverpb::{LeaseTimeToLiveRequest, RangeRequest, TxnRequest, TxnResponse};
use crate::proto::mvccpb::KeyValue;
use crate::request::{absent, all, delete, exists, get, none_of, one, put, ranges, version_is, written_at};
use crate::session::Etcd;

impl Etcd {
    pub(crate) async fn make_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.keys.group(group);
        // By this mark a repetition knows its own work from another's.
        let made = format!("{:016x}", fastrand::u64(..));
        let record = write(&GroupRecord { group, made })?;
        let txn = TxnRequest {
            compare: vec![absent(folder.marker())],
            success: vec![put(folder.listed(), record.clone(), 0), put(folder.marker(), record.clone(), 0)],
            failure: vec![get(one(folder.marker()))],
        };
        let reply = self.txn(&txn).await?.message;
        let ours = reply.succeeded || first(reply).is_some_and(|marker| marker.value == record);
        if ours { Ok(()) } else { Err(Error::group_exists(group)) }
    }

    /// Deletes a group, proving in the same step that it has no members.
    pub(crate) async fn remove_group(&self, group: &GroupId) -> Result<()> {
        let folder = self.keys.group(group);
        let count = RangeRequest { count_only: true, ..all(&folder.members()) };
        let txn = TxnRequest {
            compare: vec![exists(folder.marker()), none_of(&folder.members())],
            success: vec![delete(folder.listed()), delete(folder.marker())],
            failure: vec![get(one(folder.marker())), get(count)],
        };
        let reply = self.txn(&txn).await?;
        if reply.message.succeeded {
            return Ok(());
        }
        let found = ranges(reply.message);
        let [marker, members] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
        match marker.kvs.is_empty() {
            // The first sending has done it.
            true if reply.was_repeated => Ok(()),
            true => Err(Error::no_group(group)),
            false => Err(Error::group_not_empty(group, usize::try_from(members.count).unwrap_or(0))),
        }
    }

    pub(crate) async fn list_groups(&self) -> Result<Vec<GroupId>> {
        let found = self.range(&RangeRequest { keys_only: true, ..all(&self.keys.groups()) }).await?;
        Ok(found.kvs.iter().filter_map(|kv| self.keys.group_of(&kv.key)).collect())
    }

    /// Enters the member, in one transaction where nobody of that name is there.
    ///
    /// The version of the session's key guards against a join that arrives after its withdrawal, as it does for locks.
    pub(crate) async fn enter_group(&self, request: &JoinRequest) -> Result<()> {
        let opened = self.opened()?;
        let folder = self.keys.group(&request.group);
        let place = folder.member(&request.member);
        let value = write(&MemberRecord::new(request, opened.lease.id)?)?;
        self.own.enlist(request.id, Owned::new(&place, What::Membership(request.group.clone())));
        let mut replaced = None;
        loop {
            let version = opened.version();
            let txn = TxnRequest {
                compare: vec![
                    exists(folder.marker()),
                    version_is(&opened.key, version),
                    // Absent, or still the entry that it may take the place of.
                    replaced.map_or_else(|| absent(&place), |revision| written_at(&place, revision)),
                ],
                success: vec![put(&place, value.clone(), opened.lease.id)],
                failure: vec![get(one(folder.marker())), get(one(&opened.key)), get(one(&place))],
            };
            let answered = self.txn(&txn).await;
            let in_doubt = match &answered {
                Ok(reply) => reply.was_repeated,
                Err(error) => error.outcome() == Outcome::Unknown,
            };
            if in_doubt {
                self.own.doubt_making(request.id);
            }
            let result = match answered {
                Err(error) => Err(error),
                Ok(reply) if reply.message.succeeded => {
                    let revision = reply.message.header.map_or(0, |header| header.revision);
                    self.own.confirm(request.id, revision);
                    return Ok(());
                }
                Ok(reply) => {
                    let found = ranges(reply.message);
                    let [marker, session, there] = found.as_slice() else {
                        return Err(error::strange("a transaction without answers"));
                    };
                    match (marker.kvs.first(), session.kvs.first(), there.kvs.first()) {
                        (_, None, _) => Err(error::lost("the session's key is gone, and so is the session")),
                        (None, _, _) => Err(Error::no_group(&request.group)),
                        (_, Some(session), None) => {
                            opened.raise(session.version);
                            replaced = None;
                            continue;
                        }
                        (_, Some(session), Some(there)) => {
                            opened.raise(session.version);
                            match request.meets(MemberRecord::read(&there.value)?.id) {
                                Meeting::Itself => {
                                    self.own.doubt_making(request.id);
                                    self.own.confirm(request.id, there.mod_revision);
                                    return Ok(());
                                }
                                Meeting::Replaces => {
                                    replaced = Some(there.mod_revision);
                                    continue;
                                }
                                Meeting::Refused => Err(self.namesake(request, there).await),
                            }
                        }
                    }
                }
            };
            // What was surely not done needs no withdrawal.
            return match self.own.strike_unmade(request.id) {
                Certainty::Certain => result,
                Certainty::Doubtful => result.map_err(|error| error.with_outcome(Outcome::Unknown)),
            };
        }
    }

    /// The refusal, with the time after which the other's lease has ended unless it is kept alive.
    async fn namesake(&self, request: &JoinRequest, there: &KeyValue) -> Error {
        let asking = LeaseTimeToLiveRequest { id: there.lease, keys: false };
        let asked = self.cluster.ask(|line| async move { line.lease().lease_time_to_live(asking).await }).await;
        let rest = asked.ok().and_then(|reply| u64::try_from(reply.message.ttl).ok());
        let rest = rest.map_or(self.timeout, std::time::Duration::from_secs);
        Error::namesake(request).with_retry_after(rest.min(self.timeout))
    }

    pub(crate) async fn update_member(&self, request: &JoinRequest) -> Result<()> {
        let opened = self.opened()?;
        let place = self.keys.group(&request.group).member(&request.member);
        let value = write(&MemberRecord::new(request, opened.lease.id)?)?;
        let known = self.own.owned().get(&request.id).map(|owned| owned.revision).filter(|known| *known > 0);
        let mut revision = known;
        loop {
            // Where nothing is known, this cannot succeed and reads what is there.
            let txn = TxnRequest {
                compare: vec![exists(&place), written_at(&place, revision.unwrap_or(0))],
                success: vec![put(&place, value.clone(), opened.lease.id)],
                failure: vec![get(one(&place))],
            };
            let reply = self.txn(&txn).await?.message;
            let (done, now) = (reply.succeeded, reply.header.as_ref().map_or(0, |header| header.revision));
            if done {
                self.note_revision(request, now);
                return Ok(());
            }
            let there = first(reply).ok_or_else(|| Error::not_member(request))?;
            if MemberRecord::read(&there.value)?.id != request.id {
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

    fn note_revision(&self, request: &JoinRequest, revision: i64) {
        if let Some(owned) = self.own.owned().get_mut(&request.id) {
            owned.revision = owned.revision.max(revision);
        }
    }

    /// Takes the entry out, if it is still that of this join.
    pub(crate) async fn leave_group(&self, request: &JoinRequest) -> Result<()> {
        let opened = self.opened()?;
        let place = self.keys.group(&request.group).member(&request.member);
        // Whoever hears of the deletion must not take it for one by force.
        let struck = self.own.strike(request.id);
        let certain = struck.as_ref().is_some_and(|owned| owned.certainty() == Certainty::Certain);
        let mut revision = struck.map_or(0, |owned| owned.revision);
        if !certain {
            // Nothing is deleted here: the entry may be another's. What may still arrive comes to nothing.
            self.withdraw(opened, &[]).await?;
        }
        loop {
            let txn = TxnRequest {
                compare: vec![exists(&place), written_at(&place, revision)],
                success: vec![delete(&place)],
                failure: vec![get(one(&place))],
            };
            let reply = self.txn(&txn).await?.message;
            if reply.succeeded {
                return Ok(());
            }
            match first(reply) {
                Some(there) if MemberRecord::read(&there.value)?.id == request.id => revision = there.mod_revision,
                // Nobody, or somebody else.
                _ => return Ok(()),
            }
        }
    }

    /// The members with their capabilities, and whether there is such a group: one request.
    pub(crate) async fn list_members(&self, group: &GroupId) -> Result<Roster> {
        let folder = self.keys.group(group);
        let marker = RangeRequest { keys_only: true, ..one(folder.marker()) };
        let reading = vec![get(marker), get(all(&folder.members()))];
        let reply = self.txn(&TxnRequest { success: reading, ..TxnRequest::default() }).await?.message;
        let version = reply.header.as_ref().map_or(0, |header| header.revision.unsigned_abs());
        let found = ranges(reply);
        let [marker, members] = found.as_slice() else { return Err(error::strange("a transaction without answers")) };
        if marker.kvs.is_empty() {
            return Err(Error::no_group(group));
        }
        let members = members.kvs.iter().map(|kv| MemberRecord::read(&kv.value)).collect::<Result<_>>()?;
        Ok(Roster::new(members, version))
    }

    /// Where a group can be watched from, or why not.
    pub(crate) async fn group_revision(&self, group: &GroupId) -> Result<i64> {
        let folder = self.keys.group(group);
        let found = self.range(&RangeRequest { keys_only: true, ..one(folder.marker()) }).await?;
        if found.kvs.is_empty() {
            return Err(Error::no_group(group));
        }
        found
            .header
            .map(|header| header.revision)
            .ok_or_else(|| Error::new(ErrorKind::Backend, "etcd's answer has no revision"))
    }
}

/// The first key that the first `get` of a transaction found.
fn first(response: TxnResponse) -> Option<KeyValue> {
    ranges(response).into_iter().next()?.kvs.into_iter().next()
}
