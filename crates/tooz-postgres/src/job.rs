//! A job on a connection: begun by the one that asks, and ended by the heart where that one waits no longer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

use crate::lanes::{Lanes, Listen, WireTurn};

/// A future that borrows the connection.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;

/// A job that has begun. Where it is dropped, the heart does the rest: of a connection with a statement left half-way on it, it is not known what it
/// holds. `None`: the connection was ended meanwhile.
pub(crate) struct RunningJob<W: Listen, T: Send + 'static> {
    /// With the turn. Where that is dropped in here, half-way, the connection ends.
    job: Option<Pin<Box<dyn Future<Output = Option<T>> + Send>>>,
    lanes: Arc<Lanes<W>>,
    /// The heart's. `None`: it is a task there already.
    runtime: Option<Handle>,
}

impl<W: Listen, T: Send + 'static> RunningJob<W, T> {
    pub(crate) fn new(
        mut turn: WireTurn<W>,
        work: impl for<'c> FnOnce(&'c mut W::Connection) -> Work<'c, T> + Send + 'static,
        runtime: &Handle,
    ) -> Self {
        let lanes = Arc::clone(turn.lanes());
        let job = async move {
            let result = work(turn.begin()?).await;
            turn.finish();
            Some(result)
        };
        RunningJob { job: Some(Box::pin(job)), lanes, runtime: Some(runtime.clone()) }
    }
}

impl<W: Listen, T: Send + 'static> Future for RunningJob<W, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        // Where this panics or answers, the job is dropped.
        let Some(mut job) = self.job.take() else { return Poll::Ready(None) };
        // First the waker, then the step: an end in between wakes this, which looks again.
        if !self.lanes.is_kept_by(context.waker()) {
            return Poll::Ready(None);
        }
        let poll = job.as_mut().poll(context);
        if poll.is_pending() {
            self.job = Some(job);
        }
        poll
    }
}

impl<W: Listen, T: Send + 'static> Drop for RunningJob<W, T> {
    fn drop(&mut self) {
        let (Some(job), Some(runtime)) = (self.job.take(), self.runtime.take()) else { return };
        let rest = RunningJob { job: Some(job), lanes: Arc::clone(&self.lanes), runtime: None };
        runtime.spawn(async move { drop(rest.await) });
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::lanes::fake::{Fake, Net, turn};
    use crate::lanes::{Admission, Lane};

    /// Begins a job that waits for the answer of the test.
    fn begun(net: &Arc<Net>) -> (Arc<Lanes<Fake>>, RunningJob<Fake, u32>, oneshot::Sender<u32>) {
        let lanes = Lanes::new(net.wire());
        let (answer, answered) = oneshot::channel();
        let turn = turn(lanes.ask(Lane::InOrder));
        let begun = RunningJob::new(turn, |()| Box::pin(async move { answered.await.unwrap() }), &Handle::current());
        (lanes, begun, answer)
    }

    async fn passes(lanes: &Arc<Lanes<Fake>>) {
        if let Admission::Place(place) = lanes.ask(Lane::InOrder) {
            drop(timeout(Duration::from_secs(10), place).await.unwrap().unwrap());
        }
    }

    #[tokio::test]
    async fn what_is_given_up_half_way_is_ended_by_a_task() {
        let net = Net::new();
        let (lanes, mut job, answer) = begun(&net);
        assert!(timeout(Duration::from_millis(1), &mut job).await.is_err());
        drop(job);
        tokio::task::yield_now().await;
        assert_eq!((lanes.done(), lanes.has_ended()), (0, false));
        answer.send(1).unwrap();
        passes(&lanes).await;
        assert_eq!((lanes.done(), lanes.has_ended(), net.is_open()), (1, false, true));
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_the_end_of_what_is_on_it() {
        let net = Net::new();
        let (lanes, job, answer) = begun(&net);
        let job = tokio::spawn(job);
        tokio::task::yield_now().await;
        lanes.end();
        assert_eq!(timeout(Duration::from_secs(10), job).await.unwrap().unwrap(), None);
        assert!(answer.is_closed() && !net.is_open());
        assert!(matches!(lanes.ask(Lane::First), Admission::Ended));
        // The same where its asker has gone.
        let net = Net::new();
        let (lanes, mut job, mut answer) = begun(&net);
        assert!(timeout(Duration::from_millis(1), &mut job).await.is_err());
        drop(job);
        lanes.end();
        timeout(Duration::from_secs(10), answer.closed()).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!net.is_open());
    }

    #[tokio::test]
    async fn a_panic_leaves_no_connection_of_which_nothing_is_known() {
        let net = Net::new();
        let lanes = Lanes::new(net.wire());
        let turn = turn(lanes.ask(Lane::InOrder));
        let job: RunningJob<Fake, ()> =
            RunningJob::new(turn, |()| Box::pin(async { panic!("as part of a test") }), &Handle::current());
        assert!(tokio::spawn(job).await.unwrap_err().is_panic());
        assert!(lanes.has_ended() && !net.is_open());
    }

    #[test]
    fn what_no_heart_can_end_ends_with_its_connection() {
        let net = Net::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lanes = Lanes::new(net.wire());
        let turn = turn(lanes.ask(Lane::InOrder));
        let mut job: RunningJob<Fake, ()> = RunningJob::new(turn, |()| Box::pin(pending()), runtime.handle());
        runtime.block_on(async { assert!(timeout(Duration::from_millis(1), &mut job).await.is_err()) });
        drop(runtime);
        drop(job);
        assert!(lanes.has_ended() && !net.is_open());
    }
}
