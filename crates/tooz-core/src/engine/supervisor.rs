//! The life of a coordinator on its heart: connect, open, beat, lose, open anew, and at last close.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::base::backoff::{A_DAY, Backoff};
use crate::base::characteristic::Characteristics;
use crate::base::clock::Moment;
use crate::base::contain::contained;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::base::session_event::SessionEvent;
use crate::driver::card::ConnectArgs;
use crate::engine::heartbeat::keep_alive;
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;
use crate::engine::local_queues::LocalQueues;
use crate::engine::phase::Phase;
use crate::engine::trace;
use crate::engine::worry::Worry;

/// A session that is over sooner has not lived: the next one is made after a pause, however well the making went.
const LIVED: Duration = Duration::from_secs(1);

pub(crate) struct Supervisor {
    inner: Arc<Inner>,
    queues: Arc<LocalQueues>,
    closing: watch::Receiver<bool>,
    attempts: u64,
    /// Whether a session was open before, so that the next one is a re-opened one.
    opened_before: bool,
    /// Begins anew after a session that has lived, not after one that could be opened.
    pauses: Backoff,
    fail_fast: bool,
    /// Whether the last session had died before it was opened.
    found_dead: bool,
    /// When the present connection was made.
    born: Instant,
    worry: Worry,
    /// What the heartbeats complain of: also past the end of their session, until another one is open.
    beats: Worry,
    /// Which stage the worry is about.
    failed: Option<Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Open,
}

/// Why a stage of the life ended.
enum End {
    Closing,
    Over,
}

impl Supervisor {
    pub(crate) fn new(inner: Arc<Inner>, queues: Arc<LocalQueues>) -> Self {
        let closing = inner.closing.subscribe();
        Supervisor {
            worry: Worry::new(&inner, "open a session"),
            beats: Worry::new(&inner, "keep the session alive"),
            inner,
            queues,
            closing,
            attempts: 0,
            opened_before: false,
            pauses: Backoff::for_reconnects(),
            fail_fast: true,
            found_dead: false,
            born: Instant::now(),
            failed: None,
        }
    }

    pub(crate) async fn run(mut self) {
        let (inner, queues) = (Arc::clone(&self.inner), Arc::clone(&self.queues));
        let life = self.live_on();
        tokio::pin!(life);
        // Losses are few; then every local queue looks whether what was in its way is gone.
        let stirring = async {
            loop {
                inner.stirred.notified().await;
                queues.stir();
            }
        };
        tokio::select! {
            () = &mut life => {}
            () = stirring => {}
        }
    }

    async fn live_on(&mut self) {
        let mut live = None;
        loop {
            let end = match live.take() {
                None => match self.connect_when_wanted().await {
                    Ok(connected) => {
                        live = connected;
                        continue;
                    }
                    Err(end) => end,
                },
                Some(connected) => self.with(&connected).await,
            };
            if let End::Closing = end {
                return self.close().await;
            }
        }
    }

    /// Waits until somebody wants a connection and makes one; `Ok(None)`: it failed.
    async fn connect_when_wanted(&mut self) -> Result<Option<Arc<LiveSession>>, End> {
        let inner = Arc::clone(&self.inner);
        let mut closing = self.closing.clone();
        tokio::select! {
            () = said(&mut closing) => return Err(End::Closing),
            () = inner.want_connection.notified() => {}
            // The wish for a session is kept for the stage that opens it.
            () = inner.want_session.notified() => inner.want_session.notify_one(),
        }
        if !std::mem::take(&mut self.fail_fast) {
            tokio::select! {
                () = said(&mut closing) => return Err(End::Closing),
                () = self.pauses.pause() => {}
            }
        }
        let connecting = connect(&inner);
        tokio::pin!(connecting);
        let result = tokio::select! {
            () = said(&mut closing) => return Err(End::Closing),
            result = &mut connecting => result,
        };
        match result {
            Ok(live) => {
                self.born = Instant::now();
                if self.failed == Some(Stage::Connect) {
                    self.mended();
                }
                inner.phase.send_replace(Phase::Connected(Arc::clone(&live)));
                Ok(Some(live))
            }
            Err(error) => {
                self.failed(Stage::Connect, &error);
                self.down(Some(error));
                Ok(None)
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn with(&mut self, live: &Arc<LiveSession>) -> End {
        let inner = Arc::clone(&self.inner);
        let mut closing = self.closing.clone();
        tokio::select! {
            () = said(&mut closing) => return End::Closing,
            _ = live.lost() => {
                // What can't be ended now, the backend ends at its timeout.
                let _ = self.end(live).await;
                return self.over(None);
            }
            () = inner.want_session.notified() => {}
        }
        let mut opening = Box::pin(open(Arc::clone(&inner), Arc::clone(live)));
        let opened = tokio::select! {
            () = said(&mut closing) => {
                // What is just being made is ended only once it is there. It is not dropped half-way, and not waited for for ever.
                if tokio::time::timeout(inner.settings.operation_timeout / 2, opening.as_mut()).await.is_err() {
                    tokio::spawn(opening);
                }
                return End::Closing;
            }
            opened = &mut opening => opened,
        };
        let sent = match opened {
            Ok(sent) => sent,
            Err(error) => {
                live.lose(if error.is_panic() { LossReason::DriverPanicked } else { LossReason::SessionEnded });
                // What can't be ended now, the backend ends at its timeout.
                let _ = self.end(live).await;
                // A connection that nobody has used may outlive the session that it was made for. Whoever wanted one gets the next
                // one then, and the error only if that is dead as well.
                let again = std::mem::replace(&mut self.found_dead, error.kind() == ErrorKind::Lost);
                if self.found_dead && !again {
                    let over = self.over(None);
                    self.fail_fast = true;
                    return over;
                }
                self.failed(Stage::Open, &error);
                return self.over(Some(error));
            }
        };
        self.found_dead = false;
        self.beats.is_over();
        self.mended();
        inner.suspended.store(false, Ordering::Relaxed);
        inner.phase.send_replace(Phase::Open(Arc::clone(live)));
        if std::mem::replace(&mut self.opened_before, true) {
            inner.tell(&SessionEvent::Reopened);
        }
        let reason = tokio::select! {
            () = said(&mut closing) => return End::Closing,
            reason = keep_alive(&inner, live, sent, &mut self.beats) => reason,
        };
        trace::lost(inner.driver.name(), &inner.member, reason);
        inner.tell(&SessionEvent::Lost(reason));
        let over = self.over(None);
        self.queues.stir();
        // What is left of it is ended at the backend before anything new begins: a re-join must not find its own ghost.
        // What can't be ended now, the backend ends at its timeout.
        let _ = self.end(live).await;
        over
    }

    fn over(&mut self, error: Option<Error>) -> End {
        if self.born.elapsed() >= LIVED {
            self.pauses.reset();
            self.fail_fast = true;
        }
        self.down(error);
        End::Over
    }

    fn failed(&mut self, stage: Stage, error: &Error) {
        self.failed = Some(stage);
        self.inner.set_no_session(Some(error.clone()));
        // The first coordinator of a program hears of it by the answer to `connect`.
        if self.attempts > 0 || self.opened_before {
            self.worry.say(error);
        }
    }

    fn mended(&mut self) {
        self.failed = None;
        self.inner.set_no_session(None);
        self.worry.is_over();
    }

    fn down(&mut self, error: Option<Error>) {
        self.attempts += 1;
        self.inner.phase.send_replace(Phase::Down { attempt: self.attempts, error });
    }

    /// Ends a session at the backend, for at most the operation timeout. What has failed then is asked again beside what comes next, as
    /// long as the session could live: what it owned would be in the way of the next one.
    async fn end(&self, live: &Arc<LiveSession>) -> Result<()> {
        let limit = self.inner.settings.operation_timeout;
        let ended = close_once(live, limit).await;
        live.ended.set(live.check().unwrap_or(LossReason::SessionEnded));
        if ended.is_err() {
            let live = Arc::clone(live);
            let timeout = live.terms().ok().and_then(|terms| terms.timeout);
            let give_up = Instant::now() + timeout.unwrap_or(self.inner.settings.session_timeout).min(A_DAY);
            tokio::spawn(async move {
                let mut pauses = Backoff::for_reconnects();
                while Instant::now() < give_up && close_once(&live, limit).await.is_err() {
                    pauses.pause().await;
                }
            });
        }
        ended
    }

    /// The same for the last session, with nothing beside it.
    async fn end_for_good(&self, live: &Arc<LiveSession>) -> Result<()> {
        let limit = self.inner.settings.operation_timeout;
        let give_up = Instant::now() + limit.min(A_DAY);
        let mut pauses = Backoff::for_reconnects();
        // A later Ok may mean no more than that there is nothing left to ask over: what the first attempt met is what is told.
        let mut first = None;
        let ended = loop {
            let left = give_up.saturating_duration_since(Instant::now());
            let ended = close_once(live, left).await.map_err(|error| match error.kind() {
                // The last of several attempts had less time than all of them.
                ErrorKind::TimedOut => not_ended_within(limit),
                _ => error,
            });
            match &ended {
                Err(error) if error.is_retryable() && give_up > Instant::now() => {
                    first.get_or_insert_with(|| error.clone());
                    tokio::time::timeout_at(give_up.into(), pauses.pause()).await.unwrap_or_default();
                    if Instant::now() >= give_up {
                        break ended;
                    }
                }
                _ => break ended,
            }
        };
        live.ended.set(live.check().unwrap_or(LossReason::SessionEnded));
        first.map_or(ended, Err)
    }

    async fn close(&mut self) {
        let inner = Arc::clone(&self.inner);
        let live = inner.phase.borrow().live().cloned();
        // First nobody believes in anything any more, then the backend is told.
        if let Some(live) = &live {
            live.lose(LossReason::Closed);
        }
        inner.phase.send_replace(Phase::Closed);
        self.queues.refuse_all();
        let result = match &live {
            Some(live) => self.end_for_good(live).await,
            None => Ok(()),
        };
        inner.hush();
        inner.closed.send_replace(Some(result));
    }
}

async fn close_once(live: &Arc<LiveSession>, limit: Duration) -> Result<()> {
    let session = Arc::clone(live.session());
    let closing = contained(async move { session.close().await });
    tokio::time::timeout(limit, closing).await.unwrap_or_else(|_| Err(not_ended_within(limit)))
}

fn not_ended_within(limit: Duration) -> Error {
    Error::new(
        ErrorKind::TimedOut,
        format!("the session could not be ended within {limit:.1?}; the backend ends it at its timeout"),
    )
}

/// Ends when the flag is up, without keeping the flag's lock.
async fn said(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}

async fn connect(inner: &Arc<Inner>) -> Result<Arc<LiveSession>> {
    let live = LiveSession::new(inner.driver.name(), Arc::clone(&inner.stirred));
    let settings = &inner.settings;
    let args = ConnectArgs {
        url: inner.url.clone(),
        credentials: inner.credentials.clone(),
        options: inner.options.clone(),
        member: inner.member.clone(),
        namespace: settings.namespace.clone(),
        session_timeout: settings.session_timeout,
        connect_timeout: settings.connect_timeout,
        operation_timeout: settings.operation_timeout,
        reporter: live.reporter(),
    };
    let limit = settings.connect_timeout;
    let connecting = contained(async { inner.driver.connect(args).await });
    let session = tokio::time::timeout(limit, connecting)
        .await
        .unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::TimedOut,
                format!("no connection to {} within {limit:?}; check the address, or raise connect_timeout", inner.url),
            ))
        })
        .map_err(|error| error.not_of_core().in_driver(inner.driver.name()))?;
    live.attach(session)?;
    if let Err(error) = inner.require(&live) {
        // It was never opened, so there is nothing to end at the backend but the connection.
        let _ = close_once(&live, limit).await;
        return Err(error);
    }
    Ok(live)
}

/// Opens the session; answers the moment at which its first timeout began.
async fn open(inner: Arc<Inner>, live: Arc<LiveSession>) -> Result<Moment> {
    let sent = live.clock().now();
    let what = || "open the session".to_owned();
    live.call_within(inner.settings.connect_timeout, what, |session| async move { session.open().await })
        .await
        .map_err(|error| error.context("the session can't be opened"))?;
    // A session that is opened anew may have another server behind it.
    inner.require(&live)?;
    let terms = live.terms()?;
    if let Some(timeout) = terms.timeout {
        let margin = LiveSession::margin_of(&terms, timeout);
        if timeout <= margin * 2 {
            return Err(Error::config(format!(
                "session_timeout={timeout:?} is too short: this driver needs a margin of {margin:?}, and more than twice that"
            ))
            .in_driver(inner.driver.name()));
        }
        if !live.credit(sent, timeout, margin) {
            return Err(Error::new(
                ErrorKind::TimedOut,
                format!("opening the session took longer than it lives; raise session_timeout={timeout:?}"),
            )
            .in_driver(inner.driver.name()));
        }
    }
    Ok(sent)
}

impl Inner {
    /// Whether the session has all that the application requires.
    fn require(&self, live: &LiveSession) -> Result<()> {
        let missing = live.terms()?.characteristics.missing(self.require);
        if missing == Characteristics::NONE {
            return Ok(());
        }
        Err(Error::config(format!(
            "this backend lacks what is required: {missing}; `tooz drivers` lists which backends have it"
        ))
        .in_driver(self.driver.name()))
    }
}

/// The last word when the heart has ended, however that came: nobody is left waiting. After a close there is nothing to do.
pub(crate) fn end_with_the_heart(inner: &Inner, queues: &LocalQueues) {
    if inner.closed.borrow().is_some() {
        return;
    }
    let live = inner.phase.borrow().live().cloned();
    if let Some(live) = live {
        live.lose(LossReason::DriverPanicked);
        live.ended.set(LossReason::DriverPanicked);
    }
    inner.phase.send_replace(Phase::Closed);
    queues.refuse_all();
    inner.hush();
    inner.closed.send_replace(Some(Err(Error::panicked("its heart has ended").in_driver(inner.driver.name()))));
}
