//! What stands before each frame on a connection: what kind it is, how long its two parts are, and checksums of itself
//! and of the first part.
//!
//! A frame is an envelope, a *head* and a *body*. The head is what somebody decodes, the body is bytes as they are: of
//! batches, which have checksums of their own, or of segments. Neither is looked into here.
//!
//! | bytes | |
//! |---|---|
//! | 0 | kind |
//! | 1..4 | 0 |
//! | 4..8, 8..12 | length of the head, of the body |
//! | 12..20 | number: of a frame its place on its connection, from 0; of a request and its answer the request's |
//! | 20..24 | CRC-32C of the head |
//! | 24..28 | CRC-32C of the bytes before |
//!
//! All numbers are little-endian.

use bytes::{BufMut, Bytes, BytesMut};

pub const ENVELOPE_BYTES: usize = 28;
/// What somebody decodes. Above the largest of `corelog_raft::frame`, which is 1 MiB and its prefix.
pub const HEAD_BYTES_MAX: usize = (1 << 20) + (4 << 10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: the sender lives.
    Ping = 0,
    Frame = 1,
    Request = 2,
    Answer = 3,
    /// An answer that says, in its head, why there is none.
    Failure = 4,
}

/// What is sent: a head, and the pieces of a body.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub head: Bytes,
    pub body: Vec<Bytes>,
}

impl From<Bytes> for Frame {
    fn from(head: Bytes) -> Frame {
        Frame { head, body: Vec::new() }
    }
}

impl Frame {
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body_bytes()
    }

    fn body_bytes(&self) -> usize {
        self.body.iter().map(Bytes::len).sum()
    }
}

/// Why what was received is no frame. The connection ends with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    #[error(
        "an envelope's checksum is {found:08x}, it says {said:08x}: damaged on the way, or another protocol"
    )]
    Envelope { said: u32, found: u32 },
    #[error(
        "the checksum of a frame's head is {found:08x}, its envelope says {said:08x}: damaged on the way"
    )]
    Head { said: u32, found: u32 },
    #[error("a frame of kind {0}, which this build does not know")]
    Kind(u8),
    #[error("a head of {0} bytes, the limit is {HEAD_BYTES_MAX}")]
    HeadTooLong(u32),
    #[error(
        "a frame of {bytes} bytes, and this broker has memory for {max}: give it more, or the other end smaller batches"
    )]
    TooLarge { bytes: u64, max: usize },
    #[error("a {kind:?} numbered {found} on a connection where that cannot be: {expected}")]
    OutOfPlace { kind: Kind, found: u64, expected: String },
    #[error("{0}")]
    Senseless(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    pub kind: Kind,
    pub number: u64,
    pub head: u32,
    pub body: u32,
    head_checksum: u32,
}

impl Envelope {
    pub fn parse(bytes: [u8; ENVELOPE_BYTES]) -> Result<Envelope, BadFrame> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (said, found) = (word(24), crc32c::crc32c(&bytes[..24]));
        if said != found {
            return Err(BadFrame::Envelope { said, found });
        }
        let kind = match bytes[0] {
            0 => Kind::Ping,
            1 => Kind::Frame,
            2 => Kind::Request,
            3 => Kind::Answer,
            4 => Kind::Failure,
            unknown => return Err(BadFrame::Kind(unknown)),
        };
        let number = u64::from(word(12)) | u64::from(word(16)) << 32;
        let envelope = Envelope { kind, number, head: word(4), body: word(8), head_checksum: word(20) };
        if envelope.head as usize > HEAD_BYTES_MAX {
            return Err(BadFrame::HeadTooLong(envelope.head));
        }
        if kind == Kind::Ping && envelope.bytes() > ENVELOPE_BYTES as u64 {
            return Err(BadFrame::Senseless("a ping that says something".into()));
        }
        Ok(envelope)
    }

    /// Of all that it stands for, itself included.
    pub fn bytes(&self) -> u64 {
        ENVELOPE_BYTES as u64 + u64::from(self.head) + u64::from(self.body)
    }

    pub fn check_head(&self, head: &[u8]) -> Result<(), BadFrame> {
        let (said, found) = (self.head_checksum, crc32c::crc32c(head));
        if said == found { Ok(()) } else { Err(BadFrame::Head { said, found }) }
    }

    /// Writes the envelope of a frame. None: the frame is longer than an envelope can say.
    pub fn write(kind: Kind, number: u64, frame: &Frame, out: &mut BytesMut) -> Option<()> {
        let head = u32::try_from(frame.head.len()).ok().filter(|head| *head as usize <= HEAD_BYTES_MAX)?;
        let body = u32::try_from(frame.body_bytes()).ok()?;
        let start = out.len();
        out.put_slice(&[kind as u8, 0, 0, 0]);
        out.put_u32_le(head);
        out.put_u32_le(body);
        out.put_u64_le(number);
        out.put_u32_le(crc32c::crc32c(&frame.head));
        out.put_u32_le(crc32c::crc32c(&out[start..]));
        Some(())
    }
}
