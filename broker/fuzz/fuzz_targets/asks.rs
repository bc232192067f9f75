#![no_main]
//! What another broker asks of segments, and what it answers. What is decoded says the same when it is encoded again.
//!
//! The first byte chooses a sound sample, the rest changes it.

use bytes::Bytes;
use corelog_broker::cluster::asks;
use corelog_broker::ids::ReplicaId;
use corelog_replicas::{Ask, Told, What};
use corelog_storage::{LogId, LogStart, LogState, RaftIndex, SegmentInfo, SegmentList};
use corelog_wire::Uuid;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&sample, change)) = data.split_first() else { return };
    match sample % 8 {
        0 => ask(What::Segments { from: RaftIndex(100) }, change),
        1 => ask(What::Piece { base_offset: 7, position: 4096 }, change),
        2 => ask(What::State { above: 9 }, change),
        3 => ask(What::Entries, change),
        4 => told(Told::Segments { list: list(), state: Bytes::from_static(b"state") }, change),
        5 => told(Told::Piece(Bytes::from_static(b"piece")), change),
        6 => told(Told::State(LogState { bytes: Bytes::new(), more_above: Some(5) }), change),
        _ => told(Told::Noted, change),
    }
});

fn list() -> SegmentList {
    let segment = |n: u64| SegmentInfo {
        base_offset: n as i64 * 10,
        base_index: RaftIndex(n * 5),
        term_before: 1,
        next_offset: n as i64 * 10 + 10,
        next_index: RaftIndex(n * 5 + 5),
        last_term: 1,
        bytes: 5000,
    };
    let start = LogStart { index: RaftIndex(5), term: 1, offset: 10 };
    SegmentList { start, segments: (1..4).map(segment).collect() }
}

fn changed(bytes: &[u8], change: &[u8]) -> Vec<u8> {
    let change = change.iter().chain(std::iter::repeat(&0));
    bytes.iter().zip(change).map(|(byte, change)| byte ^ change).collect()
}

fn ask(what: What, change: &[u8]) {
    let log = LogId { topic: Uuid([7; 16]), partition: 3 };
    let sample = asks::encode_ask(&Ask { log, replica: ReplicaId(2), what });
    if let Ok(ask) = asks::decode_ask(&changed(&sample, change)) {
        assert_eq!(asks::decode_ask(&asks::encode_ask(&ask)), Ok(ask));
    }
}

fn told(sample: Told, change: &[u8]) {
    let frame = asks::encode_told(sample);
    let body: Bytes = frame.body.concat().into();
    if let Ok(told) = asks::decode_told(&changed(&frame.head, change), body) {
        let again = asks::encode_told(told.clone());
        assert_eq!(asks::decode_told(&again.head, again.body.concat().into()), Ok(told));
    }
}
