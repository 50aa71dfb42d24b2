//! The table at the end of `cargo xtask test`, and the count below it.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::CommandEnd;
use crate::progress::readable;
use crate::steps::Report;
use crate::tally::Tally;

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StepEnd {
    Passed,
    Failed,
    /// An earlier failure made it pointless.
    NotRun,
}

/// One row of the table.
pub(crate) struct SummaryLine {
    pub(crate) name: String,
    pub(crate) outcome: StepEnd,
    elapsed: Duration,
    tally: Tally,
    remark: String,
    /// What a failed step has said of the reason.
    reasons: Vec<String>,
}

/// So many lines of the reasons are shown at most of one step, and so much of a line.
const MOST_LINES: usize = 120;
const LONGEST_LINE: usize = 400;
/// Of a failed step that names no failures: its last words.
const LAST_WORDS: usize = 30;

impl SummaryLine {
    pub(crate) fn new(name: &str, outcome: StepEnd, elapsed: Duration, report: Report) -> Self {
        let reasons = if outcome == StepEnd::Failed { reasons(&report.output) } else { Vec::new() };
        Self { name: name.to_owned(), outcome, elapsed, tally: report.tally, remark: report.remark, reasons }
    }

    /// What the step adds to the sum: its cases; or itself, if it has none.
    fn counts(&self) -> (usize, usize) {
        match self.outcome {
            StepEnd::NotRun => (0, 0),
            StepEnd::Passed if self.tally.has_cases() => (self.tally.passed, 0),
            StepEnd::Passed => (1, 0),
            // All cases may have passed and yet the step failed, by a build or a process left behind.
            StepEnd::Failed => (self.tally.passed, self.tally.failed.max(1)),
        }
    }

    fn result(&self) -> String {
        let word = match self.outcome {
            StepEnd::Passed => "ok",
            StepEnd::Failed => "FAILED",
            StepEnd::NotRun => "not run",
        };
        if self.remark.is_empty() { word.to_owned() } else { format!("{word}, {}", self.remark) }
    }

    fn row(&self) -> [String; 7] {
        let (passed, failed) = self.counts();
        [
            self.name.clone(),
            self.result(),
            or_blank(passed),
            or_blank(failed),
            or_blank(self.tally.ignored()),
            or_blank(self.tally.not_claimed.len()),
            match self.outcome {
                StepEnd::NotRun => String::new(),
                StepEnd::Passed | StepEnd::Failed => readable(self.elapsed),
            },
        ]
    }
}

/// Prints all, and says whether everything passed.
pub(crate) fn print(lines: &[SummaryLine]) -> CommandEnd {
    println!("\n{}\n", table(lines));
    let not_run = named(lines, StepEnd::NotRun);
    if !not_run.is_empty() {
        println!("the build failed, so these did not run: {not_run}");
    }
    let broken = named(lines, StepEnd::Failed);
    // Once more and in short, since a reader of the end of a long log looks for the reasons.
    for line in lines.iter().filter(|line| !line.reasons.is_empty()) {
        println!("---- why {} failed ----\n{}\n", line.name, line.reasons.join("\n"));
    }
    if !broken.is_empty() {
        println!("these failed: {broken}");
    }
    let (passed, failed) = sum(lines);
    println!("{passed} passed, {failed} failed");
    if failed == 0 { CommandEnd::Passed } else { CommandEnd::Failed }
}

fn table(lines: &[SummaryLine]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(["step", "result", "passed", "failed", "ignored", "not claimed", "time"])
        .add_rows(lines.iter().map(SummaryLine::row));
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// What the test programs list between their two lines `failures:`; or the last words, where none does.
fn reasons(output: &[String]) -> Vec<String> {
    let mut listed = Vec::new();
    let mut inside = false;
    for line in output {
        match line.as_str() {
            "failures:" => inside = !inside,
            _ if line.starts_with("test result: ") => inside = false,
            _ if inside && !line.is_empty() => listed.push(shortened(line)),
            _ => {}
        }
    }
    if listed.is_empty() {
        let first = output.len().saturating_sub(LAST_WORDS);
        return output[first..].iter().map(|line| shortened(line)).collect();
    }
    if listed.len() > MOST_LINES {
        let left_out = listed.len() - MOST_LINES;
        listed.truncate(MOST_LINES);
        listed.push(format!("({left_out} more lines are above)"));
    }
    listed
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}

fn named(lines: &[SummaryLine], outcome: StepEnd) -> String {
    let names: Vec<_> = lines.iter().filter(|line| line.outcome == outcome).map(|line| line.name.as_str()).collect();
    names.join(", ")
}

fn sum(lines: &[SummaryLine]) -> (usize, usize) {
    lines.iter().map(SummaryLine::counts).fold((0, 0), |sum, counts| (sum.0 + counts.0, sum.1 + counts.1))
}

/// Zeros would hide the numbers that matter.
fn or_blank(count: usize) -> String {
    if count == 0 { String::new() } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(outcome: StepEnd, passed: usize, failed: usize) -> SummaryLine {
        let mut report = Report::default();
        report.tally.passed = passed;
        report.tally.failed = failed;
        SummaryLine::new("step", outcome, Duration::ZERO, report)
    }

    #[test]
    fn a_step_without_cases_counts_as_one() {
        let lines = [
            line(StepEnd::Passed, 0, 0),
            line(StepEnd::Passed, 40, 0),
            line(StepEnd::Failed, 5, 2),
            line(StepEnd::NotRun, 0, 0),
        ];
        assert_eq!(sum(&lines), (46, 2));
    }

    #[test]
    fn the_reasons_are_those_that_test_programs_list() {
        let output = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let said = "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b ----\nit was 3\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed";
        assert_eq!(reasons(&output(said)), ["---- b ----", "it was 3"]);
        assert_eq!(reasons(&output("error: no such file")), ["error: no such file"]);
        let long = format!("failures:\n{}failures:\n", "x\n".repeat(MOST_LINES + 5));
        assert_eq!(reasons(&output(&long)).last().unwrap(), "(5 more lines are above)");
        assert_eq!(shortened(&"é".repeat(LONGEST_LINE + 1)), format!("{} …", "é".repeat(LONGEST_LINE)));
    }

    #[test]
    fn a_failed_step_never_counts_as_no_failure() {
        assert_eq!(sum(&[line(StepEnd::Failed, 5, 0)]), (5, 1));
        assert_eq!(sum(&[line(StepEnd::Failed, 0, 0)]), (0, 1));
    }
}
