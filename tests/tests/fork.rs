//! A fork without exec shares the parent's descriptions and has no heart: it owns nothing.

#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tooz::LossReason;

#[test]
fn a_forked_child_holds_nothing_and_frees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    let shared = format!("ipc://fork-{}?size=1", std::process::id());
    for url in [url.as_str(), "memory://fork", &shared] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (coordinator, guard) = runtime.block_on(async {
            let coordinator = tooz::connect(url, "parent").await.unwrap();
            let guard = coordinator.lock("x").unwrap().acquire().await.unwrap();
            (coordinator, guard)
        });
        #[expect(unsafe_code, reason = "there is no safe fork; the child only looks, drops and leaves by _exit")]
        // SAFETY: the child takes no lock that another thread may hold: the heart sleeps, and nothing else runs.
        let forked = unsafe { fork() }.unwrap();
        match forked {
            ForkResult::Child => {
                let mut wrong = 0;
                wrong += i32::from(guard.is_held());
                wrong += 2 * i32::from(guard.loss().reason() != Some(LossReason::Forked));
                wrong += 4 * i32::from(coordinator.close_blocking().is_ok());
                drop(guard);
                drop(coordinator);
                #[expect(unsafe_code, reason = "the parent's exit handlers are not the child's to run")]
                // SAFETY: _exit takes no arguments that could be wrong.
                unsafe {
                    nix::libc::_exit(wrong)
                }
            }
            ForkResult::Parent { child } => {
                let status = waitpid(child, None).unwrap();
                assert!(matches!(status, WaitStatus::Exited(_, 0)), "{url}: {status:?}");
                assert!(guard.is_held(), "{url}");
                runtime.block_on(async {
                    let other = tooz::connect(url, "other").await.unwrap();
                    assert!(
                        other.lock("x").unwrap().try_acquire().await.unwrap().is_none(),
                        "{url}: the child freed it"
                    );
                    guard.release().await.unwrap();
                    other.lock("x").unwrap().acquire().await.unwrap().release().await.unwrap();
                });
            }
        }
    }
    let folder = format!("/dev/shm/tooz-{}/fork-{}", nix::unistd::Uid::effective(), std::process::id());
    std::fs::remove_dir_all(folder).unwrap();
}

/// In the parent other threads hold any of the locks, in the middle of any work; in the child no thread gives them back.
#[test]
fn a_child_of_a_busy_process_drops_everything_without_waiting() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (url, busy) = ("memory://fork-busy?session_timeout=300ms", Arc::new(AtomicBool::new(true)));
    let (coordinator, handles) = runtime.block_on(async {
        let coordinator = tooz::connect(url, "parent").await.unwrap();
        let group = coordinator.group("g").unwrap();
        let membership = group.join_or_create(&()).await.unwrap();
        let handles = (
            coordinator.lock("held").unwrap().acquire().await.unwrap(),
            coordinator.lock("shared").unwrap().shared().acquire().await.unwrap(),
            membership.campaign().await.unwrap(),
            group.watch().await.unwrap(),
            group.watch_leader().await.unwrap(),
            membership.partitioner().await.unwrap(),
            coordinator.events(),
            membership.loss(),
            membership,
        );
        (coordinator, handles)
    });
    for worker in 0..2 {
        let (coordinator, busy) = (coordinator.clone(), Arc::clone(&busy));
        runtime.spawn(async move {
            while busy.load(Ordering::Relaxed) {
                let lock = coordinator.lock(format!("busy-{worker}")).unwrap();
                drop(lock.shared().acquire().await.unwrap());
                drop((coordinator.events(), coordinator.group("g").unwrap().watch().await));
            }
        });
    }
    for _ in 0..200 {
        #[expect(unsafe_code, reason = "there is no safe fork; the child only drops and leaves by _exit")]
        // SAFETY: the child allocates by the system's allocator, which is made for that, and calls nothing that takes a lock which
        // another thread may hold: that is what is tried here.
        let forked = unsafe { fork() }.unwrap();
        let child = match forked {
            ForkResult::Child => {
                drop(handles);
                drop(coordinator);
                #[expect(unsafe_code, reason = "the parent's exit handlers are not the child's to run")]
                // SAFETY: _exit takes no arguments that could be wrong.
                unsafe {
                    nix::libc::_exit(0)
                }
            }
            ForkResult::Parent { child } => child,
        };
        let give_up = Instant::now() + Duration::from_secs(20);
        loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
                WaitStatus::StillAlive if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(1)),
                WaitStatus::StillAlive => {
                    kill(child, Signal::SIGKILL).unwrap();
                    panic!("the child hangs");
                }
                WaitStatus::Exited(_, 0) => break,
                other => panic!("{other:?}"),
            }
        }
    }
    busy.store(false, Ordering::Relaxed);
    assert!(handles.0.is_held() && handles.2.is_leader() && handles.8.is_member(), "the child freed something");
}
