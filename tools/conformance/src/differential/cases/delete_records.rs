use super::super::Case;
use super::super::session::Session;
use super::fetch;
use super::records::batch;
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::fetch::FetchRequest;
use corelog_wire::messages::delete_records_request::{DeleteRecordsRequest, Partition, Topic};
use corelog_wire::messages::list_offsets_request::{
    ListOffsetsRequest, Partition as OffsetPartition, Topic as OffsetsTopic,
};

pub const CASES: &[Case] = &[
    Case { name: "delete records", run: offsets },
    Case { name: "delete records of nowhere", run: nowhere },
];

pub fn request(name: &Str, partitions: &[(i32, i64)]) -> DeleteRecordsRequest {
    let partition = |(partition_index, offset): &(i32, i64)| Partition {
        partition_index: *partition_index,
        offset: *offset,
    };
    let topic = Topic { name: name.clone(), partitions: partitions.iter().map(partition).collect() };
    DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 }
}

fn offsets(s: &mut Session) -> Result<()> {
    for v in s.versions::<DeleteRecordsRequest>() {
        let t = s.topic(format!("t-v{v}"), 1, &[])?;
        s.ask("an empty log before 0", v, &request(&t.name, &[(0, 0)]));
        s.ask("an empty log before 1", v, &request(&t.name, &[(0, 1)]));
        s.ask("an empty log before its end", v, &request(&t.name, &[(0, -1)]));
        for values in [&["a", "b", "c"][..], &["d", "e"], &["f", "g"]] {
            s.produce(&t, 0, batch(values))?;
        }
        for offset in [8, i64::MAX, -2, i64::MIN, 0, 4, 2, 4] {
            s.ask(&format!("before {offset}"), v, &request(&t.name, &[(0, offset)]));
        }
        fetch::fetch_all(s, "from before the start", &t, 0);
        for offset in [3, 4, 5] {
            s.ask(&format!("fetch from {offset}"), 12, &fetch::one(12, &t, 0, offset));
        }
        for timestamp in [-2, -1, -3, -4, 0, super::records::TIME] {
            let partition = OffsetPartition { timestamp, ..Default::default() };
            let topic = OffsetsTopic { name: t.name.clone(), partitions: vec![partition] };
            let list = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
            s.ask(&format!("offset for {timestamp}"), 8, &list);
        }
        s.ask("twice the same", v, &request(&t.name, &[(0, 4), (0, 5)]));
        s.ask("before the end", v, &request(&t.name, &[(0, -1)]));
        fetch::fetch_all(s, "all gone", &t, 0);
        s.ask("fetch from the end", 12, &fetch::one(12, &t, 0, 7));
        s.produce(&t, 0, batch(&["h"]))?;
        s.ask("fetch what came after", 12, &fetch::one(12, &t, 0, 7));
        s.ask("a session after all", 12, &FetchRequest { session_epoch: 0, ..fetch::one(12, &t, 0, 7) });
    }
    Ok(())
}

fn nowhere(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 1, &[])?.name;
    let missing = s.name("missing");
    s.each("unknown topic", |_| request(&missing, &[(0, 0)]));
    s.each("bad name", |_| request(&"a/b".into(), &[(0, 0)]));
    s.each("unknown partition", |_| request(&t, &[(1, 0), (-1, 0), (0, 0)]));
    s.each("no partitions", |_| request(&t, &[]));
    s.each("no topics", |_| DeleteRecordsRequest { topics: Vec::new(), timeout_ms: 1000 });
    Ok(())
}
