//! What a producer's records must be before a log takes them.
//!
//! The rules are those of Kafka 4.3's `ProduceRequest`, `UnifiedLog` and `LogValidator`, compared with the last of
//! these on some hundred thousand damaged batches. What differs, on purpose:
//!
//! - Refused though Kafka takes them: attribute bits that no producer may set, a transactional batch without producer
//!   id, a negative epoch with one, key and value lengths below -1, and bytes behind the end of an lz4, snappy or gzip
//!   stream.
//! - Offset deltas that are not 0, 1, 2, ... are put right. Kafka stores them as they came, or fails on them with
//!   UNKNOWN_SERVER_ERROR in a compressed batch.
//! - Data that cannot be decompressed is INVALID_RECORD, not UNKNOWN_SERVER_ERROR, so that producers do not retry it.

use bytes::Bytes;

use super::batch::{unknown_codec, verify_checksum};
use super::builder::{BatchBuilder, BatchOptions, BuildError, Producer, seal};
use super::compression::{Codecs, Compression, CompressionError, Encoding, Scratch, with_scratch};
use super::error::BatchError;
use super::header::{
    BATCH_HEADER_LEN, BatchHeader, CLIENT_BITS, LOG_APPEND_TIME_BIT, MAGIC_AT, MAGIC_V2, NO_TIMESTAMP,
    TimestampType,
};
use super::legacy::LegacyError;
use super::record::RecordIter;
use super::up_convert::validate_message_set;

/// `compression.type` of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TopicCompression {
    /// As the producer chose.
    #[default]
    Producer,
    /// Always so; batches that came otherwise are compressed anew. `Compression::None` is `uncompressed`.
    Always(Encoding),
}

/// What one partition's records in one produce request have to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProduceRules {
    /// From 3 on records are exactly one v2 batch; before, message sets of format 0 and 1 are taken as well. From 7
    /// on zstd may be used (KIP-110).
    pub request_version: i16,
    /// The broker's clock, milliseconds since 1970.
    pub now_ms: i64,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms` and `message.timestamp.after.max.ms`.
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    /// Whether `cleanup.policy` holds `compact`, so that every record needs a key.
    pub compacted: bool,
    pub compression: TopicCompression,
    /// `max.message.bytes`: of the whole batch, compressed.
    pub batch_bytes_max: usize,
    /// `segment.bytes`: no batch can be larger than a segment.
    pub segment_bytes_max: usize,
    /// What a batch's records may decompress to. Kafka has no such limit; the default here is what an uncompressed
    /// request may have (`socket.request.max.bytes`).
    pub decompressed_bytes_max: usize,
}

impl ProduceRules {
    /// Kafka's defaults for the configs.
    pub fn new(request_version: i16, now_ms: i64) -> ProduceRules {
        ProduceRules {
            request_version,
            now_ms,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compacted: false,
            compression: TopicCompression::Producer,
            batch_bytes_max: 1_048_588,
            segment_bytes_max: 1 << 30,
            decompressed_bytes_max: 100 << 20,
        }
    }
}

/// First request version whose records are exactly one v2 batch.
const ONE_V2_BATCH_FROM: i16 = 3;
/// First request version that may use zstd.
const ZSTD_FROM: i16 = 7;

/// Records that may be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated {
    /// One v2 batch with base offset 0 and whatever leader epoch the producer wrote: both are set on append. The
    /// very bytes that were checked, unless [`Validated::rewritten`].
    pub batch: Bytes,
    /// As it stands in `batch`.
    pub header: BatchHeader,
    /// Offset delta of the first record with the greatest timestamp.
    pub max_timestamp_offset_delta: i32,
    /// The time given to the records, for the produce response, if the topic uses log append time.
    pub log_append_time_ms: Option<i64>,
    /// Whether `batch` differs from what came: header changed, or records encoded anew.
    pub rewritten: bool,
}

/// One refused record of a batch (KIP-467).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Place of the record in the batch, from 0.
    pub batch_index: i32,
    pub message: String,
}

/// At most this many refused records are listed; the message tells how many there were.
pub const RECORD_ERRORS_MAX: usize = 100;

/// Why records cannot be appended. The text is for the produce response's error message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    #[error("the request has no record batch for the partition")]
    NoBatch,
    #[error(
        "produce requests of version {version} must have exactly one record batch per partition; {bytes} bytes follow it"
    )]
    NotOneBatch { version: i16, bytes: usize },
    #[error("produce requests of version {version} take record batches of magic 2 only, not {found}")]
    Format { version: i16, found: i8 },
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("produce requests of version {version} may not use zstd: it needs version 7 (KIP-110)")]
    ZstdVersion { version: i16 },
    #[error(transparent)]
    MessageSet(#[from] LegacyError),
    #[error("the record batch is {size} bytes, more than the topic's max.message.bytes of {limit}")]
    BatchTooLarge { size: usize, limit: usize },
    #[error("the record batch is {size} bytes, more than the topic's segment.bytes of {limit}")]
    LargerThanSegment { size: usize, limit: usize },
    #[error("the base offset of a produced record batch must be 0, not {found}")]
    BaseOffset { found: i64 },
    #[error("the record batch states {count} records and a last offset delta of {last_offset_delta}")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("the record batch sets attribute bits that clients may not set ({attributes:#06x})")]
    Attributes { attributes: i16 },
    #[error("clients may not write control records")]
    Control,
    #[error(
        "the record batch of producer {producer_id} has epoch {epoch} and base sequence {base_sequence}; neither may be negative"
    )]
    Sequence { producer_id: i64, epoch: i16, base_sequence: i32 },
    #[error("a transactional record batch needs a producer id")]
    TransactionalWithoutProducer,
    #[error("{}", refusal(*timestamps, *total, errors))]
    Records {
        /// Whether a timestamp was among the faults, which decides the error code.
        timestamps: bool,
        total: usize,
        errors: Vec<RecordError>,
    },
}

fn refusal(timestamps: bool, total: usize, errors: &[RecordError]) -> String {
    let what = if timestamps { "invalid timestamps" } else { "invalid records" };
    let first = errors.first().map_or("", |error| error.message.as_str());
    format!("{total} of the batch's records were refused ({what}); the first: {first}")
}

impl ProduceError {
    /// Kafka's error code for it.
    pub fn error_code(&self) -> i16 {
        const CORRUPT_MESSAGE: i16 = 2;
        const MESSAGE_TOO_LARGE: i16 = 10;
        const RECORD_LIST_TOO_LARGE: i16 = 18;
        const INVALID_TIMESTAMP: i16 = 32;
        const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
        const INVALID_RECORD: i16 = 87;
        match self {
            ProduceError::Batch(BatchError::Checksum { .. } | BatchError::Length { .. }) => CORRUPT_MESSAGE,
            // No format has these: bytes were damaged on the way, and a retry may help.
            ProduceError::Format { found, .. } if !(0..=1).contains(found) => CORRUPT_MESSAGE,
            ProduceError::MessageSet(LegacyError::Checksum { .. } | LegacyError::Size { .. }) => {
                CORRUPT_MESSAGE
            }
            ProduceError::Batch(BatchError::Compression(error))
            | ProduceError::MessageSet(LegacyError::Compression(error)) => match error {
                CompressionError::UnknownCodec(_) => UNSUPPORTED_COMPRESSION_TYPE,
                // Producers answer this one by splitting the batch, which is what helps.
                CompressionError::TooLarge { .. } => MESSAGE_TOO_LARGE,
                CompressionError::Corrupt { .. } => INVALID_RECORD,
            },
            ProduceError::BatchTooLarge { .. } => MESSAGE_TOO_LARGE,
            ProduceError::LargerThanSegment { .. } => RECORD_LIST_TOO_LARGE,
            ProduceError::ZstdVersion { .. } => UNSUPPORTED_COMPRESSION_TYPE,
            ProduceError::Records { timestamps: true, .. } => INVALID_TIMESTAMP,
            _ => INVALID_RECORD,
        }
    }

    fn is_decompressed_too_large(&self) -> bool {
        matches!(
            self,
            ProduceError::Batch(BatchError::Compression(CompressionError::TooLarge { .. }))
                | ProduceError::MessageSet(LegacyError::Compression(CompressionError::TooLarge { .. }))
        )
    }

    /// The refused records, for the produce response (version 8 and later).
    pub fn record_errors(&self) -> &[RecordError] {
        match self {
            ProduceError::Records { errors, .. } => errors,
            _ => &[],
        }
    }
}

impl From<CompressionError> for ProduceError {
    fn from(error: CompressionError) -> ProduceError {
        ProduceError::Batch(BatchError::Compression(error))
    }
}

/// Checks `records`, one partition's part of a produce request, and makes of them the batch to append.
///
/// An uncompressed batch that needs no change is walked once, without allocation, and returned as the same bytes. A
/// compressed one is decompressed into the thread's scratch buffer to be checked. Only what the topic's configs
/// demand is written anew.
pub fn validate_produce(records: &Bytes, rules: &ProduceRules) -> Result<Validated, ProduceError> {
    if records.is_empty() {
        return Err(ProduceError::NoBatch);
    }
    match records.get(MAGIC_AT) {
        None => return Err(ProduceError::NoBatch),
        Some(&magic) if magic as i8 == MAGIC_V2 => {}
        Some(&magic) if rules.request_version >= ONE_V2_BATCH_FROM => {
            return Err(ProduceError::Format { version: rules.request_version, found: magic as i8 });
        }
        Some(_) => return with_scratch(|scratch| validate_message_set(records, rules, scratch)),
    }
    let header = BatchHeader::parse(records)?;
    check_frame(&header, records, rules)?;
    check_header(&header, records)?;
    let codec = header.compression().ok_or_else(|| unknown_codec(&header))?;
    let payload = &records[BATCH_HEADER_LEN..];
    with_scratch(|Scratch { plain, codecs }| {
        if codec == Compression::None {
            return finish(records, header, codec, payload, rules, codecs);
        }
        codecs.decompress(codec, payload, rules.decompressed_bytes_max, plain)?;
        finish(records, header, codec, plain, rules, codecs)
    })
}

/// What is checked at once on a thread that has other things to do: so much as it comes, and so much once decompressed.
const SHORT_PLAIN_MAX: usize = 1 << 20;
const SHORT_COMPRESSED_MAX: usize = 256 << 10;

/// As [`validate_produce`], if that takes a millisecond or two at the most. `None` where it may take longer: the batch is
/// large, or is to be compressed anew, or comes to more than [`SHORT_PLAIN_MAX`].
pub fn validate_if_short(records: &Bytes, rules: &ProduceRules) -> Option<Result<Validated, ProduceError>> {
    let codec = match records.get(MAGIC_AT).map(|magic| *magic as i8) {
        Some(MAGIC_V2) => BatchHeader::parse(records).ok().and_then(|header| header.compression()),
        // Of message sets each message has its own.
        Some(_) => None,
        None => Some(Compression::None),
    };
    let stays = match rules.compression {
        TopicCompression::Producer => true,
        TopicCompression::Always(encoding) => {
            codec == Some(encoding.codec) || encoding.codec == Compression::None
        }
    };
    let most = if codec == Some(Compression::None) { SHORT_PLAIN_MAX } else { SHORT_COMPRESSED_MAX };
    if !stays || records.len() > most {
        return None;
    }
    let limit = rules.decompressed_bytes_max;
    let short = ProduceRules { decompressed_bytes_max: limit.min(SHORT_PLAIN_MAX), ..*rules };
    let checked = validate_produce(records, &short);
    let is_cut = checked.as_ref().is_err_and(ProduceError::is_decompressed_too_large);
    (!is_cut || limit <= SHORT_PLAIN_MAX).then_some(checked)
}

/// Exactly one batch, of a permitted codec and size.
fn check_frame(header: &BatchHeader, records: &[u8], rules: &ProduceRules) -> Result<(), ProduceError> {
    let size = header.size();
    if size > records.len() {
        return Err(BatchError::Incomplete { needed: size, present: records.len() }.into());
    }
    let version = rules.request_version;
    if header.compression() == Some(Compression::Zstd) && version < ZSTD_FROM {
        return Err(ProduceError::ZstdVersion { version });
    }
    if size < records.len() {
        // A length that was damaged on the way shows in the checksum.
        verify_checksum(header, &records[..size])?;
        return Err(ProduceError::NotOneBatch { version, bytes: records.len() - size });
    }
    if header.base_offset != 0 {
        return Err(ProduceError::BaseOffset { found: header.base_offset });
    }
    check_size(size, rules)
}

pub(super) fn check_size(size: usize, rules: &ProduceRules) -> Result<(), ProduceError> {
    if size > rules.batch_bytes_max {
        return Err(ProduceError::BatchTooLarge { size, limit: rules.batch_bytes_max });
    }
    if size > rules.segment_bytes_max {
        return Err(ProduceError::LargerThanSegment { size, limit: rules.segment_bytes_max });
    }
    Ok(())
}

fn check_header(header: &BatchHeader, records: &[u8]) -> Result<(), ProduceError> {
    verify_checksum(header, records)?;
    let BatchHeader { records_count: count, last_offset_delta, .. } = *header;
    if count <= 0 || last_offset_delta != count - 1 {
        return Err(ProduceError::Count { count, last_offset_delta });
    }
    if header.attributes & !CLIENT_BITS != 0 {
        return Err(ProduceError::Attributes { attributes: header.attributes });
    }
    if header.is_control() {
        return Err(ProduceError::Control);
    }
    if header.has_producer_id() {
        let BatchHeader { producer_id, producer_epoch: epoch, base_sequence, .. } = *header;
        if epoch < 0 || base_sequence < 0 {
            return Err(ProduceError::Sequence { producer_id, epoch, base_sequence });
        }
    } else if header.is_transactional() {
        return Err(ProduceError::TransactionalWithoutProducer);
    }
    Ok(())
}

/// Checks the records in `plain` and puts together the batch to append.
fn finish(
    records: &Bytes,
    header: BatchHeader,
    codec: Compression,
    plain: &[u8],
    rules: &ProduceRules,
    codecs: &mut Codecs,
) -> Result<Validated, ProduceError> {
    let walk = Walk::over(plain, &header, rules)?;
    let target = match rules.compression {
        TopicCompression::Producer => codec.into(),
        TopicCompression::Always(encoding) => encoding,
    };
    if target.codec != codec || !walk.offsets_consecutive {
        return rebuild(&header, target, plain, &walk, rules, codecs);
    }
    let (attributes, max_timestamp) = match rules.timestamp_type {
        TimestampType::CreateTime => (header.attributes & !LOG_APPEND_TIME_BIT, walk.max_timestamp),
        TimestampType::LogAppendTime => (header.attributes | LOG_APPEND_TIME_BIT, rules.now_ms),
    };
    let unchanged = attributes == header.attributes && max_timestamp == header.max_timestamp;
    let (batch, header) = if unchanged {
        (records.clone(), header)
    } else {
        let mut copy = records.to_vec();
        let header = seal(BatchHeader { attributes, max_timestamp, ..header }, &mut copy);
        (Bytes::from(copy), header)
    };
    Ok(validated(batch, header, walk.max_timestamp_index, !unchanged, rules))
}

pub(super) fn validated(
    batch: Bytes,
    header: BatchHeader,
    max_timestamp_index: i32,
    rewritten: bool,
    rules: &ProduceRules,
) -> Validated {
    let log_append_time_ms = match rules.timestamp_type {
        TimestampType::CreateTime => None,
        TimestampType::LogAppendTime => Some(rules.now_ms),
    };
    // With log append time all records are equally late, so the first one counts.
    let max_timestamp_offset_delta = if log_append_time_ms.is_some() { 0 } else { max_timestamp_index };
    Validated { batch, header, max_timestamp_offset_delta, log_append_time_ms, rewritten }
}

/// Encodes the batch anew: with other compression, or with its offset deltas put right.
fn rebuild(
    header: &BatchHeader,
    encoding: Encoding,
    plain: &[u8],
    walk: &Walk,
    rules: &ProduceRules,
    codecs: &mut Codecs,
) -> Result<Validated, ProduceError> {
    let options = BatchOptions {
        encoding,
        producer: header.has_producer_id().then_some(Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        }),
        transactional: header.is_transactional(),
        ..rebuilt_options(encoding, rules)
    };
    let mut builder = BatchBuilder::with_capacity(options, plain.len());
    for record in RecordIter::new(plain, header.records_count) {
        let record = record?;
        let timestamp = header.timestamp_at(record.timestamp_delta);
        builder.append_record(timestamp, &record).map_err(|error| not_built(error, plain.len(), rules))?;
    }
    finish_built(builder, walk.max_timestamp_index, rules, codecs)
}

/// How any batch that is encoded anew for these rules begins.
pub(super) fn rebuilt_options(encoding: Encoding, rules: &ProduceRules) -> BatchOptions {
    let log_append_time = (rules.timestamp_type == TimestampType::LogAppendTime).then_some(rules.now_ms);
    BatchOptions { encoding, log_append_time, ..BatchOptions::default() }
}

/// Builds, and checks the size again: it is not the one that came.
pub(super) fn finish_built(
    builder: BatchBuilder,
    max_timestamp_index: i32,
    rules: &ProduceRules,
    codecs: &mut Codecs,
) -> Result<Validated, ProduceError> {
    let uncompressed_len = builder.uncompressed_len();
    let batch = builder.build_with(codecs).map_err(|error| not_built(error, uncompressed_len, rules))?;
    check_size(batch.len(), rules)?;
    let header = BatchHeader::parse(&batch)?;
    Ok(validated(batch, header, max_timestamp_index, true, rules))
}

/// Size is all that can stand in the way of building from records that were checked.
pub(super) fn not_built(error: BuildError, size: usize, rules: &ProduceRules) -> ProduceError {
    debug_assert_eq!(error, BuildError::TooLarge);
    ProduceError::BatchTooLarge { size, limit: rules.batch_bytes_max }
}

/// What a walk over a batch's records found.
struct Walk {
    max_timestamp: i64,
    max_timestamp_index: i32,
    /// Whether the offset deltas are 0, 1, 2, ...
    offsets_consecutive: bool,
}

impl Walk {
    fn over(plain: &[u8], header: &BatchHeader, rules: &ProduceRules) -> Result<Walk, ProduceError> {
        let mut walk =
            Walk { max_timestamp: NO_TIMESTAMP, max_timestamp_index: 0, offsets_consecutive: true };
        let mut checks = RecordChecks::new(rules);
        for (index, record) in (0i32..).zip(RecordIter::new(plain, header.records_count)) {
            let record = record?;
            let Some(timestamp) = header.checked_timestamp_at(record.timestamp_delta) else {
                checks.refuse_overflow(index, header.base_timestamp, record.timestamp_delta);
                continue;
            };
            if timestamp > walk.max_timestamp {
                walk.max_timestamp = timestamp;
                walk.max_timestamp_index = index;
            }
            walk.offsets_consecutive &= record.offset_delta == index;
            checks.check(index, record.key.is_some(), timestamp, header.timestamp_type());
        }
        checks.finish()?;
        Ok(walk)
    }
}

/// Checks records one by one and remembers the refused ones.
pub(super) struct RecordChecks<'a> {
    rules: &'a ProduceRules,
    timestamps: bool,
    total: usize,
    errors: Vec<RecordError>,
}

impl<'a> RecordChecks<'a> {
    pub(super) fn new(rules: &'a ProduceRules) -> RecordChecks<'a> {
        RecordChecks { rules, timestamps: false, total: 0, errors: Vec::new() }
    }

    /// Checks a record, by its place in the batch, for key and timestamp; `stamped` is the batch's timestamp type.
    #[inline]
    pub(super) fn check(&mut self, index: i32, has_key: bool, timestamp: i64, stamped: TimestampType) {
        if self.rules.compacted && !has_key {
            return self.refuse_record(index, "a record of a compacted topic needs a key".to_string());
        }
        match self.rules.timestamp_type {
            TimestampType::CreateTime if timestamp != NO_TIMESTAMP => {
                let age = self.rules.now_ms.saturating_sub(timestamp);
                if age > self.rules.timestamp_before_max_ms
                    || age < self.rules.timestamp_after_max_ms.saturating_neg()
                {
                    self.refuse_timestamp(index, timestamp);
                }
            }
            _ if stamped == TimestampType::LogAppendTime => self.refuse_stamped(index),
            _ => {}
        }
    }

    #[cold]
    pub(super) fn refuse_record(&mut self, index: i32, message: String) {
        self.total += 1;
        if self.errors.len() < RECORD_ERRORS_MAX {
            self.errors.push(RecordError { batch_index: index, message });
        }
    }

    #[cold]
    fn refuse_timestamp(&mut self, index: i32, timestamp: i64) {
        self.timestamps = true;
        let earliest = self.rules.now_ms.saturating_sub(self.rules.timestamp_before_max_ms);
        let latest = self.rules.now_ms.saturating_add(self.rules.timestamp_after_max_ms);
        self.refuse_record(
            index,
            format!(
                "timestamp {timestamp} is not within [{earliest}, {latest}]: see the topic's \
                 message.timestamp.before.max.ms and message.timestamp.after.max.ms"
            ),
        );
    }

    /// Whatever the topic's rules: wrapped around it would be a time long before all others.
    #[cold]
    fn refuse_overflow(&mut self, index: i32, base: i64, delta: i64) {
        self.timestamps = true;
        self.refuse_record(
            index,
            format!("base timestamp {base} and timestamp delta {delta} do not fit into 64 bits together"),
        );
    }

    #[cold]
    fn refuse_stamped(&mut self, index: i32) {
        self.timestamps = true;
        self.refuse_record(index, "producers may not set the timestamp type to LogAppendTime".to_string());
    }

    pub(super) fn finish(self) -> Result<(), ProduceError> {
        if self.total == 0 {
            return Ok(());
        }
        let RecordChecks { timestamps, total, errors, .. } = self;
        Err(ProduceError::Records { timestamps, total, errors })
    }
}

#[cfg(test)]
mod tests;
