//! One thing that happened: its name and its fields for programs, its sentence for people.

use serde_json::{Map, Value};

/// Who hears of it on stderr. A descriptor for events gets all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loudness {
    /// Only a program that asked for events.
    Programs,
    /// A person too, unless `-q` was given.
    People,
    /// A person also then.
    Always,
}

/// Something that happened, ready to be said.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    name: &'static str,
    fields: Map<String, Value>,
    sentence: String,
    loudness: Loudness,
}

impl Event {
    /// For people too.
    pub(crate) fn new(name: &'static str, sentence: impl Into<String>) -> Self {
        Event { name, fields: Map::new(), sentence: sentence.into(), loudness: Loudness::People }
    }

    /// Adds a field.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    pub(crate) fn loudness(mut self, loudness: Loudness) -> Self {
        self.loudness = loudness;
        self
    }

    /// For programs alone: people know it anyway.
    pub(crate) fn for_programs(self) -> Self {
        self.loudness(Loudness::Programs)
    }

    pub(super) fn is_heard_by(&self, quiet: bool) -> bool {
        match self.loudness {
            Loudness::Programs => false,
            Loudness::People => !quiet,
            Loudness::Always => true,
        }
    }

    pub(crate) fn sentence(&self) -> &str {
        &self.sentence
    }

    /// One line: the name first, the time last.
    pub(super) fn json(&self) -> String {
        let mut object = Map::new();
        object.insert("event".to_owned(), self.name.into());
        object.extend(self.fields.clone());
        object.insert("at".to_owned(), super::stamp::utc(std::time::SystemTime::now()).into());
        Value::Object(object).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_name_first_and_its_time_last() {
        let event = Event::new("acquired", "lock x acquired").with("lock", "x").with("token", 7);
        assert!(event.json().starts_with(r#"{"event":"acquired","lock":"x","token":7,"at":"2"#), "{}", event.json());
    }

    #[test]
    fn a_person_that_asked_for_silence_hears_of_errors_alone() {
        let heard = |loudness| [true, false].map(|quiet| Event::new("x", "x").loudness(loudness).is_heard_by(quiet));
        assert_eq!(heard(Loudness::Programs), [false, false]);
        assert_eq!(heard(Loudness::People), [false, true]);
        assert_eq!(heard(Loudness::Always), [true, true]);
    }
}
