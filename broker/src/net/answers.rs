//! Room for answers on their way to clients, which read them when they like. Records have the fetch budget; this is for
//! the others: what a request of some bytes asks for may be megabytes of metadata.
//!
//! An answer finds room before it is sent, or waits in line for it, and while others wait who does not read is cut off
//! soon. As many bytes may wait as may be sent; an answer beyond that is given up, and its connection closed.

use corelog_io::sync::{Permit, Semaphore};

/// Answers up to this find room in the kernel's buffers.
const SMALL_MAX: usize = 16 << 10;

/// As many answers wait to be sent as may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{waiting} answers wait for room behind those that clients do not read: it is given up")]
pub struct NoRoom {
    waiting: usize,
}

pub struct AnswerRoom {
    sent: Semaphore,
    line: Semaphore,
}

impl AnswerRoom {
    /// `bytes` are for answers that are sent, and as many for those that wait.
    pub fn new(bytes: u64) -> AnswerRoom {
        AnswerRoom { sent: Semaphore::new(bytes), line: Semaphore::new(bytes) }
    }

    pub fn total(&self) -> u64 {
        self.sent.total() + self.line.total()
    }

    /// Bytes of answers that are there.
    pub fn used(&self) -> u64 {
        self.total() - self.sent.available() - self.line.available()
    }

    /// Whether answers wait for room.
    pub fn is_contended(&self) -> bool {
        self.sent.waiting() > 0
    }

    /// Room for an answer of this size, which counts as long as that is held.
    pub async fn take(&self, bytes: usize) -> Result<Option<Permit>, NoRoom> {
        if bytes <= SMALL_MAX {
            return Ok(None);
        }
        if let Some(room) = self.sent.try_acquire(bytes as u64) {
            return Ok(Some(room));
        }
        let _in_line = self.line.try_acquire(bytes as u64).ok_or(NoRoom { waiting: self.sent.waiting() })?;
        Ok(Some(self.sent.acquire(bytes as u64).await))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn answers_find_room_wait_for_it_or_are_too_many() {
        let room = AnswerRoom::new(100 << 10);
        let take = |bytes| room.take(bytes);
        let first = take(90 << 10).now_or_never().expect("at once").expect("there is room");
        let mut second = Box::pin(take(80 << 10));
        assert!(second.as_mut().now_or_never().is_none() && room.is_contended());
        assert_eq!(take(80 << 10).now_or_never().expect("at once").err(), Some(NoRoom { waiting: 1 }));
        assert!(take(SMALL_MAX).now_or_never().is_some());
        assert_eq!(room.used(), 170 << 10);
        drop(first);
        let second = second.now_or_never().expect("its turn has come");
        assert_eq!((room.used(), room.is_contended()), (80 << 10, false));
        drop(second);
        // One that is larger than all of it is sent alone.
        let alone = take(1 << 30).now_or_never();
        assert!(alone.is_some() && take(20 << 10).now_or_never().is_none());
    }
}
