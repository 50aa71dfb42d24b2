//! Where everything is: `FOLDER/NAMESPACE/{.layout,sessions,locks,elections,groups}`, how it comes to be, and how files there are opened.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::lstat;
use tooz_core::driver::{LockKey, Space, encode_name};
use tooz_core::{Error, ErrorKind, GroupId, MemberId, Namespace, Result};

use crate::access::{Access, Given, Object};
use crate::options::{Owner, Settings};
use crate::{error, sweep, unfinished, version};

/// File names have at most 255 bytes; this leaves room for anything a tool may append.
const LONGEST: usize = 200;

/// A file that was written since it was last read has its time of access noted at each reading, which costs more than reading.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSEEN: libc::c_int = libc::O_NOATIME;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const UNSEEN: libc::c_int = 0;

/// The folders of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    root: PathBuf,
    owner: Owner,
    namespace: Namespace,
    /// Whether the record of the layout was seen: it is looked at until then.
    agreed: Arc<AtomicBool>,
    needs_no_giving: Arc<AtomicBool>,
}

impl Layout {
    pub(crate) fn new(settings: &Settings, namespace: &Namespace) -> Self {
        Layout {
            folder: settings.folder.clone(),
            root: settings.folder.join(&*encode_name(namespace.as_str(), LONGEST)),
            owner: settings.owner,
            namespace: namespace.clone(),
            agreed: Arc::default(),
            needs_no_giving: Arc::default(),
        }
    }

    /// The folder that all namespaces are in.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The folder of the namespace.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn sessions(&self) -> PathBuf {
        self.root.join("sessions")
    }

    pub(crate) fn groups(&self) -> PathBuf {
        self.root.join("groups")
    }

    pub(crate) fn group(&self, group: &GroupId) -> PathBuf {
        self.groups().join(&*encode_name(group.as_str(), LONGEST))
    }

    /// The folder in which the locks of that space are.
    pub(crate) fn locks(&self, space: Space) -> PathBuf {
        self.root.join(match space {
            Space::Lock => "locks",
            Space::Election => "elections",
        })
    }

    pub(crate) fn lock(&self, key: &LockKey) -> PathBuf {
        self.locks(key.space).join(&*encode_name(&key.name, LONGEST))
    }

    /// Refuses a namespace that is kept in another layout; one that has no record yet gets it. For whoever is about to write there.
    pub(crate) fn settle(&self) -> Result<()> {
        if self.compare()? {
            return Ok(());
        }
        self.make_namespace()?;
        if !self.compare()? {
            version::settle(self)?;
        }
        Ok(())
    }

    /// Refuses a namespace that is kept in another layout, makes nothing, and answers whether there is a record. For whoever looks.
    pub(crate) fn compare(&self) -> Result<bool> {
        if self.agreed.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let recorded = version::compare(self)?;
        self.agreed.store(recorded, Ordering::Relaxed);
        Ok(recorded)
    }

    /// Who uses the namespace.
    pub(crate) fn access(&self) -> io::Result<Access> {
        Access::of(&self.root)
    }

    /// Makes one of the folders in which everything is.
    pub(crate) fn make_branch(&self, branch: &Path) -> Result<()> {
        self.make_namespace()?;
        let made = match branch.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let access = self.access().map_err(|error| error::at(error, "look at folder", &self.root))?;
                appear(&self.root, branch, |first| access.make_folder(first))
            }
            _ => Ok(()),
        };
        made.map_err(|error| error::at(error, "make folder", branch))
    }

    /// Makes the folder of the namespace with all that belongs to it, in one step, if there is none.
    fn make_namespace(&self) -> Result<()> {
        if self.root.symlink_metadata().is_ok() {
            return Ok(());
        }
        let mode = match self.owner {
            Owner::User => 0o700,
            Owner::Anybody => 0o777,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&self.folder)
            .map_err(|error| error::at(error, "make folder", &self.folder))?;
        sweep::leftovers(self, &self.folder);
        let access = Access::of(&self.folder).map_err(|error| error::at(error, "look at folder", &self.folder))?;
        appear(&self.folder, &self.root, |first| {
            access.make_folder(first)?;
            for branch in [self.sessions(), self.groups(), self.locks(Space::Lock), self.locks(Space::Election)] {
                access.make_folder(&first.join(branch.file_name().unwrap_or_default()))?;
            }
            version::write(&first.join(version::RECORD), access)
        })
        .map_err(|error| error::at(error, "make folder", &self.root))
    }

    /// Makes a file that is not there yet, for those who use the namespace.
    pub(crate) fn create(&self, path: &Path) -> io::Result<File> {
        let access = self.access()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(access.mode(Object::File));
        let file = Self::open_by(&mut options, path)?;
        let given = access.give(&file, Object::File);
        self.needs_no_giving.store(matches!(given, Ok(Given::AsItWas)), Ordering::Relaxed);
        if given.is_err() {
            let _ = fs::remove_file(path);
        }
        given.map(|_| file)
    }

    /// Whether files are theirs who use the namespace from their first moment on, as the umask takes nothing away: so it was with the last one.
    pub(crate) fn needs_no_giving(&self) -> bool {
        self.needs_no_giving.load(Ordering::Relaxed)
    }

    /// Opens a file that is there as `how` says, without following a link out of the folder.
    #[allow(clippy::unused_self)] // Whoever has a path has it from here.
    pub(crate) fn open(&self, path: &Path, how: How) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(how == How::Existing);
        Self::open_by(&mut options, path)
    }

    fn open_by(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
        let mut open = |more| options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | more).open(path);
        let mut open = || match open(UNSEEN) {
            // Only the owner of a file may read it unseen.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => open(0),
            result => result,
        };
        match open() {
            Err(error) if error.raw_os_error() == Some(libc::EMFILE) && raise_limit() => open(),
            result => result,
        }
    }

    /// Whether the folder is on a file system whose changes the kernel of another host makes. Looks at the nearest folder
    /// that is there, so that nothing is made; a file in its place is an error.
    pub(crate) fn is_remote(&self) -> Result<bool> {
        let mut place = self.folder.as_path();
        let found = loop {
            match place.metadata() {
                Ok(found) => break found,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error::at(error, "look at folder", place)),
            }
            match place.parent() {
                Some(parent) => place = parent,
                None => return Ok(false),
            }
        };
        if !found.is_dir() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("{} is no folder: name one in the URL (file:///FOLDER)", place.display()),
            ));
        }
        let system = nix::sys::statfs::statfs(place)
            .map_err(|error| error::at(error.into(), "look at the file system of", place))?;
        Ok(REMOTE.contains(&magic(system.filesystem_type())))
    }
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// For reading alone: works on a read-only file system.
    Look,
    /// For writing.
    Existing,
}

/// Which file it is: a path may come to mean another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        Identity { device: metadata.dev(), inode: metadata.ino() }
    }

    /// Whether the path still leads to this file.
    pub(crate) fn is_at(self, path: &Path) -> io::Result<bool> {
        match lstat(path) {
            // Their types differ between systems.
            #[allow(clippy::unnecessary_cast, clippy::cast_sign_loss)]
            Ok(found) => Ok(self == Identity { device: found.st_dev as u64, inode: found.st_ino as u64 }),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// The file name of a member within its group's folder.
pub(crate) fn member_file(member: &MemberId) -> String {
    encode_name(member.as_str(), LONGEST).into_owned()
}

/// Makes a folder under another name beside its own, and lets it appear with all that `make` puts into it. One that is there already is as good.
fn appear(parent: &Path, path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let first = parent.join(unfinished::name());
    let result = make(&first).and_then(|()| fs::rename(&first, path));
    if result.is_err() {
        let _ = fs::remove_dir_all(&first);
    }
    match result {
        // Somebody else has made it meanwhile. (It may be another user's, in a folder with the sticky bit.)
        Err(error)
            if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENOTEMPTY | libc::EPERM | libc::EACCES))
                && path.is_dir() =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Every held lock is an open file, and the soft limit of 1024 is there for users of `select` alone: when it is reached, it
/// is raised to what the system allows this process anyway. Answers whether that made room.
fn raise_limit() -> bool {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok(),
        _ => false,
    }
}

/// The last descriptors below the limit are the application's: what is held is refused before nothing else can be opened. Descriptors are given
/// out from below, so that the number tells how many there are. For a file that stays open.
pub(crate) fn leave_some(file: &File) -> io::Result<()> {
    const LEFT: u64 = 32;
    /// Nobody has so low a limit as to be near it there, and asking is a call of the system.
    const LOW: u64 = 128;
    let number = u64::try_from(file.as_raw_fd()).unwrap_or(0);
    if number < LOW {
        return Ok(());
    }
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) if number + LEFT < soft || (raise_limit() && leave_some(file).is_ok()) => Ok(()),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
        Err(_) => Ok(()),
    }
}

/// The magic numbers of network, cluster and user space file systems, from `linux/magic.h` and their own sources. Their
/// changes are made elsewhere, so that inotify does not see them.
const REMOTE: &[u32] = &[
    0x6969,      // NFS
    0x517B,      // SMB
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x564C,      // NCP
    0x0102_1997, // 9P
    0x6573_5546, // FUSE: sshfs, glusterfs, virtiofs and many more
    0x7375_7245, // Coda
    0x5346_414F, // AFS
    0x6B41_4653, // kAFS
    0x00C3_6400, // Ceph
    0x0116_1970, // GFS2
    0x7461_636F, // OCFS2
    0x0BD0_0BD0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
];

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
fn magic(of: nix::sys::statfs::FsType) -> u32 {
    // Its type differs between systems; the numbers have 32 bits.
    of.0 as u32
}
