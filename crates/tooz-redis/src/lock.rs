//! Locks: one round trip to acquire, and for requests that wait a push with the grant.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tooz_core::driver::{Backoff, Granted, LockKey, LockRequest, Locks, PushStream, Space, Wanted, async_trait};
use tooz_core::{Error, ErrorKind, FencingToken, Holder, Result, Waiter};

use crate::error::{lost, strange};
use crate::holdings::Answer;
use crate::layout::{lock_at, lock_place};
use crate::record::{holder, letter, waiter};
use crate::reply::{FROM_THE_FIRST, Reply};
use crate::request::Argument;
use crate::script::Script;
use crate::session::RedisSession;

/// How long to wait before a request that failed is repeated, at first and at most, and by chance up to as much again; a connection that comes
/// back is waited for besides.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(700);

/// The ticket before the first one of a queue.
const BEFORE_ALL: &str = "-inf";

/// How many sessions one script is asked about.
const SESSIONS_AT_ONCE: usize = 200;

impl RedisSession {
    /// Reads what `acquire.lua` answers; `None`: the lock is another's.
    fn acquired(&self, request: &LockRequest, reply: &Reply) -> Result<Option<Granted>> {
        if reply.leaves_over(1) {
            self.client.go_on();
        }
        match reply.word.as_str() {
            "granted" => {
                let granted = Granted::new(FencingToken(reply.token(0)?));
                self.client.holdings.hold(request.id, lock_place(&request.key));
                Ok(Some(granted))
            }
            "busy" => Ok(None),
            _ => reply.strange(),
        }
    }

    /// Asks for the lock or a place in its queue.
    async fn ask_to_wait(&self, request: &LockRequest, wanted: &Wanted) -> Result<LockReply> {
        let Some(reply) = self.client.run_patiently(Script::Acquire, asked(request, "wait"), wanted).await? else {
            return Ok(LockReply::Nothing);
        };
        if let Some(granted) = self.acquired(request, &reply)? {
            return Ok(LockReply::Granted(granted));
        }
        self.client.sweep_in(reply.number(0)?);
        Ok(LockReply::Queued)
    }

    /// A pushed grant counts at once, except where replicas have to have it: then it is asked for again, and waited for.
    async fn confirm(&self, request: &LockRequest, granted: Granted) -> Result<Option<Granted>> {
        if self.client.settings.confirms() {
            return self.try_lock(request).await;
        }
        self.client.holdings.hold(request.id, lock_place(&request.key));
        Ok(Some(granted))
    }

    /// The living sessions of the namespace.
    async fn sessions(&self) -> Result<BTreeSet<String>> {
        let mut all = BTreeSet::new();
        let mut place = FROM_THE_FIRST.to_owned();
        loop {
            let reply = self.client.run(Script::Sessions, vec![place.as_str().into()]).await?;
            let mut texts = reply.texts(0)?.into_iter();
            place = texts.next().ok_or_else(|| strange(&reply))?;
            all.extend(texts);
            if place == FROM_THE_FIRST {
                return Ok(all);
            }
        }
    }
}

/// What became of a request for a lock or a place.
enum LockReply {
    Granted(Granted),
    Queued,
    /// It was not sent, since it is not wanted any more.
    Nothing,
}

/// As `acquire.lua` reads it: "wait" for a place in the queue, or "try".
fn asked(request: &LockRequest, or_else: &'static str) -> Vec<Argument> {
    vec![
        lock_place(&request.key).into(),
        request.id.to_string().into(),
        Argument::Word(letter(request.mode)),
        Argument::Word(or_else),
    ]
}

#[async_trait]
impl Locks for RedisSession {
    async fn try_lock(&self, request: &LockRequest) -> Result<Option<Granted>> {
        loop {
            let reply = self.client.run_surely(Script::Acquire, asked(request, "try")).await?;
            // So many of its holders are dead that it takes more than one script to find out whether all are.
            if !reply.is("again") {
                return self.acquired(request, &reply);
            }
        }
    }

    async fn lock(&self, request: &LockRequest, wanted: &Wanted) -> Result<Option<Granted>> {
        let lock = lock_place(&request.key);
        let mut pauses = Backoff::between(PAUSE, LONGEST_PAUSE);
        while wanted.is_wanted() {
            // Listening begins before the server could speak.
            let mut expected = self.client.holdings.expect(request.id, &lock);
            let failed = match self.ask_to_wait(request, wanted).await {
                Ok(LockReply::Granted(granted)) => return Ok(Some(granted)),
                Ok(LockReply::Queued) => {
                    wanted.queued();
                    pauses.reset();
                    None
                }
                Ok(LockReply::Nothing) => continue,
                // The place in the queue is kept as long as the session lives: the same request finds it again.
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut) => {
                    wanted.trouble(&error);
                    Some(error)
                }
                Err(error) => return Err(error),
            };
            let answer = tokio::select! {
                biased;
                answer = expected.hear() => match answer {
                    Some(answer) => answer,
                    None => return Err(failed.unwrap_or_else(lost)),
                },
                () = wanted.unwanted() => expected.heard().unwrap_or(Answer::AskAgain),
                () = pauses.pause(), if failed.is_some() => Answer::AskAgain,
            };
            // A grant that a fail-over has taken back leaves the place in the queue, which is asked for again.
            if let Answer::Granted(granted) = answer
                && let Some(granted) = self.confirm(request, granted).await?
            {
                return Ok(Some(granted));
            }
        }
        match self.release(request).await {
            // A place that was deleted is withdrawn as well.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map(|()| None),
        }
    }

    async fn release(&self, request: &LockRequest) -> Result<()> {
        self.client.holdings.forget(request.id);
        let arguments = vec![lock_place(&request.key).into(), request.id.to_string().into()];
        let reply = self.client.run(Script::Release, arguments).await?;
        if reply.leaves_over(0) {
            self.client.go_on();
        }
        match reply.word.as_str() {
            "ok" => Ok(()),
            "missing" => Err(Error::new(ErrorKind::NotFound, "the grant was deleted at the server")),
            _ => reply.strange(),
        }
    }

    async fn holders(&self, key: &LockKey) -> Result<Vec<Holder>> {
        // By their tokens, since a part may tell again what an earlier one has told.
        let mut all = BTreeMap::new();
        let mut place = FROM_THE_FIRST.to_owned();
        loop {
            let reply = self.client.run(Script::Holders, vec![lock_place(key).into(), place.as_str().into()]).await?;
            let texts = reply.texts(0)?;
            let (next, holders) = texts.split_first().ok_or_else(|| strange(&reply))?;
            for told in holders.chunks_exact(4) {
                // What another program has written there is no holder.
                let Some(holder) = holder(told) else { continue };
                all.insert(holder.token, holder);
            }
            if next == FROM_THE_FIRST {
                return Ok(all.into_values().collect());
            }
            place.clone_from(next);
        }
    }

    async fn break_lock(&self, key: &LockKey, token: FencingToken) -> Result<()> {
        let mut place = FROM_THE_FIRST.to_owned();
        loop {
            let arguments = vec![lock_place(key).into(), token.to_string().into(), place.as_str().into()];
            let reply = self.client.run(Script::Break, arguments).await?;
            match reply.word.as_str() {
                "ok" => {
                    if reply.leaves_over(0) {
                        self.client.go_on();
                    }
                    return Ok(());
                }
                "more" => place = reply.texts(0)?.concat(),
                "missing" => {
                    let message = format!("no session holds it with token {token} any more");
                    return Err(Error::new(ErrorKind::NotFound, message));
                }
                _ => return reply.strange(),
            }
        }
    }

    async fn watch_lock(&self, key: &LockKey) -> Result<Option<PushStream>> {
        match key.space {
            Space::Election => self.watch(self.client.layout.lock_channel(key)).await.map(Some),
            // A request that waits for a user's lock is told alone, so the rest is told to none.
            Space::Lock => Ok(None),
        }
    }

    /// By what the living sessions own, a part at a time.
    async fn locks(&self) -> Result<Vec<LockKey>> {
        let mut all = BTreeSet::new();
        let sessions = self.sessions().await?.into_iter();
        let mut left: Vec<_> = sessions.flat_map(|session| [session, FROM_THE_FIRST.to_owned()]).collect();
        while !left.is_empty() {
            let rest = left.split_off(left.len().min(2 * SESSIONS_AT_ONCE));
            let reply = self.client.run(Script::InUse, left.into_iter().map(Argument::from).collect()).await?;
            let again = 2 * usize::try_from(reply.number(0)?).unwrap_or(0);
            left = reply.texts(1)?;
            if left.len() < again {
                return reply.strange();
            }
            all.extend(left.split_off(again).iter().filter_map(|place| lock_at(place)));
            left.extend(rest);
        }
        Ok(all.into_iter().collect())
    }

    async fn waiters(&self, key: &LockKey) -> Result<Vec<Waiter>> {
        let mut all = Vec::new();
        let mut ticket = BEFORE_ALL.to_owned();
        loop {
            let reply = self.client.run(Script::Waiters, vec![lock_place(key).into(), ticket.as_str().into()]).await?;
            let texts = reply.texts(0)?;
            let (next, waiters) = texts.split_first().ok_or_else(|| strange(&reply))?;
            for told in waiters.chunks_exact(3) {
                all.extend(waiter(told));
            }
            if next == FROM_THE_FIRST {
                return Ok(all);
            }
            ticket.clone_from(next);
        }
    }
}
