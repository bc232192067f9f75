//! Two transcripts, field by field.

use super::session::Entry;
use crate::value::Value;
use corelog_wire::ErrorCode;
use std::collections::{BTreeMap, BTreeSet};

/// One field in which the answers differ, in whichever versions it does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The case and the step within it.
    pub case: String,
    pub field: String,
    pub kafka: String,
    pub corelog: String,
}

/// In order of what makes the best key.
const KEYS: [&str; 13] = [
    "name",
    "topic",
    "topic_id",
    "partition_index",
    "index",
    "partition",
    "api_key",
    "group_id",
    "resource_name",
    "key",
    "broker_id",
    "node_id",
    "member_id",
];
/// Lists whose order has a meaning. In all others, elements are found by their keys.
const IN_ORDER: [&str; 4] = ["synonyms", "batches", "records", "headers"];
const NOT_THERE: &str = "absent";
const ERROR_CODE: &str = "error_code";
/// Before a field, in place of the dot: it is one of an answer that is an error in both.
const OF_ERROR: &str = "!";

/// Differences by field, with the versions they were seen in.
pub fn compare(case: &str, kafka: &[Entry], corelog: &[Entry]) -> BTreeMap<Difference, BTreeSet<i16>> {
    let mut found: BTreeMap<Difference, BTreeSet<i16>> = BTreeMap::new();
    let keyed = |entries: &[Entry]| {
        let mut by_step: BTreeMap<(String, i16, usize), Value> = BTreeMap::new();
        for entry in entries {
            let mut nth = 0;
            while by_step.contains_key(&(entry.step.clone(), entry.version, nth)) {
                nth += 1;
            }
            by_step.insert((entry.step.clone(), entry.version, nth), entry.value.clone());
        }
        by_step
    };
    let (kafka, corelog) = (keyed(kafka), keyed(corelog));
    let steps: BTreeSet<_> = kafka.keys().chain(corelog.keys()).collect();
    for step in steps {
        let mut differing = Vec::new();
        differ("", "", kafka.get(step), corelog.get(step), &mut differing);
        for (field, kafka, corelog) in differing {
            let difference = Difference { case: format!("{case} / {}", step.0), field, kafka, corelog };
            found.entry(difference).or_default().insert(step.1);
        }
    }
    found
}

type Differing = Vec<(String, String, String)>;

fn differ(path: &str, name: &str, kafka: Option<&Value>, corelog: Option<&Value>, out: &mut Differing) {
    if kafka == corelog {
        return;
    }
    match (kafka, corelog) {
        (Some(kafka @ Value::Struct(a)), Some(corelog @ Value::Struct(b))) => {
            let (code, other) = (error_code(kafka), error_code(corelog));
            let mut names: BTreeSet<&str> = a.iter().chain(b).map(|field| field.0.as_str()).collect();
            if code != other {
                // All else follows from the one being an error and the other another one, or none.
                names.retain(|name| *name == ERROR_CODE);
            }
            let dot = if code == other && code.is_some_and(|code| code != 0) { OF_ERROR } else { "." };
            for name in names {
                let at = match (path, dot) {
                    ("", ".") => name.to_owned(),
                    (path, dot) => format!("{path}{dot}{name}"),
                };
                differ(&at, name, kafka.field(name), corelog.field(name), out);
            }
        }
        (Some(Value::List(a)), Some(Value::List(b))) => {
            let (a, b) = (by_key(name, a), by_key(name, b));
            let mut keys: Vec<&String> = a.iter().map(|element| &element.0).collect();
            keys.extend(
                b.iter().map(|element| &element.0).filter(|key| !a.iter().any(|(other, _)| other == *key)),
            );
            let of = |list: &[(String, Value)], key| {
                list.iter().find(|(other, _)| other == key).map(|e| e.1.clone())
            };
            for key in keys {
                differ(&format!("{path}[{key}]"), name, of(&a, key).as_ref(), of(&b, key).as_ref(), out);
            }
        }
        _ => out.push((path.to_owned(), show(name, kafka), show(name, corelog))),
    }
}

fn error_code(value: &Value) -> Option<i64> {
    value.field(ERROR_CODE).and_then(Value::number)
}

fn show(name: &str, value: Option<&Value>) -> String {
    match value {
        None => NOT_THERE.into(),
        Some(value) if name.ends_with("error_code") => match value.number() {
            Some(code) => format!("{code} {}", ErrorCode(code as i16).name()),
            None => value.to_string(),
        },
        Some(value) => value.to_string(),
    }
}

/// The elements by their keys, or by their position where they have none.
fn by_key(list_name: &str, list: &[Value]) -> Vec<(String, Value)> {
    let mut keyed: Vec<(String, Value)> = Vec::new();
    for (i, element) in list.iter().enumerate() {
        let key = if IN_ORDER.contains(&list_name) { None } else { key_of(element) };
        let key = key.unwrap_or_else(|| i.to_string());
        let same = keyed.iter().filter(|(other, _)| other.split('#').next() == Some(&key)).count();
        let key = if same > 0 { format!("{key}#{}", same + 1) } else { key };
        keyed.push((key, element.clone()));
    }
    keyed
}

fn key_of(element: &Value) -> Option<String> {
    KEYS.iter().find_map(|key| match element.field(key)? {
        Value::Text(text) if !text.is_empty() => Some(text.clone()),
        Value::Scalar(text) if *key == "api_key" => {
            let api = text.parse().ok().and_then(corelog_wire::ApiKey::from_i16);
            Some(api.map_or_else(|| text.clone(), |api| api.name().to_owned()))
        }
        Value::Scalar(text) => Some(text.clone()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&str, &str)]) -> Value {
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::scalar(value));
        Value::Struct(fields.iter().map(field).collect())
    }

    fn differences(kafka: Value, corelog: Value) -> Vec<String> {
        let entry = |value| Entry { step: "asked".into(), version: 3, value };
        let found = compare("case", &[entry(kafka)], &[entry(corelog)]);
        found.into_keys().map(|d| format!("{} {}: {} {}", d.case, d.field, d.kafka, d.corelog)).collect()
    }

    #[test]
    fn fields_that_differ_are_named_one_by_one() {
        let kafka = fields(&[("a", "1"), ("b", "2"), ("c", "3")]);
        let corelog = fields(&[("a", "1"), ("b", "5")]);
        assert_eq!(differences(kafka.clone(), corelog), ["case / asked b: 2 5", "case / asked c: 3 absent"]);
        assert!(differences(kafka.clone(), kafka).is_empty());
    }

    #[test]
    fn what_follows_from_an_error_is_not_told() {
        let kafka = fields(&[("error_code", "0"), ("offset", "7")]);
        let corelog = fields(&[("error_code", "87"), ("offset", "-1")]);
        assert_eq!(differences(kafka, corelog), ["case / asked error_code: 0 NONE 87 INVALID_RECORD"]);
    }

    #[test]
    fn fields_of_an_error_are_told_apart() {
        let answer = |code, offset| {
            let partition = fields(&[("index", "4"), ("error_code", code), ("offset", offset)]);
            Value::Struct(vec![("partitions".into(), Value::List(vec![partition]))])
        };
        let of = |code| differences(answer(code, "7"), answer(code, "-1"));
        assert_eq!(of("87"), ["case / asked partitions[4]!offset: 7 -1"]);
        assert_eq!(of("0"), ["case / asked partitions[4].offset: 7 -1"]);
    }

    #[test]
    fn elements_are_found_by_their_keys() {
        let list = |names: &[&str]| {
            Value::List(names.iter().map(|name| fields(&[("index", name), ("value", name)])).collect())
        };
        let of = |names| Value::Struct(vec![("partitions".into(), list(names))]);
        assert!(differences(of(&["1", "2"]), of(&["2", "1"])).is_empty());
        assert_eq!(
            differences(of(&["1", "2"]), of(&["2", "2"])),
            [
                "case / asked partitions[1]: {index: 1, value: 1} absent",
                "case / asked partitions[2#2]: absent {index: 2, value: 2}"
            ]
        );
    }
}
