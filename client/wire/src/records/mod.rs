//! Record batches (KIP-98): views in place, building, checking what producers send, and the older message formats.

mod batch;
mod builder;
mod compression;
mod down_convert;
mod error;
mod header;
mod legacy;
mod record;
mod up_convert;
mod validate;
mod varint;

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod testdata;

pub use batch::{BatchView, SplitBatches, split_batches};
pub use builder::{BatchBuilder, BatchOptions, BuildError, Producer, internal_batch};
pub use compression::{Codecs, Compression, CompressionError, Encoding, Scratch, with_scratch};
pub use down_convert::{DownConvertError, DownConvertLimits, DownConverted, down_convert};
pub use error::{BatchError, RecordFault};
pub use header::*;
pub use legacy::{LegacyError, LegacyFormat, LegacyMessage, LegacyMessages, legacy_messages};
pub use record::{Header, Headers, RECORD_LEN_MIN, Record, RecordIter};
pub use validate::{
    ProduceError, ProduceRules, RecordError, TopicCompression, Validated, validate_if_short, validate_produce,
};
