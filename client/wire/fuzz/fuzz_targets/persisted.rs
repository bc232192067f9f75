#![no_main]
//! Keys and values of the internal logs, and what consumers say to each other.

use bytes::Bytes;
use corelog_wire::consumer_protocol::{self, ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use corelog_wire::coordinator_records::{CoordinatorKey, GroupMetadataValue, OffsetCommitValue, value_from_bytes};
use corelog_wire::metadata_records::MetadataRecord;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, data @ ..] = data else { return };
    let data = Bytes::copy_from_slice(data);
    match kind % 6 {
        0 => {
            if let Ok(key) = CoordinatorKey::from_bytes(data) {
                assert_eq!(CoordinatorKey::from_bytes(key.to_bytes().unwrap()), Ok(key));
            }
        }
        1 => {
            if let Ok(record) = MetadataRecord::from_bytes(data) {
                assert_eq!(MetadataRecord::from_bytes(record.to_bytes().unwrap()), Ok(record));
            }
        }
        2 => drop(value_from_bytes::<OffsetCommitValue>(data)),
        3 => drop(value_from_bytes::<GroupMetadataValue>(data)),
        4 => drop(consumer_protocol::from_bytes::<ConsumerProtocolSubscription>(data)),
        _ => drop(consumer_protocol::from_bytes::<ConsumerProtocolAssignment>(data)),
    }
});
