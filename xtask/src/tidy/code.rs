//! What of a source is code that is shipped: its text without comments, without what stands in quotes, and without what is for tests alone.

/// The attributes of what is compiled for tests alone.
const FOR_TESTS: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test"];

/// What may begin an item, which ends with its block or its semicolon. All else that has an attribute is a field, and ends with a comma.
const ITEMS: [&str; 14] = [
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
    "unsafe",
];

pub(super) fn code(text: &str) -> String {
    let text = plain(text);
    let mut code = String::new();
    let mut rest = text.as_str();
    while let Some(at) = FOR_TESTS.iter().filter_map(|attribute| rest.find(attribute)).min() {
        code.push_str(&rest[..at]);
        rest = after_item(&rest[at..]);
    }
    code + rest
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

/// What follows an item that begins with its attributes.
fn after_item(text: &str) -> &str {
    let mut rest = text;
    while rest.starts_with("#[") {
        rest = rest[end_of_brackets(rest)..].trim_start();
    }
    let is_item = is_item(rest);
    let mut depth = 0_usize;
    for (at, one) in rest.char_indices() {
        match one {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' if depth == 0 => return &rest[at..],
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 && is_item {
                    return &rest[at + 1..];
                }
            }
            ';' if depth == 0 => return &rest[at + 1..],
            ',' if depth == 0 && !is_item => return &rest[at + 1..],
            _ => {}
        }
    }
    ""
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
    fn comments_and_texts_are_no_code() {
        assert_eq!(code("a(\"crate::b\"); // crate::c\n/* crate::d */e"), "a(\"\"); \ne");
    }

    #[test]
    fn a_module_within_the_file_is_counted_and_a_block_is_not() {
        assert_eq!(inline_modules("pub mod a { fn b() { "), 1);
        assert_eq!(inline_modules("mod a { } fn amod() {"), 0);
    }
}
