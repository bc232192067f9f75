//! `Consumer`: reads records, of partitions that it is given or that it shares with its group.

mod assignor;
mod buffer;
mod chunk;
mod config;
mod fetcher;
mod record;
mod session;

pub use assignor::Assignor;
pub use config::{ConsumerConfig, OffsetReset};
pub use record::ConsumerRecord;

use crate::client::Client;
use crate::core::Core;
use crate::driver::{self, Handle};
use crate::error::{Error, Result};
use crate::leaders::OffsetSpec;
use crate::topic_partition::TopicPartition;
use buffer::{Buffer, Rebalance, Start, Step, not_assigned};
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// Reads records.
///
/// ```no_run
/// use corelog_client::{Client, ClientConfig, ConsumerConfig, OffsetReset, TopicPartition};
/// use std::time::Duration;
/// # corelog_client::block_on(async {
/// let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
/// let config = ConsumerConfig { offset_reset: OffsetReset::Earliest, ..Default::default() };
/// let consumer = client.consumer(config)?;
/// consumer.assign([TopicPartition::new("orders", 0)])?;
/// loop {
///     for record in consumer.poll(Duration::from_secs(1)).await? {
///         println!("{}: {:?}", record.offset, record.value);
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), corelog_client::Error>(())
/// # }).unwrap();
/// ```
pub struct Consumer {
    shared: Arc<Shared>,
    handle: Handle<Core>,
}

struct Shared {
    config: ConsumerConfig,
    buffer: Mutex<Buffer>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// A new consumer. Errors: a config that cannot be.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer> {
        config.check()?;
        let shared = Arc::new(Shared { config, buffer: Mutex::default() });
        let theirs = shared.clone();
        let handle = self.handle.clone();
        if !handle.post(move |core| driver::spawn(fetcher::run(core.clone(), theirs))) {
            return Err(Error::Closed);
        }
        Ok(Consumer { shared, handle })
    }
}

impl Consumer {
    /// Reads these partitions, and no others, from their committed offsets, or as `offset_reset` says. Partitions that it has
    /// already go on where they are.
    pub fn assign(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        self.shared.lock().assign(partitions.into_iter().map(|at| (at, None)).collect());
        Ok(())
    }

    /// The partitions that it reads.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().partitions.keys().cloned().collect()
    }

    /// Goes on at this offset. What was fetched and not polled is dropped.
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<()> {
        self.shared.lock().seek(partition, Start::At(offset))
    }

    /// Goes on at the first or last record, or at a time.
    pub fn seek_to(&self, partition: &TopicPartition, spec: OffsetSpec) -> Result<()> {
        self.shared.lock().seek(partition, Start::Seek(spec))
    }

    /// Polls give no records of these until they are resumed; what was fetched is kept.
    pub fn pause(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.lock().pause(partitions, true)
    }

    pub fn resume(&self, partitions: &[TopicPartition]) -> Result<()> {
        self.shared.lock().pause(partitions, false)
    }

    /// The offset of the next record that a poll may give; none while it is being found.
    pub fn position(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let buffer = self.shared.lock();
        let place = buffer.partitions.get(partition).ok_or_else(|| not_assigned(partition))?;
        Ok(place.position.map(|position| position.offset))
    }

    /// The partition's high watermark as of the last fetch: the offset behind its last visible record.
    pub fn high_watermark(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        let buffer = self.shared.lock();
        let place = buffer.partitions.get(partition).ok_or_else(|| not_assigned(partition))?;
        Ok(place.high_watermark)
    }

    /// The next records, at most `poll_records_max`, as soon as there are some; none if the time is over. Records of one partition
    /// come in order.
    ///
    /// An error does not end the consumer: later polls go on with what can be read.
    pub async fn poll(&self, timeout: Duration) -> Result<Vec<ConsumerRecord>> {
        let until = Instant::now() + timeout;
        self.shared.lock().begin_poll();
        let polled = EndPoll(&self.shared);
        let records = poll_fn(|cx| {
            let records = match self.take_ready() {
                Ok(records) => records,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if records.is_empty() && Instant::now() < until {
                self.shared.lock().wait(cx.waker(), until);
                // What came between looking and waiting has told nobody.
                return match self.take_ready() {
                    Ok(records) if records.is_empty() => Poll::Pending,
                    done => Poll::Ready(done),
                };
            }
            Poll::Ready(Ok(records))
        });
        let records = records.await;
        drop(polled);
        records
    }

    fn take_ready(&self) -> Result<Vec<ConsumerRecord>> {
        let max = self.shared.config.poll_records_max;
        let mut records = Vec::new();
        while records.len() < max {
            let mut buffer = self.shared.lock();
            // What this poll has already cannot count as processed.
            if buffer.rebalance != Rebalance::None && !records.is_empty() {
                break;
            }
            match buffer.step(max - records.len()) {
                Step::Records(more) if records.is_empty() => records = more,
                Step::Records(more) => records.extend(more),
                Step::Nothing => break,
                Step::Error(error) if records.is_empty() => return Err(error),
                Step::Error(error) => {
                    buffer.fail(error);
                    break;
                }
                Step::Parse(at, version, mut chunk) => {
                    // Decompressing and checking are done here, not on the driver, and not under the lock.
                    drop(buffer);
                    let parsed = chunk.next_batch(&at, self.shared.config.batch_bytes_max);
                    let taken = self.shared.lock().parsed(&at, version, chunk, parsed);
                    if let Err(error) = taken {
                        self.shared.lock().fail(error);
                    }
                }
            }
        }
        Ok(records)
    }

    /// What is committed for these partitions by the consumer's group, where something is.
    pub async fn committed(&self, partitions: &[TopicPartition]) -> Result<BTreeMap<TopicPartition, i64>> {
        let group = self.group()?;
        let partitions = partitions.to_vec();
        let fetched = self
            .handle
            .call(async move |core| crate::groups::committed(&core, &group, Some(&partitions), true).await);
        Ok(fetched.await?.into_iter().map(|(at, committed)| (at, committed.offset)).collect())
    }

    fn group(&self) -> Result<corelog_wire::Str> {
        let group = self.shared.config.group.as_deref().map(corelog_wire::Str::from);
        group.ok_or_else(|| Error::config("the consumer has no group", "set `group` in its config"))
    }
}

struct EndPoll<'a>(&'a Arc<Shared>);

impl Drop for EndPoll<'_> {
    fn drop(&mut self) {
        self.0.lock().end_poll();
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut buffer = self.shared.lock();
        buffer.closed.get_or_insert(Error::Closed);
        buffer.tell_driver();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Consumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
