//! The steps of `cargo xtask test`, in their order, and how each one runs.

use anyhow::Result;

use crate::invocation::Invocation;
use crate::programs::{self, Program, Selection};
use crate::progress::Progress;
use crate::tally::Tally;
use crate::turns::Trials;
use crate::workspace::Workspace;
use crate::{itest, servers, tidy, tools};

/// A driver that lives outside of the workspace, as a stranger's would.
const OUT_OF_TREE: &str = "tests/out-of-tree-driver/Cargo.toml";

/// Where that is built: it is another workspace with other features, and in one folder the two would wait for each other's lock.
pub(crate) const OUT_OF_TREE_TARGET: &str = "out-of-tree";

/// How the name ends of a step with a driver's trials that run alone.
pub(crate) const ALONE: &str = "-alone";

/// The step without which those after it are not worth starting.
pub(crate) const BUILD: &str = "build";

/// One step of many.
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) about: &'static str,
    /// What may run at the same time.
    pub(crate) beside: Beside,
    work: StepWork,
}

/// What a step may have beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    /// Nothing: it needs both processors, or what the steps before it have left.
    Nothing,
    /// Others that build for themselves, each in a folder of its own.
    Builds,
    /// The suites of other drivers.
    Suites,
    /// What other drivers have that crowds: one at a time of each.
    Crowds,
}

enum StepWork {
    /// One program after the other; all of them run, whatever becomes of the first.
    Commands(Vec<Invocation>),
    /// All test programs but those of the drivers, and the examples in the documentation of all.
    Tests {
        documentation: Invocation,
    },
    /// The tests of this backend, with its server, but for those that run alone: there have to be some.
    Suite(String),
    /// The tests of this backend that run alone, if there are any.
    Alone(String),
    CargoDeny,
    Tidy,
}

/// What a step found.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) failed: bool,
    pub(crate) tally: Tally,
    /// What has to be read when the step failed.
    pub(crate) output: Vec<String>,
    /// A few words for the summary.
    pub(crate) remark: String,
}

/// All steps there are for this workspace.
pub(crate) fn all(workspace: &Workspace) -> Result<Vec<Step>> {
    let root = workspace.root();
    let cargo = |line: &str| Invocation::cargo(root).arguments(line.split(' '));
    let commands = |name: &str, about, commands| Step {
        name: name.to_owned(),
        about,
        beside: Beside::Nothing,
        work: StepWork::Commands(commands),
    };
    let has_out_of_tree = workspace.has(OUT_OF_TREE);

    let mut format = vec![cargo("fmt --all --check")];
    if has_out_of_tree {
        format.push(cargo(&format!("fmt --manifest-path {OUT_OF_TREE} --check")));
    }
    let mut steps = vec![
        commands("fmt", "the format", format),
        commands("clippy", "the lints", vec![cargo("clippy --workspace --all-targets --all-features -- -D warnings")]),
        commands(
            "doc",
            "the documentation",
            vec![cargo("doc --workspace --no-deps --all-features").environment("RUSTDOCFLAGS", "-D warnings")],
        ),
        Step {
            name: "deny".to_owned(),
            about: "licences, duplicates and sources of all dependencies",
            beside: Beside::Nothing,
            work: StepWork::CargoDeny,
        },
        Step { name: "tidy".to_owned(), about: "the house rules", beside: Beside::Nothing, work: StepWork::Tidy },
        commands(
            BUILD,
            "the tests and what they run, without which none can run",
            vec![Selection::Workspace.build(workspace)],
        ),
        Step {
            name: "test".to_owned(),
            about: "unit, integration and doc tests, but for those of the drivers",
            beside: Beside::Nothing,
            work: StepWork::Tests { documentation: cargo("test --workspace --all-features --doc --no-fail-fast") },
        },
    ];
    let builds = |name: &str, about, work| Step { beside: Beside::Builds, ..commands(name, about, work) };
    if workspace.has("crates/tooz-core/mutants.toml") {
        steps.push(builds(
            "interleavings",
            "what threads share in core, in thousands of orders of their steps",
            vec![
                cargo("test --package tooz-core --lib interleavings")
                    .environment("RUSTFLAGS", "--cfg shuttle")
                    .environment("CARGO_TARGET_DIR", workspace.target().join("shuttle")),
            ],
        ));
        // Not by cargo, which would wait for the folder in which another step builds.
        let this = std::env::current_exe()?;
        steps.push(builds(
            "mutants",
            "known faults put into core, each of which its tests have to notice",
            vec![Invocation::new(this, root).arguments(["mutants"])],
        ));
    }
    if has_out_of_tree {
        let target = workspace.target().join(OUT_OF_TREE_TARGET);
        steps.push(builds(
            "out-of-tree",
            "the example of a driver outside of the workspace",
            vec![
                cargo(&format!("test --manifest-path {OUT_OF_TREE} --no-fail-fast"))
                    .environment("CARGO_TARGET_DIR", target),
            ],
        ));
    }
    let alone = "check --package tooz --no-default-features";
    let mut features = vec![cargo(alone)];
    for feature in workspace.facade_features()? {
        features.push(cargo(&format!("{alone} --features {feature}")));
    }
    if workspace.has("crates/tooz-cli/Cargo.toml") {
        // As the README builds it first, and as small as it can be.
        features.extend(["", " --no-default-features"].map(|with| cargo(&format!("check --package tooz-cli{with}"))));
    }
    steps.push(builds("features", "each feature alone builds", features));
    let backends = workspace.backends()?;
    steps.extend(backends.iter().map(|backend| Step {
        name: format!("itest-{backend}"),
        about: "the tests of one driver, with its server",
        beside: Beside::Suites,
        work: StepWork::Suite(backend.clone()),
    }));
    // Behind all of those, so that they need not wait for each other.
    steps.extend(backends.into_iter().map(|backend| Step {
        name: format!("itest-{backend}{ALONE}"),
        about: "the tests of one driver that crowd the machine",
        beside: Beside::Crowds,
        work: StepWork::Alone(backend),
    }));
    Ok(steps)
}

impl Step {
    /// The backend whose server the step needs.
    pub(crate) fn backend(&self) -> Option<&str> {
        match &self.work {
            StepWork::Suite(backend) => Some(backend),
            _ => None,
        }
    }

    /// Runs the step to its end. That it could not even start is a failure like any other.
    pub(crate) fn run(&self, workspace: &Workspace, progress: &Progress) -> Report {
        let report = match &self.work {
            StepWork::Commands(commands) => run_all(commands, progress),
            StepWork::Tests { documentation } => test_all_but_drivers(workspace, documentation, progress),
            StepWork::Suite(backend) => test_driver(workspace, backend, progress),
            StepWork::Alone(backend) => test_driver_alone(workspace, backend, progress),
            StepWork::CargoDeny => tools::cargo_deny(workspace, progress).and_then(|cargo_deny| {
                let arguments = ["--all-features", "check", "licenses", "bans", "sources"];
                let check = Invocation::new(cargo_deny, workspace.root()).arguments(arguments);
                run_all(&[check], progress)
            }),
            StepWork::Tidy => look_for_untidiness(workspace, progress),
        };
        report.unwrap_or_else(|error| Report {
            failed: true,
            output: vec![format!("error: {error:#}")],
            ..Report::default()
        })
    }
}

fn test_all_but_drivers(workspace: &Workspace, documentation: &Invocation, progress: &Progress) -> Result<Report> {
    let backends = workspace.backends()?;
    let is_drivers = |program: &Program| backends.iter().any(|name| program.folder == format!("crates/tooz-{name}"));
    let built = programs::build(workspace, Selection::Workspace, progress)?;
    let ours = built.iter().filter(|program| !is_drivers(program));
    let mut commands: Vec<_> = ours.map(|program| program.invocation(workspace)).collect();
    commands.push(documentation.clone());
    run_all(&commands, progress)
}

fn test_driver(workspace: &Workspace, backend: &str, progress: &Progress) -> Result<Report> {
    servers::provide_for(backend, None, progress)?;
    let built = programs::build(workspace, Selection::Workspace, progress)?;
    let programs = itest::programs_of(workspace, backend, None, Trials::Beside, &built);
    let mut report = run_all(&programs, progress)?;
    let errors = itest::refuse_emptiness(&mut report.tally);
    report.failed |= !errors.is_empty();
    report.output.extend(errors);
    Ok(report)
}

fn test_driver_alone(workspace: &Workspace, backend: &str, progress: &Progress) -> Result<Report> {
    let built = programs::build(workspace, Selection::Workspace, progress)?;
    let programs = itest::programs_of(workspace, backend, None, Trials::Alone, &built);
    let mut report = run_all(&programs, progress)?;
    // A driver may have none, but none that wants a server may have found none.
    let errors = itest::refuse_lack_of_server(&mut report.tally);
    report.failed |= !errors.is_empty();
    report.output.extend(errors);
    Ok(report)
}

fn look_for_untidiness(workspace: &Workspace, progress: &Progress) -> Result<Report> {
    let findings = tidy::check(workspace)?;
    let output = findings.lines();
    for line in &output {
        progress.line(line);
    }
    let remark = match findings.warnings.len() {
        0 => String::new(),
        1 => "1 warning".to_owned(),
        count => format!("{count} warnings"),
    };
    Ok(Report { failed: !findings.errors.is_empty(), tally: Tally::default(), output, remark })
}

fn run_all(commands: &[Invocation], progress: &Progress) -> Result<Report> {
    let mut report = Report::default();
    for command in commands {
        progress.line(&format!("$ {command}"));
        let mut tally = Tally::default();
        let finished = command.run(|line| {
            tally.read(line);
            progress.line(line);
        })?;
        if tally.has_cases() {
            tally.close(finished.success);
        }
        report.tally.add(&tally);
        if !finished.success {
            report.failed = true;
            report.output.push(format!("$ {command}"));
            report.output.extend(finished.output);
            report.output.extend(finished.ending);
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn names(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = repository(files);
        let steps = all(&workspace).unwrap();
        steps.into_iter().map(|step| step.name).collect()
    }

    #[test]
    fn every_backend_is_a_step() {
        let facade = ("crates/tooz/Cargo.toml", "[features]\nred = []");
        let steps = names(&[facade, ("crates/tooz-red/Cargo.toml", ""), ("crates/tooz-red/tests/conformance.rs", "")]);
        assert_eq!(steps[steps.len() - 2..], ["itest-red", "itest-red-alone"]);
        assert!(!steps.contains(&"out-of-tree".to_owned()));
    }

    #[test]
    fn the_driver_out_of_tree_is_a_step_when_it_is_there() {
        let facade = ("crates/tooz/Cargo.toml", "[features]\nred = []");
        assert!(names(&[facade, (OUT_OF_TREE, "")]).contains(&"out-of-tree".to_owned()));
    }
}
