//! What other programs, and other versions, have put where the table should be.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use tooz_core::ErrorKind;

use crate::bed::{Name, trials, within};

trials![
    a_table_of_another_layout_is_refused,
    a_file_of_another_program_is_refused_and_stays,
    a_garbled_table_is_told_without_a_panic,
    zeros_in_a_table_are_no_free_lock,
    a_table_with_all_its_slots_taken_says_so,
];

async fn error_of(name: &Name) -> tooz_core::Error {
    let ours = name.connect("late").await;
    let error = ours.lock("x").unwrap().try_acquire().await.unwrap_err();
    let looked = ours.lock("x").unwrap().holders().await.unwrap_err();
    assert_eq!((error.kind(), error.outcome()), (looked.kind(), tooz_core::Outcome::NotApplied), "{error}");
    error
}

async fn a_table_of_another_layout_is_refused(name: Name) {
    name.connect("first").await.group("g").unwrap().create().await.unwrap();
    let file = File::options().write(true).open(name.table()).unwrap();
    file.write_all_at(&99_u64.to_ne_bytes(), 8).unwrap();
    let error = error_of(&name).await;
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("layout 99") && error.to_string().contains("layout 2"), "{error}");
}

async fn a_file_of_another_program_is_refused_and_stays(name: Name) {
    fs::create_dir_all(name.root()).unwrap();
    fs::set_permissions(name.base().parent().unwrap(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for content in [&b""[..], b"x", &[7; 5000], b"tooz-ipc"] {
        fs::write(name.table(), content).unwrap();
        let error = error_of(&name).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(name.table().to_str().unwrap()), "{error}");
        assert_eq!(fs::read(name.table()).unwrap(), content);
    }
    fs::remove_file(name.table()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", name.table()).unwrap();
    assert_eq!(error_of(&name).await.kind(), ErrorKind::Config);
}

async fn a_garbled_table_is_told_without_a_panic(name: Name) {
    let first = name.connect("first").await;
    let _guard = first.lock("x").unwrap().acquire().await.unwrap();
    let file = File::options().write(true).open(name.table()).unwrap();
    let length = file.metadata().unwrap().len();
    // All but the header.
    file.write_all_at(&vec![0xff; usize::try_from(length).unwrap() - 128], 128).unwrap();
    let late = name.connect("late").await;
    let error = late.lock("x").unwrap().try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let waited = within(late.lock("x").unwrap().acquire()).await.unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::Config, "a wait ends, too: {waited}");
    assert!(error.to_string().contains("spoiled") && error.to_string().contains("delete it"), "{error}");
    let checkup = late.check_up().await;
    assert!(checkup.is_err() || checkup.unwrap().findings.iter().any(|finding| finding.what.contains("spoiled")));
    fs::remove_file(name.table()).unwrap();
    assert!(late.lock("x").unwrap().try_acquire().await.unwrap().is_some());
}

/// Where the names are looked up, and where the locks are.
async fn zeros_in_a_table_are_no_free_lock(name: Name) {
    const BUCKETS: usize = (16 + 2 * 128 + 8 * 4096) * 8;
    const BLOCKS: usize = BUCKETS + 4096 * 8;
    for (from, bytes) in [(BUCKETS, BLOCKS - BUCKETS), (BLOCKS, 4096)] {
        let first = name.connect("first").await;
        let _guard = first.lock("x").unwrap().acquire().await.unwrap();
        let late = name.connect("late").await;
        assert!(late.lock("x").unwrap().try_acquire().await.unwrap().is_none());
        name.write_zeros(from, bytes);
        let error = late.lock("x").unwrap().try_acquire().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains("spoiled"), "{error}");
        let checkup = late.check_up().await.unwrap();
        assert!(checkup.findings.iter().any(|finding| finding.what.contains("spoiled")), "{checkup:?}");
        fs::remove_file(name.table()).unwrap();
    }
}

async fn a_table_with_all_its_slots_taken_says_so(name: Name) {
    name.connect("first").await.group("g").unwrap().create().await.unwrap();
    // As many sessions as there can be, all of one description.
    let file = File::options().read(true).write(true).open(name.table()).unwrap();
    let all = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap(),
        l_start: 1 << 40,
        l_len: 0,
        l_pid: 0,
    };
    let taken = async || fcntl(&file, FcntlArg::F_OFD_SETLK(&all)).is_ok();
    while !taken().await {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let error = error_of(&name).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("4096 sessions"), "{error}");
    drop(file);
    // A process that another case is just starting has it for a moment, too.
    drop(within(name.connect("late").await.lock("x").unwrap().acquire()).await.unwrap());
}
