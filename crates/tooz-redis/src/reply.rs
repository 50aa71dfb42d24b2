//! What a script answered: a word that says how it went, and what comes with it.

use fred::types::Value;
use tooz_core::driver::RequestId;
use tooz_core::{Error, ErrorKind, Outcome, Result};

use crate::error::{lost, strange};

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

pub(crate) fn request_id(text: &str) -> Result<RequestId> {
    text.parse().map_err(|_| strange(text))
}
