//! Where records wait for the sender: a queue of batches per partition, within one bound of bytes.
//!
//! A batch stays at its place in its queue until it is known what the broker did with it, so the queue's order is the order of the
//! partition. What is sent is always the first batch that is not in flight, and only while no later one is: a retry overtakes
//! nothing. It may be overtaken by batches that were in flight behind it when it failed: of an idempotent producer the broker refuses
//! them, their sequence numbers being too high; of another it takes them, and only with one request in flight there are none.
//!
//! A batch whose time is over while the broker may have it is told to have failed, but keeps its place until its request is settled.
//! Whether its sequence numbers were used is then often not known: see [`Gap`].

use super::batch::{Batch, Body};
use super::config::ProducerConfig;
use super::delivery::{Delivery, Written};
use super::partitioner::Chooser;
use super::record::ProducerRecord;
use super::transaction::{Membership, Transaction};
use crate::driver;
use crate::error::{Error, Result};
use crate::hashing::HashMap;
use crate::metadata::Topic;
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use bytes::Bytes;
use corelog_wire::ErrorCode;
use corelog_wire::Str;
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer};
use std::collections::{BTreeSet, VecDeque};
use std::task::Waker;
use std::time::{Duration, Instant};

/// All partitions with batches are looked at this often at the least, for those whose time is over.
const LOOK_THROUGH: Duration = Duration::from_millis(50);

pub(super) struct Accumulator {
    topics: HashMap<Str, TopicQueues>,
    queues: Vec<Queue>,
    /// Places in `queues` of those that are listed, in turn: all that are not empty, and some that have run empty since.
    active: VecDeque<usize>,
    /// When all of them were last looked at.
    looked_through: Option<Instant>,
    buffered: usize,
    /// Numbers of batches without an outcome.
    incomplete: BTreeSet<u64>,
    next_number: u64,
    /// Who waits for room, and until when.
    waiting: Vec<(Waker, Instant)>,
    flushing: Vec<Waker>,
    sender: Option<Waker>,
    /// Something is new to the sender.
    pub(super) news: bool,
    /// The sender comes by then without being told.
    pub(super) sender_comes: Option<Instant>,
    /// Producer id and the newest epoch in use, if idempotent.
    pub(super) identity: Option<(i64, i16)>,
    /// Of a transactional producer.
    pub(super) transaction: Option<Transaction>,
    /// No more records are taken.
    pub(super) closed: Option<Error>,
}

struct TopicQueues {
    queues: Vec<usize>,
    available: Vec<i32>,
    chooser: Chooser,
}

struct Queue {
    at: TopicPartition,
    batches: VecDeque<Batch>,
    /// Whether it is among the active.
    is_listed: bool,
    in_flight: usize,
    /// The broker that has those in flight.
    in_flight_on: i32,
    retry_at: Option<Instant>,
    failures: u32,
    /// Whose sequence it is.
    identity: Option<(i64, i16)>,
    /// Of the next batch that is sent for the first time.
    next_sequence: i32,
    gap: Gap,
    /// The broker has a batch of this identity. Until then it takes any sequence number for the first: were two in flight and the
    /// first one refused, as by a leader that is not ready, the second would become the first.
    is_known: bool,
    /// Of a transactional producer's partition.
    membership: Membership,
    /// Size of the last full batch, as a guess at the next.
    room: usize,
}

/// Whether numbers are missing in a partition's sequence, as the broker has it. If so, the sequence starts anew, under a new epoch, once
/// nothing is in flight: then whatever may still come of the old one is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gap {
    None,
    /// Perhaps: a doubtful batch was given up. Those that were sent behind it go on under their numbers, lest what the broker has is written
    /// again. If it takes one, it has those before; when there are no such, nobody tells.
    Unresolved,
    Certain,
}

pub(super) enum Append {
    Done(Delivery),
    UnknownTopic,
    NoRoom,
}

/// A batch that is to be sent now.
pub(super) struct Drained {
    pub(super) queue: usize,
    pub(super) number: u64,
    pub(super) at: TopicPartition,
    pub(super) body: DrainedBody,
    pub(super) stamp: Option<Producer>,
}

pub(super) enum DrainedBody {
    Sealed(BatchBuilder),
    Built(Bytes),
}

/// What the sender has to do.
#[derive(Default)]
pub(super) struct Work {
    pub(super) by_node: HashMap<i32, Vec<Drained>>,
    /// When there may be more to do without anything else happening.
    pub(super) next: Option<Instant>,
    /// Brokers that batches are ready for, but that cannot take them now.
    pub(super) blocked: BTreeSet<i32>,
    /// One of the partitions that have no known leader.
    pub(super) leaderless: Option<TopicPartition>,
}

/// What a broker said of a batch.
pub(super) enum Verdict {
    Written(Written),
    /// It does not have it. It may be sent again.
    Retry,
    /// Nothing, or that it is not sure: it may have it, or get it yet. It may be sent again as it was.
    Doubt,
    /// The sequence is broken at this batch: it goes on under a new epoch.
    Restart,
    Failed(Error),
    /// It failed, and the broker may have it all the same.
    Unclear(Error),
}

impl Accumulator {
    pub(super) fn new(transaction: Option<Transaction>) -> Accumulator {
        Accumulator {
            topics: HashMap::default(),
            queues: Vec::new(),
            active: VecDeque::new(),
            looked_through: None,
            buffered: 0,
            incomplete: BTreeSet::new(),
            next_number: 0,
            waiting: Vec::new(),
            flushing: Vec::new(),
            sender: None,
            news: false,
            sender_comes: None,
            identity: None,
            transaction,
            closed: None,
        }
    }

    /// Adds a topic, or what is new of it.
    pub(super) fn set_topic(&mut self, name: &Str, topic: &Topic) {
        let known = self.topics.entry(name.clone()).or_insert_with(|| TopicQueues {
            queues: Vec::new(),
            available: Vec::new(),
            chooser: Chooser::default(),
        });
        // Partitions are numbered from 0 without gaps, and never become fewer.
        for partition in known.queues.len()..topic.partitions.len() {
            known.queues.push(self.queues.len());
            self.queues.push(Queue {
                at: TopicPartition { topic: name.clone(), partition: partition as i32 },
                batches: VecDeque::new(),
                is_listed: false,
                in_flight: 0,
                in_flight_on: -1,
                retry_at: None,
                failures: 0,
                identity: None,
                next_sequence: 0,
                gap: Gap::None,
                is_known: false,
                membership: Membership::default(),
                room: 0,
            });
        }
        let led = topic.partitions.iter().filter(|partition| partition.leader.is_some());
        known.available = led.map(|partition| partition.partition).collect();
    }

    pub(super) fn topic_names(&self) -> Vec<Str> {
        self.topics.keys().cloned().collect()
    }

    pub(super) fn partitions(&self, topic: &str) -> Option<usize> {
        self.topics.get(topic).map(|topic| topic.queues.len())
    }

    pub(super) fn append(
        &mut self,
        config: &ProducerConfig,
        record: &ProducerRecord,
        now_ms: i64,
    ) -> Result<Append> {
        if let Some(error) = &self.closed {
            return Err(error.clone());
        }
        if let Some(transaction) = &self.transaction {
            transaction.check_open()?;
        }
        let len = record.size_max();
        if len > config.request_bytes_max {
            let topic = record.topic.as_str().to_owned();
            return Err(Error::RecordTooLarge { topic, len, limit: config.request_bytes_max });
        }
        if self.buffered + len > config.buffer_bytes_max && self.buffered > 0 {
            return Ok(Append::NoRoom);
        }
        if config.idempotent && self.identity.is_none() {
            return Ok(Append::UnknownTopic);
        }
        let Some(topic) = self.topics.get_mut(&record.topic) else { return Ok(Append::UnknownTopic) };
        let count = topic.queues.len();
        let mut sealed = false;
        if record.partition.is_none() && record.key.is_none() {
            // A full batch goes out, and the next one begins elsewhere. Else each would leave a remainder behind, to go out alone.
            if let Some(&place) = topic.chooser.sticky().and_then(|sticky| topic.queues.get(sticky as usize))
                && self.queues[place].seal_full(len, config)
            {
                topic.chooser.leave();
                sealed = true;
            }
        }
        let partition = record.partition.unwrap_or_else(|| {
            topic.chooser.choose(
                &config.partitioner,
                record,
                count as u32,
                &topic.available,
                config.batch_bytes,
            )
        });
        let place = usize::try_from(partition).ok().and_then(|partition| topic.queues.get(partition));
        let Some(&place) = place else {
            return Err(Error::Broker {
                code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                what: format!("send to {}-{partition}", record.topic),
                message: Some(format!("the topic has {count} partitions, numbered from 0")),
            });
        };
        let delivery = self.append_to(place, config, record, record.timestamp.unwrap_or(now_ms), len)?;
        if sealed {
            self.tell_sender();
        }
        Ok(Append::Done(delivery))
    }

    fn append_to(
        &mut self,
        place: usize,
        config: &ProducerConfig,
        record: &ProducerRecord,
        timestamp: i64,
        len: usize,
    ) -> Result<Delivery> {
        let queue = &mut self.queues[place];
        let partition = queue.at.partition;
        let build_error =
            |source| Error::Build { topic: record.topic.as_str().to_owned(), partition, source };
        let mut sealed = queue.seal_full(len, config);
        let has_open = queue.batches.back().is_some_and(Batch::is_open);
        let mut enlisted = false;
        if !has_open {
            if let Some(transaction) = &mut self.transaction {
                enlisted = transaction.enlist(place, &mut queue.membership);
            }
            queue.open(self.next_number, config, self.identity);
            self.incomplete.insert(self.next_number);
            self.next_number += 1;
            if !std::mem::replace(&mut queue.is_listed, true) {
                self.active.push_back(place);
            }
        }
        let batch = queue.batches.back_mut().expect("one was just opened if there was none");
        let (delivery, taken) = batch.append(record, timestamp).map_err(build_error)?;
        self.buffered += taken;
        if batch.bytes >= config.batch_bytes {
            queue.room = batch.bytes;
            batch.seal();
            sealed = true;
        }
        if sealed
            || enlisted
            || (!has_open && self.sender_comes.is_none_or(|at| at > batch.opened + config.linger))
        {
            self.tell_sender();
        }
        Ok(delivery)
    }

    pub(super) fn tell_sender(&mut self) {
        self.news = true;
        if let Some(sender) = &self.sender {
            sender.wake_by_ref();
        }
    }

    /// Whether something is new to the sender; it is woken if that comes later.
    pub(super) fn poll_news(&mut self, waker: &Waker) -> bool {
        match &mut self.sender {
            Some(sender) => sender.clone_from(waker),
            None => self.sender = Some(waker.clone()),
        }
        std::mem::take(&mut self.news)
    }

    /// Wakes this sender of records when there is room, or at the latest then.
    pub(super) fn wait_for_room(&mut self, waker: &Waker, until: Instant) {
        if !self.waiting.iter().any(|(waiting, _)| waiting.will_wake(waker)) {
            self.waiting.push((waker.clone(), until));
        }
        // Those who wait must not wait for batches to fill.
        self.tell_sender();
    }

    /// Seals what is open; returns the number that all its batches are below.
    pub(super) fn seal_all(&mut self) -> u64 {
        for place in &self.active {
            self.queues[*place].batches.back_mut().into_iter().for_each(Batch::seal);
        }
        self.tell_sender();
        self.next_number
    }

    /// Whether all batches below the number have an outcome, and nothing else adds to the transaction; the waker is woken as outcomes
    /// come.
    pub(super) fn poll_flushed(&mut self, below: u64, waker: &Waker) -> bool {
        let done = self.incomplete.first().is_none_or(|first| *first >= below) && !self.is_adding();
        if !done && !self.flushing.iter().any(|flushing| flushing.will_wake(waker)) {
            self.flushing.push(waker.clone());
        }
        done
    }

    pub(super) fn is_empty(&self) -> bool {
        self.incomplete.is_empty()
    }

    /// Something other than records is on its way into the transaction.
    fn is_adding(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.under_way > 0)
    }

    /// Nothing is without an outcome, and no call waits for one of a transaction.
    pub(super) fn is_idle(&self) -> bool {
        let has_turn = self.transaction.as_ref().is_some_and(Transaction::has_turn);
        self.is_empty() && !self.is_adding() && !has_turn
    }

    /// Takes what can be sent: `leader_of` finds brokers, of which there are `brokers`, `room_on` says how many bytes a broker
    /// can take now in one request.
    pub(super) fn drain(
        &mut self,
        config: &ProducerConfig,
        now: Instant,
        brokers: usize,
        mut leader_of: impl FnMut(&TopicPartition) -> Option<i32>,
        mut room_on: impl FnMut(i32) -> usize,
        last_error: &Option<Error>,
    ) -> Work {
        let mut work = Work::default();
        // When it comes next is not known before it is done: until then it is told of whatever comes.
        self.sender_comes = None;
        let mut room: HashMap<i32, usize> = HashMap::default();
        let hurry = !self.waiting.is_empty() || self.closed.is_some();
        self.waiting.retain(|(waker, until)| {
            let over = *until <= now;
            match over {
                true => waker.wake_by_ref(),
                false => sooner(&mut work.next, *until),
            }
            !over
        });
        let mut served = Vec::new();
        // Batches that wait for a busy broker may be thousands: they are not all looked at each time it answers.
        let until = self.looked_through.map(|at| at + LOOK_THROUGH);
        let mut unseen = self.active.len();
        let mut unserved = 0;
        while unseen > 0 {
            let is_over = !work.blocked.is_empty() && work.blocked.len() >= brokers;
            if let Some(until) = until.filter(|until| *until > now && is_over) {
                sooner(&mut work.next, until);
                // Those that were not served come first the next time.
                self.active.rotate_right(unserved);
                break;
            }
            unseen -= 1;
            let Some(place) = self.active.pop_front() else { break };
            self.expire(place, config, now, last_error);
            let queue = &mut self.queues[place];
            if queue.batches.is_empty() {
                queue.is_listed = false;
                continue;
            }
            self.active.push_back(place);
            unserved += 1;
            if let Some(first) = queue.batches.iter().find(|batch| !batch.given_up) {
                sooner(&mut work.next, first.opened + config.delivery_timeout);
            }
            if let Some(at) = queue.retry_at.filter(|at| *at > now) {
                sooner(&mut work.next, at);
                continue;
            }
            if config.idempotent && !self.settle_sequence(place, last_error) {
                continue;
            }
            let queue = &mut self.queues[place];
            let Some(at) = queue.batches.iter().position(|batch| !batch.in_flight) else { continue };
            if queue.batches.iter().skip(at).any(|batch| batch.in_flight) || queue.batches[at].given_up {
                continue;
            }
            let batch = &mut queue.batches[at];
            if batch.is_open() && !hurry && batch.opened + config.linger > now {
                sooner(&mut work.next, batch.opened + config.linger);
                continue;
            }
            if self.transaction.as_ref().is_some_and(|transaction| !transaction.has(&queue.membership)) {
                continue;
            }
            let Some(node) = leader_of(&queue.at) else {
                work.leaderless.get_or_insert_with(|| queue.at.clone());
                continue;
            };
            let must_be_alone = queue.in_flight_on != node || (config.idempotent && !queue.is_known);
            if queue.in_flight > 0 && must_be_alone {
                continue;
            }
            let left = *room.entry(node).or_insert_with(|| room_on(node));
            let drained = work.by_node.entry(node).or_default();
            if left == 0 || (!drained.is_empty() && left < batch.bytes) {
                work.blocked.insert(node);
                continue;
            }
            room.insert(node, left.saturating_sub(batch.bytes));
            batch.seal();
            let body = match std::mem::replace(&mut batch.body, Body::Taken) {
                Body::Sealed(builder) => DrainedBody::Sealed(builder),
                Body::Built(bytes) => {
                    batch.body = Body::Built(bytes.clone());
                    DrainedBody::Built(bytes)
                }
                Body::Open(_) | Body::Taken => unreachable!("sealed above; taken ones are in flight"),
            };
            if let Some((id, epoch)) = queue.identity.filter(|_| !batch.numbered) {
                batch.stamp = Some(Producer { id, epoch, base_sequence: queue.next_sequence });
                batch.numbered = true;
                queue.next_sequence = after(queue.next_sequence, batch.records);
            }
            batch.in_flight = true;
            let (number, stamp) = (batch.number, batch.stamp);
            queue.in_flight += 1;
            queue.in_flight_on = node;
            drained.push(Drained { queue: place, number, at: queue.at.clone(), body, stamp });
            self.active.pop_back();
            unserved -= 1;
            served.push(place);
        }
        if unseen == 0 {
            self.looked_through = Some(now);
        }
        self.active.extend(served);
        work.by_node.retain(|_, drained| !drained.is_empty());
        work
    }

    /// Fails batches whose time is over. They are at the front: later ones were opened later.
    fn expire(&mut self, place: usize, config: &ProducerConfig, now: Instant, last_error: &Option<Error>) {
        let queue = &mut self.queues[place];
        let is_over = |batch: &Batch| !batch.given_up && batch.opened + config.delivery_timeout <= now;
        if !queue.batches.iter().find(|batch| !batch.given_up).is_some_and(is_over) {
            return;
        }
        let (after, last) = (config.delivery_timeout, last_error.clone().map(Box::new));
        let what = format!("delivery to {}", queue.at);
        let mut first = None;
        for batch in queue.batches.iter_mut().filter(|batch| is_over(batch)) {
            batch.seal();
            batch.given_up = true;
            let (what, last) = (what.clone(), last.clone());
            let may_be_written = batch.in_flight || batch.doubtful;
            let error = match may_be_written && !planted(Fault::DoubtIsNo) {
                true => Error::NotAcknowledged { what, after, last },
                false => Error::Timeout { what, after, last },
            };
            batch.outcome.complete(Err(error.clone()));
            first.get_or_insert(error);
            // A transaction must not end before what may come to belong to it is there.
            if self.transaction.is_none() {
                self.incomplete.remove(&batch.number);
            }
        }
        self.drop_given_up(place);
        first.iter().for_each(|error| self.record_failed(error));
        self.wake_all();
    }

    /// Removes those that were given up and that no request will tell more of.
    fn drop_given_up(&mut self, place: usize) {
        let queue = &mut self.queues[place];
        while let Some(batch) = queue.batches.pop_front_if(|first| first.given_up && !first.in_flight) {
            if batch.numbered && queue.gap != Gap::Certain {
                queue.gap = if batch.doubtful { Gap::Unresolved } else { Gap::Certain };
            }
            self.incomplete.remove(&batch.number);
            self.buffered -= batch.bytes;
        }
    }

    /// Keeps what was built, for retries.
    pub(super) fn set_built(&mut self, drained: &Drained, bytes: Bytes) {
        let queue = &mut self.queues[drained.queue];
        if let Some(batch) = queue.batches.iter_mut().find(|batch| batch.number == drained.number) {
            batch.body = Body::Built(bytes);
        }
    }

    /// Takes what became of a batch that was in flight. `backoff` is for the number of failures in a row.
    pub(super) fn finish(
        &mut self,
        place: usize,
        number: u64,
        verdict: Verdict,
        backoff: impl Fn(u32) -> Duration,
    ) {
        let queue = &mut self.queues[place];
        let Some(at) = queue.batches.iter().position(|batch| batch.number == number) else { return };
        queue.in_flight -= 1;
        queue.batches[at].in_flight = false;
        queue.batches[at].doubtful |= matches!(verdict, Verdict::Doubt | Verdict::Unclear(_));
        let outcome = match verdict {
            Verdict::Written(written) => {
                (queue.failures, queue.retry_at) = (0, None);
                queue.is_known = true;
                if queue.gap == Gap::Unresolved {
                    queue.gap = Gap::None;
                }
                Some(Ok(written))
            }
            Verdict::Retry | Verdict::Doubt | Verdict::Restart => {
                queue.retry_at = Some(driver::now() + backoff(queue.failures));
                queue.failures += 1;
                if matches!(verdict, Verdict::Restart) {
                    queue.gap = Gap::Certain;
                }
                None
            }
            Verdict::Failed(error) | Verdict::Unclear(error) => {
                // Its sequence numbers will never come, or have come already.
                queue.gap = Gap::Certain;
                Some(Err(error))
            }
        };
        if let Some(outcome) = outcome {
            let batch = queue.batches.remove(at).expect("found above");
            self.incomplete.remove(&number);
            self.buffered -= batch.bytes;
            let failure = outcome.as_ref().err().cloned();
            batch.outcome.complete(match outcome {
                // That one try was refused says nothing of those before it.
                Err(error) if batch.doubtful => Err(Error::NotAcknowledged {
                    what: format!("delivery to {}", queue.at),
                    after: driver::elapsed(batch.opened),
                    last: Some(Box::new(error)),
                }),
                outcome => outcome,
            });
            if let Some(error) = failure {
                self.record_failed(&error);
            }
        }
        self.drop_given_up(place);
        self.wake_all();
    }

    /// Has the transaction fail, if there is one: then nothing more of it is sent.
    pub(super) fn record_failed(&mut self, error: &Error) {
        if let Some(transaction) = &mut self.transaction {
            transaction.record_failed(error);
            self.drop_failed();
        }
    }

    /// As [`Accumulator::record_failed`], of a record that is not even here.
    pub(super) fn send_failed(&mut self, error: &Error) {
        if let Some(transaction) = &mut self.transaction {
            transaction.send_failed(error);
            self.drop_failed();
        }
    }

    /// Takes a coordinator's refusal; returns what to tell the application.
    pub(super) fn transaction_refused(&mut self, error: &Error) -> Error {
        let Some(transaction) = &mut self.transaction else { return error.clone() };
        let error = transaction.request_failed(error);
        self.drop_failed();
        error
    }

    /// Drops what a transaction that has failed does not need any more.
    pub(super) fn drop_failed(&mut self) {
        let failure = self.transaction.as_ref().and_then(Transaction::failure);
        if let Some((error, is_fatal)) = failure.map(|(error, is_fatal)| (error.clone(), is_fatal)) {
            self.drop_batches(&error, is_fatal);
        }
    }

    /// Fails what was never sent, as if it had not been there. Batches that a broker may have keep
    /// being sent, lest one comes there after the transaction's end; with `also_sent` only those stay that are in flight.
    pub(super) fn drop_batches(&mut self, error: &Error, also_sent: bool) {
        for queue in &mut self.queues {
            while let Some(batch) =
                queue.batches.pop_back_if(|last| !last.in_flight && (also_sent || !last.numbered))
            {
                self.incomplete.remove(&batch.number);
                self.buffered -= batch.bytes;
                batch.outcome.complete(Err(error.clone()));
            }
        }
        self.wake_all();
    }

    /// Starts a partition's sequence anew if need be, and if that can be. Says whether its batches may be sent.
    fn settle_sequence(&mut self, place: usize, last_error: &Option<Error>) -> bool {
        let queue = &self.queues[place];
        let Some((id, epoch)) = self.identity else { return false };
        let is_begun = queue.batches.front().is_some_and(|first| first.numbered);
        let must_restart = match queue.gap {
            // A transaction that has a gap fails, and its coordinator gives the next epoch.
            _ if self.transaction.is_some() => false,
            Gap::None => false,
            Gap::Unresolved => !is_begun,
            Gap::Certain => true,
        };
        if queue.in_flight > 0 {
            return !must_restart;
        }
        if must_restart && queue.identity == self.identity {
            // The sender gets a new id when the epochs are used up. Until it has one the gap stays: nothing goes out under its old number.
            self.identity = if epoch < i16::MAX { Some((id, epoch + 1)) } else { None };
        }
        let Some((id, epoch)) = self.identity else { return false };
        if must_restart {
            self.fail_doubtful(place, last_error);
        }
        let queue = &mut self.queues[place];
        if must_restart || (!is_begun && queue.identity.is_none_or(|(own, _)| own != id)) {
            queue.begin_sequence((id, epoch));
        }
        true
    }

    /// What a broker may have under its old number must not get a new one, lest it is there twice.
    fn fail_doubtful(&mut self, place: usize, last_error: &Option<Error>) {
        let queue = &mut self.queues[place];
        if !queue.batches.iter().any(|batch| batch.doubtful) {
            return;
        }
        let what = format!("delivery to {}", queue.at);
        queue.batches.retain(|batch| {
            if batch.doubtful {
                self.incomplete.remove(&batch.number);
                self.buffered -= batch.bytes;
                let (what, after) = (what.clone(), driver::elapsed(batch.opened));
                let last = last_error.clone().map(Box::new);
                batch.outcome.complete(Err(Error::NotAcknowledged { what, after, last }));
            }
            !batch.doubtful
        });
        self.wake_all();
    }

    /// The identity is none any more, if it is still that of this partition's batches.
    pub(super) fn lose_identity(&mut self, place: usize) {
        let refused = self.queues[place].identity.map(|(id, _)| id);
        self.identity = self.identity.filter(|(id, _)| Some(*id) != refused);
    }

    /// Of a transactional producer: what is sent from now on begins new sequences under it. Nothing may be waiting.
    pub(super) fn set_identity(&mut self, identity: (i64, i16)) {
        self.identity = Some(identity);
        for queue in &mut self.queues {
            queue.begin_sequence(identity);
        }
    }

    /// Partitions that the transaction's coordinator has to be told.
    pub(super) fn partitions_to_add(&mut self) -> Vec<(usize, TopicPartition)> {
        let Some(transaction) = &mut self.transaction else { return Vec::new() };
        let places = transaction.take_to_add();
        places.into_iter().map(|place| (place, self.queues[place].at.clone())).collect()
    }

    pub(super) fn partitions_added(&mut self, places: Vec<usize>) {
        if let Some(transaction) = &mut self.transaction {
            transaction.added();
            places.into_iter().for_each(|place| transaction.confirm(&mut self.queues[place].membership));
        }
    }

    /// Whether an earlier batch of the same partition has no outcome yet.
    pub(super) fn is_first(&self, place: usize, number: u64) -> bool {
        self.queues[place].batches.front().is_none_or(|first| first.number == number)
    }

    pub(super) fn wake_all(&mut self) {
        self.waiting.drain(..).for_each(|(waker, _)| waker.wake());
        self.flushing.drain(..).for_each(Waker::wake);
    }

    /// Fails all that is here; nothing is taken any more.
    pub(super) fn fail_all(&mut self, error: Error) {
        for place in self.active.drain(..) {
            let queue = &mut self.queues[place];
            for batch in queue.batches.drain(..) {
                let may_be_written = batch.in_flight || batch.doubtful;
                batch.outcome.complete(Err(match may_be_written && !planted(Fault::EndIsNo) {
                    true => Error::NotAcknowledged {
                        what: format!("delivery to {}", queue.at),
                        after: driver::elapsed(batch.opened),
                        last: Some(Box::new(error.clone())),
                    },
                    false => error.clone(),
                }));
            }
        }
        self.incomplete.clear();
        self.buffered = 0;
        self.closed = Some(error);
        self.wake_all();
    }
}

impl Queue {
    /// Seals the open batch if it has no room for so many bytes; says whether it did.
    fn seal_full(&mut self, len: usize, config: &ProducerConfig) -> bool {
        let open = self.batches.back_mut().filter(|last| last.is_open());
        let Some(full) = open.filter(|open| open.bytes + len > config.batch_bytes) else { return false };
        self.room = full.bytes;
        full.seal();
        true
    }

    fn open(&mut self, number: u64, config: &ProducerConfig, identity: Option<(i64, i16)>) {
        // A guess: it gets its numbers when it is sent. One that is right saves a checksum.
        let next = self.batches.back().and_then(|last| last.stamp.map(|stamp| (stamp, last.records)));
        let base_sequence =
            next.map_or(self.next_sequence, |(stamp, records)| after(stamp.base_sequence, records));
        let stamp = self.identity.or(identity).map(|(id, epoch)| Producer { id, epoch, base_sequence });
        let room = self.room.min(config.batch_bytes);
        let transactional = config.transactional_id.is_some();
        let options =
            BatchOptions { encoding: config.encoding, producer: stamp, transactional, ..Default::default() };
        self.batches.push_back(Batch::open(number, self.at.clone(), options, room));
    }

    /// A partition takes a later epoch only if its sequence begins at 0 (KIP-360).
    fn begin_sequence(&mut self, identity: (i64, i16)) {
        (self.identity, self.next_sequence, self.gap, self.is_known) = (Some(identity), 0, Gap::None, false);
        self.batches.iter_mut().for_each(|batch| batch.numbered = false);
    }
}

/// Sequence numbers wrap around within what is not negative.
fn after(sequence: i32, records: i32) -> i32 {
    sequence.wrapping_add(records) & i32::MAX
}

fn sooner(next: &mut Option<Instant>, at: Instant) {
    *next = Some(next.map_or(at, |next| next.min(at)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Partition;

    fn topic(partitions: i32) -> Topic {
        let partition = |partition| Partition {
            partition,
            leader: Some(1),
            leader_epoch: 0,
            replicas: vec![1],
            isr: vec![1],
            offline_replicas: Vec::new(),
        };
        let partitions = (0..partitions).map(partition).collect();
        Topic { name: "t".into(), id: corelog_wire::Uuid::ZERO, is_internal: false, partitions }
    }

    #[test]
    fn batches_of_the_keyless_are_full_and_leave_no_remainder() {
        let config = ProducerConfig { idempotent: false, batch_bytes: 4096, ..Default::default() };
        for len in [10, 100, 1000, 1300] {
            let mut accumulator = Accumulator::new(None);
            accumulator.set_topic(&"t".into(), &topic(6));
            for _ in 0..40_000 / len {
                let record = ProducerRecord::to("t").value(vec![7; len]);
                assert!(matches!(accumulator.append(&config, &record, 0), Ok(Append::Done(_))));
            }
            let batches = accumulator.queues.iter().flat_map(|queue| &queue.batches);
            let (open, sealed): (Vec<&Batch>, Vec<&Batch>) = batches.partition(|batch| batch.is_open());
            assert!(
                open.len() <= 1 && sealed.len() >= 8,
                "{len}: {} open, {} sealed",
                open.len(),
                sealed.len()
            );
            let largest = ProducerRecord::to("t").value(vec![7; len]).size_max();
            assert!(sealed.iter().all(|batch| batch.bytes + largest > config.batch_bytes), "{len}");
        }
    }

    /// One partition of an idempotent producer, each record a batch of its own.
    struct Partition0 {
        accumulator: Accumulator,
        config: ProducerConfig,
        deliveries: Vec<Delivery>,
        now: Instant,
    }

    impl Partition0 {
        fn new() -> Partition0 {
            let mut accumulator = Accumulator::new(None);
            accumulator.set_topic(&"t".into(), &topic(1));
            accumulator.identity = Some((7, 0));
            let delivery_timeout = Duration::from_secs(1_000_000);
            let config = ProducerConfig { batch_bytes: 1, delivery_timeout, ..Default::default() };
            Partition0 { accumulator, config, deliveries: Vec::new(), now: driver::now() }
        }

        fn append(&mut self) -> &mut Self {
            let record = ProducerRecord::to("t").partition(0).value("v");
            match self.accumulator.append(&self.config, &record, 0) {
                Ok(Append::Done(delivery)) => self.deliveries.push(delivery),
                _ => panic!("not taken"),
            }
            self
        }

        /// What goes out, all that can: number, epoch and sequence number.
        fn drain(&mut self) -> Vec<(u64, i16, i32)> {
            // Whatever backs off does so no longer.
            self.now += Duration::from_secs(3600);
            let mut drained = Vec::new();
            loop {
                let work = self.accumulator.drain(&self.config, self.now, 1, |_| Some(1), |_| 1 << 20, &None);
                let Some(batch) = work.by_node.into_values().flatten().next() else { return drained };
                self.accumulator.set_built(&batch, Bytes::new());
                let stamp = batch.stamp.expect("it is idempotent");
                drained.push((batch.number, stamp.epoch, stamp.base_sequence));
            }
        }

        fn finish(&mut self, number: u64, verdict: Verdict) -> &mut Self {
            self.accumulator.finish(0, number, verdict, |_| Duration::ZERO);
            self
        }

        fn written(&mut self, number: u64) -> &mut Self {
            self.finish(number, Verdict::Written(Written { base_offset: 0, append_time: -1 }))
        }

        /// Has the time of batches up to this one be over.
        fn age(&mut self, last: u64) -> &mut Self {
            let batches = self.accumulator.queues[0].batches.iter_mut();
            for batch in batches.filter(|batch| batch.number <= last) {
                batch.opened -= self.config.delivery_timeout;
            }
            self
        }

        /// What became of a record, if that is told.
        fn outcome(&mut self, number: u64) -> Option<Result<()>> {
            use futures_util::future::FutureExt;
            (&mut self.deliveries[number as usize]).now_or_never().map(|told| told.map(drop))
        }
    }

    #[test]
    fn what_is_given_up_in_flight_keeps_its_numbers_until_it_is_settled() {
        let gone = || Verdict::Failed(Error::broker(ErrorCode::MESSAGE_TOO_LARGE, "test"));
        for (verdict, next) in [
            (Verdict::Written(Written { base_offset: 0, append_time: -1 }), (1, 0, 1)),
            (Verdict::Retry, (1, 1, 0)),
            (Verdict::Doubt, (1, 1, 0)),
            (Verdict::Restart, (1, 1, 0)),
            (gone(), (1, 1, 0)),
        ] {
            let mut partition = Partition0::new();
            assert_eq!(partition.append().drain(), [(0, 0, 0)]);
            assert_eq!(partition.age(0).append().drain(), [], "the broker may have the first, or not");
            assert!(matches!(partition.outcome(0), Some(Err(Error::NotAcknowledged { .. }))));
            assert!(partition.accumulator.incomplete.first() == Some(&1), "nobody waits for it");
            assert_eq!(partition.finish(0, verdict).drain(), [next]);
            assert!(matches!(partition.written(1).outcome(1), Some(Ok(()))));
            assert_eq!(partition.accumulator.buffered, 0);
        }
    }

    #[test]
    fn what_the_broker_may_have_behind_what_is_given_up_keeps_its_numbers() {
        // The second tells that nothing is missing, or that something is, or is given up as well.
        let written = Verdict::Written(Written { base_offset: 2, append_time: -1 });
        for (verdict, then, is_failed) in [
            (written, vec![(3, 0, 3), (4, 0, 4)], false),
            (Verdict::Restart, vec![(3, 1, 0)], true),
            (Verdict::Doubt, vec![(4, 1, 0)], true),
        ] {
            let mut partition = Partition0::new();
            partition.append().drain();
            assert_eq!(partition.written(0).append().append().drain(), [(1, 0, 1), (2, 0, 2)]);
            partition.age(1).finish(1, Verdict::Doubt).finish(2, Verdict::Doubt).append();
            assert_eq!(partition.drain(), [(2, 0, 2), (3, 0, 3)]);
            assert!(partition.outcome(1).is_some() && partition.outcome(2).is_none());
            if matches!(verdict, Verdict::Doubt) {
                partition.age(3);
            }
            partition.finish(2, verdict).finish(3, Verdict::Retry);
            assert_eq!(partition.append().drain(), then);
            let is_doubtful = matches!(partition.outcome(2), Some(Err(Error::NotAcknowledged { .. })));
            assert_eq!(is_doubtful, is_failed);
            let outcome = partition.outcome(3);
            assert!(
                matches!(outcome, None | Some(Err(Error::Timeout { .. }))),
                "it was refused: {outcome:?}"
            );
        }
    }

    #[test]
    fn what_was_never_sent_leaves_no_gap() {
        let mut partition = Partition0::new();
        partition.append().drain();
        partition.written(0).append();
        assert_eq!(partition.age(1).append().drain(), [(2, 0, 1)]);
        assert!(matches!(partition.outcome(1), Some(Err(Error::Timeout { .. }))));
    }

    #[test]
    fn what_comes_while_the_sender_is_at_work_is_told_to_it() {
        let config = ProducerConfig { idempotent: false, ..Default::default() };
        let mut accumulator = Accumulator::new(None);
        accumulator.set_topic(&"t".into(), &topic(1));
        let now = driver::now();
        // It slept until now, and has not said yet how long it will sleep next.
        accumulator.sender_comes = Some(now);
        accumulator.drain(&config, now, 1, |_| Some(1), |_| 1 << 20, &None);
        accumulator.news = false;
        let record = ProducerRecord::to("t").partition(0).value("v");
        assert!(matches!(accumulator.append(&config, &record, 0), Ok(Append::Done(_))));
        assert!(accumulator.news);
    }

    #[test]
    fn nothing_goes_out_under_an_identity_that_is_lost() {
        let mut partition = Partition0::new();
        partition.append().drain();
        partition.accumulator.lose_identity(0);
        partition.finish(0, Verdict::Restart);
        for _ in 0..3 {
            assert_eq!(partition.drain(), []);
        }
        partition.accumulator.identity = Some((8, 3));
        assert_eq!(partition.drain(), [(0, 3, 0)]);
        // Another partition's batch, of the one that is gone already.
        partition.accumulator.queues[0].identity = Some((7, 0));
        partition.accumulator.lose_identity(0);
        assert_eq!(partition.accumulator.identity, Some((8, 3)));
    }

    #[test]
    fn a_busy_broker_does_not_have_all_looked_at_and_starves_none() {
        let config = ProducerConfig { idempotent: false, ..Default::default() };
        let mut accumulator = Accumulator::new(None);
        accumulator.set_topic(&"t".into(), &topic(100));
        for partition in 0..100 {
            let record = ProducerRecord::to("t").partition(partition).value(vec![7; 1000]);
            assert!(matches!(accumulator.append(&config, &record, 0), Ok(Append::Done(_))));
        }
        accumulator.seal_all();
        let now = driver::now();
        let (mut seen, mut sent) = (0, Vec::new());
        for round in 0..50 {
            let before = seen;
            let leader_of = |_: &TopicPartition| {
                seen += 1;
                Some(1)
            };
            // Room for two batches.
            let work = accumulator.drain(&config, now, 1, leader_of, |_| 2500, &None);
            sent.extend(work.by_node.into_values().flatten().map(|drained| drained.at.partition));
            let looked_at = seen - before;
            // The first time, and when it is time again, all are looked at for deadlines.
            assert!(round == 0 || looked_at <= 3, "round {round}: {looked_at} looked at");
            assert!(matches!(round, 0 | 49) || work.next.is_some_and(|next| next <= now + LOOK_THROUGH));
        }
        sent.sort();
        assert_eq!(sent, (0..100).collect::<Vec<i32>>());
    }
}
