//! The TOML file: names with their lines, nested tables flattened to dotted names.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::convert::looks_like_properties;
use super::error::{ConfigError, Origin};

/// No honest configuration is larger; a wrong path (a log, a disk image) is not read into memory.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A value as it stands in the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub value: String,
    pub origin: Origin,
}

/// Reads a configuration file.
pub fn read(path: &Path) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let shown = path.display().to_string();
    let fail = |what: String| vec![ConfigError::new(what)];
    let metadata = std::fs::metadata(path)
        .map_err(|error| fail(format!("can't read the configuration file {shown}: {error}")))?;
    if !metadata.is_file() {
        return Err(fail(format!("can't read the configuration file {shown}: it is no regular file")));
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(fail(format!(
            "can't read the configuration file {shown}: it has {} bytes, the limit is {FILE_BYTES_MAX}",
            metadata.len()
        )));
    }
    let bytes = std::fs::read(path)
        .map_err(|error| fail(format!("can't read the configuration file {shown}: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        fail(format!("{shown}: not UTF-8 text after byte {}", error.utf8_error().valid_up_to()))
    })?;
    parse(&text, &shown)
}

/// Parses the text of a configuration file; `path` is for messages.
pub fn parse(text: &str, path: &str) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let table = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        if path.ends_with(".properties") || looks_like_properties(text) {
            let what = format!(
                "this reads like a Java properties file, as Kafka's server.properties, and is no TOML: \
                 `corectl config convert {path} > corelog.toml` converts one; in TOML, text stands in quotes"
            );
            return vec![ConfigError::at(origin(text, path, offset), what)];
        }
        if let Some(what) =
            given_twice(text, path, offset).filter(|_| error.message().contains("duplicate key"))
        {
            return vec![ConfigError::at(origin(text, path, offset), what)];
        }
        let mut what = format!("not TOML: {}", error.message());
        // Where one name is the beginning of another, TOML sees a value used as a table.
        if error.message().contains("dotted key") || error.message().contains("duplicate key") {
            what.push_str(
                "; each table is opened once, and a name that is the beginning of another must be quoted, \
                 as in \"max.connections\" = 100",
            );
        }
        if offset >= text.trim_end().len() {
            what.push_str("; the file ends there: is it whole?");
        }
        vec![ConfigError::at(origin(text, path, offset), what)]
    })?;
    let mut walk = Walk { text, path, entries: Vec::new(), errors: Vec::new() };
    walk.table("", table.get_ref());
    // A name can be written quoted and nested; TOML does not see that it is one.
    let mut sorted: Vec<&Entry> = walk.entries.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name).then(line(a).cmp(&line(b))));
    for pair in sorted.windows(2) {
        if pair[0].name == pair[1].name {
            let what = format!("{} is given twice, first at {}", pair[1].name, pair[0].origin);
            walk.errors.push(ConfigError::at(pair[1].origin.clone(), what));
        }
    }
    if walk.errors.is_empty() { Ok(walk.entries) } else { Err(walk.errors) }
}

/// Names the setting on the line at `offset`, if one of the same name stands before it in its table.
fn given_twice(text: &str, path: &str, offset: usize) -> Option<String> {
    let name =
        |line: &str| line.split_once('=').map_or(line, |(name, _)| name).trim().replace(['"', '\'', ' '], "");
    let number = text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
    let lines: Vec<&str> = text.lines().collect();
    let twice = name(lines.get(number)?);
    let is_table = |line: &str| line.trim_start().starts_with('[');
    // Tables are told from each other by their own lines, settings within one table.
    let within = if is_table(lines[number]) {
        0
    } else {
        lines[..number].iter().rposition(|line| is_table(line)).unwrap_or(0)
    };
    let first = (within..number).find(|at| name(lines[*at]) == twice)?;
    Some(format!("{twice} is given twice, first at {path} line {}", first + 1))
}

fn line(entry: &Entry) -> usize {
    match entry.origin {
        Origin::File { line, .. } => line,
        Origin::Flag(_) | Origin::Env(_) | Origin::Directory(_) => 0,
    }
}

struct Walk<'a> {
    text: &'a str,
    path: &'a str,
    entries: Vec<Entry>,
    errors: Vec<ConfigError>,
}

impl Walk<'_> {
    /// Depth is bounded by the parser's own limit on nesting.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = if prefix.is_empty() {
                key.get_ref().to_string()
            } else {
                format!("{prefix}.{}", key.get_ref())
            };
            let origin = origin(self.text, self.path, key.span().start);
            if let DeValue::Table(nested) = value.get_ref() {
                self.table(&name, nested);
                continue;
            }
            match scalar_or_list(value) {
                Ok(value) => self.entries.push(Entry { name, value, origin }),
                Err(what) => self.errors.push(ConfigError::at(origin, format!("{name}: {what}"))),
            }
        }
    }
}

fn scalar_or_list(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(scalar).collect::<Result<_, _>>()?;
            Ok(elements.join(","))
        }
        _ => scalar(value),
    }
}

fn scalar(value: &Spanned<DeValue<'_>>) -> Result<String, String> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Float(number) => Ok(number.as_str().to_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| format!("{} does not fit in 64 bits", number.as_str())),
        other => Err(format!(
            "a {} is no value for a setting: use a string, number, boolean or list",
            other.type_str()
        )),
    }
}

fn origin(text: &str, path: &str, offset: usize) -> Origin {
    let line = 1 + text.as_bytes()[..offset.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
    Origin::File { path: path.to_owned(), line }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_may_be_nested_or_quoted() {
        let text = r#"
listeners = ["PLAINTEXT://a:1", "PLAINTEXT://b:2"]
"num.partitions" = 3
auto.create.topics.enable = false
compression = { type = "zstd" }
[log]
retention.hours = 1
segment.bytes = "64MiB"
cleaner.min.cleanable.ratio = 0.25
[log.roll]
ms = 0x10
"#;
        let entries = parse(text, "c.toml").unwrap();
        let mut found: Vec<(usize, &str, &str)> =
            entries.iter().map(|entry| (line(entry), entry.name.as_str(), entry.value.as_str())).collect();
        found.sort_unstable();
        assert_eq!(
            found,
            [
                (2, "listeners", "PLAINTEXT://a:1,PLAINTEXT://b:2"),
                (3, "num.partitions", "3"),
                (4, "auto.create.topics.enable", "false"),
                (5, "compression.type", "zstd"),
                (7, "log.retention.hours", "1"),
                (8, "log.segment.bytes", "64MiB"),
                (9, "log.cleaner.min.cleanable.ratio", "0.25"),
                (11, "log.roll.ms", "16"),
            ]
        );
    }

    #[test]
    fn torn_and_wrong_files_are_refused_with_their_line() {
        for (text, line, part) in [
            ("log.dirs = \"/da", 1, "is it whole?"),
            ("num.partitions = 1\nlog.dirs =", 2, "is it whole?"),
            ("num.partitions = 1\n\0\0\0\0", 2, "not TOML"),
            (
                "num.partitions = 1\nnum.partitions = 2\n",
                2,
                "num.partitions is given twice, first at c.toml line 1",
            ),
            (
                "[log]\nroll.ms = 1\n[num]\npartitions = 1\n\"partitions\" = 2\n",
                5,
                "partitions is given twice, first at c.toml line 4",
            ),
            ("[log]\n[num]\n[log]\n", 3, "[log] is given twice, first at c.toml line 1"),
            ("num.partitions = 1\nlog.dirs=/data\n", 2, "corectl config convert c.toml > corelog.toml"),
            ("\"num.partitions\" = 1\n[num]\npartitions = 2\n", 3, "given twice, first at c.toml line 1"),
            ("max.connections = 1\nmax.connections.per.ip = 2\n", 2, "must be quoted"),
            ("num.partitions = 2024-01-01\n", 1, "num.partitions: a datetime is no value"),
            ("num.partitions = 99999999999999999999\n", 1, "does not fit in 64 bits"),
            ("listeners = [[1]]\n", 1, "a array is no value"),
        ] {
            let errors = parse(text, "c.toml").unwrap_err();
            assert_eq!(
                errors[0].origin,
                Some(Origin::File { path: "c.toml".into(), line }),
                "{text:?} {errors:?}"
            );
            assert!(errors[0].what.contains(part), "{text:?}: {}", errors[0].what);
        }
    }

    #[test]
    fn unreadable_files_are_refused() {
        let directory = std::env::temp_dir().join(format!("corelog-config-file-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("c.toml");
        let said = |path: &Path| read(path).unwrap_err()[0].to_string();
        assert!(said(&directory.join("none.toml")).contains("No such file"));
        assert!(said(&directory).contains("no regular file"));
        std::fs::write(&path, b"a = \"\xff\"").unwrap();
        assert!(said(&path).contains("not UTF-8 text after byte 5"));
        std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(said(&path).contains("the limit is 1048576"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "[a-z\"=.\\[\\]{}# \n0-9]{0,200}") {
            let _ = parse(&text, "c.toml");
        }
    }
}
