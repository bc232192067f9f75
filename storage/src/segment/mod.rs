//! Segments of a log: files of record batches exactly as they go over the wire, each with a sparse index.
//!
//! The *active* segment, the last, is appended to by flushes; the others are *sealed*: exactly as long as their
//! batches, their index complete, with a footer that says what one would else have to read them for. Segments hold
//! what is durable. What of it is not committed may be cut ([`cut()`]): the segment that the cut goes through becomes the
//! active one again.

mod cut;
mod index;
mod load;
mod scan;
mod syncs;
mod turns;
mod write;

pub use cut::{Cut, cut};
pub use index::{BatchStart, INTERVAL, IndexCache, SparseIndex};
pub use load::{Expected, check_header, load, load_sealed, remove};
pub use scan::{Body, Found, Scanner};
pub use syncs::Syncs;
pub use turns::Turns;
pub use write::{PIECE, SegmentWriter, rewrite_index};

use crate::format::checkpoint::ActiveSegmentState;
use crate::format::index_page::Footer;
use crate::ids::RaftIndex;
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The segments of one log, oldest first.
#[derive(Default)]
pub struct Segments {
    pub sealed: Vec<Sealed>,
    pub active: Option<Active>,
}

/// A segment that is not written any more.
#[derive(Clone)]
pub struct Sealed {
    pub base_offset: i64,
    /// Raft index of its first batch; `None` until it is read.
    pub base_index: Cell<Option<RaftIndex>>,
    /// Bytes of its file, header included.
    pub bytes: u64,
    /// `None` until it is read.
    pub footer: Cell<Option<Footer>>,
}

/// The segment that is written to.
#[derive(Clone)]
pub struct Active {
    pub base_offset: i64,
    pub base_index: RaftIndex,
    pub created_ms: i64,
    /// Bytes that are written and synced, header included.
    pub position: u64,
    pub max_timestamp: i64,
    /// Shared with the flush that appends to it: entries beyond `position` are of batches not synced yet.
    pub index: Rc<RefCell<SparseIndex>>,
    /// Full index pages that are in the index file.
    pub index_pages: u32,
    /// The bytes of batches in the page that the next batch begins in. They go into the checkpoint: the journal may be
    /// without them when the page is written again.
    pub last_page: Bytes,
}

impl Active {
    pub fn state(&self) -> ActiveSegmentState {
        ActiveSegmentState {
            base_offset: self.base_offset,
            base_index: self.base_index,
            created_ms: self.created_ms,
            position: self.position,
            max_timestamp: self.max_timestamp,
            last_page: self.last_page.clone(),
        }
    }
}

/// A segment to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSpan {
    pub base_offset: i64,
    /// Where its batches end, in bytes from the start of the file.
    pub end: u64,
    pub sealed: bool,
}

impl From<&Sealed> for SegmentSpan {
    fn from(sealed: &Sealed) -> SegmentSpan {
        SegmentSpan { base_offset: sealed.base_offset, end: sealed.bytes, sealed: true }
    }
}

impl From<&Active> for SegmentSpan {
    fn from(active: &Active) -> SegmentSpan {
        SegmentSpan { base_offset: active.base_offset, end: active.position, sealed: false }
    }
}

impl Segments {
    /// The segment that holds `offset`, which is not below the first one's base.
    pub fn holding(&self, offset: i64) -> Option<SegmentSpan> {
        if let Some(active) = &self.active
            && offset >= active.base_offset
        {
            return Some(SegmentSpan::from(active));
        }
        let after = self.sealed.partition_point(|s| s.base_offset <= offset);
        let sealed = &self.sealed[after.checked_sub(1)?];
        Some(SegmentSpan::from(sealed))
    }

    /// Base offset of the segment after the one that begins at `base_offset`.
    pub fn base_after(&self, base_offset: i64) -> Option<i64> {
        let after = self.sealed.partition_point(|s| s.base_offset <= base_offset);
        match self.sealed.get(after) {
            Some(next) => Some(next.base_offset),
            None => self.active.as_ref().map(|a| a.base_offset).filter(|base| *base > base_offset),
        }
    }

    /// The first offset that is in a segment.
    pub fn first_offset(&self) -> Option<i64> {
        self.sealed.first().map(|s| s.base_offset).or(self.active.as_ref().map(|a| a.base_offset))
    }

    /// Bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        self.sealed.iter().map(|s| s.bytes).sum::<u64>() + self.active.as_ref().map_or(0, |a| a.position)
    }
}
