//! snappy: raw blocks, and the framing of the Java library "snappy-java" (xerial) that Kafka's clients use.
//!
//! ```text
//! 82 'S' 'N' 'A' 'P' 'P' 'Y' 00 | version i32 | oldest compatible version i32 | { length i32, raw block } ...
//! ```

use super::{Failure, corrupt};

const FRAME_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const FRAME_HEADER_LEN: usize = 16;
/// Versions that Java writes, and the block size it cuts at by default.
const FRAME_VERSION: i32 = 1;
const FRAME_COMPATIBLE: i32 = 1;
const FRAME_BLOCK_LEN: usize = 32 << 10;

/// A raw block's greatest ratio: a copy element of 3 bytes gives 64.
const RATIO_MAX: usize = 22;

pub(super) struct Snappy {
    encoder: snap::raw::Encoder,
    decoder: snap::raw::Decoder,
}

impl Default for Snappy {
    fn default() -> Snappy {
        Snappy { encoder: snap::raw::Encoder::new(), decoder: snap::raw::Decoder::new() }
    }
}

impl Snappy {
    pub(super) fn decompress(&mut self, data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        if !data.starts_with(&FRAME_MAGIC) {
            return self.block(data, limit, out);
        }
        let Some(mut rest) = data.get(FRAME_HEADER_LEN..) else {
            return Err(corrupt("the xerial header is cut off"));
        };
        while !rest.is_empty() {
            let Some((length, behind)) = rest.split_first_chunk::<4>() else {
                return Err(corrupt("a block length is cut off"));
            };
            let length = i32::from_be_bytes(*length);
            let Some(block) = usize::try_from(length).ok().and_then(|length| behind.get(..length)) else {
                return Err(corrupt(format!("a block states {length} bytes and {} are left", behind.len())));
            };
            self.block(block, limit, out)?;
            rest = &behind[block.len()..];
        }
        Ok(())
    }

    /// Appends one raw block.
    fn block(&mut self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        let length = snap::raw::decompress_len(block).map_err(corrupt)?;
        if length > block.len().saturating_mul(RATIO_MAX) {
            return Err(corrupt(format!("a block of {} bytes claims to hold {length}", block.len())));
        }
        let start = out.len();
        if length > limit - start {
            return Err(Failure::TooLarge);
        }
        out.resize(start + length, 0);
        self.decoder.decompress(block, &mut out[start..]).map_err(corrupt)?;
        Ok(())
    }

    pub(super) fn compress(&mut self, plain: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&FRAME_MAGIC);
        out.extend_from_slice(&FRAME_VERSION.to_be_bytes());
        out.extend_from_slice(&FRAME_COMPATIBLE.to_be_bytes());
        for chunk in plain.chunks(FRAME_BLOCK_LEN) {
            let at = out.len();
            out.resize(at + 4 + snap::raw::max_compress_len(chunk.len()), 0);
            let length = self.encoder.compress(chunk, &mut out[at + 4..]).expect("room for the worst case");
            out[at..at + 4].copy_from_slice(&(length as i32).to_be_bytes());
            out.truncate(at + 4 + length);
        }
    }
}
