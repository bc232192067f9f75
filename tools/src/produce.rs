//! `corectl produce`.

use crate::output::{Output, count, tell};
use crate::topic::pair;
use crate::{progress, record_json, time};
use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use corelog_client::{
    Acks, Client, Delivery, Encoding, ErrorCode, NewTopic, Partitioner, Producer, ProducerConfig,
    ProducerRecord, RecordHeader,
};
use indicatif::ProgressBar;
use serde_json::json;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Lines of standard input become records, unless --value, --file or --input say otherwise.
#[derive(Args)]
#[command(after_help = "Examples:
  echo hello | corectl produce greetings
  corectl produce orders --key-separator : < orders.txt
  corectl produce images --create --whole --key logo --file logo.png
  corectl consume orders --json | corectl produce orders-copy --input json")]
pub struct Produce {
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// A record with this value, in place of standard input; may be given more than once
    #[arg(short, long, value_name = "TEXT", conflicts_with = "file")]
    value: Vec<String>,
    /// Create the topic, with the broker's defaults, if it is not there
    #[arg(long)]
    create: bool,
    /// Read from these files in place of standard input
    #[arg(long, value_name = "PATH")]
    file: Vec<PathBuf>,
    /// How to read: a record per line, or per line a JSON object as `consume --json` prints it
    #[arg(short, long, value_enum, default_value_t = Input::Lines)]
    input: Input,
    /// Each file, or all of standard input, is one record
    #[arg(long, conflicts_with_all = ["value", "key_separator", "input"])]
    whole: bool,
    /// Key and value of a line stand on either side of this
    #[arg(short = 'K', long, value_name = "TEXT", value_parser = unescaped)]
    key_separator: Option<String>,
    /// The key of every record
    #[arg(short, long, value_name = "TEXT", conflicts_with_all = ["key_separator"])]
    key: Option<String>,
    /// A header for every record; may be given more than once
    #[arg(short = 'H', long, value_name = "NAME=VALUE", value_parser = pair)]
    header: Vec<(String, String)>,
    /// A key or value that is this text becomes null
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// The timestamp of every record, in place of the time of sending: 2026-11-21T10:00:00, "1h ago", @MILLISECONDS
    #[arg(long, value_name = "TIME", value_parser = time::point, allow_hyphen_values = true)]
    timestamp: Option<i64>,
    /// Write to this partition
    #[arg(short, long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..), allow_negative_numbers = true)]
    partition: Option<i32>,
    /// Write to all partitions in turn, whatever the key
    #[arg(long, conflicts_with = "partition")]
    round_robin: bool,
    /// With --input json, write each record to the partition that it names
    #[arg(long, conflicts_with_all = ["partition", "round_robin"])]
    keep_partitions: bool,
    /// none, gzip, snappy, lz4 or zstd, with an optional level, as in zstd:9
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    compression: Encoding,
    /// When a record counts as written: 0 when sent, 1 when the leader has it, all when the in-sync replicas have it
    #[arg(short, long, value_name = "ACKS", default_value = "all")]
    acks: Acks,
    /// Bytes in a batch, before compression
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    batch_bytes: usize,
    /// How long a batch waits for more records
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = time::duration)]
    linger: Duration,
    /// The largest record that is sent, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20)]
    max_bytes: usize,
    /// Print where each record was written
    #[arg(long)]
    offsets: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Input {
    Lines,
    Json,
}

/// With `\t` and `\n` as usual.
pub fn unescaped(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty".into()),
        text => Ok(text.replace("\\t", "\t").replace("\\n", "\n")),
    }
}

/// Deliveries that may be awaited at once.
const OUTSTANDING_MAX: usize = 100_000;

struct Run<'a> {
    command: &'a Produce,
    producer: Producer,
    out: &'a Output,
    bar: ProgressBar,
    outstanding: VecDeque<Delivery>,
    records: u64,
    bytes: u64,
    failed: u64,
    first_error: Option<corelog_client::Error>,
}

/// `timeout`: of a record, from when it is taken until it is delivered.
pub async fn run(
    client: &Client,
    command: Produce,
    timeout: Option<Duration>,
    out: &Output,
) -> Result<ExitCode> {
    let mut config = ProducerConfig {
        encoding: command.compression,
        linger: command.linger,
        request_bytes_max: command.max_bytes.max(command.batch_bytes) + (1 << 10),
        batch_bytes: command.batch_bytes,
        ..Default::default()
    }
    .acks(command.acks);
    if let Some(timeout) = timeout {
        (config.delivery_timeout, config.send_timeout) = (timeout, timeout);
    }
    config.buffer_bytes_max = config.buffer_bytes_max.max(2 * config.request_bytes_max);
    if command.round_robin {
        config.partitioner = Partitioner::RoundRobin;
    }
    there(client, &command, out).await?;
    let producer = client.producer(config)?;
    producer.prepare(&command.topic).await?;
    let started = Instant::now();
    let shows = command.offsets && !out.json;
    let mut run = Run {
        command: &command,
        producer,
        out,
        bar: progress::records(None, shows || std::io::stdin().is_terminal()),
        outstanding: VecDeque::new(),
        records: 0,
        bytes: 0,
        failed: 0,
        first_error: None,
    };
    let input = run.input().await;
    // Also after an error: what was taken is written.
    let flushed = {
        let _told = told_if_it_takes_long(timeout);
        run.producer.clone().close().await
    };
    while let Some(delivery) = run.outstanding.pop_front() {
        run.settle(delivery).await?;
    }
    run.bar.finish_and_clear();
    let (records, failed, took, topic) = (run.records, run.failed, started.elapsed(), &command.topic);
    let written = records - failed;
    if let Some(error) = run.first_error {
        let what = format!(
            "{written} of {records} records were written to {topic}; of those that were not, the first"
        );
        bail!(anyhow!(error).context(what));
    }
    if let Err(error) = input.and(flushed.map_err(anyhow::Error::from)) {
        return Err(match written {
            0 => error.context(format!("nothing was written to {topic}")),
            1 => error.context(format!("ended after 1 record, which was written to {topic}")),
            _ => error.context(format!("ended after {written} records, which were written to {topic}")),
        });
    }
    if out.json {
        let millis = took.as_millis() as u64;
        out.value(&json!({"topic": topic, "records": records, "bytes": run.bytes, "milliseconds": millis}))?;
    } else {
        let (records, bytes) = (count(records as usize, "record"), count(run.bytes as usize, "byte"));
        tell!("{records} ({bytes}) written to {topic} in {took:.2?}");
    }
    Ok(ExitCode::SUCCESS)
}

/// What can be tried again is, for minutes. Says so, lest it look hung, unless what this returns is dropped before.
fn told_if_it_takes_long(timeout: Option<Duration>) -> mpsc::Sender<()> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let (done, waiting) = mpsc::channel();
    let until = timeout.unwrap_or(ProducerConfig::default().delivery_timeout);
    std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
            let until = humantime::format_duration(until);
            tell!("corectl: not all is written after {PATIENCE:?}; it is tried for {until} (--timeout)");
        }
    });
    done
}

/// A name that is mistyped is not to become a topic: brokers create what a producer asks for.
async fn there(client: &Client, command: &Produce, out: &Output) -> Result<()> {
    let Produce { topic, create, .. } = command;
    match client.admin().describe_topic(topic).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() != Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => Err(error.into()),
        Err(_) if !create => {
            bail!(
                "there is no topic {topic:?}: make it with `corectl topic create {topic}`, or here with --create"
            )
        }
        Err(_) => match client.admin().create_topic(NewTopic::new(topic)).await {
            // Another was faster.
            Err(error) if error.code() != Some(ErrorCode::TOPIC_ALREADY_EXISTS) => Err(error.into()),
            _ if out.json => Ok(()),
            _ => {
                tell!("{topic} created");
                Ok(())
            }
        },
    }
}

impl Run<'_> {
    async fn input(&mut self) -> Result<()> {
        if !self.command.value.is_empty() {
            for value in &self.command.value {
                let record = self.record(None, value.clone().into_bytes());
                self.send(record).await?;
            }
            return Ok(());
        }
        if self.command.file.is_empty() {
            return self.read("standard input", Box::new(std::io::stdin())).await;
        }
        for path in &self.command.file {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
            self.read(&name, Box::new(file)).await?;
        }
        Ok(())
    }

    async fn read(&mut self, name: &str, source: Box<dyn Read>) -> Result<()> {
        let mut source = BufReader::with_capacity(256 << 10, source);
        if self.command.whole {
            let limit = self.command.max_bytes as u64;
            let mut value = Vec::new();
            source.take(limit + 1).read_to_end(&mut value).with_context(|| format!("cannot read {name}"))?;
            if value.len() as u64 > limit {
                bail!(
                    "{name} is larger than {limit} bytes: raise --max-bytes, and the topic's max.message.bytes"
                );
            }
            let record = self.record(None, value);
            return self.send(record).await;
        }
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let limit = self.command.max_bytes as u64 + 2;
            let read = source.by_ref().take(limit).read_until(b'\n', &mut line);
            if read.with_context(|| format!("cannot read {name}"))? == 0 {
                break;
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == limit {
                bail!(
                    "line {number} of {name} is longer than {} bytes: raise --max-bytes",
                    self.command.max_bytes
                );
            }
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            let record = self.parse(&line).with_context(|| format!("line {number} of {name}"))?;
            self.send(record).await?;
        }
        Ok(())
    }

    fn parse(&self, line: &[u8]) -> Result<ProducerRecord> {
        if self.command.input == Input::Json {
            let text = std::str::from_utf8(line).context("it is not UTF-8")?;
            let record = record_json::parse(text, &self.command.topic, self.command.keep_partitions);
            return Ok(self.common(record.map_err(anyhow::Error::msg)?));
        }
        let Some(separator) = &self.command.key_separator else {
            return Ok(self.record(None, line.to_vec()));
        };
        let separator = separator.as_bytes();
        let at = line.windows(separator.len()).position(|part| part == separator);
        let at =
            at.with_context(|| format!("it has no key separator {:?}", String::from_utf8_lossy(separator)))?;
        Ok(self.record(Some(line[..at].to_vec()), line[at + separator.len()..].to_vec()))
    }

    fn record(&self, key: Option<Vec<u8>>, value: Vec<u8>) -> ProducerRecord {
        let null = self.command.null.as_deref().map(str::as_bytes);
        let mut record = ProducerRecord::to(&*self.command.topic);
        record.key = key.filter(|key| Some(&key[..]) != null).map(Into::into);
        record.value = Some(value).filter(|value| Some(&value[..]) != null).map(Into::into);
        self.common(record)
    }

    /// What the command line says of every record.
    fn common(&self, mut record: ProducerRecord) -> ProducerRecord {
        if let Some(key) = &self.command.key {
            record.key = Some(key.clone().into());
        }
        for (name, value) in &self.command.header {
            record.headers.push(RecordHeader { key: name.clone().into(), value: Some(value.clone().into()) });
        }
        record.partition = self.command.partition.or(record.partition);
        record.timestamp = self.command.timestamp.or(record.timestamp);
        record
    }

    async fn send(&mut self, record: ProducerRecord) -> Result<()> {
        let len = |part: &Option<bytes::Bytes>| part.as_ref().map_or(0, |part| part.len() as u64);
        self.bytes += len(&record.key) + len(&record.value);
        let delivery = self.producer.send(record).await?;
        self.records += 1;
        self.bar.inc(1);
        self.outstanding.push_back(delivery);
        if self.outstanding.len() > OUTSTANDING_MAX
            && let Some(oldest) = self.outstanding.pop_front()
        {
            self.settle(oldest).await?;
        }
        Ok(())
    }

    async fn settle(&mut self, delivery: Delivery) -> Result<()> {
        match delivery.await {
            Ok(written) if self.command.offsets => {
                let offset = written.offset.map_or("-".to_owned(), |offset| offset.to_string());
                self.out.say(format!("{} {offset}", written.partition))?;
            }
            Ok(_) => {}
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert(error);
            }
        }
        Ok(())
    }
}
