//! What is wrong with a proxy right now.

use std::time::Duration;

use super::swallow::Swallow;

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

/// Everything that is wrong; nothing is by default.
#[derive(Default, Debug)]
pub(super) struct Faults {
    pub(super) delay: Duration,
    pub(super) hold_to_server: bool,
    pub(super) hold_to_client: bool,
    /// Clients whose connections are held both ways; `None` are those that are not known.
    pub(super) hold_those_of: Vec<Option<usize>>,
    pub(super) refuse: bool,
    /// How many more bytes go to clients before one connection is reset.
    pub(super) cut_after: Option<u64>,
    /// Replies that are to be swallowed, and whose request has not come yet.
    pub(super) swallows: Vec<Swallow>,
}

impl Faults {
    /// Whether bytes of that client wait.
    pub(super) fn hold(&self, client: Option<usize>, way: Way) -> bool {
        let all = match way {
            Way::ToServer => self.hold_to_server,
            Way::ToClient => self.hold_to_client,
        };
        all || self.hold_those_of.contains(&client)
    }

    /// How many of so many bytes may go that way now. `None`: none ever, the connection is to be reset.
    pub(super) fn allowance(&mut self, way: Way, wanted: usize) -> Option<usize> {
        let Some(left) = self.cut_after.filter(|_| way == Way::ToClient) else { return Some(wanted) };
        if left == 0 {
            // One cut for one call.
            self.cut_after = None;
            return None;
        }
        let allowed = usize::try_from(left).map_or(wanted, |left| left.min(wanted));
        self.cut_after = Some(left - allowed as u64);
        Some(allowed)
    }

    /// Gives back what was allowed and not used.
    pub(super) fn return_allowance(&mut self, way: Way, unused: usize) {
        if let Some(left) = self.cut_after.as_mut().filter(|_| way == Way::ToClient) {
            *left += unused as u64;
        }
    }

    /// The swallow that waits for what has just been sent, which it is armed with no more.
    pub(super) fn take_swallow(&mut self, tail: &[u8], news: &[u8]) -> Option<Swallow> {
        let found = self.swallows.iter().position(|swallow| swallow.matches(tail, news))?;
        Some(self.swallows.remove(found))
    }
}
