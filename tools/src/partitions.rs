//! Partition numbers as people write them.

use anyhow::{Result, bail};
use corelog_client::{Topic, TopicPartition};
use std::collections::BTreeSet;

/// `3`, `0,2,5`, `0-4`, `0-2,7`.
pub fn list(text: &str) -> std::result::Result<BTreeSet<i32>, String> {
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

/// Those that are wanted of a topic, or all. One that the topic does not have is an error: nothing is left out in silence.
pub fn of(topic: &Topic, wanted: Option<&BTreeSet<i32>>) -> Result<Vec<TopicPartition>> {
    let at = |partition| TopicPartition::new(&*topic.name, partition);
    let Some(wanted) = wanted else {
        return Ok(topic.partitions.iter().map(|it| at(it.partition)).collect());
    };
    if let Some(missing) = wanted.iter().find(|wanted| topic.partition(**wanted).is_none()) {
        bail!("{} has no partition {missing}, only {}", topic.name, topic.partitions.len());
    }
    Ok(wanted.iter().map(|wanted| at(*wanted)).collect())
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
