//! Lists of CPUs: `0-3,6`.

/// More CPUs than Linux numbers; a range is never expanded past it.
const CPU_MAX: usize = 8191;

/// `corelog.cores`: `auto`, or a list in ascending order with runs as ranges.
pub fn canonical(text: &str) -> Result<String, String> {
    if text == "auto" {
        return Ok(text.to_owned());
    }
    Ok(written(&parse(text)?))
}

/// The CPUs of a list, ascending.
pub fn parse(text: &str) -> Result<Vec<usize>, String> {
    let number = |digits: &str| -> Result<usize, String> {
        let digits = digits.trim();
        digits
            .parse::<usize>()
            .ok()
            .filter(|cpu| *cpu <= CPU_MAX)
            .ok_or_else(|| format!("'{digits}' is not a CPU number from 0 to {CPU_MAX}"))
    };
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        if first > last {
            return Err(format!("the range {first}-{last} runs backwards"));
        }
        for cpu in first..=last {
            if cpus.contains(&cpu) {
                return Err(format!("CPU {cpu} is named twice"));
            }
            cpus.push(cpu);
        }
    }
    cpus.sort_unstable();
    Ok(cpus)
}

/// The list of ascending CPUs, runs as ranges.
pub fn written(cpus: &[usize]) -> String {
    let mut parts: Vec<String> = Vec::new();
    for run in cpus.chunk_by(|a, b| a + 1 == *b) {
        match run {
            [one] => parts.push(one.to_string()),
            [first, .., last] => parts.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists() {
        for (text, expected) in [
            ("0", "0"),
            ("0-3,6", "0-3,6"),
            ("6, 0 - 2,3", "0-3,6"),
            ("0, 1", "0-1"),
            ("5-5", "5"),
            ("auto", "auto"),
        ] {
            assert_eq!(canonical(text).unwrap(), expected);
        }
        for (text, part) in [
            ("", "not a CPU number"),
            ("a", "not a CPU number"),
            ("0-", "not a CPU number"),
            ("-1", "not a CPU number"),
            ("3-1", "runs backwards"),
            ("0-3,2", "CPU 2 is named twice"),
            ("0-99999999999", "not a CPU number"),
        ] {
            let why = canonical(text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
    }

    proptest! {
        #[test]
        fn a_written_list_reads_back(cpus in prop::collection::btree_set(0usize..=CPU_MAX, 1..50)) {
            let cpus: Vec<usize> = BTreeSet::into_iter(cpus).collect();
            prop_assert_eq!(parse(&written(&cpus)), Ok(cpus));
        }
    }
}
