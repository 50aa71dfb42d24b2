//! One fault: where it is put, and which test notices it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// One fault.
pub(crate) struct Seed {
    pub(crate) name: String,
    /// The file, below `src`.
    pub(crate) file: String,
    /// What stands there, once.
    pub(crate) from: String,
    /// What stands there in the mutant.
    pub(crate) to: String,
    /// `PROGRAM::test`: the test that notices.
    pub(crate) caught_by: String,
    /// It stands within a text, where no question can: it is built alone.
    is_alone: bool,
}

impl Seed {
    /// What an entry of a list says.
    pub(crate) fn read(entry: &toml::Value) -> Result<Self> {
        let text = |key: &str| {
            let value = entry.get(key).and_then(toml::Value::as_str).map(str::to_owned);
            value.with_context(|| format!("a mutant has no `{key}`: {entry:?}"))
        };
        let (name, file, from) = (text("name")?, text("file")?, text("from")?);
        let is_alone = entry.get("alone").and_then(toml::Value::as_bool).unwrap_or_default();
        Ok(Seed { name, file, from, to: text("to")?, caught_by: text("caught_by")?, is_alone })
    }

    /// Whether it is built beside the others, with a question in front; text of another language is changed alone.
    pub(crate) fn is_switched(&self) -> bool {
        !self.is_alone && Path::new(&self.file).extension().is_some_and(|extension| extension == "rs")
    }

    /// The program and, in it, the test that notices.
    pub(crate) fn place(&self) -> Result<(&str, &str)> {
        self.caught_by.split_once("::").with_context(|| format!("mutant {}: `caught_by` is PROGRAM::test", self.name))
    }

    /// Puts it into these files, as far as it is built beside others; the error says that it has no place there.
    pub(crate) fn apply(&self, texts: &mut BTreeMap<String, String>) -> Result<()> {
        let text = texts.get_mut(&self.file);
        let text = text.with_context(|| format!("mutant {}: there is no {}", self.name, self.file))?;
        let changed = self.changed(text)?;
        if self.is_switched() {
            *text = changed;
        }
        Ok(())
    }

    /// That file's text with the fault in it.
    pub(crate) fn changed(&self, text: &str) -> Result<String> {
        let count = text.matches(&self.from).count();
        if count != 1 {
            bail!("mutant {}: `{}` stands {count} times in {}, and not once", self.name, self.from, self.file);
        }
        let to = if self.is_switched() { self.switch() } else { self.to.clone() };
        Ok(text.replace(&self.from, &to))
    }

    /// Both ways, and the question which of them it is.
    fn switch(&self) -> String {
        let Seed { name, from, to, .. } = self;
        let is_statement = from.trim_end().ends_with([';', '}']);
        let both = format!("if crate::mutant({name:?}) {{ {to} }} else {{ {from} }}");
        if is_statement { both } else { format!("({both})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed(file: &str, from: &str, to: &str) -> Seed {
        let (name, caught_by) = ("m".to_owned(), String::new());
        Seed { name, file: file.to_owned(), from: from.to_owned(), to: to.to_owned(), caught_by, is_alone: false }
    }

    #[test]
    fn a_statement_and_an_expression_get_a_switch_each() {
        assert_eq!(seed("a.rs", "tell();", "").switch(), r#"if crate::mutant("m") {  } else { tell(); }"#);
        assert_eq!(seed("a.rs", "a > b", "a >= b").switch(), r#"(if crate::mutant("m") { a >= b } else { a > b })"#);
    }

    #[test]
    fn a_script_is_changed_as_it_stands_and_no_place_is_an_error() {
        let beat = seed("beat.lua", "if alive", "if true");
        assert_eq!(beat.changed("x if alive y").unwrap(), "x if true y");
        assert!(beat.changed("x").unwrap_err().to_string().contains("stands 0 times in beat.lua"));
        let mut texts = BTreeMap::from([("beat.lua".to_owned(), "if alive".to_owned())]);
        beat.apply(&mut texts).unwrap();
        assert_eq!(texts["beat.lua"], "if alive", "it is put there when its turn comes");
    }
}
