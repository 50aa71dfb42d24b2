//! What the server answers, taken apart: a script's word with what comes with it, the lines of `INFO`, the map of a Sentinel.

use std::collections::HashMap;

use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::error::{lost, strange};
use crate::value::Value;

/// The place in a scan at which it begins; the one that it ends with is the same.
pub(crate) const FROM_THE_FIRST: &str = "0";

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) word: String,
    rest: Vec<Value>,
}

impl Reply {
    /// Reads it. Scripts refuse in words what comes from a dead session or from a connection that was given up.
    pub(crate) fn read(answer: Value) -> Result<Self> {
        let Value::Array(mut parts) = answer else { return Err(strange(answer)) };
        if parts.is_empty() {
            return Err(strange("nothing"));
        }
        let word = text(&parts.remove(0))?;
        match word.as_str() {
            "lost" => Err(lost()),
            "stale" => Err(Error::new(ErrorKind::Unavailable, "a newer connection of this session has taken over")
                .with_outcome(Outcome::NotApplied)),
            _ => Ok(Reply { word, rest: parts }),
        }
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.word == word
    }

    /// Whether the script says there that others have to go on with what it has begun.
    pub(crate) fn leaves_over(&self, index: usize) -> bool {
        self.rest.get(index).and_then(Value::as_string).is_some_and(|word| word == "more")
    }

    pub(crate) fn number(&self, index: usize) -> Result<i64> {
        match self.rest.get(index) {
            Some(Value::Integer(number)) => Ok(*number),
            Some(value) => text(value)?.parse().map_err(|_| strange(value)),
            None => Err(strange(self)),
        }
    }

    pub(crate) fn token(&self, index: usize) -> Result<u64> {
        let number = self.number(index)?;
        u64::try_from(number).map_err(|_| strange(number))
    }

    /// Everything from there on, as text.
    pub(crate) fn texts(&self, from: usize) -> Result<Vec<String>> {
        self.rest.iter().skip(from).map(text).collect()
    }

    /// An answer that this request can't have.
    pub(crate) fn strange<T>(&self) -> Result<T> {
        Err(strange(self))
    }
}

fn text(value: &Value) -> Result<String> {
    value.as_string().ok_or_else(|| strange(value))
}

/// The names and values of `INFO`, of one section or of several.
pub(crate) fn lines_of(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
}

/// The flat list of names and values by which RESP2 tells a map, or RESP3's map.
pub(crate) fn map_of(value: Value) -> Result<HashMap<String, String>> {
    let text = |value: &Value| text(value);
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, value)| Ok((text(name)?, text(value)?))).collect(),
        Value::Array(list) if list.len() % 2 == 0 => {
            list.chunks_exact(2).map(|pair| Ok((text(&pair[0])?, text(&pair[1])?))).collect()
        }
        other => Err(strange(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<bool>().prop_map(Value::Boolean),
            any::<f64>().prop_map(Value::Double),
            prop_oneof!["ok|lost|stale|layout|more|[0-9]{1,20}", "\\PC{0,9}"].prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(2, 16, 5, |inner| {
            let list = prop::collection::vec(inner, 0..5);
            prop_oneof![
                list.clone().prop_map(Value::Array),
                (list.clone(), list).prop_map(|(names, values)| Value::Map(names.into_iter().zip(values).collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_answer_panics(value in value(), text in "([a-z0-9_]{0,9}[:\r\n]{0,3}){0,6}") {
            if let Ok(reply) = Reply::read(value.clone()) {
                for index in 0..4 {
                    let _ = (reply.number(index), reply.token(index), reply.texts(index), reply.leaves_over(index));
                }
            }
            let _ = (map_of(value), lines_of(&text));
        }

        #[test]
        fn an_answer_reads_back_the_same(number: i64, texts in prop::collection::vec("\\PC{0,9}", 0..5)) {
            let mut parts = vec![Value::Text("granted".to_owned()), Value::Integer(number)];
            parts.extend(texts.iter().cloned().map(Value::Text));
            let reply = Reply::read(Value::Array(parts)).unwrap();
            prop_assert!(reply.is("granted"));
            prop_assert_eq!(reply.number(0).unwrap(), number);
            prop_assert_eq!(reply.texts(1).unwrap(), texts);
        }

        #[test]
        fn lines_read_back_the_same(lines in prop::collection::hash_map("[a-z_]{1,9}", "[a-z0-9=,:.]{0,9}", 0..6)) {
            let text: Vec<_> = lines.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
            prop_assert_eq!(lines_of(&format!("# Section\r\n{}", text.concat())), lines);
        }
    }
}
