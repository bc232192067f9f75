//! Apache Kafka's own measuring tools, ProducerPerformance, ConsumerPerformance and EndToEndLatency: a second opinion, by another client.
//!
//! They are started as they ship and their output is read as it comes, so that what the broker used can be told for the very stretch that
//! they told. Their MB are mebibytes; here they are millions of bytes, as everywhere else.

use super::subject::JAVA;
use crate::host::cost::{Cost, Moment, Watched};
use anyhow::{Context, Result, bail};
use corelog_conformance::broker::Kafka;
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// As bin/kafka-run-class.sh runs tools.
const HEAP: &str = "-Xmx256M";
/// bin/kafka-producer-perf-test.sh and bin/kafka-consumer-perf-test.sh have this in its place.
const PERF_HEAP: &str = "-Xmx512M";
const MIB: f64 = (1 << 20) as f64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    ProducerPerformance,
    ConsumerPerformance,
    EndToEndLatency,
}

impl Tool {
    pub fn name(self) -> &'static str {
        match self {
            Tool::ProducerPerformance => "ProducerPerformance",
            Tool::ConsumerPerformance => "ConsumerPerformance",
            Tool::EndToEndLatency => "EndToEndLatency",
        }
    }

    fn command(self, kafka: &Kafka, arguments: &[String]) -> Command {
        let mut command = Command::new("java");
        match self {
            Tool::ProducerPerformance | Tool::ConsumerPerformance => command.arg(PERF_HEAP),
            Tool::EndToEndLatency => command.arg(HEAP),
        };
        command.args(JAVA);
        command.arg(format!("-Dlog4j2.configurationFile={}", kafka.logging.display()));
        command.arg("-cp").arg(format!("{}/*", kafka.libs.display()));
        command.arg(format!("org.apache.kafka.tools.{}", self.name())).args(arguments);
        command
    }
}

/// What a run of a tool said, and what the broker used meanwhile.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    pub arguments: String,
    /// Each line with when it came, in seconds since the start.
    pub lines: Vec<(f64, String)>,
    /// Of the stretch that was asked for; none if it did not come.
    #[serde(skip)]
    pub cost: Option<Cost>,
}

/// It ends with this, whatever becomes of those who wait for it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

/// What a line that a tool says is the beginning of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// For which the broker is not charged.
    Aside,
    /// For which it is.
    Counted,
    /// Nothing that is needed: the tool is ended.
    Enough,
}

/// Runs a tool to its end, or until there is enough. The broker is charged for the first stretch that is counted.
pub fn run(
    tool: Tool,
    kafka: &Kafka,
    arguments: &[String],
    watched: &Watched,
    mut stretch: impl FnMut(&str) -> Stretch,
) -> Result<Said> {
    let started = Instant::now();
    let mut command = tool.command(kafka, arguments);
    // SAFETY: prctl is async-signal-safe and touches nothing of this process.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut running = Running(child.context("starting java")?);
    let out = BufReader::new(running.0.stdout.take().context("it is piped")?);
    let mut said = Said { arguments: arguments.join(" "), lines: Vec::new(), cost: None };
    let mut from = None;
    for line in out.lines() {
        let line = line.with_context(|| format!("reading what {} says", tool.name()))?;
        let at = started.elapsed().as_secs_f64();
        let stretch = stretch(&line);
        said.lines.push((at, line));
        match (stretch, &from) {
            (Stretch::Enough, _) => return Ok(said),
            (Stretch::Counted, None) => from = Some(Moment::now(watched)?),
            (Stretch::Aside, Some(before)) if said.cost.is_none() => {
                said.cost = Some(Cost::between(before, &Moment::now(watched)?));
            }
            _ => {}
        }
    }
    if let (Some(before), None) = (&from, &said.cost) {
        said.cost = Some(Cost::between(before, &Moment::now(watched)?));
    }
    let status = running.0.wait()?;
    if !status.success() {
        let lines: Vec<&str> = said.lines.iter().map(|(_, line)| line.as_str()).collect();
        bail!("{} ended with {status}:\n{}", tool.name(), lines[lines.len().saturating_sub(20)..].join("\n"));
    }
    Ok(said)
}

/// A piece of ProducerPerformance's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProducerWindow {
    pub records: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
}

/// `9885 records sent, 9672.2 records/sec (9.22 MB/sec), 77.6 ms avg latency, 222.0 ms max latency.`
pub fn producer_window(line: &str) -> Option<ProducerWindow> {
    // The sums at the end have percentiles.
    if line.contains(" 50th") {
        return None;
    }
    let (records, records_per_second, bytes_per_second) = producer_rates(line)?;
    Some(ProducerWindow { records, records_per_second, bytes_per_second })
}

/// After this line ProducerPerformance's warm-up is over.
pub const PRODUCER_STEADY: &str = "In steady state.";

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProducerVerdict {
    pub records: u64,
    pub records_per_second: f64,
    pub bytes_per_second: f64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

/// Of what came after the warm-up: `200000 steady state records sent, 31908.1 records/sec (30.43 MB/sec), 825.86 ms avg latency, 1137.00 ms
/// max latency, 834 ms 50th, 978 ms 95th, 1039 ms 99th, 1098 ms 99.9th.`
pub fn producer_verdict(said: &Said) -> Result<ProducerVerdict> {
    let of = |line: &str| {
        let (records, records_per_second, bytes_per_second) =
            producer_rates(&line.replace("steady state records", "records"))?;
        let quantile = |name: &str| {
            let part = line.trim_end_matches('.').split(", ").find_map(|part| part.strip_suffix(name))?;
            part.strip_suffix(" ms ")?.parse().ok()
        };
        Some(ProducerVerdict {
            records,
            records_per_second,
            bytes_per_second,
            p50_ms: quantile("50th")?,
            p95_ms: quantile("95th")?,
            p99_ms: quantile("99th")?,
            p999_ms: quantile("99.9th")?,
        })
    };
    let mut lines = said.lines.iter().rev().filter(|(_, line)| line.contains("steady state records sent"));
    lines.find_map(|(_, line)| of(line)).with_context(|| unread(Tool::ProducerPerformance, said))
}

/// Records, records a second and bytes a second.
fn producer_rates(line: &str) -> Option<(u64, f64, f64)> {
    let (records, rest) = line.split_once(" records sent, ")?;
    let (records_per_second, rest) = rest.split_once(" records/sec (")?;
    let (mebibytes, _) = rest.split_once(" MB/sec)")?;
    Some((records.parse().ok()?, records_per_second.parse().ok()?, mebibytes.parse::<f64>().ok()? * MIB))
}

/// What ConsumerPerformance had read at some moment, by one line of its details.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumerWindow {
    /// In all.
    pub records: u64,
    pub bytes: f64,
    pub bytes_per_second: f64,
}

/// `time, thread, MB in all, MB/s, records in all, records/s, rebalancing, fetching, ...`
pub fn consumer_window(line: &str) -> Option<ConsumerWindow> {
    const COLUMNS: usize = 10;
    let fields: Vec<&str> = line.split(", ").collect();
    // Not the sum at the end, whose second column is a time too, nor the titles.
    let thread = fields.get(1)?.parse::<u64>();
    let number = |at: usize| fields.get(at)?.parse::<f64>().ok();
    (fields.len() == COLUMNS && thread.is_ok()).then(|| {
        Some(ConsumerWindow {
            records: number(4)? as u64,
            bytes: number(2)? * MIB,
            bytes_per_second: number(3)? * MIB,
        })
    })?
}

/// How fast ConsumerPerformance read in the stretch after its warm-up, by its own details; the last line is of the end, or shortly before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumerVerdict {
    pub bytes: f64,
    pub bytes_per_second: f64,
    pub records_per_second: f64,
}

/// Between two moments of [`consumer_window`]; the first `warm_up` of reading is left out.
pub fn consumer_verdict(said: &Said, warm_up: Duration) -> Result<(ConsumerVerdict, Vec<f64>)> {
    let windows: Vec<(f64, ConsumerWindow)> =
        said.lines.iter().filter_map(|(at, line)| Some((*at, consumer_window(line)?))).collect();
    let unread = || unread(Tool::ConsumerPerformance, said);
    let begun = windows.first().with_context(unread)?.0;
    let counted: Vec<&(f64, ConsumerWindow)> =
        windows.iter().filter(|(at, _)| *at >= begun + warm_up.as_secs_f64()).collect();
    let ([first, .., last], [_, later @ ..]) = (&counted[..], &counted[..]) else {
        bail!(
            "ConsumerPerformance had read everything before its warm-up of {warm_up:?} was over: give more --data"
        );
    };
    let seconds = last.0 - first.0;
    let bytes = last.1.bytes - first.1.bytes;
    let verdict = ConsumerVerdict {
        bytes,
        bytes_per_second: bytes / seconds,
        records_per_second: (last.1.records - first.1.records) as f64 / seconds,
    };
    Ok((verdict, later.iter().map(|(_, window)| window.bytes_per_second).collect()))
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EndToEndVerdict {
    /// Of all but the first record, which waits for connections and compilers.
    pub mean_ms: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
}

/// `0<tab>405.3` for the first record, `Avg latency: 18.7611 ms`, and `Percentiles: 50th = 16, 99th = 64, 99.9th = 144` in whole
/// milliseconds, of so many records.
pub fn end_to_end_verdict(said: &Said, records: u64) -> Result<EndToEndVerdict> {
    let line = |start: &str| said.lines.iter().find_map(|(_, line)| line.strip_prefix(start));
    let verdict = || {
        let mean: f64 = line("Avg latency: ")?.trim().strip_suffix(" ms")?.parse().ok()?;
        let first: f64 = line("0\t")?.trim().parse().ok()?;
        let mean_ms = (mean * records as f64 - first) / (records.max(2) - 1) as f64;
        let percentiles = line("Percentiles: ")?;
        let of = |name: &str| {
            let part = percentiles.split(", ").find_map(|part| part.strip_prefix(name))?;
            part.trim_start_matches(" = ").trim().parse().ok()
        };
        Some(EndToEndVerdict { mean_ms, p50_ms: of("50th")?, p99_ms: of("99th")?, p999_ms: of("99.9th")? })
    };
    verdict().with_context(|| unread(Tool::EndToEndLatency, said))
}

fn unread(tool: Tool, said: &Said) -> String {
    let lines: Vec<&str> = said.lines.iter().map(|(_, line)| line.as_str()).collect();
    format!(
        "what {} says is not understood; it ends:\n{}",
        tool.name(),
        lines[lines.len().saturating_sub(5)..].join("\n")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Said {
        let lines = text.lines().enumerate().map(|(at, line)| (at as f64, line.to_owned())).collect();
        Said { arguments: String::new(), lines, cost: None }
    }

    /// As Kafka 4.4.0 writes it.
    const PRODUCER: &str = "\
Warmup first 200000 records. Steady state results will print after the complete test summary.
1 records sent, 0.9 records/sec (0.00 MB/sec), 1086.0 ms avg latency, 1086.0 ms max latency.
30848 records sent, 30848.0 records/sec (29.42 MB/sec), 1047.7 ms avg latency, 1196.0 ms max latency.
In steady state.
5214 records sent, 5152.2 records/sec (4.91 MB/sec), 909.7 ms avg latency, 937.0 ms max latency.
43648 records sent, 42459.1 records/sec (40.49 MB/sec), 868.5 ms avg latency, 1137.0 ms max latency.
400000 records sent, 28975.009055 records/sec (27.63 MB/sec), 878.36 ms avg latency, 1474.00 ms max latency, 889 ms 50th, 1185 ms 95th, 1401 ms 99th, 1439 ms 99.9th.
200000 steady state records sent, 31908.104659 records/sec (30.43 MB/sec), 825.86 ms avg latency, 1137.00 ms max latency, 834 ms 50th, 978 ms 95th, 1039 ms 99th, 1098 ms 99.9th.";

    #[test]
    fn the_producer_is_told_by_what_came_after_its_warm_up() {
        let said = said(PRODUCER);
        let verdict = producer_verdict(&said).unwrap();
        assert_eq!((verdict.records, verdict.records_per_second.round()), (200_000, 31_908.0));
        assert!((verdict.bytes_per_second / 31_908_104.0 - 1.0).abs() < 0.001, "{verdict:?}");
        let percentiles = [verdict.p50_ms, verdict.p95_ms, verdict.p99_ms, verdict.p999_ms];
        assert_eq!(percentiles, [834.0, 978.0, 1039.0, 1098.0]);
        let windows: Vec<u64> =
            said.lines.iter().filter_map(|(_, line)| producer_window(line)).map(|it| it.records).collect();
        assert_eq!(windows, [1, 30_848, 5_214, 43_648]);
    }

    #[test]
    fn a_producer_that_never_was_warm_has_no_verdict() {
        let cold = PRODUCER.split("200000 steady").next().unwrap();
        let error = producer_verdict(&said(cold)).unwrap_err().to_string();
        assert!(error.contains("not understood") && error.contains("1439 ms 99.9th"), "{error}");
    }

    /// As Kafka 4.4.0 writes it with --show-detailed-stats.
    const CONSUMER: &str = "\
time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
2026-11-30 12:04:30:706, 0, 0.0010, 0.0007, 1, 0.7457, 1153, 188, 0.0051, 5.3191
2026-11-30 12:04:31:706, 0, 50.0000, 49.9990, 52000, 51999.0000, 0, 1000, 49.9990, 51999.0000
2026-11-30 12:04:32:706, 0, 150.0000, 100.0000, 156000, 104000.0000, 0, 1000, 100.0000, 104000.0000
2026-11-30 12:04:33:706, 0, 260.0000, 110.0000, 270400, 114400.0000, 0, 1000, 110.0000, 114400.0000
2026-11-30 12:04:34:706, 0, 350.0000, 90.0000, 364000, 93600.0000, 0, 1000, 90.0000, 93600.0000";

    #[test]
    fn the_consumers_start_is_left_out() {
        let said = said(CONSUMER);
        let (verdict, windows) = consumer_verdict(&said, Duration::from_secs(2)).unwrap();
        assert_eq!(verdict.bytes_per_second, 100.0 * MIB);
        assert_eq!(verdict.records_per_second, 104_000.0);
        assert_eq!(windows, [110.0 * MIB, 90.0 * MIB]);
        let error = consumer_verdict(&said, Duration::from_secs(4)).unwrap_err().to_string();
        assert!(error.contains("--data"), "{error}");
        // Without details there is the sum alone, which begins with two times.
        let sum = "2026-11-30 12:04:37:153, 2026-11-30 12:04:41:003, 381.4697, 99.0830, 400000, 103896.1039, 876, 2974, 128.2682, 134498.9913";
        assert_eq!(consumer_window(sum), None);
    }

    #[test]
    fn end_to_end_is_told_in_milliseconds() {
        let text = "0\t405.32872100000003\n1000\t20.711557\nAvg latency: 18.7611 ms\nPercentiles: 50th = 16, 99th = 64, 99.9th = 144";
        let verdict = end_to_end_verdict(&said(text), 3000).unwrap();
        assert_eq!((verdict.p50_ms, verdict.p99_ms, verdict.p999_ms), (16.0, 64.0, 144.0));
        // 3,000 records took 56,283 ms together, and the first 405 of them.
        assert!((verdict.mean_ms - 55_878.0 / 2999.0).abs() < 0.001, "{verdict:?}");
        assert!(end_to_end_verdict(&said("0\t1.0"), 1).is_err());
    }
}
