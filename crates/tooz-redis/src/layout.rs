//! The layout of keys below a namespace's prefix, which `common.lua` describes.

/// Its number. Members that look in other places do not see each other's locks: whatever changes so that both could hold one lock at once
/// has another number, is refused by [`open`](crate::session) of the other, and needs a way to move in the README. A namespace without a
/// number is from before it was written down, and that was layout 1.
pub(crate) const LAYOUT: &str = "1";
