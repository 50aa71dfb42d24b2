//! THE contract: what a driver implements, and the types that pass between a driver and core.
//!
//! Everything else, guards, local queues, re-join, deadlines, the heart, election, partitioning, is written once in core
//! on top of it. Driver code runs in the heart's runtime, so `tokio::spawn`, timers and sockets of a driver live there,
//! and a blocked application starves none of them. A driver's future is never dropped half-way while its session lives.

// Long because it is THE contract: whoever writes a driver reads this one page.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::checkup::{Checkup, Probe};
use crate::mailbox::PushStream;
use crate::{Characteristics, Clock, Error, ErrorKind, GroupId, LockName, MemberId, RequestId, Result, wait};

/// What tells one grant from the grants before it: it grows with every grant of the lock with which it conflicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct FencingToken(pub u64);

impl fmt::Display for FencingToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Whether a grant stands alone or beside others of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Nobody else holds the lock.
    Exclusive,
    /// Only other shared grants stand beside it.
    Shared,
}

impl LockMode {
    /// Whether two grants of these modes exclude each other.
    pub const fn conflicts_with(self, other: LockMode) -> bool {
        matches!(self, LockMode::Exclusive) || matches!(other, LockMode::Exclusive)
    }

    /// `exclusive` or `shared`.
    pub const fn name(self) -> &'static str {
        match self {
            LockMode::Exclusive => "exclusive",
            LockMode::Shared => "shared",
        }
    }
}

/// The two separate sets of locks: what users name, and one for the election of each group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Locks by name.
    Lock,
    /// The election of the group of that name.
    Election,
}

/// Which lock: the same name in two spaces is two locks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct LockKey {
    /// Lock or election.
    pub space: Space,
    /// The name of the lock, or of the group.
    pub name: Arc<str>,
}

impl LockKey {
    /// The key of a user's lock.
    pub fn lock(name: &LockName) -> Self {
        LockKey { space: Space::Lock, name: name.as_str().into() }
    }

    /// The key of a group's election.
    pub fn election(group: &GroupId) -> Self {
        LockKey { space: Space::Election, name: group.as_str().into() }
    }
}

/// `lock "x"` or `election of "g"`, as it stands in messages.
impl fmt::Display for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.space {
            Space::Lock => write!(formatter, "lock {:?}", self.name),
            Space::Election => write!(formatter, "election of group {:?}", self.name),
        }
    }
}

impl fmt::Debug for LockKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// One wish for one lock. The grant that it leads to is known by the request's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockRequest {
    /// Which lock.
    pub key: LockKey,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// The same in every repetition of this request.
    pub id: RequestId,
}

impl LockRequest {
    pub(crate) fn new(key: LockKey, mode: LockMode, id: RequestId) -> Self {
        LockRequest { key, mode, id }
    }
}

/// A driver's yes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Granted {
    /// The fencing token of the grant.
    pub token: FencingToken,
}

impl Granted {
    /// The lock is the request's, with this token.
    pub const fn new(token: FencingToken) -> Self {
        Granted { token }
    }
}

/// A grant as anybody may see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// Whose it is.
    pub member: MemberId,
    /// Exclusive or shared.
    pub mode: LockMode,
    /// Its fencing token.
    pub token: FencingToken,
    /// When it was granted, by the backend's wall clock, where that is known.
    pub since: Option<SystemTime>,
    /// The process that holds it, where the backend is of one host and knows.
    pub pid: Option<u32>,
}

impl Holder {
    /// A holder of whom nothing more is known.
    pub const fn new(member: MemberId, mode: LockMode, token: FencingToken) -> Self {
        Holder { member, mode, token, since: None, pid: None }
    }

    /// Adds when the grant was given.
    pub const fn since(mut self, since: SystemTime) -> Self {
        self.since = Some(since);
        self
    }

    /// Adds the process that holds it.
    pub const fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }
}

/// What a member says of itself: any value of `serde`, kept as JSON so that other tools can read it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Capabilities(Arc<str>);

impl Capabilities {
    /// From a value.
    pub fn new(value: &(impl Serialize + ?Sized)) -> Result<Self> {
        match serde_json::to_string(value) {
            Ok(json) => Ok(Capabilities(json.into())),
            Err(error) => Err(Error::config("these capabilities are no JSON").with_source(error)),
        }
    }

    /// From JSON, as a driver reads it back.
    pub fn from_json(json: impl AsRef<str>) -> Result<Self> {
        let json = json.as_ref().trim();
        match serde_json::from_str::<serde::de::IgnoredAny>(json) {
            Ok(_) => Ok(Capabilities(json.into())),
            Err(error) => Err(Error::config(format!("capabilities are JSON, but {json:.60?} is not: {error}"))),
        }
    }

    /// The JSON.
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// As a value again.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.0).map_err(|error| {
            Error::new(ErrorKind::Backend, "the capabilities are JSON of another shape").with_source(error)
        })
    }
}

/// `null`: nothing to say.
impl Default for Capabilities {
    fn default() -> Self {
        Capabilities("null".into())
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whose entry a join may take the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Nobody's: a living member of the same id is `AlreadyExists`.
    Nobody,
    /// An entry that this coordinator made before, with that request or a later one whose answer was lost. Another's is `AlreadyExists`.
    /// [`RequestId::is_before`] compares.
    Own(RequestId),
    /// Anybody's: the entry changes hands in one step, and the old member is told `MembershipLost`.
    Anybody,
}

/// One wish to be a member. The membership that it leads to is known by the request's id.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct JoinRequest {
    /// Of which group.
    pub group: GroupId,
    /// As whom.
    pub member: MemberId,
    /// The same in every repetition of this request.
    pub id: RequestId,
    /// What the member says of itself.
    pub capabilities: Capabilities,
    /// Whose entry it may take the place of.
    pub replace: Replace,
}

impl JoinRequest {
    pub(crate) fn new(
        group: GroupId,
        member: MemberId,
        id: RequestId,
        capabilities: Capabilities,
        replace: Replace,
    ) -> Self {
        JoinRequest { group, member, id, capabilities, replace }
    }

    /// What this join means for a living member of the same name, whom the join with the id `there` has made.
    pub fn meets(&self, there: RequestId) -> Meeting {
        match self.replace {
            _ if there == self.id => Meeting::Itself,
            Replace::Own(_) if there.is_before(self.id) => Meeting::Replaces,
            Replace::Anybody => Meeting::Replaces,
            Replace::Nobody | Replace::Own(_) => Meeting::Refused,
        }
    }
}

/// What a join finds where a living member has its name; see [`JoinRequest::meets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Its own entry: the join was done before, and its reply was lost.
    Itself,
    /// An entry that it takes the place of. The old member is told by [`Reporter::membership_lost`](crate::Reporter::membership_lost).
    Replaces,
    /// Somebody else: [`Error::namesake`].
    Refused,
}

/// A member as the backend lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RosterEntry {
    /// Who.
    pub member: MemberId,
    /// By which join: another id under the same name means that it left and came back.
    pub id: RequestId,
    /// What it says of itself.
    pub capabilities: Capabilities,
}

impl RosterEntry {
    /// A living member.
    pub const fn new(member: MemberId, id: RequestId, capabilities: Capabilities) -> Self {
        RosterEntry { member, id, capabilities }
    }
}

/// All living members of a group at one moment.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Roster {
    /// The members, in any order.
    pub members: Vec<RosterEntry>,
    /// Grows with every change, in the same count as [`Pushed::Delta`]; 0 for a driver that pushes no deltas.
    pub version: u64,
}

impl Roster {
    /// The members as of that version.
    pub const fn new(members: Vec<RosterEntry>, version: u64) -> Self {
        Roster { members, version }
    }
}

/// One change of a group.
#[derive(Clone, Debug)]
pub enum Change {
    /// Somebody came.
    Joined(RosterEntry),
    /// Somebody has gone: left, was replaced, or died.
    Left(MemberId),
    /// Somebody's capabilities are new.
    Updated(RosterEntry),
}

/// What a driver's watch tells. It is a hint: core reads again where it can't follow.
#[derive(Clone, Debug)]
pub enum Pushed {
    /// From here on nothing is missed. Said first, once; core then reads.
    Ready,
    /// Exactly this happened between two versions of the roster.
    Delta {
        /// The version that it follows; `None`: whatever came before.
        after: Option<u64>,
        /// The version that it makes.
        version: u64,
        /// What happened.
        change: Change,
    },
    /// Something changed: read again.
    Dirty,
    /// Changes were missed: read again, and tell the user so.
    Gap,
    /// The group was deleted.
    Gone,
}

/// What a session and its backend agreed upon.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Terms {
    /// After this long without a heartbeat the backend may end the session; `None`: the kernel is the judge.
    pub timeout: Option<Duration>,
    /// The driver's smallest safe margin before that moment.
    pub margin: Duration,
    /// What this very session can do and promises.
    pub characteristics: Characteristics,
}

impl Terms {
    /// Terms with no margin of the driver's own.
    pub const fn new(timeout: Option<Duration>, characteristics: Characteristics) -> Self {
        Terms { timeout, margin: Duration::ZERO, characteristics }
    }

    /// Sets the driver's smallest margin.
    pub const fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }
}

/// What a session owns at its backend, finished or half done.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Owned {
    /// Lock grants and places in queues.
    pub locks: Vec<(LockKey, RequestId)>,
    /// Its members of groups. `None`: this backend forgets no join, update or leave that it has answered, so that there is nothing to mend.
    pub members: Option<Vec<(GroupId, RosterEntry)>>,
}

impl Owned {
    /// These grants and places in queues.
    pub const fn new(locks: Vec<(LockKey, RequestId)>) -> Self {
        Owned { locks, members: None }
    }

    /// And these members, all there are: for a backend that may fall back to an earlier state, as after a fail-over.
    #[must_use]
    pub fn with_members(mut self, members: Vec<(GroupId, RosterEntry)>) -> Self {
        self.members = Some(members);
        self
    }
}

/// Whether a waiting request is still wanted. It may change to false and back while the request waits. It is also the driver's way to
/// say that the request stands in the queue.
#[derive(Clone, Debug)]
pub struct Wanted(Arc<WantedState>);

/// Core's end of a [`Wanted`]. When it goes, nobody is left who could want the request.
#[derive(Debug)]
pub(crate) struct Wish(Arc<WantedState>);

/// A change of a [`Wish`] that has to be told yet, which wakes somebody: not under a lock.
#[must_use]
pub(crate) struct Untold(Arc<WantedState>);

#[derive(Debug, Default)]
struct WantedState {
    unwanted: AtomicBool,
    /// Whether it was unwanted for a moment since the attempt began.
    was_unwanted: AtomicBool,
    /// Whether any attempt ever stood in the queue.
    has_stood: AtomicBool,
    word: Mutex<Word>,
    changed: Notify,
}

/// What the driver has said of the present attempt.
#[derive(Debug, Default)]
struct Word {
    /// How many words there were.
    count: u64,
    latest: Option<Progress>,
}

/// How a wait at the backend goes.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// Somebody else has the lock, and the request stands in the queue.
    Queued,
    /// The driver tries again by itself.
    Trouble(Error),
}

impl WantedState {
    fn word(&self) -> MutexGuard<'_, Word> {
        self.word.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, progress: Option<Progress>) {
        let before = {
            let mut word = self.word();
            word.count += 1;
            std::mem::replace(&mut word.latest, progress)
        };
        drop(before);
        self.changed.notify_waiters();
    }
}

impl Wish {
    /// `None`: it was so before.
    pub(crate) fn set(&self, wanted: bool) -> Option<Untold> {
        if !wanted {
            self.0.was_unwanted.store(true, Ordering::Release);
        }
        (self.0.unwanted.swap(!wanted, Ordering::AcqRel) == wanted).then(|| Untold(Arc::clone(&self.0)))
    }

    /// Whether the driver's latest word is that the request stands in the queue: somebody else has the lock.
    pub(crate) fn is_queued(&self) -> bool {
        matches!(self.0.word().latest, Some(Progress::Queued))
    }

    pub(crate) fn has_stood(&self) -> bool {
        self.0.has_stood.load(Ordering::Acquire)
    }
}

impl Untold {
    pub(crate) fn tell(self) {
        self.0.changed.notify_waiters();
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        if let Some(untold) = self.set(false) {
            untold.tell();
        }
    }
}

impl Wanted {
    pub(crate) fn channel() -> (Wish, Wanted) {
        let state = Arc::<WantedState>::default();
        (Wish(Arc::clone(&state)), Wanted(state))
    }

    /// Whether it is wanted now.
    pub fn is_wanted(&self) -> bool {
        !self.0.unwanted.load(Ordering::Acquire)
    }

    /// Ends at once when the request is not wanted, else as soon as it is not.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn unwanted(&self) {
        loop {
            // Listening begins before the look, so that nothing is missed in between.
            let changed = self.0.changed.notified();
            if !self.is_wanted() {
                return;
            }
            changed.await;
        }
    }

    /// The driver's word that the backend has answered: somebody else has the lock, and this request stands in the queue. Without it
    /// nobody could tell a lock that is held from a backend that does not answer, and a wait with a time limit would end with an error.
    pub fn queued(&self) {
        self.0.has_stood.store(true, Ordering::Release);
        let is_said = matches!(self.0.word().latest, Some(Progress::Queued));
        if !is_said {
            self.0.say(Some(Progress::Queued));
        }
    }

    /// The word of a driver that goes on by itself after an error, for example because the place in the queue is kept by that: why it does not
    /// get through just now. The next [`queued`](Self::queued) takes it back.
    pub fn trouble(&self, error: &Error) {
        self.0.say(Some(Progress::Trouble(error.clone())));
    }

    /// A new attempt has no place yet. Answers how many words there were.
    pub(crate) fn begin_attempt(&self) -> u64 {
        self.0.was_unwanted.store(!self.is_wanted(), Ordering::Release);
        let mut word = self.0.word();
        word.latest = None;
        word.count
    }

    /// Whether the driver had a reason to withdraw the attempt.
    pub(crate) fn was_unwanted(&self) -> bool {
        self.0.was_unwanted.load(Ordering::Acquire)
    }

    /// The next word after that many.
    pub(crate) async fn next_word(&self, seen: &mut u64) -> Progress {
        loop {
            let changed = self.0.changed.notified();
            {
                let word = self.0.word();
                if word.count > *seen
                    && let Some(latest) = &word.latest
                {
                    *seen = word.count;
                    return latest.clone();
                }
            }
            changed.await;
        }
    }
}

/// One session of a backend, and all that is asked of it.
///
/// Required are the methods of locks and [`close`](Self::close); the others answer `Unsupported`, or do what a backend
/// without that ability would. Every statement ends within a third of the session timeout, by a limit of the driver's own.
///
/// [`ErrorKind::Lost`] from any method is the driver's word that the whole session is over: core then opens a new one.
///
/// What core guarantees: one FIFO per lock and coordinator, at most one `try_lock` or `lock` in flight for a lock, none for
/// a lock that this session holds in a conflicting mode, and a `release` that may run beside a waiting `lock` of the same
/// lock. `acquire` calls `lock` alone, without a `try_lock` before it.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// What was agreed, as of now: read again after each beat. A timeout that has become shorter counts from the beat after which it is
    /// read first, so it must not hold at the backend before that.
    fn terms(&self) -> Terms;

    /// The clock that judges this session. Only test doubles have one of their own.
    fn clock(&self) -> Clock {
        Clock::boot_time()
    }

    /// Begins to own: makes the lease, the session key, the locked file. Called once, before the first lock or join; what
    /// comes before it (`holders`, `members`, `groups`, `watch_…`, `create_group`, `delete_group`) owns nothing.
    async fn open(&self) -> Result<()> {
        Ok(())
    }

    /// One heartbeat. It counts from the moment of the call, so it must prove that the authority which grants to others has
    /// seen it after that. Answers the requests whose grants were taken away meanwhile; `Lost` if the session is over.
    /// Not called where [`Terms::timeout`] is `None`.
    async fn beat(&self) -> Result<Vec<RequestId>> {
        Ok(Vec::new())
    }

    /// Takes the lock if it can be had now; `None` if not. A repetition with the same id finds its own grant.
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>>;

    /// Waits for the lock. Unwanted: withdraws and answers `None`, or `Some` if the grant won the race. A wait that can't
    /// be cancelled may ignore `wanted`. As soon as the backend has answered that somebody else has the lock, the driver says so by
    /// [`Wanted::queued`], and what it repeats by itself by [`Wanted::trouble`]. On an error core withdraws by [`release`](Self::release), also where what was asked last was
    /// not done: the request may have a place in the queue.
    ///
    /// The default tries again at every hint of [`watch_lock`](Self::watch_lock), or after short jittered pauses.
    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        wait::by_trying(self, request, wanted).await
    }

    /// Gives the grant of that request back, or withdraws it from the queue, also if it arrives there only later. May be
    /// repeated; a request that owns nothing is `Ok`. Never touches another request's grant.
    ///
    /// `Ok` tells the holder that nobody else could have the lock before, so it must come from a session that lives. Once that has
    /// ended the answer is `Lost`: the release is often what finds out, and then the lock may long be another's. `NotFound` where the session
    /// lives and the grant had been taken away before.
    async fn release(&self, request: &LockRequest) -> Result<()>;

    /// Whether the grant of that request is still what it was, as far as the process itself can see without waiting (a
    /// lock file that was not deleted). Called by every `is_held()`.
    fn holds(&self, _request: &LockRequest) -> bool {
        true
    }

    /// Who holds it now.
    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>>;

    /// Takes away the grant with exactly that token; `NotFound` if it is not there any more.
    async fn break_lock(&self, _key: &LockKey, _token: FencingToken) -> Result<()> {
        Err(Error::unsupported("breaking a lock"))
    }

    /// Makes a group; `AlreadyExists` if there is one.
    async fn create_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("creating a group"))
    }

    /// Deletes a group without members; `NotFound`, `NotEmpty`.
    async fn delete_group(&self, _group: &GroupId) -> Result<()> {
        Err(Error::unsupported("deleting a group"))
    }

    /// The groups of the namespace.
    async fn groups(&self) -> Result<Vec<GroupId>> {
        Err(Error::unsupported("listing groups"))
    }

    /// Enters the member. `NotFound`: no such group; `AlreadyExists` with `retry_after`: another living member of that id, see
    /// [`Replace`]. A repetition with the same id finds its own entry and is `Ok`.
    async fn join(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("joining a group"))
    }

    /// New capabilities for the membership of that join; `NotMember` if it is not there any more.
    async fn update(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("updating capabilities"))
    }

    /// Ends the membership of that join, also if it arrives only later. May be repeated; nothing to end is `Ok`.
    async fn leave(&self, _request: &JoinRequest) -> Result<()> {
        Err(Error::unsupported("leaving a group"))
    }

    /// The living members with their capabilities; `NotFound`.
    async fn members(&self, _group: &GroupId) -> Result<Roster> {
        Err(Error::unsupported("listing members"))
    }

    /// Watches a group; `None`: core polls. The stream ends with `Gone`, with the session, or when it is dropped.
    async fn watch_group(&self, _group: &GroupId) -> Result<Option<PushStream>> {
        Ok(None)
    }

    /// Watches who holds a lock: `Ready`, then `Dirty` at each change; `None`: core polls.
    async fn watch_lock(&self, _key: &LockKey) -> Result<Option<PushStream>> {
        Ok(None)
    }

    /// What this session owns at the backend. After a reconnect core gives back what it does not know, and says again what the backend
    /// has forgotten of its memberships.
    async fn owned(&self) -> Result<Owned> {
        Ok(Owned::default())
    }

    /// Duplicates of the file descriptors by which the kernel keeps what this session holds: as long as one of each is open
    /// in any process, nothing is freed. Empty where a server is the judge.
    #[cfg(unix)]
    fn descriptors(&self) -> Vec<std::os::fd::OwnedFd> {
        Vec::new()
    }

    /// One bare round trip, for measuring and for `tooz doctor`. It proves nothing about the session and owns nothing.
    async fn probe(&self, _probe: Probe) -> Result<()> {
        Ok(())
    }

    /// Looks at the server and at those of its settings that the driver's page warns of. Owns nothing and changes nothing.
    async fn check_up(&self) -> Result<Checkup> {
        Ok(Checkup::default())
    }

    /// Ends the session: hands over or frees all that it owns, then the session itself. Also called for a session that was
    /// lost, to end it at the server, and for one that was never opened; and again when it has failed. Core does not wait longer than the
    /// operation timeout.
    async fn close(&self) -> Result<()>;
}
