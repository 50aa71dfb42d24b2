//! Why `tooz` has CMD ended: the guard says it at the moment at which it does that, in the words of the library.

use std::fmt;

use tooz::LossReason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// What CMD runs under was lost.
    Lost(LossReason),
    /// A look has found that it is not held, and nothing says why.
    NotHeld,
}

/// Those that go from `tooz` to its guard, which is the same program. Zero is the one without a reason.
const NUMBERED: [LossReason; 10] = [
    LossReason::Expired,
    LossReason::SessionEnded,
    LossReason::Broken,
    LossReason::TakenOver,
    LossReason::GroupDeleted,
    LossReason::NotMember,
    LossReason::Released,
    LossReason::DriverPanicked,
    LossReason::Closed,
    LossReason::Forked,
];

impl Reason {
    pub(super) fn number(self) -> u64 {
        let at = NUMBERED.iter().position(|one| Reason::Lost(*one) == self);
        at.map_or(0, |at| at as u64 + 1)
    }

    pub(super) fn of_number(number: u64) -> Self {
        let at = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
        at.and_then(|at| NUMBERED.get(at)).map_or(Reason::NotHeld, |reason| Reason::Lost(*reason))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Lost(reason) => reason.fmt(formatter),
            Reason::NotHeld => formatter.write_str("it is not held any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_arrives_as_it_was_sent() {
        for reason in NUMBERED.map(Reason::Lost).into_iter().chain([Reason::NotHeld]) {
            assert_eq!(Reason::of_number(reason.number()), reason);
        }
        assert_eq!(Reason::of_number(u64::MAX), Reason::NotHeld);
    }
}
