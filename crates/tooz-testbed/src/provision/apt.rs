//! Debian packages: fetched and checked by the system's own client, unpacked, never installed.
//!
//! The client gets folders of its own for everything it writes. What it takes from this machine is which mirror to ask,
//! through which proxy, and which keys to trust.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The variable that names another mirror.
const MIRROR: &str = "TOOZ_TESTBED_MIRROR";

/// The keys of Debian, where the machine has them as a package. Elsewhere the client's own trusted keys have to do.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What a package depends on is not all needed just to run its programs: all its libraries are, whether this machine has them or not. Only the C
/// library is not, since this machine's own loader goes with this machine's own; nor is what configures an installed system.
fn is_needed(package: &str, asked: &[&str]) -> bool {
    let of_this_machine = ["libc6", "libc-bin", "libpam-", "libdebconf", "libperl"];
    let library = package.starts_with("lib") || package.starts_with("lua-");
    asked.contains(&package) || (library && !of_this_machine.iter().any(|name| package.starts_with(name)))
}

/// Fetches packages of a suite, with the libraries that they need, and unpacks them into the folder.
pub(crate) fn unpack(
    base: &Path,
    suite: &str,
    packages: &[&str],
    folder: &Path,
    progress: &dyn Fn(&str),
) -> Result<()> {
    for tool in ["apt-get", "apt-config", "dpkg-deb"] {
        let known = Command::new(tool).arg("--version").stdin(Stdio::null()).output();
        known.with_context(|| format!("there is no `{tool}`; packages can be fetched on Debian and its like only"))?;
    }
    let client = AptClient::new(base, suite)?;
    // Lists of packages are shared by all servers of a suite, and the client would fail on another process's lock.
    let lock = File::create(base.join(suite).join("lock"))?;
    lock.lock()?;
    progress(&format!("reading what Debian {suite} has"));
    AptClient::run(client.apt_get().args(["-qq", "update"]))?;

    let names = client.closure(packages)?;
    let archives = folder.join(".archives");
    fs::create_dir(&archives)?;
    progress(&format!("fetching {} packages of Debian {suite}", names.len()));
    client.download(&names, &archives, progress)?;
    let mut archives_there: Vec<PathBuf> = fs::read_dir(&archives)?.flatten().map(|entry| entry.path()).collect();
    archives_there.sort();
    if archives_there.len() != names.len() {
        bail!("the package client fetched {} of {} packages and did not say why", archives_there.len(), names.len());
    }
    for archive in &archives_there {
        progress(&format!("unpacking {}", archive.file_name().unwrap_or_default().display()));
        AptClient::run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder))?;
    }
    fs::remove_dir_all(&archives)?;
    fs::write(folder.join(".packages"), names.join("\n") + "\n")?;
    retarget(folder, folder)
}

/// The package client with folders of its own.
struct AptClient {
    configuration: PathBuf,
}

impl AptClient {
    fn new(base: &Path, suite: &str) -> Result<Self> {
        let folder = base.join(suite);
        for inner in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        // Nothing counts as installed: which packages are fetched is then the same on every machine.
        fs::write(folder.join("status"), "")?;
        let keyring = if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        fs::write(folder.join("sources.list"), format!("deb {keyring}{} {suite} main\n", mirror()?))?;
        let configuration = folder.join("apt.conf");
        fs::write(&configuration, configure(&folder, &network_settings()?))?;
        Ok(AptClient { configuration })
    }

    fn apt_get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.env("APT_CONFIG", &self.configuration).env("LC_ALL", "C");
        command
    }

    /// Runs a command to its end. The error holds what it had to say.
    fn run(command: &mut Command) -> Result<String> {
        let output = command.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} failed:\n{}", command.get_program().display(), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The packages and the libraries that they need, each as `name=version`.
    fn closure(&self, packages: &[&str]) -> Result<Vec<String>> {
        let listed = AptClient::run(self.apt_get().args(["install", "--print-uris", "-qq", "-y"]).args(packages))?;
        // 'URI' file size hash
        let files = listed.lines().filter_map(|line| line.split_whitespace().nth(1));
        let mut names = Vec::new();
        for file in files {
            let mut parts = file.split('_');
            let (Some(name), Some(version)) = (parts.next(), parts.next()) else {
                bail!("the package client speaks of a file {file}, which is not named like a package")
            };
            if is_needed(name, packages) {
                names.push(format!("{name}={}", version.replace("%3a", ":")));
            }
        }
        Ok(names)
    }

    fn download(&self, names: &[String], folder: &Path, progress: &dyn Fn(&str)) -> Result<()> {
        let mut command = self.apt_get();
        command.args(["-qq", "-o", "APT::Status-Fd=1", "download"]).args(names).current_dir(folder);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let status = child.stdout.take().context("the client's output is piped")?;
        let mut last = String::new();
        for line in BufReader::new(status).lines() {
            // dlstatus:1:23.5:Retrieving file 1 of 9 (4s remaining)
            let mut parts = line?.splitn(4, ':').map(str::to_owned).collect::<Vec<_>>().into_iter();
            if parts.next().as_deref() == Some("dlstatus")
                && let Some(percent) = parts.nth(1)
            {
                let text = format!("fetching {} packages: {}%", names.len(), percent.split('.').next().unwrap_or("0"));
                if text != last {
                    progress(&text);
                    last = text;
                }
            }
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("apt-get download failed:\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }
}

/// The client's settings. It must not read this machine's, which may run hooks and which names this machine's folders.
/// What a mirror has kept for longer than the archive meant it to is signed none the less.
fn configure(folder: &Path, network: &str) -> String {
    let folder = folder.display();
    format!(
        r#"Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::Log "{folder}/log";
APT::Sandbox::User "";
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::Check-Valid-Until "false";
APT::Update::Error-Mode "any";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
{network}"#
    )
}

/// What this machine's client says about how to reach the network: proxies and the like.
fn network_settings() -> Result<String> {
    let dump = Command::new("apt-config").arg("dump").stdin(Stdio::null()).output().context("cannot run apt-config")?;
    let dump = String::from_utf8_lossy(&dump.stdout);
    let wanted = ["Acquire::http", "Acquire::ForceIPv"];
    let lines = dump.lines().filter(|line| wanted.iter().any(|start| line.starts_with(start)));
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}

/// The mirror of Debian's archive that this machine uses.
fn mirror() -> Result<String> {
    if let Some(mirror) = std::env::var(MIRROR).ok().filter(|mirror| !mirror.is_empty()) {
        return Ok(mirror);
    }
    let sources = Command::new("apt-get")
        .args(["indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"])
        .stdin(Stdio::null())
        .output()
        .context("cannot run apt-get")?;
    let found = archive_among(&String::from_utf8_lossy(&sources.stdout)).map(str::to_owned);
    found.with_context(|| {
        format!(
            "this machine's package sources name no mirror of Debian's main archive. Set {MIRROR} to the address of \
             one, and install the package debian-archive-keyring"
        )
    })
}

/// The first source that is the archive itself, as opposed to its updates, its security fixes, and other people's.
fn archive_among(sources: &str) -> Option<&str> {
    sources.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (uri, release, component) = (words.next()?, words.next()?, words.next()?);
        let archive = uri.trim_end_matches('/').ends_with("/debian") && component == "main" && !release.contains('-');
        archive.then_some(uri)
    })
}

/// Links to absolute paths mean a place in the installed system. Those to what was unpacked must lead there instead.
fn retarget(root: &Path, folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            retarget(root, &path)?;
        } else if entry.file_type()?.is_symlink() {
            let target = fs::read_link(&path)?;
            let Ok(inside) = target.strip_prefix("/") else { continue };
            if fs::symlink_metadata(root.join(inside)).is_ok() {
                // Relative, since the whole tree is renamed once it is complete.
                let depth = path.strip_prefix(root)?.components().count() - 1;
                let up: PathBuf = std::iter::repeat_n("..", depth).collect();
                fs::remove_file(&path)?;
                std::os::unix::fs::symlink(up.join(inside), &path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_told_from_its_updates_and_from_others() {
        let sources = "http://one.test/debian-security/ bookworm-security main\n\
                       http://two.test/tools cloud-sdk main\n\
                       http://three.test/debian/ bookworm-updates main\n\
                       http://three.test/debian/ bookworm main\n";
        assert_eq!(archive_among(sources), Some("http://three.test/debian/"));
        assert_eq!(archive_among("http://four.test/ubuntu/ noble main"), None);
    }

    #[test]
    fn libraries_come_along_and_what_only_an_installation_needs_does_not() {
        let asked = ["redis-server"];
        assert!(is_needed("redis-server", &asked) && is_needed("libssl3", &asked) && is_needed("lua-cjson", &asked));
        assert!(is_needed("libgcc-s1", &asked) && is_needed("libpam0g", &asked) && is_needed("libcrypt1", &asked));
        assert!(!is_needed("adduser", &asked) && !is_needed("libc6", &asked) && !is_needed("perl-base", &asked));
        assert!(!is_needed("libpam-runtime", &asked) && !is_needed("libpam-modules-bin", &asked));
    }

    #[test]
    fn absolute_links_lead_into_the_tree_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("tree/usr/lib");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("real"), "here").unwrap();
        std::os::unix::fs::symlink("/usr/lib/real", inner.join("link")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", inner.join("outside")).unwrap();
        retarget(&root.path().join("tree"), &root.path().join("tree")).unwrap();
        fs::rename(root.path().join("tree"), root.path().join("elsewhere")).unwrap();
        let moved = root.path().join("elsewhere/usr/lib");
        assert_eq!(fs::read_to_string(moved.join("link")).unwrap(), "here");
        assert_eq!(fs::read_link(moved.join("outside")).unwrap(), Path::new("/nowhere/at/all"));
    }
}
