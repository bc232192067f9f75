//! One flipped bit is found by its CRC-32C: two messages of up to 2^31 bits with the same checksum differ in four bits at
//! the least, so the checksum of a message with one wrong bit leads to that bit.

/// Which bit is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flipped {
    /// One of the checksum itself.
    Checksum(u32),
    /// One of the message's.
    Message { byte: usize, mask: u8 },
}

/// The one bit of a message of `len` bytes, or of its `stored` checksum, that explains why `computed` is another; `None`:
/// it is more than one.
pub fn flipped_bit(len: usize, stored: u32, computed: u32) -> Option<Flipped> {
    let difference = stored ^ computed;
    if difference.count_ones() == 1 {
        return Some(Flipped::Checksum(difference));
    }
    let table = table();
    let shift = |crc: u32| table[(crc & 0xff) as usize] ^ (crc >> 8);
    // What each bit of a byte does to the checksum, from the last byte to the first.
    let mut bits: [u32; 8] = std::array::from_fn(|bit| table[1 << bit]);
    for byte in (0..len).rev() {
        if let Some(bit) = bits.iter().position(|crc| *crc == difference) {
            return Some(Flipped::Message { byte, mask: 1 << bit });
        }
        bits = bits.map(shift);
    }
    None
}

/// Sets the bit right in `bytes`, whose first `len` are the message and the next four the checksum.
pub fn mend(bytes: &mut [u8], len: usize) -> Option<(usize, u8)> {
    let stored = u32::from_le_bytes(*bytes.get(len..)?.first_chunk()?);
    let (at, mask) = match flipped_bit(len, stored, crc32c::crc32c(&bytes[..len]))? {
        Flipped::Message { byte, mask } => (byte, mask),
        Flipped::Checksum(bit) => {
            let place = bit.trailing_zeros() as usize;
            (len + place / 8, 1 << (place % 8))
        }
    };
    bytes[at] ^= mask;
    Some((at, mask))
}

/// CRC-32C of one byte, bits reflected.
fn table() -> [u32; 256] {
    std::array::from_fn(|byte| {
        (0..8).fold(byte as u32, |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_bit_is_found_and_two_are_not() {
        let mut message: Vec<u8> = (0..200u8).map(|n| n.wrapping_mul(37)).collect();
        message.extend(crc32c::crc32c(&message).to_le_bytes());
        for bit in 0..message.len() * 8 {
            let mut bad = message.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(mend(&mut bad, 200), Some((bit / 8, 1 << (bit % 8))));
            assert_eq!(bad, message);
            bad[bit / 8] ^= 1 << (bit % 8);
            bad[(bit / 8 + 50) % 204] ^= 4;
            assert_eq!(mend(&mut bad, 200), None, "bit {bit} and another");
        }
    }
}
