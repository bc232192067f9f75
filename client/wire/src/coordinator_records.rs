//! What `__consumer_offsets` holds: keys and values of its records, in Kafka's own schemas.
//!
//! A key begins with two bytes that say what kind of record it is; a value begins with two bytes of schema version.

use crate::messages::Message;
use crate::{DecodeError, DecodeFault, EncodeError, Reader, Writer};
use bytes::Bytes;

include!(concat!(env!("OUT_DIR"), "/coordinator_records.rs"));

/// Offset commits were once written with this kind too; the keys are the same.
const LEGACY_OFFSET_COMMIT_KEY: i16 = 0;

/// The key of a record in `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq)]
pub enum CoordinatorKey {
    OffsetCommit(OffsetCommitKey),
    GroupMetadata(GroupMetadataKey),
}

impl CoordinatorKey {
    /// Kinds that are not known here (those of KIP-848 and later) are [`DecodeFault::UnknownKey`], for the caller to skip.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        let key = match r.i16("CoordinatorKey.kind")? {
            LEGACY_OFFSET_COMMIT_KEY | OffsetCommitKey::RECORD_KEY => {
                CoordinatorKey::OffsetCommit(OffsetCommitKey::decode(&mut r, 0)?)
            }
            GroupMetadataKey::RECORD_KEY => {
                CoordinatorKey::GroupMetadata(GroupMetadataKey::decode(&mut r, 0)?)
            }
            kind => return Err(r.fault("CoordinatorKey.kind", DecodeFault::UnknownKey(kind.into()))),
        };
        r.finish("CoordinatorKey")?;
        Ok(key)
    }

    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        let mut w = Writer::new();
        match self {
            CoordinatorKey::OffsetCommit(key) => {
                w.i16(OffsetCommitKey::RECORD_KEY);
                key.encode(&mut w, 0)?;
            }
            CoordinatorKey::GroupMetadata(key) => {
                w.i16(GroupMetadataKey::RECORD_KEY);
                key.encode(&mut w, 0)?;
            }
        }
        Ok(w.into_bytes())
    }
}

/// A value, after its two bytes of version.
pub fn value_from_bytes<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut r = Reader::new(bytes);
    let version = r.i16(M::NAME)?;
    let value = M::decode(&mut r, version)?;
    r.finish(M::NAME)?;
    Ok(value)
}

/// A value with its two bytes of version before it.
pub fn value_to_bytes<M: Message>(value: &M, version: i16) -> Result<Bytes, EncodeError> {
    let mut w = Writer::new();
    w.i16(version);
    value.encode(&mut w, version)?;
    Ok(w.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Str;

    #[test]
    fn keys_in_kafkas_bytes() {
        let key = CoordinatorKey::OffsetCommit(OffsetCommitKey {
            group: Str::from("g"),
            topic: Str::from("t"),
            partition: 3,
        });
        let bytes = key.to_bytes().unwrap();
        assert_eq!(&bytes[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
        assert_eq!(CoordinatorKey::from_bytes(bytes), Ok(key.clone()));
        assert_eq!(CoordinatorKey::from_bytes(Bytes::from_static(b"\0\0\0\x01g\0\x01t\0\0\0\x03")), Ok(key));

        let key = CoordinatorKey::GroupMetadata(GroupMetadataKey { group: Str::from("g") });
        let bytes = key.to_bytes().unwrap();
        assert_eq!(&bytes[..], b"\0\x02\0\x01g");
        assert_eq!(CoordinatorKey::from_bytes(bytes), Ok(key));
    }

    #[test]
    fn other_kinds_are_told_apart_from_damage() {
        let error = CoordinatorKey::from_bytes(Bytes::from_static(b"\0\x03\0\x01g")).unwrap_err();
        assert_eq!(error.fault, DecodeFault::UnknownKey(3));
    }

    /// The bytes are those that Kafka 4.3.1 writes for the same values.
    #[test]
    fn values_in_kafkas_bytes() {
        let commit = OffsetCommitValue {
            offset: 9,
            metadata: Str::from("m"),
            commit_timestamp: 5,
            leader_epoch: 2,
            ..Default::default()
        };
        let bytes = Bytes::from_static(b"\0\x03\0\0\0\0\0\0\0\x09\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x05");
        assert_eq!(value_to_bytes(&commit, 3).unwrap(), bytes);
        assert_eq!(value_from_bytes(bytes), Ok(commit));

        let group = GroupMetadataValue {
            protocol_type: Str::from("consumer"),
            generation: 2,
            protocol: Some(Str::from("range")),
            leader: Some(Str::from("l")),
            current_state_timestamp: 7,
            ..Default::default()
        };
        let bytes =
            Bytes::from_static(b"\0\x03\0\x08consumer\0\0\0\x02\0\x05range\0\x01l\0\0\0\0\0\0\0\x07\0\0\0\0");
        assert_eq!(value_to_bytes(&group, 3).unwrap(), bytes);
        assert_eq!(value_from_bytes(bytes), Ok(group));
    }

    #[test]
    fn values_carry_their_version() {
        let value = OffsetCommitValue {
            offset: 9,
            metadata: Str::from("m"),
            commit_timestamp: 5,
            ..Default::default()
        };
        for version in OffsetCommitValue::VERSIONS {
            let bytes = value_to_bytes(&value, version).unwrap();
            assert_eq!(bytes[..2], version.to_be_bytes());
            assert_eq!(value_from_bytes(bytes), Ok(value.clone()));
        }
        assert!(value_from_bytes::<OffsetCommitValue>(Bytes::from_static(b"\0\x05")).is_err());
    }
}
