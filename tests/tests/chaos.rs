//! A short run of chaos with a fixed seed on each backend, and its report in a real browser where there is one.
//!
//! Trial `redis::chaos::…` needs a server, as `cargo xtask itest redis` provides it; those of backends without a server always run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use serde_json::Value;
use tooz_conformance::turn::{self, Beside};
use tooz_testbed::{Kind, for_tests};

const CHAOS: &str = env!("CARGO_BIN_EXE_chaos");

/// The same in each run, so that a failure is of the code and not of the seed.
const SEED: &str = "2026";

/// Browsers that can be told to open a page and end.
const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];

fn main() {
    let arguments = Arguments::from_args();
    let servers = Kind::ALL.iter().map(|kind| (kind.name(), for_tests(*kind).why_none_to_break(*kind)));
    let embedded = ["file", "ipc", "memory"].map(|name| (name, None));
    let mut trials: Vec<_> = servers.chain(embedded).map(|(backend, why_not)| short_run(backend, why_not)).collect();
    trials.push(Trial::test("memory::chaos::known_bugs_are_convicted", known_bugs));
    trials.push(report_trial());
    libtest_mimic::run(&arguments, trials).exit();
}

fn short_run(backend: &'static str, why_not: Option<String>) -> Trial {
    let name = format!("{backend}::chaos::a_short_run_keeps_every_promise");
    let kind = why_not.clone().unwrap_or_default();
    let is_ignored = why_not.is_some();
    let taken = name.clone();
    let trial = Trial::ignorable_test(name, move || {
        if let Some(reason) = why_not {
            return Ok(Completion::ignored_with(reason));
        }
        let _turn = turn::take(&taken, Beside::Others);
        run_short(backend, &folder()).map(|()| Completion::Completed)
    });
    trial.with_kind(kind).with_ignored_flag(is_ignored)
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos")
}

fn run_short(backend: &str, folder: &Path) -> Result<(), Failed> {
    let mut command = Command::new(CHAOS);
    command.args([backend, "--seconds", "4", "--seed", SEED, "--workers", "3", "--folder"]).arg(folder);
    expect(&command.output()?, true)
}

fn expect(output: &Output, success: bool) -> Result<(), Failed> {
    if output.status.success() == success {
        return Ok(());
    }
    let said = [&output.stderr[..], &output.stdout[..]].map(|text| String::from_utf8_lossy(text).into_owned());
    Err(format!("it ended with {}:\n{}", output.status, said.concat()).into())
}

/// Of locks, of tokens, of groups, of lists: at the same time, each in a process of its own.
fn known_bugs() -> Result<(), Failed> {
    let running = ["GrantsEarly", "TokensStandStill", "SwallowsALeave", "ListsHoldersAsWaiters", "CreatesTwice"]
        .map(|bug| std::thread::spawn(move || convict(bug)));
    for one in running {
        one.join().map_err(|_| "a run can't be started")??;
    }
    Ok(())
}

/// How long each run lasts: on a machine with much else to do little happens in a short one, and nothing wrong.
const SECONDS: [&str; 4] = ["3", "6", "12", "24"];

fn convict(bug: &str) -> Result<(), Failed> {
    let mut said = String::new();
    for seconds in SECONDS {
        let mut command = Command::new(CHAOS);
        command.args(["memory", "--seconds", seconds, "--seed", SEED, "--bug", bug, "--folder"]);
        let output = command.arg(folder().join(bug)).output()?;
        said = [&output.stdout[..], &output.stderr[..]].map(|text| String::from_utf8_lossy(text).into_owned()).concat();
        if !output.status.success() {
            return if said.contains("WRONG: ") { Ok(()) } else { Err(said.into()) };
        }
    }
    Err(format!("{bug} is not convicted: {said}").into())
}

/// Whatever the machine has, the report is tried: the trial's name says how.
fn report_trial() -> Trial {
    let browser = browser();
    let how = if browser.is_some() { "in_a_browser" } else { "by_parsing_since_no_chromium_is_here" };
    Trial::test(format!("report::shows_what_is_wrong_{how}"), move || {
        let folder = folder().join("report");
        run_short("memory", &folder)?;
        let json = folder.join(format!("memory-{SEED}/report.json"));
        look_at(&folder, browser.as_deref(), false)?;
        spoil(&json)?;
        let judged = Command::new(CHAOS).arg("--judge").arg(&json).arg("--folder").arg(&folder).output()?;
        expect(&judged, false)?;
        look_at(&folder, browser.as_deref(), true)
    })
}

/// Gives a token twice: that is no history of ours.
fn spoil(json: &Path) -> Result<(), Failed> {
    let mut report: Value = serde_json::from_slice(&std::fs::read(json)?)?;
    let attempts = report["history"]["attempts"].as_array_mut().ok_or("a history has attempts")?;
    let granted = attempts.iter().find(|attempt| attempt["answer"]["Granted"].is_object());
    let granted = granted.ok_or("one attempt was granted at least")?.clone();
    attempts.push(granted);
    Ok(std::fs::write(json, serde_json::to_vec(&report)?)?)
}

fn look_at(folder: &Path, browser: Option<&Path>, wrong: bool) -> Result<(), Failed> {
    let page = folder.join(format!("memory-{SEED}/index.html"));
    let text = std::fs::read_to_string(&page)?;
    needs_nothing_else(&text)?;
    says(&text, wrong)?;
    match browser {
        Some(browser) => opens(browser, &page, wrong),
        None => Ok(()),
    }
}

/// It is one file, and asks no network.
fn needs_nothing_else(page: &str) -> Result<(), Failed> {
    let strange = ["<link", " src=", "@import", "https://", "fetch("].into_iter().find(|word| page.contains(word));
    strange.map_or(Ok(()), |word| Err(format!("the page has {word:?}").into()))
}

fn says(page: &str, wrong: bool) -> Result<(), Failed> {
    const BEGIN: &str = "<script type=\"application/json\" id=\"data\">";
    let data =
        page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once("</script>")).ok_or("the page has no data")?;
    let data: Value = serde_json::from_str(data.0)?;
    let violations = data["violations"].as_array().ok_or("the data have no violations")?;
    if data["good"] == Value::Bool(wrong) || violations.is_empty() == wrong {
        return Err(format!("the page says {} and {violations:?}", data["good"]).into());
    }
    if data["locks"].as_array().is_none_or(Vec::is_empty) {
        return Err("the page shows no attempt".into());
    }
    Ok(())
}

/// The page has drawn itself: bars, and where a law was broken.
fn opens(browser: &Path, page: &Path, wrong: bool) -> Result<(), Failed> {
    let profile = tempfile::tempdir()?;
    let output = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()?;
    let page = String::from_utf8_lossy(&output.stdout).into_owned();
    let has_drawn = page.contains("data-ready=\"yes\"") && !page.contains("data-bars=\"0\"");
    let shows_wrong = page.contains("class=\"violation\"");
    if !has_drawn || shows_wrong != wrong {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("drawn: {has_drawn}, what is wrong is shown: {shows_wrong}\n{said}").into());
    }
    Ok(())
}

fn browser() -> Option<PathBuf> {
    let folders: Vec<_> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    let named = BROWSERS.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    named.into_iter().find(|path| path.is_file())
}
