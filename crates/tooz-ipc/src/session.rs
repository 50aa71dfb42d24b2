//! One session: a slot in the table of its namespace. The kernel ends it with the process.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tooz_core::driver::{ConnectArgs, Mutex, Reporter, Session};
use tooz_core::{Checkup, MemberId, Result, Terms};

use crate::characteristics::BEST;
use crate::checkup;
use crate::error;
use crate::living::Living;
use crate::namespace_folder::NamespaceFolder;
use crate::options;

/// A session with all that its rooms for locks and groups work with.
pub(crate) struct IpcSession {
    pub(crate) folder: NamespaceFolder,
    pub(crate) session_timeout: Duration,
    member: MemberId,
    reporter: Reporter,
    /// How long a change of the table waits for another process.
    patience: Duration,
    is_open: AtomicBool,
    is_closed: AtomicBool,
    living: Mutex<Option<Arc<Living>>>,
    /// One at a time begins.
    beginning: tokio::sync::Mutex<()>,
}

/// What is to be done where there is no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    Make,
    Leave,
}

impl IpcSession {
    /// Reads the URL. Makes nothing.
    pub(crate) fn connect(args: &ConnectArgs) -> Result<Self> {
        let settings = options::read(args)?;
        Ok(IpcSession {
            folder: NamespaceFolder::new(&settings, &args.namespace),
            session_timeout: args.session_timeout,
            member: args.member.clone(),
            reporter: args.reporter.clone(),
            // Core gives up at the whole of it, and says less.
            patience: args.statement_timeout() * 3 / 4,
            is_open: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            living: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
        })
    }

    /// The table as it is for a session that owns something there.
    pub(crate) fn owning(&self) -> Result<Arc<Living>> {
        match &*self.living.lock() {
            Some(living) if self.is_open.load(Ordering::Acquire) => Ok(Arc::clone(living)),
            _ => Err(error::lost("it was closed")),
        }
    }

    /// The table as it is, if this session has one already.
    pub(crate) fn present(&self) -> Option<Arc<Living>> {
        self.living.lock().clone()
    }

    /// The table as it is, for a look. `None`: there is none.
    pub(crate) async fn looking(&self) -> Result<Option<Arc<Living>>> {
        self.find(Missing::Leave).await
    }

    /// The table for a change of what belongs to no session.
    pub(crate) async fn changing(&self) -> Result<Arc<Living>> {
        let living = self.find(Missing::Make).await?;
        living.ok_or_else(|| error::lost("its table is gone"))
    }

    async fn find(&self, missing: Missing) -> Result<Option<Arc<Living>>> {
        let usable = || self.present().filter(|living| self.is_open.load(Ordering::Acquire) || !living.is_over());
        if let Some(living) = usable() {
            return Ok(Some(living));
        }
        let _turn = self.beginning.lock().await;
        if let Some(living) = usable() {
            return Ok(Some(living));
        }
        if self.is_closed.load(Ordering::Acquire) {
            return Err(error::lost("it was closed"));
        }
        let table = match missing {
            Missing::Make => self.folder.open_or_make(self.patience / 2).await?,
            Missing::Leave => match self.folder.open()? {
                Some(table) => table,
                None => return Ok(None),
            },
        };
        let living = Living::begin(&self.folder, table, &self.reporter, self.patience).await?;
        *self.living.lock() = Some(Arc::clone(&living));
        Ok(Some(living))
    }
}

#[async_trait]
impl Session for IpcSession {
    fn terms(&self) -> Terms {
        Terms::new(None, BEST)
    }

    async fn open(&self) -> Result<()> {
        let living = self.changing().await?;
        living.open(&self.member).await?;
        self.is_open.store(true, Ordering::Release);
        Ok(())
    }

    async fn check_up(&self) -> Result<Checkup> {
        checkup::look(&self.folder, self.looking().await?.as_deref()).await
    }

    fn descriptors(&self) -> Vec<OwnedFd> {
        self.present().and_then(|living| living.table.duplicate().ok()).map(OwnedFd::from).into_iter().collect()
    }

    async fn close(&self) -> Result<()> {
        self.is_closed.store(true, Ordering::Release);
        let living = self.present();
        let closed = match &living {
            Some(living) => living.close().await,
            None => Ok(()),
        };
        self.is_open.store(false, Ordering::Release);
        // The description of the file goes with the last that still looks.
        self.living.lock().take();
        closed
    }
}

/// A session that was not closed gives back what it can at once; others find the rest.
impl Drop for IpcSession {
    fn drop(&mut self) {
        if let Some(living) = self.living.lock().take() {
            living.abandon();
        }
    }
}
