//! One connection, which never reconnects, with a task of its own that does one job after the other on it. That it has died is noticed by a job; a session,
//! which has to know it at once, has a watchdog.
//!
//! The order in which things are asked is the order in which the server does them. What was begun is ended, also when
//! the caller has given it up: so the task always knows what the connection holds. A job is in one of these states:
//!
//! | state | what happens |
//! |---|---|
//! | queued | it waits behind all that was asked before → begun, or given up |
//! | begun | it is on its way to the server, and is ended: the caller that waits no longer gets no answer |
//! | given up | the caller waited for too long, or has gone: its turn passes without it |

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tooz_core::driver::{Mutex, RequestId};
use tooz_core::{Error, Outcome, Result};

use crate::error;
use crate::layout::Cases;
use crate::options::Settings;
use crate::packet::Packets;
use crate::schema;
use crate::setup::{self, Role};
use crate::unanswered::no_answer_comes;

/// A future that borrows the connection.
pub(crate) type Work<'c, T> = Pin<Box<dyn Future<Output = T> + Send + 'c>>;
type Alone = Box<dyn for<'c> FnOnce(&'c mut Packets) -> Work<'c, ()> + Send>;

/// How long the end in good order is waited for.
const FAREWELL: Duration = Duration::from_millis(200);
/// At most so many jobs of one kind are done at once.
const TOGETHER: usize = 100;

/// What is asked of the connection.
enum Job {
    Alone(Alone),
    /// It is done together with those of its kind that stand right behind it: so the order of all that was asked stays what it is.
    Joint(Joint),
    /// The connection is not needed any more, once all is done that was asked before.
    Farewell,
}

struct Joint {
    id: RequestId,
    deed: Arc<dyn BulkOperation>,
    state: Arc<JobState>,
    reply: oneshot::Sender<Result<()>>,
}

/// What can be done for many requests at once. A connection is asked for one deed only, however many requests there are.
pub(crate) trait BulkOperation: Send + Sync {
    /// Answers as many times as there are requests, in their order.
    fn do_for<'c>(&'c self, packets: &'c mut Packets, ids: Vec<RequestId>) -> Work<'c, Vec<Result<()>>>;
}

/// Shared by all that use it; it ends with the last one.
pub(crate) struct Connection {
    jobs: mpsc::UnboundedSender<Job>,
    /// What goes before all that waits.
    urgent: mpsc::UnboundedSender<Alone>,
    /// How many jobs were done.
    done: Arc<AtomicU64>,
    dead: watch::Receiver<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
    /// How much longer than its limit a job waits for its turn while nothing gets done. A session's connection is dead by then.
    patience: Duration,
    /// The longest packet that the server takes.
    pub(crate) longest_packet: usize,
    /// How the server knows databases.
    pub(crate) cases: Cases,
    /// What an administrator is to run where something is missing.
    command: String,
}

/// How far a job is: either its turn comes, or the caller gives it up before.
#[derive(Default)]
struct JobState(AtomicU8);

impl JobState {
    const QUEUED: u8 = 0;
    const BEGUN: u8 = 1;
    const GIVEN_UP: u8 = 2;

    fn leave_queue(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn begin(&self) -> bool {
        self.leave_queue(Self::BEGUN)
    }

    fn give_up(&self) -> bool {
        self.leave_queue(Self::GIVEN_UP)
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::BEGUN
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(settings: &Settings, role: Role) -> Result<Self> {
        let (packets, begun) = setup::connect(settings, role).await?;
        let (jobs, queue) = mpsc::unbounded_channel();
        let (urgent, urgent_queue) = mpsc::unbounded_channel();
        let (death, dead) = watch::channel(false);
        let done = Arc::new(AtomicU64::new(0));
        let idle = setup::quiet(settings.session_timeout) / 2;
        let server = ServerSide { settings: settings.clone(), number: begun.number };
        let task = tokio::spawn(serve(packets, server, queue, urgent_queue, Arc::clone(&done), idle, Death(death)));
        let longest_packet = begun.server.number("max_allowed_packet").unwrap_or(u64::MAX);
        Ok(Connection {
            jobs,
            urgent,
            done,
            dead,
            task: Mutex::new(Some(task)),
            patience: settings.session_timeout,
            longest_packet: usize::try_from(longest_packet).unwrap_or(usize::MAX),
            cases: begun.server.cases(),
            command: schema::printed(settings),
        })
    }

    /// Does `work` on the connection, after all that was asked before. What is still in the queue when its caller waits for it no
    /// longer is not begun. The limit is for one statement: it is over when the connection got nothing done for so long. What has not begun
    /// waits for longer: one statement that is late must not fail the thousands behind it, which would all be asked again at once.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut Packets) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = alone(work);
        self.jobs.send(Job::Alone(job)).map_err(|_| gone(doing))?;
        self.wait(answer, limit, doing).await
    }

    /// Does `deed` for that request in its turn like `run`, together with those that stand right behind it.
    pub(crate) async fn run_together(
        &self,
        limit: Duration,
        doing: &'static str,
        id: RequestId,
        deed: Arc<dyn BulkOperation>,
    ) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let state = Arc::new(JobState::default());
        let job = Joint { id, deed, state: Arc::clone(&state), reply };
        self.jobs.send(Job::Joint(job)).map_err(|_| gone(doing))?;
        self.wait(PendingJob { answer, state }, limit, doing).await
    }

    /// Runs a heartbeat before all that waits: it must not stand behind thousands of others.
    pub(crate) async fn run_first<T: Send + 'static>(
        &self,
        limit: Duration,
        doing: &'static str,
        work: impl for<'c> FnOnce(&'c mut Packets) -> Work<'c, Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (job, answer) = alone(work);
        self.urgent.send(job).map_err(|_| gone(doing))?;
        self.wait(answer, limit, doing).await
    }

    async fn wait<T>(&self, asked: PendingJob<T>, limit: Duration, doing: &'static str) -> Result<T> {
        let PendingJob { answer, state } = asked;
        let mut done = self.done.load(Ordering::Acquire);
        tokio::pin!(answer);
        let mut idle = Duration::ZERO;
        loop {
            match tokio::time::timeout(limit, &mut answer).await {
                Ok(Ok(result)) => return result.map_err(|error| error::advised(error, &self.command)),
                Ok(Err(_)) => return Err(error::cut_short(doing)),
                Err(_) => idle += limit,
            }
            let past = std::mem::replace(&mut done, self.done.load(Ordering::Acquire));
            if past != done {
                idle = Duration::ZERO;
            } else if state.has_begun() {
                return Err(error::timed_out(limit, doing));
            } else if idle > self.patience && state.give_up() {
                return Err(error::timed_out(idle, doing).with_outcome(Outcome::NotApplied));
            }
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Ends when the connection has: by itself, or because it was closed. Keeps no hold of it.
    pub(crate) fn died(&self) -> impl Future<Output = ()> + use<> {
        let mut dead = self.dead.clone();
        async move {
            let _ = dead.wait_for(|dead| *dead).await;
        }
    }

    /// Ends the connection in good order, or now if it is at work for long.
    pub(crate) async fn end(&self) {
        if self.jobs.send(Job::Farewell).is_ok() {
            let _ = tokio::time::timeout(FAREWELL, self.died()).await;
        }
        self.cut();
    }

    /// Ends the connection now, whatever it is doing.
    pub(crate) fn cut(&self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Work that hangs would keep the connection open, and no caller is left.
        self.cut();
    }
}

/// The connection as the server knows it.
struct ServerSide {
    settings: Settings,
    number: i64,
}

async fn serve(
    // It ends with this task: where that is aborted without a farewell, for which a server that stands still would have to be waited for.
    mut packets: Packets,
    server: ServerSide,
    mut jobs: mpsc::UnboundedReceiver<Job>,
    mut urgent: mpsc::UnboundedReceiver<Alone>,
    done: Arc<AtomicU64>,
    // What was not used for so long ends before the server ends it. (A session is over by then.)
    idle: Duration,
    // Goes with this task, also when that is aborted: those that watch must hear of it.
    _death: Death,
) {
    // What was found behind jobs that were done together.
    let mut next = None;
    while !packets.is_dead {
        let job = match urgent.try_recv() {
            Ok(job) => Some(Job::Alone(job)),
            Err(_) if next.is_some() => next.take(),
            Err(_) => tokio::select! {
                biased;
                job = urgent.recv() => job.map(Job::Alone),
                job = jobs.recv() => job,
                () = tokio::time::sleep(idle) => Some(Job::Farewell),
            },
        };
        // No caller is left.
        let Some(job) = job else { return };
        let (count, work): (usize, Work<'_, ()>) = match job {
            Job::Farewell => return packets.farewell().await,
            Job::Alone(job) => (1, job(&mut packets)),
            Job::Joint(first) => {
                let all = with_its_like(first, &mut jobs, &mut next);
                (all.len(), Box::pin(do_together(all, &mut packets)))
            }
        };
        let is_answered = tokio::select! {
            biased;
            () = work => true,
            () = no_answer_comes(&server.settings, server.number) => false,
        };
        packets.is_dead |= !is_answered;
        done.fetch_add(count as u64, Ordering::AcqRel);
    }
}

/// That job and those of its kind right behind it; `next` is what stands behind them.
fn with_its_like(first: Joint, jobs: &mut mpsc::UnboundedReceiver<Job>, next: &mut Option<Job>) -> Vec<Joint> {
    let mut all = vec![first];
    while all.len() < TOGETHER {
        match jobs.try_recv() {
            Ok(Job::Joint(joint)) => all.push(joint),
            other => {
                *next = other.ok();
                break;
            }
        }
    }
    all
}

async fn do_together(mut all: Vec<Joint>, packets: &mut Packets) {
    all.retain(|joint| !joint.reply.is_closed() && joint.state.begin());
    let Some(deed) = all.first().map(|joint| Arc::clone(&joint.deed)) else { return };
    let answers = deed.do_for(packets, all.iter().map(|joint| joint.id).collect()).await;
    for (joint, answer) in all.into_iter().zip(answers) {
        let _ = joint.reply.send(answer);
    }
}

/// A question that is on its way, and how far it is.
struct PendingJob<T> {
    answer: oneshot::Receiver<Result<T>>,
    state: Arc<JobState>,
}

fn alone<T: Send + 'static>(
    work: impl for<'c> FnOnce(&'c mut Packets) -> Work<'c, Result<T>> + Send + 'static,
) -> (Alone, PendingJob<T>) {
    let (reply, answer) = oneshot::channel();
    let state = Arc::new(JobState::default());
    let its_state = Arc::clone(&state);
    let job: Alone = Box::new(move |connection| {
        Box::pin(async move {
            if !reply.is_closed() && its_state.begin() {
                let result = work(connection).await;
                let _ = reply.send(result);
            }
        })
    });
    (job, PendingJob { answer, state })
}

fn gone(doing: &'static str) -> Error {
    error::lost(doing).with_outcome(Outcome::NotApplied)
}

struct Death(watch::Sender<bool>);

impl Drop for Death {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl BulkOperation for Nothing {
        fn do_for<'c>(&'c self, _: &'c mut Packets, ids: Vec<RequestId>) -> Work<'c, Vec<Result<()>>> {
            Box::pin(async move { ids.iter().map(|_| Ok(())).collect() })
        }
    }

    #[test]
    fn what_is_done_together_overtakes_nothing() {
        let joint = |id| {
            let (reply, _) = oneshot::channel();
            Joint { id: RequestId(id), deed: Arc::new(Nothing), state: Arc::default(), reply }
        };
        let (jobs, mut queue) = mpsc::unbounded_channel();
        let (other, _asked) = alone::<()>(|_| Box::pin(async { Ok(()) }));
        for job in [Job::Joint(joint(2)), Job::Alone(other), Job::Joint(joint(3))] {
            assert!(jobs.send(job).is_ok());
        }
        let mut next = None;
        let all = with_its_like(joint(1), &mut queue, &mut next);
        assert_eq!(all.iter().map(|one| one.id.0).collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(next, Some(Job::Alone(_))) && queue.len() == 1);
        for id in 0..2 * TOGETHER as u128 {
            assert!(jobs.send(Job::Joint(joint(id))).is_ok());
        }
        let mut none = None;
        assert_eq!(with_its_like(joint(1), &mut queue, &mut none).len(), TOGETHER);
        assert!(none.is_none());
    }
}
