//! Puts marks in place of what two brokers cannot give alike: ids, ports, times, sizes of disks, the wording of messages for people.
//!
//! A mark says as much as can be compared: `<id of t>` is the id that the broker has shown for topic t, `<now>` a time within
//! minutes of now, `<text>` some text where the other answer might have none.

use crate::clock::now_ms;
use crate::value::Value;
use bytes::Bytes;
use corelog_wire::Uuid;
use corelog_wire::records::{Record, split_batches, with_scratch};
use std::collections::HashMap;

/// An id that no topic has.
pub const NOWHERE: Uuid = Uuid([7; 16]);

const NOW_TOLERANCE_MS: i64 = 120_000;
const UUID_LEN: usize = 36;
const DECOMPRESSED_MAX: usize = 64 << 20;

/// What one broker has shown to one case so far.
pub struct Marks {
    port: u16,
    topic_ids: HashMap<String, String>,
    names_seen: HashMap<String, usize>,
    uuids: HashMap<String, usize>,
    producer_ids: HashMap<i64, usize>,
    sessions: HashMap<i64, usize>,
}

impl Marks {
    pub fn new(port: u16) -> Self {
        Marks {
            port,
            topic_ids: HashMap::new(),
            names_seen: HashMap::new(),
            uuids: HashMap::new(),
            producer_ids: HashMap::new(),
            sessions: HashMap::new(),
        }
    }

    pub fn normalise(&mut self, mut value: Value) -> Value {
        self.learn_topic_ids(&value);
        self.walk("", &mut value);
        value
    }

    fn learn_topic_ids(&mut self, value: &Value) {
        match value {
            Value::List(list) => list.iter().for_each(|value| self.learn_topic_ids(value)),
            Value::Struct(fields) => {
                fields.iter().for_each(|field| self.learn_topic_ids(&field.1));
                let name = value.field("name").or_else(|| value.field("topic"));
                let error = value.field("error_code").and_then(Value::number);
                if let (Some(Value::Text(name)), Some(Value::Scalar(id)), Some(0)) =
                    (name, value.field("topic_id"), error)
                    && !name.is_empty()
                    && *id != Uuid::ZERO.to_string()
                    && !self.topic_ids.contains_key(id)
                {
                    let seen = self.names_seen.entry(name.clone()).or_insert(0);
                    *seen += 1;
                    let mark =
                        if *seen == 1 { format!("<id of {name}>") } else { format!("<id {seen} of {name}>") };
                    self.topic_ids.insert(id.clone(), mark);
                }
            }
            _ => {}
        }
    }

    fn walk(&mut self, name: &str, value: &mut Value) {
        match value {
            Value::Null => {}
            Value::Scalar(text) => {
                if let Some(mark) = self.mark_scalar(name, text) {
                    *text = without_version(&mark);
                }
            }
            Value::Text(text) => {
                if let Some(mark) = mark_text(name, text) {
                    *value = Value::scalar(mark);
                } else {
                    self.mark_uuids(text);
                    *text = without_version(text);
                }
            }
            Value::List(parts)
                if name == "records" && parts.iter().all(|part| matches!(part, Value::Bytes(_))) =>
            {
                let bytes: Vec<u8> = parts
                    .iter()
                    .flat_map(|part| match part {
                        Value::Bytes(bytes) => bytes.as_slice(),
                        _ => &[],
                    })
                    .copied()
                    .collect();
                *value = batches(bytes);
                self.walk("batches", value);
            }
            Value::List(list) => list.iter_mut().for_each(|element| self.walk(name, element)),
            Value::Bytes(_) => {}
            Value::Struct(fields) => fields.iter_mut().for_each(|(name, value)| self.walk(name, value)),
        }
    }

    fn mark_scalar(&mut self, name: &str, text: &str) -> Option<String> {
        let number = text.parse::<i64>().ok();
        let next = |seen: &mut HashMap<i64, usize>, number| {
            let next = seen.len() + 1;
            *seen.entry(number).or_insert(next)
        };
        match (name, number) {
            ("topic_id", _) if text == Uuid::ZERO.to_string() => None,
            ("topic_id", _) if text == NOWHERE.to_string() => Some("<id of nothing>".into()),
            ("topic_id", _) => Some(self.topic_ids.get(text).map_or("<some id>", String::as_str).to_owned()),
            ("port", Some(port)) if port == i64::from(self.port) => Some("<port>".into()),
            ("session_id", Some(id)) if id > 0 => Some(format!("<session {}>", next(&mut self.sessions, id))),
            // Small ids are those that cases make up.
            ("producer_id", Some(id)) if (0..MADE_UP_PRODUCER_ID).contains(&id) => {
                Some(format!("<producer {}>", next(&mut self.producer_ids, id)))
            }
            ("total_bytes" | "usable_bytes", Some(1..)) => Some("<bytes>".into()),
            ("finalized_features_epoch", Some(0..)) => Some("<epoch>".into()),
            ("log_append_time_ms" | "timestamp" | "base_timestamp" | "max_timestamp", Some(time))
                if (time - now_ms()).abs() < NOW_TOLERANCE_MS =>
            {
                Some("<now>".into())
            }
            _ => None,
        }
    }

    /// Ids within text: those of group members.
    fn mark_uuids(&mut self, text: &mut String) {
        let mut at = 0;
        while at + UUID_LEN <= text.len() {
            if text.is_char_boundary(at) && is_uuid(&text.as_bytes()[at..at + UUID_LEN]) {
                let next = self.uuids.len() + 1;
                let number = *self.uuids.entry(text[at..at + UUID_LEN].to_owned()).or_insert(next);
                let mark = format!("<uuid {number}>");
                text.replace_range(at..at + UUID_LEN, &mark);
                at += mark.len();
            } else {
                at += 1;
            }
        }
    }
}

/// Producer ids from here on are made up by cases; brokers give out smaller ones.
pub const MADE_UP_PRODUCER_ID: i64 = 1 << 40;

/// Names that a case makes for one version alone end with it: `-vN` stands in its place.
fn without_version(text: &str) -> String {
    let mut parts = text.split("-v");
    let mut marked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        marked.push_str(if rest.len() < part.len() { "-vN" } else { "-v" });
        marked.push_str(rest);
    }
    marked
}

fn mark_text(name: &str, text: &str) -> Option<&'static str> {
    match name {
        _ if text.is_empty() => None,
        "error_message" | "batch_index_error_message" | "documentation" => Some("<text>"),
        "cluster_id" => Some("<cluster id>"),
        "log_dir" => Some("<path>"),
        _ => None,
    }
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.iter().enumerate().all(|(i, byte)| match i {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}

/// Fetched record batches with their records. Lengths and checksums are left out: they differ where a broker compresses.
fn batches(bytes: Vec<u8>) -> Value {
    let bytes = Bytes::from(bytes);
    let list = split_batches(&bytes).map(|batch| match batch {
        Ok(batch) => with_scratch(|scratch| {
            let h = *batch.header();
            let records = match batch.records(scratch, DECOMPRESSED_MAX) {
                Ok(records) => records
                    .map(|record| record.map_or_else(Value::scalar, |record| record_value(&record)))
                    .collect(),
                Err(e) => vec![Value::scalar(e)],
            };
            fields([
                ("base_offset", Value::scalar(h.base_offset)),
                ("partition_leader_epoch", Value::scalar(h.partition_leader_epoch)),
                ("magic", Value::scalar(h.magic)),
                ("checksum_holds", Value::scalar(batch.verify_checksum().is_ok())),
                ("attributes", Value::scalar(h.attributes)),
                ("last_offset_delta", Value::scalar(h.last_offset_delta)),
                ("base_timestamp", Value::scalar(h.base_timestamp)),
                ("max_timestamp", Value::scalar(h.max_timestamp)),
                ("producer_id", Value::scalar(h.producer_id)),
                ("producer_epoch", Value::scalar(h.producer_epoch)),
                ("base_sequence", Value::scalar(h.base_sequence)),
                ("records_count", Value::scalar(h.records_count)),
                ("records", Value::List(records)),
            ])
        }),
        Err(e) => Value::scalar(format!("<no batch: {e}>")),
    });
    Value::List(list.collect())
}

fn record_value(record: &Record<'_>) -> Value {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| Value::Bytes(bytes.to_vec()));
    let headers = record.headers().map(|h| fields([("key", bytes(Some(h.key))), ("value", bytes(h.value))]));
    fields([
        ("offset_delta", Value::scalar(record.offset_delta)),
        ("timestamp_delta", Value::scalar(record.timestamp_delta)),
        ("key", bytes(record.key)),
        ("value", bytes(record.value)),
        ("headers", Value::List(headers.collect())),
    ])
}

fn fields<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Struct(fields.map(|(name, value)| (name.to_owned(), value)).into())
}
