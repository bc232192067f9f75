//! A shard's checkpoint: the state of every log of the shard, so that opening a log needs no scan of its data and
//! journal files can be reused. Replaced as a whole, atomically.

use super::entry::HardState;
use super::fields::{Cursor, get_u16, get_u32, get_u64, put};
use super::log_sections::{
    Membership, Reset, put_incoming, put_membership, put_reset, put_terms, take_epochs, take_incoming,
    take_membership, take_reset, take_terms,
};
use super::segment_file::FIRST_BATCH;
use super::{Format, PAGE, Refused};
use crate::ids::{LogId, RaftIndex, Uuid};
use crate::producers::{BATCHES_KEPT, InFlight, ProducedBatch, ProducerEntry};
use crate::terms::TermHistory;
use crate::uncommitted::UncommittedBatch;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of the header; the ends of former journals and then the logs follow.
pub const CHECKPOINT_HEADER: usize = 80;
/// Bytes of one [`JournalEnd`].
const END: usize = 24;

/// No log has more batches: what is replayed on top of it can be counted.
pub const INDEX_MAX: RaftIndex = RaftIndex(i64::MAX as u64);

const MAGIC: u64 = u64::from_le_bytes(*b"CLCHKPNT");

/// Version 2: in place of epochs each log's state has the sections of [`super::log_sections`], and it ends with what is
/// committed ([`Committed`]).
pub const FORMAT: Format = Format { name: "checkpoints", oldest: 1, newest: 2 };
const FLAG_COMPLETE: u16 = 1;

/// The first bytes of a checkpoint. A reader that wants only these reads [`CHECKPOINT_HEADER`] bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointHeader {
    pub generation: u64,
    pub shard: u32,
    /// Shards the broker ran with in this generation.
    pub shards: u32,
    /// Nothing that this shard took over from former generations is in their journals alone any more.
    pub complete: bool,
    /// Replay begins with this group of the generation's journal; the files before it may have been reused.
    pub replay_from: u64,
    /// Every group up to this one was on stable storage when the checkpoint was written.
    pub durable_through: u64,
    pub logs: u32,
    pub ends: u32,
    pub ends_crc: u32,
    pub body_len: u64,
    pub body_crc: u32,
}

impl CheckpointHeader {
    /// Orders the checkpoints of one journal by age: what has a higher rank was written later.
    pub fn rank(&self) -> (u64, u64, bool) {
        (self.durable_through, self.replay_from, self.complete)
    }
}

/// How far a former journal was taken over. What appears behind this group later (a write that was still under way in
/// the kernel when its process was killed) never counts; what is missing up to it was damaged since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalEnd {
    pub generation: u64,
    pub shard: u32,
    /// The last group; 0: none.
    pub sequence: u64,
}

impl CheckpointHeader {
    fn encode(&self, out: &mut [u8]) {
        put(out, 0, MAGIC.to_le_bytes());
        put(out, 8, FORMAT.newest.to_le_bytes());
        put(out, 10, (if self.complete { FLAG_COMPLETE } else { 0 }).to_le_bytes());
        put(out, 12, self.shard.to_le_bytes());
        put(out, 16, self.generation.to_le_bytes());
        put(out, 24, self.replay_from.to_le_bytes());
        put(out, 32, self.durable_through.to_le_bytes());
        put(out, 40, self.body_len.to_le_bytes());
        put(out, 48, self.logs.to_le_bytes());
        put(out, 52, self.shards.to_le_bytes());
        put(out, 56, self.body_crc.to_le_bytes());
        put(out, 60, self.ends.to_le_bytes());
        put(out, 64, self.ends_crc.to_le_bytes());
        let crc = crc32c::crc32c(&out[..76]);
        put(out, 76, crc.to_le_bytes());
    }

    pub fn decode(bytes: &[u8]) -> Result<CheckpointHeader, Refused> {
        if bytes.len() < CHECKPOINT_HEADER || get_u64(bytes, 0) != MAGIC {
            return Err(Refused::Magic);
        }
        if crc32c::crc32c(&bytes[..76]) != get_u32(bytes, 76) {
            return Err(Refused::Checksum);
        }
        FORMAT.known(get_u16(bytes, 8))?;
        let replay_from = get_u64(bytes, 24);
        if replay_from == 0 {
            return Err(Refused::Content("replay begins with group 0, groups are numbered from 1"));
        }
        Ok(CheckpointHeader {
            complete: get_u16(bytes, 10) & FLAG_COMPLETE != 0,
            shard: get_u32(bytes, 12),
            generation: get_u64(bytes, 16),
            replay_from,
            durable_through: get_u64(bytes, 32),
            body_len: get_u64(bytes, 40),
            logs: get_u32(bytes, 48),
            shards: get_u32(bytes, 52),
            body_crc: get_u32(bytes, 56),
            ends: get_u32(bytes, 60),
            ends_crc: get_u32(bytes, 64),
        })
    }

    /// Bytes of header and ends: what is needed of a checkpoint to know which journals still count.
    pub fn prefix_len(&self) -> usize {
        CHECKPOINT_HEADER + self.ends as usize * END
    }

    /// The ends of former journals; `bytes` begin with the header and hold [`CheckpointHeader::prefix_len`] bytes.
    pub fn decode_ends(&self, bytes: &[u8]) -> Result<Vec<JournalEnd>, Refused> {
        let ends = bytes
            .get(CHECKPOINT_HEADER..self.prefix_len())
            .ok_or(Refused::Content("the file is cut short"))?;
        if crc32c::crc32c(ends) != self.ends_crc {
            return Err(Refused::Checksum);
        }
        let ends = ends.chunks_exact(END).map(|end| JournalEnd {
            generation: get_u64(end, 0),
            sequence: get_u64(end, 8),
            shard: get_u32(end, 16),
        });
        Ok(ends.collect())
    }
}

/// The segment that is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActiveSegmentState {
    pub base_offset: i64,
    pub base_index: RaftIndex,
    pub created_ms: i64,
    /// Bytes of the file that are written and synced.
    pub position: u64,
    pub max_timestamp: i64,
    /// What lies in the page that `position` is in: the next flush writes this page again, and a write that is torn may
    /// leave nothing of it. Empty at a page's boundary, and in checkpoints of builds that did not keep it.
    pub last_page: Bytes,
}

/// How a checkpoint says that a log has an active segment: without its last page, as in the copy and as builds wrote it
/// that did not keep it, and with it.
const ACTIVE_WITHOUT_PAGE: u8 = 1;
const ACTIVE: u8 = 2;

/// What is committed of a log, and what is needed of the rest to commit or cut it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub index: RaftIndex,
    pub term: i32,
    /// The batches from there to `next_index`.
    pub rest: Vec<UncommittedBatch>,
    /// Of them, those of idempotent producers: the log's `producers` do not know them.
    pub in_flight: Vec<InFlight>,
    /// The segments may reach beyond `flushed_index`: they were not cut yet when the log was.
    pub cut_pending: bool,
    /// Cuts whose entry in the journal is not durable, by group and index. Of what groups before say, nothing from there on
    /// counts, though the journal may have lost what says so.
    pub cuts: Vec<(u64, RaftIndex)>,
    /// It was cut once: of a journal's batches with the same index the last counts, though what cut the others is not there.
    pub is_cut: bool,
}

/// One log's state. All that lies before `durable_through` in the shard's journal is in it; batches from
/// `flushed_index` on are still in the journal alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogCheckpoint {
    pub log: LogId,
    pub durable_through: u64,
    pub log_start_offset: i64,
    pub next_offset: i64,
    pub next_index: RaftIndex,
    pub term: i32,
    pub hard_state: HardState,
    pub flushed_offset: i64,
    pub flushed_index: RaftIndex,
    pub active: Option<ActiveSegmentState>,
    pub terms: TermHistory,
    pub membership: Option<Membership>,
    pub reset: Option<Reset>,
    /// The base offset of a segment that was taken in and may not bear its name yet.
    pub incoming: Option<i64>,
    pub producers: Vec<(i64, ProducerEntry)>,
    pub committed: Committed,
}

/// Collects logs, then gives the file's bytes.
pub struct CheckpointWriter {
    bytes: Vec<u8>,
    last_pages: bool,
    ends: u32,
    logs: u32,
}

impl CheckpointWriter {
    pub fn new(ends: &[JournalEnd]) -> CheckpointWriter {
        let mut bytes = vec![0; CHECKPOINT_HEADER + ends.len() * END];
        for (slot, end) in bytes[CHECKPOINT_HEADER..].chunks_exact_mut(END).zip(ends) {
            put(slot, 0, end.generation.to_le_bytes());
            put(slot, 8, end.sequence.to_le_bytes());
            put(slot, 16, end.shard.to_le_bytes());
        }
        CheckpointWriter { bytes, last_pages: true, ends: ends.len() as u32, logs: 0 }
    }

    /// For the copy: without the last pages of segments.
    pub fn without_last_pages(self) -> CheckpointWriter {
        CheckpointWriter { last_pages: false, ..self }
    }

    /// Adds one log; producers come from an iterator so that they need not be copied first.
    pub fn add<'a>(
        &mut self,
        log: &LogCheckpoint,
        producers: impl ExactSizeIterator<Item = (i64, &'a ProducerEntry)>,
    ) {
        self.logs += 1;
        let out = &mut self.bytes;
        out.extend_from_slice(&log.log.topic.0);
        out.extend_from_slice(&log.log.partition.to_le_bytes());
        out.extend_from_slice(&log.durable_through.to_le_bytes());
        out.extend_from_slice(&log.log_start_offset.to_le_bytes());
        out.extend_from_slice(&log.next_offset.to_le_bytes());
        out.extend_from_slice(&log.next_index.0.to_le_bytes());
        out.extend_from_slice(&log.term.to_le_bytes());
        out.extend_from_slice(&log.hard_state.term.to_le_bytes());
        out.extend_from_slice(&log.hard_state.vote.to_le_bytes());
        out.extend_from_slice(&log.committed.index.0.to_le_bytes());
        out.extend_from_slice(&log.flushed_offset.to_le_bytes());
        out.extend_from_slice(&log.flushed_index.0.to_le_bytes());
        match &log.active {
            None => out.push(0),
            Some(a) => {
                out.push(if self.last_pages { ACTIVE } else { ACTIVE_WITHOUT_PAGE });
                out.extend_from_slice(&a.base_offset.to_le_bytes());
                out.extend_from_slice(&a.base_index.0.to_le_bytes());
                out.extend_from_slice(&a.created_ms.to_le_bytes());
                out.extend_from_slice(&a.position.to_le_bytes());
                out.extend_from_slice(&a.max_timestamp.to_le_bytes());
                if self.last_pages {
                    out.extend_from_slice(&(a.last_page.len() as u32).to_le_bytes());
                    out.extend_from_slice(&a.last_page);
                }
            }
        }
        put_terms(out, &log.terms);
        put_membership(out, log.membership.as_ref());
        put_reset(out, log.reset);
        put_incoming(out, log.incoming);
        out.extend_from_slice(&(producers.len() as u32).to_le_bytes());
        for (id, entry) in producers {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&entry.epoch.to_le_bytes());
            out.extend_from_slice(&entry.last_seen_ms.to_le_bytes());
            out.push(entry.batches.len() as u8);
            entry.batches.iter().for_each(|batch| put_produced(out, batch));
        }
        put_committed(out, &log.committed);
    }

    /// The file's bytes. `header`'s counts and checksum of the body are filled in here.
    pub fn finish(mut self, header: CheckpointHeader) -> Vec<u8> {
        let (prefix, body) = self.bytes.split_at(CHECKPOINT_HEADER + self.ends as usize * END);
        let header = CheckpointHeader {
            logs: self.logs,
            ends: self.ends,
            ends_crc: crc32c::crc32c(&prefix[CHECKPOINT_HEADER..]),
            body_len: body.len() as u64,
            body_crc: crc32c::crc32c(body),
            ..header
        };
        header.encode(&mut self.bytes[..CHECKPOINT_HEADER]);
        self.bytes
    }
}

fn put_produced(out: &mut Vec<u8>, batch: &ProducedBatch) {
    out.extend_from_slice(&batch.first_sequence.to_le_bytes());
    out.extend_from_slice(&batch.last_sequence.to_le_bytes());
    out.extend_from_slice(&batch.base_offset.to_le_bytes());
    out.extend_from_slice(&batch.last_offset.to_le_bytes());
    out.extend_from_slice(&batch.timestamp.to_le_bytes());
}

fn put_committed(out: &mut Vec<u8>, committed: &Committed) {
    out.extend_from_slice(&committed.offset.to_le_bytes());
    out.extend_from_slice(&committed.term.to_le_bytes());
    out.push(u8::from(committed.cut_pending));
    out.push(u8::from(committed.is_cut));
    out.extend_from_slice(&(committed.cuts.len() as u32).to_le_bytes());
    for (group, index) in &committed.cuts {
        out.extend_from_slice(&group.to_le_bytes());
        out.extend_from_slice(&index.0.to_le_bytes());
    }
    out.extend_from_slice(&(committed.rest.len() as u32).to_le_bytes());
    for batch in &committed.rest {
        out.extend_from_slice(&batch.next_offset.to_le_bytes());
        out.extend_from_slice(&batch.term.to_le_bytes());
        out.extend_from_slice(&batch.len.to_le_bytes());
    }
    out.extend_from_slice(&(committed.in_flight.len() as u32).to_le_bytes());
    for in_flight in &committed.in_flight {
        out.extend_from_slice(&in_flight.index.0.to_le_bytes());
        out.extend_from_slice(&in_flight.producer_id.to_le_bytes());
        out.extend_from_slice(&in_flight.epoch.to_le_bytes());
        put_produced(out, &in_flight.batch);
    }
}

/// Reads a whole checkpoint file.
pub fn decode(bytes: &[u8]) -> Result<(CheckpointHeader, Vec<LogCheckpoint>), Refused> {
    let header = CheckpointHeader::decode(bytes)?;
    let version = get_u16(bytes, 8);
    header.decode_ends(bytes)?;
    let body = &bytes[header.prefix_len()..];
    if body.len() as u64 != header.body_len || crc32c::crc32c(body) != header.body_crc {
        return Err(Refused::Checksum);
    }
    let mut cursor = Cursor(body);
    let mut logs = Vec::new();
    for _ in 0..header.logs {
        logs.push(
            decode_log(&mut cursor, version)
                .ok_or(Refused::Content("a log's state runs past the end of the file"))??,
        );
    }
    if !cursor.0.is_empty() {
        return Err(Refused::Content("bytes follow the last log"));
    }
    Ok((header, logs))
}

/// `None`: the bytes ran out.
fn decode_log(c: &mut Cursor, version: u16) -> Option<Result<LogCheckpoint, Refused>> {
    let log = LogId { topic: Uuid(c.take()?), partition: c.i32()? };
    let durable_through = c.u64()?;
    let log_start_offset = c.i64()?;
    let next_offset = c.i64()?;
    let next_index = RaftIndex(c.u64()?);
    let term = c.i32()?;
    let hard_state = HardState { term: c.i32()?, vote: c.i64()? };
    let committed_index = RaftIndex(c.u64()?);
    let flushed_offset = c.i64()?;
    let flushed_index = RaftIndex(c.u64()?);
    let active = match c.u8()? {
        0 => None,
        kind => Some(ActiveSegmentState {
            base_offset: c.i64()?,
            base_index: RaftIndex(c.u64()?),
            created_ms: c.i64()?,
            position: c.u64()?,
            max_timestamp: c.i64()?,
            last_page: match kind {
                ACTIVE_WITHOUT_PAGE => Bytes::new(),
                _ => {
                    let len = c.u32()? as usize;
                    Bytes::copy_from_slice(c.bytes(len)?)
                }
            },
        }),
    };
    let terms = match version {
        1 => take_epochs(c, next_index, log_start_offset)?,
        _ => take_terms(c, next_index, log_start_offset)?,
    };
    let membership = if version == 1 { Ok(None) } else { take_membership(c)? };
    let (reset, incoming) = if version == 1 { (None, None) } else { (take_reset(c)?, take_incoming(c)?) };
    let (terms, membership) = match (terms, membership) {
        (Ok(terms), Ok(membership)) => (terms, membership),
        (Err(refused), _) | (_, Err(refused)) => return Some(Err(refused)),
    };
    let mut producers = Vec::new();
    for _ in 0..c.u32()? {
        let id = c.i64()?;
        let (epoch, last_seen_ms) = (c.i16()?, c.i64()?);
        let count = usize::from(c.u8()?);
        if count > BATCHES_KEPT {
            return Some(Err(Refused::Content("a producer has too many batches")));
        }
        let mut batches = VecDeque::with_capacity(count);
        for _ in 0..count {
            batches.push_back(decode_produced(c)?);
        }
        producers.push((id, ProducerEntry { epoch, last_seen_ms, batches }));
    }
    let committed = match version {
        // Whose logs were alone, and what they had was committed.
        1 => Committed { offset: next_offset, index: next_index, term, ..Committed::default() },
        _ => decode_committed(c, committed_index)?,
    };
    let checkpoint = LogCheckpoint {
        log,
        durable_through,
        log_start_offset,
        next_offset,
        next_index,
        term,
        hard_state,
        flushed_offset,
        flushed_index,
        active,
        terms,
        membership,
        reset,
        incoming,
        producers,
        committed,
    };
    Some(match checkpoint.ascends() {
        true => Ok(checkpoint),
        false => Err(Refused::Content("a log's offsets do not ascend")),
    })
}

fn decode_produced(c: &mut Cursor) -> Option<ProducedBatch> {
    Some(ProducedBatch {
        first_sequence: c.i32()?,
        last_sequence: c.i32()?,
        base_offset: c.i64()?,
        last_offset: c.i64()?,
        timestamp: c.i64()?,
    })
}

fn decode_committed(c: &mut Cursor, index: RaftIndex) -> Option<Committed> {
    let (offset, term) = (c.i64()?, c.i32()?);
    let (cut_pending, is_cut) = (c.u8()? != 0, c.u8()? != 0);
    let mut cuts = Vec::new();
    for _ in 0..c.u32()? {
        cuts.push((c.u64()?, RaftIndex(c.u64()?)));
    }
    let mut rest = Vec::new();
    for _ in 0..c.u32()? {
        rest.push(UncommittedBatch { next_offset: c.i64()?, term: c.i32()?, len: c.u32()? });
    }
    let mut in_flight = Vec::new();
    for _ in 0..c.u32()? {
        let (index, producer_id, epoch) = (RaftIndex(c.u64()?), c.i64()?, c.i16()?);
        in_flight.push(InFlight { index, producer_id, epoch, batch: decode_produced(c)? });
    }
    Some(Committed { offset, index, term, rest, in_flight, cut_pending, cuts, is_cut })
}

impl LogCheckpoint {
    /// What is in segments, and what is committed, is a part of what was appended; the active segment begins within it.
    fn ascends(&self) -> bool {
        let Committed { offset, index, rest, in_flight, cut_pending, .. } = &self.committed;
        let offsets = || std::iter::once(*offset).chain(rest.iter().map(|batch| batch.next_offset));
        self.log_start_offset >= 0
            && (0..=self.next_offset).contains(&self.flushed_offset)
            && self.flushed_index <= self.next_index
            && self.next_index <= INDEX_MAX
            && self.active.as_ref().is_none_or(|a| {
                a.base_offset >= 0
                    && (*cut_pending
                        || (a.base_offset <= self.flushed_offset && a.base_index <= self.flushed_index))
                    && a.position >= FIRST_BATCH
                    && (a.last_page.is_empty() || a.last_page.len() as u64 == a.position % PAGE as u64)
            })
            && index.0.checked_add(rest.len() as u64) == Some(self.next_index.0)
            && *offset >= 0
            && offsets().is_sorted()
            && offsets().last() == Some(self.next_offset)
            && in_flight.is_sorted_by(|a, b| a.index < b.index)
            && in_flight.iter().all(|batch| (*index..self.next_index).contains(&batch.index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<LogCheckpoint> {
        (0..3)
            .map(|i| LogCheckpoint {
                log: LogId { topic: Uuid([i as u8; 16]), partition: i },
                durable_through: 9,
                log_start_offset: 1,
                next_offset: 100,
                next_index: RaftIndex(102),
                term: 4,
                hard_state: HardState { term: 4, vote: -1 },
                flushed_offset: 50,
                flushed_index: RaftIndex(51),
                active: (i > 0).then_some(ActiveSegmentState {
                    base_offset: 0,
                    base_index: RaftIndex(0),
                    created_ms: 5,
                    position: 8192 + 3 * (i as u64).saturating_sub(1),
                    max_timestamp: -1,
                    last_page: Bytes::from(vec![7; 3 * (i as usize).saturating_sub(1)]),
                }),
                terms: TermHistory::without_indexes(RaftIndex(50), 1, [(1, 0), (4, 60)]).unwrap(),
                membership: (i > 1).then_some(Membership { index: RaftIndex(9), bytes: vec![1; 9].into() }),
                reset: (i > 1).then_some(Reset { generation: 2, sequence: 1 << 40, is_cleared: false }),
                incoming: (i > 1).then_some(40),
                producers: (0..i64::from(i))
                    .map(|id| {
                        let batch = ProducedBatch {
                            first_sequence: 1,
                            last_sequence: 2,
                            base_offset: 3,
                            last_offset: 4,
                            timestamp: 5,
                        };
                        (id, ProducerEntry { epoch: 1, last_seen_ms: 2, batches: [batch; 2].into() })
                    })
                    .collect(),
                committed: Committed {
                    offset: 98,
                    index: RaftIndex(100),
                    term: 1,
                    rest: [99, 100]
                        .map(|next_offset| UncommittedBatch { next_offset, term: 4, len: 70 })
                        .into(),
                    in_flight: vec![InFlight {
                        index: RaftIndex(101),
                        producer_id: 7,
                        epoch: 2,
                        batch: ProducedBatch {
                            first_sequence: 0,
                            last_sequence: 0,
                            base_offset: 99,
                            last_offset: 99,
                            timestamp: 5,
                        },
                    }],
                    cut_pending: false,
                    cuts: vec![(10, RaftIndex(102))],
                    is_cut: true,
                },
            })
            .collect()
    }

    fn encode(logs: &[LogCheckpoint]) -> Vec<u8> {
        let ends = [
            JournalEnd { generation: 2, shard: 7, sequence: 99 },
            JournalEnd { generation: 1, shard: 0, sequence: 0 },
        ];
        let mut w = CheckpointWriter::new(&ends);
        for log in logs {
            w.add(log, log.producers.iter().map(|(id, e)| (*id, e)).collect::<Vec<_>>().into_iter());
        }
        w.finish(CheckpointHeader {
            generation: 3,
            shard: 1,
            shards: 2,
            complete: true,
            replay_from: 8,
            durable_through: 9,
            ..CheckpointHeader::default()
        })
    }

    #[test]
    fn round_trip() {
        let logs = sample();
        let bytes = encode(&logs);
        let (header, read) = decode(&bytes).unwrap();
        assert_eq!(read, logs);
        assert!(header.complete && header.replay_from == 8 && header.logs == 3);
        assert_eq!(CheckpointHeader::decode(&bytes[..CHECKPOINT_HEADER]), Ok(header));
        let ends = header.decode_ends(&bytes[..header.prefix_len()]).unwrap();
        assert_eq!(
            ends.iter().map(|e| (e.generation, e.shard, e.sequence)).collect::<Vec<_>>(),
            [(2, 7, 99), (1, 0, 0)]
        );
    }

    #[test]
    fn while_a_cut_is_pending_the_active_segment_may_begin_behind_it() {
        let mut logs = sample();
        logs[1].active.as_mut().expect("the sample has one").base_offset = 70;
        assert!(decode(&encode(&logs)).is_err());
        logs[1].committed.cut_pending = true;
        assert_eq!(decode(&encode(&logs)).expect("it is whole").1, logs);
    }

    #[test]
    fn any_flipped_bit_and_any_cut_is_seen() {
        let good = encode(&sample());
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "bit {bit}");
        }
        for len in 0..good.len() {
            assert!(decode(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_count_that_the_bytes_do_not_bear_is_refused_without_allocating() {
        let mut w = CheckpointWriter::new(&[]);
        w.logs = u32::MAX;
        let bytes = w.finish(CheckpointHeader::decode(&encode(&[])).unwrap());
        assert!(matches!(decode(&bytes), Err(Refused::Content(_))));
    }

    #[test]
    fn offsets_that_do_not_ascend_are_refused() {
        let active = |change: fn(&mut ActiveSegmentState)| {
            move |log: &mut LogCheckpoint| change(log.active.as_mut().expect("the sample has one"))
        };
        let changes: [&dyn Fn(&mut LogCheckpoint); 15] = [
            &|log| log.committed.index = RaftIndex(99),
            &|log| log.committed.offset = 100,
            &|log| log.committed.rest[1].next_offset = 98,
            &|log| log.committed.rest.clear(),
            &|log| log.committed.in_flight[0].index = RaftIndex(102),
            &|log| log.log_start_offset = -1,
            &|log| log.next_offset = log.flushed_offset - 1,
            &|log| log.flushed_offset = i64::MIN,
            &|log| log.next_index = RaftIndex(log.flushed_index.0 - 1),
            &|log| log.next_index = RaftIndex(u64::MAX),
            &active(|a| a.base_offset = i64::MAX),
            &active(|a| a.base_offset = -1),
            &active(|a| a.base_index = RaftIndex(52)),
            &active(|a| a.position = FIRST_BATCH - 1),
            &active(|a| a.position += 1),
        ];
        for (number, change) in changes.iter().enumerate() {
            let mut logs = sample();
            change(&mut logs[2]);
            assert!(matches!(decode(&encode(&logs)), Err(Refused::Content(_))), "change {number}");
        }
    }

    #[test]
    fn replay_does_not_begin_with_group_0() {
        let bytes = CheckpointWriter::new(&[]).finish(CheckpointHeader::default());
        assert!(matches!(CheckpointHeader::decode(&bytes), Err(Refused::Content(_))));
    }
}
