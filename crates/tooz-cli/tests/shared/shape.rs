//! The shapes of JSON as the README writes them, and whether a value has one: each field with its type, and no other.

use std::collections::BTreeMap;

use serde_json::Value;

/// A shape, read from its words.
#[derive(Clone, Debug)]
enum Shape {
    Text,
    Number,
    Time,
    Any,
    Named(String),
    List(Box<Shape>),
    Object(BTreeMap<String, Shape>),
    Nullable(Box<Shape>),
}

/// All shapes of the README, by name.
pub(crate) struct Shapes {
    named: BTreeMap<String, Shape>,
    /// Each event may have one of several.
    events: BTreeMap<String, Vec<Shape>>,
}

impl Shapes {
    /// Those of the README, in the blocks `schema` and `events`.
    pub(crate) fn documented() -> Self {
        let readme = include_str!("../../README.md");
        let block = |name: &str| -> Vec<String> {
            let begin = format!("```text {name}\n");
            let text = readme.split_once(&begin).expect("the block is there").1.split("```").next().unwrap();
            text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
        };
        let mut shapes = Shapes { named: BTreeMap::new(), events: BTreeMap::new() };
        for line in block("schema") {
            let (name, words) = split(&line);
            shapes.named.insert(name, parse(&words));
        }
        for line in block("events") {
            let (names, words) = split(&line);
            let end = words.rfind('}').unwrap() + 1;
            for name in names.split(", ") {
                shapes.events.entry(name.to_owned()).or_default().push(parse(&words[..end]));
            }
        }
        shapes
    }

    /// Fails unless the value has the shape of that name.
    pub(crate) fn check(&self, name: &str, value: &Value) {
        let shape = self.named.get(name).unwrap_or_else(|| panic!("{name} is not documented"));
        if let Err(why) = self.has(shape, value) {
            panic!("{name}: {why} in {value}");
        }
    }

    /// Fails unless the line is an event as it is documented; answers its name.
    pub(crate) fn check_event(&self, line: &str) -> String {
        let Ok(Value::Object(mut event)) = serde_json::from_str::<Value>(line) else { panic!("no event: {line}") };
        let name = event.remove("event").and_then(|name| Some(name.as_str()?.to_owned())).expect("an event has a name");
        let at = event.remove("at").expect("an event has a time");
        self.has(&Shape::Time, &at).unwrap();
        let shapes = self.events.get(&name).unwrap_or_else(|| panic!("event {name} is not documented: {line}"));
        let event = Value::Object(event);
        let wrong: Vec<_> = shapes.iter().filter_map(|shape| self.has(shape, &event).err()).collect();
        assert!(wrong.len() < shapes.len(), "{line}: {wrong:?}");
        name
    }

    fn has(&self, shape: &Shape, value: &Value) -> Result<(), String> {
        let is = |is: bool| if is { Ok(()) } else { Err(format!("{value} is no {shape:?}")) };
        match (shape, value) {
            (Shape::Any, _) | (Shape::Nullable(_), Value::Null) => Ok(()),
            (Shape::Nullable(inner), value) => self.has(inner, value),
            (Shape::Named(name), value) => self.has(self.named.get(name).ok_or(format!("no shape {name}"))?, value),
            (Shape::Text, value) => is(value.is_string()),
            (Shape::Number, value) => is(value.is_number()),
            (Shape::Time, value) => is(value.as_str().is_some_and(|time| time.len() == 24 && time.ends_with('Z'))),
            (Shape::List(inner), Value::Array(list)) => list.iter().try_for_each(|one| self.has(inner, one)),
            (Shape::Object(fields), Value::Object(object)) => {
                if let Some(name) = object.keys().find(|name| !fields.contains_key(*name)) {
                    return Err(format!("field {name} is not documented"));
                }
                fields.iter().try_for_each(|(name, shape)| match object.get(name) {
                    Some(value) => self.has(shape, value).map_err(|why| format!("{name}: {why}")),
                    None => Err(format!("field {name} is missing")),
                })
            }
            _ => is(false),
        }
    }
}

/// The name before the shape, and the rest of the line.
fn split(line: &str) -> (String, String) {
    let at = line.find("  ").or_else(|| line.find(" {")).or_else(|| line.find(" L")).expect("a name and a shape");
    (line[..at].trim().replace(" GROUP", ""), line[at..].trim().to_owned())
}

fn parse(words: &str) -> Shape {
    let (shape, rest) = shape(words.trim());
    assert!(rest.trim().is_empty(), "not understood: {rest:?} in {words:?}");
    shape
}

/// The shape at the beginning, and what follows.
fn shape(words: &str) -> (Shape, &str) {
    let (found, rest) = match words.as_bytes()[0] {
        b'[' => {
            let (inner, rest) = shape(&words[1..]);
            (Shape::List(Box::new(inner)), rest.strip_prefix(']').expect("a list ends"))
        }
        b'{' => object(&words[1..]),
        _ => {
            let end = words.find(|one: char| !one.is_ascii_alphabetic()).unwrap_or(words.len());
            let shape = match &words[..end] {
                "text" => Shape::Text,
                "number" => Shape::Number,
                "time" => Shape::Time,
                "any" => Shape::Any,
                name => Shape::Named(name.to_owned()),
            };
            (shape, &words[end..])
        }
    };
    match rest.strip_prefix('?') {
        Some(rest) => (Shape::Nullable(Box::new(found)), rest),
        None => (found, rest),
    }
}

fn object(mut words: &str) -> (Shape, &str) {
    let mut fields = BTreeMap::new();
    loop {
        words = words.trim_start_matches([',', ' ']);
        if let Some(rest) = words.strip_prefix('}') {
            return (Shape::Object(fields), rest);
        }
        let (name, rest) = words.split_once(": ").expect("a field has a shape");
        let (inner, rest) = shape(rest);
        fields.insert(name.to_owned(), inner);
        words = rest;
    }
}
