//! What comes by itself, sorted by whom it concerns: grants to those who wait, losses to core, changes to those who watch.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::oneshot;
use tooz_core::driver::{Granted, Mutex, MutexGuard, Pushed, Pusher, Reporter, RequestId, decode_name};
use tooz_core::{FencingToken, GroupId};

use crate::holdings::{AT_ONCE, How, Joined, LOOKED_AFTER, LookedAfter, MEMBERSHIPS, Turn, next_few, share};
use crate::reply::request_id;

/// The number of a session's first connection.
pub(crate) const FIRST_EPOCH: u64 = 1;

pub(crate) struct Feed {
    reporter: Reporter,
    state: Mutex<State>,
}

struct State {
    /// Nobody is told anything any more.
    ended: bool,
    /// Every message up to this number was heard. It never sinks, though the server may fall back to when it had told less:
    /// see `hello.lua`.
    heard: u64,
    /// The connection that the number is of.
    epoch: u64,
    /// Requests that wait for a lock, and which.
    waiting: BTreeMap<RequestId, (String, oneshot::Sender<News>)>,
    /// Grants, and of which lock.
    held: BTreeMap<RequestId, String>,
    /// Memberships by their joins.
    joined: BTreeMap<RequestId, Joined>,
    /// Up to where waiting requests, grants and memberships were looked after.
    turn: Turn,
    watching: HashMap<String, Vec<Pusher>>,
}

/// What one who waits for a lock hears.
#[derive(Debug)]
pub(crate) enum News {
    Granted(Granted),
    /// The place in the queue may be gone, or have become a grant: ask again.
    AskAgain,
}

impl Default for State {
    fn default() -> Self {
        State {
            ended: false,
            heard: 0,
            epoch: FIRST_EPOCH,
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            joined: BTreeMap::new(),
            turn: Turn::default(),
            watching: HashMap::new(),
        }
    }
}

/// What is not at the server as it was thought to be.
enum Missed {
    Grant,
    Place(oneshot::Sender<News>),
    Membership(GroupId),
}

impl State {
    /// One who waited when the question was sent may have been asked for before its own request reached the server, and may have the
    /// lock by now: what is missed must be what was looked after.
    fn miss(&mut self, missing: &LookedAfter, epoch: u64) -> Option<Missed> {
        match missing.how {
            How::Waiting => self.waiting.remove(&missing.request).map(|(_, waiter)| Missed::Place(waiter)),
            How::Held => self.held.remove(&missing.request).map(|_| Missed::Grant),
            How::Joined => {
                // What a fail-over has forgotten core says again soon after the reconnect; what is missing a round later on the same
                // connection was taken away.
                let joined = self.joined.get_mut(&missing.request)?;
                if joined.missed.replace(epoch) != Some(epoch) {
                    return None;
                }
                self.joined.remove(&missing.request).map(|joined| Missed::Membership(joined.group))
            }
        }
    }

    fn waiters_after_turn(&mut self, count: usize) -> Vec<LookedAfter> {
        next_few(&self.waiting, &mut self.turn.waiting, count)
            .into_iter()
            .map(|(request, (lock, _))| LookedAfter { request, place: lock.clone(), how: How::Waiting })
            .collect()
    }
}

/// Whether something was missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Everything,
    /// A number was left out: ask for what came between.
    Gap,
}

/// A place in which a grant arrives. Dropping it says that nobody waits any more.
pub(crate) struct Expected<'a> {
    feed: &'a Feed,
    request: RequestId,
    news: oneshot::Receiver<News>,
}

impl Expected<'_> {
    /// What there is to hear; `None`: there will be nothing any more.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub(crate) async fn hear(&mut self) -> Option<News> {
        (&mut self.news).await.ok()
    }

    /// What has come already.
    pub(crate) fn heard(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.feed.state().waiting.remove(&self.request);
    }
}

impl Feed {
    pub(crate) fn new(reporter: Reporter) -> Self {
        Feed { reporter, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Begins to listen for the grant of a request, which must not have been sent yet.
    pub(crate) fn expect(&self, request: RequestId, lock: &str) -> Expected<'_> {
        let (sender, news) = oneshot::channel();
        let mut state = self.state();
        if !state.ended {
            state.waiting.insert(request, (lock.to_owned(), sender));
        }
        Expected { feed: self, request, news }
    }

    /// From now on the beats look after this grant.
    pub(crate) fn hold(&self, request: RequestId, lock: String) {
        self.state().held.insert(request, lock);
    }

    /// The grant is about to be given back: it won't be missed.
    pub(crate) fn forget(&self, request: RequestId) {
        self.state().held.remove(&request);
    }

    /// All grants that should be at the server.
    pub(crate) fn held(&self) -> Vec<LookedAfter> {
        let looked_after = |(request, lock): (&RequestId, &String)| LookedAfter {
            request: *request,
            place: lock.clone(),
            how: How::Held,
        };
        self.state().held.iter().map(looked_after).collect()
    }

    /// From now on the beats look after this membership.
    pub(crate) fn join(&self, request: RequestId, group: GroupId, place: String) {
        self.state().joined.insert(request, Joined { group, place, missed: None });
    }

    /// The membership is about to end.
    pub(crate) fn leave(&self, request: RequestId) {
        self.state().joined.remove(&request);
    }

    /// The next few of what should still be at the server, for one of the beats that are so far apart. Whatever is there has its turn.
    pub(crate) fn look_after(&self, interval: Duration) -> Vec<LookedAfter> {
        let mut state = self.state();
        let mut all = state.waiters_after_turn(LOOKED_AFTER);
        let State { held, joined, turn, .. } = &mut *state;
        for (request, lock) in next_few(held, &mut turn.held, share(held.len(), interval).max(LOOKED_AFTER)) {
            all.push(LookedAfter { request, place: lock.clone(), how: How::Held });
        }
        for (request, entry) in next_few(joined, &mut turn.joined, share(joined.len(), interval).max(MEMBERSHIPS)) {
            all.push(LookedAfter { request, place: entry.place.clone(), how: How::Joined });
        }
        all
    }

    /// What is to be looked after besides each beat, so that every waiting request has had its turn after two beats: in parts, each for
    /// one request.
    pub(crate) fn the_rest(&self) -> Vec<Vec<LookedAfter>> {
        let mut state = self.state();
        let mut left = state.waiting.len().div_ceil(2).saturating_sub(LOOKED_AFTER);
        let mut parts = Vec::new();
        while left > 0 {
            let part = state.waiters_after_turn(left.min(AT_ONCE));
            if part.is_empty() {
                break;
            }
            left = left.saturating_sub(part.len());
            parts.push(part);
        }
        parts
    }

    /// The server has something else of that request than was thought, as the connection of that number has told.
    pub(crate) fn miss(&self, missing: &LookedAfter, epoch: u64) {
        let missed = self.state().miss(missing, epoch);
        match missed {
            Some(Missed::Grant) => self.reporter.grant_lost(missing.request),
            Some(Missed::Place(waiter)) => drop(waiter.send(News::AskAgain)),
            Some(Missed::Membership(group)) => self.reporter.membership_lost(&group, missing.request),
            None => {}
        }
    }

    /// The server may have lost what was written last: everybody who waits asks again.
    pub(crate) fn ask_again(&self) {
        let waiting = std::mem::take(&mut self.state().waiting);
        for (_, waiter) in waiting.into_values() {
            let _ = waiter.send(News::AskAgain);
        }
    }

    pub(crate) fn heard(&self) -> u64 {
        self.state().heard
    }

    /// Whether anybody would like to know of somebody's silent death.
    pub(crate) fn is_curious(&self) -> bool {
        let state = self.state();
        !state.waiting.is_empty() || !state.watching.is_empty()
    }

    /// A message to this session, `NUMBER\nKIND\n…`. Told twice is told once: whatever it says is about one request.
    pub(crate) fn told(&self, message: &str) -> Heard {
        let Some((number, message)) = numbered(message) else { return Heard::Everything };
        let heard = {
            let mut state = self.state();
            if number <= state.heard {
                return Heard::Everything;
            }
            if number == state.heard + 1 {
                state.heard = number;
                Heard::Everything
            } else {
                Heard::Gap
            }
        };
        self.obey(message);
        heard
    }

    /// All messages that a beat has brought, in their order. What an earlier connection brings late may have been told by a server
    /// that knew more than the one of today: it counts for nothing there.
    pub(crate) fn catch_up(&self, epoch: u64, messages: &[String]) {
        for (number, message) in messages.iter().filter_map(|message| numbered(message)) {
            self.obey(message);
            let mut state = self.state();
            if state.epoch == epoch {
                state.heard = state.heard.max(number);
            }
        }
    }

    /// The first word on a connection was answered: these messages, and `last` is the number of the last one that there was.
    pub(crate) fn begin(&self, epoch: u64, last: u64, messages: &[String]) {
        for (_, message) in messages.iter().filter_map(|message| numbered(message)) {
            self.obey(message);
        }
        let mut state = self.state();
        state.heard = state.heard.max(last);
        state.epoch = epoch;
    }

    fn obey(&self, message: &str) {
        let mut words = message.splitn(3, '\n');
        let (Some(kind), Some(request)) = (words.next(), words.next().and_then(|text| request_id(text).ok())) else {
            return;
        };
        match (kind, words.next()) {
            ("granted", Some(token)) => {
                let waiter = self.state().waiting.remove(&request);
                if let (Some((_, waiter)), Ok(token)) = (waiter, token.parse()) {
                    // Nobody there any more: whoever gave up waiting gives the grant back by its request.
                    let _ = waiter.send(News::Granted(Granted::new(FencingToken(token))));
                }
            }
            ("broken", None) => {
                self.forget(request);
                self.reporter.grant_lost(request);
            }
            ("ousted", Some(group)) => {
                self.leave(request);
                if let Some(group) = decode_name(group).and_then(|group| GroupId::new(group).ok()) {
                    self.reporter.membership_lost(&group, request);
                }
            }
            _ => {}
        }
    }

    /// Adds a watcher of a channel.
    pub(crate) fn watch(&self, channel: &str, pusher: Pusher) {
        let mut state = self.state();
        if !state.ended {
            state.watching.entry(channel.to_owned()).or_default().push(pusher);
        }
    }

    pub(crate) fn is_watched(&self, channel: &str) -> bool {
        self.state().watching.contains_key(channel)
    }

    pub(crate) fn channels(&self) -> Vec<String> {
        self.state().watching.keys().cloned().collect()
    }

    /// Tells those who watch a channel.
    pub(crate) fn push(&self, channel: &str, pushed: &Pushed) {
        if let Some(watchers) = self.state().watching.get(channel) {
            for watcher in watchers {
                watcher.push(pushed.clone());
            }
        }
    }

    /// Tells everybody who watches anything.
    pub(crate) fn push_to_all(&self, pushed: &Pushed) {
        for watcher in self.state().watching.values().flatten() {
            watcher.push(pushed.clone());
        }
    }

    /// Forgets watchers that have gone; answers the channels that nobody watches any more.
    pub(crate) fn forget_the_gone(&self) -> Vec<String> {
        let mut unwatched = Vec::new();
        self.state().watching.retain(|channel, watchers| {
            watchers.retain(|watcher| !watcher.is_closed());
            if watchers.is_empty() {
                unwatched.push(channel.clone());
            }
            !watchers.is_empty()
        });
        unwatched
    }

    /// Ends every wait and every watch.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.waiting.clear();
        state.held.clear();
        state.joined.clear();
        state.watching.clear();
    }
}

fn numbered(message: &str) -> Option<(u64, &str)> {
    let (number, message) = message.split_once('\n')?;
    Some((number.parse().ok()?, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_not_missed_that_was_a_wish_when_the_question_was_sent() {
        let mut state = State::default();
        let request = RequestId(1);
        let asked = |how| LookedAfter { request, place: "l:x".into(), how };
        // The question was on its way before the request was, and the answers to both have come.
        state.held.insert(request, "l:x".into());
        assert!(state.miss(&asked(How::Waiting), 1).is_none());
        assert!(state.held.contains_key(&request));
        assert!(matches!(state.miss(&asked(How::Held), 1), Some(Missed::Grant)));
        // The other way round: it waits again under the same request.
        let (sender, _receiver) = oneshot::channel();
        state.waiting.insert(request, ("l:x".into(), sender));
        assert!(state.miss(&asked(How::Held), 1).is_none());
        assert!(matches!(state.miss(&asked(How::Waiting), 1), Some(Missed::Place(_))));
    }

    #[test]
    fn a_membership_is_missed_when_it_is_for_the_second_time_on_one_connection() {
        let mut state = State::default();
        let request = RequestId(1);
        let group: GroupId = "g".parse().unwrap();
        let asked = LookedAfter { request, place: "g:g\nm".into(), how: How::Joined };
        state.joined.insert(request, Joined { group, place: asked.place.clone(), missed: None });
        assert!(state.miss(&asked, 1).is_none());
        assert!(state.miss(&asked, 2).is_none());
        assert!(matches!(state.miss(&asked, 2), Some(Missed::Membership(_))));
        assert!(state.miss(&asked, 2).is_none());
    }
}
