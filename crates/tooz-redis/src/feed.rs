//! What comes by itself, sorted by whom it concerns: grants to those who wait, losses to core, changes to those who watch.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tooz_core::{FencingToken, Granted, GroupId, Pushed, Pusher, Reporter, RequestId, decode_name};

use crate::reply::request_id;

/// The number of a session's first connection.
pub(crate) const FIRST_EPOCH: u64 = 1;

/// How many of the grants and as many of the waiting requests each beat looks after, so that it costs the same whatever is held.
const LOOKED_AFTER: usize = 16;

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
    /// Up to where waiting requests and grants were looked after.
    turn: (RequestId, RequestId),
    watching: HashMap<String, Vec<Pusher>>,
}

/// What one who waits for a lock hears.
#[derive(Debug)]
pub(crate) enum News {
    Granted(Granted),
    /// The place in the queue may be gone, or have become a grant: ask again.
    AskAgain,
}

/// A request whose grant or place should still be at the server.
pub(crate) struct LookedAfter {
    pub(crate) request: RequestId,
    pub(crate) lock: String,
    pub(crate) is_waiting: bool,
}

impl Default for State {
    fn default() -> Self {
        State {
            ended: false,
            heard: 0,
            epoch: FIRST_EPOCH,
            waiting: BTreeMap::new(),
            held: BTreeMap::new(),
            turn: (RequestId(0), RequestId(0)),
            watching: HashMap::new(),
        }
    }
}

/// What is not at the server as it was thought to be.
enum Missed {
    Grant,
    Place(oneshot::Sender<News>),
}

impl State {
    /// One who waited when the question was sent may have been asked for before its own request reached the server, and may have the
    /// lock by now: what is missed must be what was looked after.
    fn miss(&mut self, missing: &LookedAfter) -> Option<Missed> {
        if missing.is_waiting {
            self.waiting.remove(&missing.request).map(|(_, waiter)| Missed::Place(waiter))
        } else {
            self.held.remove(&missing.request).map(|_| Missed::Grant)
        }
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
            lock: lock.clone(),
            is_waiting: false,
        };
        self.state().held.iter().map(looked_after).collect()
    }

    /// The next few of what should still be at the server. Whatever is there has its turn.
    pub(crate) fn look_after(&self) -> Vec<LookedAfter> {
        let mut state = self.state();
        let (mut waiting_turn, mut held_turn) = state.turn;
        let mut all = Vec::new();
        for (request, (lock, _)) in next_few(&state.waiting, &mut waiting_turn) {
            all.push(LookedAfter { request, lock: lock.clone(), is_waiting: true });
        }
        for (request, lock) in next_few(&state.held, &mut held_turn) {
            all.push(LookedAfter { request, lock: lock.clone(), is_waiting: false });
        }
        state.turn = (waiting_turn, held_turn);
        all
    }

    /// The server has something else of that request than was thought.
    pub(crate) fn miss(&self, missing: &LookedAfter) {
        let missed = self.state().miss(missing);
        match missed {
            Some(Missed::Grant) => self.reporter.grant_lost(missing.request),
            Some(Missed::Place(waiter)) => drop(waiter.send(News::AskAgain)),
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
        state.watching.clear();
    }
}

/// The next few behind `turn`, which moves on, and begins anew behind the last.
fn next_few<'a, V>(all: &'a BTreeMap<RequestId, V>, turn: &mut RequestId) -> Vec<(RequestId, &'a V)> {
    let behind = (Bound::Excluded(*turn), Bound::Unbounded);
    let few: Vec<_> = all.range(behind).take(LOOKED_AFTER).map(|(request, value)| (*request, value)).collect();
    *turn = few.last().filter(|_| few.len() == LOOKED_AFTER).map_or(RequestId(0), |(request, _)| *request);
    few
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
        let asked = |is_waiting| LookedAfter { request, lock: "l:x".into(), is_waiting };
        // The question was on its way before the request was, and the answers to both have come.
        state.held.insert(request, "l:x".into());
        assert!(state.miss(&asked(true)).is_none());
        assert!(state.held.contains_key(&request));
        assert!(matches!(state.miss(&asked(false)), Some(Missed::Grant)));
        // The other way round: it waits again under the same request.
        let (sender, _receiver) = oneshot::channel();
        state.waiting.insert(request, ("l:x".into(), sender));
        assert!(state.miss(&asked(false)).is_none());
        assert!(matches!(state.miss(&asked(true)), Some(Missed::Place(_))));
    }
}
