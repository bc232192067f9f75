//! Kafka's messages, record batches and compression: bytes in, values out. No I/O.
//!
//! Messages are generated from `schema/` (see its README) into [`messages`]; the envelopes of [`produce`] and [`fetch`] are
//! written by hand, since record batches pass through them by reference. All of them implement [`Message`].
//!
//! ```
//! use corelog_wire::messages::{MetadataRequest, MetadataResponse, metadata_response::Broker};
//! use corelog_wire::{ApiKey, Message, Reader, RequestHeader, frame};
//!
//! // A client asks: parts for a vectored write, the four bytes of length first.
//! let parts = frame::request(&MetadataRequest::default(), 9, 7, None).unwrap();
//!
//! // A broker reads the frame, and decodes the body once it knows what was asked for.
//! let mut r = Reader::new(parts.concat().split_off(4).into());
//! let header = RequestHeader::decode(&mut r).unwrap();
//! assert_eq!(ApiKey::from_i16(header.api_key), Some(ApiKey::Metadata));
//! let request = MetadataRequest::decode(&mut r, header.api_version).unwrap();
//! r.finish("MetadataRequest").unwrap();
//! assert_eq!(request.topics, None);
//!
//! // It answers.
//! let brokers = vec![Broker { node_id: 1, host: "localhost".into(), port: 9092, ..Default::default() }];
//! let answer = MetadataResponse { brokers, ..Default::default() };
//! let parts = frame::response(&answer, header.api_version, header.correlation_id).unwrap();
//! # let frame = parts.concat().split_off(4).into();
//! # let (header, decoded) = frame::decode_response::<MetadataResponse>(frame, 9).unwrap();
//! # assert_eq!((header.correlation_id, decoded), (7, answer));
//! ```

mod api_key;
mod error;
mod error_code;
mod framed;
mod header;
mod leader_hint;
mod reader;
mod string;
mod uuid;
mod writer;

pub mod broker_calls;
pub mod cluster_changes;
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
