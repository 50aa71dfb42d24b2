//! What comes by itself, sent to whom it concerns: news to what the session holds or waits for, changes to those who watch.

use std::sync::Arc;
use std::time::Duration;

use tooz_core::driver::{FanOut, Mutex, MutexGuard, Pushed, Pusher};

use crate::holdings::Holdings;
use crate::layout::{Audience, Layout};
use crate::record::{self, News, SessionMessage};

/// The number of a session's first connection.
pub(crate) const FIRST_EPOCH: u64 = 1;

pub(crate) struct Dispatch {
    layout: Arc<Layout>,
    holdings: Arc<Holdings>,
    state: Mutex<DispatchState>,
}

struct DispatchState {
    /// No watch begins any more.
    ended: bool,
    /// Every message up to this number was heard. It never sinks, though the server may fall back to when it had told less:
    /// see `hello.lua`.
    heard: u64,
    /// The connection that the number is of.
    epoch: u64,
    /// Those who watch, by channel.
    watching: FanOut<String>,
}

/// What is to be done after a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowUp {
    /// It was sent on.
    Everything,
    /// A number was left out: ask for what came between.
    Gap,
    /// A member has come or changed whose session lives so long without a beat: look for its death then.
    Member(Duration),
}

impl Dispatch {
    pub(crate) fn new(layout: Arc<Layout>, holdings: Arc<Holdings>) -> Self {
        let state = DispatchState { ended: false, heard: 0, epoch: FIRST_EPOCH, watching: FanOut::default() };
        Dispatch { layout, holdings, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, DispatchState> {
        self.state.lock()
    }

    /// Every message up to this number was heard.
    pub(crate) fn heard(&self) -> u64 {
        self.state().heard
    }

    /// Sends on what the server pushes.
    pub(crate) fn hear(&self, channel: &str, text: &str) -> FollowUp {
        match self.layout.audience(channel) {
            None => FollowUp::Everything,
            Some(Audience::Session) => self.told(text),
            Some(Audience::Lock) => {
                self.push(channel, &Pushed::Dirty);
                FollowUp::Everything
            }
            Some(Audience::Group) => {
                let (pushed, life) = record::change(text).unwrap_or((Pushed::Dirty, Duration::ZERO));
                self.push(channel, &pushed);
                if life.is_zero() { FollowUp::Everything } else { FollowUp::Member(life) }
            }
        }
    }

    /// A message to this session. Told twice is told once: whatever it says is about one request.
    fn told(&self, text: &str) -> FollowUp {
        let Some(message) = SessionMessage::read(text) else { return FollowUp::Everything };
        let heard = {
            let mut state = self.state();
            if message.number <= state.heard {
                return FollowUp::Everything;
            }
            if message.number - 1 == state.heard {
                state.heard = message.number;
                FollowUp::Everything
            } else {
                FollowUp::Gap
            }
        };
        self.obey(message.news);
        heard
    }

    /// All messages that a beat has brought, in their order. What an earlier connection brings late may have been told by a server
    /// that knew more than the one of today: it counts for nothing there.
    pub(crate) fn catch_up(&self, epoch: u64, messages: &[String]) {
        for message in messages.iter().filter_map(|message| SessionMessage::read(message)) {
            self.obey(message.news);
            let mut state = self.state();
            if state.epoch == epoch {
                state.heard = state.heard.max(message.number);
            }
        }
    }

    /// The first word on a connection was answered: these messages, and `last` is the number of the last one that there was.
    pub(crate) fn begin(&self, epoch: u64, last: u64, messages: &[String]) {
        for message in messages.iter().filter_map(|message| SessionMessage::read(message)) {
            self.obey(message.news);
        }
        let mut state = self.state();
        state.heard = state.heard.max(last);
        state.epoch = epoch;
    }

    fn obey(&self, news: Option<News>) {
        match news {
            Some(News::Granted(request, granted)) => self.holdings.granted(request, granted),
            Some(News::Broken(request)) => self.holdings.broken(request),
            Some(News::Ousted(request, group)) => self.holdings.ousted(&group, request),
            None => {}
        }
    }

    /// Adds a watcher of a channel.
    pub(crate) fn watch(&self, channel: &str, pusher: Pusher) {
        let mut state = self.state();
        if !state.ended {
            state.watching.add(channel.to_owned(), pusher);
        }
    }

    pub(crate) fn is_watched(&self, channel: &str) -> bool {
        self.state().watching.knows(channel)
    }

    /// Whether anything is watched.
    pub(crate) fn any_watches(&self) -> bool {
        !self.state().watching.is_empty()
    }

    /// The channels that are watched.
    pub(crate) fn channels(&self) -> Vec<String> {
        self.state().watching.keys().cloned().collect()
    }

    /// Tells those who watch a channel.
    pub(crate) fn push(&self, channel: &str, pushed: &Pushed) {
        self.state().watching.push(channel, pushed);
    }

    /// Tells all who watch anything.
    pub(crate) fn push_to_all(&self, pushed: &Pushed) {
        self.state().watching.push_to_all(pushed);
    }

    /// Forgets watchers that have gone; answers the channels that none is left for.
    pub(crate) fn take_unwatched(&self) -> Vec<String> {
        self.state().watching.take_unwatched()
    }

    /// Ends every watch.
    pub(crate) fn end(&self) {
        let mut state = self.state();
        state.ended = true;
        state.watching.end();
    }
}
