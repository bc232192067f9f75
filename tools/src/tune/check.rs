//! How the machine stands, item by item.

use super::item::{Change, Finding, Item, Verdict};
use super::machine::Machine;
use crate::output::Output;
use crate::table::Table;
use anyhow::Result;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::process::ExitCode;

pub struct Checked {
    pub item: &'static Item,
    pub findings: Vec<Finding>,
}

impl Checked {
    /// All that would be written.
    pub fn changes(&self) -> Vec<&Change> {
        self.findings.iter().flat_map(|finding| &finding.changes).collect()
    }
}

pub fn all(machine: &Machine, items: &[&'static Item]) -> Vec<Checked> {
    items.iter().map(|item| Checked { item, findings: (item.check)(machine) }).collect()
}

/// A line for each finding. Fails if one differs.
pub fn show(checked: &[Checked], out: &Output) -> Result<ExitCode> {
    let findings =
        || checked.iter().flat_map(|checked| checked.findings.iter().map(move |it| (checked.item, it)));
    if out.json {
        let value = |(item, finding): (&Item, &Finding)| {
            let changes: Vec<Value> =
                finding.changes.iter().map(|it| json!({"path": it.path, "value": it.value})).collect();
            json!({
                "item": item.name, "subject": finding.subject, "verdict": finding.verdict.name(), "now": finding.now,
                "wanted": item.wanted, "note": finding.note, "changes": changes,
            })
        };
        out.value(&findings().map(value).collect())?;
    } else {
        let mut table = Table::new(&[("", ""), ("item", ""), ("of", ""), ("now", ""), ("note", "")]);
        for (item, finding) in findings() {
            let now = if finding.now.is_empty() { Value::Null } else { json!(finding.now) };
            table.row([
                json!(finding.verdict.name()),
                json!(item.name),
                json!(finding.subject),
                now,
                json!(finding.note),
            ]);
        }
        out.say(coloured(&table.to_text()))?;
        let count = |verdict| findings().filter(|(_, finding)| finding.verdict == verdict).count();
        let by_writing = checked.iter().filter(|checked| !checked.changes().is_empty()).count();
        out.say(format!(
            "\n{} ok, {} differ, {} unknown, {} do not apply. `corectl tune explain ITEM` says why, `corectl tune apply` \
             changes what can be changed now ({by_writing} items).",
            count(Verdict::Ok),
            count(Verdict::Differs),
            count(Verdict::Unknown),
            count(Verdict::NotApplicable),
        ))?;
    }
    let differs = findings().any(|(_, finding)| finding.verdict == Verdict::Differs);
    Ok(if differs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Verdicts in colour, where a person looks at them.
fn coloured(table: &str) -> String {
    if !std::io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some_and(|set| !set.is_empty()) {
        return table.to_owned();
    }
    let colour = |line: &str| {
        let code = match line.split_whitespace().next() {
            Some("ok") => 32,
            Some("differs") => 33,
            Some("unknown") => 36,
            Some("n/a") => 90,
            _ => 1,
        };
        let end = line.find(' ').unwrap_or(line.len());
        match code {
            1 => format!("\x1b[1m{line}\x1b[0m"),
            _ => format!("\x1b[{code}m{}\x1b[0m{}", &line[..end], &line[end..]),
        }
    };
    table.lines().map(colour).collect::<Vec<_>>().join("\n")
}
