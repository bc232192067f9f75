//! What a dump shows, and what it finds wrong.

use crate::record_json::put;
use crate::time;
use anyhow::Result;
use bytes::Bytes;
use corelog_wire::records::{
    BatchError, BatchHeader, BatchView, Compression, Record, RecordIter, TimestampType, with_scratch,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;

/// What the records of one batch may decompress to.
const BATCH_BYTES_MAX: usize = 256 << 20;

pub struct Report {
    json: bool,
    shows: bool,
    records: bool,
    deep: bool,
    from: i64,
    until: i64,
    out: BufWriter<StdoutLock<'static>>,
    bar: ProgressBar,
    problems: u64,
    batches: u64,
    records_seen: u64,
    bytes: u64,
}

impl Report {
    pub fn new(
        json: bool,
        shows: bool,
        records: bool,
        deep: bool,
        from: Option<i64>,
        until: Option<i64>,
    ) -> Report {
        Report {
            json,
            shows,
            records,
            deep,
            from: from.unwrap_or(i64::MIN),
            until: until.unwrap_or(i64::MAX),
            out: BufWriter::new(io::stdout().lock()),
            bar: ProgressBar::hidden(),
            problems: 0,
            batches: 0,
            records_seen: 0,
            bytes: 0,
        }
    }

    /// Shows progress over so many bytes, where nothing else is shown and a person looks.
    pub fn expect_bytes(&mut self, bytes: u64) {
        if self.shows || !io::stderr().is_terminal() {
            return;
        }
        let template = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
        self.bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(5));
        self.bar.set_style(ProgressStyle::with_template(template).expect("a constant"));
    }

    pub fn shows(&self) -> bool {
        self.shows
    }

    /// What follows is about this; `fields` are for programs.
    pub fn heading(&mut self, text: &str, kind: &str, fields: Value) -> Result<()> {
        match (self.shows, self.json) {
            (false, _) => Ok(()),
            (true, false) => Ok(writeln!(self.out, "{text}")?),
            (true, true) => self.object(kind, fields),
        }
    }

    /// A line below a heading.
    pub fn line(&mut self, text: &str, kind: &str, fields: Value) -> Result<()> {
        self.heading(&format!("  {text}"), kind, fields)
    }

    fn object(&mut self, kind: &str, fields: Value) -> Result<()> {
        let mut object = Map::from_iter([("kind".to_owned(), json!(kind))]);
        if let Value::Object(fields) = fields {
            object.extend(fields);
        }
        serde_json::to_writer(&mut self.out, &Value::Object(object)).map_err(io::Error::from)?;
        Ok(self.out.write_all(b"\n")?)
    }

    /// Something is wrong; the dump goes on.
    pub fn problem(&mut self, path: &Path, position: u64, what: impl Into<String>) -> Result<()> {
        self.problems += 1;
        let what = what.into();
        match self.json {
            true => self.object("problem", json!({"path": path, "position": position, "problem": what})),
            false => Ok(writeln!(self.out, "PROBLEM {} at byte {position}: {what}", path.display())?),
        }
    }

    /// Counts, checks and shows a batch.
    pub fn batch(&mut self, path: &Path, position: u64, raft_index: u64, batch: &BatchView) -> Result<()> {
        let header = *batch.header();
        self.batches += 1;
        self.records_seen += u64::try_from(header.records_count).unwrap_or(0);
        self.bytes += batch.bytes().len() as u64;
        self.bar.inc(batch.bytes().len() as u64);
        let checked = batch.verify_checksum();
        let sound = checked.is_ok();
        let visible = header.next_offset() > self.from && header.base_offset < self.until;
        if self.shows && visible {
            let (text, fields) = described(position, raft_index, batch, sound);
            self.line(&text, "batch", fields)?;
        }
        if let Err(error) = checked {
            return self.problem(path, position, format!("offset {}: {error}", header.base_offset));
        }
        if self.deep
            && !header.is_internal()
            && let Err(error) = self.each_record(batch, visible)?
        {
            return self.problem(path, position, format!("offset {}: {error}", header.base_offset));
        }
        Ok(())
    }

    fn each_record(&mut self, batch: &BatchView, visible: bool) -> Result<Result<(), BatchError>> {
        let header = *batch.header();
        let plain = match plain(batch) {
            Ok(plain) => plain,
            Err(error) => return Ok(Err(error)),
        };
        for record in RecordIter::new(&plain, header.records_count) {
            let record = match record {
                Ok(record) => record,
                Err(error) => return Ok(Err(error)),
            };
            let offset = header.base_offset.wrapping_add(i64::from(record.offset_delta));
            if self.shows && self.records && visible && (self.from..self.until).contains(&offset) {
                self.record(&header, offset, &record, &plain)?;
            }
        }
        Ok(Ok(()))
    }

    fn record(&mut self, header: &BatchHeader, offset: i64, record: &Record, plain: &Bytes) -> Result<()> {
        let timestamp = header.timestamp_at(record.timestamp_delta);
        let share = |part: &[u8]| plain.slice_ref(part);
        let headers = record.headers().map(|header| {
            let mut object = Map::new();
            put(&mut object, "key", &Some(share(header.key)));
            put(&mut object, "value", &header.value.map(share));
            Value::Object(object)
        });
        let headers: Vec<Value> = headers.collect();
        if self.json {
            let mut object = Map::from_iter([
                ("offset".to_owned(), json!(offset)),
                ("timestamp".to_owned(), json!(timestamp)),
                ("headers".to_owned(), json!(headers)),
            ]);
            put(&mut object, "key", &record.key.map(share));
            put(&mut object, "value", &record.value.map(share));
            return self.object("record", Value::Object(object));
        }
        let text = |part: Option<&[u8]>| {
            part.map_or("null".to_owned(), |part| format!("{:?}", String::from_utf8_lossy(part)))
        };
        let mut line =
            format!("{offset} {} {} {}", time::shown(timestamp), text(record.key), text(record.value));
        if !headers.is_empty() {
            line += &format!(" {}", Value::Array(headers));
        }
        Ok(writeln!(self.out, "      {line}")?)
    }

    /// The last words; the exit code tells whether anything was wrong.
    pub fn finish(mut self) -> Result<ExitCode> {
        self.bar.finish_and_clear();
        let (batches, records, bytes, problems) =
            (self.batches, self.records_seen, self.bytes, self.problems);
        if self.json {
            let depth = if self.deep { "records" } else { "batches" };
            let fields = json!({"batches": batches, "records": records, "bytes": bytes, "problems": problems, "checked": depth});
            self.object("summary", fields)?;
        } else {
            let checked = if self.deep {
                "every record checked"
            } else {
                "checksums checked; --deep checks every record"
            };
            let found = match problems {
                0 => "nothing wrong".to_owned(),
                count => format!("{count} PROBLEM(S)"),
            };
            writeln!(self.out, "{batches} batches, {records} records, {bytes} bytes: {found} ({checked})")?;
        }
        self.finish_quietly()
    }

    pub fn finish_quietly(mut self) -> Result<ExitCode> {
        self.out.flush()?;
        Ok(if self.problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// The records of a batch as bytes that can be shared.
pub fn plain(batch: &BatchView) -> Result<Bytes, BatchError> {
    let header = batch.header();
    let unknown = || corelog_wire::records::CompressionError::UnknownCodec((header.attributes & 7) as u8);
    let codec = header.compression().ok_or_else(unknown)?;
    if codec == Compression::None {
        return Ok(batch.bytes().slice_ref(batch.payload()));
    }
    let mut plain = Vec::new();
    with_scratch(|scratch| scratch.codecs.decompress(codec, batch.payload(), BATCH_BYTES_MAX, &mut plain))?;
    Ok(plain.into())
}

fn described(position: u64, raft_index: u64, batch: &BatchView, sound: bool) -> (String, Value) {
    let header = batch.header();
    let size = batch.bytes().len();
    let flags = [
        (header.is_internal(), "internal"),
        (header.is_control(), "control"),
        (header.is_transactional(), "transactional"),
        (header.timestamp_type() == TimestampType::LogAppendTime, "append-time"),
        (header.delete_horizon_ms().is_some(), "delete-horizon"),
        (!sound, "DAMAGED"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
    let codec = header.compression().map_or("?", Compression::name);
    let fields = json!({
        "position": position,
        "raft_index": raft_index,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset(),
        "records": header.records_count,
        "leader_epoch": header.partition_leader_epoch,
        "size": size,
        "codec": codec,
        "base_timestamp": header.base_timestamp,
        "max_timestamp": header.max_timestamp,
        "producer_id": header.producer_id,
        "producer_epoch": header.producer_epoch,
        "base_sequence": header.base_sequence,
        "crc": header.crc,
        "sound": sound,
        "flags": flags,
    });
    let offsets = match header.is_internal() {
        true => "internal".to_owned(),
        false => format!("{}-{}", header.base_offset, header.last_offset()),
    };
    let mut text = format!(
        "{position:>10}  offsets {offsets:<19} index {raft_index:<8} epoch {:<3} {:>6} records {size:>8} bytes  {codec:<6} {}",
        header.partition_leader_epoch,
        header.records_count,
        time::shown(header.max_timestamp),
    );
    if header.has_producer_id() {
        text += &format!("  producer {}/{}", header.producer_id, header.producer_epoch);
        if let Some(last) = header.last_sequence() {
            text += &format!(" sequence {}-{last}", header.base_sequence);
        }
    }
    if !flags.is_empty() {
        text += &format!("  {}", flags.join(" "));
    }
    (text, fields)
}
