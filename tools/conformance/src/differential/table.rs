//! The table of known differences: `differences.md`, read as data.

use super::compare::Difference;
use anyhow::{Result, bail};

/// One row. `*` in any of the first four columns stands for any text.
#[derive(Clone, Debug)]
pub struct Known {
    pub line: usize,
    case: String,
    field: String,
    kafka: String,
    corelog: String,
}

const COLUMNS: [&str; 5] = ["case", "field", "Kafka", "Corelog", "reason"];

/// Reads every row of every table whose columns are those of differences.
pub fn read(text: &str) -> Result<Vec<Known>> {
    let mut known = Vec::new();
    let mut in_table = false;
    for (i, line) in text.lines().enumerate() {
        let Some(row) = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        if cells == COLUMNS {
            in_table = true;
        } else if in_table && !cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            let [case, field, kafka, corelog, reason] = cells[..] else {
                bail!("line {}: {} columns where there must be {}", i + 1, cells.len(), COLUMNS.len());
            };
            if reason.is_empty() {
                bail!("line {}: a difference needs its reason", i + 1);
            }
            let [case, field, kafka, corelog] = [case, field, kafka, corelog].map(str::to_owned);
            known.push(Known { line: i + 1, case, field, kafka, corelog });
        }
    }
    Ok(known)
}

impl Known {
    pub fn covers(&self, difference: &Difference) -> bool {
        glob(&self.case, &difference.case)
            && glob(&self.field, &difference.field)
            && glob(&self.kafka, &cell(&difference.kafka))
            && glob(&self.corelog, &cell(&difference.corelog))
    }
}

/// As it would stand in the table.
pub fn row(difference: &Difference, reason: &str) -> String {
    let Difference { case, field, kafka, corelog } = difference;
    format!("| {case} | `{field}` | {} | {} | {reason} |", cell(kafka), cell(corelog))
}

/// Text without what ends a cell.
fn cell(text: &str) -> String {
    text.replace('|', "/").replace('`', "'")
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && glob(rest, &text[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_what_they_say() {
        let text = "\
| other | table |
|--|--|
| a | b |

| case | field | Kafka | Corelog | reason |
|--|--|--|--|--|
| metadata / auto creation | `topics[*].error_code` | 3 UNKNOWN* | 5 LEADER_NOT_AVAILABLE | KafkaJS gives up |
";
        let known = read(text).unwrap();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].line, 7);
        let mut difference = Difference {
            case: "metadata / auto creation".into(),
            field: "topics[t].error_code".into(),
            kafka: "3 UNKNOWN_TOPIC_OR_PARTITION".into(),
            corelog: "5 LEADER_NOT_AVAILABLE".into(),
        };
        assert!(known[0].covers(&difference));
        difference.corelog = "0 NONE".into();
        assert!(!known[0].covers(&difference));
        assert!(read(&text.replace("KafkaJS gives up", "")).is_err());
        assert!(read(&text.replace("| KafkaJS gives up ", "")).is_err());
    }

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, covered) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*b*", "abc", true),
            ("ab", "abc", false),
        ] {
            assert_eq!(glob(pattern, text), covered, "{pattern} {text}");
        }
    }
}
