//! `tooz doctor` where there is no server: what it says, how it ends, and that it leaves nothing behind.

mod shared;

use shared::{Bench, Running, until};

/// The lines of a report as pairs of what it is about and the verdict.
fn verdicts(report: &str) -> Vec<(&str, &str)> {
    let cells = report.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    cells.map(|cells| (cells[1], cells[0])).collect()
}

#[test]
fn all_is_well_in_a_folder() {
    let bench = Bench::new();
    let done = bench.run(["doctor"]);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""), "{done:?}");
    let expected = [
        ("server", "good"),
        // For whom it is made, on what it lies, how changes are told, how many files may be open.
        ("setting", "good"),
        ("setting", "good"),
        ("setting", "good"),
        ("setting", "good"),
        ("session", "good"),
        ("round trip, read", "good"),
        ("round trip, write", "good"),
        ("lock and release", "good"),
        ("lock", "good"),
        ("hand-over", "good"),
        ("shared lock", "good"),
        ("broken lock", "not claimed"),
        ("group", "good"),
        ("election", "good"),
        ("partition", "good"),
    ];
    assert_eq!(verdicts(&done.out), expected, "{}", done.out);
    assert_eq!(bench.run(["groups"]).out, "");
    assert_eq!(bench.run(["holders", "tooz-doctor-0"]).out, "");
}

#[test]
fn json_has_the_figures() {
    let bench = Bench::new();
    let done = bench.run(["--json", "--url", "memory:?session_timeout=4s", "doctor", "--member", "me"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let report: serde_json::Value = serde_json::from_str(&done.out).unwrap();
    assert_eq!(report["verdict"], "good");
    assert_eq!(report["driver"], "memory");
    assert_eq!(report["member"], "me");
    assert_eq!(report["session"]["timeout_ms"], 4000);
    assert_eq!(report["session"]["margin_ms"], 400);
    assert!(report["measured"]["lock_and_release"]["count"].as_u64().unwrap() >= 1, "{report}");
    assert_eq!(report["measured"]["hand_over"]["p99_us"], serde_json::Value::Null, "ten are too few for it");
    assert!(report["measured"]["break_told_us"].is_u64(), "{report}");
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().all(|check| check["verdict"] == "good" && check["mend"].is_null()), "{report}");
}

#[test]
fn several_at_once_do_not_disturb_each_other() {
    let bench = Bench::new();
    let mut doctors: Vec<Running> = (0..4).map(|_| bench.start(["doctor", "--strict"])).collect();
    for doctor in &mut doctors {
        assert_eq!(doctor.code(), Some(0));
    }
    assert_eq!(bench.run(["groups"]).out, "");
}

#[test]
fn what_a_killed_one_left_does_not_matter() {
    let bench = Bench::new();
    assert_eq!(bench.run(["group", "create", "tooz-doctor-0"]).code, Some(0));
    assert_eq!(bench.run(["doctor"]).code, Some(0));
    assert_eq!(bench.run(["groups"]).out, "");
}

#[test]
fn an_interrupted_one_takes_its_things_away() {
    let bench = Bench::new();
    // The trials wait for this one, who leads their group.
    let mut stranger = bench.start(["elect", "tooz-doctor-0", "--", "sh", "-c", "touch leads; exec sleep 60"]);
    until("somebody leads", || bench.path("leads").exists());
    let mut doctor = bench.start(["doctor"]);
    until("it is at work", || bench.run(["holders", "tooz-doctor-0"]).out.contains("exclusive"));
    doctor.signal("INT");
    assert_eq!(doctor.code(), Some(130));
    assert_eq!(bench.run(["holders", "tooz-doctor-0"]).out, "");
    stranger.signal("TERM");
    assert_eq!(stranger.code(), Some(143));
}

#[test]
fn something_wrong_is_told_with_what_to_do() {
    let bench = Bench::new();
    // Every place is taken, so nothing can be tried.
    let script = "touch in-$TOOZ_LOCK; exec sleep 60";
    let names: Vec<String> = (0..16).map(|place| format!("tooz-doctor-{place}")).collect();
    let _holders: Vec<Running> =
        names.iter().map(|name| bench.start(["lock", name, "--", "sh", "-c", script])).collect();
    until("all are held", || names.iter().all(|name| bench.path(&format!("in-{name}")).exists()));
    let done = bench.run(["doctor"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    let untroubled = verdicts(&done.out).into_iter().filter(|verdict| *verdict != ("setting", "good"));
    assert_eq!(untroubled.collect::<Vec<_>>(), [("server", "good"), ("lock", "wrong")]);
    assert!(done.out.contains("tooz holders tooz-doctor-0"), "{done:?}");
    assert_eq!(shared::without_times(&done.err), "tooz: found wrong: 1, warnings: 0\n");
}

#[test]
fn no_connection_is_an_error_of_its_own() {
    let bench = Bench::new();
    let file = bench.path("not-a-folder");
    std::fs::write(&file, "").unwrap();
    let url = format!("file://{}", file.display());
    let done = bench.run(["--url", &url, "doctor"]);
    assert_eq!((done.code, done.out.as_str()), (Some(64), ""), "{done:?}");
    assert_eq!(done.err.lines().count(), 1, "{done:?}");
}
