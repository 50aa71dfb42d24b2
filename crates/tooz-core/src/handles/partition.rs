//! Dividing keys between the members of a group: a hash ring that follows the group.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::forked::Ours;
use crate::base::hashring::HashRing;
use crate::base::id::{GroupId, MemberId};
use crate::driver::roster::RosterEntry;
use crate::engine::inner::Inner;
use crate::engine::standing::Standing;
use crate::handles::handle::Handle;
use crate::handles::watch::{Events, GroupEvent};

/// Up to these weights in all a ring is built in less time than it takes to wake a thread.
const SMALL: u64 = 16;

/// Says which member owns which key, by the consistent hash ring of Python's tooz, so that mixed fleets agree.
///
/// It follows the group by itself. A member's weight is its capability `{"weight": n}`, default 1; 0 means no share. While the
/// members stay, no key moves between two that both stayed. Ownership is advice: for a moment two members may both believe
/// that they own a key. Where that would hurt, take a lock as well.
///
/// ```no_run
/// # async fn example(membership: tooz_core::Membership, customers: Vec<String>) -> tooz_core::Result<()> {
/// let mut partitioner = membership.partitioner().await?;
/// loop {
///     for customer in customers.iter().filter(|customer| partitioner.belongs_to_self(customer)) {
///         println!("{customer} is ours");
///     }
///     if !partitioner.changed().await {
///         return Ok(());
///     }
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct Partitioner {
    ring: watch::Receiver<Arc<HashRing>>,
    own: Option<(MemberId, watch::Receiver<Standing>)>,
    /// Dropped with the last partitioner, which ends the task that follows the group.
    _following: Arc<Ours<oneshot::Sender<()>>>,
    _handle: Arc<Handle>,
}

impl Partitioner {
    /// Follows that group, on behalf of a member of it where there is one.
    pub(crate) async fn start(
        handle: Arc<Handle>,
        group: GroupId,
        own: Option<(MemberId, watch::Receiver<Standing>)>,
    ) -> Result<Self> {
        let inner = Arc::clone(&handle.inner);
        let mut events = Events::start(&inner, group.clone()).await?;
        let mut members = BTreeMap::new();
        if let Some(event) = poll_fn(|context| events.poll_event(context)).await {
            apply(&mut members, event);
        }
        let (following, left) = oneshot::channel();
        let first = inner.heart().begin(built(members.clone())).answer().await?;
        let (sender, ring) = watch::channel(first);
        let standing = own.as_ref().map(|(_, standing)| standing.clone());
        let follower = Follower { inner: Arc::clone(&inner), group, standing, events, members, rings: Rings(sender) };
        inner.heart().spawn(async move {
            tokio::select! {
                () = follower.follow() => {}
                _ = left => {}
            }
        });
        Ok(Partitioner { ring, own, _following: Arc::new(Ours::new(following)), _handle: handle })
    }

    /// The members that own `key`, the first owner first: at most `replicas`, fewer when the group is smaller.
    pub fn members_for(&self, key: impl AsRef<[u8]>, replicas: usize) -> Vec<MemberId> {
        self.ring.borrow().nodes_for(key, replicas).into_iter().filter_map(|name| MemberId::new(name).ok()).collect()
    }

    /// Whether `key` is one's own. False for every key for an observer, and once the membership is lost, judged by the clock at
    /// this call.
    pub fn belongs_to_self(&self, key: impl AsRef<[u8]>) -> bool {
        let Some((member, standing)) = &self.own else { return false };
        let standing = standing.borrow().clone();
        standing.is_in() && self.ring.borrow().node_for(key) == Some(member.as_str())
    }

    /// Divides these keys with bounded loads: no member gets more than 1.25 times its fair share; see [`HashRing::assign`].
    /// A few keys may move between members that stayed, which is the price of the bound.
    pub fn assign<K: AsRef<[u8]> + Ord>(&self, keys: impl IntoIterator<Item = K>) -> BTreeMap<K, MemberId> {
        let ring = Arc::clone(&self.ring.borrow());
        let assigned = ring.assign(keys);
        assigned.into_iter().filter_map(|(key, name)| Some((key, MemberId::new(name).ok()?))).collect()
    }

    /// Waits for the next change of owners since the last call. `false`: there will be none, the group or the coordinator
    /// is gone. (A member's partitioner outlasts the group as long as the membership is not over for ever: the backend may have lost all that it had, and the
    /// group comes back.)
    ///
    /// # Cancel safety
    /// Dropping it loses no change.
    pub async fn changed(&mut self) -> bool {
        self.ring.changed().await.is_ok()
    }
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Partitioner").field(&self.ring.borrow()).finish()
    }
}

/// The task behind a partitioner.
struct Follower {
    inner: Arc<Inner>,
    group: GroupId,
    /// Of the member on whose behalf it follows.
    standing: Option<watch::Receiver<Standing>>,
    events: Events,
    members: BTreeMap<MemberId, u32>,
    rings: Rings,
}

impl Follower {
    async fn follow(mut self) {
        loop {
            while let Some(event) = poll_fn(|context| self.events.poll_event(context)).await {
                apply(&mut self.members, event);
                // A group that starts all at once is one ring, not one for each member.
                // The end comes again at the next call.
                while let Some(event) = tokio::select! {
                    biased;
                    event = poll_fn(|context| self.events.poll_event(context)) => event,
                    () = std::future::ready(()) => None,
                } {
                    apply(&mut self.members, event);
                }
                let Ok(ring) = built(self.members.clone()).await else { return };
                self.rings.0.send_replace(ring);
            }
            match self.again().await {
                Some(events) => self.events = events,
                None => return,
            }
        }
    }

    /// The watch has ended. A member whose backend has forgotten its group may make it again, and then it is followed as before.
    async fn again(&mut self) -> Option<Events> {
        let standing = self.standing.as_mut()?;
        let mut pauses = Backoff::for_reconnects();
        loop {
            let is_over = matches!(&*standing.borrow_and_update(), Standing::Over(_));
            if is_over || self.inner.heart().is_stopped() {
                return None;
            }
            match Events::start(&self.inner, self.group.clone()).await {
                Ok(events) => return Some(events),
                Err(error) if error.kind() == ErrorKind::Closed => return None,
                // It is not there yet, or can't be reached.
                Err(_) => tokio::select! {
                    () = pauses.pause() => {}
                    changed = standing.changed() => changed.ok()?,
                },
            }
        }
    }
}

/// The rings of a group. Where its following ends, however it does, no member owns anything any more, as far as can be seen from here.
struct Rings(watch::Sender<Arc<HashRing>>);

impl Drop for Rings {
    fn drop(&mut self) {
        self.0.send_replace(Arc::default());
    }
}

fn apply(members: &mut BTreeMap<MemberId, u32>, event: GroupEvent) {
    match event {
        GroupEvent::Snapshot(all) | GroupEvent::Reset(all) => {
            *members = all.into_iter().map(|entry| (entry.member.clone(), weight_of(&entry))).collect();
        }
        GroupEvent::Joined(entry) | GroupEvent::Updated(entry) => {
            members.insert(entry.member.clone(), weight_of(&entry));
        }
        GroupEvent::Left(member) => {
            members.remove(&member);
        }
        GroupEvent::Deleted => members.clear(),
    }
}

fn weight_of(entry: &RosterEntry) -> u32 {
    let capabilities = entry.capabilities.get::<serde_json::Value>().unwrap_or_default();
    let weight = capabilities.get("weight").and_then(serde_json::Value::as_u64);
    weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(u32::MAX))
}

/// The ring of a group. Runs inside the heart's runtime, but is no work for the heart itself: of many members, or of great weights,
/// which any member may say of itself, a ring takes seconds. It fails only when the runtime ends.
async fn built(members: BTreeMap<MemberId, u32>) -> Result<Arc<HashRing>> {
    let weights: u64 = members.values().map(|weight| u64::from(*weight)).sum();
    if weights <= SMALL {
        return Ok(Arc::new(ring_of(&members)));
    }
    tokio::task::spawn_blocking(move || Arc::new(ring_of(&members))).await.map_err(|_| Error::closed())
}

fn ring_of(members: &BTreeMap<MemberId, u32>) -> HashRing {
    let mut ring = HashRing::new();
    ring.add_nodes(members.iter().map(|(member, weight)| (member.to_string(), *weight)));
    ring
}
