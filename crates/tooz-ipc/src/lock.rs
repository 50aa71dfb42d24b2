//! Locks as core asks for them. What a lock is in the table, `queue` knows.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tooz_core::driver::{Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted};
use tooz_core::{Error, ErrorKind, FencingToken, GroupId, Holder, LockName, MemberId, Result, Waiter};

use crate::critical::Critical;
use crate::error::{self, TableError};
use crate::holdings::HeldLock;
use crate::layout::BlockKind;
use crate::living::Living;
use crate::process::Process;
use crate::queue::{AskEnd, Occupant, PlaceState, WaitMode};
use crate::session::IpcSession;
use crate::slots::Remainder;

/// How often a waiter looks whether those before it live.
const LOOK: Duration = Duration::from_secs(1);
/// How often a waiter looks that does not get through to the table.
const LOOK_SOON: Duration = Duration::from_millis(250);
/// How many chains of records are looked at before others have their turn.
const STEP: usize = 256;

#[async_trait]
impl Locks for IpcSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        let living = self.owning()?;
        ask(&living, request, WaitMode::Try).await.map(|place| place.and_then(granted))
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let living = self.owning()?;
        let place = match take_place(&living, request, wanted).await? {
            Some(PlaceState { block, token: None }) => block,
            done => return Ok(done.and_then(granted)),
        };
        let wait = living.dispatch.holdings.wait(place);
        living.mind_deaths();
        wanted.queued();
        let answer = loop {
            // Also the first time: it may have been granted before anyone could be rung for.
            let pause = match look(&living, request, place).await {
                Ok(None) => {
                    wanted.queued();
                    LOOK
                }
                Ok(Some(token)) => break Ok(Some(token)),
                // It keeps its place; the next look may come through.
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    wanted.trouble(&error);
                    LOOK_SOON
                }
                Err(error) => break Err(error),
            };
            tokio::select! {
                biased;
                () = wait.rung() => {}
                () = wanted.unwanted() => break withdraw(&living, request, place).await,
                () = tokio::time::sleep(pause) => {}
            }
        };
        answer.map(|token| token.map(|token| Granted::new(FencingToken(token))))
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        let living = self.owning()?;
        let holdings = &living.dispatch.holdings;
        let Some(held) = holdings.place(request.id) else { return living.with(|_| Ok(())).await };
        let had = living.with(|table| leave(table, request, held.block)).await?;
        holdings.forget_place(request.id);
        if had || held.token.is_none() { Ok(()) } else { Err(error::taken_away()) }
    }

    fn holds(&self, request: &LockRequest) -> bool {
        self.present().is_some_and(|living| living.holds(request.id))
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        let Some(living) = self.looking().await? else { return Ok(Vec::new()) };
        let holders = see(&living, key).await?;
        let holders = holders.into_iter().filter_map(|(seen, member, process)| {
            let holder = Holder::new(member, seen.mode, FencingToken(seen.token?)).since(moment(seen.since));
            // A number of another namespace would be taken for a process of this one.
            Some(match process.pid_here() {
                Some(pid) => holder.pid(pid),
                None => holder,
            })
        });
        Ok(holders.collect())
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let none = || Error::new(ErrorKind::NotFound, format!("no holder has it with token {token} any more"));
        let Some(living) = self.looking().await? else { return Err(none()) };
        let broken = living.with(|table| table.break_lock(kind(key), key.name.as_bytes(), token.0)).await?;
        if broken { Ok(()) } else { Err(none()) }
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        let living = self.changing().await?;
        living.listen()?;
        let stream = living
            .with(|table| {
                let record = table.find_or_make(kind(key), key.name.as_bytes())?;
                // One that was just made stays only with the watch.
                watching(&living, table, record)
            })
            .await?;
        living.mind_deaths();
        Ok(Some(stream))
    }

    async fn locks(&self) -> Result<Vec<LockKey>> {
        let mut keys = Vec::new();
        let Some(living) = self.looking().await? else { return Ok(keys) };
        let mut from = Some(0);
        while let Some(bucket) = from {
            let (found, rest) = living.with(|table| in_use(table, bucket)).await?;
            keys.extend(found.into_iter().filter_map(|(kind, name)| match kind {
                BlockKind::Election => GroupId::new(name).ok().map(|group| LockKey::election(&group)),
                _ => LockName::new(name).ok().map(|name| LockKey::lock(&name)),
            }));
            from = rest;
            tokio::task::yield_now().await;
        }
        Ok(keys)
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let Some(living) = self.looking().await? else { return Ok(Vec::new()) };
        let waiters = see(&living, key).await?.into_iter().filter(|(seen, ..)| seen.token.is_none());
        Ok(waiters.map(|(seen, member, _)| Waiter::new(member, seen.mode).since(moment(seen.since))).collect())
    }
}

/// One more watcher of a record. All that a session has of one record go by one watch.
pub(crate) fn watching(living: &Living, table: &mut Critical<'_>, record: usize) -> Result<PushStream, TableError> {
    let watch = table.watch(record, living.dispatch.watch_of(record))?;
    Ok(living.dispatch.add_watcher(record, watch))
}

/// Asks for the lock, unless the request has its place already.
async fn ask(living: &Living, request: &LockRequest, patience: WaitMode) -> Result<Option<PlaceState>> {
    let holdings = &living.dispatch.holdings;
    if let Some(held) = holdings.place(request.id) {
        return match living.with(|table| table.place(held.block, request.id)).await? {
            None => Err(error::taken_away()),
            there => Ok(there),
        };
    }
    let lock = (kind(&request.key), request.key.name.as_bytes());
    loop {
        let act = |table: &mut Critical<'_>| table.ask(lock, request.id, request.mode, patience);
        let end = match patience {
            WaitMode::Try => living.with(act).await?,
            WaitMode::Wait => living.briefly(act).await?,
        };
        match end {
            AskEnd::Place(place) => {
                holdings.hold(request.id, HeldLock { block: place.block, token: place.token });
                return Ok(Some(place));
            }
            AskEnd::Refused => return Ok(None),
            AskEnd::DeadAhead => tokio::task::yield_now().await,
        }
    }
}

/// Asks for the lock until it has a place, and tells meanwhile what is in the way. `None`: it is not wanted any more.
async fn take_place(living: &Living, request: &LockRequest, wanted: &Wanted) -> Result<Option<PlaceState>> {
    loop {
        match ask(living, request, WaitMode::Wait).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => wanted.trouble(&error),
            done => return done,
        }
        tokio::select! {
            biased;
            () = wanted.unwanted() => return Ok(None),
            () = tokio::time::sleep(LOOK_SOON) => {}
        }
    }
}

/// The token, if the place has the lock by now.
async fn look(living: &Living, request: &LockRequest, block: usize) -> Result<Option<u64>> {
    // Under the table's lock: what is seen without it may be taken back.
    let token = loop {
        let (place, rest) = living.briefly(|table| table.look_again(block, request.id)).await?;
        let token = place.ok_or_else(error::taken_away)?.token;
        if token.is_some() || rest == Remainder::Nothing {
            break token;
        }
        tokio::task::yield_now().await;
    };
    if token.is_some() {
        living.dispatch.holdings.hold(request.id, HeldLock { block, token });
    }
    Ok(token)
}

/// Takes the place back, unless it has the lock by now.
async fn withdraw(living: &Living, request: &LockRequest, block: usize) -> Result<Option<u64>> {
    let token = living
        .with(|table| match table.place(block, request.id)? {
            Some(PlaceState { token: Some(token), .. }) => Ok(Some(token)),
            Some(_) => table.leave_queue(block).map(|()| None),
            None => Ok(None),
        })
        .await?;
    match token {
        Some(_) => living.dispatch.holdings.hold(request.id, HeldLock { block, token }),
        None => living.dispatch.holdings.forget_place(request.id),
    }
    Ok(token)
}

/// `false`: it had no place any more.
fn leave(table: &mut Critical<'_>, request: &LockRequest, block: usize) -> Result<bool, TableError> {
    match table.place(block, request.id)? {
        Some(_) => table.leave_queue(block).map(|()| true),
        None => Ok(false),
    }
}

/// All places of the living in a lock, with whose they are.
async fn see(living: &Living, key: &LockKey) -> Result<Vec<(Occupant, MemberId, Process)>> {
    let places = living.list_living(|table| places(table, key).map(Some), |(seen, _)| seen.owner).await?;
    let named = places.into_iter().flatten().map(|(seen, session)| Ok((seen, MemberId::new(&session.0)?, session.1)));
    named.collect()
}

/// Who has a place, and of which session: its member, and the process.
type Whose = (Occupant, Arc<(String, Process)>);

/// All places of a lock, each with its session, which may have many.
fn places(table: &mut Critical<'_>, key: &LockKey) -> Result<Vec<Whose>, TableError> {
    let mut sessions = HashMap::new();
    let seen = table.places(kind(key), key.name.as_bytes())?;
    let with_session = seen.into_iter().map(|seen| {
        let session = match sessions.entry(seen.owner.0) {
            Entry::Occupied(known) => Arc::clone(known.get()),
            Entry::Vacant(unknown) => Arc::clone(unknown.insert(Arc::new(table.session(seen.owner.0)?))),
        };
        Ok((seen, session))
    });
    with_session.collect()
}

type LocksInUse = (Vec<(BlockKind, String)>, Option<usize>);

/// The locks in some buckets that are in use.
fn in_use(table: &mut Critical<'_>, from: usize) -> Result<LocksInUse, TableError> {
    let (records, rest) = table.records(from, STEP)?;
    let mut found = Vec::new();
    for record in records {
        if let Some(kind @ (BlockKind::Lock | BlockKind::Election)) = table.kind(record)? {
            let name = table.name(record)?;
            if table.is_in_use(record)? {
                found.push((kind, name));
            }
        }
    }
    Ok((found, rest))
}

fn granted(place: PlaceState) -> Option<Granted> {
    place.token.map(|token| Granted::new(FencingToken(token)))
}

fn kind(key: &LockKey) -> BlockKind {
    match key.space {
        Space::Lock => BlockKind::Lock,
        Space::Election => BlockKind::Election,
    }
}

fn moment(micros: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
