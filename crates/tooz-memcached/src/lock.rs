//! Locks: one round trip to acquire and one to give back; a waiter looks as often as suits its place in the line.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use tooz_core::driver::{Granted, LockKey, LockRequest, Locks, PushStream, RequestId, Space, Wanted, async_trait};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, LockMode, Outcome, Result, Waiter};

use crate::client::{Client, Lane};
use crate::error::{full, lost};
use crate::holdings::HeldLock;
use crate::journal::lock::{KEPT, LockJournal, QueuedRequest, break_off, compact, free, kept_for, release, withdraw};
use crate::journal::{End, LONG, SessionId, dead};
use crate::record::{Append, IfMissing, RecordReading};
use crate::reply::Batch;
use crate::session::MemcachedSession;
use crate::upkeep::Letter;

/// How many sessions are looked for each time.
const NEAREST: usize = 8;

/// How long a lock that is given back on a full server is kept at most, so that its tokens grow. It takes three seconds or four after a short time.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// A record that remembers more requests in doubt is written anew in two steps, which look whether their sessions live.
const FEW: usize = 16;

/// A lock as it was seen.
pub(crate) struct SeenLock {
    pub(crate) journal: LockJournal,
    pub(crate) seen: RecordReading,
}

impl SeenLock {
    pub(crate) fn of(seen: RecordReading) -> Result<Self> {
        Ok(SeenLock { journal: LockJournal::read(seen.text.as_deref().unwrap_or_default())?, seen })
    }

    /// The grant of the first request in it.
    pub(crate) fn grant(&self, lock: &LockKey, key: &str) -> HeldLock {
        let is_alone = self.journal.line.len() == 1 && self.journal.withdrawn.len() <= FEW;
        HeldLock {
            lock: lock.clone(),
            key: key.to_owned(),
            last_token: self.journal.last_token,
            version: self.seen.version,
            beside: is_alone.then(|| self.journal.remembered(&BTreeSet::new())),
        }
    }

    pub(crate) fn length(&self) -> usize {
        self.seen.text.as_ref().map_or(0, Vec::len)
    }

    /// The sessions of the nearest who are before that request, and of no others: readers keep no reader waiting.
    pub(crate) fn nearest(&self, request: RequestId) -> BTreeSet<SessionId> {
        let Some(own) = self.journal.place_of(request) else { return BTreeSet::new() };
        let before = self.journal.in_the_way(request).unwrap_or_default();
        sessions_against(own.mode, before)
    }
}

/// The sessions of the first few of these places that keep such a request from having the lock.
fn sessions_against<'a>(mode: LockMode, places: impl IntoIterator<Item = &'a QueuedRequest>) -> BTreeSet<SessionId> {
    let against = places.into_iter().filter(|place| place.mode.conflicts_with(mode));
    against.take(NEAREST).map(|place| place.session).collect()
}

impl Client {
    pub(crate) async fn look_at_lock(&self, key: &str) -> Result<SeenLock> {
        SeenLock::of(self.read(key).await?)
    }

    pub(crate) async fn append_to_lock(
        &self,
        key: &str,
        entry: &str,
        missing: IfMissing,
        lane: Lane,
        owned: bool,
    ) -> Result<SeenLock> {
        let append = Append { key, entry, missing, seconds: KEPT, lane, owned, compact };
        SeenLock::of(self.append(&append).await?)
    }

    /// Says of sessions that are gone that they are, and looks again.
    pub(crate) async fn bury(&self, key: &str, gone: &BTreeSet<SessionId>) -> Result<SeenLock> {
        let entries: String = gone.iter().map(|session| dead(*session)).collect();
        let look = self.append_to_lock(key, &entries, IfMissing::Leave, Lane::Duty, false).await?;
        self.tidy_lock(key, &look).await;
        Ok(look)
    }

    /// Writes a record anew where little of it counts. Where that fails the next one does it.
    async fn tidy_lock(&self, key: &str, look: &SeenLock) {
        let journal = &look.journal;
        if journal.line.is_empty() || (look.length() > LONG && journal.is_mostly_over()) {
            let _ = self.tidy(key, &look.seen, kept_for, compact).await;
        }
    }

    /// Takes a place in the line, or finds the one that is there.
    pub(crate) async fn line_up(&self, request: &LockRequest, key: &str) -> Result<SeenLock> {
        let place = QueuedRequest {
            request: request.id,
            session: self.session,
            mode: request.mode,
            token: self.clock.token(),
            member: self.member.clone(),
        };
        self.holdings.ask(request.id, key);
        match self.append_to_lock(key, &place.entry(), IfMissing::Make, Lane::Wish, true).await {
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

    /// The grant of that request, if no other is before it. Its session was seen to live in the same request.
    pub(crate) fn granted(&self, request: &LockRequest, key: &str, look: &SeenLock) -> Result<Option<Granted>> {
        let Some(before) = look.journal.in_the_way(request.id) else {
            return Err(match look.journal.end_of(request.id) {
                Some(End::Died) => lost(),
                _ => Error::new(ErrorKind::Unavailable, "the place in the line was taken away before its turn"),
            });
        };
        if !before.is_empty() {
            return Ok(None);
        }
        let Some(place) = look.journal.place_of(request.id) else { return Ok(None) };
        let grant = look.grant(&request.key, key);
        if !self.holdings.hold(request.id, grant) {
            return Err(Error::new(ErrorKind::Unavailable, "the lock was taken away before it was known to be given"));
        }
        Ok(Some(Granted::new(FencingToken(place.token))))
    }

    /// The lock without those among the first in the line that are dead.
    async fn look_at_the_living(&self, key: &str) -> Result<SeenLock> {
        let mut look = self.look_at_lock(key).await?;
        loop {
            let gone = self.gone_of(look.journal.holders().iter().map(|place| place.session)).await?;
            if gone.is_empty() {
                return Ok(look);
            }
            look = self.bury(key, &gone).await?;
        }
    }

    /// Whether a living session keeps that request from having the lock at once. The dead that would are taken out of the line.
    async fn is_barred(&self, request: &LockRequest, key: &str) -> Result<bool> {
        let mut look = self.look_at_lock(key).await?;
        loop {
            let against = sessions_against(request.mode, &look.journal.line);
            if against.is_empty() || look.journal.place_of(request.id).is_some() {
                return Ok(false);
            }
            let gone = self.gone_of(against.iter().copied()).await?;
            if !gone.is_empty() {
                look = self.bury(key, &gone).await?;
            }
            if gone.len() < against.len() {
                return Ok(true);
            }
        }
    }

    /// Gives back a grant, or a place in the line.
    async fn give_back(&self, request: RequestId, key: &str) -> Result<()> {
        let held = self.holdings.forget(request);
        let was_held = held.is_some();
        if let Some(grant) = held.filter(|_| !self.holdings.is_in_doubt(request))
            && let Some(beside) = beside_which(&grant)
        {
            match self.free_at_once(&grant, &beside).await {
                Ok(true) => {
                    self.holdings.settle(request);
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    if error.outcome() != Outcome::NotApplied {
                        self.holdings.doubt(request);
                    }
                    return Err(error);
                }
            }
        }
        let in_doubt = self.holdings.is_in_doubt(request);
        let entry = if in_doubt { withdraw(request, self.session) } else { release(request) };
        let missing = if in_doubt { IfMissing::Make } else { IfMissing::Leave };
        let look = match self.append_to_lock(key, &entry, missing, Lane::Duty, true).await {
            Ok(look) => look,
            Err(error) => {
                if error.outcome() != Outcome::NotApplied {
                    self.holdings.doubt(request);
                }
                return Err(error);
            }
        };
        if !in_doubt {
            self.holdings.settle(request);
        }
        self.tidy_lock(key, &look).await;
        match look.journal.end_of(request) {
            Some(End::Taken) => Err(taken()),
            Some(End::Died) => Err(lost()),
            None if was_held && !in_doubt => self.must_not_be_taken(request, &look.seen).await,
            Some(End::Given) | None => Ok(()),
        }
    }

    /// Sees that a grant of whose end the record tells nothing was not taken away before it was given back. A break tells the holder before
    /// it succeeds, so a break of which no letter tells goes on at the same time, and counts as the later of the two.
    async fn must_not_be_taken(&self, request: RequestId, seen: &RecordReading) -> Result<()> {
        let is_given = seen.may_have_forgotten() && !self.has_letter(Letter::Broken(request)).await?;
        if is_given { Ok(()) } else { Err(taken()) }
    }

    /// Frees a lock in whose record no other place stands, if that is still so. The last token is kept there, and what is to be remembered.
    ///
    /// A server without any room can only delete: that waits until whatever comes next begins with a later token.
    async fn free_at_once(&self, grant: &HeldLock, beside: &str) -> Result<bool> {
        let HeldLock { key, version, .. } = grant;
        let text = beside.to_owned() + &free(grant.last_token);
        let batch = if self.has_room(key.len(), text.len()).await? {
            Batch::default().swap(key, version.cas, &text, kept_for(&text))
        } else if !beside.is_empty() {
            return Ok(false);
        } else {
            let wait = self.clock.until_past(grant.last_token);
            if wait > LONGEST_WAIT {
                return Err(full());
            }
            sleep(wait).await;
            Batch::default().delete_version(key, version.cas)
        };
        let batch = batch.look(&self.session_key);
        let Some(mut done) = self.run_on(version.epoch, batch, Lane::Duty).await? else { return Ok(false) };
        let swapped = done.next().was_done()?.is_some();
        if !done.next().found()? {
            return Err(lost());
        }
        Ok(swapped)
    }
}

/// Beside what a grant stands, where it may be given back in one step. Once in a while it is not where requests in doubt are remembered: the longer way
/// looks whether these still have to be.
fn beside_which(grant: &HeldLock) -> Option<String> {
    grant.beside.clone().filter(|beside| beside.is_empty() || fastrand::u8(..16) > 0)
}

fn taken() -> Error {
    Error::new(ErrorKind::NotFound, "the grant was taken away, or its record was lost at the server")
}

fn holder(place: &QueuedRequest) -> Holder {
    Holder::new(place.member.clone(), place.mode, FencingToken(place.token))
}

#[async_trait]
impl Locks for MemcachedSession {
    /// Looks first: a request that can't have it leaves nothing behind.
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let (client, key) = (&self.client, self.client.layout.lock(&request.key));
        if client.is_barred(request, &key).await? {
            return Ok(None);
        }
        let mut look = client.line_up(request, &key).await?;
        loop {
            if let Some(granted) = client.granted(request, &key, &look)? {
                return Ok(Some(granted));
            }
            let gone = client.gone_of(look.nearest(request.id)).await?;
            if gone.is_empty() {
                break;
            }
            look = client.bury_and_live(&key, &gone).await?;
        }
        client.give_back(request.id, &key).await.map(|()| None)
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let (client, key) = (&self.client, self.client.layout.lock(&request.key));
        let look = client.line_up(request, &key).await?;
        if let Some(granted) = client.granted(request, &key, &look)? {
            return Ok(Some(granted));
        }
        wanted.queued();
        if let Some(granted) = client.wait(request, &key, look, wanted).await? {
            return Ok(Some(granted));
        }
        match client.give_back(request.id, &key).await {
            // A place that was lost is withdrawn as well.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map(|()| None),
        }
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.client.give_back(request.id, &self.client.layout.lock(&request.key)).await
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let look = self.client.look_at_the_living(&self.client.layout.lock(key)).await?;
        Ok(look.journal.holders().iter().map(holder).collect())
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let (client, key) = (&self.client, self.client.layout.lock(key));
        let missing = || Error::new(ErrorKind::NotFound, format!("no session holds it with token {token} any more"));
        let look = client.look_at_the_living(&key).await?;
        let holder = look.journal.holders().iter().find(|place| place.token == token.0);
        let (request, session) = holder.map(|place| (place.request, place.session)).ok_or_else(missing)?;
        let look = client.append_to_lock(&key, &break_off(request), IfMissing::Leave, Lane::Wish, false).await?;
        match look.journal.end_of(request) {
            Some(End::Taken) => client.tell(session, Letter::Broken(request)).await,
            // It is over, and this may have been its end.
            None if look.seen.may_have_forgotten() => client.tell(session, Letter::Broken(request)).await,
            _ => Err(missing()),
        }
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        match key.space {
            Space::Election => Ok(Some(self.watch_election(key))),
            // A waiter for a user's lock looks for itself.
            Space::Lock => Ok(None),
        }
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let look = self.client.look_at_the_living(&self.client.layout.lock(key)).await?;
        let waiters = look.journal.waiters();
        let gone = self.client.gone_of(waiters.iter().map(|place| place.session)).await?;
        let living = waiters.iter().filter(|place| !gone.contains(&place.session));
        Ok(living.map(|place| Waiter::new(place.member.clone(), place.mode)).collect())
    }
}
