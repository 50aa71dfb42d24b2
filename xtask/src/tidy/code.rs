//! What of a source is code that is shipped: its text without comments, without what stands in quotes, and without what is for tests alone.

/// What may begin an item, in whose head a comma ends nothing. All else that has an attribute is a field, an arm or a statement.
const ITEMS: [&str; 16] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules!",
    "mod",
    "static",
    "struct",
    "trait",
    "type",
    "union",
    "unsafe",
    "use",
];

pub(super) fn code(text: &str) -> String {
    parted(text).0
}

/// What is for tests alone: each item without its attributes.
pub(super) fn only_for_tests(text: &str) -> Vec<String> {
    parted(text).1
}

fn parted(text: &str) -> (String, Vec<String>) {
    let text = plain(text);
    let (mut code, mut for_tests) = (String::new(), Vec::new());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("#[cfg(") {
        let length = end_of_brackets(&rest[at..]);
        if is_for_tests(&rest[at + "#[cfg(".len()..(at + length).saturating_sub(")]".len())]) {
            code.push_str(&rest[..at]);
            let (attributes, end) = item(&rest[at..]);
            for_tests.push(rest[at + attributes..at + end].to_owned());
            rest = &rest[at + end..];
        } else {
            code.push_str(&rest[..at + length]);
            rest = &rest[at + length..];
        }
    }
    (code + rest, for_tests)
}

/// Whether a condition holds in tests alone.
fn is_for_tests(condition: &str) -> bool {
    let condition = condition.trim();
    let of = |kind: &str| {
        let list = condition.strip_prefix(kind)?.trim_start().strip_prefix('(')?.strip_suffix(')')?;
        Some(at_commas(list).into_iter().filter(|part| !part.trim().is_empty()).collect::<Vec<_>>())
    };
    match (of("all"), of("any")) {
        (Some(parts), _) => parts.into_iter().any(is_for_tests),
        (_, Some(parts)) => !parts.is_empty() && parts.into_iter().all(is_for_tests),
        _ => condition == "test",
    }
}

/// The parts between commas that stand in no brackets.
pub(super) fn at_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, one) in text.char_indices() {
        match one {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

/// In how many modules that are written out in this file a place of its code stands.
pub(super) fn inline_modules(before: &str) -> usize {
    let mut open = Vec::new();
    for (at, one) in before.char_indices() {
        match one {
            '{' => open.push(is_head_of_module(&before[..at])),
            '}' => drop(open.pop()),
            _ => {}
        }
    }
    open.into_iter().filter(|is_module| *is_module).count()
}

fn is_head_of_module(before: &str) -> bool {
    let head = before.trim_end().trim_end_matches(|one: char| one.is_alphanumeric() || one == '_');
    let word = head.trim_end().rsplit(|one: char| !one.is_alphanumeric()).next();
    head.ends_with(char::is_whitespace) && word == Some("mod")
}

/// How long the attributes are that something begins with, and how long it is as a whole. It ends with its semicolon, with its block, or, if it is no
/// item, with its comma: so nothing that stands behind it is ever taken for a part of it.
pub(super) fn item(text: &str) -> (usize, usize) {
    let mut rest = text;
    while rest.starts_with("#[") {
        rest = rest[end_of_brackets(rest)..].trim_start();
    }
    let attributes = text.len() - rest.len();
    let is_item = is_item(rest);
    let mut depth = 0_usize;
    for (at, one) in rest.char_indices() {
        let is_end = match one {
            '(' | '[' | '{' => {
                depth += 1;
                false
            }
            // The end of what it stands in.
            ')' | ']' | '}' if depth == 0 => return (attributes, attributes + at),
            ')' | ']' | '}' => {
                depth -= 1;
                one == '}' && depth == 0
            }
            ';' => depth == 0,
            ',' => depth == 0 && !is_item,
            _ => false,
        };
        if is_end {
            return (attributes, attributes + at + 1);
        }
    }
    (attributes, text.len())
}

fn is_item(text: &str) -> bool {
    let mut text = text;
    if let Some(after) = text.strip_prefix("pub") {
        let after = after.trim_start();
        text = if after.starts_with('(') { after[end_of_brackets(after)..].trim_start() } else { after };
    }
    let word = text.split(|one: char| one.is_whitespace() || one == '<').next().unwrap_or_default();
    ITEMS.contains(&word)
}

/// Where the first pair of brackets is closed.
pub(super) fn end_of_brackets(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, one) in text.char_indices() {
        match one {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    text.len()
}

/// Without comments, and with nothing between the quotes of texts and characters.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(one) = rest.chars().next() {
        let (kept, length) = if rest.starts_with("//") {
            ("", rest.find('\n').unwrap_or(rest.len()))
        } else if rest.starts_with("/*") {
            ("", rest.find("*/").map_or(rest.len(), |end| end + 2))
        } else if one == '"' {
            ("\"\"", quoted(rest, '"'))
        } else if let Some(length) = raw_text(rest).filter(|_| !ends_with_name(&plain)) {
            ("\"\"", length)
        } else if one == '\'' && is_character(rest) {
            ("''", quoted(rest, '\''))
        } else {
            (&rest[..one.len_utf8()], one.len_utf8())
        };
        plain.push_str(kept);
        rest = &rest[length..];
    }
    plain
}

/// The length of a quoted text, with its quotes.
fn quoted(text: &str, quote: char) -> usize {
    let mut is_escaped = false;
    for (at, one) in text.char_indices().skip(1) {
        if one == quote && !is_escaped {
            return at + 1;
        }
        is_escaped = one == '\\' && !is_escaped;
    }
    text.len()
}

/// The length of `r"…"`, `r#"…"#` and the like, which may be of bytes.
fn raw_text(text: &str) -> Option<usize> {
    let head = text.strip_prefix('b').unwrap_or(text).strip_prefix('r')?;
    let inside = head.trim_start_matches('#');
    let hashes = &head[..head.len() - inside.len()];
    let inside = inside.strip_prefix('"')?;
    let end = format!("\"{hashes}");
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(text.len() - inside.len() + length)
}

fn ends_with_name(text: &str) -> bool {
    text.ends_with(|one: char| one.is_alphanumeric() || one == '_')
}

/// A quote may begin the name of a lifetime instead.
fn is_character(text: &str) -> bool {
    let mut inside = text.chars().skip(1);
    inside.next().is_some_and(|one| one == '\\') || inside.next() == Some('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_behind_tests_is_code_and_tests_are_not() {
        let text = "use a;\n#[cfg(test)]\nmod tests { fn f() { \"}\"; '}'; r#\"}\"#; } }\nuse b;\n#[cfg(test)]\n#[path = \"x\"]\nmod c;\nuse d;";
        assert_eq!(code(text).split_whitespace().collect::<Vec<_>>(), ["use", "a;", "use", "b;", "use", "d;"]);
    }

    #[test]
    fn a_field_for_tests_ends_with_its_comma() {
        assert_eq!(code("struct A { #[cfg(test)] pub(super) b: Vec<u8>, c: &'a str }"), "struct A {  c: &'a str }");
        assert_eq!(code("#[cfg(test)]\npub(crate) fn f<A, B>() -> [u8; 2] {} struct C;"), " struct C;");
    }

    #[test]
    fn what_stands_behind_a_block_for_tests_is_code() {
        let left = |before: &str| code(&format!("#[cfg(test)]\n{before}\nuse a::b;")).trim().to_owned();
        for block in [
            "thread_local! {\n    static SEEN: u8 = const { 0 };\n}",
            "proptest::proptest! {\n    #[test]\n    fn a(_x: u8) {}\n}",
            "use {c, d};",
            "mod tests { fn f() {} }",
            "f(g, h);",
        ] {
            assert_eq!(left(block).trim_start_matches(';').trim(), "use a::b;", "{block}");
        }
        let arms = "match x { #[cfg(test)] 0 => { a() } 1 => { b() } #[cfg(test)] 2 => c(), _ => d() }";
        assert_eq!(code(arms), "match x {  1 => { b() }  _ => d() }");
    }

    #[test]
    fn a_condition_is_for_tests_if_it_holds_in_nothing_else() {
        for condition in ["test", "all(test, unix)", "all(unix, test)", "any(test, all(test, shuttle))"] {
            assert!(is_for_tests(condition), "{condition}");
            assert_eq!(code(&format!("#[cfg({condition})] use a; use b;")), " use b;");
        }
        for condition in ["all(test_off, unix)", "all(testing_is_off)", "not(test)", "any(test, unix)", "unix", "any()"]
        {
            assert!(!is_for_tests(condition), "{condition}");
        }
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        assert_eq!(code("a(\"crate::b\"); // crate::c\n/* crate::d */e"), "a(\"\"); \ne");
    }

    #[test]
    fn a_module_within_the_file_is_counted_and_a_block_is_not() {
        assert_eq!(inline_modules("pub mod a { fn b() { "), 1);
        assert_eq!(inline_modules("mod a { } fn amod() {"), 0);
    }
}
