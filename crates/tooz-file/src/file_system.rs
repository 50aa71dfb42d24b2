//! Whether the folder is on a network file system, where this host's kernel is not the judge.

use std::io;
use std::path::Path;

use tooz_core::{Error, ErrorKind, Result};

use crate::error;

/// Whether the folder is on a file system whose changes the kernel of another host makes. Looks at the nearest folder
/// that is there, so that nothing is made; a file in its place is an error.
pub(crate) fn is_remote(folder: &Path) -> Result<bool> {
    let mut nearest = folder;
    let found = loop {
        match nearest.metadata() {
            Ok(found) => break found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error::at(error, "look at folder", nearest)),
        }
        match nearest.parent() {
            Some(parent) => nearest = parent,
            None => return Ok(false),
        }
    };
    if !found.is_dir() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{} is no folder: name one in the URL (file:///FOLDER)", nearest.display()),
        ));
    }
    let system = nix::sys::statfs::statfs(nearest)
        .map_err(|error| error::at(error.into(), "look at the file system of", nearest))?;
    Ok(REMOTE.contains(&magic(system.filesystem_type())))
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
