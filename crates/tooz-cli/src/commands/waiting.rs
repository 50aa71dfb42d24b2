//! Who is waited for: told once it lasts, shown on a terminal, and told again when it is another.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tooz::{ErrorKind, Group, Leader, Lock};

use crate::speech::locks::{Queue, in_the_way};
use crate::speech::{self, Event, waiting};

/// A wait that is over sooner is not worth a word, nor a question to the backend.
const WORTH_A_WORD: Duration = Duration::from_millis(100);

/// How often is asked who is in the way. Many may wait, and each of them asks.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The same until there was an answer.
const ASK_ANEW: Duration = Duration::from_secs(1);

/// How long an answer may take: a wait outlives an outage of the backend.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has to be waited for.
pub(super) enum InTheWay<'a> {
    Lock(&'a Lock),
    Leader(&'a Group),
}

/// Who it is at one moment.
#[derive(PartialEq)]
enum Obstacle {
    Queue(Queue),
    Leader(Option<Leader>),
}

impl<'a> InTheWay<'a> {
    pub(super) fn of_lock(lock: &'a Lock) -> Self {
        InTheWay::Lock(lock)
    }

    pub(super) fn of_leader(group: &'a Group) -> Self {
        InTheWay::Leader(group)
    }

    /// Asks; `None` where the backend does not answer: that is told as what happens to the session.
    async fn ask(&self) -> Option<Obstacle> {
        let asked = async {
            match self {
                InTheWay::Lock(lock) => {
                    let holders = lock.holders().await?;
                    let waiters = match lock.waiters().await {
                        Err(error) if error.kind() == ErrorKind::Unsupported => None,
                        waiters => Some(waiters?),
                    };
                    Ok(Obstacle::Queue(Queue { holders, waiters }))
                }
                InTheWay::Leader(group) => group.leader().await.map(Obstacle::Leader),
            }
        };
        timeout(PATIENCE, asked).await.ok()?.ok().filter(Obstacle::is_worth_a_word)
    }

    fn event(&self, obstacle: &Obstacle) -> Option<Event> {
        match (self, obstacle) {
            (InTheWay::Lock(lock), Obstacle::Queue(queue)) => Some(speech::locks::waiting(lock.name(), queue)),
            (InTheWay::Leader(group), Obstacle::Leader(leader)) => {
                Some(speech::groups::standing(group.name(), leader.as_ref()))
            }
            _ => None,
        }
    }

    fn line(&self, obstacle: &Obstacle) -> String {
        match (self, obstacle) {
            (InTheWay::Lock(lock), Obstacle::Queue(queue)) => {
                format!("waiting for lock {:?}, {}", lock.name(), in_the_way(queue))
            }
            (InTheWay::Leader(group), Obstacle::Leader(Some(leader))) => {
                format!("waiting to lead group {:?}, led by {:?}", group.name(), leader.member)
            }
            (InTheWay::Leader(group), _) => format!("waiting to lead group {:?}", group.name()),
            (InTheWay::Lock(lock), _) => format!("waiting for lock {:?}", lock.name()),
        }
    }
}

impl Obstacle {
    /// A lock that has no holder at this moment is about to be granted.
    fn is_worth_a_word(&self) -> bool {
        !matches!(self, Obstacle::Queue(queue) if queue.holders.is_empty())
    }

    /// Another one is in the way than before; who waits behind is not told each time.
    fn is_another_than(&self, other: &Obstacle) -> bool {
        match (self, other) {
            (Obstacle::Queue(one), Obstacle::Queue(other)) => one.holders != other.holders,
            (one, other) => one != other,
        }
    }
}

/// Waits for what is wanted, and tells meanwhile who is in the way.
pub(super) async fn tell_while<T>(wanted: impl Future<Output = T>, in_the_way: InTheWay<'_>) -> T {
    tokio::select! {
        biased;
        answer = wanted => answer,
        () = tell(&in_the_way) => unreachable!("it goes on telling"),
    }
}

/// Never ends.
async fn tell(in_the_way: &InTheWay<'_>) {
    sleep(WORTH_A_WORD).await;
    let mut told: Option<Obstacle> = None;
    let mut shown: Option<waiting::WaitingLine> = None;
    loop {
        if let Some(obstacle) = in_the_way.ask().await {
            let line = in_the_way.line(&obstacle);
            match &shown {
                Some(shown) => shown.change(line),
                None => shown = Some(waiting::show(line)),
            }
            if told.as_ref().is_none_or(|told| obstacle.is_another_than(told)) {
                in_the_way.event(&obstacle).iter().for_each(speech::tell);
                told = Some(obstacle);
            }
        }
        sleep(if told.is_some() { ASK_AGAIN } else { ASK_ANEW }).await;
    }
}
