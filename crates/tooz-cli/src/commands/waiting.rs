//! Who is waited for: told once it lasts, shown on a terminal, and told again when it is another.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tooz::{Coordinator, ErrorKind, Group, Holder, Lock, LockName, MemberId};

use crate::speech::locks::{Asker, Queue};
use crate::speech::{self, Event, waiting};

/// A wait that is over sooner is not worth a word, nor a question to the backend.
const WORTH_A_WORD: Duration = Duration::from_millis(100);

/// How often is asked who is in the way. Many may wait, and each of them asks.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The same until there was an answer.
const ASK_ANEW: Duration = Duration::from_secs(1);

/// How long an answer may take: a wait outlives an outage of the backend.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same where nothing is waited for any more.
const LAST_QUESTION: Duration = Duration::from_secs(1);

/// What is waited for.
pub(super) enum Wait<'a> {
    ForLock(&'a Lock, &'a MemberId),
    ToLead(&'a Group),
}

/// Who is in the way at one moment.
struct Obstacle {
    /// Each with the token of the grant.
    holders: Vec<(String, u64)>,
    event: Event,
}

impl Wait<'_> {
    /// Asks; `None` where the backend does not answer: that is told as what happens to the session.
    async fn ask(&self) -> Option<Obstacle> {
        let asked = async {
            match self {
                Wait::ForLock(lock, member) => of_lock(lock, member).await,
                Wait::ToLead(group) => of_election(group).await,
            }
        };
        timeout(PATIENCE, asked).await.ok()?.ok()
    }
}

/// Who has a lock that was not to be had; none where that can't be told quickly.
pub(super) async fn holders(coordinator: &Coordinator, name: &LockName) -> Vec<Holder> {
    let asked = async { coordinator.lock(name)?.holders().await };
    timeout(LAST_QUESTION, asked).await.ok().and_then(tooz::Result::ok).unwrap_or_default()
}

async fn of_lock(lock: &Lock, member: &MemberId) -> tooz::Result<Obstacle> {
    let holders = lock.holders().await?;
    let waiters = match lock.waiters().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        waiters => Some(waiters?),
    };
    let each = holders.iter().map(|holder| (holder.member.to_string(), holder.token.0));
    let (holders, queue) = (each.collect(), Queue { holders, waiters });
    let asker = Asker::of(lock.name(), member);
    Ok(Obstacle { holders, event: speech::locks::waiting(lock.name(), &queue, &asker) })
}

async fn of_election(group: &Group) -> tooz::Result<Obstacle> {
    let leader = group.leader().await?;
    let holders = leader.iter().map(|leader| (leader.member.to_string(), leader.epoch.0)).collect();
    Ok(Obstacle { holders, event: speech::groups::standing(group.name(), leader.as_ref()) })
}

/// Waits for what is wanted, and tells meanwhile who is in the way.
pub(super) async fn tell_while<T>(wanted: impl Future<Output = T>, wait: Wait<'_>) -> T {
    tokio::select! {
        biased;
        answer = wanted => answer,
        () = tell(&wait) => unreachable!("it goes on telling"),
    }
}

/// Never ends.
async fn tell(wait: &Wait<'_>) {
    sleep(WORTH_A_WORD).await;
    let mut told: Option<Obstacle> = None;
    let mut shown: Option<waiting::WaitingLine> = None;
    let mut asked = 0_u64;
    loop {
        asked += 1;
        // Without a holder the grant is mostly on its way.
        if let Some(obstacle) = wait.ask().await.filter(|obstacle| asked > 1 || !obstacle.holders.is_empty()) {
            let line = obstacle.event.sentence().to_owned();
            match &shown {
                Some(shown) => shown.change(line),
                None => shown = Some(waiting::show(line)),
            }
            // Who waits behind is not told each time.
            if told.as_ref().is_none_or(|told| told.holders != obstacle.holders) {
                speech::tell(&obstacle.event);
            }
            told = Some(obstacle);
        }
        sleep(if told.is_some() { ASK_AGAIN } else { ASK_ANEW }).await;
    }
}
