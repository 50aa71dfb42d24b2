//! What every driver must show, in a folder that is thrown away afterwards.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

// The linker keeps the driver only if something names it.
use tooz_file as _;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

fn url(tag: &str) -> String {
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::Builder::new().prefix("tooz-file-").tempdir();
        folder.expect("a temporary folder can be made").keep()
    });
    format!("file://{}?namespace={tag}", folder.display())
}

mod suite {
    tooz_conformance::suite!(tooz_conformance::Rig::new("file", super::url).across_processes().hides_waiters());

    pub(super) fn run() -> std::process::ExitCode {
        main()
    }
}

fn main() -> ExitCode {
    let code = suite::run();
    if let Some(folder) = FOLDER.get() {
        let _ = std::fs::remove_dir_all(folder);
    }
    code
}
