//! What a session believes to have at the server, and in which turn that is looked after.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use tooz_core::GroupId;
use tooz_core::driver::RequestId;

/// How many of the grants and as many of the waiting requests each beat looks after, so that it costs the same whatever is held.
pub(crate) const LOOKED_AFTER: usize = 16;

/// The same for memberships.
pub(crate) const MEMBERSHIPS: usize = 4;

/// How many are looked after in one request besides the beats.
pub(crate) const AT_ONCE: usize = 64;

/// Within this time each grant and each membership has its turn, however many there are: its keys are kept for thrice as long
/// (`common.lua`).
const ROUND: Duration = Duration::from_hours(20 * 24);

#[derive(Default)]
pub(crate) struct Turn {
    pub(crate) waiting: Option<RequestId>,
    pub(crate) held: Option<RequestId>,
    pub(crate) joined: Option<RequestId>,
}

pub(crate) struct Joined {
    pub(crate) group: GroupId,
    /// Where it stands, as `common.lua` has it in what a session owns.
    pub(crate) place: String,
    /// The connection on which it was missed once.
    pub(crate) missed: Option<u64>,
}

/// A request whose grant, place or entry should still be at the server.
pub(crate) struct LookedAfter {
    pub(crate) request: RequestId,
    pub(crate) place: String,
    pub(crate) how: How,
}

/// What a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Held,
    Waiting,
    Joined,
}

impl How {
    /// As `look.lua` reads it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            How::Held => "held",
            How::Waiting => "waiting",
            How::Joined => "joined",
        }
    }
}

/// How many of so many each beat has to look after, so that all have had their turn in time.
pub(crate) fn share(all: usize, interval: Duration) -> usize {
    let each = interval.as_secs_f64() / ROUND.as_secs_f64();
    // Far below the number of all, which fits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let share = (all as f64 * each).ceil() as usize;
    share
}

/// The next few behind `turn`, which moves on, and begins anew behind the last.
pub(crate) fn next_few<'a, V>(
    all: &'a BTreeMap<RequestId, V>,
    turn: &mut Option<RequestId>,
    count: usize,
) -> Vec<(RequestId, &'a V)> {
    let behind = (turn.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
    let few: Vec<_> = all.range(behind).take(count).map(|(request, value)| (*request, value)).collect();
    *turn = few.last().filter(|_| few.len() == count).map(|(request, _)| *request);
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_their_turn_in_time_however_many_they_are() {
        let day = Duration::from_hours(24);
        assert_eq!(share(10_000, Duration::from_secs(3)), 1);
        assert_eq!(share(1_000, day), 50);
        let all: BTreeMap<_, _> = (0..5).map(|number| (RequestId(number), number)).collect();
        let mut turn = None;
        let mut few =
            |count| next_few(&all, &mut turn, count).into_iter().map(|(request, _)| request.0).collect::<Vec<_>>();
        assert_eq!([few(2), few(2), few(2), few(2)], [vec![0, 1], vec![2, 3], vec![4], vec![0, 1]]);
    }
}
