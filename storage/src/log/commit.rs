//! What is committed: by what is durable here, or by a quorum ([`CommitMode`]).

use super::{End, Log, State};
use crate::config::{CommitMode, LogConfig};
use crate::error::AppendError;
use crate::ids::RaftIndex;
use crate::uncommitted::UncommittedBatch;
use corelog_io::planted::{Fault, planted};
use corelog_io::wall_clock_ms;
use corelog_wire::records::BatchHeader;

impl Log {
    /// The Raft index after the last batch that is on stable storage here.
    pub fn durable_index(&self) -> RaftIndex {
        self.state.borrow().durable.index
    }

    /// The Raft index after the last batch that is committed.
    pub fn commit_index(&self) -> RaftIndex {
        self.state.borrow().committed.index
    }

    /// A majority has the batches below `index`, which are the leader's: they are committed as soon as they are durable here
    /// too, and from now on are never cut. Beyond what has been appended here nothing is said.
    pub fn advance_commit(&self, index: RaftIndex) {
        {
            let state = &mut *self.state.borrow_mut();
            if state.config.commit == CommitMode::Alone {
                return;
            }
            state.commit_target = state.commit_target.max(index.min(state.next.index));
        }
        self.settle_commit(wall_clock_ms());
    }

    /// Takes effect with the next roll, the next look at retention, the next append.
    pub fn set_config(&self, config: LogConfig) {
        self.state.borrow_mut().configure(config);
        self.settle_commit(wall_clock_ms());
    }

    /// What is durable, or said to be committed, may have moved.
    pub(super) fn settle_commit(&self, now_ms: i64) {
        let moved = {
            let state = &mut *self.state.borrow_mut();
            let moved = state.advance();
            state.settle_producers(now_ms, self.shard.config.producer_ids_max);
            moved
        };
        if moved {
            self.news.tell();
        }
    }

    /// Refuses what would let more than `max` bytes wait for a quorum. One batch may always.
    pub(super) fn check_uncommitted(&self, state: &State, len: usize) -> Result<(), AppendError> {
        let (waiting, max) = (state.uncommitted.bytes(), self.shard.config.uncommitted_bytes_max);
        match waiting > 0 && waiting + len as u64 > max {
            true => Err(AppendError::NoQuorum { bytes: waiting, max }),
            false => Ok(()),
        }
    }
}

impl State {
    /// What was committed under the former rule stays so.
    fn configure(&mut self, config: LogConfig) {
        let former = std::mem::replace(&mut self.config, config).commit;
        match (former, config.commit) {
            (CommitMode::Alone, CommitMode::Quorum) => {
                self.commit_target = self.committed.index;
                // Alone, what is not committed is in no segment.
                let mut index = self.committed.index;
                while let Some(batch) = self.tail.at_index(index) {
                    let header = BatchHeader::parse(&batch.bytes).expect("the tail holds batches");
                    self.uncommitted.push(uncommitted(&header));
                    index = index.next();
                }
            }
            (CommitMode::Quorum, CommitMode::Alone) => self.uncommitted.cut_back(0),
            _ => {}
        }
    }

    /// Moves what is committed as far as it may. Whether it did.
    pub(super) fn advance(&mut self) -> bool {
        let before = self.committed.index;
        let reach = if self.config.write_caching { self.next } else { self.durable };
        match self.config.commit {
            // Behind it for a while when write caching was on until now.
            CommitMode::Alone if reach.index > before => self.committed = reach,
            CommitMode::Alone => {}
            CommitMode::Quorum => self.commit_below(self.commit_target.min(reach.index)),
        }
        self.committed.index != before
    }

    /// Of a log whose commits a quorum decides.
    pub(super) fn commit_below(&mut self, index: RaftIndex) {
        while self.committed.index < index {
            let batch = self.uncommitted.pop().expect("what is not committed is known");
            let End { index, .. } = self.committed;
            self.committed = End { offset: batch.next_offset, index: index.next(), term: batch.term };
        }
    }

    /// What is committed and durable cannot be taken back: nor what it says of producers.
    pub(super) fn settle_producers(&mut self, now_ms: i64, producers_max: usize) {
        let settled = match planted(Fault::ProducersSettleWhenDurable) {
            true => self.durable.index,
            false => self.committed.index.min(self.durable.index),
        };
        self.producers.settle_below(settled, now_ms, producers_max);
    }

    /// The end that the log has if it is cut at `index`, which is not committed.
    pub(super) fn end_at(&self, index: RaftIndex) -> End {
        let Some(last) = (index.0 - self.committed.index.0).checked_sub(1) else { return self.committed };
        let batch = self.uncommitted.get(last as usize).expect("what is not committed is known");
        End { offset: batch.next_offset, index, term: batch.term }
    }
}

/// What is kept of a batch until it is committed.
pub(super) fn uncommitted(header: &BatchHeader) -> UncommittedBatch {
    UncommittedBatch {
        next_offset: header.next_offset(),
        term: header.partition_leader_epoch,
        len: header.size() as u32,
    }
}
