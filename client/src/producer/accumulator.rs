//! Where records wait for the sender: a queue of batches per partition, within one bound of bytes.
//!
//! A batch stays at its place in its queue until its outcome is known, so the queue's order is the order of the partition. What
//! is sent is always the first batch that is not in flight, and only while no later one is: so a retry never overtakes, nor
//! is overtaken.

use super::batch::{Batch, Body};
use super::config::ProducerConfig;
use super::delivery::{Delivery, Written};
use super::partitioner::Chooser;
use super::record::ProducerRecord;
use super::transaction::{Membership, Transaction};
use crate::error::{Error, Result};
use crate::metadata::Topic;
use crate::topic_partition::TopicPartition;
use bytes::Bytes;
use corelog_wire::ErrorCode;
use corelog_wire::Str;
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer};
use std::collections::{BTreeSet, HashMap, VecDeque};
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
    identity: Option<(i64, i16)>,
    next_sequence: i32,
    /// The broker has a batch of this identity. Until then it takes any sequence number for the first: were two in flight and the
    /// first one refused, as by a leader that is not ready, the second would become the first.
    is_known: bool,
    /// A gap in the sequence: once nothing is in flight, all that is here starts a new one, under a new epoch.
    restamp: bool,
    /// Of a transactional producer's partition.
    membership: Membership,
    /// Size of the last full batch, as a guess at the next.
    room: usize,
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
    /// Topics whose partitions have no known leader.
    pub(super) leaderless: bool,
}

/// What a broker said of a batch.
pub(super) enum Verdict {
    Written(Written),
    /// May be sent again.
    Retry,
    /// The sequence is broken at this batch: it goes on under a new epoch.
    Restart,
    Failed(Error),
}

impl Accumulator {
    pub(super) fn new(transaction: Option<Transaction>) -> Accumulator {
        Accumulator {
            topics: HashMap::new(),
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
                is_known: false,
                restamp: false,
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
        if queue.identity.is_some() {
            queue.next_sequence = queue.next_sequence.wrapping_add(1) & i32::MAX;
        }
        let batch = queue.batches.back_mut().expect("as above");
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
        let mut room: HashMap<i32, usize> = HashMap::new();
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
            if queue.restamp && queue.in_flight == 0 {
                queue.restart(&mut self.identity);
            }
            if let Some(first) = queue.batches.front().filter(|first| !first.in_flight) {
                sooner(&mut work.next, first.opened + config.delivery_timeout);
            }
            if let Some(at) = queue.retry_at.filter(|at| *at > now) {
                sooner(&mut work.next, at);
                continue;
            }
            if queue.restamp || self.identity.is_none() && config.idempotent {
                continue;
            }
            let Some(at) = queue.batches.iter().position(|batch| !batch.in_flight) else { continue };
            if queue.batches.iter().skip(at).any(|batch| batch.in_flight) {
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
                work.leaderless = true;
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
            batch.in_flight = true;
            batch.sent = true;
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

    /// Fails batches that are not in flight and have waited for too long. They are at the front: later ones were opened later.
    fn expire(&mut self, place: usize, config: &ProducerConfig, now: Instant, last_error: &Option<Error>) {
        let queue = &mut self.queues[place];
        let (mut expired, mut sent) = (Vec::new(), false);
        while let Some(first) = queue.batches.front() {
            if first.in_flight || first.opened + config.delivery_timeout > now {
                break;
            }
            let batch = queue.batches.pop_front().expect("looked at above");
            sent |= batch.sent;
            expired.push(batch);
        }
        if expired.is_empty() {
            return;
        }
        // Whether a broker has those that were sent is not known: what follows must not hang on them.
        queue.restamp |= queue.may_restart(&self.transaction) && (sent || !queue.batches.is_empty());
        if queue.batches.is_empty() && queue.restamp {
            queue.restart(&mut self.identity);
        }
        let error = Error::Timeout {
            what: format!("delivery to {}", queue.at),
            after: config.delivery_timeout,
            last: last_error.clone().map(Box::new),
        };
        for batch in expired {
            self.incomplete.remove(&batch.number);
            self.buffered -= batch.bytes;
            batch.outcome.complete(Err(error.clone()));
        }
        self.record_failed(&error);
        self.wake_all();
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
        let outcome = match verdict {
            Verdict::Written(written) => {
                (queue.failures, queue.retry_at) = (0, None);
                queue.is_known = true;
                Ok(written)
            }
            Verdict::Retry | Verdict::Restart => {
                queue.retry_at = Some(Instant::now() + backoff(queue.failures));
                queue.failures += 1;
                queue.restamp |= matches!(verdict, Verdict::Restart) && queue.identity.is_some();
                return;
            }
            Verdict::Failed(error) => {
                // Its sequence numbers will never come.
                queue.restamp |= queue.may_restart(&self.transaction);
                Err(error)
            }
        };
        let batch = queue.batches.remove(at).expect("found above");
        if queue.batches.is_empty() && queue.restamp {
            queue.restart(&mut self.identity);
        }
        self.incomplete.remove(&number);
        self.buffered -= batch.bytes;
        let failure = outcome.as_ref().err().cloned();
        batch.outcome.complete(outcome);
        if let Some(error) = failure {
            self.record_failed(&error);
        }
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

    /// Fails what was never sent, as if it had not been there: its sequence numbers are given again. Batches that a broker may have keep
    /// being sent, lest one comes there after the transaction's end; with `also_sent` only those stay that are in flight.
    pub(super) fn drop_batches(&mut self, error: &Error, also_sent: bool) {
        for queue in &mut self.queues {
            while let Some(batch) =
                queue.batches.pop_back_if(|last| !last.in_flight && (also_sent || !last.sent))
            {
                if let Some(stamp) = batch.stamp {
                    queue.next_sequence = stamp.base_sequence;
                }
                self.incomplete.remove(&batch.number);
                self.buffered -= batch.bytes;
                batch.outcome.complete(Err(error.clone()));
            }
        }
        self.wake_all();
    }

    /// Of a transactional producer: what is sent from now on begins new sequences under it. Nothing may be waiting.
    pub(super) fn set_identity(&mut self, identity: (i64, i16)) {
        self.identity = Some(identity);
        for queue in &mut self.queues {
            (queue.identity, queue.next_sequence, queue.is_known) = (self.identity, 0, false);
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
            for batch in self.queues[place].batches.drain(..) {
                batch.outcome.complete(Err(error.clone()));
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
        if self.batches.is_empty() && self.identity.map(|(id, _)| id) != identity.map(|(id, _)| id) {
            (self.identity, self.next_sequence, self.is_known) = (identity, 0, false);
        }
        let stamp =
            self.identity.map(|(id, epoch)| Producer { id, epoch, base_sequence: self.next_sequence });
        let room = self.room.min(config.batch_bytes);
        let transactional = config.transactional_id.is_some();
        let options =
            BatchOptions { encoding: config.encoding, producer: stamp, transactional, ..Default::default() };
        self.batches.push_back(Batch::open(number, self.at.clone(), options, room));
    }

    /// Whether a gap in the sequence is mended here. A transaction that has one fails, and its coordinator gives the next epoch.
    fn may_restart(&self, transaction: &Option<Transaction>) -> bool {
        self.identity.is_some() && transaction.is_none()
    }

    /// Begins a new sequence. A partition takes a later epoch only if its sequence begins at 0 (KIP-360).
    fn restart(&mut self, identity: &mut Option<(i64, i16)>) {
        self.restamp = false;
        let Some((id, epoch)) = *identity else { return };
        if self.identity == *identity {
            // The sender gets a new id when the epochs are used up.
            *identity = if epoch < i16::MAX { Some((id, epoch + 1)) } else { None };
        }
        (self.identity, self.next_sequence, self.is_known) = (*identity, 0, false);
        let Some((id, epoch)) = self.identity else {
            self.restamp = true;
            return;
        };
        for batch in &mut self.batches {
            batch.stamp = Some(Producer { id, epoch, base_sequence: self.next_sequence });
            self.next_sequence = self.next_sequence.wrapping_add(batch.records) & i32::MAX;
        }
    }
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
        let now = Instant::now();
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
