//! `Producer`: writes records, many at a time.

mod accumulator;
mod batch;
mod config;
mod delivery;
mod partitioner;
mod record;
mod sender;

pub use config::{Acks, ProducerConfig};
pub use delivery::{Delivery, RecordMetadata};
pub use partitioner::{PartitionFn, Partitioner, murmur2};
pub use record::{ProducerRecord, RecordHeader};

use crate::client::Client;
use crate::core::Core;
use crate::driver::{self, Handle};
use crate::error::{Error, Result};
use accumulator::{Accumulator, Append};
use corelog_wire::Str;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Writes records. Cheap to clone; clones share batches and bounds.
///
/// [`send`](Producer::send) puts a record into its partition's batch, waiting only for room, and gives a [`Delivery`]: a future
/// of the offset that the record got. Records for one partition sent one after the other are written in that order.
///
/// ```no_run
/// use corelog_client::{Client, ClientConfig, ProducerConfig, ProducerRecord};
/// # corelog_client::block_on(async {
/// let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
/// let producer = client.producer(ProducerConfig::default())?;
/// let mut deliveries = Vec::new();
/// for order in 0..1000 {
///     let record = ProducerRecord::to("orders").key(format!("customer-{}", order % 10)).value(order.to_string());
///     deliveries.push(producer.send(record).await?);
/// }
/// producer.flush().await?;
/// for delivery in deliveries {
///     println!("written at {:?}", delivery.await?.offset);
/// }
/// # Ok::<(), corelog_client::Error>(())
/// # }).unwrap();
/// ```
///
/// What was sent and not yet delivered when the last clone is dropped is still sent, as long as the client lives; `flush` or
/// `close` to know.
#[derive(Clone)]
pub struct Producer {
    owner: Arc<Owner>,
}

struct Owner {
    shared: Arc<Shared>,
    handle: Handle<Core>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

struct Shared {
    config: ProducerConfig,
    accumulator: Mutex<Accumulator>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut accumulator = self.lock();
        accumulator.closed.get_or_insert(Error::Closed);
        accumulator.tell_sender();
    }
}

/// Why [`Producer::try_send`] did not take a record; the record comes back.
#[derive(Debug)]
pub enum TrySendError {
    /// There is no room in the buffer now.
    NoRoom(ProducerRecord),
    /// Its topic is not known yet: [`Producer::prepare`] it.
    NotPrepared(ProducerRecord),
    Failed(ProducerRecord, Error),
}

impl Client {
    /// A new producer. Errors: a config that cannot be.
    pub fn producer(&self, config: ProducerConfig) -> Result<Producer> {
        config.check()?;
        let shared = Arc::new(Shared { config, accumulator: Mutex::new(Accumulator::new()) });
        let theirs = shared.clone();
        let handle = self.handle.clone();
        if !handle.post(move |core| driver::spawn(sender::run(core.clone(), theirs))) {
            return Err(Error::Closed);
        }
        Ok(Producer { owner: Arc::new(Owner { shared, handle }) })
    }
}

impl Producer {
    /// Puts a record into its partition's batch. Waits for the topic to be known, and for room in the buffer, at most for
    /// `send_timeout`.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let shared = &self.owner.shared;
        let deadline = Instant::now() + shared.config.send_timeout;
        loop {
            let appended = poll_fn(|cx| {
                let mut accumulator = shared.lock();
                match accumulator.append(&shared.config, &record, now_ms()) {
                    Ok(Append::NoRoom) if Instant::now() >= deadline => Poll::Ready(Err(Error::Timeout {
                        what: format!("send to topic {:?}", record.topic),
                        after: shared.config.send_timeout,
                        last: Some(Box::new(Error::config(
                            "the buffer stayed full",
                            "the cluster does not keep up: send slower, or raise buffer_bytes_max",
                        ))),
                    })),
                    Ok(Append::NoRoom) => {
                        accumulator.wait_for_room(cx.waker(), deadline);
                        Poll::Pending
                    }
                    done => Poll::Ready(done),
                }
            });
            match appended.await? {
                Append::Done(delivery) => return Ok(delivery),
                Append::UnknownTopic | Append::NoRoom => self.prepare_until(&record.topic, deadline).await?,
            }
        }
    }

    /// As [`send`](Producer::send), but never waits.
    // The record comes back by value, as it was given.
    #[allow(clippy::result_large_err)]
    pub fn try_send(&self, record: ProducerRecord) -> std::result::Result<Delivery, TrySendError> {
        let shared = &self.owner.shared;
        match shared.lock().append(&shared.config, &record, now_ms()) {
            Ok(Append::Done(delivery)) => Ok(delivery),
            Ok(Append::NoRoom) => Err(TrySendError::NoRoom(record)),
            Ok(Append::UnknownTopic) => Err(TrySendError::NotPrepared(record)),
            Err(error) => Err(TrySendError::Failed(record, error)),
        }
    }

    /// Gets ready for a topic: its partitions and leaders, and the producer's id. Returns the number of partitions.
    pub async fn prepare(&self, topic: &str) -> Result<usize> {
        let topic = Str::from(topic);
        self.prepare_until(&topic, Instant::now() + self.owner.shared.config.send_timeout).await?;
        Ok(self.owner.shared.lock().partitions(&topic).unwrap_or(0))
    }

    async fn prepare_until(&self, topic: &Str, deadline: Instant) -> Result<()> {
        let (shared, topic) = (self.owner.shared.clone(), topic.detach());
        let prepared = self.owner.handle.call(async move |core| {
            let needs_id = shared.config.idempotent && shared.lock().identity.is_none();
            if needs_id {
                let identity = sender::producer_id(&core).await?;
                // Another call may have been quicker.
                shared.lock().identity.get_or_insert(identity);
            }
            core.want(&topic);
            let found = core.topic(&topic, shared.config.create_topics, deadline).await?;
            shared.lock().set_topic(&topic, &found);
            Ok(())
        });
        prepared.await
    }

    /// Waits until all that was sent before is delivered or has failed. Which, the deliveries tell.
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.owner.shared;
        let below = shared.lock().seal_all();
        poll_fn(
            |cx| if shared.lock().poll_flushed(below, cx.waker()) { Poll::Ready(()) } else { Poll::Pending },
        )
        .await;
        Ok(())
    }

    /// Takes no more records, from any clone, and waits until all that was sent is delivered or has failed.
    pub async fn close(self) -> Result<()> {
        self.owner.shared.close();
        self.flush().await
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.owner.shared.config).finish_non_exhaustive()
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
