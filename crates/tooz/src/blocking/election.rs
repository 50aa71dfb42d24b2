//! Leaderships, and the watch of a group's leader.

use std::time::Duration;

use crate::blocking::lock::Loss;
use crate::blocking::wait::{wait, wait_for};
use tooz_core::{Error, FencingToken, LeaderEvent, LossReason, Result};

/// Being the leader of a group; as [`tooz::Leadership`](tooz_core::Leadership). A drop resigns in the background.
///
/// ```no_run
/// # fn example(membership: tooz::blocking::Membership) -> tooz::Result<()> {
/// let leadership = membership.campaign()?;
/// while leadership.is_leader() {
///     // a step of what only the leader does, under leadership.epoch()
///     # break;
/// }
/// leadership.resign()
/// # }
/// ```
#[must_use = "the leadership is resigned when this is dropped"]
#[derive(Debug)]
pub struct Leadership(pub(super) tooz_core::Leadership);

/// The changes of a group's leader, the present state first; as [`tooz::LeaderWatch`](tooz_core::LeaderWatch). The iterator waits for each, and
/// ends with the group or the coordinator. Inside an async runtime it panics, as an iterator can answer no error.
///
/// ```no_run
/// # fn example(group: tooz::blocking::Group) -> tooz::Result<()> {
/// for event in group.watch_leader()? {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct LeaderWatch(pub(super) tooz_core::LeaderWatch);

impl Leadership {
    /// The fencing token of this leadership.
    pub fn epoch(&self) -> FencingToken {
        self.0.epoch()
    }

    /// Whether it still leads, judged by the clock at this call.
    pub fn is_leader(&self) -> bool {
        self.0.is_leader()
    }

    /// The same for use with `?`, between the steps of the work.
    ///
    /// # Errors
    /// The reason of the loss.
    pub fn check(&self) -> Result<(), LossReason> {
        self.0.loss().reason().map_or(Ok(()), Err)
    }

    /// How long it leads for sure without another heartbeat; zero when lost; `None`: the kernel is the judge.
    pub fn remaining(&self) -> Option<Duration> {
        self.0.remaining()
    }

    /// How long until the backend may let another lead.
    pub fn expires_in(&self) -> Option<Duration> {
        self.0.expires_in()
    }

    /// The loss of this leadership, to wait for on another thread.
    pub fn loss(&self) -> Loss {
        Loss(self.0.loss())
    }

    /// Hands over to the next in the queue, and stays a member.
    ///
    /// # Errors
    /// As [`resign`](tooz_core::Leadership::resign).
    pub fn resign(self) -> Result<()> {
        wait(self.0.resign())?
    }
}

impl LeaderWatch {
    /// The next change, waited for at most so long: `None` if there is none by then, or none any more, which [`end`](Self::end) tells.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn next_for(&mut self, limit: Duration) -> Result<Option<LeaderEvent>> {
        Ok(wait_for(self.0.next(), limit)?.flatten())
    }

    /// Why there will be no further change.
    pub fn end(&self) -> Option<Error> {
        self.0.end()
    }
}

impl Iterator for LeaderWatch {
    type Item = LeaderEvent;

    fn next(&mut self) -> Option<LeaderEvent> {
        wait(self.0.next()).unwrap_or_else(|error| panic!("{error}"))
    }
}
