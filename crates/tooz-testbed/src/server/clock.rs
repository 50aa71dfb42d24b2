//! A server's clock, which can be set while it runs: by a library that stands between it and the system's calls, and reads from a file how far
//! its clock is off.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::provision::faketime;
use crate::provision::kind::Kind;

/// Where it stands how far the clock is off.
const FILE: &str = "clock";

/// The clock of one server.
#[derive(Debug)]
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// A clock that goes right, for a server with that folder.
    pub(crate) fn new(kind: Kind, folder: &Path) -> Result<Self> {
        if matches!(kind, Kind::Etcd | Kind::Consul | Kind::ZooKeeper) {
            bail!("the clock of {kind} can't be set: it asks the kernel past all libraries, or is a program of Java");
        }
        let clock = Clock { library: faketime::library()?, file: folder.join(FILE) };
        clock.set("+", Duration::ZERO)?;
        Ok(clock)
    }

    /// Sets it off by so much, with that sign.
    pub(crate) fn set(&self, sign: &str, by: Duration) -> Result<()> {
        // The server reads it at any time, and so must find all of it.
        let aside = self.file.with_extension("new");
        fs::write(&aside, format!("{sign}{:.3}\n", by.as_secs_f64()))?;
        fs::rename(aside, &self.file).context("the clock's file can't be written")
    }

    /// Has the server look at it. Only the time of day is set: what measures how long something takes goes on, as it does where a clock is set.
    pub(crate) fn put_before(&self, command: &mut Command) {
        // An allocator other than the C library's own (Redis has one) asks for the time before the library is ready for that, and then neither gets on.
        let libraries = format!("{}:libc.so.6", self.library.display());
        command
            .env("LD_PRELOAD", libraries)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            // What it would leave of shared memory behind a kill.
            .env("FAKETIME_DISABLE_SHM", "1");
    }
}
