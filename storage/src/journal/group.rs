//! A journal group in memory: filled by appends, then written as it is.

use super::Completion;
use crate::format::entry::{ENTRY_ALIGN, EntryHeader, unprotected};
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::page_ceil;
use crate::log::Log;
use bytes::Bytes;
use corelog_io::Block;
use std::ops::Range;
use std::rc::{Rc, Weak};

/// What is to happen to a log when its entry is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Batches were appended (one effect for all of a group).
    Appended,
    LogStart(i64),
    /// The log began anew.
    Reset,
    HardState(crate::format::entry::HardState),
    /// Nothing: it took effect when its order was fixed.
    Truncated,
}

/// A group that takes appends. Several groups may share one block, one after the other.
pub struct Filling {
    pub sequence: u64,
    block: Block,
    start: usize,
    header: Range<usize>,
    entries: u32,
    entries_crc: u32,
    effects: Vec<(Weak<Log>, Effect)>,
    pub completion: Rc<Completion>,
}

/// A group that is being written, or waits for groups before it to be durable.
pub struct Group {
    pub sequence: u64,
    /// Bytes on disk and in memory.
    pub len: u64,
    pub entries: u32,
    pub effects: Vec<(Weak<Log>, Effect)>,
    pub completion: Rc<Completion>,
    /// Its own write is done.
    pub written: bool,
}

impl Filling {
    /// An empty group at the end of `block`, which has room for [`GROUP_HEADER`] and ends at a page.
    pub fn begin(mut block: Block, sequence: u64) -> Filling {
        let header = block.reserve(GROUP_HEADER);
        Filling {
            sequence,
            start: header.start,
            header,
            block,
            entries: 0,
            entries_crc: 0,
            effects: Vec::new(),
            completion: Rc::default(),
        }
    }

    /// Bytes so far, header included.
    pub fn len(&self) -> usize {
        self.block.len() - self.start
    }

    /// Bytes it takes on disk if it is sealed now.
    pub fn disk_len(&self) -> u64 {
        page_ceil(self.len() as u64)
    }

    /// Whether an entry that takes `span` bytes still fits, with the group no longer than `max`.
    pub fn fits(&self, span: usize, max: usize) -> bool {
        span <= self.block.remaining() && self.len() + span <= max
    }

    /// Copies an entry in; the payload in two pieces, its patched head and the rest. The payload's bytes, by reference.
    pub fn push(&mut self, header: &EntryHeader, head: &[u8], rest: &[u8]) -> Bytes {
        assert_eq!(header.len as usize, head.len() + rest.len());
        let encoded = header.encode();
        self.block.append(&encoded);
        let first = self.block.append(head);
        let last = self.block.append(rest);
        let payload = self.block.slice(first.start..last.end);
        let padding = self.block.len().next_multiple_of(ENTRY_ALIGN) - self.block.len();
        self.block.append(&[0; ENTRY_ALIGN][..padding]);
        self.entries += 1;
        self.entries_crc = crc32c::crc32c_append(self.entries_crc, &encoded);
        self.entries_crc = crc32c::crc32c_append(self.entries_crc, unprotected(&payload));
        payload
    }

    /// What to do once it is durable.
    pub fn add_effect(&mut self, log: Weak<Log>, effect: Effect) {
        self.effects.push((log, effect));
    }

    /// Closes the group: its header is set and its last page filled with zeros. Gives what to write, the group, and
    /// the block for the next one.
    pub fn seal(mut self, mut header: GroupHeader) -> (Bytes, Group, Block) {
        header.sequence = self.sequence;
        header.payload_len = (self.len() - GROUP_HEADER) as u32;
        header.entries = self.entries;
        header.entries_crc = self.entries_crc;
        let padding = self.disk_len() as usize - self.len();
        self.block.write_at(self.header, &header.encode());
        self.block.reserve(padding);
        let bytes = self.block.slice(self.start..self.block.len());
        let group = Group {
            sequence: self.sequence,
            len: bytes.len() as u64,
            entries: self.entries,
            effects: self.effects,
            completion: self.completion,
            written: false,
        };
        (bytes, group, self.block)
    }
}
