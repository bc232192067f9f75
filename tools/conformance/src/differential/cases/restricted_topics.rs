//! Topics that do not take all: the coordinators' own, compacted ones, and those that want more replicas than there are.

use super::super::Case;
use super::super::session::Session;
use super::fetch::fetch_all;
use super::produce::{served, to};
use super::records::{TIME, batch, rich};
use anyhow::Result;
use bytes::Bytes;
use corelog_wire::Str;
use corelog_wire::messages::create_partitions_request::Topic as PartitionsTopic;
use corelog_wire::messages::delete_records_request::{Partition, Topic as RecordsTopic};
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::{CreatePartitionsRequest, DeleteRecordsRequest, DeleteTopicsRequest};
use corelog_wire::produce::ProduceRequest;
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression};

pub const CASES: &[Case] = &[
    Case { name: "internal topic", run: internal },
    Case { name: "compacted topic", run: compacted },
    Case { name: "topic with too few replicas", run: too_few_replicas },
];

fn delete_records(name: &Str, offset: i64) -> DeleteRecordsRequest {
    let partition = Partition { partition_index: 0, offset };
    let topic = RecordsTopic { name: name.clone(), partitions: vec![partition] };
    DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 }
}

fn internal(s: &mut Session) -> Result<()> {
    s.group("g")?;
    let offsets = s.await_topic(&Str::from_static("__consumer_offsets"), 5)?;
    learn(s, &offsets.name);
    for v in served(s) {
        s.ask("produce", v, &to(v, &offsets, 0, keyed(Compression::None)));
    }
    s.each("delete records", |_| delete_records(&offsets.name, 0));
    s.each("fewer partitions", |_| CreatePartitionsRequest {
        topics: vec![PartitionsTopic { name: offsets.name.clone(), count: 3, assignments: None }],
        timeout_ms: 30_000,
        validate_only: true,
    });
    Ok(())
}

/// Only so that the id is known.
fn learn(s: &mut Session, name: &Str) {
    use corelog_wire::messages::metadata_request::{MetadataRequest, Topic};
    let named = Topic { name: Some(name.clone()), ..Default::default() };
    s.ask("learn the id", 12, &MetadataRequest { topics: Some(vec![named]), ..Default::default() });
}

/// Three records with keys.
fn keyed(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { encoding: codec.into(), ..Default::default() });
    for key in ["a", "b", "a"] {
        builder.append(TIME, Some(key.as_bytes()), Some(b"value"), &[]).expect("it is small");
    }
    builder.build().expect("it has records")
}

fn compacted(s: &mut Session) -> Result<()> {
    for policy in ["compact", "compact,delete"] {
        let name = policy.replace(',', "-");
        let t = s.topic(&name, 1, &[("cleanup.policy", policy)])?;
        fetch_all(s, &format!("{name}: learn the id"), &t, 0);
        for v in served(s) {
            s.ask(&format!("{name}: keys"), v, &to(v, &t, 0, keyed(Compression::None)));
            s.ask(&format!("{name}: keys, compressed"), v, &to(v, &t, 0, keyed(Compression::Lz4)));
            s.ask(&format!("{name}: no keys"), v, &to(v, &t, 0, batch(&["a", "b"])));
            s.ask(&format!("{name}: some keys"), v, &to(v, &t, 0, rich()));
        }
        fetch_all(s, &format!("{name}: all"), &t, 0);
        s.each(&format!("{name}: delete records"), |_| delete_records(&t.name, 1));
    }
    Ok(())
}

fn too_few_replicas(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[("min.insync.replicas", "2")])?;
    fetch_all(s, "learn the id", &t, 0);
    for v in served(s) {
        for acks in [-1, 1] {
            let request = ProduceRequest { acks, ..to(v, &t, 0, batch(&["a"])) };
            s.ask(&format!("acks {acks}"), v, &request);
        }
    }
    fetch_all(s, "all", &t, 0);
    let named = State { name: Some(t.name.clone()), ..Default::default() };
    s.ask(
        "delete it",
        6,
        &DeleteTopicsRequest { topics: vec![named], timeout_ms: 30_000, ..Default::default() },
    );
    Ok(())
}
