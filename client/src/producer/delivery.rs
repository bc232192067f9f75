//! `Delivery`: what becomes of one record; and of its batch, which all its records share.

use crate::error::Result;
use crate::topic_partition::TopicPartition;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where a record was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordMetadata {
    pub partition: TopicPartition,
    /// None with `Acks::None`, and for a batch that the broker knows as written before, but not where.
    pub offset: Option<i64>,
    /// The record's own, or the broker's if the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp: i64,
}

/// A future of [`RecordMetadata`]. Dropping it does not take the record back.
#[derive(Debug)]
#[must_use = "whether the record was written is told by awaiting its delivery, or by nobody"]
pub struct Delivery {
    batch: Arc<BatchOutcome>,
    /// Of the record in its batch.
    index: u32,
    timestamp: i64,
    waker_at: Option<usize>,
}

/// What became of a batch, once it is known.
#[derive(Debug)]
pub(super) struct BatchOutcome {
    partition: TopicPartition,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Result<Written>>,
    wakers: Vec<Waker>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Written {
    /// Negative where it is not known.
    pub(super) base_offset: i64,
    /// Negative unless the broker set the timestamps.
    pub(super) append_time: i64,
}

impl BatchOutcome {
    pub(super) fn new(partition: TopicPartition) -> Arc<BatchOutcome> {
        Arc::new(BatchOutcome { partition, state: Mutex::default() })
    }

    pub(super) fn delivery(self: &Arc<Self>, index: u32, timestamp: i64) -> Delivery {
        Delivery { batch: self.clone(), index, timestamp, waker_at: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all that wait. Only the first outcome counts.
    pub(super) fn complete(&self, outcome: Result<Written>) {
        let mut state = self.state();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
            let wakers = std::mem::take(&mut state.wakers);
            drop(state);
            wakers.into_iter().for_each(Waker::wake);
        }
    }
}

impl Delivery {
    /// Where the record goes.
    pub fn partition(&self) -> &TopicPartition {
        &self.batch.partition
    }

    /// Whether both records are in the same batch, and so are written, or fail, together.
    pub fn shares_batch(&self, other: &Delivery) -> bool {
        Arc::ptr_eq(&self.batch, &other.batch)
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context) -> Poll<Self::Output> {
        let batch = self.batch.clone();
        let mut state = batch.state();
        let Some(outcome) = &state.outcome else {
            match self.waker_at {
                Some(at) => state.wakers[at].clone_from(cx.waker()),
                None => {
                    self.waker_at = Some(state.wakers.len());
                    state.wakers.push(cx.waker().clone());
                }
            }
            return Poll::Pending;
        };
        Poll::Ready(outcome.clone().map(|written| RecordMetadata {
            partition: batch.partition.clone(),
            offset: (written.base_offset >= 0).then(|| written.base_offset + i64::from(self.index)),
            timestamp: if written.append_time >= 0 { written.append_time } else { self.timestamp },
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block_on;
    use futures_util::future::join;

    #[test]
    fn records_of_a_batch_learn_their_offsets() {
        let batch = BatchOutcome::new(TopicPartition::new("t", 3));
        let (first, second) = (batch.delivery(0, 7), batch.delivery(1, 8));
        assert!(first.shares_batch(&second));
        assert!(!first.shares_batch(&BatchOutcome::new(TopicPartition::new("t", 3)).delivery(1, 8)));
        let teller =
            std::thread::spawn(move || batch.complete(Ok(Written { base_offset: 40, append_time: -1 })));
        let (first, second) = block_on(join(first, second));
        teller.join().unwrap();
        assert_eq!(first.unwrap().offset, Some(40));
        let second = second.unwrap();
        assert_eq!((second.offset, second.timestamp), (Some(41), 8));
        assert_eq!(second.partition.to_string(), "t-3");
    }
}
