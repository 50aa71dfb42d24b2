//! The life of a coordinator on its heart: connect, open, beat, lose, open anew, and at last close.
//!
//! | phase | what happens | then |
//! |---|---|---|
//! | down | a connection is wanted, and a pause is over where the last session has not lived | connected, or down with the error |
//! | connected | a session is wanted, and it can be opened | open |
//! | connected | it can't be opened, or is lost before | down; once in a row without an error and at once, since an unused connection may have died long ago |
//! | open | heartbeats, until the session is lost | down: the loss is told, local queues look again, and what is left is ended at the backend before anything new |
//! | any | the close | closed: first all holds are lost, then the backend is told |

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::base::backoff::Backoff;
use crate::base::error::{Error, ErrorKind, Result};
use crate::base::loss_reason::LossReason;
use crate::base::session_event::SessionEvent;
use crate::engine::ending::{end, end_for_good};
use crate::engine::heartbeat::keep_alive;
use crate::engine::inner::Inner;
use crate::engine::live_session::LiveSession;
use crate::engine::local_queues::LocalQueues;
use crate::engine::opening::{connect, open};
use crate::engine::phase::Phase;
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
    /// Which attempt the worry is about.
    failed: Option<OpeningStep>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum OpeningStep {
    Connect,
    Open,
}

/// Why one part of a session's life ended.
enum PartEnd {
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
            if let PartEnd::Closing = end {
                return self.close().await;
            }
        }
    }

    /// Waits until a caller wants a connection and makes one; `Ok(None)`: it failed.
    async fn connect_when_wanted(&mut self) -> Result<Option<Arc<LiveSession>>, PartEnd> {
        let inner = Arc::clone(&self.inner);
        let mut closing = self.closing.clone();
        tokio::select! {
            () = said(&mut closing) => return Err(PartEnd::Closing),
            () = inner.want_connection.notified() => {}
            // The wish for a session is kept for the stage that opens it.
            () = inner.want_session.notified() => inner.want_session.notify_one(),
        }
        if !std::mem::take(&mut self.fail_fast) {
            tokio::select! {
                () = said(&mut closing) => return Err(PartEnd::Closing),
                () = self.pauses.pause() => {}
            }
        }
        let connecting = connect(&inner);
        tokio::pin!(connecting);
        let result = tokio::select! {
            () = said(&mut closing) => return Err(PartEnd::Closing),
            result = &mut connecting => result,
        };
        match result {
            Ok(live) => {
                self.born = Instant::now();
                if self.failed == Some(OpeningStep::Connect) {
                    self.mended();
                }
                inner.phase.send_replace(Phase::Connected(Arc::clone(&live)));
                Ok(Some(live))
            }
            Err(error) => {
                self.failed(OpeningStep::Connect, &error);
                self.down(Some(error));
                Ok(None)
            }
        }
    }

    /// One connection from its beginning to its end.
    async fn with(&mut self, live: &Arc<LiveSession>) -> PartEnd {
        let inner = Arc::clone(&self.inner);
        let mut closing = self.closing.clone();
        tokio::select! {
            () = said(&mut closing) => return PartEnd::Closing,
            _ = live.lost() => {
                // What can't be ended now, the backend ends at its timeout.
                let _ = end(&self.inner, live).await;
                return self.over(None);
            }
            () = inner.want_session.notified() => {}
        }
        let mut opening = Box::pin(open(Arc::clone(&inner), Arc::clone(live)));
        let opened = tokio::select! {
            () = said(&mut closing) => {
                // A session that is just being made is ended only once it is there. It is not dropped half-way, nor waited for for ever.
                if tokio::time::timeout(inner.settings.operation_timeout / 2, opening.as_mut()).await.is_err() {
                    tokio::spawn(opening);
                }
                return PartEnd::Closing;
            }
            opened = &mut opening => opened,
        };
        let sent = match opened {
            Ok(sent) => sent,
            Err(error) => {
                live.lose(if error.is_panic() { LossReason::DriverPanicked } else { LossReason::SessionEnded });
                // What can't be ended now, the backend ends at its timeout.
                let _ = end(&self.inner, live).await;
                // A connection that was never used may outlive the session that it was made for. The caller that wanted one gets
                // the next one then, and the error only if that is dead as well.
                let again = std::mem::replace(&mut self.found_dead, error.kind() == ErrorKind::Lost);
                if self.found_dead && !again {
                    let over = self.over(None);
                    self.fail_fast = true;
                    return over;
                }
                self.failed(OpeningStep::Open, &error);
                return self.over(Some(error));
            }
        };
        self.found_dead = false;
        self.beats.is_over();
        self.mended();
        inner.suspension.end();
        inner.phase.send_replace(Phase::Open(Arc::clone(live)));
        let is_first = !std::mem::replace(&mut self.opened_before, true);
        inner.telemetry.opened(is_first);
        if !is_first {
            inner.tell(&SessionEvent::Reopened);
        }
        let reason = tokio::select! {
            () = said(&mut closing) => return PartEnd::Closing,
            reason = keep_alive(&inner, live, sent, &mut self.beats) => reason,
        };
        live.tell_of_loss(reason);
        inner.tell(&SessionEvent::Lost(reason));
        let over = self.over(None);
        self.queues.stir();
        // The rest of it is ended at the backend before anything new begins: a re-join must not find its own ghost.
        // What can't be ended now, the backend ends at its timeout.
        let _ = end(&self.inner, live).await;
        over
    }

    fn over(&mut self, error: Option<Error>) -> PartEnd {
        if self.born.elapsed() >= LIVED {
            self.pauses.reset();
            self.fail_fast = true;
        }
        self.down(error);
        PartEnd::Over
    }

    fn failed(&mut self, attempt: OpeningStep, error: &Error) {
        self.failed = Some(attempt);
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
        // The wish that was just refused is not kept for the next connection: its end would cut off what another asks there. Those that still want a
        // session hear of the phase, and say so again.
        let _ = pin!(self.inner.want_session.notified()).poll(&mut Context::from_waker(Waker::noop()));
        self.inner.phase.send_replace(Phase::Down { attempt: self.attempts, error });
    }

    async fn close(&mut self) {
        let inner = Arc::clone(&self.inner);
        let live = inner.phase.borrow().live().cloned();
        // First all beliefs in this session end, then the backend is told.
        if let Some(live) = &live {
            live.lose(LossReason::Closed);
        }
        inner.phase.send_replace(Phase::Closed);
        self.queues.refuse_all();
        let result = match &live {
            Some(live) => end_for_good(&self.inner, live).await,
            None => Ok(()),
        };
        inner.hush();
        inner.telemetry.closed();
        inner.closed.send_replace(Some(result));
    }
}

/// Ends when the flag is up, without keeping the flag's lock.
async fn said(flag: &mut watch::Receiver<bool>) {
    let _ = flag.wait_for(|up| *up).await;
}

/// The last word when the heart has ended, however that came: no task is left waiting. After a close there is nothing to do.
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
