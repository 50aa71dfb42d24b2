//! The record of the layout: in which way a namespace is kept, so that two versions of tooz that look in different places refuse each other
//! instead of holding the same lock at once.
//!
//! A namespace without a record was made before there were any: it is kept in layout 1. So is one whose record was emptied by a power cut, as
//! records of layout 1 are not waited for until they are on the disk; whoever brings a layout 2 has to wait for its records.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc;
use tooz_core::{Error, Result};

use crate::access::{Access, Object};
use crate::layout::{How, Layout};
use crate::unfinished::{Naming, Unfinished};
use crate::{error, record};

/// The file in the namespace's folder.
pub(crate) const RECORD: &str = ".layout";
/// What this version speaks, and what namespaces without a record are kept in.
const SPOKEN: &str = "1";
const MARK: &str = "tooz file layout ";

/// What a record says.
enum Recorded {
    Nothing,
    Ours,
    Foreign(String),
}

/// Writes the record where nobody sees it yet.
pub(crate) fn write(path: &Path, access: Access) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    access.give(&file, Object::File).map(drop)?;
    file.write_all(format!("{MARK}{SPOKEN}\n").as_bytes())
}

/// Refuses another layout than ours; answers whether there is a record.
pub(crate) fn compare(layout: &Layout) -> Result<bool> {
    match read(layout)? {
        Recorded::Nothing => Ok(false),
        Recorded::Ours => Ok(true),
        Recorded::Foreign(found) => Err(Error::foreign_layout(layout.namespace(), found, SPOKEN)),
    }
}

/// Records ours in a namespace that has no record. The first to come decides; true: it is settled.
pub(crate) fn settle(layout: &Layout) -> Result<bool> {
    let path = layout.root().join(RECORD);
    let failed = |error| error::at(error, "record the layout in", &path);
    match write_unfinished(layout)?.take_free_name(&path).map_err(failed)? {
        // Nobody writes in place, so what is there and says nothing is what a power cut left.
        Naming::Taken if !layout.compare()? => drop(write_unfinished(layout)?.take_name(&path).map_err(failed)?),
        Naming::NoLinks => match write(&path, layout.access().map_err(failed)?) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        },
        Naming::Done | Naming::Taken | Naming::NoFolder => {}
    }
    layout.compare()
}

fn write_unfinished(layout: &Layout) -> Result<Unfinished> {
    let (made, mut file) = Unfinished::file(layout)?;
    file.write_all(format!("{MARK}{SPOKEN}\n").as_bytes())
        .map_err(|error| error::at(error, "record the layout in", made.path()))?;
    Ok(made)
}

fn read(layout: &Layout) -> Result<Recorded> {
    let path = layout.root().join(RECORD);
    let failed = |error| error::at(error, "read the record of the layout in", &path);
    let file = match layout.open(&path, How::Look) {
        // A namespace that is a file is told of when something is to be made in it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(Recorded::Nothing);
        }
        result => result.map_err(failed)?,
    };
    let mut text = [0; 64];
    let length = record::read_up_to(&file, &mut text, 0).map_err(failed)?;
    let text = &text[..length];
    if text.iter().all(|byte| *byte == 0) {
        return Ok(Recorded::Nothing);
    }
    let text = String::from_utf8_lossy(text);
    let layout = text.strip_prefix(MARK).map(str::trim).filter(|layout| !layout.is_empty());
    Ok(match layout {
        Some(SPOKEN) => Recorded::Ours,
        Some(other) => Recorded::Foreign(other.to_owned()),
        None => Recorded::Foreign(format!("{:?}", text.trim())),
    })
}
