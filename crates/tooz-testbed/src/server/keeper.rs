//! The folder of all servers of this process, and the watcher that clears up after the process, however it ends.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

/// The start of the name of every run's folder.
const PREFIX: &str = "tooz-testbed-";

/// A run whose folder is younger may be just about to lock it.
const TOO_YOUNG_TO_JUDGE: Duration = Duration::from_mins(1);

/// Waits for the end of the process that holds the other end of its standard input, by whatever death: that end is
/// closed by the kernel. Then it kills what has its working folder in the run's folder, which only servers of this run
/// have, so that no process id is ever trusted that may have become another process's; and removes the folder.
///
/// `cd` and `kill` are built into the shell: looking at some hundred processes takes some milliseconds. A disk that is mounted there is none of
/// the run's folder, and would keep it.
const KEEPER: &str = r#"
trap '' HUP INT TERM
cat > /dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    for process in /proc/[0-9]*; do
        [ "$process" = "/proc/$$" ] && continue
        cd -P "$process/cwd" 2> /dev/null || continue
        case $PWD in "$1"/*) kill -9 "${process#/proc/}" ;; esac
    done
    cd /
    while read -r _ disk _; do
        case $disk in "$1"/*) umount -l "$disk" ;; esac
    done < /proc/mounts
    rm -rf "$1" && [ ! -e "$1" ] && exit
    sleep 0.1
done
"#;

/// What this process has for its servers.
struct Run {
    folder: PathBuf,
    /// Locked for as long as the process lives: by this, later runs know that the folder is in use.
    _lock: File,
    /// Its standard input is kept open by being kept here.
    _keeper: Child,
}

static RUN: OnceLock<Result<Run, String>> = OnceLock::new();

/// A new folder for one server, which no other user can look into.
pub(crate) fn new_folder(name: &str) -> Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(1);
    let run = RUN.get_or_init(|| Run::begin().map_err(|error| format!("{error:#}")));
    let run = run.as_ref().map_err(|error| anyhow!("{error}"))?;
    let folder = run.folder.join(format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    private_folder(&folder)?;
    Ok(folder)
}

/// Makes a folder of mode 700, as etcd wants its own to be. A disk that is there already has that mode.
pub(crate) fn private_folder(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(folder);
    made.with_context(|| format!("cannot make the folder {}", folder.display()))
}

impl Run {
    fn begin() -> Result<Self> {
        let place = std::env::temp_dir();
        // What was left behind by a run whose keeper was killed too.
        sweep(&place);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&place);
        let folder = folder.with_context(|| format!("cannot make a folder in {}", place.display()))?.keep();
        // The keeper compares with paths out of the kernel, which know no links.
        let folder = folder.canonicalize()?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock().context("cannot lock the run's folder")?;
        let keeper = keeper(&folder).stdin(Stdio::piped()).spawn();
        let keeper = keeper.context("cannot start `sh`, which clears up after the servers")?;
        Ok(Run { folder, _lock: lock, _keeper: keeper })
    }
}

/// The watcher of a run, which works once its standard input ends.
fn keeper(folder: &Path) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", KEEPER, "tooz-testbed-keeper"])
        .arg(folder)
        // Not those of this process: their reader waits until all have closed them.
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .current_dir("/")
        // Ctrl-C goes to the terminal's whole group; the keeper's work begins after that.
        .process_group(0);
    command
}

/// Removes the folders of runs that have ended.
fn sweep(place: &Path) {
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX) && is_own(&entry.path());
        if ours && is_left_behind(&entry.path()) {
            // A keeper with no run to wait for. Nothing depends on its success: another run may be sweeping too.
            let _ = keeper(&entry.path()).stdin(Stdio::null()).status();
        }
    }
}

/// Whether it belongs to the user of this process, and is no link.
fn is_own(folder: &Path) -> bool {
    let owner = |path: &Path| fs::symlink_metadata(path).ok().filter(fs::Metadata::is_dir).map(|data| data.uid());
    owner(folder).is_some_and(|uid| owner(Path::new("/proc/self/fd")) == Some(uid))
}

fn is_left_behind(folder: &Path) -> bool {
    let age = fs::symlink_metadata(folder).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
    if age.is_none_or(|age| age < TOO_YOUNG_TO_JUDGE) {
        return false;
    }
    // The lock of a living process can't be had. Without the file the run died before it had anything to keep.
    match File::open(folder.join("lock")) {
        Ok(lock) => lock.try_lock().is_ok(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}
