//! Getting hold of a server's programs without installing anything.

pub(crate) mod apt;
pub(crate) mod consul;
pub(crate) mod docker;
pub(crate) mod etcd;
pub(crate) mod faketime;
pub(crate) mod installation;
pub(crate) mod jar;
pub(crate) mod kind;
pub(crate) mod memcached;
pub(crate) mod mysql;
pub(crate) mod package;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod zookeeper;

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail};

use crate::provision::installation::{C_LIBRARY, Installation, Origin};
use crate::provision::kind::Kind;
use crate::provision::package::{Companion, Package};

/// Where a server of that kind comes from.
fn package_of(kind: Kind) -> &'static dyn Package {
    match kind {
        Kind::Redis => &redis::Redis,
        Kind::Etcd => &etcd::Etcd,
        Kind::ZooKeeper => &zookeeper::ZooKeeper,
        Kind::Postgres => &postgres::Postgres,
        Kind::Consul => &consul::Consul,
        Kind::Memcached => &memcached::Memcached,
        Kind::MySql => &mysql::MySql,
    }
}

/// The variable that names another folder for what is fetched.
const FOLDER: &str = "TOOZ_TESTBED_DIR";

/// The file in an unpacked tree that says by which [`Package::edition`] it was finished.
const EDITION: &str = ".edition";

/// Makes the programs of a server available, as a plain user and without installing anything.
///
/// They come, in this order: from this machine, where they are installed; from Debian packages, which the system's own
/// package client fetches and checks, and which are then unpacked below `target/testbed/` (`TOOZ_TESTBED_DIR`); from an
/// image of Docker, unpacked there as well. What has been fetched once is found there the next time. `progress` is told
/// what is going on, one line at a time; it is not called where nothing has to be fetched.
///
/// `TOOZ_REDIS_SUITE`, `TOOZ_ETCD_SUITE` name another suite of Debian to take the packages from. The error says, for each
/// of the ways, why it does not work here and what would mend that.
pub fn provision(kind: Kind, progress: &dyn Fn(&str)) -> Result<Installation> {
    for one in package_of(kind).companions() {
        // Few tests need it, and those will say what is missing.
        if let Err(error) = companion(one, progress) {
            progress(&format!("{error:#}"));
        }
    }
    provision_version(kind, None, progress)
}

/// Gets hold of it, from this machine or from packages.
pub(crate) fn companion(wanted: &Companion, progress: &dyn Fn(&str)) -> Result<Installation> {
    let Companion { program, packages, suite } = *wanted;
    if let Some(here) = Installation::on_path(&[program]) {
        return Ok(here);
    }
    let told = |text: &str| progress(&format!("{program}: {text}"));
    let fetched = unpacked(&store()?.join(suite).join(program), suite, packages, program, &told, &|_| Ok(()));
    let root = fetched.with_context(|| {
        format!("cannot provide {program}: it is not on PATH (install it), and its packages can't be had")
    })?;
    Ok(Installation::unpacked(Origin::Packages(suite.to_owned()), &root))
}

/// What [`provision`] would use without fetching anything, or `None`. Creates nothing.
pub fn at_hand(kind: Kind) -> Result<Option<Installation>> {
    let suite = match choose(kind, None)? {
        Choice::Here(found) => return Ok(Some(found)),
        Choice::Suite(suite) => suite,
    };
    let packages = package_folder(kind, &suite)?;
    if packages.is_dir() {
        return complete(Installation::unpacked(Origin::Packages(suite), &packages), kind, &packages).map(Some);
    }
    let image = image_folder(kind)?;
    if image.is_dir() {
        let source = Origin::Image(package_of(kind).card().image.to_owned());
        return complete(Installation::unpacked(source, &image), kind, &image).map(Some);
    }
    Ok(None)
}

/// Gets hold of the programs of one version of a server, like [`provision`]. Only packages will do, since no other way lets one
/// choose. The error of an unknown version lists those that there are.
pub fn provision_version(kind: Kind, version: Option<&str>, progress: &dyn Fn(&str)) -> Result<Installation> {
    let suite = match choose(kind, version)? {
        Choice::Here(found) => return Ok(found),
        Choice::Suite(suite) => suite,
    };
    let no_packages = match from_packages(kind, &suite, progress) {
        Err(error) if version.is_none() => error,
        packages => return packages,
    };
    from_image(kind, progress).map_err(|no_image| {
        anyhow!(
            "cannot provide {kind}.\n  On this machine: {} not on PATH. Install it, or set {} to the URL of a server \
             of yours.\n  Packages: {no_packages:#}\n  Docker: {no_image:#}",
            package_of(kind).card().programs.join(", "),
            kind.env_var(),
        )
    })
}

/// The first way that is open.
enum Choice {
    /// What this machine has.
    Here(Installation),
    /// Packages of that suite.
    Suite(String),
}

fn choose(kind: Kind, version: Option<&str>) -> Result<Choice> {
    let card = package_of(kind).card();
    if let Some(version) = version {
        return Ok(Choice::Suite(suite_of(kind, version)?.to_owned()));
    }
    if let Some(suite) = env::var(kind.suite_variable()).ok().filter(|suite| !suite.is_empty()) {
        return Ok(Choice::Suite(suite));
    }
    let here = Installation::on_path(card.programs).map(Choice::Here);
    Ok(here.unwrap_or_else(|| Choice::Suite(card.suites[0].1.to_owned())))
}

/// The variable, and its value, by which test programs start that version where they ask for none.
pub fn setting_for(kind: Kind, version: &str) -> Result<(&'static str, &'static str)> {
    Ok((kind.suite_variable(), suite_of(kind, version)?))
}

fn package_folder(kind: Kind, suite: &str) -> Result<PathBuf> {
    Ok(store()?.join(suite).join(kind.name()))
}

fn image_folder(kind: Kind) -> Result<PathBuf> {
    Ok(store()?.join("docker").join(kind.name()))
}

fn suite_of(kind: Kind, version: &str) -> Result<&'static str> {
    let suites = package_of(kind).card().suites;
    let found = suites.iter().find(|(known, _)| *known == version).map(|(_, suite)| *suite);
    found.with_context(|| {
        let known: Vec<&str> = suites.iter().map(|(known, _)| *known).collect();
        format!("there are no packages of {kind} {version}; there are: {}", known.join(", "))
    })
}

fn from_packages(kind: Kind, suite: &str, progress: &dyn Fn(&str)) -> Result<Installation> {
    let told = |text: &str| progress(&format!("{kind}: {text}"));
    let backend = package_of(kind);
    let finish = |root: &Path| backend.finish(root);
    let folder = package_folder(kind, suite)?;
    let root = unpacked(&folder, suite, &backend.packages(suite), backend.programs(suite)[0], &told, &finish)?;
    refresh(&root, kind)?;
    complete(Installation::unpacked(Origin::Packages(suite.to_owned()), &root), kind, &root)
}

/// Packages in a folder, with the C library that the program needs if this machine's own won't do.
fn unpacked(
    folder: &Path,
    suite: &str,
    packages: &[&str],
    program: &str,
    told: &dyn Fn(&str),
    finish: &dyn Fn(&Path) -> Result<()>,
) -> Result<PathBuf> {
    // An edition lies in a folder of its own, and comes from the same suite.
    let suite = suite.split('+').next().unwrap_or(suite);
    once(folder, told, |folder| {
        let unpack = |packages: &[&str], into: &Path| apt::unpack(&store()?.join("apt"), suite, packages, into, told);
        unpack(packages, folder)?;
        finish(folder)?;
        if runs(folder, program) {
            return Ok(());
        }
        told("this machine's C library is another one than it needs");
        let own = folder.join(C_LIBRARY);
        fs::create_dir(&own)?;
        unpack(&["libc6"], &own)
    })
}

fn from_image(kind: Kind, progress: &dyn Fn(&str)) -> Result<Installation> {
    let card = package_of(kind).card();
    let told = |text: &str| progress(&format!("{kind}: {text}"));
    let root = image_folder(kind)?;
    if !root.exists() && !docker::answers() {
        bail!("`docker info` does not answer. Install Docker, start it, and see that this user may use it");
    }
    let root = once(&root, &told, |folder| {
        docker::unpack(card.image, folder, &told)?;
        package_of(kind).finish(folder)?;
        if !runs(folder, card.programs[0]) {
            // The image has its own, among its other libraries.
            std::os::unix::fs::symlink(".", folder.join(C_LIBRARY))?;
        }
        Ok(())
    })?;
    refresh(&root, kind)?;
    complete(Installation::unpacked(Origin::Image(card.image.to_owned()), &root), kind, &root)
}

/// Whether a program of an unpacked tree runs with this machine's own C library.
fn runs(root: &Path, program: &str) -> bool {
    let found = Installation::unpacked(Origin::Path, root).command(program);
    let said = found.and_then(|mut command| Ok(command.arg("--version").stdin(Stdio::null()).output()?));
    said.is_ok_and(|output| output.status.success())
}

/// Sees that everything is there before a test relies on it.
fn complete(found: Installation, kind: Kind, root: &Path) -> Result<Installation> {
    let programs = match found.source() {
        Origin::Packages(suite) => package_of(kind).programs(suite),
        _ => package_of(kind).card().programs,
    };
    for program in programs {
        if found.find(program).is_none() {
            bail!("{} have no `{program}`; remove {} to fetch them again", found.source(), root.display());
        }
    }
    Ok(found)
}

/// Fills a folder once for all: a process that finds it finds all of it, and of two at the same time one waits for the other.
fn once(folder: &Path, progress: &dyn Fn(&str), fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if folder.is_dir() {
        return Ok(folder.to_owned());
    }
    let parent = folder.parent().context("a folder in the store has a parent")?;
    let name = folder.file_name().context("a folder in the store has a name")?.to_string_lossy();
    fs::create_dir_all(parent)
        .with_context(|| format!("cannot write to {}; set {FOLDER} to a folder of yours", parent.display()))?;
    let lock = parent.join(format!(".{name}.lock"));
    let lock = File::create(&lock)
        .with_context(|| format!("cannot write to {}; set {FOLDER} to a folder of yours", parent.display()))?;
    if lock.try_lock().is_err() {
        progress("another process is fetching it");
        lock.lock()?;
    }
    if !folder.is_dir() {
        // The name of what an earlier process left half done. It is not at work any more: the lock is ours.
        let aside = parent.join(format!(".{name}.part"));
        if aside.exists() {
            fs::remove_dir_all(&aside)?;
        }
        fs::create_dir(&aside)?;
        fill(&aside)?;
        fs::rename(&aside, folder)?;
    }
    Ok(folder.to_owned())
}

/// Finishes a tree anew that an earlier version of the testbed has unpacked.
fn refresh(root: &Path, kind: Kind) -> Result<()> {
    let (backend, mark) = (package_of(kind), root.join(EDITION));
    let is_done = || fs::read_to_string(&mark).is_ok_and(|edition| edition == backend.edition());
    if is_done() {
        return Ok(());
    }
    let lock = File::create(root.join(".edition.lock"))?;
    lock.lock()?;
    if !is_done() {
        backend.finish(root)?;
        fs::write(&mark, backend.edition())?;
    }
    Ok(())
}

/// Where everything that is fetched goes: always the same place, however cargo was called.
fn store() -> Result<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER).filter(|folder| !folder.is_empty()) {
        return std::path::absolute(&folder).with_context(|| format!("{FOLDER} is no path"));
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    Ok(workspace.context("the crate is in a workspace")?.join("target/testbed"))
}
