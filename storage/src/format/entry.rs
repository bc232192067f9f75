//! One entry of a journal group: what happened to one log.

use super::Refused;
use super::fields::{get, get_i32, get_i64, get_u32, get_u64, put};
use crate::batch;
use crate::ids::{LogId, RaftIndex, Uuid};

/// Bytes of an entry's header; the payload follows, padded with zeros to [`ENTRY_ALIGN`].
pub const ENTRY_HEADER: usize = 48;

/// Where the header says how many bytes of payload follow it.
pub const ENTRY_LEN_AT: usize = 44;
/// Entries begin at multiples of this within their group, in bytes.
pub const ENTRY_ALIGN: usize = 8;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A record batch was appended: `index` and `term` are its Raft entry's, `base_offset` its first Kafka offset
    /// (of an internal batch, the offset the next record batch will take). The payload is the batch.
    Append,
    /// The entries from `index` on are gone; `base_offset` is the log end offset that leaves, `term` that of the entry
    /// before.
    Truncate,
    /// Raft's durable state, a [`HardState`] as payload.
    HardState,
    /// The log start offset is `base_offset` from now on.
    LogStart,
    /// The log begins anew, before `index` and `base_offset`, after an entry of `term`: all that came before is void.
    Reset,
}

impl EntryKind {
    fn code(self) -> u8 {
        match self {
            EntryKind::Append => 1,
            EntryKind::Truncate => 2,
            EntryKind::HardState => 3,
            EntryKind::LogStart => 4,
            EntryKind::Reset => 5,
        }
    }

    fn from_code(code: u8) -> Option<EntryKind> {
        Some(match code {
            1 => EntryKind::Append,
            2 => EntryKind::Truncate,
            3 => EntryKind::HardState,
            4 => EntryKind::LogStart,
            5 => EntryKind::Reset,
            _ => return None,
        })
    }
}

/// An entry without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub log: LogId,
    pub kind: EntryKind,
    pub index: RaftIndex,
    pub base_offset: i64,
    pub term: i32,
    /// Bytes of payload, without padding.
    pub len: u32,
}

impl EntryHeader {
    pub fn encode(&self) -> [u8; ENTRY_HEADER] {
        let mut out = [0; ENTRY_HEADER];
        put(&mut out, 0, self.log.topic.0);
        put(&mut out, 16, self.log.partition.to_le_bytes());
        out[20] = self.kind.code();
        put(&mut out, 24, self.index.0.to_le_bytes());
        put(&mut out, 32, self.base_offset.to_le_bytes());
        put(&mut out, 40, self.term.to_le_bytes());
        put(&mut out, ENTRY_LEN_AT, self.len.to_le_bytes());
        out
    }

    /// `bytes` begin with the header. The group's checksum has been checked before.
    pub fn decode(bytes: &[u8]) -> Result<EntryHeader, Refused> {
        if bytes.len() < ENTRY_HEADER {
            return Err(Refused::Content("an entry header runs past the end of its group"));
        }
        let kind =
            EntryKind::from_code(bytes[20]).ok_or(Refused::Content("an entry is of an unknown kind"))?;
        let len = get_u32(bytes, ENTRY_LEN_AT);
        match kind {
            EntryKind::Append if (len as usize) < batch::HEADER => {
                return Err(Refused::Content("an appended batch is shorter than a batch header"));
            }
            EntryKind::Truncate | EntryKind::LogStart | EntryKind::Reset if len != 0 => {
                return Err(Refused::Content("an entry without payload claims one"));
            }
            EntryKind::HardState if len as usize != HARD_STATE => {
                return Err(Refused::Content("an entry with Raft's state is of another length than that"));
            }
            _ => {}
        }
        Ok(EntryHeader {
            log: LogId { topic: Uuid(get(bytes, 0)), partition: get_i32(bytes, 16) },
            kind,
            index: RaftIndex(get_u64(bytes, 24)),
            base_offset: get_i64(bytes, 32),
            term: get_i32(bytes, 40),
            len,
        })
    }

    /// Bytes header, payload and padding take in the group.
    pub fn span(&self) -> usize {
        entry_span(self.len as usize)
    }
}

/// Raft's durable state of one log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    pub term: i32,
    /// Broker id voted for in `term`; -1: none.
    pub vote: i64,
}

/// Bytes of a [`HardState`] entry's payload: term and vote.
const HARD_STATE: usize = 12;

const _: () = assert!(HARD_STATE <= batch::CRC_FROM, "the group's checksum takes all of it in");

impl HardState {
    pub fn encode(&self) -> [u8; HARD_STATE] {
        let mut out = [0; HARD_STATE];
        put(&mut out, 0, self.term.to_le_bytes());
        put(&mut out, 4, self.vote.to_le_bytes());
        out
    }

    /// `payload`: of an entry that was decoded.
    pub fn decode(payload: &[u8]) -> HardState {
        HardState { term: get_i32(payload, 0), vote: get_i64(payload, 4) }
    }
}

/// Bytes an entry with `payload` bytes takes in its group.
pub const fn entry_span(payload: usize) -> usize {
    (ENTRY_HEADER + payload).next_multiple_of(ENTRY_ALIGN)
}

/// The part of a payload that its own checksum leaves out, and the group's takes in: of a batch, all before the
/// attributes (base offset, length, leader epoch, magic, CRC).
pub fn unprotected(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(batch::CRC_FROM)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryKind, len: u32) -> EntryHeader {
        EntryHeader {
            log: LogId { topic: Uuid([7; 16]), partition: 3 },
            kind,
            index: RaftIndex(1 << 40),
            base_offset: -5,
            term: 9,
            len,
        }
    }

    #[test]
    fn every_kind_survives_the_round_trip() {
        for h in [
            header(EntryKind::Append, 61),
            header(EntryKind::Truncate, 0),
            header(EntryKind::HardState, HARD_STATE as u32),
            header(EntryKind::LogStart, 0),
            header(EntryKind::Reset, 0),
        ] {
            assert_eq!(EntryHeader::decode(&h.encode()), Ok(h));
        }
    }

    #[test]
    fn rafts_state_survives_the_round_trip() {
        let state = HardState { term: 7, vote: -1 };
        assert_eq!(HardState::decode(&state.encode()), state);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let refused = |bytes: &[u8]| EntryHeader::decode(bytes).is_err();
        assert!(refused(&header(EntryKind::Append, 60).encode()));
        assert!(refused(&header(EntryKind::LogStart, 1).encode()));
        assert!(refused(&header(EntryKind::HardState, 0).encode()));
        assert!(refused(&header(EntryKind::Append, 61).encode()[..47]));
        let mut unknown = header(EntryKind::Append, 61).encode();
        unknown[20] = 77;
        assert!(refused(&unknown));
    }
}
