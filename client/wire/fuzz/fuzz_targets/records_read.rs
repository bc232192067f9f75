//! Bytes of a log or a fetch response: views, records, and conversion for old consumers.
#![no_main]

use bytes::Bytes;
use corelog_wire::records::{
    DownConvertLimits, LegacyFormat, Scratch, down_convert, legacy_messages, split_batches,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    let mut scratch = Scratch::new();
    let mut len = 0;
    for batch in split_batches(&bytes).map_while(Result::ok) {
        len += batch.bytes().len();
        let _ = batch.verify_checksum();
        let Ok(records) = batch.records(&mut scratch, LIMIT) else { continue };
        for record in records.map_while(Result::ok) {
            assert_eq!(record.headers().count(), record.headers().len());
        }
    }
    assert!(len <= bytes.len());
    let limits = DownConvertLimits { bytes_max: LIMIT, decompressed_bytes_max: LIMIT };
    for format in [LegacyFormat::V0, LegacyFormat::V1] {
        let Ok(converted) = down_convert(&bytes, format, 0, limits) else { continue };
        for message in legacy_messages(&converted.records) {
            assert_eq!(message.expect("a whole message").format, format);
        }
    }
    for message in legacy_messages(&bytes) {
        let _ = message.map(|message| message.compression());
    }
});
