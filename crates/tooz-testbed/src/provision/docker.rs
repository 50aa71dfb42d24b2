//! The programs of a server out of an image of Docker, where there are no packages.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Whether there is a Docker that answers.
pub(crate) fn answers() -> bool {
    let mut info = Command::new("docker");
    info.arg("info").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    info.status().is_ok_and(|status| status.success())
}

/// Unpacks the files of an image into a folder. The programs then run as this user's own, like those out of packages, so
/// that everything can be done to them; nothing of Docker is left running.
pub(crate) fn unpack(image: &str, folder: &Path, progress: &dyn Fn(&str)) -> Result<()> {
    progress(&format!("fetching the image {image}"));
    let made = Command::new("docker").args(["create", image]).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !made.status.success() {
        bail!("docker has no image {image}");
    }
    let container = String::from_utf8(made.stdout)?.trim().to_owned();
    progress(&format!("unpacking the image {image}"));
    let unpacked = export(&container, folder);
    let removed = Command::new("docker").args(["rm", &container]).stdout(Stdio::null()).status();
    unpacked?;
    removed.context("cannot remove the container that was unpacked")?;
    Ok(())
}

fn export(container: &str, folder: &Path) -> Result<()> {
    let mut export = Command::new("docker").args(["export", container]).stdout(Stdio::piped()).spawn()?;
    let files = export.stdout.take().context("docker has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--no-same-owner", "--exclude=dev", "--directory"]).arg(folder).stdin(files);
    let unpacked = tar.status();
    let exported = export.wait()?;
    if !unpacked.context("cannot run tar")?.success() || !exported.success() {
        bail!("cannot unpack the image");
    }
    Ok(())
}
