//! The LZ4 frame format, in the subset that Kafka's Java clients read: one frame of independent blocks, no dictionary.
//!
//! ```text
//! magic u32 | FLG | BD | [content size u64] | header checksum u8
//! | { block size u32, block, [block checksum u32] } ... | 0u32 | [content checksum u32]        all little-endian
//! ```
//! Frames are read here block by block into the caller's buffer, so nothing is copied twice and no buffer is made
//! for the block size that a header merely claims.

use lz4_flex::block::{self, CompressTable, DecompressError};
use twox_hash::XxHash32;

use super::{Failure, Lz4Checksum, corrupt};

const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
const FLG_VERSION_MASK: u8 = 0xc0;
const FLG_VERSION: u8 = 0x40;
const FLG_INDEPENDENT: u8 = 0x20;
const FLG_BLOCK_CHECKSUM: u8 = 0x10;
const FLG_CONTENT_SIZE: u8 = 0x08;
const FLG_CONTENT_CHECKSUM: u8 = 0x04;
/// Reserved, and the dictionary id, which Kafka never defined.
const FLG_REFUSED: u8 = 0x03;
/// Block size code 4: 64 KiB, which Kafka's clients write.
const BD_64K: u8 = 0x40;
const BLOCK_LEN: usize = 64 << 10;
const STORED_BIT: u32 = 1 << 31;

/// A block's greatest ratio: one more byte of match length gives 255.
const RATIO_MAX: usize = 255;

#[derive(Default)]
pub(super) struct Lz4 {
    table: CompressTable,
}

impl Lz4 {
    pub(super) fn compress(&mut self, plain: &[u8], checksum: Lz4Checksum, out: &mut Vec<u8>) {
        let header = [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], FLG_VERSION | FLG_INDEPENDENT, BD_64K];
        out.extend_from_slice(&header);
        out.push(header_checksum(match checksum {
            Lz4Checksum::Standard => &header[4..],
            Lz4Checksum::MessageFormatV0 => &header,
        }));
        for chunk in plain.chunks(BLOCK_LEN) {
            let at = out.len();
            out.resize(at + 4 + block::get_maximum_output_size(chunk.len()), 0);
            let length = block::compress_into_with_table(chunk, &mut out[at + 4..], &mut self.table)
                .expect("room for the worst case");
            let word = if length < chunk.len() {
                out.truncate(at + 4 + length);
                length as u32
            } else {
                out.truncate(at + 4);
                out.extend_from_slice(chunk);
                chunk.len() as u32 | STORED_BIT
            };
            out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&[0; 4]);
    }
}

pub(super) fn decompress(
    data: &[u8],
    limit: usize,
    checksum: Lz4Checksum,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let mut rest = data;
    if *take::<4>(&mut rest)? != MAGIC {
        return Err(corrupt("it does not begin with the LZ4 frame magic"));
    }
    let descriptor = rest;
    let &[flg, bd] = take::<2>(&mut rest)?;
    if flg & FLG_VERSION_MASK != FLG_VERSION || flg & FLG_REFUSED != 0 || bd & 0x8f != 0 {
        return Err(corrupt(format!("the frame descriptor {flg:02x} {bd:02x} is not one that Kafka allows")));
    }
    if flg & FLG_INDEPENDENT == 0 {
        return Err(corrupt("blocks depend on each other, which Kafka's clients cannot read"));
    }
    let block_len_max = match bd >> 4 {
        code @ 4..=7 => 1usize << (2 * code + 8),
        code => return Err(corrupt(format!("block size code {code} is unknown"))),
    };
    let content_size = match flg & FLG_CONTENT_SIZE != 0 {
        true => Some(u64::from_le_bytes(*take::<8>(&mut rest)?)),
        false => None,
    };
    let descriptor = &descriptor[..descriptor.len() - rest.len()];
    let [stored] = *take::<1>(&mut rest)?;
    if checksum == Lz4Checksum::Standard && stored != header_checksum(descriptor) {
        return Err(corrupt("the frame header's checksum is wrong"));
    }

    loop {
        let word = u32::from_le_bytes(*take::<4>(&mut rest)?);
        if word == 0 {
            break;
        }
        let length = (word & !STORED_BIT) as usize;
        if length > block_len_max || length > rest.len() {
            return Err(corrupt(format!(
                "a block states {length} bytes, {} are left, {block_len_max} are allowed",
                rest.len()
            )));
        }
        let (content, behind) = rest.split_at(length);
        rest = behind;
        if flg & FLG_BLOCK_CHECKSUM != 0
            && u32::from_le_bytes(*take::<4>(&mut rest)?) != XxHash32::oneshot(0, content)
        {
            return Err(corrupt("a block's checksum is wrong"));
        }
        if word & STORED_BIT != 0 {
            if length > limit - out.len() {
                return Err(Failure::TooLarge);
            }
            out.extend_from_slice(content);
        } else {
            append_block(content, block_len_max, limit, out)?;
        }
    }

    if flg & FLG_CONTENT_CHECKSUM != 0
        && u32::from_le_bytes(*take::<4>(&mut rest)?) != XxHash32::oneshot(0, out)
    {
        return Err(corrupt("the content's checksum is wrong"));
    }
    if content_size.is_some_and(|size| size != out.len() as u64) {
        return Err(corrupt("the frame holds another number of bytes than its header says"));
    }
    // Java's reader stops at the end mark: bytes behind it would be records that only some consumers see.
    if !rest.is_empty() {
        return Err(corrupt(format!("{} bytes follow the end of the frame", rest.len())));
    }
    Ok(())
}

fn append_block(
    content: &[u8],
    block_len_max: usize,
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let start = out.len();
    let wanted = block_len_max.min(content.len().saturating_mul(RATIO_MAX));
    let room = wanted.min(limit - start);
    out.resize(start + room, 0);
    match block::decompress_into(content, &mut out[start..]) {
        Ok(length) => {
            out.truncate(start + length);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < wanted => Err(Failure::TooLarge),
        Err(error) => Err(corrupt(error)),
    }
}

/// Second byte of the descriptor's hash.
fn header_checksum(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Result<&'a [u8; N], Failure> {
    let (head, behind) = rest.split_first_chunk::<N>().ok_or_else(|| corrupt("the frame is cut off"))?;
    *rest = behind;
    Ok(head)
}
