//! Frames between shards of brokers: a FlatBuffers header of `schema/frames.fbs`, then the bytes of batches as they are.
//!
//! Whoever reads a connection takes [`PREFIX_BYTES`], asks [`Prefix::parse`] how much follows, reads the header, then
//! the body into what becomes the log, and gives both to [`decode`]. No length that a peer claims is believed further
//! than its bound, and the header is verified before anything in it is looked at.

mod decode;
mod encode;
#[allow(clippy::all, dead_code, unused_imports, deprecated, mismatched_lifetime_syntaxes, unsafe_op_in_unsafe_fn)]
#[rustfmt::skip]
mod generated;
#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::ids::{GroupId, Tick};
use crate::message::Message;

pub use decode::decode;
pub use encode::{encode_append, encode_messages};

pub const PREFIX_BYTES: usize = 12;
pub const HEADER_BYTES_MAX: usize = 1 << 20;
/// Above what one batch may have, and above what one append takes where its batches are smaller.
pub const BODY_BYTES_MAX: usize = 128 << 20;
/// Messages in one frame: their headers stay below [`HEADER_BYTES_MAX`].
pub const MESSAGES_MAX: usize = 8192;
const MESSAGE_BYTES_MAX: usize = 72;
const _: () = assert!(MESSAGES_MAX * MESSAGE_BYTES_MAX < HEADER_BYTES_MAX * 3 / 4);
/// Offers in one frame: each has a membership of up to a kilobyte.
pub const OFFERS_MAX: usize = 64;

/// All that one shard says to another besides entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// On the sender's clock.
    pub sent: Tick,
    /// The latest `sent` that came from the receiver.
    pub echo: Tick,
    /// How often the sender had reason to doubt what groups at rest believe of this pair: it did not hear the receiver for
    /// long, or could not tell it something. An echo that comes with another number than before is no sign that groups
    /// which rested before still do.
    pub lapses: u64,
    pub messages: Vec<(GroupId, Message)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Messages(Messages),
    /// A message that is an append.
    Append(GroupId, Message),
}

/// A frame as it leaves: its prefix and header as one piece, then the body's.
#[derive(Clone, Debug)]
pub struct Frame {
    pub head: Bytes,
    pub body: Vec<Bytes>,
}

impl Frame {
    pub fn bytes(&self) -> u64 {
        (self.head.len() + self.body.iter().map(Bytes::len).sum::<usize>()) as u64
    }
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error("a header of {0} bytes, the limit is {HEADER_BYTES_MAX}: the peer speaks another protocol")]
    HeaderTooLong(u32),
    #[error("a body of {0} bytes, the limit is {BODY_BYTES_MAX}")]
    BodyTooLong(u32),
    #[error(
        "the header's checksum is {found:08x}, it says {said:08x}: damaged on the way, or another protocol"
    )]
    Checksum { said: u32, found: u32 },
    #[error("the header is no valid FlatBuffer of this schema: {0}")]
    Invalid(String),
    #[error("the frame says what no peer does: {0}")]
    Senseless(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    pub header: u32,
    pub body: u32,
    checksum: u32,
}

impl Prefix {
    pub fn parse(bytes: [u8; PREFIX_BYTES]) -> Result<Prefix, BadFrame> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let prefix = Prefix { header: word(0), body: word(4), checksum: word(8) };
        if prefix.header as usize > HEADER_BYTES_MAX {
            return Err(BadFrame::HeaderTooLong(prefix.header));
        }
        if prefix.body as usize > BODY_BYTES_MAX {
            return Err(BadFrame::BodyTooLong(prefix.body));
        }
        Ok(prefix)
    }

    fn check(&self, header: &[u8]) -> Result<(), BadFrame> {
        let found = crc32c::crc32c(header);
        let said = self.checksum;
        if found == said { Ok(()) } else { Err(BadFrame::Checksum { said, found }) }
    }
}
