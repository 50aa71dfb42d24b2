//! Whose turn it is on a connection: what keeps the session goes first, and all else in the order in which it was asked.
//!
//! The wire itself is handed from turn to turn, so no task stands between the one that asks and the socket. As long as no turn is taken, it
//! listens. It is in one place at a time:
//!
//! | the wire is | then |
//! |---|---|
//! | idle, and listens with the waker of the connection's task | a statement is asked → in a turn; the task is woken → in a turn of its own |
//! | in a turn that has begun nothing | used → in use; dropped, or over → handed to the next place, or idle |
//! | in use | its statement has ended → handed to the next place, or idle; dropped half-way → gone, since what comes next on it is unknown |
//! | gone | for ever |

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::{oneshot, watch};
use tooz_core::driver::{Mutex, MutexGuard};

/// So many places are looked through at least before those whose askers have gone are cleared away.
const FEW: usize = 64;

/// What is handed from turn to turn.
pub(crate) trait Listen: Send + 'static {
    /// What a job borrows of it.
    type Connection: Send;

    /// It is there as long as the wire is.
    fn connection(&mut self) -> Option<&mut Self::Connection>;

    /// Routes what the server tells by itself, until nothing more is there; then the next of it wakes that waker. Ready: the connection has ended.
    fn poll_listen(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// What goes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What keeps the session: it must not stand behind thousands of others.
    First,
    /// All else.
    InOrder,
}

/// The lanes before one wire.
pub(crate) struct Lanes<W: Listen> {
    state: Mutex<State<W>>,
    /// How many turns were used to their end.
    done: AtomicU64,
    ended: watch::Sender<bool>,
}

struct State<W: Listen> {
    /// The wire while it is idle: then no place is taken.
    idle: Option<W>,
    first: LaneQueue<W>,
    in_order: LaneQueue<W>,
    /// Wakes the task that listens.
    listener: Option<Waker>,
    /// Wakes the one that uses the wire: it has to let go of it in the end.
    user: Option<Waker>,
    has_ended: bool,
}

/// A place in a lane: its turn comes, or the connection ends before.
pub(crate) type WirePlace<W> = oneshot::Receiver<WireTurn<W>>;
type Places<W> = VecDeque<oneshot::Sender<WireTurn<W>>>;

/// The places of one lane, first come, first served.
struct LaneQueue<W: Listen> {
    places: Places<W>,
    /// With how many places those whose askers have gone are cleared away.
    clears_at: usize,
}

/// What comes of asking for a turn.
pub(crate) enum Admission<W: Listen> {
    /// No other has the wire.
    Turn(WireTurn<W>),
    Place(WirePlace<W>),
    /// The connection has ended.
    Ended,
}

impl<W: Listen> Lanes<W> {
    /// Of a wire that is idle. It listens from the first [`poll_idle`](Self::poll_idle) on.
    pub(crate) fn new(wire: W) -> Arc<Self> {
        let state = State {
            idle: Some(wire),
            first: LaneQueue::new(),
            in_order: LaneQueue::new(),
            listener: None,
            user: None,
            has_ended: false,
        };
        Arc::new(Lanes { state: Mutex::new(state), done: AtomicU64::new(0), ended: watch::Sender::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock()
    }

    /// Asks for a turn.
    pub(crate) fn ask(self: &Arc<Self>, lane: Lane) -> Admission<W> {
        let mut state = self.state();
        if state.has_ended {
            return Admission::Ended;
        }
        if let Some(wire) = state.idle.take() {
            return Admission::Turn(self.turn(wire));
        }
        let (sender, place) = oneshot::channel();
        let gone = state.queue(lane).push(sender);
        // What they leave may be wakers of others.
        drop(state);
        drop(gone);
        Admission::Place(place)
    }

    fn turn(self: &Arc<Self>, wire: W) -> WireTurn<W> {
        WireTurn { wire: Some(wire), is_in_use: false, lanes: Arc::clone(self) }
    }

    /// How many turns were used to their end.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Acquire)
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Tells when it has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Keeps the wire listening with that waker while it is idle. Ready: the connection has ended.
    pub(crate) fn poll_idle(self: &Arc<Self>, context: &Context<'_>) -> Poll<()> {
        let (wire, before) = {
            let mut state = self.state();
            if state.has_ended {
                return Poll::Ready(());
            }
            (state.idle.take(), state.listener.replace(context.waker().clone()))
        };
        drop(before);
        // Where it is in a turn, it listens again after that.
        if let Some(wire) = wire {
            self.hand_on(wire);
        }
        if self.has_ended() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// The user of the wire takes a step, and is woken with that waker for the end. False: the connection has ended.
    pub(crate) fn is_kept_by(&self, waker: &Waker) -> bool {
        let before = {
            let mut state = self.state();
            if state.has_ended {
                return false;
            }
            if state.user.as_ref().is_some_and(|user| user.will_wake(waker)) {
                return true;
            }
            state.user.replace(waker.clone())
        };
        drop(before);
        true
    }

    /// Ends the connection, whatever it is doing: what is in use is dropped by its user, which is woken for that.
    pub(crate) fn end(&self) {
        let (wire, places, wakers) = {
            let mut state = self.state();
            state.has_ended = true;
            let places = [state.first.take(), state.in_order.take()];
            (state.idle.take(), places, [state.user.take(), state.listener.take()])
        };
        // Those that watch hear of it before the server does.
        self.ended.send_replace(true);
        drop(wire);
        drop(places);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    /// Hands the wire to the next that has asked, or leaves it idle.
    fn hand_on(self: &Arc<Self>, wire: W) {
        // A panic in what follows is the end, as of all that is in use.
        let mut turn = self.turn(wire);
        turn.is_in_use = true;
        while let Some(wire) = &mut turn.wire {
            let (listener, user) = {
                let mut state = self.state();
                (state.listener.clone(), state.user.take())
            };
            drop(user);
            let waker = listener.as_ref().unwrap_or(Waker::noop());
            // What came beside answers is told before the next statement, on whatever thread this is; and a death is seen.
            if wire.poll_listen(&mut Context::from_waker(waker)).is_ready() {
                return;
            }
            turn.wire = turn.wire.take().and_then(|wire| self.hand_to_next(wire, listener.as_ref()));
        }
    }

    /// Gives the wire back where the listener is another one than that with which it listens.
    fn hand_to_next(self: &Arc<Self>, mut wire: W, listens_for: Option<&Waker>) -> Option<W> {
        loop {
            let mut state = self.state();
            if state.has_ended {
                return None;
            }
            let Some(place) = state.first.pop().or_else(|| state.in_order.pop()) else {
                if !are_same(state.listener.as_ref(), listens_for) {
                    return Some(wire);
                }
                state.idle = Some(wire);
                return None;
            };
            drop(state);
            match place.send(self.turn(wire)) {
                Ok(()) => return None,
                // Its asker has gone.
                Err(turn) => wire = turn.into_wire()?,
            }
        }
    }
}

fn are_same(one: Option<&Waker>, other: Option<&Waker>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.will_wake(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl<W: Listen> State<W> {
    fn queue(&mut self, lane: Lane) -> &mut LaneQueue<W> {
        match lane {
            Lane::First => &mut self.first,
            Lane::InOrder => &mut self.in_order,
        }
    }
}

impl<W: Listen> LaneQueue<W> {
    fn new() -> Self {
        LaneQueue { places: VecDeque::new(), clears_at: FEW }
    }

    /// One more place. Answers those whose askers have gone, from time to time: while the wire hangs, no turn passes them.
    fn push(&mut self, place: oneshot::Sender<WireTurn<W>>) -> Places<W> {
        let mut gone = VecDeque::new();
        if self.places.len() >= self.clears_at {
            (gone, self.places) = self.take().into_iter().partition(oneshot::Sender::is_closed);
            self.clears_at = FEW.max(self.places.len() * 2);
        }
        self.places.push_back(place);
        gone
    }

    fn pop(&mut self) -> Option<oneshot::Sender<WireTurn<W>>> {
        self.places.pop_front()
    }

    fn take(&mut self) -> Places<W> {
        std::mem::take(&mut self.places)
    }
}

/// The wire, for as long as this is kept. Dropped unused, it passes to the next.
pub(crate) struct WireTurn<W: Listen> {
    wire: Option<W>,
    is_in_use: bool,
    lanes: Arc<Lanes<W>>,
}

impl<W: Listen> WireTurn<W> {
    pub(crate) fn lanes(&self) -> &Arc<Lanes<W>> {
        &self.lanes
    }

    /// The connection, to be used to the end of what is begun: until [`finish`](Self::finish), dropping this ends it. `None`: it has
    /// ended.
    pub(crate) fn begin(&mut self) -> Option<&mut W::Connection> {
        self.is_in_use = true;
        self.wire.as_mut()?.connection()
    }

    /// What was begun has ended.
    pub(crate) fn finish(mut self) {
        self.is_in_use = false;
        self.lanes.done.fetch_add(1, Ordering::AcqRel);
    }

    fn into_wire(mut self) -> Option<W> {
        self.wire.take()
    }
}

impl<W: Listen> Drop for WireTurn<W> {
    fn drop(&mut self) {
        let Some(wire) = self.wire.take() else { return };
        if self.is_in_use {
            self.lanes.end();
            drop(wire);
        } else {
            self.lanes.hand_on(wire);
        }
    }
}

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;
