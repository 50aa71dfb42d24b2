//! The scripts, each one operation, done whole or not at all: which there are, of which parts, and their digests. Their texts are the
//! `.lua` files in `scripts`.

use std::sync::OnceLock;

/// What the server is asked to do in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    Open,
    Beat,
    Hello,
    LookAfter,
    SweepUp,
    Close,
    Acquire,
    Release,
    Holders,
    Waiters,
    Sessions,
    InUse,
    Break,
    Owned,
    Create,
    Delete,
    Groups,
    Join,
    Update,
    Leave,
    Members,
}

/// The lines in which requests wait for their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// What keeps, takes up or ends a session waits for none.
    First,
    /// What gives back: its wait for a turn has no limit, and no crowd of wishes is in its way.
    Duty,
    /// What the application wants to have or to know.
    Wish,
    /// What reads lists, whose answers are long: a few at a time.
    Reading,
}

/// What scripts begin with: each takes what it needs, since the server makes these functions anew at each run.
const COMMON: &str = include_str!("scripts/common.lua");
const LAYOUT: &str = include_str!("scripts/layout.lua");
const READING: &str = include_str!("scripts/reading.lua");
const NEWS: &str = include_str!("scripts/news.lua");
const GRANT: &str = include_str!("scripts/grant.lua");
const ACQUIRE_AT_ONCE: &str = include_str!("scripts/acquire_at_once.lua");
const RELEASE_AT_ONCE: &str = include_str!("scripts/release_at_once.lua");
const LOCK: &str = include_str!("scripts/lock.lua");
const GROUP: &str = include_str!("scripts/group.lua");
const UPKEEP: &str = include_str!("scripts/upkeep.lua");
const SWEEP: &str = include_str!("scripts/sweep.lua");
const FOREIGN: &str = include_str!("scripts/foreign.lua");

const COUNT: usize = Script::ALL.len();

/// The digests by which the server knows the scripts. They depend on the text alone, so that one process asks for them once,
/// whatever servers it talks to: a server that has not seen a script says so, and is then sent the whole text.
static DIGESTS: OnceLock<Vec<String>> = OnceLock::new();

impl Script {
    pub(crate) const ALL: &'static [Script] = &[
        Script::Open,
        Script::Beat,
        Script::Hello,
        Script::LookAfter,
        Script::SweepUp,
        Script::Close,
        Script::Acquire,
        Script::Release,
        Script::Holders,
        Script::Waiters,
        Script::Sessions,
        Script::InUse,
        Script::Break,
        Script::Owned,
        Script::Create,
        Script::Delete,
        Script::Groups,
        Script::Join,
        Script::Update,
        Script::Leave,
        Script::Members,
    ];

    const fn own_text(self) -> &'static str {
        match self {
            Script::Open => include_str!("scripts/open.lua"),
            Script::Beat => include_str!("scripts/beat.lua"),
            Script::Hello => include_str!("scripts/hello.lua"),
            Script::LookAfter => include_str!("scripts/look_after.lua"),
            Script::SweepUp => include_str!("scripts/sweep_up.lua"),
            Script::Close => include_str!("scripts/close.lua"),
            Script::Acquire => include_str!("scripts/acquire.lua"),
            Script::Release => include_str!("scripts/release.lua"),
            Script::Holders => include_str!("scripts/holders.lua"),
            Script::Waiters => include_str!("scripts/waiters.lua"),
            Script::Sessions => include_str!("scripts/sessions.lua"),
            Script::InUse => include_str!("scripts/in_use.lua"),
            Script::Break => include_str!("scripts/break.lua"),
            Script::Owned => include_str!("scripts/owned.lua"),
            Script::Create => include_str!("scripts/create.lua"),
            Script::Delete => include_str!("scripts/delete.lua"),
            Script::Groups => include_str!("scripts/groups.lua"),
            Script::Join => include_str!("scripts/join.lua"),
            Script::Update => include_str!("scripts/update.lua"),
            Script::Leave => include_str!("scripts/leave.lua"),
            Script::Members => include_str!("scripts/members.lua"),
        }
    }

    const fn prelude(self) -> &'static [&'static str] {
        match self {
            Script::Create => &[COMMON, LAYOUT],
            Script::Groups | Script::Waiters | Script::Sessions => &[COMMON, LAYOUT, READING],
            Script::InUse => &[COMMON, LAYOUT, READING, FOREIGN],
            Script::Owned => &[COMMON, FOREIGN, GROUP],
            Script::Hello => &[COMMON, NEWS],
            Script::Acquire => &[ACQUIRE_AT_ONCE, COMMON, GRANT, NEWS, LOCK],
            Script::Release => &[RELEASE_AT_ONCE, COMMON, GRANT, NEWS, LOCK],
            Script::Holders => &[COMMON, LAYOUT, READING, GRANT, NEWS, LOCK],
            Script::Break => &[COMMON, LAYOUT, GRANT, NEWS, LOCK],
            Script::Members => &[COMMON, LAYOUT, READING, NEWS, GROUP],
            Script::Delete => &[COMMON, LAYOUT, NEWS, GROUP],
            Script::Join | Script::Update => &[COMMON, NEWS, GROUP],
            Script::Leave => &[COMMON, FOREIGN, NEWS, GROUP],
            Script::LookAfter => &[COMMON, FOREIGN, GRANT, NEWS, LOCK, GROUP, UPKEEP],
            Script::Beat => &[COMMON, FOREIGN, GRANT, NEWS, LOCK, GROUP, SWEEP, UPKEEP],
            Script::SweepUp => &[COMMON, LAYOUT, READING, FOREIGN, GRANT, NEWS, LOCK, GROUP, SWEEP],
            Script::Open => &[COMMON, LAYOUT, FOREIGN, GRANT, NEWS, LOCK, GROUP, SWEEP],
            Script::Close => &[COMMON, FOREIGN, GRANT, NEWS, LOCK, GROUP, SWEEP],
        }
    }

    /// The whole text, prelude included.
    pub(crate) fn text(self) -> &'static str {
        static TEXTS: [OnceLock<String>; COUNT] = [const { OnceLock::new() }; COUNT];
        TEXTS[self as usize].get_or_init(|| {
            let mut parts = self.prelude().to_vec();
            parts.push(self.own_text());
            parts.join("\n")
        })
    }

    /// Whether it may be run again when its answer was lost: the same request finds what it has done.
    pub(crate) const fn is_repeatable(self) -> bool {
        match self {
            Script::Acquire
            | Script::Release
            | Script::Holders
            | Script::Waiters
            | Script::Sessions
            | Script::InUse
            | Script::Owned
            | Script::Groups
            | Script::Join
            | Script::Update
            | Script::Leave
            | Script::Members => true,
            // Beats count from when they were sent, so that each is a new one; the others can't tell their own doing from another's.
            Script::Open
            | Script::Beat
            | Script::Hello
            | Script::LookAfter
            | Script::SweepUp
            | Script::Close
            | Script::Break
            | Script::Create
            | Script::Delete => false,
        }
    }

    /// In which line it stands.
    pub(crate) const fn lane(self) -> Lane {
        match self {
            Script::Open | Script::Beat | Script::Hello | Script::LookAfter | Script::SweepUp | Script::Close => {
                Lane::First
            }
            Script::Release | Script::Leave => Lane::Duty,
            Script::Members | Script::Groups | Script::Holders | Script::Waiters | Script::Sessions | Script::InUse => {
                Lane::Reading
            }
            _ => Lane::Wish,
        }
    }

    /// The digest, once [`learn_digests`] was told.
    pub(crate) fn digest(self) -> Option<&'static str> {
        DIGESTS.get().map(|digests| digests[self as usize].as_str())
    }
}

/// Keeps what the server answered to loading [`Script::ALL`], in that order; an answer to a part of them is nothing new.
pub(crate) fn learn_digests(digests: Vec<String>) {
    if digests.len() == COUNT {
        let _ = DIGESTS.set(digests);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_speak_the_layout_that_is_written_down() {
        assert!(LAYOUT.contains(&format!("layout ~= '{}'", crate::layout::VERSION)));
    }

    #[test]
    fn every_script_stands_at_its_own_place() {
        for (index, script) in Script::ALL.iter().enumerate() {
            assert_eq!(*script as usize, index);
            assert!(script.text().ends_with(script.own_text()));
        }
    }
}
