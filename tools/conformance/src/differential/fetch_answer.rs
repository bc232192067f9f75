//! A Fetch answer in a form that can be compared: the order of its partitions has a meaning, and the division into topics has not.

use crate::value::Value;

/// Gives the order of the partitions that have records a field of its own, and brings together what is of one topic.
///
/// Limits are kept in the order of the request (KIP-74). Partitions that are refused take nothing of them: Kafka puts these last, as
/// further elements for topics that it has answered already.
pub fn arranged(mut value: Value) -> Value {
    let Value::Struct(fields) = &mut value else { return value };
    let Some((_, Value::List(topics))) = fields.iter_mut().find(|field| field.0 == "responses") else {
        return value;
    };
    let mut order = Vec::new();
    let mut together: Vec<(String, Value)> = Vec::new();
    for mut topic in std::mem::take(topics) {
        let name = name(&topic);
        let Some(partitions) = partitions(&mut topic) else { continue };
        for partition in partitions.iter() {
            if has_records(partition) {
                let index = partition.field("partition_index").and_then(Value::number).unwrap_or(-1);
                order.push(format!("{name} {index}"));
            }
        }
        let more = std::mem::take(partitions);
        match together.iter_mut().find(|(other, _)| *other == name) {
            Some((_, first)) => {
                if let Some(partitions) = self::partitions(first) {
                    partitions.extend(more);
                }
            }
            None => {
                *partitions = more;
                together.push((name, topic));
            }
        }
    }
    *topics = together.into_iter().map(|(_, topic)| topic).collect();
    fields.push(("order".into(), Value::scalar(order.join(", "))));
    value
}

/// As the answer has it: by name, or by id.
fn name(topic: &Value) -> String {
    let name = topic.field("topic").filter(|name| !name.is_empty()).or_else(|| topic.field("topic_id"));
    name.map_or_else(String::new, Value::to_string)
}

/// Whole batches, not only a stump: Kafka cuts the last batch off where the limit falls.
fn has_records(partition: &Value) -> bool {
    let Some(Value::List(batches)) = partition.field("records") else { return false };
    batches.iter().any(|batch| matches!(batch, Value::Struct(_)))
}

fn partitions(topic: &mut Value) -> Option<&mut Vec<Value>> {
    let Value::Struct(fields) = topic else { return None };
    match fields.iter_mut().find(|field| field.0 == "partitions") {
        Some((_, Value::List(partitions))) => Some(partitions),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, Value)]) -> Value {
        Value::Struct(fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn one_topic_is_one_element() {
        let partition = |index: i32, batches: &[Value]| {
            of(&[("partition_index", Value::scalar(index)), ("records", Value::List(batches.into()))])
        };
        let some = [of(&[]), Value::scalar("<no batch>")];
        let topic = |name: &str, partitions: &[Value]| {
            of(&[("topic", Value::Text(name.into())), ("partitions", Value::List(partitions.into()))])
        };
        let answer = |topics: &[Value]| of(&[("responses", Value::List(topics.into()))]);
        let scattered = answer(&[
            topic("t", &[partition(2, &some)]),
            topic("u", &[partition(0, &some)]),
            topic("t", &[partition(1, &some), partition(9, &some[1..])]),
        ]);
        let together = answer(&[
            topic("t", &[partition(2, &some), partition(1, &some), partition(9, &some[1..])]),
            topic("u", &[partition(0, &some)]),
        ]);
        let scattered = arranged(scattered);
        assert_eq!(scattered.field("order"), Some(&Value::scalar(r#""t" 2, "u" 0, "t" 1"#)));
        assert_eq!(scattered.field("responses"), together.field("responses"));
        assert_eq!(arranged(together).field("order"), Some(&Value::scalar(r#""t" 2, "t" 1, "u" 0"#)));
    }
}
