//! The programs of one server, wherever they came from.

use std::env;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// Where the programs are in an unpacked package. Versioned servers have folders of their own, which are added.
const PROGRAM_FOLDERS: [&str; 5] = ["usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin"];

/// Where the libraries are in an unpacked package, below which there is one folder for the architecture.
const LIBRARY_FOLDERS: [&str; 2] = ["usr/lib", "lib"];

/// Where in an unpacked tree the C library is that goes with it. It is apart from the other libraries, which this machine's
/// own linker can use and that one not. Only trees that this machine's own C library is too old for have it.
pub(crate) const C_LIBRARY: &str = ".libc";

/// Where the programs of an [`Installation`] came from.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Origin {
    /// They are installed on this machine.
    Path,
    /// Debian packages of this suite, unpacked.
    Packages(String),
    /// An image of this name, unpacked.
    Image(String),
}

/// The programs of one server, ready to be run.
#[derive(Clone, Debug)]
pub struct Installation {
    source: Origin,
    programs: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
    /// The dynamic linker that goes with the libraries, where this machine's own doesn't.
    linker: Option<PathBuf>,
}

impl Installation {
    /// The programs of this machine, where all those that are needed are installed.
    pub(crate) fn on_path(needed: &[&str]) -> Option<Self> {
        let mut programs: Vec<PathBuf> = env::split_paths(&env::var_os("PATH")?).collect();
        // A plain user's PATH leaves out where some distributions put servers.
        programs.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        programs.extend(versioned_folders(Path::new("/")));
        let found = Installation { source: Origin::Path, programs, libraries: Vec::new(), linker: None };
        needed.iter().all(|program| found.find(program).is_some()).then_some(found)
    }

    /// Programs and their libraries that were unpacked into a folder.
    pub(crate) fn unpacked(source: Origin, root: &Path) -> Self {
        let mut programs: Vec<PathBuf> = PROGRAM_FOLDERS.iter().map(|folder| root.join(folder)).collect();
        programs.extend(versioned_folders(root));
        let mut libraries = library_folders(root);
        let of_c = library_folders(&root.join(C_LIBRARY));
        let linker = of_c.iter().find_map(|folder| {
            let mut files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            files.find(|file| file.file_name().to_string_lossy().starts_with("ld-linux")).map(|file| file.path())
        });
        if linker.is_some() {
            libraries.extend(of_c);
        }
        Installation { source, programs, libraries, linker }
    }

    /// Where the programs came from.
    pub fn source(&self) -> &Origin {
        &self.source
    }

    /// The path of one program.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        self.programs.iter().map(|folder| folder.join(program)).find(|path| is_executable(path))
    }

    /// The path of a library that programs load by themselves, in whichever folder of libraries it is.
    pub(crate) fn library(&self, name: &str) -> Option<PathBuf> {
        let system = || library_folders(Path::new("/"));
        let folders = if self.source == Origin::Path { system() } else { self.libraries.clone() };
        folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// A command that runs one of the programs with its libraries. The error names the program that is missing.
    pub fn command(&self, program: &str) -> Result<Command> {
        let Some(path) = self.find(program) else {
            bail!("there is no program `{program}` among those of {}", self.source)
        };
        // A path with a colon in it can't be said: the program will say what it misses.
        let join = |paths: Vec<PathBuf>| env::join_paths(paths).unwrap_or_default();
        let mut paths = self.libraries.clone();
        if let Some(linker) = &self.linker {
            let mut command = if is_script(&path) {
                // It names the linker itself, and the libraries are none for a shell.
                Command::new(path)
            } else {
                let mut command = Command::new(linker);
                command.arg("--library-path").arg(join(paths)).arg(path);
                command
            };
            without_settings(&mut command);
            return Ok(command);
        }
        let mut command = Command::new(path);
        without_settings(&mut command);
        if !paths.is_empty() {
            paths.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
            command.env("LD_LIBRARY_PATH", join(paths));
        }
        Ok(command)
    }
}

/// Settings that a user's environment may have for servers and their tools, by the beginnings of their names. They are meant for the user's own.
const SETTINGS: [&str; 7] = ["ETCD_", "ETCDCTL_", "PG", "REDISCLI_", "OPENSSL_CONF", "MYSQL_", "MARIADB_"];

/// Keeps such settings from a program.
fn without_settings(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if SETTINGS.iter().any(|start| name.to_string_lossy().starts_with(start)) {
            command.env_remove(name);
        }
    }
}

/// The folders with programs of servers that Debian lets be there in several versions, the newest first.
pub(crate) fn versioned_folders(root: &Path) -> Vec<PathBuf> {
    let versions = std::fs::read_dir(root.join("usr/lib/postgresql")).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort_by(|one, other| other.cmp(one));
    folders
}

/// The folders with libraries in an unpacked tree. Their name is the architecture's: `x86_64-linux-gnu`, say.
fn library_folders(root: &Path) -> Vec<PathBuf> {
    let inside = |folder: &&str| std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let all = LIBRARY_FOLDERS.iter().flat_map(inside).map(|entry| entry.path());
    all.filter(|path| path.is_dir() && path.to_string_lossy().contains("-linux-gnu")).collect()
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Path => formatter.write_str("this machine (PATH)"),
            Origin::Packages(suite) => write!(formatter, "the packages of Debian {suite}"),
            Origin::Image(image) => write!(formatter, "the image {image}"),
        }
    }
}

/// Whether that is a script, which no linker runs.
fn is_script(path: &Path) -> bool {
    let mut start = [0; 2];
    File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok_and(|()| start == *b"#!")
}

/// Whether this can be run, as far as the file says.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
