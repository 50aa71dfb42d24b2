//! Tables for tests: small ones, in a folder that is thrown away, with several sessions of this process.

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::fcntl::posix_fallocate;
use tooz_core::Namespace;
use tooz_core::driver::{Mutex, RequestId};

use crate::layout::SMALLEST;
use crate::region::WORD;
use crate::slots::Remainder;
use crate::table::{Table, write_header};

/// A child of a fork keeps alive what its parent has. So tests that fork, and those where a session dies, come one after another.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

/// A table that goes with this value.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    /// An empty table with so many blocks.
    pub(crate) fn new(blocks: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage { folder };
        let words = SMALLEST + blocks.saturating_sub(32) * crate::layout::BLOCK;
        let file = File::options().read(true).write(true).create_new(true).open(stage.path()).unwrap();
        posix_fallocate(&file, 0, i64::try_from(words * WORD).unwrap()).unwrap();
        write_header(&file, words).unwrap();
        stage
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("table")
    }

    /// One more session.
    pub(crate) fn session(&self, member: &str) -> Table {
        session(&self.path(), member)
    }
}

/// One more session in that table.
pub(crate) fn session(path: &Path, member: &str) -> Table {
    let table = Table::open(path, &Namespace::new("n").unwrap()).unwrap().unwrap();
    while table.enter().unwrap().begin_session().unwrap() == Remainder::Some {}
    table.enter().unwrap().name_session(member).unwrap();
    table
}

pub(crate) fn request(number: u128) -> RequestId {
    RequestId(1 << 64 | number)
}
