//! Counts heap allocations on the produce path: a batch that needs no change must pass without any.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use corelog_wire::records::{BatchBuilder, BatchOptions, Compression, ProduceRules, validate_produce};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn batch(codec: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { encoding: codec.into(), ..Default::default() });
    let value: Vec<u8> = (0..1000u32).flat_map(|i| format!("{i} ").into_bytes()).take(1000).collect();
    for index in 0..100 {
        builder.append(1_000 + index, Some(b"key"), Some(&value), &[]).unwrap();
    }
    // As a slice of a larger frame, as requests come: a lone `Bytes` allocates when it is first shared.
    let batch = builder.build().unwrap();
    let frame: Bytes = [&[0; 20], &batch[..]].concat().into();
    frame.slice(20..)
}

fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

#[test]
fn a_batch_that_needs_no_change_is_validated_without_allocation() {
    let rules = ProduceRules::new(9, 2_000);
    // gzip is absent: its decoder sets up its state for every stream.
    for codec in [Compression::None, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut made = Bytes::new();
        assert!(allocations(|| made = batch(codec)) > 0, "the counter counts");
        let validate = || assert!(!validate_produce(&made, &rules).unwrap().rewritten);
        // The first use gives the thread's scratch its room.
        validate();
        assert_eq!(allocations(validate), 0, "{codec}");
    }
}
