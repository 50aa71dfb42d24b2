//! ZooKeeper: where it comes from.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Result;

use crate::provision::installation::Installation;
use crate::provision::jar;
use crate::provision::package::{Card, Package};

pub(crate) const PROGRAM: &str = "zkServer.sh";
pub(crate) const CLIENT: &str = "zkCli.sh";

/// What stands in for ZooKeeper's own `zkServer.sh` and `zkCli.sh`, which are not among the packages with the program. It takes
/// the same arguments, as far as they are used here.
const SCRIPT: &str = include_str!("zookeeper.sh");

/// The Java archives that it names to Java, by the beginnings of their names.
const ARCHIVES: &[&str] = &["zookeeper", "slf4j", "metrics", "snappy", "commons-cli", "netty"];

pub(crate) struct ZooKeeper;

static CARD: Card = Card {
    programs: &[PROGRAM, CLIENT],
    packages: &[
        "libzookeeper-java",
        "libslf4j-java",
        "libdropwizard-metrics-java",
        "libnetty-java",
        "libsnappy-java",
        "libcommons-cli-java",
    ],
    // The older one first: a Java of a newer suite does not run where the C library is older.
    suites: &[("3.8", "bookworm"), ("3.9", "trixie")],
    image: "zookeeper:3.9",
};

impl Package for ZooKeeper {
    fn card(&self) -> &'static Card {
        &CARD
    }

    fn packages(&self, suite: &str) -> Vec<&'static str> {
        let mut packages = CARD.packages.to_vec();
        if !has_java() {
            packages.push(if suite == "bookworm" { "openjdk-17-jre-headless" } else { "openjdk-21-jre-headless" });
        }
        packages
    }

    fn finish(&self, root: &Path) -> Result<()> {
        let folder = root.join("usr/bin");
        fs::create_dir_all(&folder)?;
        for name in [PROGRAM, CLIENT] {
            // A process that runs the old one goes on with it.
            let (script, aside) = (folder.join(name), folder.join(format!(".{name}.part")));
            fs::write(&aside, SCRIPT)?;
            fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
            fs::rename(aside, script)?;
        }
        let of_image = fs::read_dir(root)?.flatten().map(|entry| entry.path());
        let of_image =
            of_image.filter(|path| path.to_string_lossy().contains("apache-zookeeper-")).map(|path| path.join("lib"));
        for archives in of_image.chain([root.join("usr/share/java")]).filter(|folder| folder.is_dir()) {
            jar::stand_alone(&archives, ARCHIVES)?;
        }
        Ok(())
    }

    fn edition(&self) -> &'static str {
        "2"
    }
}

fn has_java() -> bool {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| Installation::on_path(&["java"]).and_then(|found| found.find("java"))).is_some()
}
