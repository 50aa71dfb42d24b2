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
use std::time::{Duration, SystemTime};

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

    /// Opens the table, and makes it before that if there is none.
    pub(crate) fn open_or_make(&self) -> Result<Table> {
        for _ in 0..REPLACED {
            if let Some(table) = self.open()? {
                // As large as a table, and where there is one none is made any more.
                clear_leftovers(&self.root, UNFINISHED);
                return Ok(table);
            }
            self.make()?;
        }
        Err(error::at(
            io::Error::from_raw_os_error(libc::EBUSY),
            "keep the table that is deleted again and again",
            &self.table(),
        ))
    }

    fn make(&self) -> Result<()> {
        self.users.make_folder(&self.base)?;
        self.users.check_folder(&self.base)?;
        for folder in [&self.bells(), &self.name, &self.root, &self.sessions()] {
            self.users.make_folder(folder)?;
        }
        self.clear_leftovers_of_folders();
        self.clear_bells();
        let (path, first) = (self.table(), self.root.join(format!("{UNFINISHED}{:016x}", fastrand::u64(..))));
        let made = self.make_file(&first).and_then(|()| match fs::hard_link(&first, &path) {
            // The first to come decides.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        });
        let _ = fs::remove_file(&first);
        made.map_err(|error| error::at(error, "make the table", &path))
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
            clear_leftovers(folder, UNFINISHED);
        }
        // Where others make files, too.
        if let (Some(shared_memory), Some(name)) = (self.base.parent(), self.base.file_name()) {
            clear_leftovers(shared_memory, &format!("{UNFINISHED}{}-", name.to_string_lossy()));
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
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.users.make_folder(&self.sessions())?;
                self.users.create(&path).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }
}

/// Takes away what a killed process has left half done in that folder: files, and folders with nothing in them.
fn clear_leftovers(folder: &Path, begins: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(begins.as_bytes()) && is_old(&entry) {
            let is_folder = entry.file_type().is_ok_and(|found| found.is_dir());
            let _ = if is_folder { fs::remove_dir(entry.path()) } else { fs::remove_file(entry.path()) };
        }
    }
}

/// Whether no process is still at work on it that has just made it.
fn is_old(entry: &DirEntry) -> bool {
    let modified = entry.metadata().and_then(|found| found.modified()).ok();
    modified.and_then(|modified| SystemTime::now().duration_since(modified).ok()).is_some_and(|age| age > LEFTOVER)
}
