#![no_main]
//! Request frames as a broker meets them.

use bytes::Bytes;
use corelog_wire::testing::{CASES, Role};
use corelog_wire::{ApiKey, Reader, RequestHeader, Writer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut r = Reader::new(Bytes::copy_from_slice(data));
    let Ok(header) = RequestHeader::decode(&mut r) else { return };
    let mut w = Writer::new();
    header.encode(&mut w).expect("what was decoded can be encoded");
    assert_eq!(RequestHeader::decode(&mut Reader::new(w.into_bytes())), Ok(header.clone()));

    let Some(key) = ApiKey::from_i16(header.api_key) else { return };
    if let Some(case) = CASES.iter().find(|case| case.role == Role::Request(key)) {
        let _ = (case.decode)(r.rest(), header.api_version);
    }
});
