//! A producing thread: sends records of its producers in turn, by a schedule or as fast as they are taken, and follows what
//! becomes of them.
//!
//! It follows batches, not records: the first record of a batch has a waker, which notes the time on the client's own thread at
//! the moment of the answer and queues it here. So what this thread is doing then makes no latency longer. Of a commit the latency ends when
//! this thread sees it.

use super::ledger::{Ledger, Written};
use super::payload::Payloads;
use super::plan::{Pace, Plan};
use super::schedule::Schedule;
use super::stage::Stage;
use super::transactions::{Ended, Transactions};
use crate::stats::gauge::Gauge;
use crate::stats::recorder::{Recorder, Window, times};
use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use corelog_client::{
    Client, ClientConfig, Delivery, Error, Producer, ProducerRecord, Str, TrySendError, block_on,
};
use corelog_conformance::random::Random;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// Records sent between two looks at what has been acknowledged.
const BURST: usize = 128;
/// Shorter sleeps cost more CPU, which the broker may need, than they make latencies truer.
const SLEEP_MIN: Duration = Duration::from_micros(100);
/// So many records are held while they wait for their lanes; beyond that all lanes wait.
const HELD_MAX: usize = 1 << 20;
/// Waiting for room is looked after this often.
const ROOM_WAIT: Duration = Duration::from_millis(50);

pub struct ProducerThread {
    plan: Arc<Plan>,
    window: Arc<Window>,
    topic: Str,
    index: usize,
    /// Keeps the client's thread alive.
    _client: Client,
    lanes: Vec<Lane>,
    /// The number of its first lane among all producers.
    first: usize,
    payloads: Payloads,
    keys: Arc<[Bytes]>,
    random: Random,
    batches: Vec<Option<Batch>>,
    free: Vec<usize>,
    in_flight: usize,
    /// Records that wait for their lanes.
    held: usize,
    done: (Sender<Done>, Receiver<Done>),
    /// When the next transaction is to be committed.
    next_end: u64,
    /// Bytes that may still be sent.
    left: Option<u64>,
    origin: Instant,
    outcome: Produced,
}

/// One producer.
struct Lane {
    producer: Producer,
    sequence: u64,
    /// By partition the batch that its last record went to: its place in `batches`, which may have another batch by now.
    last: Vec<usize>,
    /// A record that there was no room for.
    refused: Option<Sending>,
    /// When those are due that wait behind it, or for a commit; with it, if there is one.
    held: VecDeque<u64>,
    transactions: Option<Transactions>,
}

struct Sending {
    record: ProducerRecord,
    due: u64,
    digest: u64,
    bytes: u64,
}

struct Batch {
    delivery: Delivery,
    lane: usize,
    dues: Vec<u64>,
    digest: u64,
    bytes: u64,
}

enum Done {
    /// One has an outcome: its place, and when.
    Batch(usize, u64),
    /// A lane's transaction is to be looked at.
    Transaction(usize),
}

struct Note {
    place: usize,
    done: Sender<Done>,
    origin: Instant,
}

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        // The thread may have given up.
        let _ = self.done.send(Done::Batch(self.place, nanos(self.origin)));
    }
}

struct TransactionNote {
    lane: usize,
    done: Sender<Done>,
}

impl Wake for TransactionNote {
    fn wake(self: Arc<Self>) {
        let _ = self.done.send(Done::Transaction(self.lane));
    }
}

pub struct Produced {
    pub ledger: Ledger,
    pub recorder: Recorder,
    /// Of transactions: how long commits took.
    pub commits: Recorder,
    /// How much later than due records were handed to the client, in nanoseconds: what the generator itself adds.
    pub lag: Histogram<u64>,
    pub failed: u64,
    pub first_error: Option<Error>,
    /// Due in the window and not sent in time.
    pub unsent: u64,
}

pub fn nanos(origin: Instant) -> u64 {
    origin.elapsed().as_nanos() as u64
}

impl ProducerThread {
    /// Connects `count` producers, the first of them the `first` of all. With a `limit` they stop after so many bytes.
    pub fn connect(
        stage: &Stage,
        index: usize,
        (first, count): (usize, usize),
        keys: Arc<[Bytes]>,
        limit: Option<u64>,
    ) -> Result<ProducerThread> {
        let (plan, topic, run) = (&stage.plan, stage.topic.as_str(), stage.run);
        let mut config = ClientConfig::new(&plan.bootstrap);
        config.client_id = format!("corebench-produce-{index}");
        let client = block_on(Client::connect(config))?;
        let done = mpsc::channel();
        let mut lanes = Vec::with_capacity(count);
        for lane in 0..count {
            let number = first + lane;
            let producer = client.producer(plan.producer_config(&format!("{topic}-{number}")))?;
            let known = block_on(producer.prepare(topic))?;
            if known != plan.partitions {
                bail!("topic {topic:?} has {known} partitions, not {}", plan.partitions);
            }
            let transactions = match plan.transaction_every {
                Some(every) => {
                    let waker = Waker::from(Arc::new(TransactionNote { lane, done: done.0.clone() }));
                    let part = (number, plan.producers);
                    Some(block_on(Transactions::begin(&producer, every, part, waker))?)
                }
                None => None,
            };
            let last = vec![usize::MAX; known];
            lanes.push(Lane {
                producer,
                sequence: 0,
                last,
                refused: None,
                held: VecDeque::new(),
                transactions,
            });
        }
        let window = stage.window.clone();
        let seed = plan.seed.wrapping_mul(1000).wrapping_add(index as u64);
        let outcome = Produced {
            ledger: stage.blank_ledger(),
            recorder: Recorder::new(window.clone()),
            commits: Recorder::new(window.clone()),
            lag: times(3),
            failed: 0,
            first_error: None,
            unsent: 0,
        };
        Ok(ProducerThread {
            window,
            topic: topic.into(),
            index,
            _client: client,
            lanes,
            first,
            payloads: Payloads::new(run, plan.sizes.clone(), plan.filler, seed),
            keys,
            random: Random::new(!seed),
            batches: Vec::new(),
            free: Vec::new(),
            in_flight: 0,
            held: 0,
            done,
            next_end: if plan.transaction_every.is_some() { 0 } else { u64::MAX },
            left: limit,
            origin: Instant::now(),
            outcome,
            plan: plan.clone(),
        })
    }

    pub fn gauge(&self) -> Arc<Gauge> {
        self.outcome.recorder.gauge()
    }

    /// Sends until the window's end, and waits until everything has an outcome.
    pub fn run(mut self, origin: Instant) -> Result<Produced> {
        self.origin = origin;
        short_sleeps();
        std::thread::sleep(origin.saturating_duration_since(Instant::now()));
        match self.plan.pace {
            Pace::Saturate => self.saturate()?,
            Pace::Rate { records_per_second, arrivals } => {
                let (part, parts) = (self.index, self.plan.producer_threads);
                self.follow(Schedule::new(records_per_second, part, parts, arrivals, self.plan.seed))?;
            }
        }
        self.next_end = u64::MAX;
        for lane in 0..self.lanes.len() {
            match &self.lanes[lane].transactions {
                // Those that are being committed have nothing new.
                Some(transactions) if transactions.is_ending() => {}
                Some(_) => self.end(lane)?,
                None => block_on(self.lanes[lane].producer.flush())?,
            }
        }
        while self.in_flight > 0 || self.lanes.iter().any(Lane::is_ending) {
            self.wait(ROOM_WAIT)?;
        }
        Ok(self.outcome)
    }

    /// Commits the transactions whose time is over.
    fn end_due(&mut self) -> Result<()> {
        let now = self.now();
        if now < self.next_end {
            return Ok(());
        }
        self.next_end = u64::MAX;
        for lane in 0..self.lanes.len() {
            let open = |lane: &Lane| Some(lane.transactions.as_ref().filter(|it| !it.is_ending())?.due);
            if open(&self.lanes[lane]).is_some_and(|due| due <= now) {
                self.end(lane)?;
            }
            self.next_end = self.next_end.min(open(&self.lanes[lane]).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    fn end(&mut self, lane: usize) -> Result<()> {
        let now = self.now();
        let Some(transactions) = &mut self.lanes[lane].transactions else { return Ok(()) };
        let ended = transactions.end(now)?;
        self.ended(lane, now, ended);
        Ok(())
    }

    fn look_at_transaction(&mut self, lane: usize) -> Result<()> {
        let now = self.now();
        let Some(transactions) = &mut self.lanes[lane].transactions else { return Ok(()) };
        let ended = transactions.look(now)?;
        self.ended(lane, now, ended);
        Ok(())
    }

    fn ended(&mut self, lane: usize, now: u64, ended: Option<Ended>) {
        let Some(ended) = ended else { return };
        self.look_at_batches();
        let Some(transactions) = &mut self.lanes[lane].transactions else { return };
        match ended {
            Ended::Committed(since) => {
                transactions.settle(&mut self.outcome.ledger, self.first + lane);
                self.outcome.commits.latency(since, now);
                self.outcome.commits.volume(now, 1, 0);
            }
            Ended::Aborted(error) => {
                self.outcome.failed += transactions.forget();
                self.outcome.first_error.get_or_insert(error);
            }
        }
        self.next_end = self.next_end.min(transactions.due);
    }

    /// What a transaction holds was acknowledged before its end was, but may not have been looked at yet.
    fn look_at_batches(&mut self) {
        let mut others = Vec::new();
        while let Ok(done) = self.done.1.try_recv() {
            match done {
                Done::Batch(place, at) => self.look(place, at, Waker::noop()),
                Done::Transaction(_) => others.push(done),
            }
        }
        for other in others {
            // This thread has the other end.
            let _ = self.done.0.send(other);
        }
    }

    fn now(&self) -> u64 {
        nanos(self.origin)
    }

    fn saturate(&mut self) -> Result<()> {
        let mut lane = 0;
        loop {
            self.settle_ready()?;
            let mut refusals = 0;
            for _ in 0..BURST {
                let now = self.now();
                if now >= self.window.to() || self.left == Some(0) {
                    return Ok(());
                }
                match self.send(lane, now)? {
                    true => refusals = 0,
                    false => refusals += 1,
                }
                lane = (lane + 1) % self.lanes.len();
                if refusals == self.lanes.len() {
                    self.wait(ROOM_WAIT)?;
                    break;
                }
            }
        }
    }

    /// The schedule says which lane sends a record. One that waits, for room or its commit, holds its own records back, and no other's.
    fn follow(&mut self, mut schedule: Schedule) -> Result<()> {
        let mut turn = 0;
        loop {
            let (due, now, to) = (schedule.due(), self.now(), self.window.to());
            let is_over = due >= to;
            if is_over && self.held == 0 {
                return Ok(());
            }
            if now >= to.saturating_add(self.plan.grace.as_nanos() as u64) {
                self.give_up(schedule);
                return Ok(());
            }
            let may_take = !is_over && self.held < HELD_MAX;
            if may_take && due <= now {
                self.take(turn % self.lanes.len(), due, now)?;
                schedule.advance();
                turn += 1;
                if turn.is_multiple_of(BURST) {
                    self.settle_ready()?;
                    self.send_held()?;
                }
                continue;
            }
            let to_next = if may_take { Duration::from_nanos(due - now) } else { ROOM_WAIT };
            let to_look = if self.held > 0 { ROOM_WAIT } else { to_next };
            self.wait(to_next.min(to_look).max(SLEEP_MIN))?;
            self.send_held()?;
        }
    }

    /// A record is due: it is sent, or held behind those of its lane that wait already.
    fn take(&mut self, at: usize, due: u64, now: u64) -> Result<()> {
        if self.lanes[at].held.is_empty() && self.send(at, due)? {
            self.handed_over(due, now);
        } else {
            self.lanes[at].held.push_back(due);
            self.held += 1;
        }
        Ok(())
    }

    fn send_held(&mut self) -> Result<()> {
        if self.held == 0 {
            return Ok(());
        }
        for at in 0..self.lanes.len() {
            while let Some(due) = self.lanes[at].held.front().copied() {
                if !self.send(at, due)? {
                    break;
                }
                self.lanes[at].held.pop_front();
                self.held -= 1;
                self.handed_over(due, self.now());
            }
        }
        Ok(())
    }

    fn handed_over(&mut self, due: u64, now: u64) {
        if self.window.has(due) {
            self.outcome.lag.saturating_record(now.saturating_sub(due));
        }
    }

    fn give_up(&mut self, mut schedule: Schedule) {
        let window = &self.window;
        let held = self.lanes.iter().flat_map(|lane| &lane.held);
        self.outcome.unsent += held.filter(|due| window.has(**due)).count() as u64;
        while schedule.due() < window.to() {
            self.outcome.unsent += u64::from(window.has(schedule.due()));
            schedule.advance();
        }
    }

    /// False if there is no room, or no transaction: then the record is sent the next time.
    fn send(&mut self, at: usize, due: u64) -> Result<bool> {
        if self.lanes[at].is_ending() {
            return Ok(false);
        }
        let sending = match self.lanes[at].refused.take() {
            Some(refused) => refused,
            None => self.make(at, due),
        };
        let lane = &mut self.lanes[at];
        let Sending { record, due, digest, bytes } = sending;
        match lane.producer.try_send(record) {
            Ok(delivery) => {
                if let Some(transactions) = &mut lane.transactions {
                    transactions.sent();
                }
                self.sent(at, delivery, due, digest, bytes);
                Ok(true)
            }
            Err(TrySendError::NoRoom(record)) => {
                lane.refused = Some(Sending { record, due, digest, bytes });
                Ok(false)
            }
            Err(TrySendError::NotPrepared(record)) => {
                lane.refused = Some(Sending { record, due, digest, bytes });
                block_on(lane.producer.prepare(&self.topic))?;
                Ok(false)
            }
            Err(TrySendError::Failed(_, Error::TransactionFailed { cause })) => {
                self.outcome.failed += 1;
                self.outcome.first_error.get_or_insert(*cause);
                self.end(at)?;
                Ok(true)
            }
            Err(TrySendError::Failed(_, error)) => Err(error).context("the client does not take a record"),
        }
    }

    fn make(&mut self, at: usize, due: u64) -> Sending {
        let lane = &mut self.lanes[at];
        let (value, digest) = self.payloads.make((self.first + at) as u32, lane.sequence, due);
        lane.sequence += 1;
        let mut bytes = value.len() as u64;
        let mut record =
            ProducerRecord { topic: self.topic.clone(), value: Some(value), ..Default::default() };
        if !self.keys.is_empty() {
            let key = &self.keys[self.random.below(self.keys.len() as u64) as usize];
            bytes += key.len() as u64;
            record.key = Some(key.clone());
        }
        Sending { record, due, digest, bytes }
    }

    fn sent(&mut self, at: usize, delivery: Delivery, due: u64, digest: u64, bytes: u64) {
        self.left = self.left.map(|left| left.saturating_sub(bytes));
        let last = &mut self.lanes[at].last[delivery.partition().partition as usize];
        if let Some(Some(batch)) = self.batches.get_mut(*last)
            && batch.delivery.shares_batch(&delivery)
        {
            batch.dues.push(due);
            batch.digest = batch.digest.wrapping_add(digest);
            batch.bytes += bytes;
            return;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.batches.push(None);
            self.batches.len() - 1
        });
        *last = place;
        let batch = Batch { delivery, lane: at, dues: vec![due], digest, bytes };
        self.batches[place] = Some(batch);
        self.in_flight += 1;
        let note = Note { place, done: self.done.0.clone(), origin: self.origin };
        self.look(place, self.now(), &Waker::from(Arc::new(note)));
    }

    /// Enters a batch's outcome if it has one; else its waker will tell.
    fn look(&mut self, place: usize, at: u64, waker: &Waker) {
        let Some(batch) = &mut self.batches[place] else { return };
        let Poll::Ready(outcome) = Pin::new(&mut batch.delivery).poll(&mut Context::from_waker(waker)) else {
            return;
        };
        let Some(batch) = self.batches[place].take() else { return };
        self.free.push(place);
        self.in_flight -= 1;
        let count = batch.dues.len() as u64;
        match outcome {
            Ok(first) => {
                let partition = first.partition.partition as usize;
                let written = Written { count, digest: batch.digest, offset: first.offset };
                match &mut self.lanes[batch.lane].transactions {
                    Some(transactions) => transactions.acknowledged(partition, written),
                    None => self.outcome.ledger.sent(self.first + batch.lane, partition, written),
                }
                self.outcome.recorder.volume(at, count, batch.bytes);
                for due in batch.dues {
                    self.outcome.recorder.latency(due, at);
                }
            }
            Err(error) => {
                self.outcome.failed += count;
                self.outcome.first_error.get_or_insert(error);
            }
        }
    }

    fn settle(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Batch(place, at) => self.look(place, at, Waker::noop()),
            Done::Transaction(lane) => self.look_at_transaction(lane)?,
        }
        Ok(())
    }

    fn settle_ready(&mut self) -> Result<()> {
        while let Ok(done) = self.done.1.try_recv() {
            self.settle(done)?;
        }
        self.end_due()
    }

    /// Until something is done or due, or for so long.
    fn wait(&mut self, long: Duration) -> Result<()> {
        let to_end = Duration::from_nanos(self.next_end.saturating_sub(self.now()));
        match self.done.1.recv_timeout(long.min(to_end.max(SLEEP_MIN))) {
            Ok(done) => self.settle(done)?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
        }
        self.settle_ready()
    }
}

impl Lane {
    fn is_ending(&self) -> bool {
        self.transactions.as_ref().is_some_and(Transactions::is_ending)
    }
}

/// By default the kernel lets a thread sleep up to 50 us longer, to wake several at once.
fn short_sleeps() {
    // SAFETY: no memory is involved.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    /// A transaction may be looked at for its own sake, at the moment when it has just ended and its batches wait to be looked at.
    #[test]
    fn a_transaction_that_ended_has_all_its_records() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let every = Some(Duration::from_secs(60));
        let plan =
            Plan { partitions: 2, transaction_every: every, ..Plan::new(&endpoint.address.to_string()) };
        let stage = Stage::create("transactions", &plan).unwrap();
        let mut thread = stage.producers(None).unwrap().pop().unwrap();
        let mut sent = 0;
        for now in 0..100 {
            sent += u64::from(thread.send(0, now).unwrap());
        }
        assert!(sent > 0);
        thread.end(0).unwrap();
        while thread.lanes[0].is_ending() {
            thread.look_at_transaction(0).unwrap();
        }
        assert_eq!(thread.outcome.ledger.by_partition().iter().sum::<u64>(), sent);
    }
}
