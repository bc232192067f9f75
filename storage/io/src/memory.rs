//! Memory the disk can write from: aligned buffers, and blocks that are both the write source and the tail cache.
//!
//! Both are plain heap memory at 4 KiB alignment, as O_DIRECT wants it. An [`AlignedBuf`] has one owner until it is
//! frozen. A [`Block`] is filled by one writer while slices of what is already written go to readers on any core:
//! the writer only ever touches bytes that no slice covers.

use bytes::Bytes;
use std::alloc::{self, Layout};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::sync::Arc;

/// Alignment of memory, position and length for direct I/O, in bytes.
pub const ALIGN: usize = 4096;

/// Whether `n` is a multiple of [`ALIGN`].
pub const fn is_aligned(n: u64) -> bool {
    n.is_multiple_of(ALIGN as u64)
}

/// Sizes that a [`Pool`] keeps: this many bytes, and twice, four times ... as much.
const POOLED_MIN: usize = 64 << 10;
const POOLED_SIZES: usize = 5;
const POOLED_MAX: usize = POOLED_MIN << (POOLED_SIZES - 1);
/// Most bytes a core keeps for its next allocations.
const POOL_BYTES_MAX: usize = 16 << 20;

/// Large pieces of memory that were freed on this core, for its next allocations. The journal's blocks and the
/// flusher's buffers come and go by the megabyte; from the allocator each would be fresh pages, which the kernel clears
/// one fault at a time.
#[derive(Default)]
struct Pool {
    free: [Vec<NonNull<u8>>; POOLED_SIZES],
    bytes: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

impl Pool {
    /// The size that `capacity` bytes take, and its place; `None` for sizes that are not pooled.
    fn size(capacity: usize) -> Option<(usize, usize)> {
        let size = capacity.next_power_of_two();
        (POOLED_MIN..=POOLED_MAX)
            .contains(&size)
            .then(|| (size, (size / POOLED_MIN).trailing_zeros() as usize))
    }

    fn take(capacity: usize) -> Option<NonNull<u8>> {
        let (size, place) = Pool::size(capacity)?;
        let pool = |pool: &RefCell<Pool>| {
            let pool = &mut *pool.borrow_mut();
            let ptr = pool.free[place].pop()?;
            pool.bytes -= size;
            Some(ptr)
        };
        POOL.try_with(pool).ok().flatten()
    }

    /// Whether it was taken.
    fn give(ptr: NonNull<u8>, capacity: usize) -> bool {
        let Some((size, place)) = Pool::size(capacity) else { return false };
        let pool = |pool: &RefCell<Pool>| {
            let pool = &mut *pool.borrow_mut();
            let taken = pool.bytes + size <= POOL_BYTES_MAX;
            if taken {
                pool.free[place].push(ptr);
                pool.bytes += size;
            }
            taken
        };
        POOL.try_with(pool).unwrap_or(false)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for (place, free) in self.free.iter().enumerate() {
            for ptr in free {
                // SAFETY: allocated with this layout in `Memory::allocate`, and nobody else's.
                unsafe { alloc::dealloc(ptr.as_ptr(), Memory::layout(POOLED_MIN << place)) }
            }
        }
    }
}

/// Heap memory at [`ALIGN`], of a fixed size.
struct Memory {
    ptr: NonNull<u8>,
    capacity: usize,
}

// The memory is owned; who may write which bytes is the owner's affair (see AlignedBuf and Block).
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// What is allocated for `capacity` bytes.
    fn layout(capacity: usize) -> Layout {
        let size = Pool::size(capacity).map_or(capacity, |(size, _)| size);
        // Fails only above isize::MAX, which no caller can mean.
        Layout::from_size_align(size, ALIGN).expect("buffer size exceeds the address space")
    }

    fn allocate(capacity: usize, zeroed: bool) -> Memory {
        if capacity == 0 {
            return Memory {
                ptr: NonNull::without_provenance(const { std::num::NonZero::new(ALIGN).unwrap() }),
                capacity,
            };
        }
        if let Some(ptr) = Pool::take(capacity) {
            if zeroed {
                // SAFETY: a pooled piece has at least `capacity` bytes, and is nobody else's.
                unsafe { ptr.as_ptr().write_bytes(0, capacity) };
            }
            return Memory { ptr, capacity };
        }
        let layout = Memory::layout(capacity);
        // SAFETY: the layout's size is not zero.
        let ptr = unsafe { if zeroed { alloc::alloc_zeroed(layout) } else { alloc::alloc(layout) } };
        let ptr = NonNull::new(ptr).unwrap_or_else(|| alloc::handle_alloc_error(layout));
        Memory { ptr, capacity }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.capacity > 0 && !Pool::give(self.ptr, self.capacity) {
            // SAFETY: allocated with this layout in `allocate`.
            unsafe { alloc::dealloc(self.ptr.as_ptr(), Memory::layout(self.capacity)) }
        }
    }
}

/// An owned, zeroed buffer whose memory lies at [`ALIGN`].
pub struct AlignedBuf {
    memory: Memory,
    len: usize,
}

impl AlignedBuf {
    /// `len` zero bytes.
    pub fn new(len: usize) -> AlignedBuf {
        AlignedBuf { memory: Memory::allocate(len, true), len }
    }

    /// Room for `capacity` bytes that something else (a read) will fill; the length is 0 until [`AlignedBuf::set_len`].
    pub(crate) fn unfilled(capacity: usize) -> AlignedBuf {
        AlignedBuf { memory: Memory::allocate(capacity, false), len: 0 }
    }

    /// Where a read writes to. Nobody may look at the bytes before it is done.
    pub(crate) fn as_ptr_for_read(&self) -> *mut u8 {
        self.memory.ptr.as_ptr()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// # Safety
    /// The first `len` bytes have been written.
    pub(crate) unsafe fn set_len(&mut self, len: usize) {
        assert!(len <= self.memory.capacity);
        self.len = len;
    }

    /// Gives the memory over to shared, immutable use.
    pub fn freeze(self) -> Bytes {
        if self.len == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl Deref for AlignedBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the first `len` bytes are initialised and owned.
        unsafe { std::slice::from_raw_parts(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and the borrow is unique.
        unsafe { std::slice::from_raw_parts_mut(self.memory.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// An append-only block of aligned memory: filled by its owner, read by reference from anywhere.
///
/// Life of a block: [`Block::append`] copies bytes in; [`Block::reserve`] sets zeroed bytes aside that
/// [`Block::write_at`] fills later (a header with a checksum, say); [`Block::slice`] hands out what is there.
/// A reservation that has been sliced is closed: its bytes never change under a reader. The memory is freed when
/// the block and the last slice are gone.
pub struct Block {
    memory: Arc<Memory>,
    len: usize,
    /// Reservations that may still be written, in order.
    open: Vec<Range<usize>>,
}

impl Block {
    /// An empty block of `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Block {
        Block { memory: Arc::new(Memory::allocate(capacity, false)), len: 0, open: Vec::new() }
    }

    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Bytes appended and reserved so far.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.memory.capacity - self.len
    }

    /// Copies `data` to the end; its place. Panics if it does not fit: ask [`Block::remaining`] first.
    pub fn append(&mut self, data: &[u8]) -> Range<usize> {
        let range = self.advance(data.len());
        // SAFETY: `advance` checked the bounds; no slice reaches past the former length, so nobody reads these bytes.
        unsafe {
            std::ptr::copy_nonoverlapping(
                data.as_ptr(),
                self.memory.ptr.as_ptr().add(range.start),
                data.len(),
            )
        };
        range
    }

    /// Sets `n` zero bytes aside at the end, to be written by [`Block::write_at`] before they are sliced.
    pub fn reserve(&mut self, n: usize) -> Range<usize> {
        let range = self.advance(n);
        // SAFETY: as in `append`.
        unsafe { std::ptr::write_bytes(self.memory.ptr.as_ptr().add(range.start), 0, n) };
        if n > 0 {
            self.open.push(range.clone());
        }
        range
    }

    /// Writes into a reservation. Panics unless `range` lies in one that no slice has covered yet and `data` fills it.
    pub fn write_at(&mut self, range: Range<usize>, data: &[u8]) {
        assert_eq!(range.len(), data.len(), "the data must fill the range");
        assert!(
            self.open.iter().any(|open| open.start <= range.start && range.end <= open.end),
            "bytes {range:?} of the block are not in an open reservation"
        );
        // SAFETY: an open reservation lies below `len` and no slice covers it.
        unsafe {
            std::ptr::copy_nonoverlapping(
                data.as_ptr(),
                self.memory.ptr.as_ptr().add(range.start),
                data.len(),
            )
        };
    }

    /// A shared view of `range`, which must lie below [`Block::len`]. Closes the reservations it touches.
    pub fn slice(&mut self, range: Range<usize>) -> Bytes {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "slice {range:?} of a block of {}",
            self.len
        );
        if range.is_empty() {
            return Bytes::new();
        }
        self.open.retain(|open| open.end <= range.start || range.end <= open.start);
        Bytes::from_owner(BlockSlice { memory: Arc::clone(&self.memory), range })
    }

    fn advance(&mut self, n: usize) -> Range<usize> {
        assert!(
            n <= self.remaining(),
            "{n} bytes do not fit into the {} left of the block",
            self.remaining()
        );
        let start = self.len;
        self.len += n;
        start..self.len
    }
}

struct BlockSlice {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl AsRef<[u8]> for BlockSlice {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the range was initialised before it was sliced, and the writer never touches it again.
        unsafe {
            std::slice::from_raw_parts(self.memory.ptr.as_ptr().add(self.range.start), self.range.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_zeroed_aligned_and_frozen_in_place() {
        let mut buf = AlignedBuf::new(5000);
        assert!(buf.iter().all(|b| *b == 0));
        buf[4999] = 7;
        let address = buf.as_ptr();
        let frozen = buf.freeze();
        assert_eq!(frozen.as_ptr(), address);
        assert_eq!(address as usize % ALIGN, 0);
        assert_eq!(frozen[4999], 7);
        assert!(AlignedBuf::new(0).freeze().is_empty());
    }

    #[test]
    fn pooled_memory_is_used_again_and_zeroed() {
        let sizes = [POOLED_MIN / 2 + 1, 100_000, POOLED_MAX - 1, POOLED_MAX];
        let addresses = sizes.map(|size| {
            let mut buf = AlignedBuf::new(size);
            buf.fill(7);
            buf.as_ptr()
        });
        for (size, address) in sizes.into_iter().zip(addresses).rev() {
            let buf = AlignedBuf::new(size);
            assert_eq!(buf.len(), size);
            assert!(buf.iter().all(|b| *b == 0), "{size} bytes");
            assert!(addresses.contains(&buf.as_ptr()), "{size} bytes at {address:?} and then elsewhere");
        }
    }

    #[test]
    fn a_pool_keeps_no_more_than_its_bound() {
        std::thread::spawn(|| {
            let many: Vec<_> =
                (0..2 * POOL_BYTES_MAX / POOLED_MAX).map(|_| AlignedBuf::new(POOLED_MAX)).collect();
            drop(many);
            POOL.with_borrow(|pool| assert_eq!(pool.bytes, POOL_BYTES_MAX));
            let large = AlignedBuf::new(POOLED_MAX + 1);
            let small = AlignedBuf::new(POOLED_MIN / 2);
            drop((large, small));
            POOL.with_borrow(|pool| assert_eq!(pool.bytes, POOL_BYTES_MAX));
        })
        .join()
        .expect("the pool is dropped with its thread");
    }

    #[test]
    fn slices_of_a_block_outlive_it_and_do_not_see_later_bytes() {
        let mut block = Block::with_capacity(ALIGN);
        let header = block.reserve(8);
        let body = block.append(b"first");
        let first = block.slice(body.clone());
        block.write_at(header.clone(), b"checksum");
        let more = block.append(b"second");
        assert_eq!(block.remaining(), ALIGN - 19);
        let all = block.slice(0..more.end);
        drop(block);
        assert_eq!(&first[..], b"first");
        assert_eq!(&all[..], b"checksumfirstsecond");
        assert_eq!(first.as_ptr(), all[8..].as_ptr());
    }

    #[test]
    #[should_panic(expected = "not in an open reservation")]
    fn a_sliced_reservation_is_closed() {
        let mut block = Block::with_capacity(64);
        let header = block.reserve(8);
        let _view = block.slice(0..1);
        block.write_at(header, b"too late");
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn a_block_does_not_grow() {
        Block::with_capacity(4).append(b"12345");
    }
}
