//! Java archives that were unpacked: they name other archives by their places in an installed system, and Java takes those before the ones
//! that it is told of. So what they name is made to be overlooked.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The entry in which an archive names others. Its name stands in no compressed form, before the entry and in the list at the end.
const MANIFEST: &[u8] = b"META-INF/MANIFEST.MF";
/// As long, and nothing that Java looks for.
const OVERLOOKED: &[u8] = b"META-INF/MANIFEST.NO";

/// How the two places begin in which an entry is named, and how far behind that the name is.
const BEFORE_ENTRY: (&[u8], usize) = (b"PK\x03\x04", 30);
const IN_LIST: (&[u8], usize) = (b"PK\x01\x02", 46);

/// Does that for the archives in a folder whose names begin so. May be repeated, also while some of them are in use.
pub(crate) fn stand_alone(folder: &Path, starts: &[&str]) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_archive = path.extension().is_some_and(|extension| extension == "jar");
        let is_meant = is_archive && starts.iter().any(|start| name.starts_with(start));
        if is_meant && entry.file_type()?.is_file() {
            let bytes = fs::read(&path)?;
            if let Some(bytes) = without_manifest(bytes) {
                // A server that reads the old one goes on with it.
                let aside = path.with_extension("part");
                fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, &path)).context("cannot write an archive")?;
            }
        }
    }
    Ok(())
}

/// This archive without its manifest; `None` where it has none.
fn without_manifest(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    for (start, distance) in [BEFORE_ENTRY, IN_LIST] {
        for at in 0..bytes.len().saturating_sub(distance + MANIFEST.len()) {
            if bytes[at..].starts_with(start) && bytes[at + distance..].starts_with(MANIFEST) {
                found.push(at + distance);
            }
        }
    }
    for at in &found {
        bytes[*at..*at + OVERLOOKED.len()].copy_from_slice(OVERLOOKED);
    }
    (!found.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_names_no_others_afterwards() {
        let mut archive = Vec::new();
        for (start, distance) in [BEFORE_ENTRY, IN_LIST] {
            archive.extend_from_slice(start);
            archive.resize(archive.len() + distance - start.len(), 7);
            archive.extend_from_slice(MANIFEST);
            archive.extend_from_slice(b"compressed");
        }
        // These letters elsewhere are none of its names.
        archive.extend_from_slice(MANIFEST);
        archive.extend_from_slice(&[0; 80]);
        let changed = without_manifest(archive.clone()).unwrap();
        let count = |name: &[u8]| changed.windows(name.len()).filter(|window| window == &name).count();
        assert_eq!((count(MANIFEST), count(OVERLOOKED), changed.len()), (1, 2, archive.len()));
        assert_eq!(without_manifest(changed), None);
    }

    #[test]
    fn a_folder_may_be_done_again() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("empty.jar"), b"").unwrap();
        fs::write(folder.path().join("other.txt"), MANIFEST).unwrap();
        for _ in 0..2 {
            stand_alone(folder.path(), &["empty", "other"]).unwrap();
        }
        assert_eq!(fs::read(folder.path().join("other.txt")).unwrap(), MANIFEST);
    }
}
