//! The other party of a measure: a member in a process of its own, or in this one where no other process reaches the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tooz::{Coordinator, ErrorKind, GroupEvent, LockGuard, Membership};
use tooz_conformance::history::now;
use tooz_tests::process::{Worker, orders, say};

use crate::backend::{Backend, connect};

/// Longer than anything that is measured takes.
const PATIENCE: Duration = Duration::from_mins(2);

/// Who a party is.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Role {
    url: String,
    member: String,
}

/// What a party is told. Each order has one answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Acquire the lock and keep it.
    Acquire { lock: String },
    /// So many members of one's own acquire the same lock, each releasing it at once; answered before they have it.
    Queue { lock: String, waiters: usize },
    /// Release what is held.
    Release,
    /// Take turns on a lock until that moment, with a section of that length.
    Contend { lock: String, until: u64, section: Duration },
    /// Join with new capabilities.
    Join { group: String },
    /// New capabilities.
    Update { to: u64 },
    /// So many members of one's own join.
    JoinMany { group: String, count: usize },
    /// So many members of one's own watch; answered when all have their snapshot.
    WatchMany { group: String, count: usize },
    /// When the change to that value was seen by each watcher.
    Seen { value: u64 },
    /// Leave, forget, close all that was opened.
    Clear,
}

/// What a party answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// It is there, or it is done.
    Done,
    /// Done between these moments.
    Between { begun: u64, ended: u64 },
    /// The turns: asked, granted, released.
    Turns(Vec<Turn>),
    /// Moments, one for each.
    Moments(Vec<u64>),
    /// It went wrong.
    Failed(String),
}

/// One turn with a contended lock.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) asked: u64,
    pub(crate) granted: u64,
    pub(crate) released: u64,
}

/// The bench's side of a party.
pub(crate) enum Party {
    Here(Arc<Hand>, Option<JoinHandle<Word>>),
    There(Box<Worker>),
}

impl Party {
    pub(crate) async fn start(backend: &Backend, part: &str, member: &str) -> Result<Self> {
        Self::at(backend, backend.url(part), member).await
    }

    pub(crate) async fn at(backend: &Backend, url: String, member: &str) -> Result<Self> {
        let role = Role { url, member: member.to_owned() };
        if !backend.across_processes {
            return Ok(Party::Here(Arc::new(Hand::start(role).await?), None));
        }
        let mut party = Party::There(Box::new(Worker::start(&role)?));
        party.hear().await?;
        Ok(party)
    }

    pub(crate) async fn tell(&mut self, order: Order) -> Result<()> {
        match self {
            Party::There(worker) => worker.tell(&order).await,
            Party::Here(hand, task) => {
                let hand = Arc::clone(hand);
                *task = Some(tokio::spawn(async move { hand.obey(order).await }));
                Ok(())
            }
        }
    }

    pub(crate) async fn hear(&mut self) -> Result<Word> {
        let word = match self {
            Party::There(worker) => worker.hear(PATIENCE).await?,
            Party::Here(_, task) => task.take().context("nothing was told")?.await?,
        };
        match word {
            Word::Failed(why) => bail!("the other party failed: {why}"),
            word => Ok(word),
        }
    }

    pub(crate) async fn ask(&mut self, order: Order) -> Result<Word> {
        self.tell(order).await?;
        self.hear().await
    }

    /// When what was told was done.
    pub(crate) async fn hear_when(&mut self) -> Result<u64> {
        match self.hear().await? {
            Word::Between { ended, .. } => Ok(ended),
            other => Err(anyhow!("an unexpected answer: {other:?}")),
        }
    }

    /// Dies without a word; where it lives in this process, it is dropped without a close.
    pub(crate) async fn die(self) -> Result<()> {
        match self {
            Party::There(mut worker) => worker.kill().await,
            Party::Here(hand, _) => {
                drop(hand);
                Ok(())
            }
        }
    }

    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Party::There(worker) => worker.end(PATIENCE).await,
            Party::Here(hand, _) => Ok(hand.close().await?),
        }
    }
}

/// The whole life of a process that is a party.
pub(crate) fn serve(role: &Role) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime of two threads can be made");
    let hand = match runtime.block_on(Hand::start(role.clone())) {
        Ok(hand) => Arc::new(hand),
        Err(error) => return say(&Word::Failed(format!("{error:#}"))),
    };
    say(&Word::Done);
    for order in orders() {
        say(&runtime.block_on(hand.obey(order)));
    }
    let _ = runtime.block_on(hand.close());
}

/// What does the work.
pub(crate) struct Hand {
    role: Role,
    coordinator: Coordinator,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    guard: Option<LockGuard>,
    membership: Option<Membership>,
    /// The members that were opened beside the first.
    others: Vec<Coordinator>,
    memberships: Vec<Membership>,
    watchers: Vec<JoinHandle<()>>,
    /// For each value that was seen: when, by each watcher.
    seen: Arc<Mutex<HashMap<u64, Vec<u64>>>>,
}

impl Hand {
    async fn start(role: Role) -> Result<Self> {
        let coordinator = connect(&role.url, &role.member).await?;
        Ok(Hand { role, coordinator, state: Mutex::default() })
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics with it")
    }

    async fn obey(&self, order: Order) -> Word {
        self.try_to_obey(order).await.unwrap_or_else(|error| Word::Failed(format!("{error:#}")))
    }

    async fn try_to_obey(&self, order: Order) -> Result<Word> {
        let begun = now();
        match order {
            Order::Acquire { lock } => {
                let guard = self.coordinator.lock(lock)?.acquire().await?;
                let ended = now();
                self.state().guard = Some(guard);
                return Ok(Word::Between { begun, ended });
            }
            Order::Queue { lock, waiters } => {
                for coordinator in self.more(waiters).await? {
                    let lock = coordinator.lock(lock.as_str())?;
                    tokio::spawn(async move {
                        if let Ok(guard) = lock.acquire().await {
                            let _ = guard.release().await;
                        }
                    });
                }
            }
            Order::Release => {
                let guard = self.state().guard.take().context("nothing is held")?;
                guard.release().await?;
            }
            Order::Contend { lock, until, section } => return self.contend(&lock, until, section).await,
            Order::Join { group } => {
                let membership = self.coordinator.group(group)?.join_or_create(&0_u64).await?;
                self.state().membership = Some(membership);
            }
            Order::Update { to } => {
                let membership = self.state().membership.take().context("it is no member")?;
                let begun = now();
                membership.update(&to).await?;
                let ended = now();
                self.state().membership = Some(membership);
                return Ok(Word::Between { begun, ended });
            }
            Order::JoinMany { group, count } => {
                // A server that has a process for each connection takes its time to start a thousand.
                const AT_ONCE: usize = 20;
                let mut joins = tokio::task::JoinSet::new();
                for coordinator in self.more(count).await? {
                    if joins.len() == AT_ONCE
                        && let Some(membership) = joins.join_next().await
                    {
                        self.state().memberships.push(membership??);
                    }
                    let group = coordinator.group(group.as_str())?;
                    let capabilities = serde_json::json!({"host": coordinator.member().as_str(), "weight": 1});
                    joins.spawn(async move { group.join_or_create(&capabilities).await });
                }
                while let Some(membership) = joins.join_next().await {
                    self.state().memberships.push(membership??);
                }
            }
            Order::WatchMany { group, count } => self.watch_many(&group, count).await?,
            Order::Seen { value } => {
                let seen = Arc::clone(&self.state().seen);
                let moments = seen.lock().expect("no thread panics with it").get(&value).cloned();
                return Ok(Word::Moments(moments.unwrap_or_default()));
            }
            Order::Clear => self.clear().await?,
        }
        Ok(Word::Between { begun, ended: now() })
    }

    async fn contend(&self, lock: &str, until: u64, section: Duration) -> Result<Word> {
        let lock = self.coordinator.lock(lock)?;
        let mut turns = Vec::new();
        while now() < until {
            let asked = now();
            let left = Duration::from_nanos(until.saturating_sub(asked));
            let guard = match lock.acquire_within(left).await {
                Ok(Some(guard)) => guard,
                // The last wait is as short as chance will have it: too short for an answer of the backend, perhaps.
                Err(error) if error.kind() == ErrorKind::TimedOut && now() >= until => break,
                Ok(None) => break,
                Err(error) => return Err(error.into()),
            };
            let granted = now();
            if !section.is_zero() {
                // Work, not sleep: a timer's own lateness would be part of the figure.
                let end = std::time::Instant::now() + section;
                while std::time::Instant::now() < end {
                    std::hint::spin_loop();
                }
            }
            let released = now();
            guard.release().await?;
            turns.push(Turn { asked, granted, released });
        }
        Ok(Word::Turns(turns))
    }

    /// So many members more, in this process.
    async fn more(&self, count: usize) -> Result<Vec<Coordinator>> {
        let mut connecting = tokio::task::JoinSet::new();
        let first = self.state().others.len();
        for index in first..first + count {
            let (url, member) = (self.role.url.clone(), format!("{}-{index}", self.role.member));
            connecting.spawn(async move { connect(&url, &member).await });
        }
        let mut all = Vec::new();
        while let Some(coordinator) = connecting.join_next().await {
            all.push(coordinator??);
        }
        self.state().others.extend(all.iter().cloned());
        Ok(all)
    }

    async fn watch_many(&self, group: &str, count: usize) -> Result<()> {
        for coordinator in self.more(count).await? {
            let mut watch = coordinator.group(group)?.watch().await?;
            watch.next().await.context("a snapshot comes first")?;
            let seen = Arc::clone(&self.state().seen);
            let watcher = tokio::spawn(async move {
                while let Some(event) = watch.next().await {
                    let at = now();
                    if let GroupEvent::Updated(entry) = event
                        && let Ok(value) = entry.capabilities.get::<u64>()
                    {
                        seen.lock().expect("no thread panics with it").entry(value).or_default().push(at);
                    }
                }
            });
            self.state().watchers.push(watcher);
        }
        Ok(())
    }

    async fn clear(&self) -> Result<()> {
        let State { guard, membership, others, memberships, watchers, .. } = std::mem::take(&mut *self.state());
        for watcher in watchers {
            watcher.abort();
        }
        drop((guard, membership, memberships));
        let mut closing = tokio::task::JoinSet::new();
        for coordinator in others {
            closing.spawn(async move { coordinator.close().await });
        }
        while let Some(closed) = closing.join_next().await {
            closed??;
        }
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        self.clear().await?;
        Ok(self.coordinator.close().await?)
    }
}
