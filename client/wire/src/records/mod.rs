//! Record batches (KIP-98): views in place, building, checking what producers send, and the older message formats.

mod batch;
mod builder;
mod compression;
mod error;
mod header;
mod record;
mod validate;
mod varint;

#[cfg(test)]
mod oracle;

pub use batch::{BatchView, SplitBatches, split_batches};
pub use builder::{BatchBuilder, BatchOptions, BuildError, Producer, internal_batch};
pub use compression::{Codecs, Compression, CompressionError, Encoding, Scratch, with_scratch};
pub use error::{BatchError, RecordFault};
pub use header::*;
pub use record::{Header, Headers, RECORD_LEN_MIN, Record, RecordIter};
pub use validate::{ProduceError, ProduceRules, RecordError, TopicCompression, Validated, validate_produce};
