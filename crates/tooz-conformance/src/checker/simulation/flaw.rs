//! What may be wrong with a simulated backend.

use crate::checker::Law;

/// One flaw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    GrantsWhatIsHeld,
    GrantsReadersBesideAWriter,
    RepeatsATicket,
    CountsBackwards,
    RefusesWhatIsFree,
    HidesAHolder,
    ShowsAFormerHolder,
    LosesAHolder,
    BreaksAnother,
    ElectsTwo,
    ElectsForEver,
    HidesAVacancy,
    KeepsWhoLeft,
    HidesAMember,
    ShowsAnOldWord,
    ReadsInTwoSteps,
    SkipsAnEvent,
    TellsTwice,
    TellsLate,
    HasItsOwnRing,
}

impl Flaw {
    pub(super) const ALL: &[Flaw] = &[
        Flaw::GrantsWhatIsHeld,
        Flaw::GrantsReadersBesideAWriter,
        Flaw::RepeatsATicket,
        Flaw::CountsBackwards,
        Flaw::RefusesWhatIsFree,
        Flaw::HidesAHolder,
        Flaw::ShowsAFormerHolder,
        Flaw::LosesAHolder,
        Flaw::BreaksAnother,
        Flaw::ElectsTwo,
        Flaw::ElectsForEver,
        Flaw::HidesAVacancy,
        Flaw::KeepsWhoLeft,
        Flaw::HidesAMember,
        Flaw::ShowsAnOldWord,
        Flaw::ReadsInTwoSteps,
        Flaw::SkipsAnEvent,
        Flaw::TellsTwice,
        Flaw::TellsLate,
        Flaw::HasItsOwnRing,
    ];

    /// The law that it breaks.
    pub(super) fn breaks(self) -> Law {
        match self {
            Flaw::GrantsWhatIsHeld | Flaw::ElectsTwo => Law::Belief,
            Flaw::GrantsReadersBesideAWriter | Flaw::RefusesWhatIsFree => Law::Order,
            Flaw::RepeatsATicket | Flaw::CountsBackwards => Law::Fencing,
            Flaw::HidesAHolder | Flaw::ShowsAFormerHolder => Law::Holders,
            Flaw::LosesAHolder | Flaw::BreaksAnother => Law::Losses,
            Flaw::ElectsForEver | Flaw::HidesAVacancy => Law::Leaders,
            Flaw::KeepsWhoLeft | Flaw::HidesAMember | Flaw::ShowsAnOldWord | Flaw::ReadsInTwoSteps => Law::Members,
            Flaw::SkipsAnEvent | Flaw::TellsTwice | Flaw::TellsLate => Law::Watches,
            Flaw::HasItsOwnRing => Law::Partitions,
        }
    }
}
