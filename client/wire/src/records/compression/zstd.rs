//! Zstandard (RFC 8878), by the reference library.

use zstd::zstd_safe::{self, CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::{Failure, corrupt, make_room};

/// Level 3, the library's default and Kafka's.
const LEVEL_DEFAULT: i32 = 3;
const LEVEL_MIN: i32 = -131_072;
const LEVEL_MAX: i32 = 22;

/// Working memory that a context may keep between batches. A frame may ask for a window of up to 128 MiB (the library's
/// own limit; level 22 writes such frames), of which only what the output fills is ever touched.
const CONTEXT_KEPT_MAX: usize = 16 << 20;

/// Output expected per byte of input when the frame's own claim is larger: more comes by doubling, as it proves real.
const RATIO_EXPECTED: usize = 64;

#[derive(Default)]
pub(super) struct Zstd {
    compressor: Option<CCtx<'static>>,
    decompressor: Option<DCtx<'static>>,
}

impl Zstd {
    /// All frames of the stream, one after the other, as Java's reader takes them.
    pub(super) fn decompress(&mut self, data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut context = self.decompressor.take().unwrap_or_else(DCtx::create);
        let result = stream(&mut context, data, limit, out);
        if result.is_ok() && context.sizeof() <= CONTEXT_KEPT_MAX {
            self.decompressor = Some(context);
        }
        result
    }

    pub(super) fn compress(&mut self, level: Option<i32>, plain: &[u8], out: &mut Vec<u8>) {
        let level = level.unwrap_or(LEVEL_DEFAULT).clamp(LEVEL_MIN, LEVEL_MAX);
        let mut context = self.compressor.take().unwrap_or_else(CCtx::create);
        context.set_parameter(CParameter::CompressionLevel(level)).expect("the level is in range");
        let start = out.len();
        out.reserve(zstd_safe::compress_bound(plain.len()));
        let mut input = InBuffer::around(plain);
        let mut output = OutBuffer::around_pos(out, start);
        // The whole input at once: the frame then tells its content size, and one call ends it.
        let left = context
            .compress_stream2(&mut output, &mut input, zstd_safe::zstd_sys::ZSTD_EndDirective::ZSTD_e_end)
            .unwrap_or_else(|code| panic!("zstd cannot compress: {}", get_error_name(code)));
        assert!(
            left == 0 && input.pos() == plain.len(),
            "zstd had room for the worst case and did not finish"
        );
        if context.sizeof() <= CONTEXT_KEPT_MAX {
            self.compressor = Some(context);
        }
    }
}

fn stream(context: &mut DCtx<'_>, data: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
    context.reset(ResetDirective::SessionOnly).map_err(|code| corrupt(get_error_name(code)))?;
    let claimed = zstd_safe::get_frame_content_size(data).ok().flatten();
    if claimed.is_some_and(|size| size > limit as u64) {
        return Err(Failure::TooLarge);
    }
    let claimed = claimed.map_or(usize::MAX, |size| size as usize);
    make_room(out, claimed.min(data.len().saturating_mul(RATIO_EXPECTED)), limit);
    let mut input = InBuffer::around(data);
    loop {
        if out.len() == out.capacity() {
            // One byte past the limit tells "just fits" from "too large".
            out.reserve_exact(out.len().max(super::ROOM_MIN).min(limit + 1 - out.len()));
        }
        let start = out.len();
        let mut output = OutBuffer::around_pos(out, start);
        let hint = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| corrupt(get_error_name(code)))?;
        if out.len() > limit {
            return Err(Failure::TooLarge);
        }
        let consumed = input.pos() == data.len();
        if hint == 0 && consumed {
            return Ok(());
        }
        if hint != 0 && consumed && out.len() < out.capacity() {
            return Err(corrupt("the frame is cut off"));
        }
    }
}
