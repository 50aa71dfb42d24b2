//! However the process ends that started a server: the server ends too, and nothing is left behind. The process is this
//! program, run again. Ignored unless servers may be started.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tooz_testbed::{Kind, Provided, Server, for_tests};

/// Set in the process that is to end.
const VICTIM: &str = "TOOZ_TESTBED_VICTIM";

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    if let Ok(ending) = env::var(VICTIM) {
        victim(&ending);
        return ExitCode::SUCCESS;
    }
    let endings =
        ["returns", "exits", "panics", "is_killed", "hears_ctrl_c", "is_terminated", "is_killed_while_paused"];
    let trials = endings.map(|ending| trial(ending, move || end(ending)));
    let others = [trial("what_an_earlier_run_left_is_swept", what_an_earlier_run_left_is_swept)];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().chain(others).collect()).exit_code()
}

fn trial(name: &str, test: impl FnOnce() -> anyhow::Result<()> + Send + 'static) -> Trial {
    let (reason, ignored) = match for_tests(Kind::Redis) {
        Provided::MayStart => (String::new(), false),
        Provided::Own(_) => ("starts servers of its own: TOOZ_TESTBED=1".to_owned(), true),
        Provided::Missing(reason) => (reason, true),
    };
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:?}"))))
        .with_ignored_flag(ignored)
        .with_kind(reason)
}

/// Keeps its server where nothing drops it, as tests do that share one.
fn victim(ending: &str) {
    static SERVER: OnceLock<Server> = OnceLock::new();
    // A thread of its own, which is over when the server is in use: that must be no reason for its end.
    let server = thread::spawn(|| SERVER.get_or_init(|| Server::start(Kind::Redis).unwrap())).join().unwrap();
    if ending == "is_killed_while_paused" {
        server.pause().unwrap();
    }
    println!("{} {}", server.pid(), server.folder().display());
    std::io::stdout().flush().unwrap();
    // Goes on when it is told to.
    let _ = std::io::stdin().read(&mut [0]);
    match ending {
        "exits" => std::process::exit(3),
        "panics" => panic!("on purpose"),
        _ => {}
    }
}

fn end(ending: &str) -> anyhow::Result<()> {
    // A shell that starts the tests in the background may ignore SIGINT, and the victim would inherit that.
    let mut victim = Command::new("env")
        .arg("--default-signal")
        .arg(env::current_exe()?)
        .env(VICTIM, ending)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // What a terminal does with Ctrl-C is done to its group.
        .process_group(0)
        .spawn()?;
    let mut line = String::new();
    BufReader::new(victim.stdout.as_mut().unwrap()).read_line(&mut line)?;
    let (server, folder) = line.trim().split_once(' ').unwrap();
    let folder = PathBuf::from(folder);
    let run = folder.parent().unwrap();
    assert!(is_alive(server) && run.is_dir());
    let pid = Pid::from_raw(victim.id().cast_signed());
    match ending {
        "is_killed" | "is_killed_while_paused" => kill(pid, Signal::SIGKILL)?,
        "hears_ctrl_c" => killpg(pid, Signal::SIGINT)?,
        "is_terminated" => kill(pid, Signal::SIGTERM)?,
        _ => drop(victim.stdin.take()),
    }
    let began = Instant::now();
    victim.wait()?;
    while is_alive(server) || run.exists() {
        assert!(began.elapsed() < PATIENCE, "server alive: {}, folder there: {}", is_alive(server), run.exists());
        thread::sleep(Duration::from_millis(5));
    }
    eprintln!("{ending}: all gone after {:?}", began.elapsed());
    Ok(())
}

fn what_an_earlier_run_left_is_swept() -> anyhow::Result<()> {
    let old = env::temp_dir().join(format!("tooz-testbed-left-{}", std::process::id()));
    let new = env::temp_dir().join(format!("tooz-testbed-new-{}", std::process::id()));
    for folder in [&old, &new] {
        std::fs::create_dir(folder)?;
        std::fs::write(folder.join("lock"), "")?;
        std::fs::create_dir(folder.join("redis-1"))?;
    }
    // As if its keeper had been killed too.
    let mut left = Command::new("sleep").arg("60").current_dir(old.join("redis-1")).spawn()?;
    let aged = std::fs::File::open(&old)?;
    aged.set_modified(std::time::SystemTime::now() - Duration::from_mins(2))?;
    // The first server of a process sweeps, so it takes a new one.
    end("returns")?;
    assert!(!old.exists(), "no process has locked it");
    assert!(left.try_wait()?.is_some(), "its server is gone too");
    assert!(new.exists(), "it may be about to be locked");
    std::fs::remove_dir_all(&new)?;
    Ok(())
}

/// A zombie is not alive.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')))
}
