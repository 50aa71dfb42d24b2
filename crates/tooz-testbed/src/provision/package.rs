//! What the room of each server says of where it comes from.

use std::path::Path;

use anyhow::Result;

/// Where a server comes from.
pub(crate) struct Card {
    /// The programs without which it cannot be started, the server itself first.
    pub(crate) programs: &'static [&'static str],
    /// The Debian packages that hold it; libraries that they depend on come along.
    pub(crate) packages: &'static [&'static str],
    /// Which version is in which Debian suite, the one to take unless asked first. What stands behind a `+` tells several of one suite apart.
    pub(crate) suites: &'static [(&'static str, &'static str)],
    /// The image that Docker has of it.
    pub(crate) image: &'static str,
}

/// Where one kind of server comes from.
pub(crate) trait Package: Sync {
    fn card(&self) -> &'static Card;

    /// The packages to take from that suite.
    fn packages(&self, _suite: &str) -> Vec<&'static str> {
        self.card().packages.to_vec()
    }

    /// The programs without which it cannot be started, as they are called in that suite, the server itself first.
    fn programs(&self, _suite: &str) -> &'static [&'static str] {
        self.card().programs
    }

    /// Adds what is missing to a tree that was just unpacked, and mends what would make it depend on this machine. May be repeated, also
    /// while servers run from the tree.
    fn finish(&self, _root: &Path) -> Result<()> {
        Ok(())
    }

    /// Changes whenever [`finish`](Self::finish) does something else: trees that were unpacked before are finished again.
    fn edition(&self) -> &'static str {
        "1"
    }

    /// Programs that some of its tests use beside it.
    fn companions(&self) -> &'static [Companion] {
        &[]
    }
}

/// A program that is no server of its own but stands beside one.
pub(crate) struct Companion {
    pub(crate) program: &'static str,
    pub(crate) packages: &'static [&'static str],
    pub(crate) suite: &'static str,
}
