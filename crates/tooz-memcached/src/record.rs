//! Records at the server: journals that are appended to and read in one round trip, and written anew where they have become long.

use std::collections::BTreeSet;

use tooz_core::{Outcome, Result};

use crate::client::{Client, Lane, Replies};
use crate::error::{crowded, full, is_out_of_memory, lost, of_server};
use crate::journal::SessionId;
use crate::reply::{Batch, Flags, Reply, Version};

/// How often a record is appended to that others make and delete at the same time.
const TRIES: usize = 20;

/// What a value has beside its text at the server, in bytes: its key and its head.
const BESIDE: usize = 512;

/// How many sessions are looked for in one write.
const AT_ONCE: usize = 500;

/// What stood in a record.
#[derive(Clone, Debug)]
pub(crate) struct RecordReading {
    /// `None`: there is no record.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) version: Version,
    /// Whether what was appended may yet be appended once more.
    pub(crate) in_doubt: bool,
    /// Whether another has written the record anew between what was appended and the reading of it: the entry had its effect, and no longer stands
    /// here.
    pub(crate) rewritten: bool,
}

/// What becomes of an entry where there is no record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IfMissing {
    /// It is the first of a new one.
    Make,
    /// It has no effect.
    Leave,
}

/// Writes a journal anew: the text without what is over.
pub(crate) type Compact = fn(&[u8], &BTreeSet<SessionId>) -> Result<String>;

/// For how many seconds a text is kept; 0: for ever.
pub(crate) type KeptFor = fn(&str) -> u32;

/// An entry for a record.
pub(crate) struct Append<'a> {
    pub(crate) key: &'a str,
    pub(crate) entry: &'a str,
    pub(crate) missing: IfMissing,
    /// For how many seconds the record is kept from then on; 0: for ever.
    pub(crate) seconds: u32,
    pub(crate) lane: Lane,
    /// Whether it is the session's, which has to live.
    pub(crate) owned: bool,
    pub(crate) compact: Compact,
}

impl Client {
    /// Reads a record.
    pub(crate) async fn read(&self, key: &str) -> Result<RecordReading> {
        let mut done = self.run(Batch::default().get(key), Lane::Wish).await?;
        let value = done.next().value()?;
        Ok(RecordReading::of(value, &done))
    }

    /// Appends an entry, and reads what stands there then.
    ///
    /// `NS` of an append says that it was not done, and not why: the record is missing, or too long, or the server is full. What is read behind
    /// it tells.
    pub(crate) async fn append(&self, append: &Append<'_>) -> Result<RecordReading> {
        let Append { key, entry, missing, lane, .. } = *append;
        let mut in_doubt = false;
        self.must_fit(entry)?;
        for _ in 0..TRIES {
            let room = self.must_have_room(key.len(), entry.len()).await;
            room.map_err(|error| doubtful(error, in_doubt))?;
            let batch = Batch::default().append(key, entry).get_and_keep(key, append.seconds).look(&self.session_key);
            let mut done = self.run(batch, lane).await.map_err(|error| doubtful(error, in_doubt))?;
            in_doubt |= done.in_doubt;
            let (stored, value) = (done.next(), done.next().value()?);
            must_live(done.next(), append.owned)?;
            let is_done = match stored {
                Reply::Done(_) => true,
                Reply::NotStored => false,
                Reply::Refused(said) => {
                    self.set_tight();
                    return Err(doubtful(of_server(&said), in_doubt));
                }
                other => return Err(other.unexpected()),
            };
            let mut seen = match (value, missing) {
                (None, IfMissing::Leave) => {
                    Some(RecordReading { rewritten: is_done, ..RecordReading::of(None, &done) })
                }
                (None, IfMissing::Make) => self.make(append).await.map_err(|error| doubtful(error, in_doubt))?,
                (Some((text, flags)), _) => {
                    let is_there = contains(&text, entry.as_bytes());
                    let seen = RecordReading {
                        rewritten: is_done && !is_there,
                        ..RecordReading::of(Some((text, flags)), &done)
                    };
                    if is_done || is_there { Some(seen) } else { self.make_room(append, &seen).await? }
                }
            };
            if let Some(seen) = &mut seen {
                seen.in_doubt |= in_doubt;
            }
            if let Some(seen) = seen {
                return Ok(seen);
            }
        }
        Err(doubtful(crowded(), in_doubt))
    }

    /// Sees that an entry is not by itself longer than a value may be: that would delete the record.
    fn must_fit(&self, entry: &str) -> Result<()> {
        let longest = self.server().setting("item_size_max").parse().unwrap_or(usize::MAX);
        if entry.len().saturating_add(BESIDE) > longest { Err(of_server("too large")) } else { Ok(()) }
    }

    /// Sees that a full server has room for so many bytes: see [`has_room`](Self::has_room).
    pub(crate) async fn must_have_room(&self, key_length: usize, length: usize) -> Result<()> {
        if self.has_room(key_length, length).await? { Ok(()) } else { Err(full()) }
    }

    /// Whether a full server has room for so many bytes. One that has none does not just refuse to append or to replace: it deletes the record that
    /// it can't write to, and with it the place of each holder. So it is asked for room in a key of this session's own first; it has
    /// room for each size of its own, so that key is as long as the other one.
    pub(crate) async fn has_room(&self, key_length: usize, length: usize) -> Result<bool> {
        // Nothing is written yet.
        self.know_the_server().await.map_err(|error| error.with_outcome(Outcome::NotApplied))?;
        if self.is_tight() { self.probe_room(key_length, length).await } else { Ok(true) }
    }

    /// Asks for room, whether the server may be full or not.
    async fn probe_room(&self, key_length: usize, length: usize) -> Result<bool> {
        // All keys that matter begin with another letter.
        let mut key = format!("r{:r<249}", self.session.to_string());
        key.truncate(key_length);
        let batch = Batch::default().set(&key, &"-".repeat(length), 1).delete(&key);
        match self.run(batch, Lane::Duty).await?.next() {
            Reply::Done(_) => Ok(true),
            Reply::Refused(said) if is_out_of_memory(&said) => Ok(false),
            other => Err(other.unexpected()),
        }
    }

    /// Makes a record of one entry; `None`: another was faster.
    async fn make(&self, append: &Append<'_>) -> Result<Option<RecordReading>> {
        let Append { key, entry, lane, owned, .. } = *append;
        let mut done = self.run(Batch::default().add(key, entry, append.seconds).look(&self.session_key), lane).await?;
        let made = done.next().was_done()?;
        must_live(done.next(), owned)?;
        Ok(made.map(|flags| RecordReading::of(Some((entry.as_bytes().to_vec(), flags)), &done)))
    }

    /// Writes a record anew that nothing can be appended to, with what the entry makes of it: one that ends something makes it shorter. `None`: another
    /// has changed it.
    async fn make_room(&self, append: &Append<'_>, seen: &RecordReading) -> Result<Option<RecordReading>> {
        let mut text = seen.text.clone().unwrap_or_default();
        text.extend_from_slice(append.entry.as_bytes());
        let gone = self.gone(&text, append.compact).await?;
        let short = (append.compact)(&text, &gone)?;
        // What is too long would delete the record, too.
        if !self.probe_room(append.key.len(), short.len()).await? {
            return Err(full());
        }
        // The caller reads there, too, how those requests that are over have ended.
        Ok(self
            .swap_at_once(append.key, seen.version, &short, append.seconds, append.lane)
            .await?
            .map(|version| RecordReading { text: Some(text), version, in_doubt: false, rewritten: false }))
    }

    /// Replaces a version of a record, where the server has room; `None`: there is another version, or another connection.
    pub(crate) async fn swap(
        &self,
        key: &str,
        version: Version,
        text: &str,
        seconds: u32,
        lane: Lane,
    ) -> Result<Option<Version>> {
        self.must_have_room(key.len(), text.len()).await?;
        self.swap_at_once(key, version, text, seconds, lane).await
    }

    /// Like [`swap`](Self::swap), on a server that has just shown to have room.
    async fn swap_at_once(
        &self,
        key: &str,
        version: Version,
        text: &str,
        seconds: u32,
        lane: Lane,
    ) -> Result<Option<Version>> {
        let batch = Batch::default().swap(key, version.cas, text, seconds);
        let Some(mut done) = self.run_on(version.epoch, batch, lane).await? else { return Ok(None) };
        let swapped = done.next().was_done()?;
        Ok(swapped.map(|flags| Version { epoch: done.epoch, cas: flags.cas }))
    }

    /// The sessions among these that are gone. A session that is gone stays so.
    pub(crate) async fn gone_of(&self, sessions: impl IntoIterator<Item = SessionId>) -> Result<BTreeSet<SessionId>> {
        let all: Vec<_> = sessions.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
        let mut gone = BTreeSet::new();
        for some in all.chunks(AT_ONCE) {
            let batch = some.iter().fold(Batch::default(), |batch, id| batch.look(&self.layout.session(*id)));
            let done = self.run(batch, Lane::Wish).await?;
            for (session, reply) in some.iter().zip(done.rest()) {
                if !reply.found()? {
                    gone.insert(*session);
                }
            }
        }
        Ok(gone)
    }

    /// The sessions that are gone among those for which a text has to remember something.
    async fn gone(&self, text: &[u8], compact: Compact) -> Result<BTreeSet<SessionId>> {
        let kept = compact(text, &BTreeSet::new())?;
        let withdrawn = kept.lines().filter(|line| line.starts_with('W'));
        let sessions = withdrawn.filter_map(|line| line.rsplit('\t').next()?.parse().ok());
        self.gone_of(sessions).await
    }

    /// Writes a record anew without what is over, if it is not changed meanwhile; otherwise that is left to the next client.
    pub(crate) async fn tidy(
        &self,
        key: &str,
        seen: &RecordReading,
        kept_for: KeptFor,
        compact: Compact,
    ) -> Result<()> {
        let Some(text) = &seen.text else { return Ok(()) };
        let gone = self.gone(text, compact).await?;
        let text = compact(text, &gone)?;
        self.swap(key, seen.version, &text, kept_for(&text), Lane::Duty).await.map(drop)
    }
}

fn must_live(session: Reply, owned: bool) -> Result<()> {
    if !session.found()? && owned {
        return Err(lost());
    }
    Ok(())
}

impl RecordReading {
    pub(crate) fn of(value: Option<(Vec<u8>, Flags)>, done: &Replies) -> Self {
        let (text, cas) = value.map_or((None, 0), |(text, flags)| (Some(text), flags.cas));
        RecordReading { text, version: Version { epoch: done.epoch, cas }, in_doubt: done.in_doubt, rewritten: false }
    }

    /// Whether the text may no longer tell what effect the entry had: it was sent twice, or the record was written anew behind it.
    pub(crate) fn may_have_forgotten(&self) -> bool {
        self.in_doubt || self.rewritten
    }
}

fn doubtful(error: tooz_core::Error, in_doubt: bool) -> tooz_core::Error {
    if in_doubt { error.with_outcome(Outcome::Unknown) } else { error }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
