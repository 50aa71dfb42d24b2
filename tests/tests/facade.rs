//! The facade: several drivers side by side in one program, and the registry's words when one is missing.

use std::time::Duration;

use tooz::{Characteristic, Characteristics, ConnectOptions, ErrorKind};

#[tokio::test]
async fn two_drivers_work_side_by_side_in_one_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = tooz::connect(&format!("file://{}", folder.path().display()), "one").await.unwrap();
    let memory = tooz::connect("memory://side-by-side", "one").await.unwrap();
    let (here, there) = (file.lock("x").unwrap(), memory.lock("x").unwrap());
    let held = here.acquire().await.unwrap();
    let other = there.try_acquire().await.unwrap().expect("another store, another lock");
    assert_ne!(file.driver().name(), memory.driver().name());
    held.release().await.unwrap();
    other.release().await.unwrap();
    file.close().await.unwrap();
    memory.close().await.unwrap();
}

#[tokio::test]
async fn an_unknown_scheme_is_told_with_what_is_linked_and_what_to_enable() {
    let linked = |scheme: &str| tooz::drivers().iter().any(|driver| driver.schemes().contains(&scheme));
    // Scheme and feature are of one name here; of those that are linked there is nothing to enable.
    for scheme in ["redis", "etcd", "zookeeper", "consul", "mysql", "memcached"].into_iter().filter(|one| !linked(one))
    {
        let error = tooz::connect(&format!("{scheme}://localhost"), "one").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("file") && text.contains("memory, "), "{text}");
        assert!(text.contains(&format!("feature {scheme:?}")), "{text}");
    }
    let error = tooz::connect("carrier-pigeon://coop", "one").await.unwrap_err().to_string();
    assert!(error.contains("my_driver") && error.contains("memory, "), "{error}");
}

#[tokio::test]
async fn what_is_required_and_missing_is_named() {
    let wanted = Characteristics::of(&[Characteristic::DistributedAcrossHosts, Characteristic::Groups]);
    let options = ConnectOptions::new("memory://require").unwrap().member("one").unwrap().require(wanted);
    let error = options.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("DistributedAcrossHosts"), "{error}");
    assert!(!error.to_string().contains("Groups"), "{error}");
}

#[test]
fn a_stuck_application_loses_its_session_when_it_asked_for_that() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (coordinator, guard) = runtime.block_on(async {
        let options = ConnectOptions::new("memory://stall").unwrap().member("one").unwrap();
        let options = options.session_timeout(Duration::from_secs(1)).stall_timeout(Duration::from_millis(200));
        let coordinator = options.connect().await.unwrap();
        let guard = coordinator.lock("x").unwrap().acquire().await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(guard.is_held(), "a runtime that runs keeps its session");
        (coordinator, guard)
    });
    // Nothing runs on the runtime now: that is what a dead lock looks like from the heart.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!guard.is_held());
    coordinator.close_blocking().unwrap();
}

#[test]
fn a_stuck_application_keeps_its_session_otherwise() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let guard = runtime.block_on(async {
        let options = ConnectOptions::new("memory://no-stall").unwrap().member("one").unwrap();
        let coordinator = options.session_timeout(Duration::from_millis(500)).connect().await.unwrap();
        coordinator.lock("x").unwrap().acquire().await.unwrap()
    });
    std::thread::sleep(Duration::from_millis(1500));
    assert!(guard.is_held(), "three timeouts with every worker of the runtime blocked");
}
