//! The five codecs of record batches: bounded on the way in, levels honoured on the way out where the library has them.
//!
//! Decompression takes a limit on its output and stops there, whatever the input claims; what it allocates beforehand
//! is bounded by the bytes that are present times the codec's greatest ratio.

mod gzip;
pub(super) mod lz4;
mod snappy;
mod zstd;

use std::cell::Cell;
use std::fmt;
use std::str::FromStr;

/// A codec, by its number in a batch's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    pub fn from_id(id: u8) -> Option<Compression> {
        Compression::ALL.get(usize::from(id)).copied()
    }

    pub fn id(self) -> u8 {
        self as u8
    }

    /// Its name in producers' configs. A topic's `compression.type` says `uncompressed` for `none`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A codec and how hard it should try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Encoding {
    pub codec: Compression,
    /// `None` is the codec's own default. gzip: 1 to 9, or -1 for the default (`compression.gzip.level`). zstd:
    /// -131072 to 22 (`compression.zstd.level`). Values outside are brought into range. snappy has no levels, and
    /// lz4 here has one: the pure Rust library implements the fast compressor, not the "HC" one that Kafka's levels
    /// 1 to 17 choose, so `compression.lz4.level` makes no difference to the bytes.
    pub level: Option<i32>,
}

/// `zstd`, or with a level `zstd:9`.
impl FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Encoding, String> {
        let (name, level) = match text.split_once(':') {
            Some((name, level)) => (name, Some(level.parse().map_err(|_| format!("{level:?} is no level"))?)),
            None => (text, None),
        };
        let codec = Compression::ALL.into_iter().find(|codec| codec.name() == name);
        let names = || Compression::ALL.map(Compression::name).join(", ");
        Ok(Encoding { codec: codec.ok_or_else(|| format!("use one of {}", names()))?, level })
    }
}

impl From<Compression> for Encoding {
    fn from(codec: Compression) -> Encoding {
        Encoding { codec, level: None }
    }
}

/// Compressed records that cannot be decompressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompressionError {
    #[error("compression codec {0} is unknown: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd")]
    UnknownCodec(u8),
    #[error("{codec} records decompress to more than the limit of {limit} bytes")]
    TooLarge { codec: Compression, limit: usize },
    #[error("{codec} data is corrupt: {detail}")]
    Corrupt { codec: Compression, detail: String },
}

/// Which rule an lz4 frame's header checksum follows: message format 0 defined it wrongly (KAFKA-3160).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lz4Checksum {
    /// Over the descriptor, as the LZ4 frame format says.
    Standard,
    /// Over magic and descriptor, as Kafka's clients computed it before 0.10; written so, and not checked when read.
    MessageFormatV0,
}

/// The codecs' working state, kept between batches so that none is set up anew for each.
#[derive(Default)]
pub struct Codecs {
    snappy: snappy::Snappy,
    lz4: lz4::Lz4,
    zstd: zstd::Zstd,
}

impl Codecs {
    /// Replaces `out` by what `data` decompresses to, at most `limit` bytes.
    ///
    /// On an error `out` holds nothing useful. `Compression::None` copies.
    pub fn decompress(
        &mut self,
        codec: Compression,
        data: &[u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        self.decompress_as(codec, data, limit, Lz4Checksum::Standard, out)
    }

    pub(super) fn decompress_as(
        &mut self,
        codec: Compression,
        data: &[u8],
        limit: usize,
        checksum: Lz4Checksum,
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        out.clear();
        let result = match codec {
            Compression::None if data.len() > limit => Err(Failure::TooLarge),
            Compression::None => {
                out.extend_from_slice(data);
                Ok(())
            }
            Compression::Gzip => gzip::decompress(data, limit, out),
            Compression::Snappy => self.snappy.decompress(data, limit, out),
            Compression::Lz4 => lz4::decompress(data, limit, checksum, out),
            Compression::Zstd => self.zstd.decompress(data, limit, out),
        };
        result.map_err(|failure| match failure {
            Failure::TooLarge => CompressionError::TooLarge { codec, limit },
            Failure::Corrupt(detail) => CompressionError::Corrupt { codec, detail },
        })
    }

    /// Appends `plain`, compressed, to `out`.
    pub fn compress(&mut self, encoding: Encoding, plain: &[u8], out: &mut Vec<u8>) {
        self.compress_as(encoding, plain, Lz4Checksum::Standard, out);
    }

    pub(super) fn compress_as(
        &mut self,
        encoding: Encoding,
        plain: &[u8],
        checksum: Lz4Checksum,
        out: &mut Vec<u8>,
    ) {
        match encoding.codec {
            Compression::None => out.extend_from_slice(plain),
            Compression::Gzip => gzip::compress(encoding.level, plain, out),
            Compression::Snappy => self.snappy.compress(plain, out),
            Compression::Lz4 => self.lz4.compress(plain, checksum, out),
            Compression::Zstd => self.zstd.compress(encoding.level, plain, out),
        }
    }
}

/// A codec's failure, before it is named.
enum Failure {
    TooLarge,
    Corrupt(String),
}

fn corrupt(detail: impl fmt::Display) -> Failure {
    Failure::Corrupt(detail.to_string())
}

/// The least that `out` is given room for: a batch of an ordinary producer decompresses to this or less.
const ROOM_MIN: usize = 64 << 10;

/// Gives an empty `out` room for `expected` bytes, no more than `limit`.
fn make_room(out: &mut Vec<u8>, expected: usize, limit: usize) {
    out.reserve(expected.max(ROOM_MIN).min(limit));
}

/// Buffers and codec state for work on batches; one per core, used for one batch at a time.
#[derive(Default)]
pub struct Scratch {
    /// Decompressed records of the batch at hand.
    pub(super) plain: Vec<u8>,
    pub codecs: Codecs,
}

/// What a core's scratch buffer may keep between batches; one large batch does not hold its memory forever.
const SCRATCH_KEPT_MAX: usize = 4 << 20;

impl Scratch {
    pub fn new() -> Scratch {
        Scratch::default()
    }

    /// Decompresses `data` and lends the result until the next use. `Compression::None` lends `data` itself.
    pub fn decompress<'a>(
        &'a mut self,
        codec: Compression,
        data: &'a [u8],
        limit: usize,
    ) -> Result<&'a [u8], CompressionError> {
        if codec == Compression::None {
            return Ok(data);
        }
        self.codecs.decompress(codec, data, limit, &mut self.plain)?;
        Ok(&self.plain)
    }
}

thread_local! {
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// Runs `work` with this thread's scratch. A nested call gets a fresh one.
pub fn with_scratch<R>(work: impl FnOnce(&mut Scratch) -> R) -> R {
    let mut scratch = SCRATCH.take().unwrap_or_default();
    let result = work(&mut scratch);
    if scratch.plain.capacity() > SCRATCH_KEPT_MAX {
        scratch.plain = Vec::new();
    }
    SCRATCH.set(Some(scratch));
    result
}

#[cfg(test)]
mod tests;
