use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::{SILENCE, Session, Topic, produce_request};
use super::fetch::fetch_all;
use super::records::{TIME, batch, batch_at, build, compressed, of_size, rich, with_header};
use crate::clock::now_ms;
use crate::connection::ANSWER_TIMEOUT;
use anyhow::Result;
use bytes::Bytes;
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchOptions, Compression};
use corelog_wire::{Str, Uuid};

pub const CASES: &[Case] = &[
    Case { name: "produce", run: plain },
    Case { name: "produce acks", run: acks },
    Case { name: "produce to nowhere", run: nowhere },
    Case { name: "produce many partitions", run: many },
    Case { name: "produce compressed", run: codecs },
    Case { name: "produce timestamps", run: timestamps },
    Case { name: "produce log append time", run: log_append_time },
    Case { name: "produce too large", run: too_large },
    Case { name: "produce to a compressing topic", run: compressing_topic },
    Case { name: "produce transactional", run: transactional },
];

const TOPIC_IDS: i16 = 13;
/// In ms: the year 2096.
const FAR_FUTURE: i64 = 4_000_000_000_000;

/// By name or by id, as the version wants it.
pub fn to(version: i16, topic: &Topic, partition: i32, records: Bytes) -> ProduceRequest {
    let id = if version >= TOPIC_IDS { topic.id } else { Uuid::ZERO };
    let name = if version >= TOPIC_IDS { Str::new() } else { topic.name.clone() };
    produce_request(&name, id, partition, -1, records)
}

fn learn(s: &mut Session, topic: &Topic) {
    fetch_all(s, "learn the id", topic, 0);
}

/// The versions that Kafka offers and serves: it offers 0 to 2 only so that old librdkafka compresses (KAFKA-18659).
pub fn served(s: &Session) -> std::ops::RangeInclusive<i16> {
    3..=s.newest::<ProduceRequest>()
}

fn plain(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[])?;
    learn(s, &topic);
    for v in served(s) {
        s.ask("three records", v, &to(v, &topic, 0, batch(&["a", "b", "c"])));
        s.ask("all kinds of records", v, &to(v, &topic, 0, rich()));
    }
    // What a producer calls its base offset and leader epoch is nobody's business.
    let odd = with_header(&batch(&["x"]), |header| {
        header.base_offset = 1234;
        header.partition_leader_epoch = 99;
    });
    s.ask("odd base offset", 9, &to(9, &topic, 0, odd));
    fetch_all(s, "all", &topic, 0);
    Ok(())
}

fn acks(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[])?;
    learn(s, &topic);
    for v in served(s) {
        for acks in [1, -1, 2, -2, i16::MAX] {
            let request = ProduceRequest { acks, ..to(v, &topic, 0, batch(&["a"])) };
            s.ask(&format!("acks {acks}"), v, &request);
        }
    }
    let newest = s.newest::<ProduceRequest>();
    for v in [3, 9, newest] {
        s.send_silent(
            "acks 0",
            v,
            &ProduceRequest { acks: 0, ..to(v, &topic, 0, batch(&["silent"])) },
            SILENCE,
        )?;
    }
    // There is no answer to carry an error: the connection is closed instead.
    for v in [3, 9, newest] {
        let broken = super::records::with_bytes(&batch(&["a"]), 17, &[0, 0, 0, 0]);
        s.send_silent(
            "acks 0 and a bad checksum",
            v,
            &ProduceRequest { acks: 0, ..to(v, &topic, 0, broken) },
            ANSWER_TIMEOUT,
        )?;
    }
    fetch_all(s, "all", &topic, 0);
    Ok(())
}

fn nowhere(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 2, &[])?;
    learn(s, &topic);
    let missing = s.name("missing");
    for v in served(s) {
        for partition in [2, -1, i32::MAX] {
            s.ask(&format!("partition {partition}"), v, &to(v, &topic, partition, batch(&["a"])));
        }
        if v < TOPIC_IDS {
            s.ask("unknown topic", v, &produce_request(&missing, Uuid::ZERO, 0, -1, batch(&["a"])));
            s.ask("bad name", v, &produce_request(&"a/b".into(), Uuid::ZERO, 0, -1, batch(&["a"])));
            s.ask("no name", v, &produce_request(&Str::new(), Uuid::ZERO, 0, -1, batch(&["a"])));
        } else {
            s.ask("unknown id", v, &produce_request(&Str::new(), NOWHERE, 0, -1, batch(&["a"])));
            s.ask("no id", v, &produce_request(&Str::new(), Uuid::ZERO, 0, -1, batch(&["a"])));
        }
        s.ask("no topics", v, &ProduceRequest { acks: -1, timeout_ms: 1000, ..Default::default() });
        let mut empty = to(v, &topic, 0, Bytes::new());
        s.ask("empty records", v, &empty);
        empty.topic_data[0].partition_data[0].records = None;
        s.ask_in_vain("null records", v, &empty);
        empty.topic_data[0].partition_data.clear();
        s.ask("no partitions", v, &empty);
    }
    Ok(())
}

/// Each partition succeeds or fails by itself.
fn many(s: &mut Session) -> Result<()> {
    let a = s.topic("a", 3, &[])?;
    let b = s.topic("b", 1, &[])?;
    learn(s, &a);
    learn(s, &b);
    let broken = super::records::with_bytes(&batch(&["a"]), 17, &[0, 0, 0, 0]);
    for v in served(s) {
        let topic = |topic: &Topic, partitions: &[(i32, &Bytes)]| TopicProduceData {
            name: if v >= TOPIC_IDS { Str::new() } else { topic.name.clone() },
            topic_id: if v >= TOPIC_IDS { topic.id } else { Uuid::ZERO },
            partition_data: partitions
                .iter()
                .map(|(index, records)| PartitionProduceData {
                    index: *index,
                    records: Some((*records).clone()),
                })
                .collect(),
        };
        let good = batch(&["x", "y"]);
        let request =
            |topic_data| ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 30_000, topic_data };
        s.ask("all good", v, &request(vec![topic(&a, &[(2, &good), (0, &good)]), topic(&b, &[(0, &good)])]));
        s.ask(
            "some bad",
            v,
            &request(vec![topic(&a, &[(0, &good), (1, &broken), (9, &good)]), topic(&b, &[(0, &good)])]),
        );
    }
    for partition in 0..3 {
        fetch_all(s, &format!("a {partition}"), &a, partition);
    }
    fetch_all(s, "b", &b, 0);
    Ok(())
}

fn codecs(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[])?;
    learn(s, &topic);
    for codec in Compression::ALL {
        for v in served(s) {
            s.ask(codec.name(), v, &to(v, &topic, 0, compressed(codec, &["aaaaaaaaaaaaaaaaaaaaaaaa", "b"])));
        }
    }
    fetch_all(s, "all", &topic, 0);
    Ok(())
}

fn timestamps(s: &mut Session) -> Result<()> {
    let hour = 3_600_000;
    let free = s.topic("free", 1, &[])?;
    let strict = s.topic(
        "strict",
        1,
        &[("message.timestamp.before.max.ms", "60000"), ("message.timestamp.after.max.ms", "60000")],
    )?;
    learn(s, &free);
    learn(s, &strict);
    for v in served(s) {
        for (step, time) in [
            ("an hour ago", now_ms() - hour),
            ("half an hour ahead", now_ms() + hour / 2),
            ("two hours ahead", now_ms() + 2 * hour),
            ("0", 0),
            ("-1", -1),
            ("-2", -2),
            ("greatest", i64::MAX - 5),
        ] {
            s.ask(&format!("free: {step}"), v, &to(v, &free, 0, batch_at(time, &["a", "b"])));
            s.ask(&format!("strict: {step}"), v, &to(v, &strict, 0, batch_at(time, &["a", "b"])));
        }
        s.ask("strict: now", v, &to(v, &strict, 0, batch_at(now_ms(), &["a", "b"])));
        // The second record is the one that is too late.
        let mut mixed = corelog_wire::records::BatchBuilder::new(BatchOptions::default());
        for time in [now_ms(), now_ms() + 2 * hour, now_ms(), now_ms() + 3 * hour] {
            mixed.append(time, None, Some(b"m"), &[])?;
        }
        s.ask("two of four too late", v, &to(v, &free, 0, mixed.build()?));
        let lying = with_header(&batch_at(now_ms(), &["a"]), |header| header.max_timestamp = TIME);
        s.ask("another greatest time in the header", v, &to(v, &free, 0, lying));
    }
    Ok(())
}

fn log_append_time(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    learn(s, &topic);
    for v in served(s) {
        s.ask("old records", v, &to(v, &topic, 0, batch(&["a", "b"])));
        s.ask("records without time", v, &to(v, &topic, 0, batch_at(-1, &["c"])));
        s.ask("far in the future", v, &to(v, &topic, 0, batch_at(FAR_FUTURE, &["d"])));
        s.ask("compressed", v, &to(v, &topic, 0, compressed(Compression::Lz4, &["e", "f"])));
    }
    let claimed = build(BatchOptions { log_append_time: Some(5), ..Default::default() }, TIME, &["g"]);
    let newest = s.newest::<ProduceRequest>();
    s.ask("claims to be so", newest, &to(newest, &topic, 0, claimed.clone()));
    fetch_all(s, "all", &topic, 0);
    let other = s.topic("create-time", 1, &[])?;
    learn(s, &other);
    s.ask("claims to be so, and may not", newest, &to(newest, &other, 0, claimed));
    fetch_all(s, "what became of it", &other, 0);
    Ok(())
}

fn too_large(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[("max.message.bytes", "1000")])?;
    let zero = s.topic("zero", 1, &[("max.message.bytes", "0")])?;
    let usual = s.topic("usual", 1, &[])?;
    for topic in [&topic, &zero, &usual] {
        learn(s, topic);
    }
    for v in served(s) {
        for size in [999, 1000, 1001, 5000] {
            s.ask(&format!("{size} bytes of 1000"), v, &to(v, &topic, 0, of_size(size)));
        }
        s.ask("any of 0", v, &to(v, &zero, 0, batch(&["a"])));
        // Limits hold for what is sent, compressed or not.
        s.ask(
            "compressed to less",
            v,
            &to(v, &topic, 0, compressed(Compression::Gzip, &[&"x".repeat(5000)])),
        );
    }
    for v in [3, 9, 13] {
        s.ask("the default limit", v, &to(v, &usual, 0, of_size(1_048_588)));
        s.ask("one byte more", v, &to(v, &usual, 0, of_size(1_048_589)));
    }
    Ok(())
}

fn compressing_topic(s: &mut Session) -> Result<()> {
    for name in ["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"] {
        let topic = s.topic(name, 1, &[("compression.type", name)])?;
        learn(s, &topic);
        for codec in Compression::ALL {
            s.ask(
                &format!("{codec} to {name}"),
                9,
                &to(9, &topic, 0, compressed(codec, &["aaaaaaaaaaaaaaaaaa", "b"])),
            );
        }
        fetch_all(s, &format!("all of {name}"), &topic, 0);
    }
    Ok(())
}

/// Without a transaction.
fn transactional(s: &mut Session) -> Result<()> {
    let topic = s.topic("t", 1, &[])?;
    learn(s, &topic);
    for v in [3, 9, 11] {
        let id = Some(Str::from("nobody"));
        s.ask(
            "transactional id with plain records",
            v,
            &ProduceRequest { transactional_id: id.clone(), ..to(v, &topic, 0, batch(&["a"])) },
        );
    }
    Ok(())
}
