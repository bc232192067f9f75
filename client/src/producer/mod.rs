//! `Producer`: writes records, many at a time.

mod accumulator;
mod batch;
mod config;
mod coordinator;
mod delivery;
mod partitioner;
mod record;
mod sender;
mod transaction;

pub use config::{Acks, ProducerConfig};
pub use delivery::{Delivery, RecordMetadata};
pub use partitioner::{PartitionFn, Partitioner, murmur2};
pub use record::{ProducerRecord, RecordHeader};

use crate::client::Client;
use crate::core::{Core, Lane};
use crate::driver::{self, Handle};
use crate::error::{Error, Result};
use crate::groups::{GroupMetadata, NewOffset};
use crate::topic_partition::TopicPartition;
use accumulator::{Accumulator, Append};
use coordinator::Coordinator;
use corelog_wire::Str;
use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Poll;
use std::time::Instant;
use transaction::Transaction;

/// Writes records. Cheap to clone; clones share batches and bounds.
///
/// [`send`](Producer::send) puts a record into its partition's batch, waiting only for room, and gives a [`Delivery`]: a future
/// of the offset that the record got, which ends within [`delivery_timeout`](ProducerConfig::delivery_timeout), whatever the brokers do.
/// Records for one partition sent one after the other are written in that order, if the producer is
/// [idempotent](ProducerConfig::idempotent), as by default, or has one request in flight.
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
/// `close` to know. Nothing of it is left, neither connection nor task, when that is done or its time is over.
///
/// # Transactions
/// With a [`transactional_id`](ProducerConfig::transactional_id) records are sent in transactions (KIP-98): those who read with
/// [`Isolation::ReadCommitted`](crate::Isolation::ReadCommitted) see all records of one or, if it is aborted, none.
///
/// ```no_run
/// use corelog_client::{Client, ClientConfig, Error, ProducerConfig, ProducerRecord};
/// # corelog_client::block_on(async {
/// let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
/// let producer = client.producer(ProducerConfig::transactional("billing-1"))?;
/// producer.init_transactions().await?;
/// loop {
///     producer.begin_transaction()?;
///     for topic in ["orders", "invoices"] {
///         // What becomes of it `commit_transaction` tells as well.
///         let _ = producer.send(ProducerRecord::to(topic).value("...")).await;
///     }
///     match producer.commit_transaction().await {
///         Err(Error::TransactionFailed { .. }) => producer.abort_transaction().await?,
///         done => done?,
///     }
/// }
/// # #[allow(unreachable_code)]
/// # Ok::<(), corelog_client::Error>(())
/// # }).unwrap();
/// ```
///
/// An error of `send` within a transaction, or a record that is not delivered, makes it fail: it can only be aborted then.
/// [`Error::TransactionFatal`] ends the producer, most often because another one was started with its transactional id.
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
    /// Set on the driver before anything else is done there.
    lane: OnceLock<Lane>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transaction<T>(&self, work: impl FnOnce(&mut Transaction) -> Result<T>) -> Result<T> {
        match &mut self.lock().transaction {
            Some(transaction) => work(transaction),
            None => Err(Error::config(
                "the producer has no transactional id",
                "set `transactional_id` in its config",
            )),
        }
    }

    fn close(&self) {
        let mut accumulator = self.lock();
        accumulator.closed.get_or_insert(Error::Closed);
        // Nobody is left to commit what is open.
        accumulator.send_failed(&Error::Closed);
        accumulator.wake_all();
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
        let config = config.bounded();
        let transaction = config.transactional_id.as_deref().map(Transaction::new);
        let accumulator = Mutex::new(Accumulator::new(transaction));
        let shared = Arc::new(Shared { config, accumulator, lane: OnceLock::new() });
        let theirs = shared.clone();
        let handle = self.handle.clone();
        let run = move |core: &Rc<Core>| {
            let lane = *theirs.lane.get_or_init(|| core.new_lane());
            driver::spawn(sender::run(core.clone(), theirs, lane));
        };
        if !handle.post(run) {
            return Err(Error::Closed);
        }
        Ok(Producer { owner: Arc::new(Owner { shared, handle }) })
    }
}

impl Producer {
    /// Puts a record into its partition's batch. Waits for the topic and the producer's id to be known, and for room in the buffer, at
    /// most for `send_timeout`.
    pub async fn send(&self, record: ProducerRecord) -> Result<Delivery> {
        let sent = self.send_once(record).await;
        sent.inspect_err(|error| self.owner.shared.lock().send_failed(error))
    }

    async fn send_once(&self, record: ProducerRecord) -> Result<Delivery> {
        let shared = &self.owner.shared;
        let deadline = driver::now() + shared.config.send_timeout;
        loop {
            let appended = poll_fn(|cx| {
                let mut accumulator = shared.lock();
                match accumulator.append(&shared.config, &record, driver::now_ms()) {
                    Ok(Append::NoRoom) if driver::now() >= deadline => Poll::Ready(Err(Error::Timeout {
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
        let mut accumulator = shared.lock();
        match accumulator.append(&shared.config, &record, driver::now_ms()) {
            Ok(Append::Done(delivery)) => Ok(delivery),
            Ok(Append::NoRoom) => Err(TrySendError::NoRoom(record)),
            Ok(Append::UnknownTopic) => Err(TrySendError::NotPrepared(record)),
            Err(error) => {
                accumulator.send_failed(&error);
                Err(TrySendError::Failed(record, error))
            }
        }
    }

    /// Gets ready for a topic: its partitions and leaders, and the producer's id. Returns the number of partitions.
    pub async fn prepare(&self, topic: &str) -> Result<usize> {
        let topic = Str::from(topic);
        self.prepare_until(&topic, driver::now() + self.owner.shared.config.send_timeout).await?;
        Ok(self.owner.shared.lock().partitions(&topic).unwrap_or(0))
    }

    async fn prepare_until(&self, topic: &Str, deadline: Instant) -> Result<()> {
        let (shared, topic) = (self.owner.shared.clone(), topic.detach());
        let prepared = self.owner.handle.call(async move |core| {
            // A transactional one gets its id with `init_transactions`.
            let gets_id = shared.config.idempotent && shared.config.transactional_id.is_none();
            let needs_id = gets_id && shared.lock().identity.is_none();
            if needs_id {
                let identity = sender::producer_id(&core, deadline).await?;
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

    /// Waits until all that was sent before is delivered or has failed. Which, the deliveries tell. At most for `delivery_timeout`; of a
    /// transactional producer `request_timeout` more, for batches that failed with their request under way.
    pub async fn flush(&self) -> Result<()> {
        let shared = &self.owner.shared;
        let below = shared.lock().seal_all();
        poll_fn(
            |cx| if shared.lock().poll_flushed(below, cx.waker()) { Poll::Ready(()) } else { Poll::Pending },
        )
        .await;
        Ok(())
    }

    /// Gets ready for transactions, once, before the first: fences earlier producers of this transactional id, and has what they left
    /// open aborted. Takes `api_timeout` at the longest, and may be tried again if it fails.
    ///
    /// Errors: [`Error::Unsupported`] by a broker without transactions.
    pub async fn init_transactions(&self) -> Result<()> {
        let _turn = self.take_turn(|transaction| transaction.init())?;
        self.coordinate(async |coordinator| coordinator.init().await).await
    }

    /// From now on records belong to a transaction. The brokers hear of it with its first record.
    pub fn begin_transaction(&self) -> Result<()> {
        self.owner.shared.transaction(|transaction| transaction.begin())
    }

    /// Adds offsets of a consumer's group to the transaction: they are committed with it. Each is of the next record to read.
    /// [`Consumer::group_metadata`](crate::Consumer::group_metadata) fences consumers that are no longer members (KIP-447).
    ///
    /// Errors make the transaction fail.
    pub async fn send_offsets(
        &self,
        offsets: BTreeMap<TopicPartition, NewOffset>,
        group: GroupMetadata,
    ) -> Result<()> {
        self.coordinate(async move |coordinator| coordinator.send_offsets(&group, &offsets).await).await
    }

    /// Waits until all of the transaction's records are delivered, as [`flush`](Producer::flush) does, and commits it within `api_timeout`.
    ///
    /// Errors: [`Error::TransactionFailed`] if one is not, or the brokers cannot commit: abort it then. After an error that
    /// [`is_retriable`](Error::is_retriable), and when the future was dropped, whether it is committed is not known: commit it again.
    pub async fn commit_transaction(&self) -> Result<()> {
        let _turn = self.take_turn(|transaction| transaction.end(true))?;
        self.flush().await?;
        let failed = self
            .owner
            .shared
            .transaction(|transaction| Ok(transaction.failure().map(|(error, _)| error.clone())));
        match failed? {
            Some(error) => Err(error),
            None => self.coordinate(async |coordinator| coordinator.end(true).await).await,
        }
    }

    /// Drops what was not sent, waits for what is under way, as [`flush`](Producer::flush) does, and aborts the transaction within
    /// `api_timeout`.
    ///
    /// Errors: after one that [`is_retriable`](Error::is_retriable), abort it again.
    pub async fn abort_transaction(&self) -> Result<()> {
        let _turn = self.take_turn(|transaction| transaction.end(false))?;
        self.owner.shared.lock().drop_batches(&Error::TransactionAborted, false);
        self.flush().await?;
        self.coordinate(async |coordinator| coordinator.end(false).await).await
    }

    fn take_turn(&self, check: impl FnOnce(&mut Transaction) -> Result<()>) -> Result<Turn<'_>> {
        self.owner.shared.transaction(check)?;
        Ok(Turn(&self.owner.shared))
    }

    async fn coordinate(
        &self,
        work: impl AsyncFnOnce(Coordinator) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let shared = self.owner.shared.clone();
        let done = self.owner.handle.call(async move |core| {
            let lane = *shared.lane.get().unwrap_or(&Lane::SHARED);
            match Coordinator::new(&core, &shared, lane) {
                Some(coordinator) => work(coordinator).await,
                None => Ok(()),
            }
        });
        done.await
    }

    /// Takes no more records, from any clone, and waits until all that was sent is delivered or has failed, as
    /// [`flush`](Producer::flush) does. An open transaction is aborted, which takes `api_timeout` more at the longest.
    pub async fn close(self) -> Result<()> {
        let is_open = |transaction: &mut Transaction| Ok(transaction.is_open());
        let aborted = match self.owner.shared.transaction(is_open) {
            Ok(true) => self.abort_transaction().await,
            _ => Ok(()),
        };
        self.owner.shared.close();
        self.flush().await?;
        aborted
    }
}

/// Of initializing, committing and aborting: one call at a time.
struct Turn<'a>(&'a Shared);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut accumulator = self.0.lock();
        if let Some(transaction) = &mut accumulator.transaction {
            transaction.end_turn();
        }
        // If the producer is closed, its sender waits for this.
        accumulator.tell_sender();
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Producer").field("config", &self.owner.shared.config).finish_non_exhaustive()
    }
}
