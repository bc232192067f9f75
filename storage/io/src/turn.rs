//! What a task does in one turn, as work told at the seam: loops that never let the core go on show in it.
//!
//! A turn is one poll of a task. Nothing else runs on its core meanwhile: no socket, no timer, no journal write. Work
//! is counted where it passes the seam (a message, a connection, a spawned task, a file operation, bytes read), and
//! where code that goes through many bytes says so ([`worked`]). It is a number that is the same for every run of a
//! seed, which time on a clock is not. The simulated world reads it after each turn; on glommio it costs an addition.

use std::cell::Cell;
use std::time::Duration;

/// What one operation at the seam counts as: about what the cheapest system call takes.
const OPERATION_NANOS: u64 = 1000;
/// What a byte counts as that is gone through (parsed, checked, copied): 1 GB/s.
const BYTE_NANOS: u64 = 1;

thread_local! {
    static SPENT: Cell<u64> = const { Cell::new(0) };
}

/// Tells that this turn has gone through `bytes` bytes: for loops over requests, records, files.
pub fn worked(bytes: usize) {
    spend(bytes as u64 * BYTE_NANOS);
}

/// One operation at the seam.
pub(crate) fn operation() {
    spend(OPERATION_NANOS);
}

fn spend(nanos: u64) {
    SPENT.with(|spent| spent.set(spent.get().saturating_add(nanos)));
}

/// What this turn has spent so far.
pub(crate) fn spent() -> Duration {
    Duration::from_nanos(SPENT.get())
}

/// What was spent since it was last taken.
pub(crate) fn take() -> Duration {
    Duration::from_nanos(SPENT.with(|spent| spent.replace(0)))
}
