//! Watches and events, as iterators that wait.

use std::time::Duration;

use crate::blocking::wait::{wait, wait_for};
use tooz_core::{Error, GroupEvent, Result, SessionEvent, SessionEvents};

/// The changes of a group, its members first; as [`tooz::GroupWatch`](tooz_core::GroupWatch). The iterator waits for each, and ends with the group
/// or the coordinator. Inside an async runtime it panics, as an iterator can answer no error.
///
/// ```no_run
/// # fn example(group: tooz::blocking::Group) -> tooz::Result<()> {
/// for event in group.watch()? {
///     println!("{event:?}");
/// }
/// # Ok(())
/// # }
/// ```
pub struct GroupWatch(pub(super) tooz_core::GroupWatch);

/// What happens to a session; as [`tooz::SessionEvents`](tooz_core::SessionEvents). The iterator waits for each, and ends with the coordinator. Inside an
/// async runtime it panics, as an iterator can answer no error.
///
/// ```no_run
/// # fn example(coordinator: tooz::blocking::Coordinator) {
/// std::thread::spawn(move || {
///     for event in coordinator.events() {
///         eprintln!("session: {event:?}");
///     }
/// });
/// # }
/// ```
pub struct Events(pub(super) SessionEvents);

impl GroupWatch {
    /// The next change, waited for at most so long: `None` if there is none by then, or none any more, which [`end`](Self::end) tells.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn next_for(&mut self, limit: Duration) -> Result<Option<GroupEvent>> {
        Ok(wait_for(self.0.next(), limit)?.flatten())
    }

    /// Why there will be no further change.
    pub fn end(&self) -> Option<Error> {
        self.0.end()
    }
}

impl Iterator for GroupWatch {
    type Item = GroupEvent;

    fn next(&mut self) -> Option<GroupEvent> {
        wait(self.0.next()).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Events {
    /// The next event, waited for at most so long: `None` if there is none by then, or none any more.
    ///
    /// # Errors
    /// [`Config`](tooz_core::ErrorKind::Config): it was called inside an async runtime.
    pub fn next_for(&mut self, limit: Duration) -> Result<Option<SessionEvent>> {
        Ok(wait_for(self.0.next(), limit)?.flatten())
    }
}

impl Iterator for Events {
    type Item = SessionEvent;

    fn next(&mut self) -> Option<SessionEvent> {
        wait(self.0.next()).unwrap_or_else(|error| panic!("{error}"))
    }
}
