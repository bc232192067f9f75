//! A corelog.toml with every config that works, commented out at its default: `corelog --print-config`.

use std::fmt::Write;

use super::convert::literal;
use super::rows;
use super::spec::{Effect, Update};

const WIDTH: usize = 100;

/// The file.
pub fn page() -> String {
    let mut page = String::from(
        "# The configuration of a Corelog broker, made by `corelog --print-config`: every setting that has an effect, at its\n\
         # default. Take away the mark before those that are to differ. Sizes and times may have a unit: \"512MiB\", \"7d\".\n\
         #\n\
         # Read from --config or CORELOG_CONFIG; without either from ./corelog.toml, or else /etc/corelog/corelog.toml. Flags and\n\
         # CORELOG_... variables win over the file.\n",
    );
    for spec in rows::broker().filter(|spec| spec.effect == Effect::Works) {
        page.push('\n');
        let dynamic =
            if spec.update == Update::ClusterWide { "; can be altered while the broker runs" } else { "" };
        let takes = format!("Takes {}{dynamic}.", spec.takes());
        for line in wrapped(spec.doc, WIDTH).into_iter().chain(wrapped(&takes, WIDTH)) {
            let _ = writeln!(page, "# {line}");
        }
        let value = match spec.default {
            Some(default) => literal(spec.kind, default),
            None => "\"\"  # not set".to_owned(),
        };
        let _ = writeln!(page, "#\"{}\" = {value}", spec.name);
    }
    page
}

/// Lines of at most `width` characters, broken between words.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::super::load::known;
    use super::*;

    #[test]
    fn with_every_mark_taken_away_it_says_the_defaults() {
        assert!(file::parse(&page(), "corelog.toml").unwrap().is_empty());
        let taken: String = page()
            .lines()
            .map(|line| line.strip_prefix("#\"").map_or(String::new(), |rest| format!("\"{rest}\n")))
            .collect();
        let entries = file::parse(&taken, "corelog.toml").unwrap();
        assert_eq!(entries.len(), rows::broker().filter(|spec| spec.effect == Effect::Works).count());
        for entry in entries {
            let spec = known(&entry.name).unwrap();
            match spec.default {
                Some(default) => {
                    assert_eq!(spec.canonical_from_person(&entry.value).unwrap(), default, "{}", spec.name);
                }
                None => assert_eq!(entry.value, "", "{}", spec.name),
            }
        }
        assert!(page().lines().all(|line| line.starts_with('#') || line.is_empty()));
    }
}
