#![no_main]
//! Every message in every version.

use bytes::Bytes;
use corelog_wire::testing::CASES;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [case, version, body @ ..] = data else { return };
    let case = CASES[usize::from(*case) % CASES.len()];
    let version = case.min_version + i16::from(*version) % (case.max_version - case.min_version + 1);
    let body = Bytes::copy_from_slice(body);

    let recoded = (case.recode)(body.clone(), version);
    assert_eq!(recoded.is_ok(), (case.decode_generated)(body, version).is_ok(), "{} v{version}", case.name);
    if let Ok(once) = recoded {
        let once = once.expect("what was decoded can be encoded");
        let twice = (case.recode)(once.clone(), version).expect("what was encoded can be decoded");
        assert_eq!(twice, Ok(once), "{} v{version}", case.name);
    }
});
