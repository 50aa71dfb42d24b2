//! Routes what the server tells by itself on one connection: to the watches of a coordinator, or to the session that lives on it.

use std::sync::{Arc, OnceLock};

use sqlx::postgres::PgNotification;
use tooz_core::driver::{FanOut, Mutex, MutexGuard, Pushed, Pusher};

use crate::holdings::Holdings;
use crate::record::{SessionNotice, pushed, told};

/// Where the notifications of one connection go. They are read between two jobs of the connection and never beside one, so a job that
/// begins to listen may enter its watcher after that.
#[derive(Default)]
pub(crate) struct Dispatch {
    /// The watchers of each channel that is listened to.
    channels: Mutex<FanOut<String>>,
    /// Set when the connection has become a session's: then all that is told concerns what that holds.
    session: OnceLock<Arc<Holdings>>,
}

impl Dispatch {
    fn channels(&self) -> MutexGuard<'_, FanOut<String>> {
        self.channels.lock()
    }

    /// From now on it is the session's, for good.
    pub(crate) fn belongs_to(&self, holdings: &Arc<Holdings>) {
        let _ = self.session.set(Arc::clone(holdings));
    }

    pub(crate) fn is_of_session(&self) -> bool {
        self.session.get().is_some()
    }

    pub(crate) fn tell(&self, notification: &PgNotification) {
        let (channel, payload) = (notification.channel(), notification.payload());
        if let Some(holdings) = self.session.get() {
            match told(payload) {
                Some(SessionNotice::Asked) => holdings.be_attentive(),
                Some(SessionNotice::TakenOver(id)) => holdings.robbed(id),
                None => {}
            }
            return;
        }
        let mut channels = self.channels();
        if channels.knows(channel) {
            channels.push(channel, &pushed(payload));
        }
    }

    /// Enters a watcher of a channel that is listened to, and tells it that from here on nothing is missed.
    pub(crate) fn enter(&self, channel: String, pusher: Pusher) {
        pusher.push(Pushed::Ready);
        self.channels().add(channel, pusher);
    }

    /// Whether the channel is listened to.
    pub(crate) fn knows(&self, channel: &str) -> bool {
        self.channels().knows(channel)
    }

    /// Forgets the channels that are not watched any more, and answers them.
    pub(crate) fn take_unwatched(&self) -> Vec<String> {
        self.channels().take_unwatched()
    }

    /// Whether nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.channels().is_empty()
    }

    /// Ends all watches: core watches anew.
    pub(crate) fn end(&self) {
        self.channels().end();
    }
}
