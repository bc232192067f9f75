//! The shell that a change stands for.

use super::check::Checked;
use super::item::{Apply, Verdict, value_in};
use super::machine::Machine;
use super::undo::{Planned, Step};
use std::fmt::Write;

const HEAD: &str = "#!/bin/sh\nset -eu\n";

pub fn of_apply(machine: &Machine, checked: &[Checked]) -> String {
    let mut script = HEAD.to_owned();
    for Checked { item, findings } in checked {
        for finding in findings.iter().filter(|finding| finding.verdict == Verdict::Differs) {
            let subject =
                if finding.subject.is_empty() { String::new() } else { format!(" of {}", finding.subject) };
            let _ = writeln!(script, "\n# {}{subject}: {}; {}", item.name, finding.now, finding.note);
            for change in &finding.changes {
                let former = machine.read(&change.path).map(|text| value_in(&text)).unwrap_or_default();
                let _ = writeln!(script, "{} # was {}", echo(&change.value, &change.path), quoted(&former));
            }
            if let (true, Apply::ByHand { how, .. }) = (finding.changes.is_empty(), &item.apply) {
                let _ = writeln!(script, "# by hand: {how}");
            }
        }
    }
    script
}

pub fn of_undo(planned: &[Planned]) -> String {
    let mut script = HEAD.to_owned();
    for Planned { entry, step } in planned {
        let line = match step {
            Step::Write => echo(&entry.former, &entry.path),
            Step::Nothing(why) => format!("# {}: {why}", entry.path),
            Step::Leave(now) => format!("# {} was changed by somebody else, to {now}", entry.path),
        };
        let _ = writeln!(script, "\n# {}\n{line}", entry.item);
    }
    script
}

fn echo(value: &str, path: &str) -> String {
    format!("echo {} > {}", quoted(value), quoted(path))
}

/// As one word of the shell.
fn quoted(text: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/_-.,:".contains(letter);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}
