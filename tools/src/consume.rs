//! `corectl consume`.

use crate::output::{Output, count};
use crate::record_format::{self, Format};
use crate::{partitions, progress, record_json, time};
use anyhow::{Context, Result, bail};
use clap::Args;
use corelog_client::{
    Client, Consumer, ConsumerConfig, ConsumerRecord, Isolation, OffsetReset, OffsetSpec, TopicPartition,
};
use indicatif::ProgressBar;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Prints what is there and ends; with --follow waits for more, as `tail -f` does.
#[derive(Args)]
#[command(after_help = "Examples:
  corectl consume orders                       all that is there
  corectl consume orders --follow              what comes from now on
  corectl consume orders -o -10                the last 10 of each partition
  corectl consume orders -o \"1h ago\" -k        the last hour, with keys
  corectl consume orders -p 0 -o 1200 -n 1     one record
  corectl consume orders -f '%p %o %k %v\\n'
  corectl consume orders -f json               partition, offset, timestamp, key, value, headers
  corectl consume orders --group billing --follow   as a member of a group, committing")]
pub struct Consume {
    #[arg(required = true, value_name = "TOPIC")]
    topics: Vec<String>,
    /// Only these partitions, such as 3, or 0,2, or 0-4
    #[arg(short, long, value_parser = partitions::list, value_name = "LIST", conflicts_with = "group")]
    partitions: Option<BTreeSet<i32>>,
    /// Where to begin: beginning, end, an offset, -N for the last N, +N to pass over the first N, or a time such as
    /// 2026-11-21T10:00:00, "10m ago" or @MILLISECONDS; the beginning if not given, with --follow the end
    #[arg(short = 'o', long, visible_alias = "offset", value_parser = place, value_name = "WHERE", allow_hyphen_values = true)]
    from: Option<Place>,
    /// As --from beginning
    #[arg(long, conflicts_with = "from")]
    from_beginning: bool,
    /// Where to stop: end (as it is now), an offset, or a time
    #[arg(long, value_parser = place, value_name = "WHERE", conflicts_with_all = ["follow", "group"])]
    until: Option<Place>,
    /// Wait for more records, without an end
    #[arg(long)]
    follow: bool,
    /// Stop after so many records
    #[arg(short = 'n', long, alias = "max-messages", value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..), allow_negative_numbers = true)]
    count: Option<u64>,
    /// Stop when nothing came for this long
    #[arg(long, value_name = "DURATION", value_parser = time::duration)]
    idle: Option<Duration>,
    /// Read as a member of this group, from where it left off, and commit what was read
    #[arg(short, long, value_name = "NAME")]
    group: Option<String>,
    /// With --group, commit nothing
    #[arg(long, requires = "group")]
    no_commit: bool,
    /// Only records of committed transactions
    #[arg(long)]
    committed: bool,
    /// Print keys, and a tab, before values
    #[arg(short, long, conflicts_with = "format")]
    keys: bool,
    /// Print headers before values
    #[arg(short = 'H', long, conflicts_with = "format")]
    headers: bool,
    /// Print partition and offset before values
    #[arg(long, conflicts_with = "format")]
    offsets: bool,
    /// Print timestamps before values
    #[arg(long, conflicts_with = "format")]
    timestamps: bool,
    #[arg(short, long, value_name = "FORMAT", help = format!("How to print a record: json, or {}", record_format::HELP))]
    format: Option<String>,
    /// Print this for null keys and values
    #[arg(long, value_name = "TEXT", default_value = "")]
    null: String,
    /// Print no records, only count them
    #[arg(long, conflicts_with_all = ["format", "keys", "headers", "offsets", "timestamps"])]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Beginning,
    End,
    Offset(i64),
    Last(i64),
    /// So many after the first.
    Skip(i64),
    Time(i64),
}

fn place(text: &str) -> Result<Place, String> {
    match text {
        "beginning" | "earliest" | "start" => Ok(Place::Beginning),
        "end" | "latest" => Ok(Place::End),
        _ => match text.parse::<i64>() {
            Ok(count) if text.starts_with('+') => Ok(Place::Skip(count)),
            Ok(offset) if offset >= 0 => Ok(Place::Offset(offset)),
            Ok(last) => Ok(Place::Last(last.saturating_neg())),
            // As kcat writes a time to begin at.
            Err(_) => time::point(&text.replacen("s@", "@", usize::from(text.starts_with("s@"))))
                .map(Place::Time)
                .map_err(|wrong| {
                    format!("{wrong}; or beginning, end, an offset, -N for the last N, +N after the first N")
                }),
        },
    }
}

/// The format that is no template: a JSON object for each record, as --json has it.
const JSON: &str = "json";

/// Offsets by partition.
type Offsets = BTreeMap<TopicPartition, i64>;

pub async fn run(client: &Client, mut command: Consume, out: &Output) -> Result<ExitCode> {
    if command.from_beginning {
        command.from = Some(Place::Beginning);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the process, should the first not get through.
        signal_hook::flag::register_conditional_shutdown(signal, 1, stop.clone())?;
        signal_hook::flag::register(signal, stop.clone())?;
    }
    let config = ConsumerConfig {
        group: command.group.clone(),
        auto_commit: if command.no_commit { None } else { Some(Duration::from_secs(1)) },
        offset_reset: match command.from {
            Some(Place::End) => OffsetReset::Latest,
            None if command.follow && command.group.is_none() => OffsetReset::Latest,
            _ => OffsetReset::Earliest,
        },
        isolation: isolation(&command),
        poll_records_max: 5000,
        ..Default::default()
    };
    let consumer = client.consumer(config)?;
    let until = match &command.group {
        Some(_) => {
            if !matches!(command.from, None | Some(Place::Beginning | Place::End)) {
                bail!(
                    "a group begins where it left off: --from can only be beginning or end, for where it never was"
                );
            }
            // Who subscribes to a topic that is not there waits for it, and would wait for one that is mistyped.
            for topic in &command.topics {
                client.admin().describe_topic(topic).await?;
            }
            consumer.subscribe(command.topics.iter().map(String::as_str))?;
            None
        }
        None => begin(client, &consumer, &command).await?,
    };
    let total = until.as_ref().and_then(|until| total(&consumer, until));
    let mut printer = Printer {
        format: format(&command)?,
        json: out.json || command.format.as_deref() == Some(JSON),
        quiet: command.quiet,
        out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
        bar: progress::records(total, !command.quiet),
        records: 0,
        bytes: 0,
    };
    let outcome = read(&consumer, &command, until, &stop, &mut printer).await;
    let flushed = printer.out.flush();
    printer.bar.finish_and_clear();
    // Leaves the group also after an error, and then without committing what was not printed.
    let closed = match outcome.is_ok() && flushed.is_ok() {
        true => consumer.close().await,
        false => consumer.abandon().await,
    };
    outcome?;
    flushed?;
    closed?;
    if command.quiet {
        let (records, bytes) = (printer.records, printer.bytes);
        drop(printer);
        match out.json {
            true => out.value(&serde_json::json!({"records": records, "bytes": bytes}))?,
            false => {
                let bytes = count(bytes as usize, "byte");
                out.say(format!("{}, {bytes}", count(records as usize, "record")))?
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn isolation(command: &Consume) -> Isolation {
    if command.committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted }
}

/// Assigns the partitions and seeks to where to begin; returns where to stop, if anywhere.
async fn begin(client: &Client, consumer: &Consumer, command: &Consume) -> Result<Option<Offsets>> {
    let mut all = Vec::new();
    for topic in &command.topics {
        let topic = client.admin().describe_topic(topic).await?;
        all.extend(partitions::of(&topic, command.partitions.as_ref())?);
    }
    let from = command.from.unwrap_or(if command.follow { Place::End } else { Place::Beginning });
    let start = offsets(client, command, &all, from).await?;
    let until = match command.follow {
        true => None,
        false => Some(offsets(client, command, &all, command.until.unwrap_or(Place::End)).await?),
    };
    consumer.assign(all)?;
    for (at, offset) in start {
        consumer.seek(&at, offset)?;
    }
    Ok(until)
}

async fn offsets(
    client: &Client,
    command: &Consume,
    all: &[TopicPartition],
    place: Place,
) -> Result<Offsets> {
    let list = async |spec| {
        let asked = all.iter().map(|at| (at.clone(), spec)).collect();
        let mut offsets = BTreeMap::new();
        for (at, listed) in client.admin().list_offsets(asked, isolation(command)).await {
            offsets.insert(at, listed?.offset);
        }
        Ok::<_, anyhow::Error>(offsets)
    };
    let all_of = |offsets: BTreeMap<TopicPartition, Option<i64>>| -> Offsets {
        offsets.into_iter().map(|(at, offset)| (at, offset.unwrap_or(0))).collect()
    };
    match place {
        Place::Beginning => Ok(all_of(list(OffsetSpec::Earliest).await?)),
        Place::End => Ok(all_of(list(OffsetSpec::Latest).await?)),
        Place::Offset(offset) => Ok(all.iter().map(|at| (at.clone(), offset)).collect()),
        Place::Last(count) => {
            let earliest = all_of(list(OffsetSpec::Earliest).await?);
            let latest = all_of(list(OffsetSpec::Latest).await?);
            let back = |(at, end): (TopicPartition, i64)| {
                let first = earliest.get(&at).copied().unwrap_or(0);
                (at, (end - count).max(first))
            };
            Ok(latest.into_iter().map(back).collect())
        }
        Place::Skip(count) => {
            let earliest = all_of(list(OffsetSpec::Earliest).await?);
            Ok(earliest.into_iter().map(|(at, first)| (at, first.saturating_add(count))).collect())
        }
        Place::Time(millis) => {
            let latest = all_of(list(OffsetSpec::Latest).await?);
            let found = list(OffsetSpec::Timestamp(millis)).await?;
            let or_end = |(at, end): (TopicPartition, i64)| {
                let offset = found.get(&at).copied().flatten().unwrap_or(end);
                (at, offset)
            };
            Ok(latest.into_iter().map(or_end).collect())
        }
    }
}

fn total(consumer: &Consumer, until: &Offsets) -> Option<u64> {
    let left = |(at, end): (&TopicPartition, &i64)| {
        let position = consumer.position(at).ok().flatten()?;
        Some((end - position).max(0) as u64)
    };
    until.iter().map(left).sum()
}

async fn read(
    consumer: &Consumer,
    command: &Consume,
    mut until: Option<Offsets>,
    stop: &AtomicBool,
    printer: &mut Printer<'_>,
) -> Result<()> {
    const TURN: Duration = Duration::from_millis(200);
    let mut latest = Instant::now();
    // A group that is not followed has no end of its own.
    let idle = command.idle.or(match (&command.group, command.follow, command.count) {
        (Some(_), false, None) => Some(Duration::from_secs(5)),
        _ => None,
    });
    while !stop.load(Ordering::Relaxed) {
        if let Some(until) = &mut until {
            let reached = |at: &TopicPartition, end: i64| {
                Ok::<_, corelog_client::Error>(consumer.position(at)?.is_some_and(|position| position >= end))
            };
            let mut left = BTreeMap::new();
            for (at, end) in std::mem::take(until) {
                match reached(&at, end)? {
                    true => consumer.pause(std::slice::from_ref(&at))?,
                    false => drop(left.insert(at, end)),
                }
            }
            *until = left;
            if until.is_empty() {
                break;
            }
        }
        let records = consumer.poll(TURN).await?;
        if records.is_empty() {
            printer.out.flush()?;
            if idle.is_some_and(|idle| latest.elapsed() >= idle) {
                break;
            }
            continue;
        }
        latest = Instant::now();
        let mut records = records.into_iter();
        while let Some(record) = records.next() {
            if let Some(until) = &until {
                let at = TopicPartition { topic: record.topic.clone(), partition: record.partition };
                if until.get(&at).is_none_or(|end| record.offset >= *end) {
                    continue;
                }
            }
            printer.print(&record)?;
            if command.count.is_some_and(|count| printer.records >= count) {
                if command.group.is_some() && !command.no_commit {
                    // What comes after it in this poll was not printed: it is for the next one.
                    let mut unprinted = BTreeMap::new();
                    for record in records {
                        let at = TopicPartition { topic: record.topic, partition: record.partition };
                        unprinted.entry(at).or_insert(record.offset);
                    }
                    for (at, offset) in unprinted {
                        consumer.seek(&at, offset)?;
                    }
                }
                return Ok(());
            }
        }
        if command.follow {
            printer.out.flush()?;
        }
    }
    Ok(())
}

fn format(command: &Consume) -> Result<Format> {
    let text = match &command.format {
        Some(format) if format != JSON => format.clone(),
        _ => {
            let parts = [
                (command.timestamps, "%D\t"),
                (command.offsets, "%t-%p@%o\t"),
                (command.headers, "%h\t"),
                (command.keys, "%k\t"),
                (true, "%v\n"),
            ];
            parts.iter().filter(|(wanted, _)| *wanted).map(|(_, part)| *part).collect()
        }
    };
    Format::parse(&text, &command.null).map_err(anyhow::Error::msg).context("--format")
}

struct Printer<'a> {
    format: Format,
    json: bool,
    quiet: bool,
    out: BufWriter<io::StdoutLock<'a>>,
    bar: ProgressBar,
    records: u64,
    bytes: u64,
}

impl Printer<'_> {
    fn print(&mut self, record: &ConsumerRecord) -> Result<()> {
        let len = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, |part| part.len() as u64);
        self.records += 1;
        self.bytes += len(&record.key) + len(&record.value);
        self.bar.inc(1);
        match (self.quiet, self.json) {
            (true, _) => {}
            (false, true) => {
                serde_json::to_writer(&mut self.out, &record_json::of(record)).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            (false, false) => self.format.write(record, &mut self.out)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, expected) in [
            ("beginning", Place::Beginning),
            ("latest", Place::End),
            ("1200", Place::Offset(1200)),
            ("-10", Place::Last(10)),
            ("+3", Place::Skip(3)),
            ("@1500", Place::Time(1500)),
            ("s@1500", Place::Time(1500)),
            ("1970-01-01", Place::Time(0)),
        ] {
            assert_eq!(place(text), Ok(expected));
        }
        assert!(place("middle").is_err());
    }
}
