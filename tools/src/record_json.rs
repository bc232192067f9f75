//! Records as JSON, a line each: what `consume --json` prints is what `produce --input json` takes.
//!
//! `{"topic", "partition", "offset", "timestamp", "key", "value", "headers": [{"key", "value"}]}`. Bytes that are not UTF-8 come
//! as `key_base64`, `value_base64`.

use bytes::Bytes;
use corelog_client::{ConsumerRecord, ProducerRecord, RecordHeader};
use serde_json::{Map, Value, json};

pub fn of(record: &ConsumerRecord) -> Value {
    let mut object = Map::new();
    object.insert("topic".into(), json!(record.topic.as_str()));
    object.insert("partition".into(), json!(record.partition));
    object.insert("offset".into(), json!(record.offset));
    object.insert("timestamp".into(), json!(record.timestamp));
    put(&mut object, "key", &record.key);
    put(&mut object, "value", &record.value);
    let header = |header: &RecordHeader| {
        let mut object = Map::new();
        put(&mut object, "key", &Some(header.key.clone()));
        put(&mut object, "value", &header.value);
        Value::Object(object)
    };
    object.insert("headers".into(), Value::Array(record.headers.iter().map(header).collect()));
    Value::Object(object)
}

/// Bytes as a field: text, or in base64 under another name.
pub fn put(object: &mut Map<String, Value>, name: &str, bytes: &Option<Bytes>) {
    match bytes.as_deref().map(std::str::from_utf8) {
        None => object.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => object.insert(name.to_owned(), json!(text)),
        Some(Err(_)) => {
            let encoded = base64(bytes.as_deref().unwrap_or_default());
            object.insert(format!("{name}_base64"), json!(encoded))
        }
    };
}

/// A record for `topic` from a line. Offset and topic in it are not looked at; nor is the partition, unless wanted.
pub fn parse(line: &str, topic: &str, keep_partition: bool) -> Result<ProducerRecord, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let Value::Object(object) = value else { return Err("a record is an object: {\"value\": ...}".into()) };
    const KNOWN: [&str; 10] = [
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        "key_base64",
        "value",
        "value_base64",
        "headers",
        "leader_epoch",
    ];
    if let Some(unknown) = object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!("{unknown:?} is not known: a record has {}", KNOWN.join(", ")));
    }
    let mut record = ProducerRecord::to(topic);
    record.key = take(&object, "key")?;
    record.value = take(&object, "value")?;
    record.timestamp = match object.get("timestamp") {
        None | Some(Value::Null) => None,
        Some(value) => {
            Some(value.as_i64().ok_or("timestamp is a number of milliseconds")?).filter(|it| *it >= 0)
        }
    };
    if keep_partition && let Some(partition) = object.get("partition") {
        let number = partition.as_i64().and_then(|partition| i32::try_from(partition).ok());
        record.partition = Some(number.ok_or("partition is a number")?);
    }
    match object.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Array(headers)) => {
            for header in headers {
                let object =
                    header.as_object().ok_or("a header is an object: {\"key\": ..., \"value\": ...}")?;
                let key = take(object, "key")?.ok_or("a header has a key")?;
                record.headers.push(RecordHeader { key, value: take(object, "value")? });
            }
        }
        Some(Value::Object(headers)) => {
            for (key, value) in headers {
                let value = value.as_str().ok_or("a header's value is a string")?;
                record
                    .headers
                    .push(RecordHeader { key: key.clone().into(), value: Some(value.to_owned().into()) });
            }
        }
        Some(_) => return Err("headers are an array of {\"key\", \"value\"}, or an object".into()),
    }
    Ok(record)
}

fn take(object: &Map<String, Value>, name: &str) -> Result<Option<Bytes>, String> {
    if let Some(encoded) = object.get(&format!("{name}_base64")) {
        let decoded = encoded.as_str().and_then(from_base64);
        return decoded.map(|bytes| Some(bytes.into())).ok_or(format!("{name}_base64 is no base64"));
    }
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone().into())),
        // Whoever writes {"value": {"a": 1}} means that document.
        Some(other) => Ok(Some(other.to_string().into())),
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            match at <= three.len() {
                true => text.push(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63].into()),
                false => text.push('='),
            }
        }
    }
    text
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in digits.chunks(4) {
        let mut bits = 0u32;
        for digit in four {
            bits = bits << 6 | ALPHABET.iter().position(|letter| letter == digit)? as u32;
        }
        bits <<= 6 * (4 - four.len());
        bytes.extend(&bits.to_be_bytes()[1..four.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_client::TimestampType;

    #[test]
    fn base64_is_the_standard_one() {
        // RFC 4648, section 10.
        for (plain, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(plain.as_bytes()), encoded);
            assert_eq!(from_base64(encoded), Some(plain.as_bytes().to_vec()));
        }
        for wrong in ["Z", "Zg=", "Zg===", "Z!==", "===="] {
            assert_eq!(from_base64(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_printed_can_be_produced() {
        let record = ConsumerRecord {
            topic: "t".into(),
            partition: 2,
            offset: 7,
            timestamp: 1500,
            timestamp_type: TimestampType::CreateTime,
            key: Some(Bytes::from_static(&[0xff, 0])),
            value: None,
            headers: vec![RecordHeader { key: "h".into(), value: Some("x\n".into()) }],
            leader_epoch: Some(1),
        };
        let line = of(&record).to_string();
        let parsed = parse(&line, "u", true).unwrap();
        let expected =
            ProducerRecord::to("u").partition(2).key(vec![0xff, 0]).header("h", "x\n").timestamp(1500);
        assert_eq!(parsed, expected);
        assert_eq!(parse(&line, "u", false).unwrap().partition, None);
        assert_eq!(parse(r#"{"value": {"a": 1}}"#, "u", false).unwrap().value.unwrap(), r#"{"a":1}"#);
        for wrong in ["", "[]", r#"{"valeu": 1}"#, r#"{"headers": 1}"#, r#"{"key_base64": "?"}"#] {
            assert!(parse(wrong, "u", false).is_err(), "{wrong}");
        }
    }
}
