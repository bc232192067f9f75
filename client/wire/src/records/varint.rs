//! Zigzag variable-length integers as v2 records use them (KIP-98): at most 5 bytes for 32 bits, 10 for 64.
//!
//! Overlong encodings of a small number are read, as Kafka reads them; bits beyond the type's width are not.

/// The value that begins at `*at`, which moves behind it. `None` when bytes run out or the number is too wide.
#[inline(always)]
pub(crate) fn read_i32(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag_32(u32::from(first)));
    }
    read_i32_long(bytes, at)
}

fn read_i32_long(bytes: &[u8], at: &mut usize) -> Option<i32> {
    let mut raw = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 28 && byte > 0x0f {
            return None;
        }
        raw |= u32::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(unzigzag_32(raw));
        }
    }
    None
}

/// As [`read_i32`], for 64 bits.
#[inline(always)]
pub(crate) fn read_i64(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let first = *bytes.get(*at)?;
    if first < 0x80 {
        *at += 1;
        return Some(unzigzag_64(u64::from(first)));
    }
    read_i64_long(bytes, at)
}

fn read_i64_long(bytes: &[u8], at: &mut usize) -> Option<i64> {
    let mut raw = 0u64;
    for shift in [0, 7, 14, 21, 28, 35, 42, 49, 56, 63] {
        let byte = *bytes.get(*at)?;
        *at += 1;
        if shift == 63 && byte > 0x01 {
            return None;
        }
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(unzigzag_64(raw));
        }
    }
    None
}

/// Appends `value`, one to five bytes.
pub(crate) fn write_i32(out: &mut Vec<u8>, value: i32) {
    write_i64(out, i64::from(value));
}

/// Appends `value`, one to ten bytes.
pub(crate) fn write_i64(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag_64(value);
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Bytes that [`write_i32`] and [`write_i64`] write for `value`.
pub(crate) fn size(value: i64) -> usize {
    let bits = 64 - zigzag_64(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

// Zigzag of a sign-extended 32-bit value equals its 64-bit zigzag, so one writer serves both widths.
fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag_32(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ -((raw & 1) as i32)
}

fn unzigzag_64(raw: u64) -> i64 {
    (raw >> 1) as i64 ^ -((raw & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_encodings() {
        let table: &[(i64, &[u8])] = &[
            (0, &[0x00]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (63, &[0x7e]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (8191, &[0xfe, 0x7f]),
            (8192, &[0x80, 0x80, 0x01]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MAX, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in table {
            let mut out = Vec::new();
            write_i64(&mut out, *value);
            assert_eq!(out, *bytes, "{value}");
            assert_eq!(size(*value), bytes.len(), "{value}");
            let mut at = 0;
            assert_eq!(read_i64(bytes, &mut at), Some(*value));
            assert_eq!(at, bytes.len());
            if let Ok(narrow) = i32::try_from(*value) {
                let mut at = 0;
                assert_eq!(read_i32(bytes, &mut at), Some(narrow));
                assert_eq!(at, bytes.len());
            }
        }
    }

    #[test]
    fn refused_encodings() {
        let too_wide_32: &[&[u8]] =
            &[&[], &[0x80], &[0xff, 0xff, 0xff, 0xff, 0x10], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]];
        for bytes in too_wide_32 {
            assert_eq!(read_i32(bytes, &mut 0), None, "{bytes:?}");
        }
        assert_eq!(read_i64(&[0xff; 10], &mut 0), None);
        assert_eq!(read_i64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &mut 0), None);
        // Overlong, but within the width: Kafka reads it as zero.
        assert_eq!(read_i32(&[0x80, 0x00], &mut 0), Some(0));
    }
}
