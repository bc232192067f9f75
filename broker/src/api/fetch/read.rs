//! The owning shard's part of a fetch: reading partitions, and waiting for news of them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::sync::Event;
use corelog_io::{Instant, sleep_until};
use corelog_storage::{EpochEnd, LogId, ReadError};
use corelog_wire::ErrorCode;
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::shard::{Shard, ShardId};

/// One partition to read.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Where its answer goes.
    pub place: usize,
    pub log: LogId,
    pub offset: i64,
    pub max_bytes: usize,
    /// Epoch of the record before `offset` as the client knows it, -1 if it does not say (KIP-595).
    pub last_fetched_epoch: i32,
}

/// What was read of it.
#[derive(Debug, Clone)]
pub struct Got {
    pub place: usize,
    pub error: ErrorCode,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// The client's log went another way: the epoch and end offset up to which both agree.
    pub diverging: Option<(i32, i64)>,
    pub parts: Vec<Bytes>,
    pub len: usize,
}

impl Got {
    pub fn refused(place: usize, error: ErrorCode) -> Got {
        Got {
            place,
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging: None,
            parts: Vec::new(),
            len: 0,
        }
    }
}

/// Reads partitions of this shard in order, up to `budget` bytes; the first batch of the first partition that has
/// one is read whatever its size (KIP-74).
pub async fn read(shard: Rc<Shard>, wanted: Vec<Wanted>, mut budget: usize) -> Vec<Got> {
    let mut got = Vec::with_capacity(wanted.len());
    let mut any = false;
    for wanted in wanted {
        let read = read_one(&shard, &wanted, budget, !any).await;
        budget = budget.saturating_sub(read.len);
        any |= read.len > 0;
        got.push(read);
    }
    got
}

async fn read_one(shard: &Shard, wanted: &Wanted, budget: usize, first: bool) -> Got {
    let place = wanted.place;
    let log = match shard.sound_log(wanted.log) {
        Ok(log) => log,
        Err(error) => return Got::refused(place, error),
    };
    let mut got = Got {
        high_watermark: log.high_watermark(),
        // Without transactions every committed record is stable.
        last_stable_offset: log.high_watermark(),
        log_start_offset: log.log_start_offset(),
        ..Got::refused(place, ErrorCode::NONE)
    };
    if wanted.last_fetched_epoch >= 0 {
        let EpochEnd { epoch, end_offset } = log.epoch_end_offset(wanted.last_fetched_epoch);
        if epoch < 0 {
            return Got::refused(place, ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        if epoch < wanted.last_fetched_epoch || end_offset < wanted.offset {
            got.diverging = Some((epoch, end_offset));
            return got;
        }
    }
    // The cheap answer first: most partitions of most fetches have nothing new.
    if wanted.offset == got.high_watermark {
        return got;
    }
    let max_bytes = wanted.max_bytes.min(budget);
    match log.read(wanted.offset, max_bytes, first).await {
        Ok(read) => Got {
            high_watermark: read.high_watermark,
            last_stable_offset: read.high_watermark,
            log_start_offset: read.log_start_offset,
            parts: read.parts,
            len: read.len,
            ..got
        },
        Err(ReadError::OffsetOutOfRange { .. }) => Got::refused(place, ErrorCode::OFFSET_OUT_OF_RANGE),
        Err(error) => {
            tracing::error!(log = ?wanted.log, %error, "fetch");
            Got::refused(place, ErrorCode::KAFKA_STORAGE_ERROR)
        }
    }
}

/// Partitions of one shard, each with the high watermark that was seen.
pub type Seen = Vec<(LogId, i64)>;

/// Returns when one of the partitions has moved on, was deleted, or at `deadline`.
pub async fn wait(shard: Rc<Shard>, seen: Seen, deadline: Instant) {
    let news = FuturesUnordered::new();
    for (id, high_watermark) in &seen {
        let Some(log) = shard.log(*id) else { return };
        if log.high_watermark() != *high_watermark {
            return;
        }
        news.push(log.changed().listen());
    }
    let mut news = news;
    let deadline = std::pin::pin!(sleep_until(deadline));
    match select(news.next(), deadline).await {
        Either::Left(_) | Either::Right(_) => {}
    }
}

/// Waits that other shards asked for, so that they can be given up when the fetch ends.
#[derive(Default)]
pub struct RemoteWaits(RefCell<HashMap<(usize, u64), Rc<Event>>>);

impl RemoteWaits {
    /// Waits like [`wait`], until `cancel` is called with the same key.
    pub async fn wait(&self, shard: Rc<Shard>, key: (ShardId, u64), seen: Seen, deadline: Instant) {
        let key = (key.0.0, key.1);
        let cancelled = Rc::new(Event::new());
        let listener = cancelled.listen();
        self.0.borrow_mut().insert(key, cancelled.clone());
        select(std::pin::pin!(wait(shard, seen, deadline)), listener).await;
        self.0.borrow_mut().remove(&key);
    }

    pub fn cancel(&self, key: (ShardId, u64)) {
        if let Some(event) = self.0.borrow().get(&(key.0.0, key.1)) {
            event.notify_all();
        }
    }
}
