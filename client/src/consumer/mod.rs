//! `Consumer`: reads records, of partitions that it is given or that it shares with its group.

mod assignor;
mod buffer;
mod chunk;
mod commit;
mod config;
mod fetcher;
mod group;
mod positions;
mod record;
mod session;

pub use assignor::Assignor;
pub use config::{ConsumerConfig, OffsetReset, RebalanceListener};
pub use group::RebalanceEvent;
pub use record::ConsumerRecord;

use crate::client::Client;
use crate::config::FOREVER;
use crate::core::Core;
use crate::driver::{self, Event, Handle};
use crate::error::{Error, Result};
use crate::groups::{GroupMetadata, NewOffset};
use crate::leaders::{self, ListedOffset, OffsetSpec};
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use buffer::{Buffer, Position, Rebalance, Start, Step, not_assigned};
use commit::Manner;
use corelog_wire::Str;
use futures_channel::oneshot;
use futures_util::future::{Either, join3, select};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

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
///
/// With a group, members share the partitions of the topics that they subscribe to, and go on where the group left off:
///
/// ```no_run
/// # use corelog_client::{Client, ClientConfig, ConsumerConfig};
/// # use std::time::Duration;
/// # corelog_client::block_on(async {
/// # let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
/// let consumer = client.consumer(ConsumerConfig { auto_commit: None, ..ConsumerConfig::group("billing") })?;
/// consumer.subscribe(["orders"])?;
/// for _ in 0..100 {
///     let records = consumer.poll(Duration::from_secs(1)).await?;
///     // ... work ...
///     consumer.commit().await?;
/// }
/// consumer.close().await?;
/// # Ok::<(), corelog_client::Error>(())
/// # }).unwrap();
/// ```
///
/// A poll tells the group that what earlier polls gave is processed: only then are partitions taken away, and, if commits are automatic,
/// committed. Whoever does not poll for `poll_interval_max`, be it from the beginning, leaves the group, and comes back with its next
/// poll. One task polls; the other methods may be called from anywhere. Polls at the same time share what comes, and each says that what the
/// others gave is processed.
pub struct Consumer {
    shared: Arc<Shared>,
    handle: Handle<Core>,
    /// Told by the driver when the consumer has ended there.
    ended: Option<oneshot::Receiver<Result<()>>>,
}

struct Shared {
    config: ConsumerConfig,
    buffer: Mutex<Buffer>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A listener that panics must not take the client with it, and all producers and consumers of that.
    fn rebalanced(&self, event: RebalanceEvent) {
        let Some(RebalanceListener(listener)) = &self.config.rebalance_listener else { return };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(&event))) {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            let panic = text.unwrap_or_else(|| "no text".to_owned());
            self.lock().fail(Error::ListenerPanicked { event: format!("{event:?}"), panic });
        }
    }
}

impl Client {
    /// A new consumer. Errors: a config that cannot be.
    pub fn consumer(&self, config: ConsumerConfig) -> Result<Consumer> {
        config.check()?;
        let config = config.bounded();
        let shared = Arc::new(Shared { config, buffer: Mutex::new(Buffer::new()) });
        let theirs = shared.clone();
        let handle = self.handle.clone();
        let (tx, ended) = oneshot::channel();
        if !handle.post(move |core| driver::spawn(run(core.clone(), theirs, tx))) {
            return Err(Error::Closed);
        }
        Ok(Consumer { shared, handle, ended: Some(ended) })
    }
}

/// All that a consumer has on the driver; done when it is closed, has committed and left its group, or `close_timeout` after it was
/// closed.
async fn run(core: Rc<Core>, shared: Arc<Shared>, ended: oneshot::Sender<Result<()>>) {
    let news = Event::default();
    let limit = shared.config.close_timeout;
    let overdue = {
        let (shared, news) = (shared.clone(), news.clone());
        async move {
            loop {
                let told = news.listen();
                if shared.lock().closed.is_some() {
                    break;
                }
                told.await;
            }
            driver::sleep(if planted(Fault::ClosingWaits) { FOREVER } else { limit }).await;
        }
    };
    let outcome = match select(pin!(work(core, shared, news)), pin!(overdue)).await {
        Either::Left((outcome, _)) => outcome,
        Either::Right(_) => {
            Err(Error::Timeout { what: "close the consumer".into(), after: limit, last: None })
        }
    };
    // Nobody waits if it was dropped.
    let _ = ended.send(outcome);
}

/// The outcome is that of the last commit.
async fn work(core: Rc<Core>, shared: Arc<Shared>, news: Event) -> Result<()> {
    let fetching = fetcher::run(core.clone(), shared.clone(), news.clone());
    let Some(group) = shared.config.group.as_deref().map(Str::from) else {
        fetching.await;
        return Ok(());
    };
    let committing = commit::run(core.clone(), shared.clone(), news.clone(), group.clone());
    let others = async {
        let automatic = commit::automatically(shared.clone(), news.clone());
        let membership = group::run(core, shared.clone(), news.clone(), group);
        let ((), (), left) = join3(fetching, automatic, membership).await;
        // What was assigned by hand is still there.
        left.and(commit::last(&shared, &news).await)
    };
    match select(pin!(committing), pin!(others)).await {
        Either::Left(((), _)) => Err(Error::Closed),
        Either::Right((outcome, _)) => outcome,
    }
}

impl Consumer {
    /// Reads these partitions, and no others, from their committed offsets, or as `offset_reset` says. Partitions that it has
    /// already go on where they are. If commits are automatic, what was polled before the latest poll is committed.
    pub fn assign(&self, partitions: impl IntoIterator<Item = TopicPartition>) -> Result<()> {
        let mut buffer = self.shared.lock();
        if buffer.subscription.is_some() {
            return Err(Error::config(
                "the consumer is subscribed",
                "unsubscribe before assigning partitions",
            ));
        }
        self.commit_processed(&mut buffer);
        buffer.assign_by_hand(partitions);
        Ok(())
    }

    /// Joins the consumer's group for these topics, in place of those before. Partitions come with the first polls.
    pub fn subscribe<'a>(&self, topics: impl IntoIterator<Item = &'a str>) -> Result<()> {
        self.group()?;
        let topics: BTreeSet<Str> = topics.into_iter().map(Str::from).collect();
        if topics.is_empty() {
            return Err(Error::config("no topic is given", "name at least one, or unsubscribe"));
        }
        let mut buffer = self.shared.lock();
        if buffer.subscription.is_none() {
            // What was assigned by hand does not mix with what a group assigns.
            buffer.assign(BTreeMap::new());
        }
        buffer.subscribe(Some(topics));
        Ok(())
    }

    /// Leaves the group, and gives up all partitions. If commits are automatic, what was polled before the latest poll is committed.
    pub fn unsubscribe(&self) {
        let mut buffer = self.shared.lock();
        self.commit_processed(&mut buffer);
        buffer.subscribe(None);
        if self.shared.config.group.is_none() {
            buffer.assign(BTreeMap::new());
        }
    }

    /// Before partitions are given up, as far as commits are automatic.
    fn commit_processed(&self, buffer: &mut Buffer) {
        let config = &self.shared.config;
        if config.group.is_some() && config.auto_commit.is_some() {
            let uncommitted = buffer.uncommitted();
            drop(buffer.commit(uncommitted, Manner::Background));
        }
    }

    /// The partitions that it reads.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.lock().partitions.keys().cloned().collect()
    }

    /// Goes on at this offset. What was fetched and not polled is dropped.
    pub fn seek(&self, partition: &TopicPartition, offset: i64) -> Result<()> {
        self.shared.lock().seek(partition, Start::At(Position::at(offset)))
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
        let until = driver::now() + timeout.min(FOREVER);
        self.shared.lock().begin_poll(until);
        let polled = EndPoll(&self.shared);
        let records = poll_fn(|cx| {
            let records = match self.take_ready() {
                Ok(records) => records,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if records.is_empty() && driver::now() < until {
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
        let config = &self.shared.config;
        let (max, bytes_max) = (config.poll_records_max, config.poll_bytes_max);
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < max && (bytes < bytes_max || records.is_empty()) {
            let mut buffer = self.shared.lock();
            // What this poll has already cannot count as processed.
            if buffer.rebalance != Rebalance::None && !records.is_empty() {
                break;
            }
            match buffer.step(max - records.len(), bytes_max - bytes) {
                Step::Records(more) => {
                    bytes = (bytes + more.iter().map(ConsumerRecord::size).sum::<usize>()).min(bytes_max);
                    match records.is_empty() {
                        true => records = more,
                        false => records.extend(more),
                    }
                }
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

    /// Offsets by position or time, as this consumer's isolation sees them: with [`OffsetSpec::Timestamp`] what Kafka's clients call
    /// "offsets for times". In order of partitions.
    pub async fn offsets(
        &self,
        partitions: Vec<(TopicPartition, OffsetSpec)>,
    ) -> Result<Vec<(TopicPartition, Result<ListedOffset>)>> {
        let isolation = self.shared.config.isolation;
        let listed = self.handle.call(async move |core| {
            let deadline = core.deadline();
            Ok(leaders::list_offsets(&core, partitions, isolation, deadline).await)
        });
        listed.await
    }

    /// Commits the positions of all partitions: everything polled so far counts as processed.
    ///
    /// A consumer's commits, explicit, in the background and automatic, take effect in the order in which they were asked for: one is
    /// under way at a time, and what fails for a while is retried, for `api_timeout`, only where no newer offset waits. A partition
    /// that goes to another member takes its pending commits with it: they fail.
    ///
    /// Dropping the future stops the retries; a try that is under way may still take effect. So may one that was given up because its
    /// answer did not come in time: should the broker get to it later than to a newer one, that is undone until the next commit.
    pub async fn commit(&self) -> Result<()> {
        self.group()?;
        let told = {
            let mut buffer = self.shared.lock();
            let positions = commit::offsets(buffer.positions());
            buffer.commit(positions, Manner::Explicit)
        };
        told.await.unwrap_or(Err(Error::Closed))
    }

    /// Commits these offsets, each of the next record to read, in order with all other commits as [`commit`](Consumer::commit) says.
    /// An offset here may be below one that was committed before.
    pub async fn commit_offsets(&self, offsets: BTreeMap<TopicPartition, NewOffset>) -> Result<()> {
        self.group()?;
        let told = self.shared.lock().commit(offsets, Manner::Explicit);
        told.await.unwrap_or(Err(Error::Closed))
    }

    /// As [`commit`](Consumer::commit), without waiting: a failure is told by a later poll. It never undoes a later commit.
    pub fn commit_in_background(&self) -> Result<()> {
        self.group()?;
        let mut buffer = self.shared.lock();
        if let Some(error) = &buffer.closed {
            return Err(error.clone());
        }
        let positions = commit::offsets(buffer.positions());
        drop(buffer.commit(positions, Manner::Background));
        Ok(())
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

    /// For [`Producer::send_offsets`](crate::Producer::send_offsets): this consumer as a member of its group, at present.
    pub fn group_metadata(&self) -> Result<GroupMetadata> {
        let group = GroupMetadata::new(self.group()?);
        let buffer = self.shared.lock();
        Ok(match &buffer.committer {
            None => group,
            Some(committer) => GroupMetadata {
                generation: committer.generation,
                member_id: committer.member_id.as_str().to_owned(),
                instance_id: committer.instance_id.as_deref().map(str::to_owned),
                ..group
            },
        })
    }

    fn group(&self) -> Result<Str> {
        let group = self.shared.config.group.as_deref().map(Str::from);
        group.ok_or_else(|| Error::config("the consumer has no group", "set `group` in its config"))
    }

    /// Says that all that was polled is processed: commits it, if commits are automatic, waits for commits under way, and leaves the
    /// group. Takes `close_timeout` at most, brokers or no brokers.
    ///
    /// Errors: the last commits'; [`Error::Timeout`] if not all could be done in time. The consumer is closed in any case.
    ///
    /// Merely dropped, as after an error or a panic, a consumer leaves the group too, in the background, as long as the client lives. Of
    /// the records that its latest poll gave nothing is committed then: they are read again.
    pub async fn close(mut self) -> Result<()> {
        self.shared.lock().confirm_polled();
        self.ended().await
    }

    /// As [`close`](Consumer::close), except that what the latest poll gave does not count as processed: for when that went wrong.
    pub async fn abandon(mut self) -> Result<()> {
        self.ended().await
    }

    async fn ended(&mut self) -> Result<()> {
        self.end();
        match self.ended.take() {
            Some(ended) => ended.await.unwrap_or(Err(Error::Closed)),
            None => Ok(()),
        }
    }

    fn end(&self) {
        let mut buffer = self.shared.lock();
        buffer.closed.get_or_insert(Error::Closed);
        buffer.tell_driver();
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
        if planted(Fault::DroppedIsProcessed) {
            self.shared.lock().confirm_polled();
        }
        self.end();
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Consumer").field("config", &self.shared.config).finish_non_exhaustive()
    }
}
