//! What the cases share: their folders, and the processes that they start of the test program itself.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use tooz_conformance::turn;
use tooz_core::{ConnectOptions, Coordinator, LockGuard, MemberId, SessionEvent};
use tooz_file as _;

/// The trials of these names, each with a folder of its own.
macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(libtest_mimic::Trial::test(stringify!($name), || {
            let _turn = tooz_conformance::turn::take(stringify!($name), tooz_conformance::turn::Beside::Others);
            let folder = tempfile::Builder::new().prefix("tooz-file-").tempdir().map_err(libtest_mimic::Failed::from)?;
            crate::common::run($name(crate::common::Folder(folder.path().join("tooz"))));
            Ok(())
        })),*]
    };
}
pub(crate) use trials;

pub(crate) fn main(trials: Vec<Trial>) -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    if let Some(user) = arguments.next_if(|first| first.starts_with("--as=")) {
        become_user(&user["--as=".len()..]);
    }
    if arguments.next().as_deref() == Some("--role") {
        let given: Vec<String> = arguments.collect();
        let given: Vec<&str> = given.iter().map(String::as_str).collect();
        run(role(&given));
        return ExitCode::SUCCESS;
    }
    libtest_mimic::run(&Arguments::from_args(), turn::in_order(trials, &[])).exit_code()
}

/// `UID:GID:GROUPS:UMASK`, as root may.
fn become_user(words: &str) {
    use nix::sys::stat::{Mode, umask};
    use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
    let parts: Vec<_> = words.split(':').collect();
    umask(Mode::from_bits_truncate(u32::from_str_radix(parts[3], 8).unwrap()));
    if parts[0] == "0" {
        return;
    }
    let groups: Vec<_> = parts[2].split(',').filter_map(|id| id.parse().ok()).map(Gid::from_raw).collect();
    setgroups(&groups).unwrap();
    setgid(Gid::from_raw(parts[1].parse().unwrap())).unwrap();
    setuid(Uid::from_raw(parts[0].parse().unwrap())).unwrap();
}

/// What the processes do that the cases start of this program: `[url, member, what, name, …]`.
#[expect(clippy::too_many_lines, reason = "one paragraph for each role")]
pub(crate) async fn role(arguments: &[&str]) {
    let [url, member, what, name, rest @ ..] = arguments else { panic!("{arguments:?}") };
    let ours = ConnectOptions::new(url).unwrap().member(*member).unwrap().connect().await.unwrap();
    match *what {
        "hold" => {
            let guard = ours.lock(*name).unwrap().acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        "hold-with-heir" => {
            let _guard = ours.lock(*name).unwrap().acquire().await.unwrap();
            let descriptors = ours.descriptors();
            // Standard streams are what a child inherits without more ado: two descriptions, the session's and the lock's.
            let mut descriptors = descriptors.into_iter();
            let mut heir = Command::new("sleep");
            heir.arg("60").stdin(descriptors.next().unwrap()).stderr(descriptors.next().unwrap()).stdout(Stdio::null());
            say(heir.spawn().unwrap().id());
            forever().await;
        }
        "join" => {
            let _membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            say("joined");
            forever().await;
        }
        "lead" => {
            let membership = ours.group(*name).unwrap().join(&()).await.unwrap();
            let _leadership = membership.campaign().await.unwrap();
            say("leading");
            forever().await;
        }
        "give-up" => {
            let lock = ours.lock(*name).unwrap();
            let mut threads = Vec::new();
            for _ in 0..2 {
                for _ in 0..20 {
                    assert!(lock.acquire_within(Duration::from_millis(3)).await.unwrap().is_none());
                }
                threads.push(waiting_threads().to_string());
            }
            say(threads.join(" "));
        }
        "contend" => {
            say("ready");
            let rounds: u32 = rest[0].parse().unwrap();
            let folder = PathBuf::from(url.strip_prefix("file://").unwrap().split('?').next().unwrap());
            for _ in 0..rounds {
                let guard = ours.lock(*name).unwrap().acquire().await.unwrap();
                alone(&folder, &guard).await;
                guard.release().await.unwrap();
            }
            ours.close().await.unwrap();
        }
        // Says what came of each thing that it is told to do.
        "do" => {
            let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
            for word in rest {
                say(outcome(&ours, word, name, &mut kept).await);
            }
            if rest.last() != Some(&"close") {
                forever().await;
            }
        }
        "watch" => {
            let mut watch = ours.group(*name).unwrap().watch().await.unwrap();
            while let Some(event) = watch.next().await {
                say(format!("{event:?}").split(['(', '{']).next().unwrap_or_default());
            }
        }
        "idle" => {
            let mut kept = Vec::new();
            for number in 0..rest[0].parse().unwrap() {
                let membership = ours.group(format!("{name}{number}")).unwrap().join_or_create(&()).await.unwrap();
                kept.push((membership, ours.lock(format!("{name}{number}")).unwrap().acquire().await.unwrap()));
            }
            // Folders that changed just now are looked at once more.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let before = processor_time();
            tokio::time::sleep(Duration::from_secs(4)).await;
            say((processor_time().saturating_sub(before) / 4).as_micros());
            drop(kept);
        }
        "few-files" => {
            use nix::sys::resource::{Resource, setrlimit};
            let limit: u64 = rest[0].parse().unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, limit.min(64), limit).unwrap();
            let mut kept = Vec::new();
            let error = loop {
                match ours.lock(format!("{name}{}", kept.len())).unwrap().try_acquire().await {
                    Ok(guard) => kept.push(guard.unwrap()),
                    Err(error) => break error,
                }
            };
            let others: Vec<_> = (0..24).map_while(|_| fs::File::open("/proc/self/stat").ok()).collect();
            let word = if error.to_string().contains("ulimit") { "ulimit" } else { "no cure" };
            let said = format!("{} with {word}, {} left", error.kind(), others.len());
            kept.pop().unwrap().release().await.unwrap();
            ours.lock(format!("{name}0")).unwrap().holders().await.unwrap();
            let again = ours.lock(format!("{name}{}", kept.len())).unwrap().try_acquire().await.unwrap().is_some();
            say(format!("{said}, and {}", if again { "again" } else { "never again" }));
        }
        "more-than-files" => {
            use nix::sys::resource::{Resource, setrlimit};
            let limit: u64 = rest[0].parse().unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, limit, limit).unwrap();
            let mut events = ours.events();
            let (granted, mut grants) = tokio::sync::mpsc::unbounded_channel();
            for one in 0..limit + 100 {
                let (lock, granted) = (ours.lock(format!("{name}{one}")).unwrap(), granted.clone());
                tokio::spawn(async move { granted.send(lock.acquire().await.unwrap()) });
            }
            let mut troubles = 0;
            while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(2), events.next()).await {
                troubles += usize::from(matches!(event, SessionEvent::Troubled(_)));
            }
            let lock = ours.lock(format!("{name}-more")).unwrap();
            let tried = lock.try_acquire().await.unwrap_err().kind();
            let waited = lock.acquire_within(Duration::from_secs(1)).await.unwrap_err().kind();
            // Core repeats a join until the operation timeout is over.
            let joined = ours.group("g").unwrap().join_or_create(&()).await.is_ok();
            say(format!("{troubles} told; {tried}, {waited}, joined: {joined}"));
            // All are served as files are closed.
            for _ in 0..limit + 100 {
                grants.recv().await.unwrap().release().await.unwrap();
            }
            say("all served");
        }
        "share" => {
            let lock = ours.lock(*name).unwrap().shared();
            let mut kept = Vec::new();
            let mut took = Vec::new();
            let count: usize = rest[0].parse().unwrap();
            while kept.len() < count {
                let began = Instant::now();
                for _ in 0..900 {
                    kept.push(lock.try_acquire().await.unwrap().expect("it is shared"));
                }
                took.push(began.elapsed().as_secs_f64());
            }
            let began = Instant::now();
            assert_eq!(ours.lock(*name).unwrap().holders().await.unwrap().len(), count);
            say(format!("{:.3} {:.3} {:.3}", took[0], took[took.len() - 1], began.elapsed().as_secs_f64()));
        }
        other => panic!("no role {other}"),
    }
}

/// One thing done with the lock or group of that name; what is got is kept.
async fn outcome(ours: &Coordinator, word: &str, name: &str, kept: &mut Vec<Box<dyn std::any::Any>>) -> String {
    let group = ours.group(name).unwrap();
    let lock = ours.lock(name).unwrap();
    let done = match word {
        "lock" => lock.try_acquire().await.map(|guard| match guard {
            Some(guard) => {
                kept.push(Box::new(guard));
                "held".to_owned()
            }
            None => "busy".to_owned(),
        }),
        "holders" => lock.holders().await.map(|holders| holders.len().to_string()),
        "join" => group.join_or_create(&()).await.map(|membership| {
            kept.push(Box::new(membership));
            "joined".to_owned()
        }),
        "members" => group
            .members()
            .await
            .map(|members| members.iter().map(|entry| entry.member.to_string()).collect::<Vec<_>>().join(",")),
        "groups" => {
            ours.groups().await.map(|groups| groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        }
        "delete" => group.delete().await.map(|()| "deleted".to_owned()),
        "close" => ours.close().await.map(|()| "closed".to_owned()),
        // Whatever a file's own name may be.
        path => {
            Ok(read_lock(Path::new(path)).map_or_else(|error| error.kind().to_string(), |()| "read-locked".to_owned()))
        }
    };
    done.unwrap_or_else(|error| format!("{} {error}", error.kind()))
}

/// Takes a read lock on the whole file, as each user may that can open it, and keeps it.
fn read_lock(path: &Path) -> std::io::Result<()> {
    use nix::fcntl::{FcntlArg, fcntl};
    let file = fs::File::open(path)?;
    let all = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_RDLCK).unwrap(),
        l_whence: i16::try_from(nix::libc::SEEK_SET).unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_OFD_SETLK(&all))?;
    std::mem::forget(file);
    Ok(())
}

/// In the lock: a witness says who is in, a register knows the greatest token.
pub(crate) async fn alone(folder: &Path, guard: &LockGuard) {
    let (witness, register) = (folder.join("witness"), folder.join("register"));
    if let Ok(other) = fs::read_to_string(&witness) {
        // Left by one that was killed in here, or that is just dying; a living one would take it away itself.
        let until = Instant::now() + Duration::from_secs(5);
        while is_alive(&other) {
            assert!(witness.exists(), "process {other} was in here beside us");
            assert!(Instant::now() < until, "process {other} is in here beside us");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    // By a rename, so that a process that is killed in the middle of it leaves no witness without a name.
    let pid = std::process::id().to_string();
    fs::write(witness.with_extension(&pid), &pid).unwrap();
    fs::rename(witness.with_extension(&pid), &witness).unwrap();
    let last: u64 = fs::read_to_string(&register).ok().and_then(|token| token.parse().ok()).unwrap_or(0);
    assert!(guard.fencing_token().0 > last, "{} after {last}", guard.fencing_token());
    // By a rename, so that a process that is killed leaves the old or the new token.
    fs::write(register.with_extension("new"), guard.fencing_token().to_string()).unwrap();
    fs::rename(register.with_extension("new"), &register).unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(guard.is_held());
    assert_eq!(fs::read_to_string(&witness).unwrap(), pid);
    fs::remove_file(&witness).unwrap();
}

/// What this process has used of processors so far.
fn processor_time() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::from_micros(u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap())
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// Whether it runs: a killed process is a zombie until its parent asks.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

pub(crate) fn waiting_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.trim() == "tooz-file-wait").count()
}

pub(crate) async fn take(of: &Coordinator) -> u64 {
    let guard = of.lock("x").unwrap().acquire().await.unwrap();
    let token = guard.fencing_token().0;
    guard.release().await.unwrap();
    token
}

pub(crate) async fn forever() {
    std::future::pending::<()>().await;
}

pub(crate) fn say(what: impl std::fmt::Display) {
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it takes too long")
}

pub(crate) fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

/// The folder of one case. It is not made before the driver makes it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn url(&self) -> String {
        format!("file://{}?session_timeout=1s", self.0.display())
    }

    pub(crate) async fn try_connect(&self, member: &str) -> tooz_core::Result<Coordinator> {
        ConnectOptions::new(&self.url())?.member(member.parse::<MemberId>()?)?.connect().await
    }

    pub(crate) async fn connect(&self, member: &str) -> Coordinator {
        self.try_connect(member).await.unwrap()
    }

    pub(crate) fn start(&self, role: &[&str]) -> Process {
        self.start_as("other", role)
    }

    pub(crate) fn start_as(&self, member: &str, role: &[&str]) -> Process {
        self.start_as_user(None, member, role)
    }

    /// As another user, `UID:GID:GROUPS:UMASK`. Only root can.
    pub(crate) fn start_as_user(&self, user: Option<&str>, member: &str, role: &[&str]) -> Process {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(user.map(|user| format!("--as={user}")));
        command.args(["--role", &self.url(), member]).args(role).stdin(Stdio::null()).stdout(Stdio::piped());
        Process::of(command.spawn().unwrap())
    }
}

/// A process that was started of this program; killed at the end at the latest.
pub(crate) struct Process {
    pub(crate) child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    pub(crate) fn of(mut child: Child) -> Self {
        let output = BufReader::new(child.stdout.take().unwrap());
        Process { child, output }
    }

    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child.id().to_string(), name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args(["-s", name, pid]).status().unwrap().success());
}
