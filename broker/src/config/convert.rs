//! From Kafka's server.properties to TOML: what is taken, and what is not, with the reason.

use std::fmt::Write;

use super::load::known;
use super::spec::{Effect, Kind, WITHOUT_EFFECT, split_list};

/// A file as it comes out.
#[derive(Debug)]
pub struct Converted {
    pub toml: String,
    /// Settings that are in it.
    pub taken: usize,
    /// Settings that stand in it as comments.
    pub left_out: usize,
}

/// Converts a Java properties file; `name` is for its first line.
pub fn from_properties(text: &str, name: &str) -> Converted {
    let given = properties(text);
    let controllers = value_of(&given, "controller.listener.names").unwrap_or_default().to_owned();
    let kept: Vec<String> = split_list(value_of(&given, "listeners").unwrap_or_default())
        .into_iter()
        .filter_map(|listener| listener.split_once("://").map(|(name, _)| name.to_owned()))
        .filter(|name| !split_list(&controllers).contains(&name.as_str()))
        .collect();
    let mut toml = format!("# Converted from {name} by `corectl config convert`.\n");
    let (mut taken, mut left_out) = (0, 0);
    for (at, (key, value)) in given.iter().enumerate() {
        if given[at + 1..].iter().any(|(later, _)| later == key) {
            // Java keeps the last one.
            continue;
        }
        let value = without_controllers(key, value, &split_list(&controllers), &kept);
        let outcome = convert(key, &value);
        match &outcome {
            Ok((line, remark)) => {
                if let Some(remark) = remark {
                    let _ = writeln!(toml, "# {remark}");
                }
                let _ = writeln!(toml, "{line}");
                taken += 1;
            }
            Err(why) => {
                let _ = writeln!(toml, "# {}", why.replace(['\n', '\r'], " "));
                let line = format!("{key}={value}");
                let _ = writeln!(toml, "#   {}", line.replace(['\n', '\r'], " "));
                left_out += 1;
            }
        }
    }
    Converted { toml, taken, left_out }
}

/// A line of TOML, and what is to be said of it; or why there is none.
fn convert(key: &str, value: &str) -> Result<(String, Option<String>), String> {
    if matches!(key, "log.dirs" | "log.dir") {
        return Err(
            "Not taken over: what Kafka wrote there Corelog cannot read. Name a directory of its own.".into(),
        );
    }
    let spec = known(key)?;
    let value = spec.canonical(value).map_err(|bad| format!("{bad} (takes {})", spec.takes()))?;
    let line = format!("\"{}\" = {}", spec.name, literal(spec.kind, &value));
    let remark = match spec.effect {
        Effect::Nothing { why, .. } => Some(format!("{WITHOUT_EFFECT}{why}")),
        Effect::Works => spec.without_effect(&value).map(|why| format!("Without effect in part: {why}")),
    };
    Ok((line, remark))
}

/// A value in canonical form as TOML writes it: a string of JSON is one of TOML.
pub(super) fn literal(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Boolean | Kind::Int | Kind::Short | Kind::Long => value.to_owned(),
        Kind::Double | Kind::String | Kind::List | Kind::Password => {
            serde_json::Value::from(value).to_string()
        }
    }
}

/// Listeners of KRaft's controllers, and the protocols of listeners that are not there, are no affair of a broker.
fn without_controllers(key: &str, value: &str, controllers: &[&str], kept: &[String]) -> String {
    let keep = |element: &&str| match key {
        "listeners" | "advertised.listeners" => {
            element.split_once("://").is_none_or(|(name, _)| !controllers.contains(&name))
        }
        "listener.security.protocol.map" => {
            kept.is_empty()
                || element.split_once(':').is_none_or(|(name, _)| kept.iter().any(|it| it == name))
        }
        _ => true,
    };
    match key {
        "listeners" | "advertised.listeners" | "listener.security.protocol.map" => {
            split_list(value).into_iter().filter(|element| keep(element)).collect::<Vec<_>>().join(",")
        }
        _ => value.to_owned(),
    }
}

fn value_of<'a>(given: &'a [(String, String)], key: &str) -> Option<&'a str> {
    given.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
}

/// Keys and values of a Java properties file (java.util.Properties, load).
fn properties(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while continues(&whole) {
            whole.pop();
            whole.push_str(lines.next().unwrap_or_default().trim_start());
        }
        found.push(pair(&whole));
    }
    found
}

/// Whether a line ends in a backslash that is not itself escaped.
fn continues(line: &str) -> bool {
    line.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

fn pair(line: &str) -> (String, String) {
    let mut escaped = false;
    let end = line.find(|c: char| {
        let ends = !escaped && (matches!(c, '=' | ':') || c.is_whitespace());
        escaped = !escaped && c == '\\';
        ends
    });
    let (key, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.trim_start();
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (unescaped(key), unescaped(rest.trim_start()).trim_end().to_owned())
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            plain.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                plain.push(code.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

/// Whether a text that is no TOML reads like a properties file: names with bare values, and nothing of TOML's own.
pub(super) fn looks_like_properties(text: &str) -> bool {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    let mut bare = false;
    for line in lines {
        let Some((key, value)) = line.split_once('=') else { return false };
        let (key, value) = (key.trim(), value.trim());
        if key.is_empty() || !key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
            return false;
        }
        if value.starts_with(['"', '\'', '[', '{']) {
            return false;
        }
        bare |= value.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
            && !matches!(value, "true" | "false" | "inf" | "nan");
    }
    bare
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    const KAFKA: &str = "\
# The role of this server
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL
num.network.threads=3
socket.send.buffer.bytes=102400
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
num.partitions=6
offsets.topic.replication.factor=1
transaction.state.log.min.isr=1
log.retention.hours=168
log.cleanup.policy=compact
compression.type = \\
    zstd
made.up.name=\\u00fcber
auto.create.topics.enable=FALSE
message.max.bytes=-1
";

    #[test]
    fn what_is_known_is_converted_and_what_is_not_says_why() {
        let converted = from_properties(KAFKA, "server.properties");
        let entries = file::parse(&converted.toml, "corelog.toml").unwrap();
        assert_eq!(entries.len(), converted.taken);
        let value = |name: &str| entries.iter().find(|it| it.name == name).map(|it| it.value.as_str());
        for (name, expected) in [
            ("node.id", Some("1")),
            ("num.partitions", Some("6")),
            ("listener.security.protocol.map", Some("PLAINTEXT:PLAINTEXT")),
            ("log.retention.hours", Some("168")),
            ("compression.type", Some("zstd")),
            ("auto.create.topics.enable", Some("false")),
            ("log.dirs", None),
            ("message.max.bytes", None),
            ("made.up.name", None),
        ] {
            assert_eq!(value(name), expected, "{name}\n{}", converted.toml);
        }
        assert!(!value("listeners").unwrap().contains("CONTROLLER"), "{}", converted.toml);
        for part in [
            "# unknown config made.up.name",
            "#   made.up.name=über",
            "# Not taken over: what Kafka wrote there",
            "# transaction.state.log.min.isr can't be set: transactions aren't built yet",
            "# Without effect in part: compaction isn't built yet",
            "# Without effect here: ",
            "# Invalid value -1 for configuration message.max.bytes",
        ] {
            assert!(converted.toml.contains(part), "{part}\n{}", converted.toml);
        }
    }

    #[test]
    fn properties_are_read_as_java_reads_them() {
        for (text, key, value) in [
            ("a=b", "a", "b"),
            ("  a : b c ", "a", "b c"),
            ("a b", "a", "b"),
            ("a", "a", ""),
            ("a\\=b=c", "a=b", "c"),
            ("a=b,\\\n   c", "a", "b,c"),
            ("a=b\\\\", "a", "b\\"),
            ("a=\\u0041\\t.", "a", "A\t."),
        ] {
            assert_eq!(properties(text), [(key.to_owned(), value.to_owned())], "{text:?}");
        }
        assert!(properties("# a\n! b\n\n").is_empty());
    }

    #[test]
    fn a_properties_file_is_known_by_its_bare_values() {
        assert!(looks_like_properties(KAFKA.split("compression.type").next().unwrap()));
        for toml in ["a = \"b\"", "[log]\na = b", "a = 1", "a = true", "a =", "log.dirs = \"/da"] {
            assert!(!looks_like_properties(toml), "{toml}");
        }
    }
}
