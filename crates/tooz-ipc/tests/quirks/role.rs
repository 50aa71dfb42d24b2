//! What the processes do that the cases start: `URL MEMBER WHAT NAME …`.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Gid, Uid, fork, setgid, setgroups, setuid};
use tooz_core::LockGuard;

use crate::bed::{connect, forever, run, say};

pub(crate) fn play(words: &[String]) {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let [url, member, rest @ ..] = &words[..] else { panic!("{words:?}") };
    let rest = match rest {
        // As another user: its number, its group, and what its umask is.
        ["as", user, group, mask, rest @ ..] => {
            become_user(user, group, mask);
            rest
        }
        rest => rest,
    };
    run(act(url, member, rest));
}

fn become_user(user: &str, group: &str, mask: &str) {
    umask(Mode::from_bits_truncate(u32::from_str_radix(mask, 8).unwrap()));
    let group = Gid::from_raw(group.parse().unwrap());
    setgroups(&[group]).unwrap();
    setgid(group).unwrap();
    setuid(Uid::from_raw(user.parse().unwrap())).unwrap();
}

async fn act(url: &str, member: &str, words: &[&str]) {
    let [what, name, rest @ ..] = words else { panic!("{words:?}") };
    let ours = connect(url, member).await;
    let lock = ours.lock(*name).unwrap();
    match *what {
        "hold" => {
            let guard = lock.acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        // All that there is room for.
        "fill" => {
            let mut kept = Vec::new();
            while let Ok(guard) = ours.lock(format!("{name}-{}", kept.len())).unwrap().try_acquire().await {
                kept.push(guard.unwrap());
            }
            // A new lock needs several blocks: what is left are fewer.
            let (mut shared, lock) = (Vec::new(), ours.lock(format!("{name}-0")).unwrap());
            kept.remove(0).release().await.unwrap();
            while let Ok(guard) = lock.shared().try_acquire().await {
                shared.push(guard.unwrap());
            }
            say(kept.len() + 1);
            forever().await;
        }
        "share" => {
            let mut guards = Vec::new();
            for _ in 0..rest.first().map_or(1, |count| count.parse().unwrap()) {
                guards.push(lock.shared().acquire().await.unwrap());
            }
            say("shares");
            forever().await;
        }
        "wait" => {
            say("waits");
            let guard = lock.acquire().await.unwrap();
            say(guard.fencing_token());
            forever().await;
        }
        "try" => say(match lock.try_acquire().await {
            Ok(Some(_)) => "held".to_owned(),
            Ok(None) => "busy".to_owned(),
            Err(error) => format!("{} {error}", error.kind()),
        }),
        "join" => {
            let _membership = ours.group(*name).unwrap().join_or_create(&()).await.unwrap();
            say("joined");
            forever().await;
        }
        "lead" => {
            let membership = ours.group(*name).unwrap().join_or_create(&()).await.unwrap();
            let _leadership = membership.campaign().await.unwrap();
            say("leads");
            forever().await;
        }
        "watch" => {
            let mut watch = ours.group(*name).unwrap().watch().await.unwrap();
            while let Some(event) = watch.next().await {
                say(format!("{event:?}"));
            }
        }
        // The child goes on with all that the parent has open, and without its threads.
        "hold-and-fork" => {
            let _guard = lock.acquire().await.unwrap();
            #[expect(unsafe_code, reason = "there is no safe fork; the child only sleeps")]
            // SAFETY: the child takes no lock that another thread may hold.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => loop {
                    std::thread::sleep(Duration::from_mins(1));
                },
                ForkResult::Parent { child } => say(child),
            }
            forever().await;
        }
        "contend" => {
            say("ready");
            let until = Instant::now() + Duration::from_millis(rest[1].parse().unwrap());
            let mut turns = 0;
            while Instant::now() < until {
                let guard = lock.acquire().await.unwrap();
                alone(Path::new(rest[0]), &guard);
                guard.release().await.unwrap();
                turns += 1;
                if turns % 3 == 0 {
                    drop(lock.shared().acquire().await.unwrap());
                }
            }
            ours.close().await.unwrap();
            say(turns);
        }
        "doctor" => {
            for finding in ours.check_up().await.unwrap().findings {
                say(finding.what);
            }
        }
        other => panic!("no role {other}"),
    }
}

/// In the lock: a witness says who is in, a register knows the greatest token.
fn alone(folder: &Path, guard: &LockGuard) {
    let (witness, register) = (folder.join("witness"), folder.join("register"));
    if let Ok(other) = fs::read_to_string(&witness) {
        // Left by one that was killed in here; a living one would take it away itself.
        assert!(!is_alive(&other) || !witness.exists(), "process {other} is in here beside us");
    }
    let pid = std::process::id().to_string();
    // By renames, so that a process that is killed in the middle leaves nothing half written.
    fs::write(witness.with_extension(&pid), &pid).unwrap();
    fs::rename(witness.with_extension(&pid), &witness).unwrap();
    let last: u64 = fs::read_to_string(&register).ok().and_then(|token| token.parse().ok()).unwrap_or(0);
    assert!(guard.fencing_token().0 > last, "{} after {last}", guard.fencing_token());
    fs::write(register.with_extension(&pid), guard.fencing_token().to_string()).unwrap();
    fs::rename(register.with_extension(&pid), &register).unwrap();
    assert!(guard.is_held());
    assert_eq!(fs::read_to_string(&witness).unwrap(), pid);
    fs::remove_file(&witness).unwrap();
}

/// Whether it runs: a killed process is a zombie until its parent asks.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}
