//! The folder of a namespace in `/dev/shm`, and how it and what is in it come to be.
//!
//! ```text
//! /dev/shm/tooz-UID/NAME/NAMESPACE/table            the table (mode=660: tooz-gGID, mode=666: tooz-all)
//! /dev/shm/tooz-UID/NAME/NAMESPACE/sessions/SLOT    open for writing as long as the session lives, so that its death is told
//! /dev/shm/tooz-UID/.bells/TABLE-SLOT               the doorbell of a session: the name of a socket has at most 107 bytes
//! ```

use std::fs::{self, DirEntry, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::fcntl::posix_fallocate;
use nix::libc;
use tooz_core::driver::encode_name;
use tooz_core::{Namespace, Result};

use crate::access::{UNFINISHED, Users};
use crate::error::{self, SHARED_MEMORY};
use crate::options::Settings;
use crate::region::WORD;
use crate::table::{Table, words_for, write_header};

/// File names have at most 255 bytes.
const LONGEST: usize = 200;
/// What a killed process left half done is older than this.
const LEFTOVER: Duration = Duration::from_mins(1);
/// Between two looks whether another process has made the table.
const PAUSE: Duration = Duration::from_millis(2);
/// How many doorbells are looked at where a table is made.
const BELLS: usize = 4096;
/// How often a table may be replaced while it is opened before that is called an error.
const REPLACED: usize = 8;

/// The folder of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct NamespaceFolder {
    pub(crate) users: Users,
    pub(crate) base: PathBuf,
    name: PathBuf,
    pub(crate) root: PathBuf,
    namespace: Namespace,
    size: u64,
}

impl NamespaceFolder {
    pub(crate) fn new(settings: &Settings, namespace: &Namespace) -> Self {
        let base = Path::new(SHARED_MEMORY).join(settings.users.folder());
        let name = base.join(&*encode_name(&settings.name, LONGEST));
        let root = name.join(&*encode_name(namespace.as_str(), LONGEST));
        NamespaceFolder { users: settings.users, base, name, root, namespace: namespace.clone(), size: settings.size }
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.root.join("table")
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    fn bells(&self) -> PathBuf {
        self.base.join(".bells")
    }

    /// The doorbell of a session of the table with that inode.
    pub(crate) fn bell(&self, inode: u64, slot: usize) -> PathBuf {
        self.base.join(format!(".bells/{inode}-{slot}"))
    }

    /// Opens the table if there is one. Makes nothing.
    pub(crate) fn open(&self) -> Result<Option<Table>> {
        self.users.check_folder(&self.base)?;
        Table::open(&self.table(), &self.namespace)
    }

    /// Opens the table, and makes it before that if there is none. One process at a time makes it, and is waited for so long.
    pub(crate) async fn open_or_make(&self, patience: Duration) -> Result<Table> {
        for _ in 0..REPLACED {
            if let Some(table) = self.open()? {
                // As large as a table, and where there is one none is made any more.
                clear_leftovers(&self.root, UNFINISHED, is_old);
                return Ok(table);
            }
            self.make_folders()?;
            let turn = MakingTurn::wait(self, patience).await.map_err(|error| error::at(error, "open", &self.root))?;
            if !self.has_table() {
                self.make(&turn)?;
            }
        }
        Err(error::at(
            io::Error::from_raw_os_error(libc::EBUSY),
            "keep the table that is deleted again and again",
            &self.table(),
        ))
    }

    fn has_table(&self) -> bool {
        self.table().symlink_metadata().is_ok()
    }

    fn make_folders(&self) -> Result<()> {
        self.users.make_folder(&self.base)?;
        self.users.check_folder(&self.base)?;
        for folder in [&self.bells(), &self.name, &self.root, &self.sessions()] {
            self.users.make_folder(folder)?;
        }
        Ok(())
    }

    fn make(&self, turn: &MakingTurn) -> Result<()> {
        self.clear_leftovers_of_folders();
        self.clear_bells();
        if turn.is_ours {
            // No other is at work on them, and each may have all the memory of a table.
            clear_leftovers(&self.root, UNFINISHED, is_file);
        }
        let (path, first) = (self.table(), unfinished_in(&self.root));
        let made = self.make_file(&first).and_then(|()| match fs::hard_link(&first, &path) {
            // The first to come decides. One that had waited too long for its turn may have been cleared away, and looks again.
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => Ok(()),
            result => result,
        });
        let _ = fs::remove_file(&first);
        match made {
            // The memory that was missing is that of the table, which another has made meanwhile.
            Err(_) if self.has_table() => Ok(()),
            made => made.map_err(|error| error::at(error, "make the table", &path)),
        }
    }

    fn make_file(&self, path: &Path) -> io::Result<()> {
        let words = words_for(self.size);
        let file = self.users.create(path)?;
        let bytes = libc::off_t::try_from(words * WORD).map_err(io::Error::other)?;
        // All of it now: memory that is not there when it is written to later is the end of the process that writes.
        posix_fallocate(&file, 0, bytes)?;
        write_header(&file, words)
    }

    fn clear_leftovers_of_folders(&self) {
        for folder in [&self.base, &self.name, &self.root] {
            clear_leftovers(folder, UNFINISHED, is_old);
        }
        // Where others make files, too.
        if let (Some(shared_memory), Some(name)) = (self.base.parent(), self.base.file_name()) {
            clear_leftovers(shared_memory, &format!("{UNFINISHED}{}-", name.to_string_lossy()), is_old);
        }
    }

    /// Takes away doorbells without a listener: those of a table that was deleted hinder no process, and would stay. A young one may not be listened at yet.
    fn clear_bells(&self) {
        let Ok(entries) = fs::read_dir(self.bells()) else { return };
        for entry in entries.flatten().take(BELLS) {
            let path = entry.path();
            let answer = UnixDatagram::unbound().and_then(|hand| hand.connect(&path));
            if answer.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) && is_old(&entry) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The file that is open for writing as long as that session lives.
    pub(crate) fn open_alive(&self, slot: usize) -> Result<File> {
        let path = self.sessions().join(slot.to_string());
        let failed = |error| error::at(error, "open file", &path);
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        match options.open(&path) {
            // One that can't be opened was not given to all users: the slot is ours, so that no other needs what stands there.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
                self.users.make_folder(&self.sessions())?;
                self.make_alive(&path).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    /// It gets its name when all may open it: the next session of that slot may be another user's, and its maker may be killed at any time.
    fn make_alive(&self, path: &Path) -> io::Result<File> {
        clear_leftovers(&self.sessions(), UNFINISHED, is_old);
        let first = unfinished_in(&self.sessions());
        let made = self.users.create(&first).and_then(|file| fs::rename(&first, path).map(|()| file));
        if made.is_err() {
            let _ = fs::remove_file(&first);
        }
        made
    }
}

/// The turn to make the table of a namespace: a lock on its folder. Each that made one of its own at the same time would take all the memory of a table for it.
struct MakingTurn {
    folder: File,
    /// `false`: another has made the table meanwhile, or has its turn for too long, as when it is stopped.
    is_ours: bool,
}

impl MakingTurn {
    async fn wait(folder: &NamespaceFolder, patience: Duration) -> io::Result<Self> {
        let (file, until) = (File::open(&folder.root)?, Instant::now() + patience);
        loop {
            let is_ours = file.try_lock().is_ok();
            if is_ours || folder.has_table() || Instant::now() > until {
                return Ok(MakingTurn { folder: file, is_ours });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// By name: a child that was forked meanwhile would keep the lock with the description.
impl Drop for MakingTurn {
    fn drop(&mut self) {
        let _ = self.folder.unlock();
    }
}

/// A name for what is not finished.
fn unfinished_in(folder: &Path) -> PathBuf {
    folder.join(format!("{UNFINISHED}{:016x}", fastrand::u64(..)))
}

/// Takes away what a killed process has left half done in that folder: files, and folders with nothing in them.
fn clear_leftovers(folder: &Path, begins: &str, is_left: impl Fn(&DirEntry) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(begins.as_bytes()) && is_left(&entry) {
            let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
            let _ = if is_folder { fs::remove_dir(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

fn is_file(entry: &DirEntry) -> bool {
    entry.file_type().is_ok_and(|found| found.is_file())
}

/// Whether no process is still at work on it that has just made it.
fn is_old(entry: &DirEntry) -> bool {
    let modified = entry.metadata().and_then(|found| found.modified()).ok();
    modified.and_then(|modified| SystemTime::now().duration_since(modified).ok()).is_some_and(|age| age > LEFTOVER)
}
