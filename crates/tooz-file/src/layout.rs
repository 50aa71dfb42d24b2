//! Where everything is: `FOLDER/NAMESPACE/{sessions,locks,elections,groups}`, and how files there are opened.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::lstat;
use tooz_core::{Error, ErrorKind, GroupId, LockKey, MemberId, Namespace, Result, Space, encode_name};

use crate::error;
use crate::options::{Access, Settings};

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
    access: Access,
}

impl Layout {
    pub(crate) fn new(settings: &Settings, namespace: &Namespace) -> Self {
        Layout {
            folder: settings.folder.clone(),
            root: settings.folder.join(&*encode_name(namespace.as_str(), LONGEST)),
            access: settings.access,
        }
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

    pub(crate) fn lock(&self, key: &LockKey) -> PathBuf {
        let branch = match key.space {
            Space::Lock => "locks",
            Space::Election => "elections",
        };
        self.root.join(branch).join(&*encode_name(&key.name, LONGEST))
    }

    /// Makes a folder with its parents, for those who may use it.
    pub(crate) fn make_folder(&self, path: &Path) -> Result<()> {
        let mode = match self.access {
            Access::Private => 0o700,
            Access::Umask => 0o777,
        };
        DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|error| error::at(error, "make folder", path))
    }

    /// Opens a file for reading and writing as `how` says, without following a link out of the folder.
    pub(crate) fn open(&self, path: &Path, how: How) -> io::Result<File> {
        let mode = match self.access {
            Access::Private => 0o600,
            Access::Umask => 0o666,
        };
        let mut options = OpenOptions::new();
        options.read(true).mode(mode);
        match how {
            How::Look => {}
            How::Existing => drop(options.write(true)),
            How::Create => drop(options.write(true).create(true)),
            How::CreateNew => drop(options.write(true).create_new(true)),
        }
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
#[derive(Clone, Copy, Debug)]
pub(crate) enum How {
    /// For reading alone: makes nothing, and works on a read-only file system.
    Look,
    /// For writing, if it is there.
    Existing,
    /// For writing, made if it is not there.
    Create,
    /// For writing, and an error if it is there.
    CreateNew,
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

/// A name for what is not finished yet. No encoded name begins with a dot.
pub(crate) fn unfinished() -> String {
    format!(".new-{:016x}", fastrand::u64(..))
}

/// Every held lock is an open file, and the soft limit of 1024 is there for users of `select` alone: when it is reached, it
/// is raised to what the system allows this process anyway. Answers whether that made room.
fn raise_limit() -> bool {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((soft, hard)) if soft < hard => setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok(),
        _ => false,
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
