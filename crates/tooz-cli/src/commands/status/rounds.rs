//! Something that is done again and again, each time after a pause, beside what else goes on.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(super) struct Rounds<T> {
    pause: Duration,
    next: Instant,
    under_way: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Rounds<T> {
    /// The first is due at once.
    pub(super) fn every(pause: Duration) -> Self {
        Rounds { pause, next: Instant::now(), under_way: None }
    }

    /// When the next one is to begin; `None` while one is under way.
    pub(super) fn due(&self) -> Option<Instant> {
        self.under_way.is_none().then_some(self.next)
    }

    /// True: one begins now.
    pub(super) fn begin_if_due(&mut self, round: impl Future<Output = T> + Send + 'static) -> bool {
        let is_due = self.due().is_some_and(|due| due <= Instant::now());
        if is_due {
            self.under_way = Some(tokio::spawn(round));
        }
        is_due
    }

    /// What the one under way has come to; never, where there is none. A panic in it goes on here.
    pub(super) async fn end(&mut self) -> T {
        let Some(round) = &mut self.under_way else { return std::future::pending().await };
        let ended = round.await;
        self.under_way = None;
        self.next = Instant::now() + self.pause;
        match ended {
            Ok(answer) => answer,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // It is cancelled with this, and by nothing else.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T> Drop for Rounds<T> {
    fn drop(&mut self) {
        if let Some(round) = &self.under_way {
            round.abort();
        }
    }
}
