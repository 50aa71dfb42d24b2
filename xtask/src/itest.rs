//! `cargo xtask itest`: the tests of one driver or of several, each case on its own line.

use anyhow::{Result, bail};

use crate::CommandEnd;
use crate::invocation::Invocation;
use crate::programs::{self, Program, Selection};
use crate::progress::{Progress, Show};
use crate::servers;
use crate::tally::{Case, Tally};
use crate::turns::{self, Trials};
use crate::workspace::Workspace;

/// What to run.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Backends to test, such as `redis`
    backends: Vec<String>,
    /// List the backends there are, and where the server of each would come from
    #[arg(long)]
    list: bool,
    /// The version of the server, one of those that Debian has: `8.0` for Redis, say. An unknown one is an error that lists them
    #[arg(long, value_name = "VERSION")]
    server: Option<String>,
}

/// So many cases of a server at once, on any machine: they wait far more than they compute. Another suite may run beside them.
const AT_ONCE: &str = "3";

/// Tests outside of a driver's crate that need its server, as folder and target; their cases are called `<backend>::…`.
const ELSEWHERE: [(&str, &str); 3] = [turns::FAULTS, ("tests", "chaos"), ("crates/tooz-cli", "servers")];

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let known = workspace.backends()?;
    if options.list {
        for backend in known {
            println!("{backend:<12} {}", servers::origin(&backend));
        }
        return Ok(CommandEnd::Passed);
    }
    check(&options.backends, &known)?;

    if options.server.is_some() && options.backends.len() != 1 {
        bail!("--server VERSION is the version of one backend's server: name one backend");
    }

    let mut total = Tally::default();
    for (index, backend) in options.backends.iter().enumerate() {
        if index > 0 {
            println!();
        }
        total.add(&test(workspace, backend, options.server.as_deref())?);
    }
    println!();
    if !total.not_claimed.is_empty() {
        println!("not claimed:");
        for case in &total.not_claimed {
            println!("    {case}");
        }
    }
    println!("{} ignored, {} not claimed", total.ignored(), total.not_claimed.len());
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 { CommandEnd::Passed } else { CommandEnd::Failed })
}

/// The test programs of one backend: its conformance suite and what else its crate has; then what needs its server in other
/// crates. `setting` says which version of the server is wanted, `trials` which of them are to be run.
pub(crate) fn programs_of(
    workspace: &Workspace,
    backend: &str,
    setting: Option<(&'static str, &'static str)>,
    trials: Trials,
    built: &[Program],
) -> Vec<Invocation> {
    let own = format!("crates/tooz-{backend}");
    let environment = servers::environment(backend);
    let mut invocations = Vec::new();
    for program in built.iter().filter(|program| program.folder == own) {
        let Some(invocation) = trials.tell((&program.folder, &program.target), program.invocation(workspace)) else {
            continue;
        };
        let invocation = invocation.environment(turns::VARIABLE, turns::file(workspace, backend, trials));
        invocations.push(match environment {
            Some((name, value)) => invocation.environment(name, value).arguments(["--test-threads", AT_ONCE]),
            None => invocation,
        });
    }
    if let Some((name, value)) = environment {
        let is_elsewhere = |program: &&Program| ELSEWHERE.contains(&(program.folder.as_str(), program.target.as_str()));
        invocations.extend(built.iter().filter(is_elsewhere).filter_map(|program| {
            let cases = format!("{backend}::");
            let invocation = trials
                .tell((&program.folder, &program.target), program.invocation(workspace))?
                .environment(name, value);
            let invocation = invocation.environment(turns::VARIABLE, turns::file(workspace, backend, trials));
            Some(invocation.arguments([cases.as_str(), "--test-threads", AT_ONCE]))
        }));
    }
    match setting {
        Some((name, value)) => invocations.into_iter().map(|one| one.environment(name, value)).collect(),
        None => invocations,
    }
}

/// A run that finished well without a single case proves nothing, and no more does one that did not find the server which it was
/// given. Answers what is to be said about it.
pub(crate) fn refuse_emptiness(tally: &mut Tally) -> Vec<String> {
    let mut errors = Vec::new();
    if !tally.has_run() {
        tally.failed = 1;
        errors.push("error: no test case has run; does [[test]] conformance say `harness = false`?".to_owned());
    }
    errors.extend(refuse_lack_of_server(tally));
    errors
}

/// Refuses cases that say that they have no server, where there may be no case at all.
pub(crate) fn refuse_lack_of_server(tally: &mut Tally) -> Vec<String> {
    let mut errors = Vec::new();
    if tally.without_server > 0 {
        errors.push(format!(
            "error: {} cases say that they have no server, but they could have one",
            tally.without_server
        ));
        tally.failed += std::mem::take(&mut tally.without_server);
    }
    errors
}

fn test(workspace: &Workspace, backend: &str, version: Option<&str>) -> Result<Tally> {
    let setting = version.map(|version| servers::setting_for(backend, version)).transpose()?;
    let progress = Progress::start(format!("itest {backend}"), Show::Glimpse);
    servers::provide_for(backend, version, &progress)?;
    let built = programs::build(workspace, Selection::Packages(&packages(workspace, backend)), &progress)?;
    let mut tally = Tally::default();
    // Failures are explained after the cases: all that is no case is kept for then.
    let mut rest = Vec::new();
    for program in programs_of(workspace, backend, setting, Trials::All, &built) {
        let mut one = Tally::default();
        let mut said = vec![format!("$ {program}")];
        let finished = program.run(|line| {
            one.read(line);
            if Case::parse(line).is_some() {
                progress.print(line);
            } else {
                progress.glimpse(line);
                said.push(line.to_owned());
            }
        })?;
        one.close(finished.success);
        if !finished.success {
            rest.extend(said);
            rest.extend(finished.ending);
        }
        tally.add(&one);
    }
    rest.extend(refuse_emptiness(&mut tally));
    for line in &rest {
        progress.print(line);
    }
    progress.finish(if tally.failed == 0 { "ok" } else { "FAILED" });
    Ok(tally)
}

/// What has to be built for one backend: not the drivers of all others, where that can be helped.
fn packages(workspace: &Workspace, backend: &str) -> Vec<String> {
    let mut packages = vec![format!("tooz-{backend}")];
    if servers::server_of(backend).is_some() {
        let others = [("tests/Cargo.toml", "tooz-tests"), ("crates/tooz-cli/Cargo.toml", "tooz-cli")];
        packages.extend(others.iter().filter(|(file, _)| workspace.has(file)).map(|(_, name)| (*name).to_owned()));
    }
    packages
}

fn check(wanted: &[String], known: &[String]) -> Result<()> {
    let valid = known.join(", ");
    if wanted.is_empty() {
        bail!("name one backend or more; there are: {valid}");
    }
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        bail!("there is no backend `{unknown}`; there are: {valid}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn an_unknown_backend_is_an_error_that_lists_the_valid_ones() {
        let error = check(&names(&["memory", "moon"]), &names(&["file", "memory"])).unwrap_err();
        assert_eq!(error.to_string(), "there is no backend `moon`; there are: file, memory");
    }

    #[test]
    fn a_run_without_cases_fails() {
        let mut tally = Tally::default();
        tally.close(true);
        assert_eq!(refuse_emptiness(&mut tally).len(), 1);
        assert_eq!(tally.failed, 1);
    }

    #[test]
    fn a_case_that_does_not_see_its_server_fails() {
        let mut tally = Tally::default();
        (tally.passed, tally.without_server) = (3, 2);
        assert_eq!(refuse_emptiness(&mut tally).len(), 1);
        assert_eq!(tally.failed, 2);
    }
}
