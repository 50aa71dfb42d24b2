//! What the cases share: their names in shared memory, and the processes that they start of this program.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use tooz_core::{ConnectOptions, Coordinator};
use tooz_ipc as _;

/// The trials of these names, each with a name of its own in shared memory.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            vec![$(libtest_mimic::Trial::test(stringify!($name), || {
                let _turn = tooz_conformance::turn::take(stringify!($name), tooz_conformance::turn::Beside::Others);
                crate::bed::run($name(crate::bed::Name::new()));
                Ok(())
            })),*]
        }
    };
}
pub(crate) use trials;

/// What this process was started for with `--role`, in place of trials.
pub(crate) fn role() -> Option<Vec<String>> {
    let mut arguments = std::env::args().skip(1);
    (arguments.next().as_deref() == Some("--role")).then(|| arguments.collect())
}

pub(crate) fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it takes too long")
}

pub(crate) async fn forever() {
    std::future::pending::<()>().await;
}

pub(crate) fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

pub(crate) async fn connect(url: &str, member: &str) -> Coordinator {
    ConnectOptions::new(url).unwrap().member(member).unwrap().connect().await.unwrap()
}

/// The name of one case. Nothing is there before the driver makes it.
pub(crate) struct Name(pub(crate) String);

impl Name {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        Name(format!("quirks-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn url(&self) -> String {
        format!("ipc://{}?size=2", self.0)
    }

    /// The folder of its one namespace.
    pub(crate) fn root(&self) -> PathBuf {
        self.base().join("tooz")
    }

    pub(crate) fn base(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/tooz-{}", Uid::effective())).join(&self.0)
    }

    pub(crate) fn table(&self) -> PathBuf {
        self.root().join("table")
    }

    /// As if the process of that slot had been stopped in the middle of a change: the word that says whose the table is names it.
    pub(crate) fn own_by_slot(&self, slot: u64) {
        let file = File::options().read(true).write(true).open(self.table()).unwrap();
        let word = || {
            let mut word = [0; 8];
            file.read_exact_at(&mut word, 64).unwrap();
            u64::from_ne_bytes(word)
        };
        // A session that was just inside takes what is written away with its own.
        while word() & 0xffff != slot + 1 {
            if word().trailing_zeros() >= 16 {
                file.write_all_at(&(word() | (slot + 1)).to_ne_bytes(), 64).unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes zeros over so many bytes of the table.
    pub(crate) fn write_zeros(&self, from: usize, bytes: usize) {
        let file = File::options().write(true).open(self.table()).unwrap();
        file.write_all_at(&vec![0; bytes], from as u64).unwrap();
    }

    pub(crate) async fn connect(&self, member: &str) -> Coordinator {
        connect(&self.url(), member).await
    }

    pub(crate) fn start(&self, words: &[&str]) -> Started {
        self.start_as("other", words)
    }

    pub(crate) fn start_as(&self, member: &str, words: &[&str]) -> Started {
        let program = std::env::current_exe().unwrap();
        let url = self.url();
        let mut command = Command::new(program);
        command.args(["--role", url.as_str(), member]).args(words);
        Started::new(command)
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        for folder in [self.base(), PathBuf::from("/dev/shm/tooz-all").join(&self.0)] {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

/// A process that goes with the case.
pub(crate) struct Started {
    pub(crate) child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Started {
    pub(crate) fn new(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Started { child, lines }
    }

    /// What it says next.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
