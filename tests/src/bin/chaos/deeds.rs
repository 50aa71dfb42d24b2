//! What is done to a server that is alone, and to its user.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tooz_testbed::{Deed, Disk, Kind, Server, Setup};

use crate::backend::Backend;
use crate::fault::FaultKind;
use crate::plan::PlannedFault;

/// How large a small disk is: enough for what a server writes in ten minutes.
const MEGABYTES: u32 = 512;

/// One server, with what is special about it.
pub(crate) struct LoneServer {
    pub(crate) server: Server,
    /// Where the password of its user stands, if it has one.
    password: Option<PasswordFile>,
    /// The version that is to take its place.
    newer: Option<&'static str>,
}

impl LoneServer {
    /// A server to which these faults can be done.
    pub(crate) fn start(backend: &Backend, kind: Kind, faults: &[FaultKind]) -> Result<LoneServer> {
        let mut setup = Setup::new(kind);
        if faults.iter().any(|fault| matches!(fault, FaultKind::ClockAhead | FaultKind::ClockBack)) {
            setup = setup.own_clock();
        }
        let upgrades = backend.versions.filter(|_| faults.contains(&FaultKind::Upgrade));
        if let Some((older, _)) = upgrades {
            setup = setup.version(older);
        }
        if backend.own_disk {
            setup = setup.disk(MEGABYTES);
        }
        let has_users = FaultKind::Rotation.fits(backend);
        let password = if has_users { Some(PasswordFile::new()?) } else { None };
        if let Some(password) = &password {
            setup = setup.user(password.read()?);
        }
        let server = setup.start().with_context(|| format!("{} can't be started", backend.name))?;
        Ok(LoneServer { server, password, newer: upgrades.map(|(_, newer)| newer) })
    }

    /// By which URL workers connect.
    pub(crate) fn url(&self) -> Result<String> {
        match &self.password {
            Some(password) => self.server.url_with_user(&password.file),
            None => Ok(self.server.url()),
        }
    }

    /// Breaks it, keeps it so for its time, and mends it.
    pub(crate) async fn break_and_mend(&self, fault: &PlannedFault) -> Result<()> {
        if matches!(fault.kind, FaultKind::ClockAhead | FaultKind::ClockBack) {
            return self.set_clock(fault).await;
        }
        let new = self.password.as_ref().map(PasswordFile::another).unwrap_or_default();
        tokio::task::block_in_place(|| self.begin(fault.kind, &new))?;
        tokio::time::sleep(fault.lasts).await;
        tokio::task::block_in_place(|| self.end(fault.kind, &new))
    }

    fn begin(&self, fault: FaultKind, new: &str) -> Result<()> {
        let server = &self.server;
        match fault {
            FaultKind::ServerRestart => server.stop(),
            FaultKind::ServerPause | FaultKind::ServerHang => server.pause(),
            FaultKind::Upgrade => server.upgrade(self.newer.context("a newer version is known")?),
            FaultKind::Full => server.operate(Deed::Fill),
            FaultKind::DiskFull => self.disk()?.fill(),
            FaultKind::ReadOnly => server.operate(Deed::RefuseWrites),
            FaultKind::Rotation => server.operate(Deed::ChangePassword(new)),
            FaultKind::ShutOut => server.operate(Deed::ShutOut),
            _ => server.kill(),
        }
    }

    fn end(&self, fault: FaultKind, new: &str) -> Result<()> {
        let server = &self.server;
        match fault {
            FaultKind::ServerPause | FaultKind::ServerHang => server.resume(),
            FaultKind::Upgrade => Ok(()),
            FaultKind::Full => server.operate(Deed::MakeRoom),
            FaultKind::DiskFull => {
                self.disk()?.make_room()?;
                // Some end when they can't write.
                if server.is_running()? { Ok(()) } else { server.restart() }
            }
            FaultKind::ReadOnly => server.operate(Deed::TakeWrites),
            FaultKind::Rotation => self.password.as_ref().map_or(Ok(()), |password| password.write(new)),
            FaultKind::ShutOut => server.operate(Deed::LetIn),
            _ => server.restart(),
        }
    }

    fn disk(&self) -> Result<&Disk> {
        self.server.disk().context("the server has no disk of its own")
    }

    /// Sets its clock off by half of the time, for half of the time. What has an end by the wrong clock is over when the other half is.
    async fn set_clock(&self, fault: &PlannedFault) -> Result<()> {
        let half = fault.lasts / 2;
        match fault.kind {
            FaultKind::ClockAhead => self.server.set_clock_ahead(half)?,
            _ => self.server.set_clock_back(half)?,
        }
        tokio::time::sleep(half).await;
        self.server.set_clock_right()?;
        tokio::time::sleep(half).await;
        Ok(())
    }
}

/// A file with a password, which is changed now and then.
struct PasswordFile {
    _folder: TempDir,
    file: PathBuf,
    /// How many there have been.
    count: AtomicU32,
}

impl PasswordFile {
    fn new() -> Result<PasswordFile> {
        let folder = tempfile::tempdir()?;
        let file = PasswordFile { file: folder.path().join("password"), _folder: folder, count: AtomicU32::new(0) };
        file.write(&file.another())?;
        Ok(file)
    }

    /// A password that has not been there.
    fn another(&self) -> String {
        format!("word-{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn read(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.file)?)
    }

    fn write(&self, password: &str) -> Result<()> {
        // A worker reads it at any time, and so must find all of it.
        let aside: &Path = &self.file.with_extension("new");
        fs::write(aside, password)?;
        Ok(fs::rename(aside, &self.file)?)
    }
}
