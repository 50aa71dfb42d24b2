//! What all handles of one coordinator share, and how each of them gets at the session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::sync::{Notify, watch};

use crate::connect::Settings;
use crate::credentials::CredentialSource;
use crate::driver::Driver;
use crate::events::SessionEvent;
use crate::heart::{self, Heart};
use crate::life::Live;
use crate::lock::Desk;
use crate::mailbox::Feeder;
use crate::options::{BackendUrl, Options};
use crate::session::{LockKey, Session};
use crate::supervisor::Phase;
use crate::{Error, ErrorKind, MemberId, RequestId, Result};

/// Counts the user's handles: when the last goes, the coordinator closes by itself.
pub(crate) struct Handle(pub(crate) Arc<Inner>);

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
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) suspended: AtomicBool,
    pub(crate) want_connection: Notify,
    pub(crate) want_session: Notify,
    pub(crate) stirred: Arc<Notify>,
    pub(crate) closing: watch::Sender<bool>,
    /// How the closing went, once it is over.
    pub(crate) closed: watch::Sender<Option<Result<(), (ErrorKind, String)>>>,
    /// When a task on the user's runtime ran last, where that is watched.
    pub(crate) last_run: OnceLock<Arc<AtomicU64>>,
    pub(crate) heart: OnceLock<Heart>,
    pub(crate) desks: Mutex<HashMap<LockKey, Weak<Desk>>>,
    pub(crate) listeners: Mutex<Vec<Feeder<SessionEvent>>>,
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
    /// Until it works, or can't ever.
    UntilItWorks,
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
        if let Some(live) = self.phase.borrow().usable(purpose) {
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
                            return Err(error.duplicate());
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

    /// Asks the session something that takes one request, bounded by the operation timeout. The question may be what finds out
    /// that the session is over: the next one is asked then.
    pub(crate) async fn ask<T, F>(
        self: &Arc<Self>,
        purpose: Purpose,
        what: impl FnOnce() -> String + Send + 'static,
        question: impl Fn(Arc<dyn Session>) -> F + Send + 'static,
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
        let what = Arc::new(OnceWord(Mutex::new(Some(what))));
        let for_error = Arc::clone(&what);
        let limit = self.settings.operation_timeout;
        self.heart()
            .begin(async move {
                let asked = async move {
                    let mut again = true;
                    loop {
                        let live = inner.session(purpose, Persistence::OneAttempt).await?;
                        let answer = live.call(question(Arc::clone(live.session()))).await;
                        // Where the session was ended from this side, the question may have been answered there all the same.
                        let unheard = live.ended.get().is_none();
                        match answer {
                            Err(error) if error.kind() == ErrorKind::Lost && unheard && again => again = false,
                            answer => return answer,
                        }
                    }
                };
                heart::within(limit, move || for_error.word(), asked).await
            })
            .answer()
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::TimedOut | ErrorKind::Closed => error.in_driver(name),
                _ => error.in_driver(name).context(what.word()),
            })
    }

    pub(crate) fn desk(self: &Arc<Self>, key: LockKey) -> Arc<Desk> {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(desk) = desks.get(&key).and_then(Weak::upgrade) {
            return desk;
        }
        let desk = Arc::new(Desk::new(key.clone(), Arc::clone(self)));
        desks.insert(key, Arc::downgrade(&desk));
        desk
    }

    /// Takes a desk that has gone out of the list.
    pub(crate) fn clear_desk(&self, key: &LockKey) {
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

    pub(crate) fn tell(&self, event: SessionEvent) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| !listener.is_closed());
        for listener in listeners.iter() {
            listener.push(event);
        }
    }

    /// Ends all event streams.
    pub(crate) fn hush(&self) {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).clear();
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

/// A text that is made only when somebody reads it, and kept then.
struct OnceWord<F>(Mutex<Option<F>>);

impl<F: FnOnce() -> String> OnceWord<F> {
    fn word(&self) -> String {
        let make = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        make.map_or_else(String::new, |make| make())
    }
}

/// What no waiting mends.
pub(crate) fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Config | ErrorKind::Unauthorized | ErrorKind::Unsupported | ErrorKind::Closed)
}
