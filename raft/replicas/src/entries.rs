//! Entries as Raft has them, and as the log does: its own are internal batches there.

use crate::found::{epoch, term};
use bytes::{BufMut, Bytes, BytesMut};
use corelog_raft::{Change, EntryKind, RaftIndex, Term};
use corelog_wire::records::{BATCH_HEADER_LEN, BatchHeader, internal_batch};

/// What an internal batch's payload begins with.
const TERM_START: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Raft's entries as the log takes them from the offset on that the first has there.
pub fn to_log(entries: &[corelog_raft::Entry], mut offset: i64) -> Vec<corelog_storage::Entry> {
    let mut converted = Vec::with_capacity(entries.len());
    for entry in entries {
        let bytes = match entry.kind {
            EntryKind::Batch => entry.bytes.clone(),
            kind => internal(kind, &entry.bytes, offset, entry.term),
        };
        // What is no batch the log refuses.
        offset = BatchHeader::parse(&bytes).map_or(offset, |header| header.next_offset());
        let index = corelog_storage::RaftIndex(entry.index.0);
        converted.push(corelog_storage::Entry { index, term: epoch(entry.term), bytes });
    }
    converted
}

/// An entry of the log as Raft has it; `None`: it is no entry of a group.
pub fn from_log(entry: &corelog_storage::Entry) -> Option<corelog_raft::Entry> {
    let header = BatchHeader::parse(&entry.bytes).ok()?;
    let (kind, bytes) = match header.is_internal() {
        false => (EntryKind::Batch, entry.bytes.clone()),
        true => parse_internal(&entry.bytes)?,
    };
    Some(corelog_raft::Entry { index: RaftIndex(entry.index.0), term: term(entry.term), kind, bytes })
}

/// The batch that a change of a group's replicas is appended as.
pub fn change_batch(change: &Change) -> Bytes {
    internal(EntryKind::Membership, &change.encode(), 0, Term(1))
}

pub fn change(batch: &Bytes) -> Option<Change> {
    let (kind, bytes) = parse_internal(batch)?;
    (kind == EntryKind::Membership).then(|| Change::decode(&bytes)).flatten()
}

/// The same bytes on each replica.
fn internal(kind: EntryKind, content: &[u8], offset: i64, term: Term) -> Bytes {
    let mut payload = BytesMut::with_capacity(1 + content.len());
    payload.put_u8(if kind == EntryKind::Membership { MEMBERSHIP } else { TERM_START });
    payload.put_slice(content);
    internal_batch(offset, epoch(term), 0, &payload)
}

fn parse_internal(batch: &Bytes) -> Option<(EntryKind, Bytes)> {
    let kind = match *batch.get(BATCH_HEADER_LEN)? {
        TERM_START => EntryKind::TermStart,
        MEMBERSHIP => EntryKind::Membership,
        _ => return None,
    };
    Some((kind, batch.slice(BATCH_HEADER_LEN + 1..)))
}
