//! One session: a locked file among the sessions, and all that this process has by it. The kernel ends it with the process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tooz_core::driver::{ConnectArgs, Mutex, Session};
use tooz_core::{Characteristic, Checkup, MemberId, Result, Terms};

use crate::alive_file::AliveFile;
use crate::characteristics::{BEST, REMOTE};
use crate::group_folder;
use crate::holdings::Holdings;
use crate::namespace_folder::NamespaceFolder;
use crate::upkeep::Upkeep;
use crate::{checkup, file_system, options, version};

/// A session with all that its rooms for locks and groups work with.
pub(crate) struct FileSession {
    pub(crate) member: MemberId,
    /// Asking for it is a call of the system, so it is asked once.
    pub(crate) pid: u32,
    pub(crate) namespace: NamespaceFolder,
    pub(crate) holdings: Arc<Holdings>,
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) session_timeout: Duration,
    /// How long a change of a group waits for another process.
    pub(crate) patience: Duration,
    is_remote: bool,
    file: Mutex<Option<AliveFile>>,
}

impl FileSession {
    /// Reads the URL and looks at the folder. Makes nothing.
    pub(crate) fn connect(args: &ConnectArgs) -> Result<Self> {
        let settings = options::read(args)?;
        let is_remote = file_system::is_remote(&settings.folder)?;
        let namespace = NamespaceFolder::new(&settings, &args.namespace);
        let holdings = Arc::new(Holdings::new(&namespace.layout, args.reporter.clone()));
        let is_pushed = settings.inotify && !is_remote;
        let upkeep = Upkeep::new(namespace.layout.clone(), args.session_timeout, Arc::clone(&holdings), is_pushed);
        Ok(FileSession {
            member: args.member.clone(),
            pid: std::process::id(),
            namespace,
            holdings,
            upkeep: Arc::new(upkeep),
            session_timeout: args.session_timeout,
            patience: args.statement_timeout(),
            is_remote,
            file: Mutex::default(),
        })
    }

    /// What is left when everything was given back.
    fn end(&self) {
        self.upkeep.end();
        if let Some(file) = self.file.lock().take() {
            let _ = file.remove();
        }
    }
}

#[async_trait]
impl Session for FileSession {
    fn terms(&self) -> Terms {
        let mut characteristics = if self.is_remote { REMOTE } else { BEST };
        if !self.upkeep.is_pushed() {
            characteristics = characteristics.without(Characteristic::PushedWatches);
        }
        Terms::new(None, characteristics)
    }

    async fn open(&self) -> Result<()> {
        version::settle(&self.namespace)?;
        self.upkeep.begin_sweep();
        let name = format!("{}-{:016x}", self.pid, fastrand::u64(..));
        let about = serde_json::json!({ "member": self.member.as_str(), "pid": self.pid });
        let sessions = self.namespace.layout.sessions();
        let file = AliveFile::create(&self.namespace, &sessions, &name, format!("{about}\n").as_bytes())?;
        *self.file.lock() = Some(file);
        self.upkeep.begin_rounds();
        Ok(())
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::look(&self.namespace, self.is_remote, self.upkeep.is_pushed())
    }

    fn descriptors(&self) -> Vec<OwnedFd> {
        let session = self.file.lock().as_ref().and_then(|file| file.duplicate().ok());
        let mut all: Vec<OwnedFd> = session.map(OwnedFd::from).into_iter().collect();
        all.extend(self.holdings.descriptors());
        all
    }

    async fn close(&self) -> Result<()> {
        self.holdings.end_locks();
        for (group, file) in self.holdings.end_memberships() {
            if let Ok(_change) = group_folder::change(&self.namespace, &group, self.patience).await {
                let _ = file.remove();
            }
        }
        self.end();
        Ok(())
    }
}

/// A session that was not closed leaves nothing that is alive: descriptions are closed here, and dead files are swept by others.
impl Drop for FileSession {
    fn drop(&mut self) {
        self.holdings.end_locks();
        drop(self.holdings.end_memberships());
        self.end();
    }
}
