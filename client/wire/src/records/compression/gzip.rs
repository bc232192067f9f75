//! gzip (RFC 1952), by flate2's pure Rust backend.

use std::io::{Read, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use super::{Failure, corrupt, make_room};

/// All members of the stream, one after the other, as Java's reader takes them.
pub(super) fn decompress(data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    make_room(out, data.len().saturating_mul(4), limit);
    // One byte past the limit tells "just fits" from "too large".
    let mut stream = MultiGzDecoder::new(data).take(limit as u64 + 1);
    stream.read_to_end(out).map_err(corrupt)?;
    if out.len() > limit { Err(Failure::TooLarge) } else { Ok(()) }
}

pub(super) fn compress(level: Option<i32>, plain: &[u8], out: &mut Vec<u8>) {
    let level = match level {
        None | Some(-1) => flate2::Compression::default(),
        Some(level) => flate2::Compression::new(level.clamp(1, 9) as u32),
    };
    let mut stream = GzEncoder::new(out, level);
    stream.write_all(plain).and_then(|()| stream.try_finish()).expect("writing to memory does not fail");
}
