//! Requests and responses, generated from `schema/`: a module per message with its structs, and the message itself here.
//!
//! Every struct has all fields of all versions, public, named as Kafka names them, in snake case; `Default` gives the schema's
//! defaults. Decoding sets the fields that a version lacks to their defaults; encoding drops them if the schema calls them ignorable
//! and refuses otherwise, unless they have their default.
//!
//! A field that may be null is an `Option`, and starts out `None` (tagged fields keep Kafka's own default).

use crate::{ApiKey, DecodeError, EncodeError, Reader, Writer};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// A value with a versioned form on the wire.
pub trait Message: Sized {
    const NAME: &'static str;
    const MIN_VERSION: i16;
    const MAX_VERSION: i16;
    const FIRST_FLEXIBLE: Option<i16>;
    const VERSIONS: RangeInclusive<i16> = Self::MIN_VERSION..=Self::MAX_VERSION;

    /// Whether this version has compact lengths and tagged fields (KIP-482).
    fn flexible(version: i16) -> bool {
        Self::FIRST_FLEXIBLE.is_some_and(|first| version >= first)
    }

    /// Takes one message off the reader. What follows it is left there.
    fn decode(r: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Appends the message. After an error the writer holds a part of it and is of no more use.
    fn encode(&self, w: &mut Writer, version: i16) -> Result<(), EncodeError>;

    /// Decodes bytes that hold this message and nothing else.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let message = Self::decode(&mut r, version)?;
        r.finish(Self::NAME)?;
        Ok(message)
    }

    /// The message in one piece, without header and length.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = Writer::new();
        self.encode(&mut w, version)?;
        Ok(w.into_bytes())
    }
}

pub trait Request: Message {
    const API_KEY: ApiKey;
    type Response: Response;
}

pub trait Response: Message {
    const API_KEY: ApiKey;

    /// Calls `visit` with every error code that the response bears, for the whole or for a part.
    fn each_error(&self, visit: &mut dyn FnMut(i16));
}

/// What generated modules use.
pub(crate) mod codegen {
    pub(crate) use super::{Message, Request, Response};
    pub(crate) use crate::reader::smallest;
    #[cfg(feature = "testing")]
    pub(crate) use crate::testing::{Arbitrary, Gen};
    pub(crate) use crate::{ApiKey, DecodeError, EncodeError, Reader, Str, Uuid, Writer};
    pub(crate) use bytes::Bytes;
}

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
