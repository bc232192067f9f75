//! Topic and directory ids.

use std::fmt;
use std::str::FromStr;

/// A 128-bit id, as KIP-516 gives to topics. Written as 22 characters of url-safe base64 without padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

impl Uuid {
    /// Stands for "no id".
    pub const ZERO: Uuid = Uuid([0; 16]);

    pub fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }

    /// A version 4 id from random bits. Its text does not begin with `-`, which command lines would take for an option.
    pub fn from_random(bits: u128) -> Self {
        let mut bytes = bits.to_be_bytes();
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        if ALPHABET[usize::from(bytes[0] >> 2)] == b'-' {
            bytes[0] &= 0x7f;
        }
        Uuid(bytes)
    }

    /// From the most and least significant halves, as Kafka's Java code writes ids.
    pub fn from_halves(most: i64, least: i64) -> Self {
        Uuid(((most as u64 as u128) << 64 | least as u64 as u128).to_be_bytes())
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let bits = u128::from_be_bytes(self.0);
        let mut text = [0; 22];
        for (at, slot) in text.iter_mut().enumerate() {
            // 22 characters carry 132 bits: the last has 4 bits of padding below.
            let shift = 122 - 6 * at as i32;
            let six = if shift >= 0 { bits >> shift } else { bits << -shift };
            *slot = ALPHABET[(six & 63) as usize];
        }
        f.pad(std::str::from_utf8(&text).expect("the alphabet is ASCII"))
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id: wants 22 characters of url-safe base64 (A-Z a-z 0-9 - _)")]
pub struct ParseUuidError(String);

impl FromStr for Uuid {
    type Err = ParseUuidError;

    fn from_str(text: &str) -> Result<Self, ParseUuidError> {
        let fail = || ParseUuidError(text.chars().take(64).collect());
        // Java's decoder takes padding as well.
        let digits = text.strip_suffix("==").unwrap_or(text).as_bytes();
        if digits.len() != 22 {
            return Err(fail());
        }
        let mut bits: u128 = 0;
        for (at, digit) in digits.iter().enumerate() {
            let six = ALPHABET.iter().position(|letter| letter == digit).ok_or_else(fail)? as u128;
            if at < 21 {
                bits = bits << 6 | six;
            } else {
                bits = bits << 2 | six >> 4;
            }
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kafkas() {
        // Kafka's reserved ids ONE and TWO, and the alphabet's ends.
        assert_eq!(Uuid::from_halves(0, 1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::from_halves(0, 2).to_string(), "AAAAAAAAAAAAAAAAAAAAAg");
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
    }

    #[test]
    fn text_round_trips() {
        for seed in 0..200u128 {
            let id = Uuid::from_random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835));
            assert_eq!(id.to_string().parse(), Ok(id));
            assert!(!id.to_string().starts_with('-'));
        }
        assert!(!Uuid::from_random(u128::MAX >> 4 | 0xf8 << 120).to_string().starts_with('-'));
    }

    #[test]
    fn bad_text_is_refused() {
        for text in
            ["", "short", "AAAAAAAAAAAAAAAAAAAA+Q", "AAAAAAAAAAAAAAAAAAAAAQA", "ÄAAAAAAAAAAAAAAAAAAAA"]
        {
            assert!(text.parse::<Uuid>().is_err(), "{text}");
        }
    }
}
