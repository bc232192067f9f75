//! Partition numbers as people write them.

use std::collections::BTreeSet;

/// `3`, `0,2,5`, `0-4`, `0-2,7`.
pub fn list(text: &str) -> Result<BTreeSet<i32>, String> {
    /// No topic has more.
    const COUNT_MAX: i32 = 1_000_000;
    let wrong = || format!("{text:?} names no partitions; write 3, or 0,2,5, or 0-4");
    let number = |text: &str| {
        text.trim().parse::<i32>().ok().filter(|it| (0..COUNT_MAX).contains(it)).ok_or_else(wrong)
    };
    let mut partitions = BTreeSet::new();
    for part in text.split(',') {
        match part.split_once('-') {
            Some((first, last)) => partitions.extend(number(first)?..=number(last)?),
            None => drop(partitions.insert(number(part)?)),
        }
    }
    if partitions.is_empty() { Err(wrong()) } else { Ok(partitions) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(list("3"), Ok(BTreeSet::from([3])));
        assert_eq!(list("0-2, 7"), Ok(BTreeSet::from([0, 1, 2, 7])));
        for wrong in ["", "a", "-1", "2-1", "1,", "0-99999999"] {
            assert!(list(wrong).is_err(), "{wrong}");
        }
    }
}
