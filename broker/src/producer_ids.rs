//! Producer ids that were never given out. Each shard takes blocks of them, so this rarely needs the controller.

use std::cell::Cell;

use corelog_io::sync::Semaphore;

use crate::controller::{ChangeError, PRODUCER_ID_BLOCK};

/// What is left of the block that a shard took.
pub struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
    turn: Semaphore,
}

impl ProducerIds {
    pub fn new() -> ProducerIds {
        ProducerIds { next: Cell::new(0), end: Cell::new(0), turn: Semaphore::new(1) }
    }

    /// The next one. `take_block` gives where another block ends.
    pub async fn next(
        &self,
        take_block: impl AsyncFnOnce() -> Result<i64, ChangeError>,
    ) -> Result<i64, ChangeError> {
        if self.is_used_up() {
            let _turn = self.turn.acquire(1).await;
            if self.is_used_up() {
                let end = take_block().await?;
                self.next.set(end - PRODUCER_ID_BLOCK);
                self.end.set(end);
            }
        }
        let id = self.next.get();
        self.next.set(id + 1);
        Ok(id)
    }

    fn is_used_up(&self) -> bool {
        self.next.get() == self.end.get()
    }
}
