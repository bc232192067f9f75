//! What a checkpoint says of a log for its replication: terms, membership, and where it began anew. Since version 2.

use super::Refused;
use super::fields::Cursor;
use crate::ids::RaftIndex;
use crate::terms::{TERMS_MAX, TermHistory, TermStart};
use bytes::Bytes;

/// Most bytes of a [`Membership`].
pub const MEMBERSHIP_BYTES_MAX: usize = 16 << 10;

/// Who replicates a log, as the entry at `index` said. Opaque to storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    pub index: RaftIndex,
    pub bytes: Bytes,
}

/// Where the journals say that a log began anew ([`crate::Log::reset`]): what they have of it before that is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    pub generation: u64,
    /// The journal group that the reset is in.
    pub sequence: u64,
    /// The files that the log had before are gone.
    pub is_cleared: bool,
}

pub fn put_terms(out: &mut Vec<u8>, terms: &TermHistory) {
    out.extend_from_slice(&terms.first().0.to_le_bytes());
    out.extend_from_slice(&terms.before().to_le_bytes());
    out.extend_from_slice(&(terms.starts().len() as u32).to_le_bytes());
    for start in terms.starts() {
        out.extend_from_slice(&start.term.to_le_bytes());
        out.extend_from_slice(&start.index.0.to_le_bytes());
        out.extend_from_slice(&start.offset.to_le_bytes());
    }
}

/// `None`: the bytes ran out.
pub fn take_terms(
    c: &mut Cursor,
    next: RaftIndex,
    log_start_offset: i64,
) -> Option<Result<TermHistory, Refused>> {
    let (first, before) = (RaftIndex(c.u64()?), c.i32()?);
    let count = c.u32()? as usize;
    if count > TERMS_MAX {
        return Some(Err(Refused::Content("a log has too many terms")));
    }
    let mut starts = Vec::new();
    for _ in 0..count {
        starts.push(TermStart { term: c.i32()?, index: RaftIndex(c.u64()?), offset: c.i64()? });
    }
    let fits = first <= next && starts.last().is_none_or(|last| last.index <= next);
    let terms = TermHistory::from_starts(first, before, log_start_offset, starts).filter(|_| fits);
    Some(terms.ok_or(Refused::Content("a log's terms do not ascend")))
}

/// As version 1 has them: epochs and offsets.
pub fn take_epochs(
    c: &mut Cursor,
    next: RaftIndex,
    log_start_offset: i64,
) -> Option<Result<TermHistory, Refused>> {
    let mut epochs = Vec::new();
    for _ in 0..c.u32()? {
        epochs.push((c.i32()?, c.i64()?));
    }
    let terms = TermHistory::without_indexes(next, log_start_offset, epochs);
    Some(terms.ok_or(Refused::Content("leader epochs do not ascend")))
}

pub fn put_membership(out: &mut Vec<u8>, membership: Option<&Membership>) {
    let Some(membership) = membership else { return out.push(0) };
    out.push(1);
    out.extend_from_slice(&membership.index.0.to_le_bytes());
    out.extend_from_slice(&(membership.bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(&membership.bytes);
}

/// `None`: the bytes ran out.
pub fn take_membership(c: &mut Cursor) -> Option<Result<Option<Membership>, Refused>> {
    if c.u8()? == 0 {
        return Some(Ok(None));
    }
    let index = RaftIndex(c.u64()?);
    let len = c.u32()? as usize;
    if len > MEMBERSHIP_BYTES_MAX {
        return Some(Err(Refused::Content("a log's membership is too long")));
    }
    Some(Ok(Some(Membership { index, bytes: Bytes::copy_from_slice(c.bytes(len)?) })))
}

pub fn put_reset(out: &mut Vec<u8>, reset: Option<Reset>) {
    let Some(reset) = reset else { return out.push(0) };
    out.push(if reset.is_cleared { 2 } else { 1 });
    out.extend_from_slice(&reset.generation.to_le_bytes());
    out.extend_from_slice(&reset.sequence.to_le_bytes());
}

/// `None`: the bytes ran out.
pub fn take_reset(c: &mut Cursor) -> Option<Option<Reset>> {
    Some(match c.u8()? {
        0 => None,
        kind => Some(Reset { generation: c.u64()?, sequence: c.u64()?, is_cleared: kind == 2 }),
    })
}

/// The base offset of a segment that was taken in and may not bear its name yet.
pub fn put_incoming(out: &mut Vec<u8>, incoming: Option<i64>) {
    out.extend_from_slice(&incoming.unwrap_or(-1).to_le_bytes());
}

/// `None`: the bytes ran out.
pub fn take_incoming(c: &mut Cursor) -> Option<Option<i64>> {
    Some(Some(c.i64()?).filter(|base_offset| *base_offset >= 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_section_survives_the_round_trip() {
        let start = |term, index, offset| TermStart { term, index: RaftIndex(index), offset };
        let starts = vec![start(1, 3, 10), start(4, 9, 10)];
        let terms = TermHistory::from_starts(RaftIndex(5), 1, 12, starts).expect("they ascend");
        let membership = Membership { index: RaftIndex(7), bytes: Bytes::from_static(b"1,2,3") };
        let reset = Reset { generation: 3, sequence: 9, is_cleared: true };
        let mut out = Vec::new();
        put_terms(&mut out, &terms);
        put_membership(&mut out, Some(&membership));
        put_membership(&mut out, None);
        put_reset(&mut out, Some(reset));
        put_reset(&mut out, None);
        put_incoming(&mut out, Some(77));
        put_incoming(&mut out, None);
        let mut c = Cursor(&out);
        assert_eq!(take_terms(&mut c, RaftIndex(20), 12), Some(Ok(terms)));
        assert_eq!(take_membership(&mut c), Some(Ok(Some(membership))));
        assert_eq!(take_membership(&mut c), Some(Ok(None)));
        assert_eq!((take_reset(&mut c), take_reset(&mut c)), (Some(Some(reset)), Some(None)));
        assert_eq!((take_incoming(&mut c), take_incoming(&mut c)), (Some(Some(77)), Some(None)));
        assert!(c.0.is_empty());
        let beyond = take_terms(&mut Cursor(&out), RaftIndex(8), 12);
        assert!(matches!(beyond, Some(Err(Refused::Content(_)))), "a term begins behind the log's end");
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_read() {
        let mut out = Vec::new();
        let bytes = Bytes::from(vec![0; MEMBERSHIP_BYTES_MAX + 1]);
        put_membership(&mut out, Some(&Membership { index: RaftIndex(0), bytes }));
        assert!(matches!(take_membership(&mut Cursor(&out)), Some(Err(Refused::Content(_)))));
        let mut out = vec![0; 12];
        out.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(take_terms(&mut Cursor(&out), RaftIndex(0), 0), Some(Err(Refused::Content(_)))));
    }
}
