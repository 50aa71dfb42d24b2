//! Waiting for a lock: a waiter looks as often as suits its place in the line.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;
use tooz_core::driver::{Backoff, Granted, LockRequest, Wanted};
use tooz_core::{ErrorKind, Result};

use crate::client::{Client, Lane};
use crate::error::lost;
use crate::journal::{SessionId, dead};
use crate::lock::SeenLock;
use crate::record::{IfMissing, RecordReading};
use crate::reply::{Batch, Version};

/// How often the first in the line looks: soon after something has changed, and more and more seldom when nothing does.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// No waiter looks more seldom than that.
const SELDOM: Duration = Duration::from_secs(1);

/// How often the first in the line looks whether those before it live.
const DEATHS: Duration = Duration::from_millis(200);

/// A record that is not longer is read at once, and else only when its version is another.
const SHORT: usize = 1024;

/// How long to wait before a question that failed is asked again.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(700);

impl Client {
    /// Waits for the turn of a request that has its place.
    pub(crate) async fn wait(
        &self,
        request: &LockRequest,
        key: &str,
        mut look: SeenLock,
        wanted: &Wanted,
    ) -> Result<Option<Granted>> {
        let (mut changed, mut deaths, mut asked) = (Instant::now(), Instant::now(), Instant::now());
        let mut pauses = Backoff::between(PAUSE, LONGEST_PAUSE);
        let mut failed: Option<Duration> = None;
        while wanted.is_wanted() {
            let place = look.journal.in_the_way(request.id).map_or(1, |before| before.len().max(1));
            let place = u32::try_from(place).unwrap_or(u32::MAX);
            let often = (changed.elapsed() / 100).clamp(SHORTEST, LONGEST);
            // From one question to the next, however long the answer was on its way.
            let next = match failed.take() {
                Some(pause) => Instant::now() + pause,
                None => asked + often.saturating_mul(place).min(SELDOM),
            };
            tokio::select! {
                biased;
                () = self.ended() => return Err(lost()),
                () = wanted.unwanted() => break,
                () = tokio::time::sleep_until(next) => {}
            }
            asked = Instant::now();
            let (version, text) = (look.seen.version, look.seen.text.clone());
            let is_due = deaths <= Instant::now();
            let kept = SeenLock { journal: look.journal.clone(), seen: RecordReading { text, ..look.seen.clone() } };
            match self.look_again(request, key, look, is_due).await {
                Ok(new) => {
                    look = new;
                    pauses.reset();
                    wanted.queued();
                    if look.seen.version != version {
                        (changed, deaths) = (Instant::now(), Instant::now());
                    } else if is_due {
                        deaths = Instant::now() + DEATHS.saturating_mul(place).min(SELDOM);
                    }
                    if let Some(granted) = self.granted(request, key, &look)? {
                        return Ok(Some(granted));
                    }
                }
                // The place in the line is kept as long as the session lives.
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::TimedOut) => {
                    wanted.trouble(&error);
                    failed = Some(pauses.next());
                    look = kept;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Looks again, if there is anything new; and whether those that are before this request live, if that is due.
    async fn look_again(&self, request: &LockRequest, key: &str, look: SeenLock, deaths_due: bool) -> Result<SeenLock> {
        let sessions = if deaths_due { look.nearest(request.id) } else { BTreeSet::new() };
        let is_short = look.length() <= SHORT;
        let batch = if is_short { Batch::default().get(key) } else { Batch::default().look(key) };
        let batch = batch.look(&self.session_key);
        let batch = sessions.iter().fold(batch, |batch, session| batch.look(&self.layout.session(*session)));
        let mut done = self.run(batch, Lane::Wish).await?;
        let record = done.next();
        if !done.next().found()? {
            return Err(lost());
        }
        let (look, is_new) = if is_short {
            let seen = RecordReading::of(record.value()?, &done);
            if seen.version == look.seen.version { (look, false) } else { (SeenLock::of(seen)?, true) }
        } else {
            let cas = record.flags()?.map_or(0, |flags| flags.cas);
            let version = Version { epoch: done.epoch, cas };
            if version == look.seen.version { (look, false) } else { (self.look_with_session(key).await?, true) }
        };
        if look.journal.place_of(request.id).is_none() && look.journal.end_of(request.id).is_none() {
            // The record was lost: it is asked for anew.
            return self.line_up(request, key).await;
        }
        let mut gone = BTreeSet::new();
        for (session, reply) in sessions.iter().zip(done.rest()) {
            if !reply.found()? {
                gone.insert(*session);
            }
        }
        gone.retain(|session| look.journal.line.iter().any(|place| place.session == *session));
        if gone.is_empty() || is_new { Ok(look) } else { self.bury_and_live(key, &gone).await }
    }

    /// Reads a record, and sees that this session lives.
    async fn look_with_session(&self, key: &str) -> Result<SeenLock> {
        let mut done = self.run(Batch::default().get(key).look(&self.session_key), Lane::Wish).await?;
        let value = done.next().value()?;
        if !done.next().found()? {
            return Err(lost());
        }
        SeenLock::of(RecordReading::of(value, &done))
    }

    /// Writes down that sessions are dead, like [`bury`](Self::bury), for a request of this session, which has to live.
    pub(crate) async fn bury_and_live(&self, key: &str, gone: &BTreeSet<SessionId>) -> Result<SeenLock> {
        let entries: String = gone.iter().map(|session| dead(*session)).collect();
        self.append_to_lock(key, &entries, IfMissing::Leave, Lane::Wish, true).await
    }
}
