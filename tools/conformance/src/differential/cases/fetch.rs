use super::super::Case;
use super::super::normalise::NOWHERE;
use super::super::session::{Session, Topic, produce_request};
use super::records::{batch, of_size};
use anyhow::Result;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::metadata_request::{MetadataRequest, Topic as MetadataTopic};
use corelog_wire::{Str, Uuid};
use std::time::{Duration, Instant};

pub const CASES: &[Case] = &[
    Case { name: "fetch", run: offsets },
    Case { name: "fetch from nowhere", run: nowhere },
    Case { name: "fetch limits", run: limits },
    Case { name: "fetch waits", run: waits },
    Case { name: "fetch epochs", run: epochs },
    Case { name: "fetch as a follower", run: follower },
    Case { name: "fetch committed", run: committed },
];

pub const TOPIC_IDS: i16 = 13;

/// By name or by id, as the version wants it.
pub fn topic_of(version: i16, topic: &Topic, partitions: Vec<FetchPartition>) -> FetchTopic {
    let by_id = version >= TOPIC_IDS;
    FetchTopic {
        topic: if by_id { Str::new() } else { topic.name.clone() },
        topic_id: if by_id { topic.id } else { Uuid::ZERO },
        partitions,
    }
}

pub fn partition(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition { partition, fetch_offset, partition_max_bytes: 1 << 20, ..Default::default() }
}

/// Does not wait, and has no session.
pub fn request(topics: Vec<FetchTopic>) -> FetchRequest {
    FetchRequest { max_wait_ms: 0, min_bytes: 0, max_bytes: 50 << 20, topics, ..Default::default() }
}

pub fn one(version: i16, topic: &Topic, index: i32, offset: i64) -> FetchRequest {
    request(vec![topic_of(version, topic, vec![partition(index, offset)])])
}

/// All of a partition, in the newest version by name and by id; before, so that the id can be told, its name.
pub fn fetch_all(s: &mut Session, step: &str, topic: &Topic, index: i32) {
    fetch_from(s, step, topic, index, 0);
}

pub fn fetch_from(s: &mut Session, step: &str, topic: &Topic, index: i32, offset: i64) {
    let named = MetadataTopic { name: Some(topic.name.clone()), ..Default::default() };
    s.ask(
        &format!("{step}: metadata"),
        12,
        &MetadataRequest { topics: Some(vec![named]), ..Default::default() },
    );
    for v in [12, s.newest::<FetchRequest>()] {
        s.ask(step, v, &one(v, topic, index, offset));
    }
}

fn versions(s: &Session) -> std::ops::RangeInclusive<i16> {
    s.versions::<FetchRequest>()
}

fn offsets(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    fetch_all(s, "empty", &t, 0);
    for values in [&["a", "b", "c"][..], &["d", "e"], &["f"]] {
        s.produce(&t, 0, batch(values))?;
    }
    fetch_all(s, "all", &t, 0);
    for v in versions(s) {
        for offset in [0, 1, 2, 3, 4, 5, 6, 7, 1_000_000, i64::MAX, -1, -2] {
            s.ask(&format!("from {offset}"), v, &one(v, &t, 0, offset));
        }
        s.ask("nothing", v, &request(Vec::new()));
        s.ask("no partitions", v, &request(vec![topic_of(v, &t, Vec::new())]));
        s.ask("twice the same", v, &request(vec![topic_of(v, &t, vec![partition(0, 0), partition(0, 3)])]));
    }
    Ok(())
}

fn nowhere(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    s.produce(&t, 0, batch(&["a"]))?;
    fetch_all(s, "learn the id", &t, 0);
    let missing = Topic { name: s.name("missing"), id: NOWHERE };
    let bad = Topic { name: "a/b".into(), id: Uuid::ZERO };
    for v in versions(s) {
        s.ask("unknown topic", v, &one(v, &missing, 0, 0));
        s.ask("bad name or no id", v, &one(v, &bad, 0, 0));
        for index in [1, -1, i32::MAX] {
            s.ask(&format!("partition {index}"), v, &one(v, &t, index, 0));
        }
        let both = vec![
            topic_of(v, &missing, vec![partition(0, 0)]),
            topic_of(v, &t, vec![partition(0, 0), partition(4, 0)]),
        ];
        s.ask("one is good", v, &request(both));
    }
    Ok(())
}

fn limits(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 3, &[])?;
    for index in 0..3 {
        for _ in 0..3 {
            s.produce(&t, index, of_size(1000))?;
        }
    }
    fetch_all(s, "learn the id", &t, 0);
    for v in versions(s) {
        let ask = |s: &mut Session, step: &str, max_bytes: i32, partition_max_bytes: i32, from: i64| {
            let partitions =
                [2, 0, 1].map(|index| FetchPartition { partition_max_bytes, ..partition(index, from) });
            s.ask(step, v, &FetchRequest { max_bytes, ..request(vec![topic_of(v, &t, partitions.into())]) });
        };
        // The first batch comes however small the limits (KIP-74), and from then on only what fits.
        for limit in [1, 999, 1000, 1001, 1999, 2000, 2999, 3000, 5000, 100_000] {
            ask(s, &format!("{limit} in all"), limit, 100_000, 0);
            ask(s, &format!("{limit} per partition"), 100_000, limit, 0);
        }
        ask(s, "1500 per partition, 2500 in all", 2500, 1500, 0);
        ask(s, "0 in all", 0, 100_000, 0);
        ask(s, "0 per partition", 100_000, 0, 0);
        ask(s, "negative", -1, -1, 0);
        ask(s, "from the end, 1 in all", 1, 100_000, 3);
    }
    Ok(())
}

fn waits(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?;
    s.produce(&t, 0, batch(&["a"]))?;
    fetch_all(s, "learn the id", &t, 0);
    let waiting = |v: i16, min_bytes: i32, max_wait_ms: i32, offset: i64| FetchRequest {
        min_bytes,
        max_wait_ms,
        ..one(v, &t, 0, offset)
    };
    for v in [4, 11, 12, s.newest::<FetchRequest>()] {
        // Whoever waits waits to the end; one that should not wait would take long.
        for (step, min_bytes, max_wait_ms, offset) in [
            ("min bytes 0 at the end", 0, 5000, 1),
            ("min bytes 1 at the end", 1, 300, 1),
            ("min bytes 1 and there is more", 1, 5000, 0),
            ("min bytes 1000 and there is less", 1000, 300, 0),
            ("an error does not wait", 1000, 5000, 99),
        ] {
            let started = Instant::now();
            s.ask(step, v, &waiting(v, min_bytes, max_wait_ms, offset));
            // Kafka's clock for it has whole milliseconds, and begins within one.
            let waited = started.elapsed() >= Duration::from_millis(max_wait_ms as u64 * 9 / 10);
            s.note(&format!("{step}, v{v}: waited"), waited);
        }
        s.ask("no wait", v, &waiting(v, 1000, 0, 0));
        // A record that comes ends the wait.
        let end = s.produce(&t, 1, batch(&["b"]))? + 1;
        let started = Instant::now();
        s.send(1, v, &FetchRequest { min_bytes: 1, max_wait_ms: 6_000, ..one(v, &t, 1, end) });
        std::thread::sleep(Duration::from_millis(50));
        s.produce(&t, 1, batch(&["c"]))?;
        let woken = s.answer::<FetchRequest>(1, "woken", v);
        let records = woken
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
            .any(|p| p.records.as_ref().is_some_and(|r| !r.is_empty()));
        s.note(
            &format!("woken, v{v}: with records and soon"),
            records && started.elapsed() < Duration::from_secs(5),
        );
    }
    Ok(())
}

fn epochs(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    s.produce(&t, 0, batch(&["a", "b"]))?;
    fetch_all(s, "learn the id", &t, 0);
    for v in 9..=s.newest::<FetchRequest>() {
        for current_leader_epoch in [0, 1, 7, -1, -2] {
            let partition = FetchPartition { current_leader_epoch, ..partition(0, 0) };
            s.ask(
                &format!("leader epoch {current_leader_epoch}"),
                v,
                &request(vec![topic_of(v, &t, vec![partition])]),
            );
        }
    }
    for v in 12..=s.newest::<FetchRequest>() {
        for (last_fetched_epoch, offset) in [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 9), (-1, 1), (-2, 1)]
        {
            let partition = FetchPartition { last_fetched_epoch, ..partition(0, offset) };
            s.ask(
                &format!("last epoch {last_fetched_epoch} at {offset}"),
                v,
                &request(vec![topic_of(v, &t, vec![partition])]),
            );
        }
    }
    Ok(())
}

/// One who is no replica.
fn follower(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    s.produce(&t, 0, batch(&["a"]))?;
    fetch_all(s, "learn the id", &t, 0);
    for v in versions(s) {
        for replica in [5, -2] {
            let mut asked = one(v, &t, 0, 0);
            if v < 15 {
                asked.replica_id = replica;
            } else {
                asked.replica_state.replica_id = replica;
            }
            s.ask(&format!("replica {replica}"), v, &asked);
        }
    }
    Ok(())
}

fn committed(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    s.quiet(9, &produce_request(&t.name, Uuid::ZERO, 0, -1, batch(&["a", "b"])))?;
    fetch_all(s, "learn the id", &t, 0);
    for v in versions(s) {
        for isolation_level in [0, 1, 2, -1] {
            for offset in [0, 2] {
                let step = format!("isolation {isolation_level} from {offset}");
                s.ask(&step, v, &FetchRequest { isolation_level, ..one(v, &t, 0, offset) });
            }
        }
        if v >= 11 {
            s.ask("rack", v, &FetchRequest { rack_id: "elsewhere".into(), ..one(v, &t, 0, 0) });
        }
        if v >= 12 {
            s.ask(
                "another cluster",
                v,
                &FetchRequest { cluster_id: Some("elsewhere".into()), ..one(v, &t, 0, 0) },
            );
        }
    }
    Ok(())
}
