//! The nearest known name to a mistyped one.

/// The candidate with the smallest edit distance to `name`, if it is near enough to be what was meant: at most
/// a third of the longer name's letters differ. Case and the separators `.`, `-` and `_` are one to the eye and
/// count nothing. Ties go to the first candidate.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer than any name there is: nothing is near, and the distance is not worth its square.
    const NAME_LEN_MAX: usize = 128;
    if name.len() > NAME_LEN_MAX {
        return None;
    }
    let folded = fold(name);
    candidates
        .into_iter()
        .map(|candidate| {
            let candidate_folded = fold(candidate);
            let distance = distance(&folded, &candidate_folded);
            (distance, folded.len().max(candidate_folded.len()), candidate)
        })
        .filter(|(distance, len, _)| *distance <= (len / 3).max(1))
        .min_by_key(|(distance, _, _)| *distance)
        .map(|(_, _, candidate)| candidate)
}

fn fold(name: &str) -> Vec<char> {
    name.chars().map(|c| if matches!(c, '-' | '_') { '.' } else { c.to_ascii_lowercase() }).collect()
}

/// Optimal string alignment: insertions, deletions, substitutions, and swaps of neighbours, one each.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = substitution.min(previous[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row[j] = best;
        }
        before = std::mem::replace(&mut previous, row);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "", 0), ("abc", "", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
            assert_eq!(distance(&a, &b), expected);
            assert_eq!(distance(&b, &a), expected);
        }
    }

    #[test]
    fn near_names() {
        let names = ["log.retention.hours", "log.retention.ms", "num.partitions", "corelog.memory"];
        for (typed, expected) in [
            ("log.retention.hour", Some("log.retention.hours")),
            ("log_retention_hours", Some("log.retention.hours")),
            ("LOG.RETENTION.MS", Some("log.retention.ms")),
            ("num.partition", Some("num.partitions")),
            ("completely.different.thing", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), expected, "{typed}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), names), None);
    }
}
