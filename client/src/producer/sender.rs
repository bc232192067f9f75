//! The sender: the producer's task on the driver. It takes batches that are ready, sends them to their leaders, and settles what
//! becomes of them.

use super::Shared;
use super::accumulator::{Drained, DrainedBody, Verdict, Work};
use super::batch::stamped;
use super::config::Acks;
use super::coordinator::{self, Coordinator, UnderWay};
use super::delivery::Written;
use crate::core::{Core, Lane, Node};
use crate::driver::{self, Event, Listen};
use crate::error::{Error, Result};
use crate::hashing::{HashMap, HashSet};
use crate::metadata::Topic;
use crate::net::Connection;
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use bytes::Bytes;
use corelog_wire::messages::InitProducerIdRequest;
use corelog_wire::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse, TopicProduceData,
};
use corelog_wire::records::Producer;
use corelog_wire::{ErrorCode, Str, Uuid};
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

/// From this version on the initial record of an unknown id may come with any sequence; below it topics have no ids.
const TOPIC_IDS_FROM: i16 = 13;
/// The oldest version that carries v2 batches.
const V2_BATCHES_FROM: i16 = 3;

pub(super) struct Sender {
    core: Rc<Core>,
    shared: Arc<Shared>,
    lane: Lane,
    in_flight: RefCell<HashMap<i32, usize>>,
    connecting: RefCell<HashSet<i32>>,
    getting_id: Cell<bool>,
    /// In a row.
    id_failures: Cell<u32>,
    /// Of a transactional producer.
    coordinator: Option<Rc<Coordinator>>,
    adding: Cell<bool>,
    /// What kept batches from being delivered most recently.
    last_error: RefCell<Option<Error>>,
    changed: Event,
}

/// Tells all who wait when the sender ends, however it does.
struct FailOnDrop(Arc<Shared>);

impl Drop for FailOnDrop {
    fn drop(&mut self) {
        self.0.lock().fail_all(Error::Closed);
    }
}

pub(super) async fn run(core: Rc<Core>, shared: Arc<Shared>, lane: Lane) {
    let _guard = FailOnDrop(shared.clone());
    let sender = Rc::new(Sender {
        lane,
        coordinator: Coordinator::new(&core, &shared, lane).map(Rc::new),
        adding: Cell::new(false),
        core,
        shared,
        in_flight: RefCell::default(),
        connecting: RefCell::default(),
        getting_id: Cell::new(false),
        id_failures: Cell::new(0),
        last_error: RefCell::default(),
        changed: Event::default(),
    });
    loop {
        let (changed, updated) = (sender.changed.listen(), sender.core.updated.listen());
        let work = sender.take_work();
        let next = work.next;
        sender.do_work(work);
        {
            let mut accumulator = sender.shared.lock();
            if accumulator.closed.is_some() && accumulator.is_idle() {
                break;
            }
            accumulator.sender_comes = next;
        }
        sender.wait(next, changed, updated).await;
    }
    let abandoned = sender.shared.transaction(|transaction| Ok(transaction.abandon()));
    if let (Some(coordinator), Ok(true)) = (&sender.coordinator, abandoned) {
        // If it fails, the transaction's timeout ends it.
        let _ = coordinator.end(false).await;
    }
    sender.core.close_lane(sender.lane);
}

impl Sender {
    async fn wait(&self, until: Option<Instant>, changed: Listen, updated: Listen) {
        let (mut changed, mut updated) = (pin!(changed), pin!(updated));
        let told = poll_fn(|cx| {
            let news = self.shared.lock().poll_news(cx.waker());
            if updated.as_mut().poll(cx).is_ready() {
                self.update_topics();
                return Poll::Ready(());
            }
            if news || changed.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { Poll::Pending }
        });
        match until {
            Some(until) => drop(driver::timeout_at(until, told).await),
            None => told.await,
        }
    }

    fn update_topics(&self) {
        let mut accumulator = self.shared.lock();
        let metadata = self.core.metadata.borrow();
        for name in accumulator.topic_names() {
            self.core.want(&name);
            if let Some(topic) = metadata.topics.get(&name) {
                accumulator.set_topic(&name, topic);
            }
        }
    }

    fn take_work(&self) -> Work {
        let config = &self.shared.config;
        let metadata = self.core.metadata.borrow();
        // One topic's batches mostly come one after the other.
        let mut last: Option<(&Str, &Topic)> = None;
        let leader_of = |at: &TopicPartition| {
            let topic = match last.filter(|(name, _)| **name == at.topic) {
                Some((_, topic)) => topic,
                None => {
                    let (name, topic) = metadata.topics.get_key_value(&at.topic)?;
                    last.insert((name, topic)).1
                }
            };
            metadata.leader_in(topic, at.partition).map(|(leader, _)| leader)
        };
        let room_on = |node: i32| {
            let in_flight = self.in_flight.borrow().get(&node).copied().unwrap_or(0);
            let connected = self.core.connected(Node::Id(node), self.lane).is_some();
            if connected && in_flight < config.requests_in_flight_max { config.request_bytes_max } else { 0 }
        };
        let mut accumulator = self.shared.lock();
        accumulator.news = false;
        let brokers = metadata.brokers.len();
        accumulator.drain(config, driver::now(), brokers, leader_of, room_on, &self.last_error.borrow())
    }

    fn do_work(self: &Rc<Self>, work: Work) {
        for node in work.blocked {
            if self.core.connected(Node::Id(node), self.lane).is_none() {
                self.connect(node);
            }
        }
        if let Some(at) = work.leaderless {
            let no_leader = || Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, format!("produce to {at}"));
            self.last_error.replace(Some(self.core.refresh_error().unwrap_or_else(no_leader)));
            self.core.refresh_soon();
        }
        if self.restarts() && !self.shared.lock().is_empty() {
            let lost = self.shared.lock().identity.is_none();
            if lost {
                self.renew_id();
            }
        }
        for (node, drained) in work.by_node {
            self.send(node, drained);
        }
        if let Some(coordinator) = &self.coordinator {
            self.add_partitions(coordinator);
        }
    }

    /// One request at a time: what comes meanwhile shares the next.
    fn add_partitions(self: &Rc<Self>, coordinator: &Rc<Coordinator>) {
        if self.adding.get() {
            return;
        }
        let asked = self.shared.lock().partitions_to_add();
        if asked.is_empty() {
            return;
        }
        self.adding.set(true);
        let under_way = UnderWay::counted(&self.shared);
        let (sender, coordinator) = (self.clone(), coordinator.clone());
        driver::spawn(async move {
            coordinator.add_partitions(asked, under_way).await;
            sender.adding.set(false);
            sender.changed.notify();
        });
    }

    fn connect(self: &Rc<Self>, node: i32) {
        if !self.connecting.borrow_mut().insert(node) {
            return;
        }
        let sender = self.clone();
        driver::spawn(async move {
            if let Err(error) = sender.core.connection(Node::Id(node), sender.lane).await {
                sender.last_error.replace(Some(error));
                sender.core.refresh_soon();
            }
            sender.connecting.borrow_mut().remove(&node);
            sender.changed.notify();
        });
    }

    fn renew_id(self: &Rc<Self>) {
        if self.getting_id.replace(true) {
            return;
        }
        let sender = self.clone();
        driver::spawn(async move {
            match producer_id(&sender.core, sender.core.deadline()).await {
                Ok(identity) => {
                    sender.id_failures.set(0);
                    // One who sends may have been quicker.
                    sender.shared.lock().identity.get_or_insert(identity);
                }
                Err(error) => {
                    sender.last_error.replace(Some(error));
                    let failures = sender.id_failures.get();
                    sender.id_failures.set(failures.saturating_add(1));
                    driver::sleep(sender.core.backoff(failures)).await;
                }
            }
            sender.getting_id.set(false);
            sender.changed.notify();
        });
    }

    /// One request to one broker, with a batch for each of some partitions.
    fn send(self: &Rc<Self>, node: i32, drained: Vec<Drained>) {
        let mut sent = HashMap::default();
        let mut records = Vec::new();
        for mut batch in drained {
            let body = std::mem::replace(&mut batch.body, DrainedBody::Built(Bytes::new()));
            let built = match body {
                DrainedBody::Built(bytes) => Ok(bytes),
                DrainedBody::Sealed(builder) => builder.build(),
            };
            match built {
                Ok(bytes) => {
                    let stamp = match planted(Fault::BatchesAreUnnumbered) {
                        true => Some(Producer { id: -1, epoch: -1, base_sequence: -1 }),
                        false => batch.stamp,
                    };
                    let bytes = stamped(bytes, stamp);
                    self.shared.lock().set_built(&batch, bytes.clone());
                    records.push((batch.at.clone(), bytes));
                    sent.insert(batch.at, (batch.queue, batch.number));
                }
                Err(source) => {
                    let topic = batch.at.topic.as_str().to_owned();
                    let error = Error::Build { topic, partition: batch.at.partition, source };
                    self.finish(batch.queue, batch.number, Verdict::Failed(error));
                }
            }
        }
        if sent.is_empty() {
            return;
        }
        *self.in_flight.borrow_mut().entry(node).or_default() += 1;
        let lost =
            || Error::Disconnected { address: format!("broker {node}"), reason: "before sending".into() };
        let connection = self.core.connected(Node::Id(node), self.lane);
        let made = connection.ok_or_else(lost).and_then(|connection| {
            let (request, version) = self.request(&connection, records)?;
            Ok((connection, request, version))
        });
        let (connection, request, version) = match made {
            Ok(made) => made,
            Err(error) => return self.settle_all(node, sent, &error, false),
        };
        if self.shared.config.acks == Acks::None {
            match connection.send_without_answer(&request, version) {
                Ok(()) => self.settle_unheard(node, sent, connection),
                Err(error) => self.settle_all(node, sent, &error, false),
            }
            return;
        }
        // Queued here and now: the order of requests is the order of these calls.
        let answer = match connection.send(&request, version, self.core.config.request_timeout) {
            Ok(answer) => answer,
            Err(error) => return self.settle_all(node, sent, &error, false),
        };
        // What metadata says may change meanwhile.
        let names = request.topic_data.into_iter().map(|topic| (topic.topic_id, topic.name)).collect();
        let sender = self.clone();
        driver::spawn(async move {
            match answer.wait().await {
                Ok(response) => sender.settle(node, sent, &names, response),
                Err(error) => sender.settle_all(node, sent, &error, true),
            }
        });
    }

    fn request(
        &self,
        connection: &Connection,
        records: Vec<(TopicPartition, Bytes)>,
    ) -> Result<(ProduceRequest, i16)> {
        let metadata = self.core.metadata.borrow();
        let has_ids = records.iter().all(|(at, _)| !metadata.topic_id(&at.topic).is_zero());
        let cap = match &self.coordinator {
            Some(_) => coordinator::PRODUCE_MAX,
            None if has_ids => i16::MAX,
            None => TOPIC_IDS_FROM - 1,
        };
        let version = connection.pick_max::<ProduceRequest>(cap)?;
        if version < V2_BATCHES_FROM {
            return Err(Error::Unsupported {
                address: connection.address.clone(),
                api: "Produce",
                theirs: Some((0, version)),
                ours: (V2_BATCHES_FROM, TOPIC_IDS_FROM),
            });
        }
        let topics = crate::topic_partition::by_topic(records);
        let topic_data = topics.into_iter().map(|(name, partitions)| TopicProduceData {
            topic_id: metadata.topic_id(&name),
            name,
            partition_data: partitions
                .into_iter()
                .map(|(index, records)| PartitionProduceData { index, records: Some(records) })
                .collect(),
        });
        let request = ProduceRequest {
            transactional_id: self.shared.config.transactional_id.as_deref().map(Str::from),
            acks: self.shared.config.acks.on_the_wire(),
            timeout_ms: self.core.config.request_timeout.as_millis().try_into().unwrap_or(i32::MAX),
            topic_data: topic_data.collect(),
        };
        Ok((request, version))
    }

    /// With acks 0: done when it has left for the kernel, so that the buffer's bound means something. A broker that takes nothing for as
    /// long as others may take to answer is given up.
    fn settle_unheard(
        self: &Rc<Self>,
        node: i32,
        sent: HashMap<TopicPartition, (usize, u64)>,
        connection: Rc<Connection>,
    ) {
        let sender = self.clone();
        driver::spawn(async move {
            let timeout = sender.core.config.request_timeout;
            let written = match driver::timeout_at(driver::now() + timeout, connection.written()).await {
                Some(written) => written,
                None => {
                    let address = connection.address.clone();
                    let reason = format!("it took no Produce within {timeout:?}");
                    let error = Error::Disconnected { address, reason };
                    connection.close(error.clone());
                    Err(error)
                }
            };
            for (queue, number) in sent.into_values() {
                let verdict = match &written {
                    Ok(()) => Verdict::Written(Written { base_offset: -1, append_time: -1 }),
                    // The kernel may have taken it before.
                    Err(error) => Verdict::Unclear(error.clone()),
                };
                sender.finish(queue, number, verdict);
            }
            sender.request_done(node);
        });
    }

    fn settle(
        &self,
        node: i32,
        mut sent: HashMap<TopicPartition, (usize, u64)>,
        names: &HashMap<Uuid, Str>,
        response: ProduceResponse,
    ) {
        for topic in response.responses {
            let name = match topic.topic_id.is_zero() {
                true => topic.name,
                false => match names.get(&topic.topic_id) {
                    Some(name) => name.clone(),
                    None => continue,
                },
            };
            for answer in topic.partition_responses {
                let at = TopicPartition { topic: name.clone(), partition: answer.index };
                if let Some((queue, number)) = sent.remove(&at) {
                    let verdict = self.verdict(&at, queue, number, answer);
                    self.finish(queue, number, verdict);
                }
            }
        }
        if sent.is_empty() {
            self.request_done(node);
        } else {
            let error = Error::Broker {
                code: ErrorCode::UNKNOWN_SERVER_ERROR,
                what: format!("produce to broker {node}"),
                message: Some("its answer does not name all the partitions asked for".into()),
            };
            self.settle_all(node, sent, &error, true);
        }
    }

    fn verdict(
        &self,
        at: &TopicPartition,
        queue: usize,
        number: u64,
        answer: PartitionProduceResponse,
    ) -> Verdict {
        let code = ErrorCode(answer.error_code);
        let written = Written { base_offset: answer.base_offset, append_time: answer.log_append_time_ms };
        if code.is_ok() || code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER {
            return Verdict::Written(written);
        }
        let records =
            answer.record_errors.iter().filter_map(|record| record.batch_index_error_message.as_deref());
        let message = answer.error_message.as_deref().or(records.into_iter().next());
        let error = match Error::check_with(code.code(), message, || format!("produce to {at}")) {
            Err(error) => error,
            Ok(()) => return Verdict::Written(written),
        };
        let idempotent = self.shared.config.idempotent;
        let restarts = self.restarts();
        let verdict = match code {
            // An earlier batch is on its way again, and this one comes after it.
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER
                if idempotent && !self.shared.lock().is_first(queue, number) =>
            {
                Verdict::Retry
            }
            // The broker no longer knows what it has of ours (KIP-360).
            ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER | ErrorCode::UNKNOWN_PRODUCER_ID if restarts => {
                Verdict::Restart
            }
            ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::INVALID_PRODUCER_ID_MAPPING if restarts => {
                self.shared.lock().lose_identity(queue);
                Verdict::Restart
            }
            ErrorCode::REQUEST_TIMED_OUT
            | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
            | ErrorCode::KAFKA_STORAGE_ERROR => Verdict::Doubt,
            // It may have written it, and ceased to lead while it waited for the replicas.
            ErrorCode::NOT_LEADER_OR_FOLLOWER if self.shared.config.acks == Acks::All => Verdict::Doubt,
            _ if code.is_retriable() => Verdict::Retry,
            _ => Verdict::Failed(error.clone()),
        };
        if code.wants_metadata_refresh() {
            self.core.refresh_soon();
        }
        self.last_error.replace(Some(error));
        verdict
    }

    /// Whether a broken sequence goes on under an identity that it gives itself. In a transaction that would make two of one.
    fn restarts(&self) -> bool {
        self.shared.config.idempotent && self.coordinator.is_none()
    }

    /// All of a request's batches fared alike.
    fn settle_all(
        &self,
        node: i32,
        sent: HashMap<TopicPartition, (usize, u64)>,
        error: &Error,
        may_have_arrived: bool,
    ) {
        self.last_error.replace(Some(error.clone()));
        if error.wants_metadata() {
            self.core.refresh_soon();
        }
        for (queue, number) in sent.into_values() {
            let verdict = match (error.is_retriable(), may_have_arrived) {
                (true, true) if planted(Fault::LostAnswerIsYes) => {
                    Verdict::Written(Written { base_offset: -1, append_time: -1 })
                }
                (true, true) => Verdict::Doubt,
                (true, false) => Verdict::Retry,
                (false, true) if !matches!(error, Error::Closed) => Verdict::Unclear(error.clone()),
                (false, _) => Verdict::Failed(error.clone()),
            };
            self.finish(queue, number, verdict);
        }
        self.request_done(node);
    }

    fn finish(&self, queue: usize, number: u64, verdict: Verdict) {
        self.shared.lock().finish(queue, number, verdict, |failures| self.core.backoff(failures));
    }

    fn request_done(&self, node: i32) {
        if let Some(in_flight) = self.in_flight.borrow_mut().get_mut(&node) {
            *in_flight -= 1;
        }
        self.changed.notify();
    }
}

/// A producer id of one's own, at epoch 0.
pub(super) async fn producer_id(core: &Rc<Core>, deadline: Instant) -> Result<(i64, i16)> {
    core.retry("get a producer id", deadline, async || {
        let connection = core.any(Lane::SHARED).await?;
        let request = InitProducerIdRequest { transaction_timeout_ms: i32::MAX, ..Default::default() };
        let response = connection.call(&request).await?;
        Error::check(response.error_code, || "get a producer id".into())?;
        Ok((response.producer_id, response.producer_epoch))
    })
    .await
}
