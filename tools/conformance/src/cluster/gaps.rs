//! How long partitions took no writes, by what was done to the cluster.

use super::history::{History, Micros, Outcome};
use std::collections::{BTreeMap, HashSet};

/// A fault as it was: from its beginning until all was well again.
pub struct Span {
    pub kind: &'static str,
    pub began: Micros,
    pub ended: Micros,
    /// What the brokers concerned led when it began.
    pub led: HashSet<u32>,
}

/// Of each partition and fault of a kind: the longest time between two acknowledgements, in milliseconds, ascending.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Partitions that were led by a broker concerned.
    pub led: Vec<u64>,
    pub others: Vec<u64>,
}

pub fn gaps(history: &History, spans: &[Span], partitions: u32) -> BTreeMap<&'static str, Gaps> {
    let mut acknowledged: Vec<Vec<Micros>> = vec![Vec::new(); partitions as usize];
    for sent in history.producers.iter().flat_map(|producer| &producer.sent) {
        if let Outcome::Written { .. } = sent.outcome {
            acknowledged[sent.identity.partition as usize].push(sent.told);
        }
    }
    let mut gaps: BTreeMap<&'static str, Gaps> = BTreeMap::new();
    for (partition, times) in acknowledged.iter_mut().enumerate() {
        times.sort_unstable();
        for span in spans {
            let Some(gap) = longest(times, span.began, span.ended) else { continue };
            let of = gaps.entry(span.kind).or_default();
            let list = if span.led.contains(&(partition as u32)) { &mut of.led } else { &mut of.others };
            list.push(gap / 1000);
        }
    }
    for of in gaps.values_mut() {
        of.led.sort_unstable();
        of.others.sort_unstable();
    }
    gaps
}

/// The longest time between two in a row that overlaps this span; none where there are no two around it.
fn longest(times: &[Micros], began: Micros, ended: Micros) -> Option<Micros> {
    let first = times.partition_point(|time| *time <= began).checked_sub(1)?;
    let past = times.partition_point(|time| *time < ended);
    let around = times.get(first..times.len().min(past + 1))?;
    around.windows(2).map(|pair| pair[1] - pair[0]).max()
}

/// The value below which so many percent of an ascending list are.
pub fn percentile(ascending: &[u64], percent: usize) -> Option<u64> {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    ascending.get(rank - 1).copied()
}

pub fn table(gaps: &BTreeMap<&'static str, Gaps>) -> String {
    let mut lines = vec![format!(
        "{:16} {:>32}   {:>32}",
        "no writes for ms", "led by a broker concerned", "other partitions"
    )];
    let heads = format!("{:>7} {:>7} {:>7} {:>8}", "count", "p50", "p99", "max");
    lines.push(format!("{:16} {heads}   {heads}", ""));
    for (kind, of) in gaps {
        let cells = |list: &[u64]| {
            let at = |percent| percentile(list, percent).map_or("-".to_owned(), |ms| ms.to_string());
            format!("{:>7} {:>7} {:>7} {:>8}", list.len(), at(50), at(99), at(100))
        };
        lines.push(format!("{kind:16} {}   {}", cells(&of.led), cells(&of.others)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::history::{Producer, Sent};
    use super::*;
    use crate::record::Identity;

    #[test]
    fn gaps_are_those_around_a_fault() {
        let times = [0, 10, 20, 60, 70, 200];
        for (began, ended, gap) in [
            (0, 20, Some(10)),
            (15, 30, Some(40)),
            (25, 65, Some(40)),
            (65, 66, Some(10)),
            (65, 100, Some(130)),
            (250, 300, None),
        ] {
            assert_eq!(longest(&times, began, ended), gap, "{began}..{ended}");
        }
        assert_eq!(longest(&[], 0, 10), None);
        assert_eq!(longest(&[50, 60], 0, 10), None, "nothing was acknowledged before");
    }

    #[test]
    fn percentiles() {
        let list: Vec<u64> = (1..=200).collect();
        assert_eq!(
            (percentile(&list, 50), percentile(&list, 99), percentile(&list, 100)),
            (Some(100), Some(198), Some(200))
        );
        assert_eq!((percentile(&[7], 50), percentile(&[], 50)), (Some(7), None));
    }

    #[test]
    fn partitions_of_the_brokers_concerned_are_counted_by_themselves() {
        let sent = |partition, told| Sent {
            identity: Identity { producer: 0, partition, number: 0 },
            sent: 0,
            told,
            outcome: Outcome::Written { offset: None },
        };
        let sent = vec![sent(0, 1000), sent(0, 9000), sent(1, 1000), sent(1, 4000), sent(1, 9000)];
        let history =
            History { producers: vec![Producer { id: 0, idempotent: true, sent }], ..Default::default() };
        let span = Span { kind: "kill", began: 2000, ended: 5000, led: HashSet::from([0]) };
        let expected = Gaps { led: vec![8], others: vec![5] };
        assert_eq!(gaps(&history, &[span], 2), BTreeMap::from([("kill", expected)]));
    }
}
