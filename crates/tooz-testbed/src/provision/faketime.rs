//! The library by which a server's clock can be set: where it comes from.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::provision::companion;
use crate::provision::package::Companion;

pub(crate) const PROGRAM: Companion = Companion { program: "faketime", packages: &["faketime"], suite: "bookworm" };

/// The library that goes with the program.
pub(crate) fn library() -> Result<PathBuf> {
    let installation = companion(&PROGRAM, &|_| ())?;
    let found = installation.library("faketime/libfaketime.so.1");
    found.with_context(|| format!("{} have a program `faketime` and no library beside it", installation.source()))
}
