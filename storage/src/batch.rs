//! What the log does with a record batch beyond reading its header.
//!
//! The batch's CRC covers everything from the attributes on; what stands before (base offset, length, leader epoch,
//! magic, the CRC itself) is the broker's to set and is protected by the journal group's checksum in the journal, and
//! in segments by what the log knows of it: its offsets have no gaps, and its leader epochs are in its history.

use crate::producers::Claim;
use corelog_wire::records::{
    ATTRIBUTES_AT, BATCH_HEADER_LEN, BatchHeader, CRC_AT, NO_TIMESTAMP, PARTITION_LEADER_EPOCH_AT,
};

/// Bytes of a batch's header.
pub const HEADER: usize = BATCH_HEADER_LEN;
/// Where the part under the CRC begins.
pub const CRC_FROM: usize = ATTRIBUTES_AT;
/// Bytes that the log sets: up to and with the leader epoch.
const PATCHED: usize = PARTITION_LEADER_EPOCH_AT + 4;

/// The greatest timestamp a batch adds to its log.
pub fn timestamp(header: &BatchHeader) -> i64 {
    if header.is_internal() { NO_TIMESTAMP } else { header.max_timestamp }
}

/// Whether the batch takes the offsets that one of its kind takes: none if it is internal, else one at the least.
pub fn takes_its_offsets(header: &BatchHeader) -> bool {
    match header.is_internal() {
        true => header.next_offset() == header.base_offset,
        false => header.next_offset() > header.base_offset,
    }
}

/// The CRC a batch states, whole or in parts, against its bytes.
pub fn crc_matches<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> bool {
    let (mut stated, mut crc, mut at) = ([0; 4], 0, 0);
    for part in parts {
        let end = at + part.len();
        for (i, byte) in stated.iter_mut().enumerate() {
            if (at..end).contains(&(CRC_AT + i)) {
                *byte = part[CRC_AT + i - at];
            }
        }
        let from = CRC_FROM.clamp(at, end) - at;
        crc = crc32c::crc32c_append(crc, &part[from..]);
        at = end;
    }
    at >= HEADER && crc == u32::from_be_bytes(stated)
}

/// The batch with the base offset and leader epoch it gets in this log, in two pieces.
pub fn patched(batch: &[u8], base_offset: i64, leader_epoch: i32) -> ([u8; PATCHED], &[u8]) {
    let (head, rest) = batch.split_first_chunk::<PATCHED>().expect("a batch is longer than its header");
    let mut head = *head;
    head[..8].copy_from_slice(&base_offset.to_be_bytes());
    head[PARTITION_LEADER_EPOCH_AT..].copy_from_slice(&leader_epoch.to_be_bytes());
    (head, rest)
}

/// The leader epoch of a batch, of which nothing else is asked.
pub fn leader_epoch(batch: &[u8]) -> i32 {
    let epoch = batch[PARTITION_LEADER_EPOCH_AT..].first_chunk().expect("a batch is longer than its header");
    i32::from_be_bytes(*epoch)
}

/// The sequence numbers that an idempotent producer's batch claims; `None` for any other batch.
pub fn claim(header: &BatchHeader) -> Option<Claim> {
    let claims = header.has_producer_id()
        && header.base_sequence >= 0
        && !header.is_internal()
        && !header.is_control();
    claims.then_some(Claim {
        producer_id: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        last_offset_delta: header.last_offset_delta,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::records::internal_batch;

    #[test]
    fn a_crc_is_checked_over_any_parts() {
        let batch = internal_batch(5, 1, 1000, &[9; 200]);
        for cut in 0..=batch.len() {
            assert!(crc_matches([&batch[..cut], &batch[cut..]]), "cut at {cut}");
        }
        assert!(crc_matches(batch.chunks(3)));
        let mut bad = batch.to_vec();
        bad[100] ^= 1;
        assert!(!crc_matches([&bad[..]]));
        assert!(!crc_matches([&batch[..40]]));
    }

    #[test]
    fn patching_leaves_the_crc_right() {
        let batch = internal_batch(0, 0, 1000, b"x");
        let (head, rest) = patched(&batch, 77, 3);
        let whole = [&head[..], rest].concat();
        let header = BatchHeader::parse(&whole).unwrap();
        assert_eq!((header.base_offset, header.partition_leader_epoch), (77, 3));
        assert!(crc_matches([&whole[..]]));
    }
}
