//! ListOffsets and OffsetForLeaderEpoch.

use super::super::Case;
use super::super::session::{Session, Topic};
use super::records::{TIME, batch, batch_at};
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::list_offsets_request::{ListOffsetsRequest, Partition, Topic as OffsetsTopic};
use corelog_wire::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression};

pub const CASES: &[Case] = &[
    Case { name: "list offsets", run: timestamps },
    Case { name: "list offsets of nowhere", run: nowhere },
    Case { name: "list offsets epochs and replicas", run: epochs },
    Case { name: "list offsets of append time", run: append_time },
    Case { name: "list offsets in compressed batches", run: compressed },
    Case { name: "offset for leader epoch", run: for_epoch },
];

fn of(name: &Str, partitions: &[(i32, i64)]) -> ListOffsetsRequest {
    let partition = |(partition_index, timestamp): &(i32, i64)| Partition {
        partition_index: *partition_index,
        timestamp: *timestamp,
        ..Default::default()
    };
    let topic = OffsetsTopic { name: name.clone(), partitions: partitions.iter().map(partition).collect() };
    ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() }
}

/// Latest, earliest, greatest time, local earliest, latest in tiers, earliest to be tiered, and one that means nothing.
const SPECIAL: [i64; 7] = [-1, -2, -3, -4, -5, -6, -7];

fn ask_all(s: &mut Session, step: &str, topic: &Topic, times: &[i64]) {
    for time in times {
        s.each(&format!("{step}: {time}"), |_| of(&topic.name, &[(0, *time)]));
    }
}

fn timestamps(s: &mut Session) -> Result<()> {
    let empty = s.topic("empty", 1, &[])?;
    ask_all(s, "empty", &empty, &SPECIAL);
    ask_all(s, "empty", &empty, &[0, TIME]);

    let t = s.topic("t", 1, &[])?;
    // The greatest time stands in the middle, and twice.
    for (time, values) in [(100, &["a", "b", "c"][..]), (500, &["d", "e"]), (500, &["f", "g"]), (300, &["h"])]
    {
        s.produce(&t, 0, batch_at(TIME + time, values))?;
    }
    ask_all(s, "all", &t, &SPECIAL);
    for time in [0, 1, 99, 100, 101, 102, 103, 299, 300, 301, 499, 500, 501, 502, 10_000] {
        s.each(&format!("time +{time}"), |_| of(&t.name, &[(0, TIME + time)]));
    }
    s.each("time 0", |_| of(&t.name, &[(0, 0)]));
    s.each("time 2^63-1", |_| of(&t.name, &[(0, i64::MAX)]));
    s.each("time -2^63", |_| of(&t.name, &[(0, i64::MIN)]));
    for v in 2..=s.newest::<ListOffsetsRequest>() {
        for isolation_level in [1, 2] {
            let request = ListOffsetsRequest { isolation_level, ..of(&t.name, &[(0, -1)]) };
            s.ask(&format!("isolation {isolation_level}"), v, &request);
        }
    }
    let without = s.topic("without-times", 1, &[])?;
    s.produce(&without, 0, batch_at(-1, &["a", "b"]))?;
    ask_all(s, "without times", &without, &SPECIAL);
    ask_all(s, "without times", &without, &[0, TIME]);
    Ok(())
}

fn nowhere(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?.name;
    let missing = s.name("missing");
    s.each("unknown topic", |_| of(&missing, &[(0, -1)]));
    s.each("bad name", |_| of(&"a/b".into(), &[(0, -1)]));
    s.each("unknown partition", |_| of(&t, &[(0, -1), (2, -1), (-1, -1)]));
    s.each("twice the same", |_| of(&t, &[(0, -1), (0, -2)]));
    s.each("no partitions", |_| of(&t, &[]));
    s.each("no topics", |_| ListOffsetsRequest { replica_id: -1, ..Default::default() });
    s.each("one is missing", |_| {
        let mut request = of(&missing, &[(0, -1)]);
        request.topics.extend(of(&t, &[(1, -1)]).topics);
        request
    });
    Ok(())
}

fn epochs(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?;
    s.produce(&t, 0, batch(&["a"]))?;
    for v in 4..=s.newest::<ListOffsetsRequest>() {
        for epoch in [0, 1, -1, -2] {
            let mut request = of(&t.name, &[(0, -1)]);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            s.ask(&format!("epoch {epoch}"), v, &request);
        }
    }
    for replica_id in [-2, -3, 1, 5] {
        s.each(&format!("replica {replica_id}"), |_| ListOffsetsRequest {
            replica_id,
            ..of(&t.name, &[(0, -1)])
        });
    }
    Ok(())
}

fn append_time(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    s.produce(&t, 0, batch(&["a", "b", "c"]))?;
    s.each("greatest time", |_| of(&t.name, &[(0, -3)]));
    s.each("after an old time", |_| of(&t.name, &[(0, TIME)]));
    s.each("after all", |_| of(&t.name, &[(0, i64::MAX)]));
    Ok(())
}

/// Records whose times go up and down within a batch.
fn compressed(s: &mut Session) -> Result<()> {
    let newest = s.newest::<ListOffsetsRequest>();
    for codec in Compression::ALL {
        let t = s.topic(codec.name(), 1, &[])?;
        for start in [0, 1000, 500] {
            let mut batch = BatchBuilder::new(BatchOptions { encoding: codec.into(), ..Default::default() });
            for time in [10, 40, 20, 40, 30] {
                batch.append(TIME + start + time, None, Some(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), &[])?;
            }
            s.produce(&t, 0, batch.build()?)?;
        }
        for time in [0, 10, 11, 25, 40, 41, 510, 520, 541, 1000, 1030, 1040, 1041] {
            s.ask(&format!("{codec}: time +{time}"), newest, &of(&t.name, &[(0, TIME + time)]));
        }
        s.ask(&format!("{codec}: greatest time"), newest, &of(&t.name, &[(0, -3)]));
    }
    Ok(())
}

fn for_epoch(s: &mut Session) -> Result<()> {
    let empty = s.topic("empty", 1, &[])?.name;
    let t = s.topic("t", 1, &[])?;
    s.produce(&t, 0, batch(&["a", "b"]))?;
    let missing = s.name("missing");
    let ask = |name: &Str, partition: i32, current_leader_epoch: i32, leader_epoch: i32, replica_id: i32| {
        let partition = OffsetForLeaderPartition { partition, current_leader_epoch, leader_epoch };
        let topic = OffsetForLeaderTopic { topic: name.clone(), partitions: vec![partition] };
        OffsetForLeaderEpochRequest { replica_id, topics: vec![topic] }
    };
    for v in s.versions::<OffsetForLeaderEpochRequest>() {
        let replica = if v >= 3 { -1 } else { -2 };
        for epoch in [0, 1, 7, -1, -2, i32::MAX] {
            s.ask(&format!("epoch {epoch}"), v, &ask(&t.name, 0, -1, epoch, replica));
            s.ask(&format!("epoch {epoch} of an empty log"), v, &ask(&empty, 0, -1, epoch, replica));
        }
        for current in [0, 1, -2] {
            s.ask(&format!("leader epoch {current}"), v, &ask(&t.name, 0, current, 0, replica));
        }
        s.ask("unknown partition", v, &ask(&t.name, 1, -1, 0, replica));
        s.ask("negative partition", v, &ask(&t.name, -1, -1, 0, replica));
        s.ask("unknown topic", v, &ask(&missing, 0, -1, 0, replica));
        s.ask("no topics", v, &OffsetForLeaderEpochRequest { replica_id: replica, topics: Vec::new() });
        if v >= 3 {
            s.ask("replica 5", v, &ask(&t.name, 0, -1, 0, 5));
        }
    }
    Ok(())
}
