//! What there is to tune, and what a look at it finds.

use super::machine::Machine;
use std::io;

/// One thing to tune. Checks, explanations and the guide are all made from this.
pub struct Item {
    /// As it is named on the command line.
    pub name: &'static str,
    pub title: &'static str,
    /// The files that are looked at; words in capitals stand for what there may be several of.
    pub looks_at: &'static str,
    pub wanted: &'static str,
    /// What it does to this broker.
    pub reason: &'static str,
    pub effect: Effect,
    pub apply: Apply,
    /// How it is made to last over a reboot.
    pub lasting: &'static str,
    /// One finding at least.
    pub check: fn(&Machine) -> Vec<Finding>,
}

/// What it brings.
pub enum Effect {
    /// On which machine, by which command, how much.
    Measured(&'static str),
    /// Why not.
    NotMeasured(&'static str),
}

pub enum Apply {
    /// By writing to the files looked at.
    Writes,
    /// Not while the machine runs, or not by writing to files: what a person does, and how they undo it.
    ByHand { how: &'static str, undo: &'static str },
}

/// Items that belong together.
pub struct Group {
    pub title: &'static str,
    pub items: &'static [Item],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Differs,
    /// It cannot be told from here.
    Unknown,
    /// This machine has nothing to tune there.
    NotApplicable,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Differs => "differs",
            Verdict::Unknown => "unknown",
            Verdict::NotApplicable => "n/a",
        }
    }
}

/// How it stands with one device, or with the whole machine.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The device; empty for the machine.
    pub subject: String,
    pub verdict: Verdict,
    pub now: String,
    /// Why the verdict is this, where that does not go without saying.
    pub note: String,
    /// What would make it as wanted. Empty if nothing that can be written would.
    pub changes: Vec<Change>,
}

/// A value to write to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    pub value: String,
}

impl Finding {
    fn new(verdict: Verdict, now: impl Into<String>, note: impl Into<String>) -> Finding {
        Finding { subject: String::new(), verdict, now: now.into(), note: note.into(), changes: Vec::new() }
    }

    pub fn ok(now: impl Into<String>) -> Finding {
        Finding::new(Verdict::Ok, now, "")
    }

    pub fn differs(now: impl Into<String>, note: impl Into<String>) -> Finding {
        Finding::new(Verdict::Differs, now, note)
    }

    pub fn unknown(note: impl Into<String>) -> Finding {
        Finding::new(Verdict::Unknown, "", note)
    }

    pub fn not_applicable(note: impl Into<String>) -> Finding {
        Finding::new(Verdict::NotApplicable, "", note)
    }

    /// What came of reading a file that could not be read.
    pub fn unreadable(path: &str, error: &io::Error) -> Finding {
        match error.kind() {
            io::ErrorKind::NotFound => Finding::not_applicable(format!("there is no {path} here")),
            _ => Finding::unknown(format!("{path}: {error}")),
        }
    }

    pub fn of(mut self, subject: impl Into<String>) -> Finding {
        self.subject = subject.into();
        self
    }

    pub fn note(mut self, note: impl Into<String>) -> Finding {
        self.note = note.into();
        self
    }

    pub fn change(mut self, path: impl Into<String>, value: impl Into<String>) -> Finding {
        self.changes.push(Change { path: path.into(), value: value.into() });
        self
    }
}

/// The value that counts in what a file says: of a choice (`[none] mq-deadline`) the one in brackets, of a mask its
/// digits, and all white space as one.
pub fn value_in(text: &str) -> String {
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(chosen, _)| chosen);
    chosen.unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a file holds the value that was written to it.
pub fn holds(text: &str, value: &str) -> bool {
    // Masks come back with leading zeros, more of them the more CPUs the kernel was built for.
    let (text, value) = (value_in(text), value_in(value));
    let bare = |text: &str| text.trim_start_matches(['0', ',']).to_owned();
    text == value || (!text.is_empty() && bare(&text) == bare(&value))
}

/// A finding for a file of one value: `judge` says nothing if the value is as wanted, or else what to write and why.
pub fn single(
    machine: &Machine,
    path: &str,
    judge: impl FnOnce(&str) -> Option<(String, String)>,
) -> Finding {
    match machine.read(path) {
        Err(error) => Finding::unreadable(path, &error),
        Ok(text) => {
            let now = value_in(&text);
            match judge(&now) {
                None => Finding::ok(now),
                Some((value, why)) => Finding::differs(now, why).change(path, value),
            }
        }
    }
}

/// Findings for CPUs, those that say the same made into one.
pub fn by_cpus(findings: Vec<(Vec<usize>, Finding)>) -> Vec<Finding> {
    let mut merged: Vec<(Vec<usize>, Finding)> = Vec::new();
    for (cpus, finding) in findings {
        let same = |(_, other): &&mut (Vec<usize>, Finding)| {
            (other.verdict, &other.now, &other.note) == (finding.verdict, &finding.now, &finding.note)
        };
        match merged.iter_mut().find(same) {
            Some((all, one)) => {
                all.extend(cpus);
                one.changes.extend(finding.changes);
            }
            None => merged.push((cpus, finding)),
        }
    }
    let name = |(mut cpus, finding): (Vec<usize>, Finding)| {
        cpus.sort_unstable();
        finding.of(format!("cpu {}", super::cpus::list(&cpus)))
    };
    merged.into_iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_how_the_kernel_shows_them() {
        assert_eq!(value_in("none [mq-deadline] kyber"), "mq-deadline");
        assert_eq!(value_in("4096\t131072\t33554432\n"), "4096 131072 33554432");
        assert!(holds("[none] mq-deadline", "none"));
        assert!(holds("00000000,0000000f", "f") && !holds("00000000,0000001f", "f"));
        assert!(holds("0", "0") && holds("00000000", "0") && !holds("10", "0") && !holds("", "0"));
    }
}
