//! A fork without exec shares the parent's descriptions and has no heart: it owns nothing.

#![cfg(target_os = "linux")]

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use tooz::LossReason;

#[test]
fn a_forked_child_holds_nothing_and_frees_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    for url in [url.as_str(), "memory://fork"] {
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
}
