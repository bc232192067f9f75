//! Producer ids that were never given out. Each shard takes blocks of them, so this rarely needs the controller.

use std::cell::{Cell, RefCell};

use corelog_io::sync::Semaphore;

use crate::controller::{ChangeError, PRODUCER_ID_BLOCK};

/// What is left of the block that a shard took.
pub struct ProducerIds {
    next: Cell<i64>,
    end: Cell<i64>,
    turn: Semaphore,
    /// How many blocks could not be had, and why not the last.
    failures: Cell<u64>,
    failed: RefCell<Option<ChangeError>>,
}

impl ProducerIds {
    pub fn new() -> ProducerIds {
        ProducerIds {
            next: Cell::new(0),
            end: Cell::new(0),
            turn: Semaphore::new(1),
            failures: Cell::new(0),
            failed: RefCell::new(None),
        }
    }

    /// The next one. `take_block` gives where another block ends; should it fail, it has failed for all who wait: one after the
    /// other they would wait for as many times as long.
    pub async fn next(
        &self,
        take_block: impl AsyncFnOnce() -> Result<i64, ChangeError>,
    ) -> Result<i64, ChangeError> {
        if self.is_used_up() {
            let failures = self.failures.get();
            let _turn = self.turn.acquire(1).await;
            if self.is_used_up() {
                if self.failures.get() != failures
                    && let Some(failed) = self.failed.borrow().clone()
                {
                    return Err(failed);
                }
                let end = take_block().await.inspect_err(|error| self.has_failed(error))?;
                self.next.set(end - PRODUCER_ID_BLOCK);
                self.end.set(end);
            }
        }
        let id = self.next.get();
        self.next.set(id + 1);
        Ok(id)
    }

    fn has_failed(&self, error: &ChangeError) {
        self.failures.set(self.failures.get() + 1);
        self.failed.replace(Some(error.clone()));
    }

    fn is_used_up(&self) -> bool {
        self.next.get() == self.end.get()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use corelog_io::sim::Sim;
    use corelog_io::{now, sleep};
    use corelog_wire::ErrorCode;
    use futures_util::future::join_all;

    use super::*;

    const TAKES: Duration = Duration::from_secs(15);

    async fn of_all(ids: &ProducerIds, end: Option<i64>) -> Vec<Result<i64, ErrorCode>> {
        let asked = (0..100).map(async |_| {
            let block = async || {
                sleep(TAKES).await;
                end.ok_or(ChangeError::from(ErrorCode::NOT_CONTROLLER))
            };
            ids.next(block).await.map_err(|error| error.code)
        });
        join_all(asked).await
    }

    #[test]
    fn who_waits_for_a_block_that_cannot_be_had_waits_once() {
        let sim = Sim::new(1);
        sim.block_on(async {
            let (ids, began) = (ProducerIds::new(), now());
            let refused = of_all(&ids, None).await;
            assert!(refused.iter().all(|id| *id == Err(ErrorCode::NOT_CONTROLLER)), "{refused:?}");
            assert!(began.elapsed() < TAKES + TAKES / 100, "{:?}", began.elapsed());
            let given = of_all(&ids, Some(PRODUCER_ID_BLOCK)).await;
            assert_eq!(given, (0..100).map(Ok).collect::<Vec<_>>(), "what failed before is over");
        });
    }
}
