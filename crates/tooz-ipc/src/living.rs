//! A session in its table: each change of the table goes through here, with the look whether the table is still the one that all others use, and with the
//! rings for those whom the change concerns.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tooz_core::driver::{Mutex, Reporter, RequestId};
use tooz_core::{MemberId, Result};

use crate::critical::{Critical, TableWait, is_unowned};
use crate::dispatch::Dispatch;
use crate::doorbell::{Hand, Ring};
use crate::error::{self, TableError};
use crate::layout::{self, AT_OWNER, ID_HIGH, ID_LOW, MISSED, TOKEN};
use crate::namespace_folder::NamespaceFolder;
use crate::queue::halves;
use crate::slots::Remainder;
use crate::table::{Table, TableFile};

/// How long what was seen of the table's file counts as seen now, in ns.
const FRESH: u64 = 200_000;
/// Between two tries while another is in the middle of a change.
const PAUSE: Duration = Duration::from_millis(1);
/// How long it is waited for by what looks again soon, and tells why it does not get through.
const BRIEFLY: Duration = Duration::from_millis(250);
/// How many watches end in one go.
const UNWATCHED: usize = 64;
/// How often the owner of the table is waited for where a wait is not possible.
const GLANCES: u32 = 1000;

fn begin_session(table: &mut Critical<'_>) -> Result<Remainder, TableError> {
    table.begin_session()
}

/// A session in a table.
pub(crate) struct Living {
    pub(crate) table: Table,
    pub(crate) folder: NamespaceFolder,
    pub(crate) dispatch: Dispatch,
    hand: Hand,
    /// How long a change waits for another process.
    patience: Duration,
    /// The change of another for which that was too long, by the table's word: it is not waited for again, so that each request names it within its own time.
    stuck: AtomicU64,
    born: Instant,
    /// When the table's file was last looked at, in ns since it was born, plus one.
    looked_at: AtomicU64,
    /// Why it is over.
    ended: OnceLock<String>,
    /// Whether its loss is told to core: those that only look begin anew instead.
    is_open: AtomicBool,
    pub(crate) wants_deaths: Notify,
    pub(crate) hears_deaths: AtomicBool,
    pub(crate) listening: Mutex<Option<Listening>>,
}

/// What a session has open that listens.
pub(crate) struct Listening {
    pub(crate) task: AbortHandle,
    /// Closed with the session, or by the kernel with the process.
    pub(crate) _alive: File,
}

impl Living {
    /// Begins a session in an opened table.
    pub(crate) async fn begin(
        folder: &NamespaceFolder,
        table: Table,
        reporter: &Reporter,
        patience: Duration,
    ) -> Result<Arc<Self>> {
        let hand = Hand::new().map_err(|error| error::at(error, "make a socket for", &folder.root))?;
        let living = Arc::new(Living {
            table,
            folder: folder.clone(),
            dispatch: Dispatch::new(reporter.clone()),
            hand,
            patience,
            stuck: AtomicU64::new(0),
            born: Instant::now(),
            looked_at: AtomicU64::new(0),
            ended: OnceLock::new(),
            is_open: AtomicBool::new(false),
            wants_deaths: Notify::new(),
            hears_deaths: AtomicBool::new(false),
            listening: Mutex::default(),
        });
        while living.with(begin_session).await? == Remainder::Some {}
        Ok(living)
    }

    /// From here on it owns.
    pub(crate) async fn open(self: &Arc<Self>, member: &MemberId) -> Result<()> {
        self.with(|table| table.name_session(member.as_str())).await?;
        self.listen()?;
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    /// Changes the table, or looks at it. `act` is called again when it could not begin, and when the dead had left no room for it.
    pub(crate) async fn with<T>(&self, act: impl FnMut(&mut Critical<'_>) -> Result<T, TableError>) -> Result<T> {
        self.with_patience(self.patience, act).await
    }

    /// Changes the table, or looks at it, and waits only briefly for its lock: for what is tried again soon.
    pub(crate) async fn briefly<T>(&self, act: impl FnMut(&mut Critical<'_>) -> Result<T, TableError>) -> Result<T> {
        self.with_patience(self.patience.min(BRIEFLY), act).await
    }

    async fn with_patience<T>(
        &self,
        patience: Duration,
        mut act: impl FnMut(&mut Critical<'_>) -> Result<T, TableError>,
    ) -> Result<T> {
        let mut done = self.patiently(patience, &mut act).await?;
        if matches!(done, Err(TableError::Full)) && self.make_room(patience).await? {
            done = self.patiently(patience, &mut act).await?;
        }
        done.map_err(|fault| error::fault(fault, &self.table.path))
    }

    async fn patiently<T>(
        &self,
        patience: Duration,
        act: &mut impl FnMut(&mut Critical<'_>) -> Result<T, TableError>,
    ) -> Result<Result<T, TableError>> {
        let mut wait = None;
        loop {
            let (by, word) = match self.try_with(act)? {
                Err(TableError::Busy { by, word }) if word != self.stuck.load(Ordering::Relaxed) => (by, word),
                done => return Ok(done),
            };
            let wait = wait.get_or_insert_with(|| TableWait::begin(patience));
            if let Err(fault) = wait.goes_on(by, word) {
                if matches!(fault, TableError::Busy { by: Some(_), .. }) && patience >= self.patience {
                    self.stuck.store(word, Ordering::Relaxed);
                }
                return Ok(Err(fault));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Ends what the dead have in a table that is full, and our watches at which nothing looks any more. Answers whether that gave anything back.
    ///
    /// Each session looks for the dead now and then, but where all have died none does.
    async fn make_room(&self, patience: Duration) -> Result<bool> {
        let mut has_made = self.end_unwatched();
        let mut from = Some(0);
        while let Some(slot) = from {
            let Ok((dead, rest)) = self.patiently(patience, &mut |table| table.dead_from(slot)).await? else { break };
            for one in dead {
                has_made = true;
                while let Ok(Remainder::Some) = self.patiently(patience, &mut |table| table.bury(one)).await? {
                    tokio::task::yield_now().await;
                }
            }
            from = rest;
        }
        Ok(has_made)
    }

    /// Ends the watches at which nothing looks any more. While another is in the middle of a change they stay for the next time. Answers whether there were any.
    pub(crate) fn end_unwatched(&self) -> bool {
        let mut has_ended = false;
        loop {
            let unwatched = self.dispatch.unwatched(UNWATCHED);
            let ended = !unwatched.is_empty() && self.quietly(|table| self.end_watches(table)).is_some();
            if !ended {
                return has_ended;
            }
            has_ended = true;
        }
    }

    fn end_watches(&self, table: &mut Critical<'_>) -> Result<(), TableError> {
        // Asked again: a watcher that came meanwhile stays.
        for (record, watch) in self.dispatch.unwatched(UNWATCHED) {
            if table.is_watch(watch, record)? {
                table.end_watch(watch)?;
            }
            self.dispatch.forget_watch(record);
        }
        Ok(())
    }

    /// Changes the table, or looks at it, once, without waiting for its lock.
    pub(crate) fn try_with<T>(
        &self,
        act: &mut impl FnMut(&mut Critical<'_>) -> Result<T, TableError>,
    ) -> Result<Result<T, TableError>> {
        self.check()?;
        Ok(self.act(act))
    }

    fn act<T>(&self, act: &mut impl FnMut(&mut Critical<'_>) -> Result<T, TableError>) -> Result<T, TableError> {
        let (result, rings) = {
            let mut critical = self.table.enter()?;
            let result = act(&mut critical);
            (result, std::mem::take(&mut critical.rings))
        };
        for ring in rings {
            self.ring(ring);
        }
        result
    }

    /// Changes the table, or looks at it, once; a failure is not told: for what can be left away.
    pub(crate) fn quietly<T>(&self, mut act: impl FnMut(&mut Critical<'_>) -> Result<T, TableError>) -> Option<T> {
        self.try_with(&mut act).ok()?.ok()
    }

    fn ring(&self, ring: Ring) {
        if ring.slot == self.table.slot() {
            self.hear(ring.what, ring.block);
        } else {
            let missed = || self.word(layout::slot(ring.slot, MISSED));
            self.hand.ring(&self.folder.bell(self.table.inode(), ring.slot), ring, missed);
        }
    }

    /// Refuses what comes after the end, which a look at the table's file may be what finds.
    fn check(&self) -> Result<()> {
        if !self.is_fresh() {
            self.see(self.table.glance());
        }
        match self.ended.get() {
            Some(why) => Err(error::lost(why)),
            None => Ok(()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.check().is_err()
    }

    /// A word of the table outside of a change. `None`: the session is over, and the memory may be gone.
    pub(crate) fn word(&self, at: usize) -> Option<&AtomicU64> {
        if self.is_over() { None } else { self.table.region.word(at).ok() }
    }

    fn is_fresh(&self) -> bool {
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        looked_at != 0 && self.now().saturating_sub(looked_at) < FRESH
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    pub(crate) fn see(&self, standing: TableFile) {
        match standing {
            TableFile::InPlace => self.looked_at.store(self.now(), Ordering::Relaxed),
            TableFile::Gone => self.end(format!("the table {} was deleted or replaced", self.table.path.display())),
            TableFile::Cut => {
                self.end(format!("the table {} was made shorter by another program", self.table.path.display()));
            }
            TableFile::Overwritten => {
                self.end(format!("another program has written over the table {}", self.table.path.display()));
            }
        }
    }

    /// The session is over, and core is told if it owned.
    fn end(&self, why: String) {
        if self.ended.set(why.clone()).is_err() {
            return;
        }
        if self.is_open.load(Ordering::Acquire) {
            self.dispatch.reporter.session_lost(why);
        }
        self.dispatch.end();
    }

    /// Whether that request has its lock, judged now and without waiting for anyone.
    pub(crate) fn holds(&self, id: RequestId) -> bool {
        let Some(held) = self.dispatch.holdings.place(id) else { return false };
        if !self.is_fresh() {
            self.see(self.table.standing());
        }
        self.ended.get().is_none() && self.is_granted(held.block, id) == Ok(Some(true))
    }

    /// Whether the grant of that request was taken away, as far as that is certain. With the session all are gone, which is told by itself.
    pub(crate) fn was_taken(&self, block: usize, id: RequestId) -> bool {
        !self.is_over() && self.is_granted(block, id) == Ok(Some(false)) && self.is_sure()
    }

    /// Looks at the table at once where something of ours is missing: in a table that is another's by now all of it is missing, and none of it was taken away.
    pub(crate) fn is_sure(&self) -> bool {
        self.see(self.table.glance());
        self.ended.get().is_none()
    }

    /// A grant of a request comes once and goes once. So where it is seen it is there; where it is not seen, it is gone, unless another is in the middle of a
    /// change that may be taken back: `None`. The caller has just looked at the table's file.
    fn is_granted(&self, block: usize, id: RequestId) -> Result<Option<bool>, TableError> {
        let word = |field| Ok(self.table.region.word(layout::block(block, field))?.load(Ordering::Acquire));
        let owner = self.table.region.word(AT_OWNER)?;
        for _ in 0..GLANCES {
            let before = owner.load(Ordering::Acquire);
            if [word(ID_HIGH)?, word(ID_LOW)?] == halves(id)
                && word(layout::KIND)? == layout::BlockKind::Place.word()
                && word(TOKEN)? != 0
                && word(ID_LOW)? == halves(id)[1]
            {
                return Ok(Some(true));
            }
            if is_unowned(before) && owner.load(Ordering::Acquire) == before {
                return Ok(Some(false));
            }
            std::hint::spin_loop();
        }
        Ok(None)
    }

    /// Gives back all that it has, and ends.
    pub(crate) async fn close(&self) -> Result<()> {
        let result = loop {
            match self.with(|table| table.end_session(table.table.slot())).await {
                Ok(Remainder::Some) => {}
                Ok(Remainder::Nothing) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // What was not given back is free when the description is closed.
        self.leave();
        match result {
            Err(error) if error.kind() == tooz_core::ErrorKind::Lost => Ok(()),
            result => result,
        }
    }

    /// Ends the session where a wait is not possible: what is not given back is found by others.
    pub(crate) fn abandon(&self) {
        let ours = self.table.slot();
        while let Some(Remainder::Some) = self.quietly(|table| table.end_session(ours)) {}
        self.leave();
    }

    fn leave(&self) {
        self.is_open.store(false, Ordering::Release);
        self.end("it was closed".to_owned());
        if let Some(listening) = self.listening.lock().take() {
            listening.task.abort();
            let _ = fs::remove_file(self.folder.bell(self.table.inode(), self.table.slot()));
        }
    }
}
