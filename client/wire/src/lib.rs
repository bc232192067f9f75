//! Kafka's messages, record batches and compression: bytes in, values out. No I/O.
//!
//! Messages are generated from `schema/` (see its README) into [`messages`]; the envelopes of [`produce`] and [`fetch`] are
//! written by hand, since record batches pass through them by reference. All of them implement [`Message`].

mod api_key;
mod error;
mod error_code;
mod header;
mod leader_hint;
mod reader;
mod string;
mod uuid;
mod writer;

pub mod consumer_protocol;
pub mod coordinator_records;
pub mod fetch;
pub mod frame;
pub mod messages;
pub mod metadata_records;
pub mod produce;
pub mod records;

#[cfg(feature = "testing")]
pub mod testing;

pub use api_key::{API_TABLE, ApiInfo, ApiKey};
pub use error::{DecodeError, DecodeFault, EncodeError};
pub use error_code::ErrorCode;
pub use header::{RequestHeader, ResponseHeader};
pub use messages::{Message, Request, Response};
pub use reader::{EXPANSION, Reader};
pub use string::Str;
pub use uuid::{ParseUuidError, Uuid};
pub use writer::Writer;
