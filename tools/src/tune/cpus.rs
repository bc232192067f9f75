//! Sets of CPUs as the kernel writes them: masks (`ff,00000001`). Lists are the broker's.

pub use corelog_broker::config::cpus::{parse, written as list};

/// As a mask: words of 32 bits in hexadecimal, the highest first.
pub fn mask(cpus: &[usize]) -> String {
    let mut words = vec![0u32; cpus.iter().max().map_or(1, |most| most / 32 + 1)];
    for cpu in cpus {
        words[cpu / 32] |= 1 << (cpu % 32);
    }
    let (highest, rest) = words.split_last().expect("one word at least");
    rest.iter().rev().fold(format!("{highest:x}"), |mask, word| format!("{mask},{word:08x}"))
}

/// Whether a mask, as the kernel prints it, has no CPU.
pub fn is_empty_mask(mask: &str) -> bool {
    mask.chars().all(|digit| matches!(digit, '0' | ',' | ' '))
}

/// The number that a text begins with.
pub fn leading_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(&[0, 1]), "3");
        assert_eq!(mask(&[0, 33]), "2,00000001");
        assert!(is_empty_mask("0000,00000000") && !is_empty_mask("00000000,00000001"));
    }
}
