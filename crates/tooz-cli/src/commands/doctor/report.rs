//! What the doctor found: one entry for each thing that was looked at, printed as a table, as lines or as JSON.

use std::cell::Cell;
use std::io::{IsTerminal, stdout};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tooz::driver::Verdict;
use tooz::{Checkup, Error, ErrorKind};

use crate::output;

/// All entries, in the order in which they were found.
#[derive(Default)]
pub(super) struct Report {
    entries: Vec<Entry>,
    /// What was measured, for machines.
    measured: Map<String, Value>,
}

struct Entry {
    about: &'static str,
    outcome: Assessment,
    what: String,
    mend: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Assessment {
    /// The driver does not claim to do it.
    NotClaimed,
    Judged(Verdict),
}

impl Assessment {
    const fn name(self) -> &'static str {
        match self {
            Assessment::NotClaimed => "not claimed",
            Assessment::Judged(verdict) => name(verdict),
        }
    }
}

/// A verdict in a word, the same for people and for machines.
const fn name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "good",
        Verdict::Warning => "warning",
        Verdict::Wrong => "wrong",
    }
}

/// What a trial that ended well has to tell.
pub(super) struct TrialSuccess {
    what: String,
    measured: Option<(&'static str, Value)>,
}

impl TrialSuccess {
    pub(super) fn new(what: impl Into<String>) -> Self {
        TrialSuccess { what: what.into(), measured: None }
    }

    /// Adds a figure under its name.
    pub(super) fn measured(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.measured = Some((name, value.into()));
        self
    }
}

/// Why a trial did not end well.
pub(super) struct TrialFailure {
    pub(super) what: String,
    pub(super) mend: String,
}

impl TrialFailure {
    /// Something answered otherwise than tooz promises: a bug in a driver, or a server that is not the one it seems to be.
    pub(super) fn broken_promise(what: impl Into<String>) -> Self {
        let mend =
            "make sure that the URL leads every client to the same server; if it does, please report this as a bug";
        TrialFailure { what: what.into(), mend: mend.to_owned() }
    }

    fn too_slow(doing: &str, patience: Duration) -> Self {
        TrialFailure {
            what: format!("{doing}: not within {}", humantime::format_duration(patience)),
            mend: "look at the server's log and load and at the network between".to_owned(),
        }
    }
}

impl From<Error> for TrialFailure {
    fn from(error: Error) -> Self {
        let mend = match error.kind() {
            ErrorKind::Config => "do as the message says",
            ErrorKind::Unauthorized => "give this user the permission at the server",
            ErrorKind::Unavailable | ErrorKind::TimedOut => {
                "do as the message says, if it is the server's own word; else look at the server's log and load and at the network between, \
                 or raise operation_timeout in the URL"
            }
            ErrorKind::Lost => {
                "look at the server's log for why it ended the session, or raise session_timeout in the URL"
            }
            _ => "look at the server's log; if that does not explain it, please report this as a bug",
        };
        TrialFailure { what: error.to_string(), mend: mend.to_owned() }
    }
}

/// What a trial is doing right now, to be told if that takes too long.
pub(super) struct Doing(Cell<&'static str>);

impl Doing {
    pub(super) fn new() -> Self {
        Doing(Cell::new("beginning"))
    }

    pub(super) fn is(&self, doing: &'static str) {
        self.0.set(doing);
    }
}

impl Report {
    /// Enters what is as it should be.
    pub(super) fn good(&mut self, about: &'static str, what: impl Into<String>) {
        self.add(about, Verdict::Good, what, "");
    }

    /// Enters a verdict and how to mend what is bad.
    pub(super) fn add(
        &mut self,
        about: &'static str,
        verdict: Verdict,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        self.entries.push(Entry { about, outcome: Assessment::Judged(verdict), what: what.into(), mend: mend.into() });
    }

    /// Enters what the driver found by itself.
    pub(super) fn findings(&mut self, about: &'static str, checkup: &Checkup) {
        for finding in &checkup.findings {
            self.add(about, finding.verdict, &finding.what, &finding.mend);
        }
    }

    /// Enters what was not tried, because the driver does not promise it.
    pub(super) fn not_claimed(&mut self, about: &'static str) {
        let what = "not promised by this driver, so it was not tried".to_owned();
        self.entries.push(Entry { about, outcome: Assessment::NotClaimed, what, mend: String::new() });
    }

    /// Keeps a figure under its name.
    pub(super) fn measured(&mut self, name: &str, value: Value) {
        self.measured.insert(name.to_owned(), value);
    }

    /// Runs a trial and enters what came of it.
    pub(super) async fn trial(
        &mut self,
        about: &'static str,
        patience: Duration,
        doing: &Doing,
        trial: impl Future<Output = Result<TrialSuccess, TrialFailure>>,
    ) {
        let result = match tokio::time::timeout(patience, trial).await {
            Ok(result) => result,
            Err(_) => Err(TrialFailure::too_slow(doing.0.get(), patience)),
        };
        match result {
            Ok(TrialSuccess { what, measured }) => {
                self.good(about, what);
                if let Some((name, value)) = measured {
                    self.measured(name, value);
                }
            }
            Err(trouble) => self.trouble(about, Verdict::Wrong, trouble),
        }
    }

    /// Enters what went wrong, and how bad that is.
    pub(super) fn trouble(&mut self, about: &'static str, verdict: Verdict, trouble: TrialFailure) {
        self.add(about, verdict, trouble.what, trouble.mend);
    }

    /// How many entries have that verdict.
    pub(super) fn count(&self, verdict: Verdict) -> usize {
        self.entries.iter().filter(|entry| entry.outcome == Assessment::Judged(verdict)).count()
    }

    /// The worst of all.
    fn verdict(&self) -> Verdict {
        let judged = self.entries.iter().filter_map(|entry| match entry.outcome {
            Assessment::Judged(verdict) => Some(verdict),
            Assessment::NotClaimed => None,
        });
        judged.max().unwrap_or(Verdict::Good)
    }

    /// Prints it for people; where a table is not seen, each entry is a line with what to do in its last cell.
    pub(super) fn print(&self) -> std::io::Result<()> {
        if !stdout().is_terminal() {
            return output::rows(&[], self.entries.iter().map(Entry::row).collect());
        }
        let found = self.entries.iter().map(|entry| entry.row()[..3].to_vec());
        output::rows(&["verdict", "about", "found"], found.collect())?;
        for entry in self.entries.iter().filter(|entry| !entry.mend.is_empty()) {
            output::line(format_args!("\n{}: {}", entry.about, entry.what))?;
            output::line(format_args!("  to mend it: {}", entry.mend))?;
        }
        Ok(())
    }

    /// The whole as JSON, after `head`, which says what was examined.
    pub(super) fn json(&self, head: Vec<(&str, Value)>) -> Value {
        let mut object = Map::new();
        object.insert("verdict".to_owned(), name(self.verdict()).into());
        object.extend(head.into_iter().map(|(name, value)| (name.to_owned(), value)));
        object.insert("measured".to_owned(), Value::Object(self.measured.clone()));
        object.insert("checks".to_owned(), self.entries.iter().map(Entry::json).collect());
        Value::Object(object)
    }
}

impl Entry {
    fn row(&self) -> Vec<String> {
        vec![self.outcome.name().to_owned(), self.about.to_owned(), self.what.clone(), self.mend.clone()]
    }

    fn json(&self) -> Value {
        let mend = if self.mend.is_empty() { Value::Null } else { self.mend.as_str().into() };
        json!({ "about": self.about, "verdict": self.outcome.name(), "found": self.what, "mend": mend })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_is_the_worst_of_all() {
        let mut report = Report::default();
        assert_eq!(report.verdict(), Verdict::Good);
        report.not_claimed("a");
        report.good("b", "fine");
        assert_eq!(report.verdict(), Verdict::Good);
        report.add("c", Verdict::Warning, "so so", "mend it");
        report.good("d", "fine");
        assert_eq!(report.verdict(), Verdict::Warning);
        report.add("e", Verdict::Wrong, "bad", "mend it");
        assert_eq!(report.verdict(), Verdict::Wrong);
        assert_eq!(report.count(Verdict::Good), 2);
    }

    #[tokio::test]
    async fn a_trial_that_hangs_tells_where() {
        let mut report = Report::default();
        let doing = Doing::new();
        let trial = async {
            doing.is("waiting for a lock");
            std::future::pending().await
        };
        report.trial("lock", Duration::from_millis(5), &doing, trial).await;
        assert_eq!(report.entries[0].what, "waiting for a lock: not within 5ms");
        assert_eq!(report.verdict(), Verdict::Wrong);
    }
}
