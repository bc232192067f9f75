//! Message sets of format 0 and 1 from old producers, made into one v2 batch.
//!
//! As Kafka 3 did (Kafka 4 takes such requests no more): the set's messages, unwrapped, become the records of one
//! batch in the wrapper's codec, unless the topic's `compression.type` says another. Messages of format 0 have no
//! timestamp and get -1, or the broker's time on a topic with log append time.

use super::builder::BatchBuilder;
use super::compression::{Compression, CompressionError, Encoding, Scratch};
use super::header::{NO_TIMESTAMP, TimestampType};
use super::legacy::{LegacyError, LegacyFormat, LegacyMessage, legacy_messages};
use super::validate::{
    ProduceError, ProduceRules, RecordChecks, TopicCompression, Validated, check_size, finish_built,
    not_built, rebuilt_options,
};

/// Checks the message set `set` by `rules` and makes one batch of it.
///
/// Offsets in the set are not looked at: producers before KIP-31, and some after, wrote what they liked.
pub(super) fn validate_message_set(
    set: &[u8],
    rules: &ProduceRules,
    scratch: &mut Scratch,
) -> Result<Validated, ProduceError> {
    let Scratch { plain, codecs } = scratch;
    let first = LegacyMessage::parse(set)?;
    // The codec decides how the batch begins, and stands in the last wrapper.
    let mut codec = Compression::None;
    for message in legacy_messages(set) {
        match message?.compression().map_err(LegacyError::from)? {
            Compression::None => {}
            compressed => codec = compressed,
        }
    }
    let encoding = match rules.compression {
        TopicCompression::Producer => Encoding::from(codec),
        TopicCompression::Always(encoding) => encoding,
    };
    let mut conversion = Conversion {
        format: first.format,
        builder: BatchBuilder::with_capacity(rebuilt_options(encoding, rules), set.len()),
        checks: RecordChecks::new(rules),
        rules,
        max_timestamp: NO_TIMESTAMP,
        max_timestamp_index: 0,
        index: 0,
    };
    let mut decompressed_left = rules.decompressed_bytes_max;
    for message in legacy_messages(set) {
        let message = message?;
        check_size(message.len, rules)?;
        let codec = message.compression().map_err(LegacyError::from)?;
        if codec == Compression::None {
            conversion.append(&message, message.timestamp, message.timestamp_type())?;
            continue;
        }
        message.unwrap_into(codec, codecs, decompressed_left, plain).map_err(|error| match error {
            // The limit is for all wrappers of the set together.
            LegacyError::Compression(CompressionError::TooLarge { codec, .. }) => {
                CompressionError::TooLarge { codec, limit: rules.decompressed_bytes_max }.into()
            }
            error => error,
        })?;
        decompressed_left -= plain.len();
        conversion.append_wrapped(&message, plain)?;
    }
    let Conversion { builder, checks, max_timestamp_index, .. } = conversion;
    checks.finish()?;
    finish_built(builder, max_timestamp_index, rules, codecs)
}

struct Conversion<'a> {
    format: LegacyFormat,
    builder: BatchBuilder,
    checks: RecordChecks<'a>,
    rules: &'a ProduceRules,
    max_timestamp: i64,
    max_timestamp_index: i32,
    index: i32,
}

impl Conversion<'_> {
    fn append_wrapped(&mut self, wrapper: &LegacyMessage<'_>, set: &[u8]) -> Result<(), ProduceError> {
        for message in legacy_messages(set) {
            let message = message?;
            if message.compression().map_err(LegacyError::from)? != Compression::None {
                return Err(LegacyError::WrapperNested.into());
            }
            let timestamp = match wrapper.timestamp_type() {
                TimestampType::CreateTime => message.timestamp,
                TimestampType::LogAppendTime => wrapper.timestamp,
            };
            self.append(&message, timestamp, wrapper.timestamp_type())?;
        }
        Ok(())
    }

    fn append(
        &mut self,
        message: &LegacyMessage<'_>,
        timestamp: i64,
        stamped: TimestampType,
    ) -> Result<(), ProduceError> {
        if message.format != self.format {
            return Err(
                LegacyError::Magic { found: message.format.magic(), expected: self.format.magic() }.into()
            );
        }
        self.checks.check(self.index, message.key.is_some(), timestamp, stamped);
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.max_timestamp_index = self.index;
        }
        self.index += 1;
        self.builder
            .append(timestamp, message.key, message.value, &[])
            .map_err(|error| not_built(error, self.builder.uncompressed_len(), self.rules))
    }
}

#[cfg(test)]
mod tests;
