//! The programs that a server runs at present: a newer version may take the place of an older one while its data stay.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use parking_lot::RwLock;

use crate::provision::installation::Installation;

/// The installation of one server, which may be replaced.
#[derive(Debug)]
pub(crate) struct Programs(RwLock<Installation>);

impl Programs {
    pub(crate) fn new(installation: Installation) -> Self {
        Programs(RwLock::new(installation))
    }

    /// Takes these from the next start on.
    pub(crate) fn replace(&self, installation: Installation) {
        *self.0.write() = installation;
    }

    pub(crate) fn command(&self, program: &str) -> Result<Command> {
        self.0.read().command(program)
    }

    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        self.0.read().find(program)
    }
}
