//! A session in its table: each change of the table goes through here, with the look whether the table is still the one that all others use, and with the
//! rings for those whom the change concerns. And the task that hears what others ring for.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tooz_core::driver::{Mutex, Reporter, RequestId};
use tooz_core::{MemberId, Result};

use crate::critical::Critical;
use crate::deaths::Deaths;
use crate::dispatch::Dispatch;
use crate::doorbell::{self, Hand, LETTER, Ring, What};
use crate::error::{self, Fault};
use crate::layout::{self, AT_OWNER, ID_HIGH, ID_LOW, MISSED, TOKEN};
use crate::place::Place;
use crate::queue::halves;
use crate::slots::Rest;
use crate::table::{Standing, Table};

/// How long what was seen of the table's file counts as seen now.
const FRESH: Duration = Duration::from_micros(200);
/// Between two tries while another is in the middle of a change.
const PAUSE: Duration = Duration::from_millis(1);
/// How often everything is looked at again; and where the kernel does not tell of deaths.
const ROUND: Duration = Duration::from_secs(1);
const SHORT_ROUND: Duration = Duration::from_millis(250);
/// How often the owner of the table is waited for where a wait is not possible.
const GLANCES: u32 = 1000;

/// A session in a table.
pub(crate) struct Living {
    pub(crate) table: Table,
    pub(crate) place: Place,
    pub(crate) dispatch: Dispatch,
    hand: Hand,
    /// How long a change waits for another process.
    patience: Duration,
    born: Instant,
    /// When the table's file was last looked at, in ns since it was born, plus one.
    looked_at: AtomicU64,
    /// Why it is over.
    ended: OnceLock<String>,
    /// Whether its loss is told to core: those that only look begin anew instead.
    is_open: AtomicBool,
    wants_deaths: Notify,
    hears_deaths: AtomicBool,
    listening: Mutex<Option<Listening>>,
}

/// What a session has open that listens.
struct Listening {
    task: AbortHandle,
    /// Closed with the session, or by the kernel with the process.
    _alive: File,
}

impl Living {
    /// Begins a session in an opened table.
    pub(crate) async fn begin(
        place: &Place,
        table: Table,
        member: &MemberId,
        reporter: &Reporter,
        patience: Duration,
    ) -> Result<Arc<Self>> {
        let hand = Hand::new().map_err(|error| error::at(error, "make a socket for", &place.root))?;
        let living = Arc::new(Living {
            table,
            place: place.clone(),
            dispatch: Dispatch::new(reporter.clone()),
            hand,
            patience,
            born: Instant::now(),
            looked_at: AtomicU64::new(0),
            ended: OnceLock::new(),
            is_open: AtomicBool::new(false),
            wants_deaths: Notify::new(),
            hears_deaths: AtomicBool::new(false),
            listening: Mutex::default(),
        });
        while living.with(|table| table.begin_session(member.as_str())).await? == Rest::Some {}
        Ok(living)
    }

    /// From here on it owns.
    pub(crate) fn open(self: &Arc<Self>) -> Result<()> {
        self.listen()?;
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    /// Changes the table, or looks at it. `act` is called again when it could not begin.
    pub(crate) async fn with<T>(&self, mut act: impl FnMut(&mut Critical<'_>) -> Result<T, Fault>) -> Result<T> {
        let mut until = None;
        loop {
            match self.try_with(&mut act)? {
                Err(Fault::Busy(_)) if *until.get_or_insert_with(|| Instant::now() + self.patience) > Instant::now() => {
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done.map_err(|fault| error::fault(fault, &self.table.path)),
            }
        }
    }

    /// The same, once.
    pub(crate) fn try_with<T>(
        &self,
        act: &mut impl FnMut(&mut Critical<'_>) -> Result<T, Fault>,
    ) -> Result<Result<T, Fault>> {
        self.check()?;
        Ok(self.act(act))
    }

    fn act<T>(&self, act: &mut impl FnMut(&mut Critical<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
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

    fn ring(&self, ring: Ring) {
        if ring.slot == self.table.slot() {
            self.hear(ring.what, ring.block);
        } else {
            self.hand.ring(&self.place, &self.table, ring);
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

    fn is_fresh(&self) -> bool {
        let looked_at = self.looked_at.load(Ordering::Relaxed);
        looked_at != 0 && self.now().saturating_sub(looked_at) < FRESH.as_nanos() as u64
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn see(&self, standing: Standing) {
        match standing {
            Standing::InPlace => self.looked_at.store(self.now(), Ordering::Relaxed),
            Standing::Gone => self.end(format!("the table {} was deleted or replaced", self.table.path.display())),
            Standing::Cut => self.end(format!("the table {} was made shorter by another program", self.table.path.display())),
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
        self.ended.get().is_none() && self.is_granted(held.block, id).unwrap_or(false)
    }

    /// A grant of a request comes once and goes once. So where it is seen it is there; where it is not seen, it is gone, unless another is in the middle of a
    /// change that may be taken back.
    fn is_granted(&self, block: usize, id: RequestId) -> Result<bool, Fault> {
        let word = |field| Ok(self.table.region.word(layout::block(block, field))?.load(Ordering::Acquire));
        let owner = self.table.region.word(AT_OWNER)?;
        for _ in 0..GLANCES {
            let before = owner.load(Ordering::Acquire);
            if [word(ID_HIGH)?, word(ID_LOW)?] == halves(id)
                && word(layout::KIND)? == layout::Kind::Place.word()
                && word(TOKEN)? != 0
                && word(ID_LOW)? == halves(id)[1]
            {
                return Ok(true);
            }
            if before & 0xffff == 0 && owner.load(Ordering::Acquire) == before {
                return Ok(false);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Listens for what others ring for.
    pub(crate) fn listen(self: &Arc<Self>) -> Result<()> {
        let mut listening = self.listening.lock();
        if listening.is_some() {
            return Ok(());
        }
        let failed = |error| error::at(error, "make a doorbell for", &self.table.path);
        // After the table's file, so that the kernel closes it after that.
        let alive = self.place.open_alive(self.table.slot())?;
        let socket = doorbell::hang(&self.place, &self.table).and_then(UnixDatagram::from_std).map_err(failed)?;
        let task = tokio::spawn(listen(Arc::clone(self), socket)).abort_handle();
        *listening = Some(Listening { task, _alive: alive });
        Ok(())
    }

    /// Asks to be told of the deaths of others from now on, as somebody waits for what they have.
    pub(crate) fn mind_deaths(&self) {
        if !self.hears_deaths.swap(true, Ordering::Relaxed) {
            self.wants_deaths.notify_one();
        }
    }

    fn hear(&self, what: What, block: usize) {
        let holdings = &self.dispatch.holdings;
        match what {
            What::Place => holdings.wake(block),
            What::Record => self.dispatch.changed(block),
            What::Gone => self.dispatch.gone(block),
            What::Broken => {
                holdings.wake(block);
                for id in holdings.grants_at(block) {
                    if !self.is_granted(block, id).unwrap_or(false) {
                        self.dispatch.lose_grant(id);
                    }
                }
            }
            What::Replaced => self.look_after_memberships(),
        }
    }

    fn look_after_memberships(&self) {
        let all = self.dispatch.holdings.memberships();
        let gone = self.act(&mut |table| {
            let mut gone = Vec::new();
            for (id, block) in &all {
                if !table.is_membership(*block, *id)? {
                    gone.push(*id);
                }
            }
            Ok(gone)
        });
        for id in gone.unwrap_or_default() {
            self.dispatch.lose_membership(id);
        }
    }

    /// Looks at everything that may have changed without a ring.
    fn look_at_all(&self) {
        for (id, block) in self.dispatch.holdings.grants() {
            if !self.is_granted(block, id).unwrap_or(false) && self.dispatch.holdings.place(id).is_some() {
                self.dispatch.lose_grant(id);
            }
        }
        self.look_after_memberships();
        for (record, watch, _) in self.dispatch.watched() {
            match self.act(&mut |table| table.changes(watch, record)) {
                Ok(Some(changes)) => self.dispatch.found(record, changes),
                Ok(None) => self.dispatch.gone(record),
                Err(_) => {}
            }
        }
        self.dispatch.holdings.wake_all();
    }

    /// What is done each second.
    fn go_round(&self) {
        self.see(self.table.standing());
        if self.ended.get().is_some() {
            return;
        }
        for (_, watch) in self.dispatch.take_unwatched() {
            // A watch that stays, as another is in the middle of a change, costs a ring for nobody.
            let _ = self.act(&mut |table| if table.is_ours(watch, layout::Kind::Watch)? { table.end_watch(watch) } else { Ok(()) });
        }
        self.look_at_all();
        for dead in self.act(&mut |table| table.sweep()).unwrap_or_default() {
            self.bury(dead);
        }
    }

    /// Ends what a session has that may be dead.
    fn bury(&self, slot: usize) {
        while let Ok(Rest::Some) = self.act(&mut |table| table.bury(slot)) {}
    }

    /// Whether the session of that slot has not ended: it lives, or is to be buried.
    fn is_there(&self, slot: usize) -> bool {
        slot < layout::SLOTS
            && self.table.region.word(layout::slot(slot, layout::IN_USE)).is_ok_and(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Gives back all that it has, and ends.
    pub(crate) async fn close(&self) -> Result<()> {
        let result = loop {
            match self.with(|table| table.end_session(table.table.slot())).await {
                Ok(Rest::Some) => {}
                Ok(Rest::Nothing) => break Ok(()),
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

    /// The same where a wait is not possible: what is not given back is found by others.
    pub(crate) fn abandon(&self) {
        if !self.is_over() {
            let ours = self.table.slot();
            while let Ok(Rest::Some) = self.act(&mut |table| table.end_session(ours)) {}
        }
        self.leave();
    }

    fn leave(&self) {
        self.is_open.store(false, Ordering::Release);
        self.end("it was closed".to_owned());
        if let Some(listening) = self.listening.lock().take() {
            listening.task.abort();
            let _ = fs::remove_file(self.place.bell(self.table.inode(), self.table.slot()));
        }
    }
}

/// Hears until the session is over. The task is ended with the session.
async fn listen(living: Arc<Living>, socket: UnixDatagram) {
    let mut letter = [0; LETTER];
    let mut deaths = None;
    let mut round = ROUND;
    let mut due = tokio::time::Instant::now() + round;
    while living.ended.get().is_none() {
        tokio::select! {
            got = socket.recv(&mut letter) => if let Ok(length) = got {
                hear_all(&living, &socket, &mut letter, length);
            },
            slot = next_death(&mut deaths) => match slot {
                Ok(slot) => {
                    living.bury(slot);
                    if living.is_there(slot) && let Some(deaths) = &mut deaths {
                        deaths.expect(slot);
                    }
                }
                Err(_) => (deaths, round) = (None, SHORT_ROUND),
            },
            () = living.wants_deaths.notified() => {
                match Deaths::start(&living.place.sessions()) {
                    Ok(started) => deaths = Some(started),
                    // The user's share of instances is used up: it is looked for them instead.
                    Err(_) => round = SHORT_ROUND,
                }
                // Who died before that is not told of.
                living.dispatch.look_everywhere();
            }
            () = tokio::time::sleep_until(due) => {
                living.go_round();
                due = tokio::time::Instant::now() + round;
            }
        }
    }
}

/// Hears what came, and what came meanwhile.
fn hear_all(living: &Living, socket: &UnixDatagram, letter: &mut [u8; LETTER], length: usize) {
    let mut length = Some(length);
    while let Some(got) = length {
        if let Some((what, block)) = doorbell::read(&letter[..got]) {
            living.hear(what, block);
        }
        length = socket.try_recv(letter).ok();
    }
    let missed = living.table.region.word(layout::slot(living.table.slot(), MISSED));
    if missed.is_ok_and(|missed| missed.swap(0, Ordering::AcqRel) != 0) {
        living.look_at_all();
    }
}

async fn next_death(deaths: &mut Option<Deaths>) -> std::io::Result<usize> {
    match deaths {
        Some(deaths) => deaths.next().await,
        None => std::future::pending().await,
    }
}
