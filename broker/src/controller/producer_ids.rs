//! Producer ids: each shard takes blocks of them from the controller, so that giving one out rarely needs it.

use std::cell::Cell;
use std::rc::Rc;

use corelog_io::sync::Semaphore;

use super::change::{Change, ChangeError, PRODUCER_ID_BLOCK};
use super::handle::Terms;
use crate::shard::Shard;

/// What is left of the block that a shard has taken.
pub struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
    turn: Semaphore,
}

impl Default for ProducerIds {
    fn default() -> ProducerIds {
        ProducerIds { next: Cell::new(0), end: Cell::new(0), turn: Semaphore::new(1) }
    }
}

impl Shard {
    /// A producer id that was never given out.
    pub async fn next_producer_id(self: &Rc<Self>) -> Result<i64, ChangeError> {
        let ids = &self.producer_ids;
        if ids.next.get() == ids.end.get() {
            let _turn = ids.turn.acquire(1).await;
            if ids.next.get() == ids.end.get() {
                let end = self.change(Change::TakeProducerIds, Terms::MAKE).await?.image.next_producer_id;
                ids.next.set(end - PRODUCER_ID_BLOCK);
                ids.end.set(end);
            }
        }
        let id = ids.next.get();
        ids.next.set(id + 1);
        Ok(id)
    }
}
