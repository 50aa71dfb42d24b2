//! A word of the glossary means one thing: in core and in the drivers no two types have its name, and the words that meant something else in
//! each driver are no names of types any more.

use anyhow::Result;

use super::Findings;
use super::code::code;
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
    for file in sources(workspace, files)? {
        let code = code(&workspace.read(file)?);
        types.extend(type_names(&code).map(|name| (name.to_owned(), file)));
        all.push_str(&code);
    }
    for (name, file) in &types {
        if let Some((_, instead)) = NEVER.iter().find(|(word, _)| word == name) {
            findings.error(file, format!("`{name}` has another meaning elsewhere: say {instead}"));
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
    Ok(())
}

/// The name that a type has by a word: `LocalQueue` for `local queue`.
fn type_called(word: &str) -> String {
    let parts = word.split_whitespace().map(|part| part[..1].to_uppercase() + &part[1..]);
    parts.collect()
}

fn sources<'a>(workspace: &Workspace, files: &'a [String]) -> Result<Vec<&'a String>> {
    let mut folders: Vec<_> = workspace.drivers()?.iter().map(|driver| format!("crates/tooz-{driver}/src/")).collect();
    folders.push(CORE.to_owned());
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
    let found = kinds.into_iter().flat_map(|kind| code.match_indices(kind).map(move |(at, _)| (at, kind)));
    found.filter_map(|(at, kind)| {
        let line = code[..at].rsplit('\n').next().unwrap_or_default();
        let is_word = !code[..at].ends_with(|one: char| one.is_alphanumeric() || one == '_');
        let is_inside = kind == "type " && line.starts_with(' ');
        let name = code[at + kind.len()..].split(|one: char| !(one.is_alphanumeric() || one == '_')).next()?;
        (is_word && !is_inside && !name.is_empty()).then_some(name)
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
        let files = [
            (MAP, map.as_str()),
            ("crates/tooz-red/Cargo.toml", ""),
            ("crates/tooz-core/src/all.rs", core.as_str()),
            ("crates/tooz-core/src/more.rs", more),
            ("crates/tooz-red/src/session.rs", red),
        ];
        let (_folder, workspace) = repository(&files);
        let mut findings = Findings::default();
        check(&workspace, &files.map(|(name, _)| name.to_owned()), &mut findings).unwrap();
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
    fn words_are_those_of_the_first_column_and_those_explained_besides() {
        let map = format!("x\n{GLOSSARY}\n|---|---|\n| claim, hold | a *live session* is so |\n\n| no | row |");
        assert_eq!(words(&map), ["claim", "hold", "live session"]);
    }
}
