//! Groups: each has a journal, and the names of all of them stand in one more.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tooz_core::driver::{Groups, JoinRequest, LockKey, PushStream, RequestId, Roster, async_trait};
use tooz_core::{Error, ErrorKind, GroupId, Outcome, Result};

use crate::client::{Client, Lane};
use crate::error::lost;
use crate::holdings::HeldMembership;
use crate::journal::group::{
    FOR_EVER, GroupJournal, compact, create, delete, join, join_again, kept_for, leave, update, withdraw,
};
use crate::journal::groups::{self, GroupsJournal};
use crate::journal::{End, LONG, SessionId, dead};
use crate::record::{Append, IfMissing, RecordReading};
use crate::reply::{Batch, Version};
use crate::server_clock::LONGER;
use crate::session::MemcachedSession;
use crate::upkeep::Letter;
use crate::watch::{Subject, watch};

/// The longest capabilities of one member, in bytes. A group and all that its members say has to fit into one value of the server, of 1 MB.
const MOST_CAPABILITIES: usize = 64 * 1024;

/// How many groups are looked at in one request.
const AT_ONCE: usize = 64;

/// A group as it was seen.
pub(crate) struct SeenGroup {
    pub(crate) journal: GroupJournal,
    pub(crate) seen: RecordReading,
}

impl SeenGroup {
    fn of(seen: RecordReading) -> Result<Self> {
        Ok(SeenGroup { journal: GroupJournal::read(seen.text.as_deref().unwrap_or_default())?, seen })
    }

    fn is_long(&self) -> bool {
        self.seen.text.as_ref().is_some_and(|text| text.len() > LONG) && self.journal.is_mostly_over()
    }

    pub(crate) fn sessions(&self) -> BTreeSet<SessionId> {
        self.journal.members.iter().map(|entry| entry.session).collect()
    }
}

/// Whose entry it is: that of a member, which has to live, or that of any session.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Member,
    Anybody,
}

impl Client {
    pub(crate) async fn look_at_group(&self, key: &str) -> Result<SeenGroup> {
        SeenGroup::of(self.read(key).await?)
    }

    async fn append_to_group(&self, key: &str, entry: &str, missing: IfMissing, whose: Whose) -> Result<SeenGroup> {
        let owned = whose == Whose::Member;
        let append = Append { key, entry, missing, seconds: FOR_EVER, lane: Lane::Wish, owned, compact };
        let look = SeenGroup::of(self.append(&append).await?)?;
        if look.is_long() {
            // The next one does it otherwise.
            let _ = self.tidy(key, &look.seen, kept_for, compact).await;
        }
        Ok(look)
    }

    /// Says of sessions that are gone that they are, and looks again.
    pub(crate) async fn bury_members(&self, key: &str, gone: &BTreeSet<SessionId>) -> Result<SeenGroup> {
        let entries: String = gone.iter().map(|session| dead(*session)).collect();
        self.append_to_group(key, &entries, IfMissing::Leave, Whose::Anybody).await
    }

    /// Appends what may have to be withdrawn.
    async fn append_of(&self, request: &JoinRequest, key: &str, entry: &str, missing: IfMissing) -> Result<SeenGroup> {
        match self.append_to_group(key, entry, missing, Whose::Member).await {
            Ok(look) => {
                if look.seen.in_doubt {
                    self.holdings.doubt(request.id);
                }
                Ok(look)
            }
            Err(error) => {
                if error.outcome() != Outcome::NotApplied {
                    self.holdings.doubt(request.id);
                }
                Err(error)
            }
        }
    }

    /// A join that was refused stays so: what may come late is voided.
    async fn refused(&self, request: &JoinRequest, key: &str, error: Error) -> Result<()> {
        if self.holdings.is_in_doubt(request.id) {
            let entry = withdraw(request.id, self.session);
            self.append_to_group(key, &entry, IfMissing::Make, Whose::Member).await?;
        } else {
            self.holdings.settle(request.id);
        }
        Err(error)
    }

    /// Looks whether a membership still stands. One that was lost with its record stands again, with its group.
    pub(crate) async fn look_at_membership(&self, request: RequestId) -> Result<()> {
        let _turn = self.memberships.lock().await;
        let Some(HeldMembership { request, key, made_by, count, .. }) = self.holdings.membership(request) else {
            return Ok(());
        };
        let mut look = self.look_at_group(&key).await?;
        if look.journal.entry_of(request.id).is_none() {
            match look.journal.end_of(request.id) {
                Some(End::Died) => return Err(self.session_is_gone()),
                Some(End::Given | End::Taken) => {}
                // A member that takes it over says so before it may go again, and the record may have forgotten it.
                None if self.has_letter(Letter::TakenOver(request.id)).await? => {}
                None => {
                    // The name first, as when it was made.
                    self.note_name(&groups::come(made_by, &request.group)).await?;
                    let entry = join_again(made_by, &request, self.session, count);
                    look = self.append_of(&request, &key, &entry, IfMissing::Make).await?;
                }
            }
        }
        if look.journal.entry_of(request.id).is_some() {
            self.holdings.saw_membership(request.id, look.seen.version, look.journal.made_by.unwrap_or(made_by));
        } else {
            self.holdings.ousted(request.id);
        }
        Ok(())
    }

    /// Forgets a membership that is about to end. From then on it never stands again.
    async fn forget_membership(&self, request: RequestId) {
        let _turn = self.memberships.lock().await;
        self.holdings.leave(request);
    }

    /// Deletes a record that says nothing. Another may have changed it, and then it is that one's.
    async fn clear_away(&self, key: &str, look: &SeenGroup) {
        if look.seen.text.is_some() && look.journal.is_nothing() {
            let batch = Batch::default().delete_version(key, look.seen.version.cas);
            let _ = self.run_on(look.seen.version.epoch, batch, Lane::Wish).await;
        }
    }

    /// How long a session lives without another heartbeat; `None`: it is gone. One that is kept only because of the server's clock
    /// has had its time, and is waited for.
    async fn left_of(&self, session: SessionId) -> Result<Option<Duration>> {
        let longest = Instant::now() + Duration::from_secs(LONGER + 1);
        loop {
            let mut done = self.run(Batch::default().look(&self.layout.session(session)), Lane::Wish).await?;
            let Some(flags) = done.next().flags()? else { return Ok(None) };
            let left = Duration::from_secs(u64::try_from(flags.left).unwrap_or(0));
            if left > Duration::from_secs(LONGER) || longest < Instant::now() {
                return Ok(Some(left));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a join has come to. `None`: the member that was in its way is dead, and it has to be asked again.
    async fn joined(&self, request: &JoinRequest, key: &str, look: &SeenGroup) -> Result<Option<()>> {
        let Some(made_by) = look.journal.made_by else {
            self.clear_away(key, look).await;
            return self.refused(request, key, Error::no_group(&request.group)).await.map(Some);
        };
        if look.journal.entry_of(request.id).is_some() {
            let version = look.seen.version;
            let membership =
                HeldMembership { request: request.clone(), key: key.to_owned(), version, made_by, count: 0 };
            self.holdings.join(request.id, membership);
            for (by, old) in &look.journal.replaced {
                if *by == request.id && old.session != self.session {
                    self.tell(old.session, Letter::TakenOver(old.request)).await?;
                } else if *by == request.id {
                    self.holdings.ousted(old.request);
                }
            }
            return Ok(Some(()));
        }
        if let Some(there) = look.journal.member(&request.member) {
            if let Some(left) = self.left_of(there.session).await? {
                let namesake = Error::namesake(request).with_retry_after(left.min(self.timeout));
                return self.refused(request, key, namesake).await.map(Some);
            }
            self.bury_members(key, &[there.session].into()).await?;
            return Ok(None);
        }
        match look.journal.end_of(request.id) {
            Some(End::Died) => Err(lost()),
            // Another took its place over at once, or the namesake has just gone.
            _ => Ok(None),
        }
    }
}

#[async_trait]
impl Groups for MemcachedSession {
    async fn create_group(&self, group: &GroupId) -> Result<()> {
        let (client, key) = (&self.client, self.client.layout.group(group));
        if client.look_at_group(&key).await?.journal.made_by.is_some() {
            return Err(Error::group_exists(group));
        }
        let id = fastrand::u64(..);
        // The name first: a group that is not listed could never be found.
        client.note_name(&groups::come(id, group)).await?;
        let look = client.append_to_group(&key, &create(id), IfMissing::Make, Whose::Anybody).await?;
        if look.journal.made_by == Some(id) {
            return Ok(());
        }
        let _ = client.note_name(&groups::gone(id)).await;
        Err(Error::group_exists(group))
    }

    async fn delete_group(&self, group: &GroupId) -> Result<()> {
        let (client, key) = (&self.client, self.client.layout.group(group));
        loop {
            let id = fastrand::u64(..);
            let look = client.append_to_group(&key, &delete(id), IfMissing::Leave, Whose::Anybody).await?;
            if let Some(made_by) = look.journal.deleted_by(id) {
                client.clear_away(&key, &look).await;
                let _ = client.note_name(&groups::gone(made_by)).await;
                return Ok(());
            }
            if look.journal.made_by.is_none() {
                // A record that was cleared away meanwhile does not tell that this has deleted the group.
                return if look.seen.may_have_forgotten() { Ok(()) } else { Err(Error::no_group(group)) };
            }
            let gone = client.gone_of(look.sessions()).await?;
            if gone.is_empty() {
                return Err(Error::group_not_empty(group, look.journal.members.len()));
            }
            client.bury_members(&key, &gone).await?;
        }
    }

    async fn groups(&self) -> Result<Vec<GroupId>> {
        let client = &self.client;
        let seen = client.read(&client.layout.groups()).await?;
        let journal = GroupsJournal::read(seen.text.as_deref().unwrap_or_default())?;
        let names: Vec<_> = journal.names().into_iter().collect();
        let mut there = Vec::new();
        for some in names.chunks(AT_ONCE) {
            let batch = some.iter().fold(Batch::default(), |batch, name| batch.get(&client.layout.group(name)));
            let done = client.run(batch, Lane::Wish).await?;
            for (name, reply) in some.iter().zip(done.rest()) {
                let text = reply.value()?.map(|(text, _)| text).unwrap_or_default();
                if GroupJournal::read(&text)?.made_by.is_some() {
                    there.push((*name).clone());
                }
            }
        }
        Ok(there)
    }

    async fn join(&self, request: &JoinRequest) -> Result<()> {
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let (client, key) = (&self.client, self.client.layout.group(&request.group));
        client.holdings.ask(request.id, &key);
        let entry = join(request, client.session);
        loop {
            let look = client.append_of(request, &key, &entry, IfMissing::Leave).await?;
            if client.joined(request, &key, &look).await?.is_some() {
                return Ok(());
            }
        }
    }

    async fn update(&self, request: &JoinRequest) -> Result<()> {
        request.refuse_more_than(MOST_CAPABILITIES)?;
        let (client, key) = (&self.client, self.client.layout.group(&request.group));
        let count = client.holdings.change(request).ok_or_else(|| Error::not_member(request))?;
        let entry = update(request, count);
        for _ in 0..2 {
            let look = client.append_of(request, &key, &entry, IfMissing::Leave).await?;
            if look.journal.entry_of(request.id).is_some() {
                return Ok(());
            }
            // The record may have been lost, and then the membership stands again behind this.
            client.look_at_membership(request.id).await?;
        }
        client.holdings.ousted(request.id);
        Err(Error::not_member(request))
    }

    async fn leave(&self, request: &JoinRequest) -> Result<()> {
        let (client, key) = (&self.client, self.client.layout.group(&request.group));
        client.forget_membership(request.id).await;
        let in_doubt = client.holdings.is_in_doubt(request.id);
        let entry = if in_doubt { withdraw(request.id, client.session) } else { leave(request.id) };
        let missing = if in_doubt { IfMissing::Make } else { IfMissing::Leave };
        match client.append_to_group(&key, &entry, missing, Whose::Member).await {
            Ok(_) if in_doubt => Ok(()),
            Ok(_) => {
                client.holdings.settle(request.id);
                Ok(())
            }
            // Nothing of it is left.
            Err(error) if error.kind() == ErrorKind::Lost => {
                client.session_is_gone();
                Ok(())
            }
            Err(error) => {
                if error.outcome() != Outcome::NotApplied {
                    client.holdings.doubt(request.id);
                }
                Err(error)
            }
        }
    }

    async fn members(&self, group: &GroupId) -> Result<Roster> {
        let (client, key) = (&self.client, self.client.layout.group(group));
        let mut look = client.look_at_group(&key).await?;
        loop {
            if look.journal.made_by.is_none() {
                return Err(Error::no_group(group));
            }
            let gone = client.gone_of(look.sessions()).await?;
            if gone.is_empty() {
                let members = look.journal.members.iter().map(crate::journal::group::MemberEntry::listed);
                return Ok(Roster::new(members.collect::<Result<_>>()?, 0));
            }
            look = client.bury_members(&key, &gone).await?;
        }
    }

    async fn watch_group(&self, group: &GroupId) -> Result<Option<PushStream>> {
        let key = self.client.layout.group(group);
        let look = self.client.look_at_group(&key).await?;
        if look.journal.made_by.is_none() {
            return Err(Error::no_group(group));
        }
        Ok(Some(watch(&self.client, Subject::Group(key), Version::default())))
    }
}

impl MemcachedSession {
    /// Watches the election of a group.
    pub(crate) fn watch_election(&self, key: &LockKey) -> PushStream {
        watch(&self.client, Subject::Election(self.client.layout.lock(key)), Version::default())
    }
}
