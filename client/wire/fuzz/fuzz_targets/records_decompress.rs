//! Each decompressor, chosen by the first byte; and that what is compressed comes back.
#![no_main]

use corelog_wire::records::{Codecs, Compression, Encoding};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, data)) = data.split_first() else { return };
    let codec = Compression::ALL[usize::from(choice) % Compression::ALL.len()];
    let (mut codecs, mut plain, mut packed) = (Codecs::default(), Vec::new(), Vec::new());
    if codecs.decompress(codec, data, LIMIT, &mut plain).is_ok() {
        assert!(plain.len() <= LIMIT);
    }
    codecs.compress(Encoding::from(codec), data, &mut packed);
    codecs.decompress(codec, &packed, data.len(), &mut plain).expect("what was compressed is decompressed");
    assert_eq!(plain, data);
});
