use super::*;

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Compressible text of `len` bytes with some variety in it.
fn text(len: usize) -> Vec<u8> {
    (0..)
        .flat_map(|i: u32| format!("line {} of {}; ", i, i.wrapping_mul(2_654_435_761)).into_bytes())
        .take(len)
        .collect()
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(step).collect()
}

fn compressed(encoding: impl Into<Encoding>, plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Codecs::default().compress(encoding.into(), plain, &mut out);
    out
}

fn decompressed(codec: Compression, data: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let mut out = vec![1, 2, 3];
    Codecs::default().decompress(codec, data, limit, &mut out).map(|()| out)
}

#[test]
fn every_codec_gives_back_what_it_took_and_state_is_reusable() {
    let mut codecs = Codecs::default();
    let (mut packed, mut plain) = (Vec::new(), Vec::new());
    for len in [0, 1, 12, 13, 100, 32 << 10, (32 << 10) + 1, 64 << 10, (64 << 10) + 1, 1 << 20] {
        for input in [text(len), noise(len)] {
            for codec in Compression::ALL {
                packed.clear();
                codecs.compress(codec.into(), &input, &mut packed);
                // Exactly the limit must pass.
                codecs
                    .decompress(codec, &packed, input.len(), &mut plain)
                    .unwrap_or_else(|e| panic!("{codec} {len}: {e}"));
                assert!(plain == input, "{codec} {len}");
            }
        }
    }
}

#[test]
fn one_byte_over_the_limit_is_refused() {
    let input = text(100_000);
    for codec in Compression::ALL {
        let packed = compressed(codec, &input);
        for limit in [0, 1, 65_536, input.len() - 1] {
            assert_eq!(
                decompressed(codec, &packed, limit),
                Err(CompressionError::TooLarge { codec, limit }),
                "{limit}"
            );
        }
    }
}

#[test]
fn a_bomb_is_refused_without_being_blown_up() {
    let bomb = vec![0u8; 64 << 20];
    for codec in CODECS {
        let packed = compressed(codec, &bomb);
        let limit = 1 << 20;
        let mut out = Vec::new();
        let result = Codecs::default().decompress(codec, &packed, limit, &mut out);
        assert_eq!(result, Err(CompressionError::TooLarge { codec, limit }));
        assert!(out.capacity() <= 2 * limit + (128 << 10), "{codec} took {} bytes", out.capacity());
    }
}

#[test]
fn truncation_and_empty_input_are_corrupt() {
    let input = text(500);
    for codec in CODECS {
        let packed = compressed(codec, &input);
        for len in 0..packed.len() {
            match decompressed(codec, &packed[..len], 1 << 20) {
                Err(CompressionError::Corrupt { .. }) => {}
                // A xerial stream has no end mark: cut between blocks, it is a shorter stream.
                Ok(plain) if codec == Compression::Snappy && len == 16 => assert!(plain.is_empty()),
                other => panic!("{codec} cut at {len}: {other:?}"),
            }
        }
    }
}

#[test]
fn flipped_bits_never_panic_and_trailing_bytes_are_refused() {
    let input = text(300);
    for codec in CODECS {
        let packed = compressed(codec, &input);
        for at in 0..packed.len() {
            for bit in 0..8 {
                let mut bad = packed.clone();
                bad[at] ^= 1 << bit;
                if let Ok(plain) = decompressed(codec, &bad, 10_000) {
                    assert!(plain.len() <= 10_000);
                }
            }
        }
        let mut longer = packed;
        longer.push(0x55);
        assert!(
            matches!(decompressed(codec, &longer, 10_000), Err(CompressionError::Corrupt { .. })),
            "{codec}"
        );
    }
}

#[test]
fn levels_change_the_effort_where_the_library_has_them() {
    let input = text(200_000);
    let at = |codec, level| compressed(Encoding { codec, level }, &input);
    for codec in [Compression::Gzip, Compression::Zstd] {
        let (least, most) = if codec == Compression::Gzip { (1, 9) } else { (-100, 19) };
        assert!(at(codec, Some(most)).len() < at(codec, Some(least)).len(), "{codec}");
        for level in [i32::MIN, -1, 0, 22, i32::MAX] {
            let packed = at(codec, Some(level));
            assert!(decompressed(codec, &packed, input.len()).unwrap() == input, "{codec} level {level}");
        }
    }
    assert_eq!(at(Compression::Gzip, Some(-1)), at(Compression::Gzip, None));
    assert_eq!(at(Compression::Lz4, Some(17)), at(Compression::Lz4, None), "documented: one level only");
}

#[test]
fn snappy_reads_raw_blocks_and_writes_what_java_writes() {
    let input = text(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&input).unwrap();
    assert!(decompressed(Compression::Snappy, &raw, input.len()).unwrap() == input);
    let framed = compressed(Compression::Snappy, &input);
    assert_eq!(framed[..16], *b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01");
    let first = i32::from_be_bytes(framed[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::decompress_len(&framed[20..20 + first]).unwrap(), 32 << 10);
}

#[test]
fn snappy_does_not_believe_lengths() {
    // A preamble of 2^32 - 1 bytes, raw and framed.
    let raw = [0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61];
    let mut framed = b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x07".to_vec();
    framed.extend_from_slice(&raw);
    for data in [&raw[..], &framed[..]] {
        assert!(matches!(
            decompressed(Compression::Snappy, data, usize::MAX),
            Err(CompressionError::Corrupt { .. })
        ));
    }
    for length in [-1i32, i32::MIN, i32::MAX, 8] {
        framed[16..20].copy_from_slice(&length.to_be_bytes());
        assert!(matches!(
            decompressed(Compression::Snappy, &framed, 1 << 20),
            Err(CompressionError::Corrupt { .. })
        ));
    }
}

#[test]
fn lz4_frames_of_another_writer_are_read_and_ours_by_another_reader() {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
    use std::io::{Read, Write};
    let input = text(700_000);
    for size in [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB] {
        for checks in [false, true] {
            let info = FrameInfo::new()
                .block_size(size)
                .block_checksums(checks)
                .content_checksum(checks)
                .content_size(checks.then_some(input.len() as u64));
            let mut writer = FrameEncoder::with_frame_info(info, Vec::new());
            writer.write_all(&input).unwrap();
            let frame = writer.finish().unwrap();
            assert!(decompressed(Compression::Lz4, &frame, input.len()).unwrap() == input);
            if checks {
                let mut bad = frame.clone();
                *bad.last_mut().unwrap() ^= 1;
                assert!(decompressed(Compression::Lz4, &bad, input.len()).is_err(), "content checksum");
                let mut bad = frame;
                bad[6] ^= 1;
                bad[14] = header_checksum_of(&bad[4..14]);
                assert!(decompressed(Compression::Lz4, &bad, input.len()).is_err(), "content size");
            }
        }
    }
    let linked = FrameInfo::new().block_mode(BlockMode::Linked);
    let mut writer = FrameEncoder::with_frame_info(linked, Vec::new());
    writer.write_all(&input).unwrap();
    assert!(decompressed(Compression::Lz4, &writer.finish().unwrap(), input.len()).is_err());

    let mut read_back = Vec::new();
    FrameDecoder::new(&compressed(Compression::Lz4, &input)[..]).read_to_end(&mut read_back).unwrap();
    assert!(read_back == input);
}

fn header_checksum_of(descriptor: &[u8]) -> u8 {
    (twox_hash::XxHash32::oneshot(0, descriptor) >> 8) as u8
}

#[test]
fn lz4_header_checksum_of_message_format_0() {
    let input = text(1000);
    let mut codecs = Codecs::default();
    let (mut broken, mut plain) = (Vec::new(), Vec::new());
    codecs.compress_as(Compression::Lz4.into(), &input, Lz4Checksum::MessageFormatV0, &mut broken);
    // What a 0.8 client sends: hash over magic, FLG 0x60 and BD 0x40.
    assert_eq!(broken[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, header_checksum_of(&broken[..6])]);
    assert!(decompressed(Compression::Lz4, &broken, 1 << 20).is_err());
    codecs
        .decompress_as(Compression::Lz4, &broken, 1 << 20, Lz4Checksum::MessageFormatV0, &mut plain)
        .unwrap();
    assert!(plain == input);
}

#[test]
fn several_gzip_members_and_zstd_frames_are_one_stream() {
    for codec in [Compression::Gzip, Compression::Zstd] {
        let mut packed = compressed(codec, b"first ");
        packed.extend(compressed(codec, b"second"));
        assert_eq!(decompressed(codec, &packed, 12).unwrap(), b"first second", "{codec}");
        assert!(decompressed(codec, &packed, 11).is_err(), "{codec}");
    }
}

#[test]
fn zstd_frames_without_a_content_size_and_with_wide_windows() {
    use std::io::Write;
    let input = text(1 << 20);
    let frame = |level, window_log| {
        let mut writer = ::zstd::stream::write::Encoder::new(Vec::new(), level).unwrap();
        if let Some(window_log) = window_log {
            writer.window_log(window_log).unwrap();
        }
        writer.write_all(&input).unwrap();
        writer.finish().unwrap()
    };
    // 27 is what a Java producer writes at level 22.
    for frame in [frame(1, None), frame(3, None), frame(9, None), frame(1, Some(27))] {
        assert!(decompressed(Compression::Zstd, &frame, input.len()).unwrap() == input);
        assert!(decompressed(Compression::Zstd, &frame, input.len() - 1).is_err());
    }
    let error = decompressed(Compression::Zstd, &frame(1, Some(28)), input.len()).unwrap_err();
    assert!(matches!(error, CompressionError::Corrupt { .. }), "{error}");
}

#[test]
fn scratch_does_not_keep_a_large_batch() {
    let packed = compressed(Compression::Zstd, &text(SCRATCH_KEPT_MAX + 1));
    with_scratch(|scratch| assert!(scratch.decompress(Compression::Zstd, &packed, 1 << 30).is_ok()));
    with_scratch(|scratch| {
        assert_eq!(scratch.plain.capacity(), 0);
        // A nested use has its own.
        with_scratch(|inner| assert!(inner.decompress(Compression::Zstd, &packed, 1 << 30).is_ok()));
        assert_eq!(scratch.plain.capacity(), 0);
    });
}

#[test]
fn encodings_have_levels() {
    assert_eq!("zstd:9".parse(), Ok(Encoding { codec: Compression::Zstd, level: Some(9) }));
    assert_eq!("none".parse(), Ok(Encoding { codec: Compression::None, level: None }));
    assert!("zip".parse::<Encoding>().is_err() && "gzip:x".parse::<Encoding>().is_err());
}
