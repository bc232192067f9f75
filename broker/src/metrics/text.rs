//! Merges snapshots, and writes them in Prometheus's text format.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::cells::Distribution;
use super::families::{self, Family};
use super::snapshot::{Snapshot, Value};

/// Of the format that [`encode`] writes.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of a histogram's buckets, in microseconds and as written, in seconds.
const BUCKETS_US: [u64; 17] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000, 30_000_000,
];
const BUCKETS: [&str; BUCKETS_US.len()] = [
    "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5",
    "1", "2.5", "5", "10", "30",
];

/// A member of a family: its core where cores are told apart, and its labels' values.
type Member = (Option<usize>, [&'static str; 2]);

/// The text of all snapshots together. Families appear in the table's order, members in theirs.
pub fn encode(snapshots: &[Snapshot]) -> String {
    // By the family's place in the table.
    let mut merged: BTreeMap<usize, BTreeMap<Member, Merged>> = BTreeMap::new();
    for snapshot in snapshots {
        for sample in &snapshot.samples {
            let place = families::ALL
                .iter()
                .position(|family| std::ptr::eq(*family, sample.family))
                .expect("every family is in the table");
            let core = snapshot.core.filter(|_| sample.family.per_core);
            let members = merged.entry(place).or_default();
            members.entry((core, sample.labels)).or_default().add(&sample.value);
        }
    }
    let mut text = String::new();
    for (place, members) in &merged {
        let family = families::ALL[*place];
        write_head(&mut text, family);
        for (member, value) in members {
            write_member(&mut text, family, *member, value);
        }
    }
    text
}

/// What stands before a family's members.
pub fn write_head(text: &mut String, family: &Family) {
    let Family { name, help, kind, .. } = family;
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
}

/// A label's value that is of a client's choice.
pub fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[derive(Default)]
struct Merged {
    whole: u64,
    decimal: Option<f64>,
    distribution: Option<Distribution>,
}

impl Merged {
    fn add(&mut self, value: &Value) {
        match value {
            Value::Whole(value) => self.whole = self.whole.wrapping_add(*value),
            Value::Decimal(value) => self.decimal = Some(self.decimal.unwrap_or(0.0) + value),
            Value::Distribution(value) => match &mut self.distribution {
                Some(sum) => sum.merge(value),
                None => self.distribution = Some((**value).clone()),
            },
        }
    }
}

fn write_member(text: &mut String, family: &Family, (core, values): Member, value: &Merged) {
    let name = family.name;
    let mut labels = String::new();
    if let Some(core) = core {
        let _ = write!(labels, "core=\"{core}\"");
    }
    for (key, label) in family.labels.iter().zip(values) {
        let comma = if labels.is_empty() { "" } else { "," };
        // These are names out of this program's tables: none needs escaping.
        let _ = write!(labels, "{comma}{key}=\"{label}\"");
    }
    if let Some(distribution) = &value.distribution {
        let comma = if labels.is_empty() { "" } else { "," };
        let counts = distribution.cumulative(&BUCKETS_US);
        for (bound, count) in BUCKETS.iter().zip(counts) {
            let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let count = distribution.recorder.len();
        let sum = distribution.sum_us as f64 / 1e6;
        let _ = writeln!(text, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {count}");
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(text, "{name}_sum{braces} {sum}\n{name}_count{braces} {count}");
        return;
    }
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = match value.decimal {
        Some(value) => writeln!(text, "{name}{braces} {value}"),
        None => writeln!(text, "{name}{braces} {}", value.whole),
    };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corelog_wire::ApiKey;

    use super::super::shard::ShardMetrics;
    use super::*;

    #[test]
    fn cores_are_merged_or_told_apart() {
        let (a, b) = (ShardMetrics::new(), ShardMetrics::new());
        a.request_received(100);
        a.request_answered(0, 50, Duration::from_micros(200));
        b.request_received(7);
        b.request_answered(0, 5, Duration::from_millis(2));
        b.request_answered(99, 1, Duration::from_millis(2));
        b.request_answered(-1, 1, Duration::from_millis(2));
        a.error(ApiKey::Produce, 3);
        b.error(ApiKey::Produce, 3);
        b.error(ApiKey::Fetch, 3);
        b.error(ApiKey::Fetch, -1);
        b.error(ApiKey::Fetch, 0);
        b.error(ApiKey::Fetch, 9999);
        a.connection_opened();
        a.connection_opened();
        a.connection_closed();
        a.produced(10, 1000);
        let mut with_more = b.snapshot(1);
        with_more.put(&families::PARTITIONS, 4);
        with_more.put_labelled(&families::MEMORY_USED_BYTES, "receive", 9);
        let text = encode(&[a.snapshot(0), with_more]);
        for line in [
            "# HELP corelog_received_bytes_total Bytes of requests received.",
            "# TYPE corelog_received_bytes_total counter",
            "corelog_received_bytes_total{core=\"0\"} 100",
            "corelog_received_bytes_total{core=\"1\"} 7",
            "corelog_sent_bytes_total{core=\"1\"} 7",
            "# TYPE corelog_request_seconds histogram",
            "corelog_request_seconds_bucket{api=\"Produce\",le=\"0.0001\"} 0",
            "corelog_request_seconds_bucket{api=\"Produce\",le=\"0.00025\"} 1",
            "corelog_request_seconds_bucket{api=\"Produce\",le=\"0.0025\"} 2",
            "corelog_request_seconds_bucket{api=\"Produce\",le=\"+Inf\"} 2",
            "corelog_request_seconds_sum{api=\"Produce\"} 0.0022",
            "corelog_request_seconds_count{api=\"Produce\"} 2",
            "corelog_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 2",
            "corelog_errors_total{api=\"Fetch\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"} 1",
            "corelog_errors_total{api=\"Fetch\",error=\"UNKNOWN_SERVER_ERROR\"} 2",
            "corelog_connections{core=\"0\"} 1",
            "corelog_connections_opened_total 2",
            "corelog_produced_records_total 10",
            "corelog_partitions{core=\"1\"} 4",
            "corelog_memory_used_bytes{part=\"receive\"} 9",
            "corelog_core_up{core=\"1\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert_eq!(text.matches("# TYPE").count(), text.matches("# HELP").count());
        assert!(!text.contains("error=\"NONE\""));
    }

    #[test]
    fn the_process_tells_of_itself() {
        let text = encode(&[super::super::process()]);
        for name in [
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_start_time_seconds ",
            "corelog_build_info{version=\"",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
        }
        let line = text.lines().find(|line| line.starts_with("process_resident_memory_bytes ")).unwrap();
        let bytes: u64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        assert!((1 << 20..1 << 36).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_clients_choose_is_escaped() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }

    #[test]
    fn buckets_are_written_as_they_are() {
        for (us, text) in BUCKETS_US.iter().zip(BUCKETS) {
            assert_eq!(text.parse::<f64>().unwrap() * 1e6, *us as f64);
        }
    }
}
