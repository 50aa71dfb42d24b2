//! What all handles of one coordinator share, and how each of them gets at the session.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::base::characteristic::Characteristics;
use crate::base::credentials::CredentialSource;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::event_queue::Feeder;
use crate::base::id::{MemberId, RequestId};
use crate::base::mutex::{Mutex, MutexGuard};
use crate::base::options::Options;
use crate::base::options::backend_url::BackendUrl;
use crate::base::session_event::SessionEvent;
use crate::base::settings::Settings;
use crate::driver::card::Driver;
use crate::driver::session::Session;
use crate::engine::heart::{Heart, within};
use crate::engine::live_session::LiveSession;
use crate::engine::phase::{Need, Phase};
use crate::engine::suspension::Suspension;
use crate::engine::telemetry::Telemetry;
use crate::engine::troubles::Troubles;

pub(crate) struct Inner {
    pub(crate) driver: &'static Driver,
    pub(crate) url: BackendUrl,
    pub(crate) options: Options,
    pub(crate) credentials: CredentialSource,
    pub(crate) member: MemberId,
    pub(crate) settings: Settings,
    pub(crate) telemetry: Arc<Telemetry>,
    /// What every session must have.
    pub(crate) require: Characteristics,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) suspension: Suspension,
    pub(crate) want_connection: Notify,
    pub(crate) want_session: Notify,
    pub(crate) stirred: Arc<Notify>,
    pub(crate) closing: watch::Sender<bool>,
    /// How the closing went, once it is over.
    pub(crate) closed: watch::Sender<Option<Result<()>>>,
    /// When a task on the user's runtime ran last, where that is watched.
    pub(crate) last_run: OnceLock<Arc<AtomicU64>>,
    pub(crate) heart: OnceLock<Heart>,
    /// `None` once nothing can happen any more.
    pub(crate) listeners: Mutex<Option<Vec<Arc<Feeder<SessionEvent>>>>>,
    pub(crate) troubles: Troubles,
    /// Why the latest attempt to have a session has failed; `None` while there is one.
    pub(crate) no_session: Mutex<Option<Error>>,
    pub(crate) nonce: u64,
    pub(crate) requests: AtomicU64,
}

/// How a session is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// One fresh attempt that fails is an answer.
    Never,
    /// Until it works, or is refused: then the task that waits decides whether to go on.
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

    /// How long the outcome of what is taken back may stay unknown, before the session is ended for it. A driver answers within it, also one
    /// with thousands of requests before this one: the session costs more than what was to be taken back.
    pub(crate) fn patience_with(&self, live: &LiveSession) -> Duration {
        let timeout = live.terms().ok().and_then(|terms| terms.timeout).unwrap_or(self.settings.session_timeout);
        timeout.max(self.settings.operation_timeout).saturating_mul(2)
    }

    /// The session as it is, if it lives and fits.
    pub(crate) fn usable(&self, need: Need) -> Option<Arc<LiveSession>> {
        self.phase.borrow().usable(need)
    }

    /// A living session. Runs on the heart, or at least can be polled on any thread.
    pub(crate) async fn session(&self, need: Need, retry: Retry) -> Result<Arc<LiveSession>> {
        if let Some(live) = self.usable(need) {
            return Ok(live);
        }
        let mut phases = self.phase.subscribe();
        let mut seen = self.phase.borrow().attempt();
        loop {
            {
                let phase = phases.borrow_and_update();
                if let Some(live) = phase.usable(need) {
                    return Ok(live);
                }
                match &*phase {
                    Phase::Closed => return Err(Error::closed().in_driver(self.driver.name())),
                    Phase::Down { attempt, error: Some(error) } if *attempt > seen => {
                        if retry == Retry::Never || error.is_final() {
                            return Err(error.clone());
                        }
                        seen = *attempt;
                    }
                    _ => {}
                }
            }
            match need {
                Need::Reading | Need::Connection => self.want_connection.notify_one(),
                Need::Session => self.want_session.notify_one(),
            }
            if phases.changed().await.is_err() {
                return Err(Error::closed());
            }
        }
    }

    /// Asks the session something that takes one request, bounded by the operation timeout. The question may be what finds out
    /// that the session is over: the next one is asked then.
    pub(crate) async fn ask<T, F>(
        self: &Arc<Self>,
        need: Need,
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
            return Err(Error::closed().in_driver(name));
        }
        let limit = self.settings.operation_timeout;
        let what = Arc::new(what);
        let asking = Arc::clone(&what);
        let begun = self.heart().begin(async move {
            let asked = async move {
                let answer = inner.asked(need, question).await;
                answer.map_err(|error| if error.kind() == ErrorKind::Closed { error } else { error.context(asking()) })
            };
            within(limit, || what(), Box::pin(asked)).await
        });
        begun.answer().await.map_err(|error| error.in_driver(name))
    }

    async fn asked<T, F>(&self, need: Need, question: impl Fn(Arc<dyn Session>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut again = true;
        loop {
            let live = self.session(need, Retry::Never).await?;
            // Where the session was ended from this side before it answered, what was asked may have been done there all the same.
            let is_answered = AtomicBool::new(false);
            let answering = |session: &Arc<dyn Session>| {
                let asked = question(Arc::clone(session));
                let is_answered = &is_answered;
                async move {
                    let answer = asked.await;
                    is_answered.store(true, Ordering::Relaxed);
                    answer
                }
            };
            let answer = live.call(answering).await;
            match answer {
                Err(error)
                    if error.kind() == ErrorKind::Lost
                        && again
                        && (need == Need::Reading || is_answered.load(Ordering::Relaxed)) =>
                {
                    again = false;
                }
                answer => return answer,
            }
        }
    }

    /// Begins to listen. After the end of all events the feeder is dropped here, which ends the stream.
    pub(crate) fn listen(&self, feeder: Feeder<SessionEvent>) {
        if let Some(listeners) = &mut *self.listeners() {
            listeners.retain(|listener| !listener.is_closed());
            listeners.push(Arc::new(feeder));
        }
    }

    /// Tells all listeners; without the lock, since a task that is woken may begin to listen at once.
    pub(crate) fn tell(&self, event: &SessionEvent) {
        self.telemetry.told(event);
        let listeners = self.listeners().clone().unwrap_or_default();
        for listener in listeners {
            listener.push(event.clone());
        }
    }

    /// Tells operators how long the session lives for sure: nothing before the first one, zero while there is none.
    pub(crate) fn tick(&self) {
        let (live, is_down) = match &*self.phase.borrow() {
            Phase::Open(live) => (Some(Arc::clone(live)), false),
            phase => (None, matches!(phase, Phase::Down { attempt: 1.., .. })),
        };
        // What is judged may wake a task, and so is judged without the lock of the phase.
        let remaining = match live {
            Some(live) if live.check().is_some() => Some(Duration::ZERO),
            Some(live) => live.remaining(),
            None => is_down.then_some(Duration::ZERO),
        };
        self.telemetry.tick(remaining);
    }

    /// Ends all event streams, and those that are asked for later.
    pub(crate) fn hush(&self) {
        let listeners = self.listeners().take();
        drop(listeners);
    }

    fn listeners(&self) -> MutexGuard<'_, Option<Vec<Arc<Feeder<SessionEvent>>>>> {
        self.listeners.lock()
    }

    pub(crate) fn why_no_session(&self) -> Option<Error> {
        self.no_session.lock().clone()
    }

    pub(crate) fn set_no_session(&self, why: Option<Error>) {
        let before = std::mem::replace(&mut *self.no_session.lock(), why);
        drop(before);
    }

    /// Whether heartbeats fail, or there is no session at all: then whatever else fails says nothing new.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        self.suspension.is_on() || matches!(&*self.phase.borrow(), Phase::Down { .. })
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
