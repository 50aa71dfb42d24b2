//! What a session hears: what others ring for, which sessions died, and what it finds when it looks at everything again each second.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::Instant;
use tooz_core::Result;

use crate::critical::Critical;
use crate::deaths::Deaths;
use crate::doorbell::{self, LETTER, RingReason};
use crate::error::{self, TableError};
use crate::layout::{self, MISSED};
use crate::living::{Listening, Living};
use crate::slots::Remainder;

/// How often everything is looked at again; and where the kernel does not tell of deaths.
const ROUND: Duration = Duration::from_secs(1);
const SHORT_ROUND: Duration = Duration::from_millis(250);

impl Living {
    /// Listens for what others ring for.
    pub(crate) fn listen(self: &Arc<Self>) -> Result<()> {
        let mut listening = self.listening.lock();
        if listening.is_some() {
            return Ok(());
        }
        let failed = |error| error::at(error, "make a doorbell for", &self.table.path);
        // After the table's file, so that the kernel closes it after that.
        let alive = self.folder.open_alive(self.table.slot())?;
        let socket = doorbell::hang(&self.folder, &self.table).and_then(UnixDatagram::from_std).map_err(failed)?;
        let task = tokio::spawn(listen(Arc::clone(self), socket)).abort_handle();
        *listening = Some(Listening { task, _alive: alive });
        Ok(())
    }

    /// Asks to be told of the deaths of others from now on, as a request waits for what they have.
    pub(crate) fn mind_deaths(&self) {
        if !self.hears_deaths.swap(true, Ordering::Relaxed) {
            self.wants_deaths.notify_one();
        }
    }

    pub(crate) fn hear(&self, what: RingReason, block: usize) {
        if self.is_over() {
            return;
        }
        let holdings = &self.dispatch.holdings;
        match what {
            RingReason::Place => holdings.wake(block),
            RingReason::Record => self.dispatch.changed(block),
            // Looked at: the letter may be late, and the block another group's by now.
            RingReason::Gone => self.look_after_watches(Some(block)),
            RingReason::Broken => {
                holdings.wake(block);
                for id in holdings.grants_at(block) {
                    if self.was_taken(block, id) {
                        self.dispatch.lose_grant(id);
                    }
                }
            }
            RingReason::Replaced => self.look_after_memberships(),
        }
    }

    fn look_after_memberships(&self) {
        let all = self.dispatch.holdings.memberships();
        let gone = self.quietly(|table| {
            let mut gone = Vec::new();
            for (id, block) in &all {
                if !table.is_membership(*block, *id)? {
                    gone.push(*id);
                }
            }
            Ok(gone)
        });
        let gone = gone.unwrap_or_default();
        if gone.is_empty() || !self.is_sure() {
            return;
        }
        for id in gone {
            self.dispatch.lose_membership(id);
        }
    }

    /// Looks at everything that may have changed without a ring.
    fn look_at_all(&self) {
        for (id, block) in self.dispatch.holdings.grants() {
            if self.was_taken(block, id) && self.dispatch.holdings.place(id).is_some() {
                self.dispatch.lose_grant(id);
            }
        }
        self.look_after_memberships();
        self.look_after_watches(None);
        self.dispatch.holdings.wake_all();
    }

    /// Looks at what is watched: at one record, or at all.
    fn look_after_watches(&self, only: Option<usize>) {
        for one in self.dispatch.watched() {
            if only.is_some_and(|only| only != one.record) {
                continue;
            }
            match self.quietly(|table| table.changes(one.watch, one.record)) {
                Some(Some(changes)) => self.dispatch.found(one.record, changes),
                Some(None) if self.is_sure() => self.dispatch.gone(one),
                Some(None) | None => {}
            }
        }
    }

    /// Our doorbell anew, if an operator or another program has taken it away: without it each ring would come as late as the next round.
    fn hang_again(&self) -> Option<UnixDatagram> {
        let is_gone = match self.folder.bell(self.table.inode(), self.table.slot()).symlink_metadata() {
            Err(error) => error.kind() == io::ErrorKind::NotFound,
            Ok(_) => false,
        };
        if !is_gone || self.is_over() {
            return None;
        }
        doorbell::hang(&self.folder, &self.table).and_then(UnixDatagram::from_std).ok()
    }

    /// What is done each second.
    fn go_round(&self) {
        self.see(self.table.standing());
        if self.is_over() {
            return;
        }
        self.end_unwatched();
        self.look_at_all();
        for dead in self.quietly(sweep).unwrap_or_default() {
            self.bury(dead);
        }
    }

    /// Ends what a session has that may be dead.
    fn bury(&self, slot: usize) {
        while let Some(Remainder::Some) = self.quietly(|table| table.bury(slot)) {}
    }

    /// Whether the session of that slot has not ended: it lives, or is to be buried.
    fn is_there(&self, slot: usize) -> bool {
        slot < layout::SLOTS
            && self.word(layout::slot(slot, layout::IN_USE)).is_some_and(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// Whether a ring for us could not be sent since that was last asked.
    fn has_missed(&self) -> bool {
        let missed = self.word(layout::slot(self.table.slot(), MISSED));
        missed.is_some_and(|missed| missed.swap(0, Ordering::AcqRel) != 0)
    }
}

fn sweep(table: &mut Critical<'_>) -> Result<Vec<usize>, TableError> {
    table.sweep()
}

/// Hears until the session is over. The task is ended with the session.
async fn listen(living: Arc<Living>, mut socket: UnixDatagram) {
    let mut letter = [0; LETTER];
    let mut deaths = None;
    let mut round = ROUND;
    let mut due = Instant::now() + round;
    let soon = || Instant::now() + SHORT_ROUND;
    while !living.is_over() {
        tokio::select! {
            got = socket.recv(&mut letter) => if let Ok(length) = got {
                hear_all(&living, &socket, &mut letter, length);
            },
            slot = next_death(&mut deaths) => if let Ok(slot) = slot {
                living.bury(slot);
                if living.is_there(slot) && let Some(deaths) = &mut deaths {
                    deaths.expect(slot);
                }
            } else {
                (deaths, round, due) = (None, SHORT_ROUND, soon());
            },
            () = living.wants_deaths.notified() => {
                deaths = Deaths::start(&living.folder.sessions()).ok();
                if deaths.is_none() {
                    // The user's share of instances is used up: it is looked for them instead.
                    (round, due) = (SHORT_ROUND, soon());
                }
                // The deaths before that are not told.
                living.dispatch.look_everywhere();
            }
            () = tokio::time::sleep_until(due) => {
                // First, so that the round finds what the others could not ring for.
                if let Some(anew) = living.hang_again() {
                    socket = anew;
                }
                living.go_round();
                due = Instant::now() + round;
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
    if living.has_missed() {
        living.look_at_all();
    }
}

async fn next_death(deaths: &mut Option<Deaths>) -> io::Result<usize> {
    match deaths {
        Some(deaths) => deaths.next().await,
        None => std::future::pending().await,
    }
}
