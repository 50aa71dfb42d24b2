//! What is done besides requests: reading what others tell this session, and looking after what is held, a few at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tooz_core::driver::RequestId;
use tooz_core::{Error, Result};

use crate::client::{Client, Lane};
use crate::error::lost;
use crate::holdings::{HeldLock, HeldMembership};
use crate::journal::group;
use crate::journal::lock;
use crate::journal::{BETWEEN, SessionId, dead};
use crate::record::RecordReading;
use crate::reply::{Batch, Reply, Version};
use crate::server::Server;
use crate::server_clock::kept;

/// How often the mail is looked at while anything is held.
const MAIL: Duration = Duration::from_millis(500);

/// What is held is looked after at least as often.
const ROUND: Duration = Duration::from_secs(10);

/// Nothing is written before another look at how full the server is when the last one was longer ago.
const LONG_AGO: Duration = Duration::from_secs(12);

/// How many records are written to in one request at the end.
const AT_ONCE: usize = 200;

/// The mail is cleared when it is longer, in bytes.
const LONGEST_MAIL: usize = 4096;

/// What was read of the mail.
#[derive(Clone, Copy, Default)]
struct Mail {
    version: Version,
    /// How much of it was heard.
    heard: usize,
}

/// What another tells a session.
#[derive(Clone, Copy)]
pub(crate) enum Letter {
    /// A grant was broken.
    Broken(RequestId),
    /// A membership was taken over.
    TakenOver(RequestId),
}

impl Letter {
    /// As it stands in the mail.
    fn text(self) -> String {
        match self {
            Letter::Broken(request) => format!("B{BETWEEN}{request}\n"),
            Letter::TakenOver(request) => format!("M{BETWEEN}{request}\n"),
        }
    }
}

/// Goes on for as long as it is let.
pub(crate) async fn keep_up(client: Arc<Client>) {
    let mut mail = interval(MAIL);
    mail.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let round = (client.timeout / 3).min(ROUND);
    let (mut read, mut next_round) = (Mail::default(), Instant::now() + round);
    loop {
        mail.tick().await;
        if !client.is_open() {
            continue;
        }
        let is_due = next_round <= Instant::now();
        if is_due {
            next_round = Instant::now() + round;
        }
        if !client.holdings.is_empty() {
            // What fails is tried again at the next tick.
            if let Ok(mail) = client.read_mail(read).await {
                read = mail;
            }
            if is_due {
                let (held, joined) = client.holdings.next_few();
                let _ = client.look_after(&held, &joined).await;
            }
        }
        // A client that holds nothing may want something, and would delete what others hold.
        if is_due {
            let _ = client.look_at_server().await;
        }
    }
}

impl Client {
    /// Sees that it is known how full the server is, before anything is written to it.
    pub(crate) async fn know_the_server(&self) -> Result<()> {
        if self.has_not_looked_for(LONG_AGO) { self.look_at_server().await } else { Ok(()) }
    }

    /// Whether the server has become full.
    async fn look_at_server(&self) -> Result<()> {
        let mut done = self.run(Server::questions(), Lane::Duty).await?;
        self.set_server(Server::read(|| done.next())?);
        Ok(())
    }

    /// Tells a session, if it is still there.
    pub(crate) async fn tell(&self, session: SessionId, letter: Letter) -> Result<()> {
        let text = letter.text();
        self.must_have_room(self.session_key.len(), text.len()).await?;
        self.run(Batch::default().append(&self.layout.session(session), &text), Lane::Duty).await.map(drop)
    }

    /// Whether another has told that, and it still stands in the mail.
    pub(crate) async fn has_letter(&self, letter: Letter) -> Result<bool> {
        let mut done = self.run(Batch::default().get(&self.session_key), Lane::Duty).await?;
        let (text, _) = done.next().value()?.ok_or_else(lost)?;
        let told = letter.text();
        Ok(String::from_utf8_lossy(&text).lines().any(|line| line == told.trim_end()))
    }

    /// Tells core that the session is over.
    pub(crate) fn session_is_gone(&self) -> Error {
        self.set_gone();
        self.reporter.session_lost("the server has no such session");
        lost()
    }

    /// Reads what others have told, if there is something new, and clears it when it has become long.
    async fn read_mail(&self, mail: Mail) -> Result<Mail> {
        let mut done = self.run(Batch::default().look(&self.session_key), Lane::Duty).await?;
        let Some(flags) = done.next().flags()? else { return Err(self.session_is_gone()) };
        let now = Version { epoch: done.epoch, cas: flags.cas };
        if now == mail.version {
            return Ok(mail);
        }
        let mut done = self.run(Batch::default().get(&self.session_key), Lane::Duty).await?;
        let seen = RecordReading::of(done.next().value()?, &done);
        let text = seen.text.as_deref().unwrap_or_default();
        self.hear(&String::from_utf8_lossy(text.get(mail.heard..).unwrap_or_default()));
        let heard = Mail { version: seen.version, heard: text.len() };
        if text.len() < LONGEST_MAIL || self.is_tight() {
            return Ok(heard);
        }
        // What has come meanwhile stays, and this is read again with it.
        let cleared = self.swap(&self.session_key, seen.version, "", kept(self.timeout), Lane::Duty).await?;
        Ok(cleared.map_or(heard, |version| Mail { version, heard: 0 }))
    }

    fn hear(&self, letters: &str) {
        for letter in letters.lines() {
            let Some((kind, request)) = letter.split_once(BETWEEN) else { continue };
            let Ok(request) = request.parse() else { continue };
            match kind {
                "B" => self.holdings.broken(request),
                "M" => self.holdings.ousted(request),
                _ => {}
            }
        }
    }

    /// Looks whether these still are at the server, and sees to it that they are kept.
    pub(crate) async fn look_after(
        &self,
        held: &[(RequestId, HeldLock)],
        joined: &[(RequestId, HeldMembership)],
    ) -> Result<()> {
        for some in held.chunks(AT_ONCE) {
            let batch = some.iter().fold(Batch::default(), |batch, (_, grant)| batch.touch(&grant.key, lock::KEPT));
            let done = self.run(batch, Lane::Duty).await?;
            let epoch = done.epoch;
            for ((request, grant), reply) in some.iter().zip(done.rest()) {
                if must_be_read(&reply, epoch, grant.version) {
                    self.look_at_grant(*request, grant).await?;
                }
            }
        }
        let mut looked = Ok(());
        for some in joined.chunks(AT_ONCE) {
            let batch = some.iter().fold(Batch::default(), |batch, (_, membership)| batch.touch(&membership.key, 0));
            let done = self.run(batch, Lane::Duty).await?;
            let epoch = done.epoch;
            for ((request, membership), reply) in some.iter().zip(done.rest()) {
                if must_be_read(&reply, epoch, membership.version) {
                    // One that can't stand again keeps no other from its turn.
                    looked = looked.and(self.look_at_membership(*request).await);
                }
            }
        }
        if !joined.is_empty() {
            // Whether a group is listed is no question of its members.
            let _ = self.look_after_list().await;
        }
        looked
    }

    async fn look_at_grant(&self, request: RequestId, grant: &HeldLock) -> Result<()> {
        let look = self.look_at_lock(&grant.key).await?;
        if look.journal.holders().iter().any(|place| place.request == request) {
            self.holdings.saw(request, look.grant(&grant.lock, &grant.key));
        } else {
            self.holdings.miss(request);
        }
        Ok(())
    }

    /// Ends the session at the server, and says so where others may wait for it.
    pub(crate) async fn hand_over(&self) -> Result<()> {
        self.run(Batch::default().delete(&self.session_key), Lane::Duty).await?;
        self.know_the_server().await?;
        // What is not said here those find out who wait.
        if self.is_tight() {
            return Ok(());
        }
        let (records, gone) = (self.holdings.records(), dead(self.session));
        let records: Vec<_> = records.into_iter().collect();
        for some in records.chunks(AT_ONCE) {
            let batch = some.iter().fold(Batch::default(), |batch, key| batch.append(key, &gone).get(key));
            let done = self.run(batch, Lane::Duty).await?;
            let epoch = done.epoch;
            let seen = some.iter().zip(done.rest().skip(1).step_by(2));
            let batch = seen.fold(Batch::default(), |batch, (key, reply)| self.cleared(batch, key, reply));
            if batch.commands > 0 {
                self.run_on(epoch, batch, Lane::Duty).await?;
            }
        }
        Ok(())
    }

    /// What is left of a record without this session, where that is nothing but what has to be remembered.
    fn cleared(&self, batch: Batch, key: &str, reply: Reply) -> Batch {
        let Ok(Some((text, flags))) = reply.value() else { return batch };
        let own = BTreeSet::from([self.session]);
        let (left, seconds) = if self.layout.is_lock(key) {
            let left = lock::compact(&text, &own).unwrap_or_default();
            let seconds = lock::kept_for(&left);
            (left, seconds)
        } else {
            let left = group::compact(&text, &own).unwrap_or_default();
            let seconds = group::kept_for(&left);
            (left, seconds)
        };
        match left.lines().count() {
            0 => batch.delete_version(key, flags.cas),
            1 if left.starts_with('F') => batch.swap(key, flags.cas, &left, seconds),
            _ => batch,
        }
    }
}

/// Whether the record is another one than was last read.
fn must_be_read(reply: &Reply, epoch: u64, before: Version) -> bool {
    match reply {
        Reply::Done(flags) => before != Version { epoch, cas: flags.cas },
        _ => true,
    }
}
