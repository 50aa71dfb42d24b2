//! The workers: started, stopped, killed and started again; what they say goes into the chronicle.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tooz_conformance::history::now;
use tooz_tests::process::{Words, Worker};

use crate::backend::Backend;
use crate::chronicle::Chronicle;
use crate::ground::Ground;
use crate::record::{LOCKS, Record, Role};
use crate::worker;

/// How long a worker may take to close, beyond its operation timeout.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long one request may take.
const OPERATION: Duration = Duration::from_secs(2);

pub(crate) type Shared = Arc<Mutex<Chronicle>>;

pub(crate) struct Crew {
    roles: Vec<Role>,
    hands: Vec<Hand>,
    processes: usize,
    chronicle: Shared,
}

/// One worker that works.
enum Hand {
    Process { number: usize, worker: Box<Worker>, listening: JoinHandle<Result<()>> },
    Thread { ending: watch::Sender<bool>, working: JoinHandle<Result<()>> },
    Gone,
}

impl Crew {
    pub(crate) fn start(
        backend: &Backend,
        ground: &Ground,
        seed: u64,
        workers: usize,
        chronicle: Shared,
    ) -> Result<Crew> {
        let role = |index: usize| Role {
            url: ground.url_of(index, backend),
            member: format!("w{index}"),
            seed: seed.wrapping_add((index as u64) << 20),
            session_timeout: backend.session_timeout,
            operation_timeout: OPERATION,
            tasks: 2,
            locks: LOCKS,
            rest: Duration::from_millis(3),
        };
        let roles: Vec<Role> = (0..workers).map(role).collect();
        let hands = roles.iter().map(|_| Hand::Gone).collect();
        let mut crew = Crew { roles, hands, processes: 0, chronicle };
        for index in 0..workers {
            if ground.is_of_one_process() {
                crew.begin_here(index);
            } else {
                crew.begin(index)?;
            }
        }
        Ok(crew)
    }

    pub(crate) fn members(&self) -> Vec<String> {
        self.roles.iter().map(|role| role.member.clone()).collect()
    }

    /// Starts a process for that worker.
    pub(crate) fn begin(&mut self, index: usize) -> Result<()> {
        let number = self.processes;
        self.processes += 1;
        let mut role = self.roles[index].clone();
        role.seed = role.seed.wrapping_add(number as u64);
        let mut worker = Worker::start(&role)?;
        let listening = tokio::spawn(listen(worker.words()?, number, role.member, Arc::clone(&self.chronicle)));
        self.hands[index] = Hand::Process { number, worker: Box::new(worker), listening };
        Ok(())
    }

    /// Starts a thread of this process for that worker.
    fn begin_here(&mut self, index: usize) {
        let (number, role) = (self.processes, self.roles[index].clone());
        self.processes += 1;
        let (ending, end) = watch::channel(false);
        let (chronicle, member) = (Arc::clone(&self.chronicle), role.member.clone());
        let say = move |record: &Record| hear(&chronicle, number, &member, record.clone());
        let working = tokio::spawn(worker::work(role, Arc::new(say), end));
        self.hands[index] = Hand::Thread { ending, working };
    }

    pub(crate) fn stop(&self, index: usize) -> Result<()> {
        self.process(index)?.stop()
    }

    pub(crate) fn resume(&self, index: usize) -> Result<()> {
        self.process(index)?.resume()
    }

    fn process(&self, index: usize) -> Result<&Worker> {
        match &self.hands[index] {
            Hand::Process { worker, .. } => Ok(worker),
            Hand::Thread { .. } | Hand::Gone => bail!("worker {index} is no process"),
        }
    }

    /// Kills it, and hears all that it had said.
    pub(crate) async fn kill(&mut self, index: usize) -> Result<()> {
        let hand = std::mem::replace(&mut self.hands[index], Hand::Gone);
        let Hand::Process { number, mut worker, listening } = hand else { bail!("worker {index} is no process") };
        let at = now();
        worker.kill().await?;
        listening.await??;
        let member = &self.roles[index].member;
        lock(&self.chronicle).gone(number, member, Some(at));
        Ok(())
    }

    /// Lets all end, and says which did not.
    pub(crate) async fn end(self) -> Vec<String> {
        let mut ending = Vec::new();
        for (role, hand) in self.roles.iter().zip(self.hands) {
            ending.push(tokio::spawn(end(hand, role.member.clone(), Arc::clone(&self.chronicle))));
        }
        let mut stuck = Vec::new();
        for (role, one) in self.roles.iter().zip(ending) {
            let ended = one.await.context("it panicked").and_then(|ended| ended);
            if let Err(error) = ended {
                stuck.push(format!("{} did not end well: {error:#}", role.member));
            }
        }
        stuck
    }
}

async fn end(hand: Hand, member: String, chronicle: Shared) -> Result<()> {
    let limit = OPERATION + PATIENCE;
    match hand {
        Hand::Process { number, worker, listening } => {
            let ended = worker.end(limit).await;
            // Where it did not end it is killed now, and so it says no more.
            let heard = listening.await;
            lock(&chronicle).gone(number, &member, None);
            ended.and(heard?)
        }
        Hand::Thread { ending, working } => {
            let _ = ending.send(true);
            tokio::time::timeout(limit, working).await.with_context(|| format!("not within {limit:?}"))??
        }
        Hand::Gone => bail!("it was killed and not started again"),
    }
}

async fn listen(mut words: Words, number: usize, member: String, chronicle: Shared) -> Result<()> {
    loop {
        match words.next::<Record>().await {
            Ok(Some(record)) => hear(&chronicle, number, &member, record),
            Ok(None) => return Ok(()),
            // The last word of one that was killed may be half a word. Behind any other there are more.
            Err(error) => match words.next::<Record>().await {
                Ok(None) => return Ok(()),
                _ => return Err(error),
            },
        }
    }
}

fn hear(chronicle: &Shared, number: usize, member: &str, record: Record) {
    lock(chronicle).hear(number, member, record);
}

pub(crate) fn lock(chronicle: &Shared) -> std::sync::MutexGuard<'_, Chronicle> {
    chronicle.lock().expect("no thread panics with it")
}
