//! Each example does what its first lines say, as the program that a reader would start.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long anything may take on a machine with much else to do.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running example, killed with the value.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    fn start(name: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(path(name))
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("example {name} is not built: {error}"));
        let lines = lines_of(child.stdout.take().unwrap());
        Example { child, lines }
    }

    /// Reads on until a line has those words in it.
    fn says(&self, words: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it has not said {words:?}"));
            if line.contains(words) {
                return line;
            }
        }
    }

    fn terminate(&self) {
        self.signal("-TERM");
    }

    fn interrupt(&self) {
        self.signal("-INT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn ends_well(mut self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds examples beside the tests.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    profile.join("examples").join(name)
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// A folder for the embedded driver, gone with the value, and its URL.
fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display());
    (folder, url)
}

#[test]
fn the_job_runs_once() {
    let (_folder, url) = folder();
    let first = Example::start("singleton_job", &[&url]);
    first.says("running under token");
    let second = Example::start("singleton_job", &[&url]);
    second.says("the job runs elsewhere");
    second.ends_well();
    first.says("done");
    first.ends_well();
}

#[test]
fn a_leader_that_is_told_to_end_hands_over() {
    let (_folder, url) = folder();
    let first = Example::start("leader", &[&url]);
    first.says("leading in epoch");
    let second = Example::start("leader", &[&url]);
    second.says("waiting to be elected");
    first.terminate();
    first.says("handed over");
    first.ends_well();
    second.says("leading in epoch");
    second.terminate();
    second.ends_well();
}

#[test]
fn workers_share_out_all_keys_and_take_over_those_of_one_that_leaves() {
    let (_folder, url) = folder();
    let keys = |line: &str| line.split(' ').skip(1).count();
    let lasting = Example::start("sharded_worker", &[&url, "60"]);
    assert_eq!(keys(&lasting.says("mine:")), 12);
    let leaving = Example::start("sharded_worker", &[&url, "60"]);
    let left_to_the_first = keys(&lasting.says("mine:"));
    assert!(left_to_the_first < 12, "the second has none");
    leaving.interrupt();
    leaving.ends_well();
    while keys(&lasting.says("mine:")) < 12 {}
}

#[test]
fn a_late_write_is_refused_by_its_token() {
    let example = Example::start("fenced_writes", &[]);
    example.says("the register has 1, the 10 of the second writer are lost");
    example.says("the register has 10, the late write was refused");
    example.ends_well();
}

#[test]
fn a_rolling_restart_has_one_away_at_a_time() {
    let (_folder, url) = folder();
    let example = Example::start("rolling_restart", &[&url]);
    example.says("all are restarted");
    example.ends_well();
}

#[test]
fn a_service_ends_at_sigterm_and_the_next_has_its_lock() {
    let (_folder, url) = folder();
    let first = Example::start("sigterm", &[&url]);
    first.says("serving under token");
    let second = Example::start("sigterm", &[&url]);
    first.terminate();
    first.says("gone");
    first.ends_well();
    second.says("serving under token");
    second.terminate();
    second.ends_well();
}

#[cfg(feature = "metrics")]
#[test]
fn figures_are_served_and_the_dashboard_draws_no_others() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let listen = format!("127.0.0.1:{port}");
    let example = Example::start("metrics", &["memory://metrics", &listen]);
    example.says("figures at");
    let begun = Instant::now();
    let page = loop {
        let page = fetch(&listen);
        if page.contains("tooz_hold_seconds_bucket") {
            break page;
        }
        assert!(begun.elapsed() < PATIENCE, "no figures: {page}");
        std::thread::sleep(Duration::from_millis(200));
    };
    check_exposition(&page);
    assert!(page.contains("lock=\"examples-metrics\"") && page.contains("driver=\"memory\""), "{page}");
    let guide = include_str!("../docs/metrics.md");
    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../examples/grafana-dashboard.json")).unwrap();
    let expressions =
        dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    for expression in expressions.map(|target| target["expr"].as_str().unwrap()) {
        let words = expression.split(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
        for word in words.filter(|word| word.starts_with("tooz_")) {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(
                guide.contains(&format!("`{name}`")),
                "the dashboard draws {name}, of which the guide does not tell"
            );
        }
    }
}

#[cfg(feature = "metrics")]
fn fetch(address: &str) -> String {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    let mut page = String::new();
    if let Ok(mut stream) = TcpStream::connect(address) {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(request.as_bytes());
        let _ = stream.read_to_string(&mut page);
    }
    page
}

/// What a checker of Prometheus' text format asks: each series has a type and words, counters end with `_total`, times are in seconds.
#[cfg(feature = "metrics")]
fn check_exposition(page: &str) {
    let types: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE tooz_")).collect();
    assert!(types.len() >= 8, "{page}");
    for line in types {
        let (name, kind) = line.split_once(' ').unwrap();
        assert!(page.contains(&format!("# HELP tooz_{name} ")), "{name} has no words");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} is a {kind}");
        assert!(kind != "histogram" || name.ends_with("_seconds"), "{name} is a {kind}");
    }
}
