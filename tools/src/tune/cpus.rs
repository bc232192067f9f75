//! Sets of CPUs as the kernel writes them: lists (`0-3,6`) and masks (`ff,00000001`).

/// More CPUs than Linux numbers; a range is never expanded past it.
const CPU_MAX: usize = 8191;

/// The CPUs of a list, ascending.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let wrong = || format!("{text:?} names no CPUs; write 3, or 0,2, or 0-7");
    let number =
        |text: &str| text.trim().parse::<usize>().ok().filter(|cpu| *cpu <= CPU_MAX).ok_or_else(wrong);
    let mut cpus = Vec::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => cpus.extend(number(first)?..=number(last)?),
            None => cpus.push(number(part)?),
        }
    }
    cpus.sort_unstable();
    cpus.dedup();
    if cpus.is_empty() { Err(wrong()) } else { Ok(cpus) }
}

/// Ascending CPUs as a list, runs as ranges.
pub fn list(cpus: &[usize]) -> String {
    let run = |run: &[usize]| match run {
        [first, .., last] => format!("{first}-{last}"),
        _ => run[0].to_string(),
    };
    cpus.chunk_by(|a, b| a + 1 == *b).map(run).collect::<Vec<_>>().join(",")
}

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
    fn lists_and_masks() {
        assert_eq!(parse("0-2,6"), Ok(vec![0, 1, 2, 6]));
        // As /sys/block/DEVICE/mq/N/cpu_list has it.
        assert_eq!(parse("0, 1"), Ok(vec![0, 1]));
        assert_eq!(list(&[0, 1, 2, 6]), "0-2,6");
        for wrong in ["", "a", "1-", "0-99999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(mask(&[0, 1]), "3");
        assert_eq!(mask(&[0, 33]), "2,00000001");
        assert!(is_empty_mask("0000,00000000") && !is_empty_mask("00000000,00000001"));
    }
}
