//! A shard's checkpoint: the state of every log of the shard, so that opening a log needs no scan of its data and
//! journal files can be reused. Replaced as a whole, atomically.

use super::fields::{Cursor, get_u16, get_u32, get_u64, put};
use super::log_sections::{
    Membership, Reset, put_incoming, put_membership, put_reset, put_terms, take_epochs, take_incoming,
    take_membership, take_reset, take_terms,
};
use super::segment_file::FIRST_BATCH;
use super::{Format, PAGE, Refused};
use crate::ids::{LogId, RaftIndex, Uuid};
use crate::producers::{BATCHES_KEPT, ProducedBatch, ProducerEntry};
use crate::terms::TermHistory;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes of the header; the ends of former journals and then the logs follow.
pub const CHECKPOINT_HEADER: usize = 80;
/// Bytes of one [`JournalEnd`].
const END: usize = 24;

/// No log has more batches: what is replayed on top of it can be counted.
pub const INDEX_MAX: RaftIndex = RaftIndex(i64::MAX as u64);

const MAGIC: u64 = u64::from_le_bytes(*b"CLCHKPNT");

/// Version 2: in place of epochs each log's state has the sections of [`super::log_sections`].
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

/// Raft's durable state of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: i32,
    /// Broker id voted for in `term`; -1: none.
    pub vote: i64,
    /// Commit index known, as the index after the last committed entry.
    pub commit: u64,
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
        out.extend_from_slice(&log.hard_state.commit.to_le_bytes());
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
            for b in &entry.batches {
                out.extend_from_slice(&b.first_sequence.to_le_bytes());
                out.extend_from_slice(&b.last_sequence.to_le_bytes());
                out.extend_from_slice(&b.base_offset.to_le_bytes());
                out.extend_from_slice(&b.last_offset.to_le_bytes());
                out.extend_from_slice(&b.timestamp.to_le_bytes());
            }
        }
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

/// Reads a whole checkpoint file.
pub fn decode(bytes: &[u8]) -> Result<(CheckpointHeader, Vec<LogCheckpoint>), Refused> {
    let header = CheckpointHeader::decode(bytes)?;
    header.decode_ends(bytes)?;
    let body = &bytes[header.prefix_len()..];
    if body.len() as u64 != header.body_len || crc32c::crc32c(body) != header.body_crc {
        return Err(Refused::Checksum);
    }
    let mut cursor = Cursor(body);
    let mut logs = Vec::new();
    for _ in 0..header.logs {
        logs.push(
            decode_log(&mut cursor, get_u16(bytes, 8))
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
    let hard_state = HardState { term: c.i32()?, vote: c.i64()?, commit: c.u64()? };
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
    // What is in segments is a part of what was appended, and the active segment begins within it.
    let ascend = log_start_offset >= 0
        && (0..=next_offset).contains(&flushed_offset)
        && flushed_index <= next_index
        && next_index <= INDEX_MAX
        && active.as_ref().is_none_or(|a| {
            (0..=flushed_offset).contains(&a.base_offset)
                && a.base_index <= flushed_index
                && a.position >= FIRST_BATCH
                && (a.last_page.is_empty() || a.last_page.len() as u64 == a.position % PAGE as u64)
        });
    if !ascend {
        return Some(Err(Refused::Content("a log's offsets do not ascend")));
    }
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
            batches.push_back(ProducedBatch {
                first_sequence: c.i32()?,
                last_sequence: c.i32()?,
                base_offset: c.i64()?,
                last_offset: c.i64()?,
                timestamp: c.i64()?,
            });
        }
        producers.push((id, ProducerEntry { epoch, last_seen_ms, batches }));
    }
    Some(Ok(LogCheckpoint {
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
    }))
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
                hard_state: HardState { term: 4, vote: -1, commit: 3 },
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
        let changes: [&dyn Fn(&mut LogCheckpoint); 10] = [
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
