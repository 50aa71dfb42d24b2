//! A small disk for the data of one server, which can be filled to the last byte.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

/// What takes all the room.
const FILLER: &str = "filler";

/// A file system of its own below a folder, in memory. It goes when this is dropped, and otherwise with the folder of the run.
#[derive(Debug)]
pub struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// Puts one of so many megabytes in the place of that folder, which has to be there and empty. It takes the right to mount: the error says so.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Disk> {
        let size = format!("size={megabytes}m,mode=700");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tooz-testbed"]).arg(folder).output();
        let output = output.context("there is no `mount`, which makes a disk of its own")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("a disk of its own takes the right to mount, as root has it: {}", said.trim());
        }
        Ok(Disk { folder: folder.to_owned() })
    }

    /// Leaves no byte on it.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.folder.join(FILLER))?;
        for length in [65_536, 1] {
            let piece = vec![0; length];
            let full = loop {
                match file.write_all(&piece) {
                    Ok(()) => {}
                    Err(error) => break error,
                }
            };
            if full.kind() != ErrorKind::StorageFull {
                return Err(full).context("the disk can't be filled");
            }
        }
        Ok(())
    }

    /// Takes away what fills it.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.folder.join(FILLER))?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Now and not when its last file is closed; no caller is left to tell an error to.
        let _ = Command::new("umount").arg("--lazy").arg(&self.folder).output();
    }
}
