//! How a local queue gets one grant from the backend: in as many sessions as it takes for a wait, in one for a try.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use crate::base::backoff::{A_DAY, Backoff};
use crate::base::error::{Error, ErrorKind, Outcome, Result};
use crate::driver::lock::{Granted, LockMode, LockRequest};
use crate::driver::session::Session;
use crate::driver::wanted::{WaitProgress, Wanted};
use crate::engine::claim::ClaimSubject;
use crate::engine::hold::Hold;
use crate::engine::inner::Retry;
use crate::engine::line::{Answer, Grant, WaitMode};
use crate::engine::live_session::LiveSession;
use crate::engine::local_queue::LocalQueue;
use crate::engine::phase::Need;
use crate::engine::worry::Worry;

/// Why an attempt has not led to a grant.
enum Stop {
    /// There is no session, and this is why.
    NoSession(Error),
    /// The session was over: the next one is asked.
    Again,
    /// Something else, which is the answer for a try, and may be for a wait.
    For(Error),
}

impl LocalQueue {
    /// Gets one grant from the backend: in as many sessions as it takes for a wait, in one for a try.
    pub(super) async fn request(self: &Arc<Self>, mode: LockMode, patience: WaitMode, wanted: &Wanted) -> Answer {
        let mut pauses = None;
        let mut worry = None;
        loop {
            let error = match self.attempt(mode, patience, wanted, &mut worry).await {
                Ok(Some(grant)) => return Ok(Some(grant)),
                Ok(None) if patience == WaitMode::Try || !wanted.is_wanted() => return Ok(None),
                // It was unwanted for a moment. A driver that gives up without that is asked again with pauses.
                Ok(None) if wanted.was_unwanted() => continue,
                Ok(None) => {
                    let why = "the driver gave up a wait that is still wanted";
                    Error::new(ErrorKind::Backend, why).in_driver(self.inner.driver.name())
                }
                Err(Stop::Again) if wanted.is_wanted() => continue,
                Err(Stop::Again) => return Ok(None),
                Err(Stop::NoSession(error)) => {
                    if self.ends(&error, patience) {
                        return Err(error);
                    }
                    // Its next attempt comes after a pause already.
                    self.set_trouble(Some(error.clone()));
                    self.worry(&mut worry).about(&error);
                    continue;
                }
                Err(Stop::For(error)) => error,
            };
            if self.ends(&error, patience) {
                return Err(error.context(format!("acquire {}", self.key)));
            }
            if !wanted.is_wanted() {
                return Ok(None);
            }
            self.worry(&mut worry).about(&error);
            let pauses = pauses.get_or_insert_with(Backoff::for_reconnects);
            Box::pin(async {
                tokio::select! {
                    () = pauses.pause() => {}
                    () = wanted.unwanted() => {}
                }
            })
            .await;
        }
    }

    /// Whether that error is the answer, and no reason to try again.
    fn ends(&self, error: &Error, patience: WaitMode) -> bool {
        if error.kind() == ErrorKind::Closed || patience == WaitMode::Try {
            return true;
        }
        let has_stood = self.line().head_has_stood();
        error.is_final() && !has_stood
    }

    async fn attempt(
        self: &Arc<Self>,
        mode: LockMode,
        patience: WaitMode,
        wanted: &Wanted,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Grant>, Stop> {
        let retry = match patience {
            WaitMode::Try => Retry::Never,
            WaitMode::Wait => Retry::UntilRefused,
        };
        let live = if let Some(live) = self.inner.usable(Need::Session) {
            live
        } else {
            tokio::select! {
                biased;
                live = Box::pin(self.inner.session(Need::Session, retry)) => live.map_err(Stop::NoSession)?,
                () = wanted.unwanted() => return Ok(None),
            }
        };
        let request = LockRequest::new(self.key.clone(), mode, self.inner.request_id());
        let hold = Hold::new(&live, request.id, ClaimSubject::Lock(request.clone()));
        let answer = match patience {
            WaitMode::Try => {
                let limit = self.inner.settings.operation_timeout;
                let (what, asked) = (|| format!("try {}", self.key), request.clone());
                let (give_up, queue, late) = (Instant::now() + limit.min(A_DAY), Arc::clone(self), Arc::clone(&live));
                let trying = move |session: Arc<dyn Session>| async move {
                    let answer = session.try_lock(&asked).await;
                    // A grant that comes so late has no taker.
                    if matches!(answer, Ok(Some(_))) && Instant::now() >= give_up {
                        queue.withdraw_at_backend(&late, &asked).await;
                        return Err(Error::new(ErrorKind::TimedOut, "it was granted too late, and given back"));
                    }
                    answer
                };
                Box::pin(live.call_within(limit, what, trying)).await
            }
            WaitMode::Wait => self.wait_in(&live, &request, wanted, worry).await,
        };
        let (error, is_settled) = match answer {
            Ok(None) => return Ok(None),
            Ok(Some(granted)) => match hold.check() {
                // The deadline is checked once more before the grant is believed in.
                None => return Ok(Some(Grant { hold, token: granted.token })),
                Some(reason) => (live.error_of(reason), false),
            },
            // What was asked last may not have been done, but a waiter may have had a place in the queue before that. (Where the
            // backend forbids this client the request, it forbids the withdrawal too.)
            Err(error) => {
                let was_not_done = error.outcome() == Outcome::NotApplied;
                let is_settled = was_not_done && (patience == WaitMode::Try || error.is_final());
                (error, is_settled)
            }
        };
        // Known before the withdrawal, which takes as long as the trouble does.
        if patience == WaitMode::Wait && error.kind() != ErrorKind::Lost {
            self.set_trouble(Some(error.clone().context(format!("acquire {}", self.key))));
        }
        if !is_settled {
            Box::pin(self.withdraw_at_backend(&live, &request)).await;
        }
        // A request may be what finds out that the session is over; nothing that was asked for here was lost. The next session
        // is made with pauses, where that is needed. A grant that was broken on its way is another's fault, but may come again at once.
        Err(match error.kind() {
            ErrorKind::Lost if live.check().is_some() => Stop::Again,
            ErrorKind::Lost => {
                let error = Error::new(ErrorKind::Unavailable, error.message());
                Stop::For(error.with_outcome(Outcome::NotApplied).in_driver(self.inner.driver.name()))
            }
            _ => Stop::For(error),
        })
    }

    /// Waits at the backend. What had gone wrong before is mended as soon as the request stands in the queue.
    async fn wait_in(
        &self,
        live: &LiveSession,
        request: &LockRequest,
        wanted: &Wanted,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Granted>> {
        let mut seen = wanted.begin_attempt();
        let waiting = live.call(|session| session.lock(request, wanted));
        tokio::pin!(waiting);
        // Most locks are free, and cost no timer.
        if let Poll::Ready(answer) = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context))).await {
            return answer;
        }
        Box::pin(self.wait_on(waiting, wanted, &mut seen, worry)).await
    }

    /// Goes on with a wait that the backend did not answer at once.
    async fn wait_on(
        &self,
        mut waiting: Pin<&mut impl Future<Output = Result<Option<Granted>>>>,
        wanted: &Wanted,
        seen: &mut u64,
        worry: &mut Option<Worry>,
    ) -> Result<Option<Granted>> {
        let too_long = tokio::time::sleep(self.inner.settings.operation_timeout);
        tokio::pin!(too_long);
        let mut has_said = false;
        loop {
            tokio::select! {
                biased;
                answer = &mut waiting => return answer,
                word = wanted.next_word(seen) => {
                    has_said = true;
                    match word {
                        WaitProgress::Queued => {
                            worry.take();
                            self.set_trouble(None);
                        }
                        WaitProgress::Trouble(error) => {
                            self.set_trouble(Some(error.clone().context(format!("acquire {}", self.key))));
                            self.worry(worry).about(&error);
                        }
                    }
                }
                // It may be queued all the same, or not: a driver that waits without a word is waited for, but not in silence.
                () = &mut too_long, if !has_said => {
                    has_said = true;
                    let late = "the backend has not said whether the request stands in the queue";
                    self.worry(worry).say(&Error::new(ErrorKind::TimedOut, late).with_outcome(Outcome::Unknown));
                }
            }
        }
    }

    fn set_trouble(&self, trouble: Option<Error>) {
        let before = self.line().set_trouble(trouble);
        drop(before);
    }

    fn worry<'a>(&self, worry: &'a mut Option<Worry>) -> &'a mut Worry {
        worry.get_or_insert_with(|| Worry::new(&self.inner, format!("acquire {}", self.key)))
    }
}
