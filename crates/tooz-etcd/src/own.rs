//! What a session owns, and how it hears that something of it was taken away by force.
//!
//! Each key that is owned for longer than a moment has a watch of its own in the session's one feed. That costs the server a
//! few hundred bytes and nothing else: a watch of all locks would tell every member of everybody's releases, and an index
//! of what a session owns would double every write.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};
use tooz_core::driver::{Mutex, MutexGuard, Reporter, RequestId};
use tooz_core::{Error, ErrorKind, GroupId, Result};

use crate::cluster::{Cluster, Lane};
use crate::feed::{Feed, Notice, Scope, Watching};
use crate::keys::MemberRecord;
use crate::proto::etcdserverpb::{RangeRequest, TxnRequest};
use crate::request::{get, one, ranges};
use crate::session::Opened;
use crate::withdrawal::withdraw;

/// A key that is given back sooner is never watched: most locks are held for a moment.
const MOMENT: Duration = Duration::from_millis(50);
/// How many keys are looked at in one request; etcd allows 128 operations.
pub(crate) const BATCH: usize = 100;
/// How many keys one session may have. When it dies, etcd deletes all of them in one step, at about 20 µs each.
const MOST: usize = 50_000;
/// How soon a withdrawal that etcd could not write is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// What a key is to the session.
pub(crate) enum What {
    /// A place in a lock's queue. Whoever waits there is woken.
    Place(Arc<Notify>),
    /// A grant.
    Grant,
    /// A membership.
    Membership(GroupId),
}

/// A key of the session.
pub(crate) struct Owned {
    pub(crate) key: Vec<u8>,
    pub(crate) what: What,
    /// The revision that made it what it is: of its creation, or of the last change by its owner.
    pub(crate) revision: i64,
    /// Whether a request that makes this key was answered.
    settled: bool,
    /// Whether one was not, and may still arrive, at any time. That stays so.
    doubtful: bool,
    /// Whether a deletion of it was sent that was not answered.
    pub(crate) maybe_deleted: bool,
    watching: Option<Watching>,
}

/// Whether a request may still be under way that nobody waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// All that was sent was answered.
    Certain,
    /// Something was sent that was not answered, and may arrive later.
    Doubtful,
}

impl Owned {
    /// Whether deleting the key is enough to be rid of it.
    pub(crate) fn certainty(&self) -> Certainty {
        if self.settled && !self.doubtful { Certainty::Certain } else { Certainty::Doubtful }
    }

    /// A key that is about to be made.
    pub(crate) fn new(key: &[u8], what: What) -> Self {
        Owned {
            key: key.into(),
            what,
            revision: 0,
            settled: false,
            doubtful: false,
            maybe_deleted: false,
            watching: None,
        }
    }
}

/// What one session owns. A cheap clone.
#[derive(Clone)]
pub(crate) struct Own(Arc<Shared>);

struct Shared {
    owned: Mutex<HashMap<RequestId, Owned>>,
    /// Keys of which something was told that has to be looked at, and whether the session is one of them.
    doubts: Mutex<Doubts>,
    doubted: Notify,
    owing: Notify,
    fresh: mpsc::UnboundedSender<(Instant, RequestId)>,
}

#[derive(Default)]
struct Doubts {
    keys: Vec<RequestId>,
    session: bool,
    /// Places that were deleted, while those who may still be on their way there could not be shut out.
    owed: Vec<Vec<u8>>,
}

/// Where the keeper's task finds what is new.
pub(crate) struct Fresh(mpsc::UnboundedReceiver<(Instant, RequestId)>);

impl Own {
    pub(crate) fn new() -> (Self, Fresh) {
        let (fresh, receiver) = mpsc::unbounded_channel();
        let (owned, doubts) = (Mutex::default(), Mutex::default());
        let shared = Shared { owned, doubts, doubted: Notify::new(), owing: Notify::new(), fresh };
        (Own(Arc::new(shared)), Fresh(receiver))
    }

    pub(crate) fn owned(&self) -> MutexGuard<'_, HashMap<RequestId, Owned>> {
        self.0.owned.lock()
    }

    /// Notes a key before it is made, unless it is known from an earlier sending.
    pub(crate) fn enlist(&self, id: RequestId, fresh: Owned) -> Result<()> {
        let mut owned = self.owned();
        if owned.len() >= MOST && !owned.contains_key(&id) {
            return Err(Error::config(format!(
                "this coordinator has {MOST} locks, places in queues and memberships, and may have no more, since etcd ends them all in \
                 one step: spread them over several coordinators"
            )));
        }
        owned.entry(id).or_insert(fresh);
        Ok(())
    }

    /// Puts a key back that was struck.
    pub(crate) fn restore(&self, id: RequestId, struck: Owned) {
        self.owned().insert(id, struck);
    }

    /// Notes that something was sent that may make this key later.
    pub(crate) fn doubt_making(&self, id: RequestId) {
        if let Some(owned) = self.owned().get_mut(&id) {
            owned.doubtful = true;
        }
    }

    /// Notes that the key is there, made what it is by that revision. It is watched if it is still there after a moment.
    pub(crate) fn confirm(&self, id: RequestId, revision: i64) {
        if let Some(owned) = self.owned().get_mut(&id) {
            owned.revision = revision;
            owned.settled = true;
        }
        let _ = self.0.fresh.send((Instant::now() + MOMENT, id));
    }

    /// Forgets a key of which nothing was ever made, nor will be. Answers whether that is so.
    pub(crate) fn strike_unmade(&self, id: RequestId) -> Certainty {
        let mut owned = self.owned();
        if owned.get(&id).is_some_and(|owned| owned.doubtful) {
            return Certainty::Doubtful;
        }
        owned.remove(&id);
        Certainty::Certain
    }

    /// A place has become a grant.
    pub(crate) fn grant(&self, id: RequestId) {
        if let Some(owned) = self.owned().get_mut(&id) {
            owned.what = What::Grant;
        }
    }

    /// Forgets a key, and its watch.
    pub(crate) fn strike(&self, id: RequestId) -> Option<Owned> {
        let struck = self.owned().remove(&id);
        struck.map(|mut owned| {
            drop(owned.watching.take());
            owned
        })
    }

    /// Ends all watches. Answers the keys that there were.
    pub(crate) fn clear(&self) -> Vec<Vec<u8>> {
        let all = std::mem::take(&mut *self.owned());
        all.into_values().map(|owned| owned.key).collect()
    }

    /// Notes places of which only the deletion could be written.
    pub(crate) fn owe(&self, places: &[Vec<u8>]) {
        self.doubts().owed.extend_from_slice(places);
        self.0.owing.notify_one();
    }

    /// Doubts everything.
    fn doubt_all(&self) {
        let all: Vec<_> = self.owned().keys().copied().collect();
        let mut doubts = self.doubts();
        doubts.keys = all;
        doubts.session = true;
        drop(doubts);
        self.0.doubted.notify_one();
    }

    fn doubts(&self) -> MutexGuard<'_, Doubts> {
        self.0.doubts.lock()
    }

    fn doubt(&self, id: RequestId) {
        self.doubts().keys.push(id);
        self.0.doubted.notify_one();
    }

    fn doubt_session(&self) {
        self.doubts().session = true;
        self.0.doubted.notify_one();
    }
}

/// The task that watches what the session owns, and looks when something was told of it.
pub(crate) struct Keeper {
    pub(crate) own: Own,
    pub(crate) feed: Arc<Feed>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) reporter: Reporter,
    pub(crate) opened: Arc<Opened>,
    /// The revision after which the session's key is watched.
    pub(crate) since: i64,
}

impl Keeper {
    pub(crate) fn start(self, fresh: Fresh) -> AbortHandle {
        tokio::spawn(self.run(fresh)).abort_handle()
    }

    async fn run(self, Fresh(mut fresh): Fresh) {
        let own = self.own.clone();
        let _session = self.feed.watch(Scope::key(&self.opened.key, self.since + 1), move |notice| match notice {
            Notice::Deleted { .. } | Notice::Gap => own.doubt_session(),
            Notice::Ready { .. } | Notice::Put(_) => {}
        });
        let watching = async {
            // All come of age in the order in which they came.
            while let Some((when, id)) = fresh.recv().await {
                sleep_until(when).await;
                self.watch(id);
            }
        };
        let looking = async {
            let mut pause = Duration::from_millis(50);
            loop {
                self.own.0.doubted.notified().await;
                while self.look().await.is_err() {
                    // The deadline judges meanwhile.
                    sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(1));
                }
                pause = Duration::from_millis(50);
            }
        };
        // What a watch tells is not all that can happen to a key: a cluster that was set back knows nothing of some, and tells nothing.
        let doubting = async {
            let (mut restands, mut set_backs) = (self.feed.restands(), self.cluster.history.set_backs());
            loop {
                tokio::select! {
                    Ok(()) = restands.changed() => self.own.doubt_all(),
                    Ok(()) = set_backs.changed() => {
                        self.own.doubt_all();
                        // What was given back since may stand there again.
                        self.reporter.connected();
                    }
                    else => return,
                }
            }
        };
        let paying = async {
            loop {
                self.own.0.owing.notified().await;
                while !self.own.doubts().owed.is_empty() {
                    sleep(AGAIN).await;
                    self.pay().await;
                }
            }
        };
        tokio::join!(watching, looking, doubting, paying);
    }

    fn watch(&self, id: RequestId) {
        let Some((key, from)) = self.own.owned().get(&id).map(|owned| (owned.key.clone(), owned.revision + 1)) else {
            return;
        };
        let own = self.own.clone();
        let watching = self.feed.watch(Scope::key(&key, from), move |notice| match notice {
            Notice::Ready { .. } => {}
            // New capabilities of one's own.
            Notice::Put(kv) if MemberRecord::read(&kv.value).is_some_and(|entry| entry.id == id) => {}
            Notice::Put(_) | Notice::Deleted { .. } | Notice::Gap => own.doubt(id),
        });
        let useless = match self.own.owned().get_mut(&id) {
            Some(owned) => owned.watching.replace(watching),
            // It was given back in between.
            None => Some(watching),
        };
        drop(useless);
    }

    /// Looks at all that is doubted, and tells what is gone.
    async fn look(&self) -> Result<()> {
        loop {
            let (doubted, session) = {
                let mut doubts = self.own.doubts();
                let count = doubts.keys.len().min(BATCH);
                let keys: Vec<_> = doubts.keys.drain(..count).collect();
                (keys, std::mem::take(&mut doubts.session))
            };
            if doubted.is_empty() && !session {
                return Ok(());
            }
            if let Err(error) = self.look_at(&doubted).await {
                let mut doubts = self.own.doubts();
                doubts.keys.extend(doubted);
                doubts.session |= session;
                return Err(error);
            }
        }
    }

    /// Withdraws what could only be deleted while etcd took no writes.
    async fn pay(&self) {
        let places: Vec<_> = {
            let mut doubts = self.own.doubts();
            let count = doubts.owed.len().min(BATCH);
            doubts.owed.drain(..count).collect()
        };
        if !places.is_empty()
            && let Err(error) = withdraw(&self.cluster, &self.opened, &places).await
            && error.kind() != ErrorKind::Lost
        {
            self.own.doubts().owed.extend(places);
        }
    }

    async fn look_at(&self, doubted: &[RequestId]) -> Result<()> {
        let keys: Vec<_> = {
            let owned = self.own.owned();
            let reading = |owned: &Owned| RangeRequest {
                // Of a grant it is enough that it is the same; a membership may have changed hands.
                keys_only: !matches!(owned.what, What::Membership(_)),
                ..one(&owned.key)
            };
            doubted.iter().filter_map(|id| owned.get(id).map(|owned| (*id, reading(owned)))).collect()
        };
        let mut reading = vec![get(one(&self.opened.key))];
        reading.extend(keys.iter().map(|(_, range)| get(range.clone())));
        let request = TxnRequest { success: reading, ..TxnRequest::default() };
        let reply = self.cluster.ask(Lane::First, |line| {
            let request = request.clone();
            async move { line.kv().txn(request).await }
        });
        let mut found = ranges(reply.await?.message).into_iter();
        if found.next().is_none_or(|session| session.kvs.is_empty()) {
            self.reporter.session_lost("its lease has ended at the server");
            return Ok(());
        }
        for ((id, _), found) in keys.into_iter().zip(found) {
            self.judge(id, found.kvs.first());
        }
        Ok(())
    }

    fn judge(&self, id: RequestId, found: Option<&crate::proto::mvccpb::KeyValue>) {
        enum Taken {
            No,
            Grant,
            Membership(GroupId),
        }
        let taken = match self.own.owned().get(&id) {
            None => Taken::No,
            Some(owned) => match &owned.what {
                What::Place(waiter) => {
                    // Whoever waits there looks for itself.
                    waiter.notify_one();
                    Taken::No
                }
                What::Grant if found.is_some_and(|kv| kv.create_revision == owned.revision) => Taken::No,
                What::Grant => Taken::Grant,
                What::Membership(group) => match found.map(|kv| MemberRecord::read(&kv.value)) {
                    Some(Some(entry)) if entry.id == id => Taken::No,
                    _ => Taken::Membership(group.clone()),
                },
            },
        };
        match taken {
            Taken::No => return,
            Taken::Grant => self.reporter.grant_lost(id),
            Taken::Membership(group) => self.reporter.membership_lost(&group, id),
        }
        drop(self.own.strike(id));
    }
}
