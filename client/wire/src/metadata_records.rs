//! The records of the controller's log, in Kafka's own schemas and framing: `framed.rs`.

use crate::framed::framed_records;

include!(concat!(env!("OUT_DIR"), "/metadata_records.rs"));

framed_records!(
    MetadataRecord: TopicRecord PartitionRecord PartitionChangeRecord ConfigRecord RemoveTopicRecord ProducerIdsRecord
    FeatureLevelRecord RegisterBrokerRecord UnregisterBrokerRecord
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DecodeFault, Str, Uuid};
    use bytes::Bytes;

    /// The bytes are those that Kafka 4.3.1 writes for the same values.
    #[test]
    fn records_in_kafkas_bytes() {
        let topic_id = Uuid::from_halves(1, 2);
        let cases: [(MetadataRecord, &[u8]); 4] = [
            (
                TopicRecord { name: Str::from("foo"), topic_id }.into(),
                b"\x01\x02\0\x04foo\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0",
            ),
            (
                PartitionRecord {
                    partition_id: 1,
                    topic_id,
                    replicas: vec![1],
                    isr: vec![1],
                    leader: 1,
                    leader_recovery_state: 1,
                    leader_epoch: 3,
                    partition_epoch: 4,
                    directories: vec![Uuid::from_halves(5, 6)],
                    ..Default::default()
                }
                .into(),
                b"\x01\x03\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\x02\0\0\0\x01\x02\0\0\0\x01\x01\x01\
                  \0\0\0\x01\0\0\0\x03\0\0\0\x04\x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x06\x01\0\x01\x01",
            ),
            (
                PartitionChangeRecord {
                    partition_id: 1,
                    topic_id,
                    isr: Some(vec![2]),
                    leader: 2,
                    ..Default::default()
                }
                .into(),
                b"\x01\x05\x02\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\
                  \x02\0\x05\x02\0\0\0\x02\x01\x04\0\0\0\x02",
            ),
            (
                ConfigRecord { resource_type: 2, resource_name: Str::from("foo"), name: Str::from("k"), value: None }.into(),
                b"\x01\x04\0\x02\x04foo\x02k\0\0",
            ),
        ];
        for (record, bytes) in cases {
            assert_eq!(record.to_bytes().unwrap(), bytes, "{record:?}");
            assert_eq!(MetadataRecord::from_bytes(Bytes::from_static(bytes)), Ok(record));
        }
    }

    #[test]
    fn unknown_frames_kinds_and_versions_are_refused() {
        for (bytes, fault) in [
            (&b"\x02\x02\x00"[..], DecodeFault::UnknownKey(2)),
            (b"\x01\x63\x00", DecodeFault::UnknownKey(99)),
            (b"\x01\xff\xff\xff\xff\x0f\x00", DecodeFault::UnknownKey(u32::MAX.into())),
            (b"\x01\x02\x09", DecodeFault::UnknownVersion { version: 9, known: 0..=0 }),
        ] {
            assert_eq!(MetadataRecord::from_bytes(Bytes::from_static(bytes)).unwrap_err().fault, fault);
        }
    }
}
