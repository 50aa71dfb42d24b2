//! A word of the glossary means one thing: in core and in the drivers no two types have its name, and the words that meant something else in
//! each driver are no names of types any more. A type is called by a noun, the words by which users hear of errors are one type each in the
//! whole workspace, and the name of a function has a noun as its subject.

use anyhow::Result;

use super::Findings;
use super::code::{code, only_for_tests};
use super::floors::CORE;
use super::rooms::MAP;
use crate::workspace::Workspace;

/// The types of core that a word of the glossary stands for: there is one of that name.
const ONCE: [(&str, &str); 12] = [
    ("Claim", "claim"),
    ("Deadline", "deadline"),
    ("Heart", "heart"),
    ("Hold", "hold"),
    ("Keeper", "keeper"),
    ("Line", "line"),
    ("LiveSession", "live session"),
    ("LocalQueue", "local queue"),
    ("Phase", "phase"),
    ("Session", "session"),
    ("Standing", "standing"),
    ("Worry", "worry"),
];

/// The types of core that a driver may have one of, too: a grant stands at each backend in another way.
const ONCE_IN_CORE: [(&str, &str); 1] = [("Grant", "grant")];

/// Words that meant something else in each driver, and what to say.
const NEVER: [(&str, &str); 6] = [
    ("Desk", "LocalQueue"),
    ("Feed", "Dispatch"),
    ("Link", "Connection (one that never reconnects) or Client (one connection after another)"),
    ("Look", "Client, or what is looked at"),
    ("Own", "Holdings"),
    ("Shared", "what is shared: here it is the mode of a lock"),
];

/// Participles and questions that were names of types: each said that something had happened, and not what the type is.
const NO_NOUNS: [&str; 58] = [
    "Asked",
    "Beaten",
    "Begun",
    "Behind",
    "Blocked",
    "Boxed",
    "Broken",
    "Claimed",
    "Cleared",
    "Confirmed",
    "Counted",
    "Created",
    "Deleted",
    "Done",
    "Ended",
    "Entered",
    "Expected",
    "Found",
    "Given",
    "Heard",
    "How",
    "InTheWay",
    "InUse",
    "Joined",
    "Joining",
    "Known",
    "Left",
    "Lent",
    "Listed",
    "LoggedIn",
    "Meanwhile",
    "Missed",
    "NotHere",
    "Opened",
    "Queued",
    "Received",
    "Recorded",
    "Refused",
    "Released",
    "Revoked",
    "Routed",
    "Running",
    "Said",
    "Taken",
    "TakenAway",
    "TakenDown",
    "Timed",
    "Told",
    "Tried",
    "Unopened",
    "Unreached",
    "Unread",
    "Verified",
    "Voided",
    "Waited",
    "Watched",
    "What",
    "Withdrawn",
];

/// The words by which an error and a loss are told to users: each is one type of core, and of no other crate.
const OF_ERRORS: [&str; 3] = ["ErrorKind", "LossReason", "Outcome"];

/// Where the words of errors have one meaning, besides core and the drivers.
const BESIDE_DRIVERS: [&str; 4] =
    ["crates/tooz-cli/src/", "crates/tooz-conformance/src/", "crates/tooz-testbed/src/", "xtask/src/"];

/// Words that stand for no one: in the name of a function the noun is missing.
const NO_SUBJECTS: [&str; 3] = ["everybody", "nobody", "whoever"];

/// The line above the glossary.
const GLOSSARY: &str = "| word | meaning |";

pub(super) fn check(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    if !workspace.has(MAP) {
        return Ok(());
    }
    let glossary = words(&workspace.read(MAP)?);
    for (_, word) in ONCE.iter().chain(&ONCE_IN_CORE).filter(|(_, word)| !glossary.iter().any(|known| known == word)) {
        findings.error(MAP, format!("the glossary needs a row for `{word}`, which is the name of a type"));
    }
    let (mut types, mut all) = (Vec::new(), String::new());
    for file in sources(workspace, files, &[])? {
        let code = code(&workspace.read(file)?);
        types.extend(type_names(&code).map(|name| (name.to_owned(), file)));
        all.push_str(&code);
    }
    for (name, file) in &types {
        if let Some((_, instead)) = NEVER.iter().find(|(word, _)| word == name) {
            findings.error(file, format!("`{name}` has another meaning elsewhere: say {instead}"));
        }
        if NO_NOUNS.contains(&name.as_str()) {
            findings.error(file, format!("`{name}` is no noun: a type is called by what it is"));
        }
    }
    for word in &glossary {
        if !all.contains(&word.replace(' ', "_")) && !all.contains(&type_called(word)) {
            findings.error(MAP, format!("no code says `{word}`, which the glossary explains"));
        }
        let in_core = |(name, file): &&(String, &String)| *name == type_called(word) && file.starts_with(CORE);
        let places = types.iter().filter(in_core).count();
        if places > 1 {
            findings.error(
                CORE,
                format!("`{}` is a word with one meaning ({MAP}), and a type in {places} places", type_called(word)),
            );
        }
    }
    for (name, word) in ONCE {
        let places: Vec<_> = types.iter().filter(|(one, _)| one == name).map(|(_, file)| *file).collect();
        if places.is_empty() {
            findings.error(MAP, format!("no type is called `{name}`, which is to stand for the word `{word}`"));
        }
        for file in places.iter().filter(|_| places.len() > 1) {
            findings.error(
                file,
                format!("`{name}` is a word with one meaning ({MAP}), and a type in {} places", places.len()),
            );
        }
    }
    of_errors(workspace, files, findings)?;
    functions(workspace, files, findings)
}

fn of_errors(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    let mut types = Vec::new();
    for file in sources(workspace, files, &BESIDE_DRIVERS)? {
        let code = code(&workspace.read(file)?);
        types.extend(type_names(&code).map(|name| (name.to_owned(), file)));
    }
    for word in OF_ERRORS {
        let places: Vec<_> = types.iter().filter(|(name, _)| name == word).map(|(_, file)| *file).collect();
        for file in places.iter().filter(|_| places.len() > 1) {
            findings.error(
                file,
                format!(
                    "`{word}` is a word of tooz's errors, and a type in {} places: only core's has this name",
                    places.len()
                ),
            );
        }
    }
    Ok(())
}

/// Those for tests, too: the name of a test is a sentence.
fn functions(workspace: &Workspace, files: &[String], findings: &mut Findings) -> Result<()> {
    for file in files.iter().filter(|file| file.strip_suffix(".rs").is_some()) {
        let text = workspace.read(file)?;
        for part in only_for_tests(&text).into_iter().chain([code(&text)]) {
            for name in names_after(&part, "fn ").map(|(_, name)| name) {
                if let Some(word) = NO_SUBJECTS.iter().find(|word| name.contains(**word)) {
                    findings.error(file, format!("`{name}`: in place of `{word}` name a noun, as in `no_waiter`"));
                }
            }
        }
    }
    Ok(())
}

/// The name that a type has by a word: `LocalQueue` for `local queue`.
fn type_called(word: &str) -> String {
    let parts = word.split_whitespace().map(|part| part[..1].to_uppercase() + &part[1..]);
    parts.collect()
}

fn sources<'a>(workspace: &Workspace, files: &'a [String], besides: &[&str]) -> Result<Vec<&'a String>> {
    let mut folders: Vec<_> = workspace.drivers()?.iter().map(|driver| format!("crates/tooz-{driver}/src/")).collect();
    folders.extend([CORE].iter().chain(besides).map(ToString::to_string));
    let is_source = |file: &&String| {
        folders.iter().any(|folder| file.strip_prefix(folder).is_some_and(|path| path.strip_suffix(".rs").is_some()))
    };
    Ok(files.iter().filter(is_source).collect())
}

/// The words of the glossary: those of the first column, and those that a meaning explains besides (`*so*`).
fn words(map: &str) -> Vec<String> {
    let rows = map.lines().skip_while(|line| *line != GLOSSARY).skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    let words = cells.flat_map(|(first, meaning)| first.split(',').chain(meaning.split('*').skip(1).step_by(2)));
    words.map(|word| word.trim().to_owned()).filter(|word| word.is_ascii() && !word.is_empty()).collect()
}

/// The names that a code gives to types of its own. A trait's associated type is not one.
pub(super) fn type_names(code: &str) -> impl Iterator<Item = &str> {
    let kinds = ["struct ", "enum ", "trait ", "union ", "type "];
    kinds.into_iter().flat_map(move |kind| {
        names_after(code, kind).filter_map(move |(at, name)| {
            let line = code[..at].rsplit('\n').next().unwrap_or_default();
            let is_inside = kind == "type " && line.starts_with(' ');
            (!is_inside).then_some(name)
        })
    })
}

/// Where that kind of item stands, and the name after it.
fn names_after<'a>(code: &'a str, kind: &'static str) -> impl Iterator<Item = (usize, &'a str)> {
    code.match_indices(kind).filter_map(move |(at, _)| {
        let is_word = !code[..at].ends_with(|one: char| one.is_alphanumeric() || one == '_');
        let name = code[at + kind.len()..].split(|one: char| !(one.is_alphanumeric() || one == '_')).next()?;
        (is_word && !name.is_empty()).then_some((at, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::repository;

    fn errors(without: &str, red: &str) -> Vec<String> {
        errors_with(without, red, "", "")
    }

    fn errors_with(without: &str, red: &str, row: &str, more: &str) -> Vec<String> {
        let rows: Vec<_> =
            all_once().filter(|(name, _)| *name != without).map(|(_, word)| format!("| {word} | so |")).collect();
        let map = format!("{GLOSSARY}\n|---|---|\n{}\n{row}\n", rows.join("\n"));
        let core: Vec<_> = all_once().map(|(name, _)| format!("pub(crate) struct {name}<T>;")).collect();
        let core = core.join("\n");
        errors_in(&[
            (MAP, map.as_str()),
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-core/src/all.rs", core.as_str()),
            ("crates/tooz-core/src/more.rs", more),
            ("crates/tooz-red/src/session.rs", red),
        ])
    }

    fn errors_beside(core: &str, file: &str, text: &str) -> Vec<String> {
        let rows: Vec<_> = all_once().map(|(_, word)| format!("| {word} | so |")).collect();
        let map = format!("{GLOSSARY}\n|---|---|\n{}\n", rows.join("\n"));
        let all: Vec<_> = all_once().map(|(name, _)| format!("struct {name};")).collect();
        let all = all.join("\n");
        errors_in(&[
            (MAP, map.as_str()),
            ("crates/tooz-core/src/all.rs", all.as_str()),
            ("crates/tooz-core/src/error.rs", core),
            (file, text),
        ])
    }

    fn errors_in(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, workspace) = repository(files);
        let files: Vec<_> = files.iter().map(|(name, _)| (*name).to_owned()).collect();
        let mut findings = Findings::default();
        check(&workspace, &files, &mut findings).unwrap();
        findings.errors
    }

    #[test]
    fn a_word_of_the_glossary_is_one_type() {
        assert_eq!(errors("", "struct LinkedList;\nstruct Heartbeat;\n// struct Heart;"), Vec::<String>::new());
        let found = errors("", "enum Heart {}");
        assert!(found.len() == 2 && found.iter().any(|error| error.starts_with("crates/tooz-red/")), "{found:?}");
    }

    fn all_once() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        ONCE.iter().chain(&ONCE_IN_CORE)
    }

    #[test]
    fn a_word_that_no_code_says_is_named() {
        let found = errors_with("", "", "| vigil | a task that watches over all else |", "");
        assert!(found.len() == 1 && found[0].contains("`vigil`"), "{found:?}");
        assert_eq!(errors_with("", "", "| event queue | a bounded queue |", "mod event_queue;"), Vec::<String>::new());
    }

    #[test]
    fn a_word_is_no_second_type_of_core() {
        let queues = "struct EventQueue; mod a { pub struct EventQueue(u64); }";
        for (row, more) in [("", "struct Grant(u64);"), ("| event queue | a bounded queue |", queues)] {
            let found = errors_with("", "struct Grant;", row, more);
            assert!(found.len() == 1 && found[0].contains("2 places"), "{found:?}");
        }
        let found = errors("Grant", "");
        assert!(found.len() == 1 && found[0].contains("`grant`"), "{found:?}");
    }

    #[test]
    fn a_word_without_a_row_is_missed() {
        let found = errors("Worry", "");
        assert!(found.len() == 1 && found[0].contains("`worry`"), "{found:?}");
    }

    #[test]
    fn a_word_that_is_used_no_more_is_named() {
        for (word, _) in NEVER {
            let found = errors("", &format!("pub(crate) struct {word}(u8);"));
            assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
        }
    }

    #[test]
    fn a_type_is_called_by_a_noun() {
        for word in NO_NOUNS {
            let found = errors("", &format!("pub(crate) enum {word}<T> {{ One(T) }}"));
            assert!(found.len() == 1 && found[0].contains("no noun"), "{found:?}");
        }
        assert_eq!(errors("", "enum Progress { Told, Found(u8) }\n// struct Told;"), Vec::<String>::new());
    }

    #[test]
    fn a_word_of_errors_is_one_type_of_the_workspace() {
        for word in OF_ERRORS {
            let text = format!("pub enum {word} {{}}");
            for folder in BESIDE_DRIVERS {
                let found = errors_beside(&text, &format!("{folder}report.rs"), &text);
                assert!(found.len() == 2 && found.iter().any(|error| error.starts_with(folder)), "{found:?}");
            }
            assert_eq!(errors_beside(&text, "xtask/src/report.rs", "use tooz::Outcome;"), Vec::<String>::new());
        }
    }

    #[test]
    fn a_function_names_its_subject() {
        for word in NO_SUBJECTS {
            let test = format!("#[cfg(test)]\nmod tests {{\n    #[test]\n    fn keeps_{word}s_place() {{}}\n}}\n");
            let shipped = format!("async fn {word}_waits() {{}}\n");
            for text in [test, shipped] {
                let found = errors_beside("", "tests/tests/all.rs", &text);
                assert!(found.len() == 1 && found[0].contains(word), "{found:?}");
            }
            let said = format!("fn stays_free() {{ panic!(\"{word} waits\") }} // fn {word}() {{}}\n");
            assert_eq!(errors_beside("", "tests/tests/all.rs", &said), Vec::<String>::new());
        }
    }

    #[test]
    fn words_are_those_of_the_first_column_and_those_explained_besides() {
        let map = format!("x\n{GLOSSARY}\n|---|---|\n| claim, hold | a *live session* is so |\n\n| no | row |");
        assert_eq!(words(&map), ["claim", "hold", "live session"]);
    }
}
