//! What all handles of one coordinator share, and how each of them gets at the session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use crate::connect::Settings;
use crate::credentials::CredentialSource;
use crate::driver::Driver;
use crate::events::SessionEvent;
use crate::forked::Ours;
use crate::heart::{self, Heart};
use crate::life::Live;
use crate::lock::Desk;
use crate::mailbox::Feeder;
use crate::options::{BackendUrl, Options};
use crate::session::{LockKey, Session};
use crate::supervisor::Phase;
use crate::trouble::{Troubles, Worry};
use crate::{Characteristics, Error, ErrorKind, MemberId, RequestId, Result};

/// Counts the user's handles: when the last goes, the coordinator closes by itself.
pub(crate) struct Handle(pub(crate) Ours<Arc<Inner>>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.begin_close();
    }
}

pub(crate) struct Inner {
    pub(crate) driver: &'static Driver,
    pub(crate) url: BackendUrl,
    pub(crate) options: Options,
    pub(crate) credentials: CredentialSource,
    pub(crate) member: MemberId,
    pub(crate) settings: Settings,
    /// What every session must have.
    pub(crate) require: Characteristics,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) suspended: AtomicBool,
    pub(crate) want_connection: Notify,
    pub(crate) want_session: Notify,
    pub(crate) stirred: Arc<Notify>,
    pub(crate) closing: watch::Sender<bool>,
    /// How the closing went, once it is over.
    pub(crate) closed: watch::Sender<Option<Result<()>>>,
    /// When a task on the user's runtime ran last, where that is watched.
    pub(crate) last_run: OnceLock<Arc<AtomicU64>>,
    pub(crate) heart: OnceLock<Heart>,
    pub(crate) desks: Mutex<HashMap<LockKey, Weak<Desk>>>,
    /// `None` once nothing can happen any more.
    pub(crate) listeners: Mutex<Option<Vec<Arc<Feeder<SessionEvent>>>>>,
    pub(crate) troubles: Troubles,
    /// Why the latest attempt to have a session has failed; `None` while there is one.
    pub(crate) no_session: Mutex<Option<Error>>,
    pub(crate) nonce: u64,
    pub(crate) requests: AtomicU64,
}

/// For what a session is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To read, or to change what belongs to nobody: a connection is enough.
    Look,
    /// To own something: the session must be open.
    Own,
}

/// How a session is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// One fresh attempt that fails is an answer.
    OneAttempt,
    /// Until it works, or is refused: then whoever waits decides whether to go on.
    UntilRefused,
}

impl Inner {
    /// Only a coordinator with its heart leaves `start`.
    pub(crate) fn heart(&self) -> &Heart {
        self.heart.get().expect("started before it is shared")
    }

    pub(crate) fn request_id(&self) -> RequestId {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.nonce) << 64 | u128::from(count))
    }

    /// A living session. Runs on the heart, or at least can be polled by anybody.
    pub(crate) async fn session(&self, purpose: Purpose, persistence: Persistence) -> Result<Arc<Live>> {
        let usable = self.phase.borrow().usable(purpose);
        if let Some(live) = usable {
            return Ok(live);
        }
        let mut phases = self.phase.subscribe();
        let mut seen = self.phase.borrow().attempt();
        loop {
            {
                let phase = phases.borrow_and_update();
                if let Some(live) = phase.usable(purpose) {
                    return Ok(live);
                }
                match &*phase {
                    Phase::Closed => return Err(heart::gone().in_driver(self.driver.name())),
                    Phase::Down { attempt, error: Some(error) } if *attempt > seen => {
                        if persistence == Persistence::OneAttempt || is_final(error) {
                            return Err(error.clone());
                        }
                        seen = *attempt;
                    }
                    _ => {}
                }
            }
            match purpose {
                Purpose::Look => self.want_connection.notify_one(),
                Purpose::Own => self.want_session.notify_one(),
            }
            if phases.changed().await.is_err() {
                return Err(heart::gone());
            }
        }
    }

    /// A living session for what has stood before: a refusal is told, and waited out. Only the close is an error.
    pub(crate) async fn session_kept(&self, purpose: Purpose, worry: &mut Worry) -> Result<Arc<Live>> {
        loop {
            match self.session(purpose, Persistence::UntilRefused).await {
                // The next attempt comes after a pause already.
                Err(error) if error.kind() != ErrorKind::Closed => worry.about(&error),
                session => return session,
            }
        }
    }

    /// Asks the session something that takes one request, bounded by the operation timeout. The question may be what finds out
    /// that the session is over: the next one is asked then.
    pub(crate) async fn ask<T, F>(
        self: &Arc<Self>,
        purpose: Purpose,
        what: impl Fn() -> String + Send + Sync + 'static,
        question: impl Fn(Arc<dyn Session>) -> F + Send + Sync + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let inner = Arc::clone(self);
        let name = self.driver.name();
        if self.is_forked() {
            return Err(heart::gone().in_driver(name));
        }
        let limit = self.settings.operation_timeout;
        let what = Arc::new(what);
        let asking = Arc::clone(&what);
        let begun = self.heart().begin(async move {
            let asked = async move {
                let answer = inner.asked(purpose, question).await;
                answer.map_err(|error| if error.kind() == ErrorKind::Closed { error } else { error.context(asking()) })
            };
            heart::within(limit, || what(), asked).await
        });
        begun.answer().await.map_err(|error| error.in_driver(name))
    }

    async fn asked<T, F>(&self, purpose: Purpose, question: impl Fn(Arc<dyn Session>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut again = true;
        loop {
            let live = self.session(purpose, Persistence::OneAttempt).await?;
            let answer = live.call(|session| question(Arc::clone(session))).await;
            // Where the session was ended from this side, the question may have been answered there all the same.
            let unheard = live.ended.get().is_none();
            match answer {
                Err(error) if error.kind() == ErrorKind::Lost && unheard && again => again = false,
                answer => return answer,
            }
        }
    }

    pub(crate) fn desk(self: &Arc<Self>, key: LockKey) -> Arc<Desk> {
        // A forked child does not touch the list, which may be locked by a thread that is not there.
        if self.is_forked() {
            return Arc::new(Desk::new(key, Arc::clone(self)));
        }
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desks.get(&key).and_then(Weak::upgrade) {
            return desk;
        }
        let desk = Arc::new(Desk::new(key.clone(), Arc::clone(self)));
        desks.insert(key, Arc::downgrade(&desk));
        desk
    }

    /// Takes a desk that has gone out of the list. A forked child does not: the list may be locked by a thread that is not there.
    pub(crate) fn clear_desk(&self, key: &LockKey) {
        if self.is_forked() {
            return;
        }
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if desks.get(key).is_some_and(|desk| desk.strong_count() == 0) {
            desks.remove(key);
        }
    }

    /// Lets every local queue look whether something that was in the way is lost.
    pub(crate) fn stir_desks(&self) {
        for desk in self.all_desks() {
            desk.pump();
        }
    }

    /// Tells everybody who waits that there is nothing to wait for any more.
    pub(crate) fn refuse_all(&self) {
        for desk in self.all_desks() {
            desk.refuse_all();
        }
    }

    fn all_desks(&self) -> Vec<Arc<Desk>> {
        let desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        desks.values().filter_map(Weak::upgrade).collect()
    }

    /// Begins to listen. After the end of all events the feeder is dropped here, which ends the stream.
    pub(crate) fn listen(&self, feeder: Feeder<SessionEvent>) {
        if let Some(listeners) = &mut *self.listeners() {
            listeners.retain(|listener| !listener.is_closed());
            listeners.push(Arc::new(feeder));
        }
    }

    /// Tells everybody who listens; without the lock, since whoever is woken may begin to listen at once.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        let listeners = self.listeners().clone().unwrap_or_default();
        for listener in listeners {
            listener.push(event.clone());
        }
    }

    /// Ends all event streams, and those that somebody asks for later.
    pub(crate) fn hush(&self) {
        let listeners = self.listeners().take();
        drop(listeners);
    }

    fn listeners(&self) -> MutexGuard<'_, Option<Vec<Arc<Feeder<SessionEvent>>>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn why_no_session(&self) -> Option<Error> {
        self.no_session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_no_session(&self, why: Option<Error>) {
        let before = std::mem::replace(&mut *self.no_session.lock().unwrap_or_else(PoisonError::into_inner), why);
        drop(before);
    }

    /// Whether heartbeats fail, or there is no session at all: then whatever else fails says nothing new.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.suspended.load(Ordering::Relaxed) || matches!(&*self.phase.borrow(), Phase::Down { .. })
    }

    pub(crate) fn is_forked(&self) -> bool {
        self.heart.get().is_none_or(Heart::is_forked)
    }

    pub(crate) fn begin_close(&self) {
        // A forked child has no heart and must not touch what its parent owns.
        if !self.is_forked() {
            self.closing.send_replace(true);
        }
    }
}

/// What ends a first call: nobody but the user can mend it. What has stood before is kept up all the same.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Config | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::Closed)
}
