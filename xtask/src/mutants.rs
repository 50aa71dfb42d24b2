//! `cargo xtask mutants`: faults that are put into core one by one, each of which core's own tests have to notice.
//!
//! All of them are built at once into a copy of the workspace, each behind a question that a variable of the environment answers. So a
//! mutant costs the run of the one test that catches it, and no build.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::CommandEnd;
use crate::invocation::Invocation;
use crate::workspace::Workspace;

/// The crate that is mutated.
const CORE: &str = "crates/tooz-core";
/// What is mutated of it.
const SOURCES: &str = "crates/tooz-core/src/";
/// The list of mutants, beside the tests that catch them.
const LIST: &str = "crates/tooz-core/mutants.toml";
/// Where every room has a mutant.
const FLOORS: [&str; 2] = ["engine", "handles"];
/// Rooms that only tests have, and those in which nothing is done.
const WITHOUT_DEEDS: [&str; 4] = ["engine/fake.rs", "engine/mortal.rs", "engine/metric.rs", "engine/no_meter.rs"];
/// The variable that says which of them lives.
const WHICH: &str = "TOOZ_MUTANT";
/// What answers in the copy which fault is alive.
const MUTANT: &str = r#"
pub(crate) fn mutant(name: &str) -> bool {
    std::env::var_os("WHICH").is_some_and(|which| which == name)
}
"#;
/// A test that takes longer hangs, and has noticed by that.
const LIMIT: Duration = Duration::from_mins(1);
/// How many run beside each other: most of their time they wait.
const AT_ONCE: usize = 4;

/// Which mutants to try.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only these
    names: Vec<String>,
}

/// One fault.
struct Mutant {
    name: String,
    /// The file, below `src`.
    file: String,
    /// What stands there, once.
    from: String,
    /// What stands there in the mutant.
    to: String,
    /// `PROGRAM::test`: the test that notices.
    caught_by: String,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<CommandEnd> {
    let mutants = read(workspace)?;
    has_one_in_each_room(workspace, &mutants)?;
    let chosen = |mutant: &&Mutant| options.names.is_empty() || options.names.contains(&mutant.name);
    let tree = workspace.target().join("mutants");
    copy(workspace, &tree)?;
    mutate(workspace, &tree, &mutants)?;
    let programs = build(&tree)?;
    let wanted: Vec<_> = mutants.iter().filter(chosen).collect();
    ensure!(!wanted.is_empty(), "there is no such mutant; {LIST} lists them");
    println!("running {} tests", wanted.len() + 1);
    let mut failed = usize::from(!control(&programs, &tree, &wanted)?);
    let mut waiting = wanted.iter();
    let mut running: Vec<(&Mutant, Child, Instant)> = Vec::new();
    let mut alive = Vec::new();
    loop {
        while running.len() < AT_ONCE
            && let Some(mutant) = waiting.next()
        {
            running.push((mutant, start(&programs, &tree, mutant)?, Instant::now()));
        }
        if running.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(20));
        let mut left = Vec::new();
        for (mutant, mut child, begun) in running {
            let ended = match child.try_wait()? {
                Some(status) => Some(!status.success()),
                None if begun.elapsed() > LIMIT => {
                    child.kill()?;
                    child.wait()?;
                    Some(true)
                }
                None => None,
            };
            match ended {
                None => left.push((mutant, child, begun)),
                Some(noticed) => {
                    let word = if noticed { "ok" } else { "FAILED" };
                    println!("test mutants::{} ... {word}", mutant.name);
                    if !noticed {
                        alive.push(format!("{}: {} does not notice it", mutant.name, mutant.caught_by));
                        failed += 1;
                    }
                }
            }
        }
        running = left;
    }
    if !alive.is_empty() {
        println!("\nfailures:\n{}\nfailures:", alive.join("\n"));
    }
    let (passed, word) = (wanted.len() + 1 - failed, if failed == 0 { "ok" } else { "FAILED" });
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    Ok(if failed == 0 { CommandEnd::Passed } else { CommandEnd::Failed })
}

fn read(workspace: &Workspace) -> Result<Vec<Mutant>> {
    let list = workspace.manifest(LIST)?;
    let all =
        list.get("mutant").and_then(toml::Value::as_array).with_context(|| format!("{LIST} has no [[mutant]]"))?;
    let mutants = all.iter().map(|one| {
        let text = |key: &str| {
            let value = one.get(key).and_then(toml::Value::as_str).map(str::to_owned);
            value.with_context(|| format!("a mutant in {LIST} has no `{key}`: {one:?}"))
        };
        let (name, file, from) = (text("name")?, text("file")?, text("from")?);
        Ok(Mutant { name, file, from, to: text("to")?, caught_by: text("caught_by")? })
    });
    let mutants = mutants.collect::<Result<Vec<_>>>()?;
    let names: BTreeSet<_> = mutants.iter().map(|mutant| &mutant.name).collect();
    ensure!(names.len() == mutants.len(), "two mutants in {LIST} have one name");
    Ok(mutants)
}

/// Every room of `engine` and `handles` has one at least, but those without deeds.
fn has_one_in_each_room(workspace: &Workspace, mutants: &[Mutant]) -> Result<()> {
    let files = workspace.files()?;
    let rooms = files.iter().filter_map(|file| file.strip_prefix(SOURCES)).filter(|file| is_room(file));
    let without = rooms.filter(|room| !mutants.iter().any(|mutant| mutant.file == *room));
    let without: Vec<_> = without.collect();
    ensure!(without.is_empty(), "no mutant in {LIST} is in {}", without.join(", "));
    Ok(())
}

fn is_room(file: &str) -> bool {
    let floor = file.split_once('/').filter(|(floor, room)| FLOORS.contains(floor) && !room.contains('/'));
    floor.is_some() && !WITHOUT_DEEDS.contains(&file)
}

/// Copies the workspace. What has not changed keeps its time, so that it is not built again. The sources of core are written once, with the
/// mutants in them.
fn copy(workspace: &Workspace, tree: &Path) -> Result<()> {
    for file in workspace.files()?.iter().filter(|file| !file.starts_with(SOURCES)) {
        write_if_new(&tree.join(file), &fs::read(workspace.root().join(file))?)?;
    }
    Ok(())
}

fn write_if_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the sources of core with all mutants in them.
fn mutate(workspace: &Workspace, tree: &Path, mutants: &[Mutant]) -> Result<()> {
    let mut texts = BTreeMap::new();
    for file in workspace.files()? {
        if let Some(name) = file.strip_prefix(SOURCES) {
            texts.insert(name.to_owned(), workspace.read(&file)?);
        }
    }
    for mutant in mutants {
        let text = texts.get_mut(&mutant.file);
        let text = text.with_context(|| format!("mutant {}: there is no {}", mutant.name, mutant.file))?;
        let count = text.matches(&mutant.from).count();
        if count != 1 {
            bail!("mutant {}: `{}` stands {count} times in {}, and not once", mutant.name, mutant.from, mutant.file);
        }
        *text = text.replace(&mutant.from, &mutant.switch());
    }
    if let Some(root) = texts.get_mut("lib.rs") {
        root.insert_str(0, "#![allow(unused)]\n");
        root.push_str(&MUTANT.replace("WHICH", WHICH));
    }
    let target = tree.join(SOURCES);
    for (name, text) in &texts {
        write_if_new(&target.join(name), text.as_bytes())?;
    }
    Ok(())
}

impl Mutant {
    /// Both ways, and the question which of them it is.
    fn switch(&self) -> String {
        let Mutant { name, from, to, .. } = self;
        let is_statement = from.trim_end().ends_with([';', '}']);
        let both = format!("if crate::mutant({name:?}) {{ {to} }} else {{ {from} }}");
        if is_statement { both } else { format!("({both})") }
    }

    fn start(&self, program: &Path, folder: &Path, test: &str) -> Result<Child> {
        let mut command = Command::new(program);
        command.args(["--exact", test]).env(WHICH, &self.name).current_dir(folder);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        child.with_context(|| format!("cannot run {}", program.display()))
    }
}

/// The test programs by name.
type Programs = BTreeMap<String, PathBuf>;

fn build(tree: &Path) -> Result<Programs> {
    let arguments = [
        "test",
        "--package",
        "tooz-core",
        "--features",
        "metrics",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ];
    // A folder of its own: cargo would take the copy's products for those of the original.
    let cargo = Invocation::cargo(tree).arguments(arguments).environment("CARGO_TARGET_DIR", tree.join("target"));
    let mut programs = Programs::new();
    let finished = cargo.run(|line| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
        let (name, path) = (message["target"]["name"].as_str(), message["executable"].as_str());
        if let (Some(name), Some(path)) = (name, path) {
            let is_library = message["target"]["kind"][0] == "lib";
            programs.insert(if is_library { "lib" } else { name }.to_owned(), path.into());
        }
    })?;
    if !finished.success {
        bail!("core with its mutants does not build:\n{}", finished.output.join("\n"));
    }
    Ok(programs)
}

fn place<'a>(programs: &'a Programs, mutant: &'a Mutant) -> Result<(&'a Path, &'a str)> {
    let (program, test) = mutant.caught_by.split_once("::").context("`caught_by` is PROGRAM::test")?;
    let path =
        programs.get(program).with_context(|| format!("mutant {}: there is no program {program}", mutant.name))?;
    Ok((path, test))
}

fn start(programs: &Programs, tree: &Path, mutant: &Mutant) -> Result<Child> {
    let (program, test) = place(programs, mutant)?;
    mutant.start(program, &tree.join(CORE), test)
}

/// Without a mutant all these tests pass, and each of them is there.
fn control(programs: &Programs, tree: &Path, mutants: &[&Mutant]) -> Result<bool> {
    let mut tests: BTreeMap<&Path, BTreeSet<&str>> = BTreeMap::new();
    for mutant in mutants {
        let (program, test) = place(programs, mutant)?;
        tests.entry(program).or_default().insert(test);
    }
    let mut all_pass = true;
    for (program, tests) in tests {
        let control =
            Invocation::new(program, &tree.join(CORE)).arguments(["--exact"]).arguments(tests.iter().copied());
        let finished = control.run(|_| {})?;
        let count = format!("{} passed", tests.len());
        if !finished.success || !finished.output.iter().any(|line| line.contains(&count)) {
            all_pass = false;
            println!("{}", finished.output.join("\n"));
        }
    }
    println!("test mutants::without_a_fault ... {}", if all_pass { "ok" } else { "FAILED" });
    Ok(all_pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_a_file_on_one_of_the_floors() {
        assert!(is_room("engine/heart.rs") && is_room("handles/lock.rs"));
        assert!(
            !is_room("base/latch.rs")
                && !is_room("engine/line/tests.rs")
                && !is_room("engine/fake.rs")
                && !is_room("engine.rs")
        );
    }

    #[test]
    fn a_statement_and_an_expression_get_a_switch_each() {
        let mutant = |from: &str, to: &str| Mutant {
            name: "m".to_owned(),
            file: String::new(),
            from: from.to_owned(),
            to: to.to_owned(),
            caught_by: String::new(),
        };
        assert_eq!(mutant("tell();", "").switch(), r#"if crate::mutant("m") {  } else { tell(); }"#);
        assert_eq!(mutant("a > b", "a >= b").switch(), r#"(if crate::mutant("m") { a >= b } else { a > b })"#);
    }
}
