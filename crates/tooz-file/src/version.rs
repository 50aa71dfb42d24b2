//! How a namespace comes to its record of the layout: with its folder, or at the next use where it had none.

use std::io::{self, Write as _};

use tooz_core::Result;

use crate::error;
use crate::layout;
use crate::namespace_folder::{NamespaceFolder, NamespaceRecord, write_record};
use crate::sweep;
use crate::unfinished::{Naming, Unfinished};

/// Refuses a namespace that is kept in another layout; one that has no record yet gets it. Asked before anything is written there.
pub(crate) fn settle(namespace: &NamespaceFolder) -> Result<()> {
    if namespace.compare()? == NamespaceRecord::Ours {
        return Ok(());
    }
    if namespace.is_missing() {
        sweep::leftovers(namespace.layout.folder());
    }
    namespace.make()?;
    if namespace.compare()? == NamespaceRecord::Missing {
        record(namespace)?;
    }
    Ok(())
}

/// Records ours in a namespace that has no record. The first to come decides.
fn record(namespace: &NamespaceFolder) -> Result<()> {
    let path = namespace.layout.record();
    let failed = |error| error::at(error, "record the layout in", &path);
    match write_unfinished(namespace)?.take_free_name(&path).map_err(failed)? {
        // No version writes in place, so what is there and says nothing is what a power cut left.
        Naming::Taken if namespace.compare()? == NamespaceRecord::Missing => {
            write_unfinished(namespace)?.take_name(&path).map_err(failed)?;
        }
        Naming::NoLinks => match write_record(&path, namespace.access().map_err(failed)?) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        },
        Naming::Done | Naming::Taken | Naming::NoFolder => {}
    }
    namespace.compare().map(drop)
}

fn write_unfinished(namespace: &NamespaceFolder) -> Result<Unfinished> {
    let (made, mut file) = Unfinished::file(namespace)?;
    file.write_all(layout::record_text().as_bytes())
        .map_err(|error| error::at(error, "record the layout in", made.path()))?;
    Ok(made)
}
