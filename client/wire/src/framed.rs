//! Records of several kinds in one place, as Kafka's controller frames them: variable-length integers for the version of the
//! frame (1), the type of the record and its version, then the record.

use crate::{DecodeError, DecodeFault, Reader};

pub(crate) const FRAME_VERSION: u32 = 1;

/// An enum of these records, each with a `RECORD_KEY`, and its codec.
macro_rules! framed_records {
    ($name:ident: $($kind:ident)*) => {
        #[derive(Clone, Debug, PartialEq)]
        pub enum $name {
            $($kind($kind),)*
        }

        $(impl From<$kind> for $name {
            fn from(record: $kind) -> Self {
                $name::$kind(record)
            }
        })*

        impl $name {
            /// Types that are not known here are [`DecodeFault::UnknownKey`](crate::DecodeFault::UnknownKey).
            pub fn from_bytes(bytes: bytes::Bytes) -> Result<Self, crate::DecodeError> {
                use crate::messages::Message as _;
                let mut r = crate::Reader::new(bytes);
                let (kind, version) = crate::framed::read_frame(&mut r)?;
                let record = match kind {
                    $($kind::RECORD_KEY => $name::$kind($kind::decode(&mut r, version)?),)*
                    _ => return Err(crate::framed::unknown(&r, kind)),
                };
                r.finish(stringify!($name))?;
                Ok(record)
            }

            /// In the newest version of the record.
            pub fn to_bytes(&self) -> Result<bytes::Bytes, crate::EncodeError> {
                use crate::messages::Message as _;
                let mut w = crate::Writer::new();
                w.uvarint(crate::framed::FRAME_VERSION);
                match self {
                    $($name::$kind(record) => {
                        w.uvarint($kind::RECORD_KEY as u32);
                        w.uvarint($kind::MAX_VERSION as u32);
                        record.encode(&mut w, $kind::MAX_VERSION)?;
                    })*
                }
                Ok(w.into_bytes())
            }
        }
    };
}
pub(crate) use framed_records;

/// The record's type and version.
pub(crate) fn read_frame(r: &mut Reader) -> Result<(i16, i16), DecodeError> {
    let frame = r.uvarint("frame_version")?;
    if frame != FRAME_VERSION {
        return Err(r.fault("frame_version", DecodeFault::UnknownKey(frame.into())));
    }
    let mut small = |field| {
        let value = r.uvarint(field)?;
        i16::try_from(value).map_err(|_| r.fault(field, DecodeFault::UnknownKey(value.into())))
    };
    Ok((small("kind")?, small("version")?))
}

pub(crate) fn unknown(r: &Reader, kind: i16) -> DecodeError {
    r.fault("kind", DecodeFault::UnknownKey(kind.into()))
}
