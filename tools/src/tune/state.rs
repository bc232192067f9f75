//! Values that were there before, kept in a file until they are given back.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub item: String,
    pub path: String,
    /// Before the first change.
    pub former: String,
    /// Written last.
    pub applied: String,
}

pub struct State {
    file: PathBuf,
    pub entries: Vec<Entry>,
}

impl State {
    /// Empty if the file is not there.
    pub fn open(file: PathBuf) -> Result<State> {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(State { file, entries: Vec::new() });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
        };
        let entries = parse(&text).with_context(|| {
            format!("{} is damaged; move it away to go on without undoing what it kept", file.display())
        })?;
        Ok(State { file, entries })
    }

    /// Keeps a former value; of a file that was changed before, the first one counts.
    pub fn keep(&mut self, entry: Entry) {
        match self.entries.iter_mut().find(|kept| kept.path == entry.path) {
            Some(kept) => kept.applied = entry.applied,
            None => self.entries.push(entry),
        }
    }

    /// On disk when this returns: a machine that stops in the midst of a change can still be given back its values.
    pub fn save(&self) -> Result<()> {
        let context = || format!("cannot keep former values in {}", self.file.display());
        if self.entries.is_empty() {
            return match fs::remove_file(&self.file) {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error).with_context(context),
                _ => Ok(()),
            };
        }
        let entry = |it: &Entry| json!({"item": it.item, "path": it.path, "former": it.former, "applied": it.applied});
        let value = json!({"version": 1, "changes": self.entries.iter().map(entry).collect::<Vec<Value>>()});
        let write = || -> std::io::Result<()> {
            if let Some(parent) = self.file.parent() {
                fs::create_dir_all(parent)?;
            }
            let aside = self.file.with_extension("json.tmp");
            let mut file = File::create(&aside)?;
            writeln!(file, "{value:#}")?;
            file.sync_all()?;
            fs::rename(&aside, &self.file)
        };
        write().with_context(context)
    }
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    let value: Value = serde_json::from_str(text)?;
    if value["version"] != 1 {
        bail!("version {} is not known", value["version"]);
    }
    let changes = value["changes"].as_array().context("there is no list of changes")?;
    let entry = |change: &Value| {
        let text = |key: &str| {
            change[key].as_str().map(str::to_owned).with_context(|| format!("a change without {key}"))
        };
        let path = text("path")?;
        // Items write nowhere else: a file that says so was not written here.
        if !(path.starts_with("/proc/") || path.starts_with("/sys/"))
            || path.split('/').any(|part| part == "..")
        {
            bail!("{path} is no file that tune changes");
        }
        Ok(Entry { item: text("item")?, path, former: text("former")?, applied: text("applied")? })
    };
    changes.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_leads_elsewhere_is_refused() {
        let state = |path: &str| {
            let change = json!({"item": "swap", "path": path, "former": "1", "applied": "2"});
            parse(&json!({"version": 1, "changes": [change]}).to_string())
        };
        assert_eq!(state("/proc/sys/vm/swappiness").unwrap().len(), 1);
        for path in ["/etc/passwd", "proc/sys/vm/swappiness", "/sys/../etc/passwd"] {
            assert!(state(path).is_err(), "{path}");
        }
        for damaged in ["", "{}", r#"{"version": 2, "changes": []}"#, r#"{"version": 1, "changes": [{}]}"#] {
            assert!(parse(damaged).is_err(), "{damaged}");
        }
    }
}
