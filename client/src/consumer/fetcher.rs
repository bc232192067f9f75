//! The consumer's task on the driver: finds where to begin, and keeps one fetch under way per broker that leads something.

use super::Shared;
use super::buffer::{Buffer, Place, Position, Start};
use super::chunk::Chunk;
use super::positions::Questions;
use super::session::{self, Asked, Session};
use crate::core::{Core, Lane, Node, OwnLane};
use crate::driver::{self, Event, Listen};
use crate::error::{Error, Result};
use crate::hashing::HashMap;
use crate::topic_partition::TopicPartition;
use corelog_wire::fetch::{EpochEndOffset, FetchRequest, FetchResponse, PartitionData};
use corelog_wire::{ErrorCode, Str};
use futures_util::future::join_all;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// From this version on topics go by id alone.
const TOPIC_IDS_FROM: i16 = 13;
const SESSIONS_FROM: i16 = 7;
/// The oldest version that brings v2 batches.
const V2_BATCHES_FROM: i16 = 4;

/// Closing a consumer waits so long at most for brokers to close its fetch sessions.
const SESSION_CLOSE_PATIENCE: Duration = Duration::from_secs(1);

pub(super) struct Fetcher {
    pub(super) core: Rc<Core>,
    pub(super) shared: Arc<Shared>,
    lane: Lane,
    nodes: RefCell<HashMap<i32, Broker>>,
    pub(super) changed: Event,
}

#[derive(Default)]
struct Broker {
    session: Session,
    in_flight: bool,
    retry_at: Option<Instant>,
    failures: u32,
}

/// What one request asked for: the partition's version, and the offset.
type Asks = HashMap<TopicPartition, (u64, i64)>;

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        let mut buffer = self.0.lock();
        buffer.closed.get_or_insert(Error::Closed);
        buffer.wake_pollers();
    }
}

/// Tells `news` whenever the application did something.
pub(super) async fn run(core: Rc<Core>, shared: Arc<Shared>, news: Event) {
    let _guard = CloseOnDrop(shared.clone());
    let own = OwnLane::new(&core);
    let fetcher = Rc::new(Fetcher {
        lane: own.lane,
        core,
        shared,
        nodes: RefCell::default(),
        changed: Event::default(),
    });
    loop {
        let (changed, updated) = (fetcher.changed.listen(), fetcher.core.updated.listen());
        news.notify();
        if fetcher.shared.lock().closed.is_some() {
            break;
        }
        let next = fetcher.turn();
        fetcher.wait(next, changed, updated).await;
    }
    fetcher.close_sessions().await;
}

impl Fetcher {
    async fn wait(&self, until: Option<Instant>, changed: Listen, updated: Listen) {
        let (mut changed, mut updated) = (pin!(changed), pin!(updated));
        let told = poll_fn(|cx| {
            let news = self.shared.lock().poll_news(cx.waker());
            let changed = changed.as_mut().poll(cx).is_ready();
            let updated = updated.as_mut().poll(cx).is_ready();
            if updated {
                self.want_topics();
            }
            if news || changed || updated { Poll::Ready(()) } else { Poll::Pending }
        });
        match until {
            Some(until) => drop(driver::timeout_at(until, told).await),
            None => told.await,
        }
    }

    fn want_topics(&self) {
        let buffer = self.shared.lock();
        let topics: BTreeSet<&Str> = buffer.partitions.keys().map(|at| &at.topic).collect();
        topics.into_iter().for_each(|topic| self.core.want(topic));
    }

    /// Does what can be done now; returns when there may be more to do.
    fn turn(self: &Rc<Self>) -> Option<Instant> {
        let now = driver::now();
        let mut next = Next(None);
        let mut wanted: HashMap<i32, BTreeMap<TopicPartition, Asked>> = HashMap::default();
        let mut asks: HashMap<i32, Asks> = HashMap::default();
        let mut full = BTreeSet::new();
        let mut leaderless = BTreeSet::new();
        let mut questions = Questions::default();
        let mut leaders = BTreeSet::new();
        {
            let config = &self.shared.config;
            let mut guard = self.shared.lock();
            let buffer: &mut Buffer = &mut guard;
            next.at(buffer.pollers_until(now));
            // Paused partitions keep what they have, each no more than a partition may: the others are not to starve for it.
            let active = buffer.partitions.values().filter(|place| !place.paused);
            let is_full = active.map(|place| place.bytes).sum::<usize>() >= config.buffer_bytes_max;
            let metadata = self.core.metadata.borrow();
            let nodes = self.nodes.borrow();
            for (at, place) in &mut buffer.partitions {
                let leader = metadata.leader(&at.topic, at.partition);
                leaders.extend(leader.map(|(node, _)| node));
                if let Some(retry_at) = place.retry_at.filter(|at| *at > now) {
                    next.at(Some(retry_at));
                    continue;
                }
                let is_found = matches!(place.start, Start::At(_));
                if place.halted || place.is_asked || (place.paused && is_found) {
                    continue;
                }
                // While a fetch is under way, what it brings is not known to be there or not.
                let in_flight = |node| nodes.get(&node).is_some_and(|broker: &Broker| broker.in_flight);
                if is_found && leader.is_some_and(|(node, _)| in_flight(node)) {
                    continue;
                }
                if place.start == Start::Committed && buffer.commits.is_pending(at) {
                    // What is committed is known when that is.
                    continue;
                }
                let Some(position) = questions.of(at, place, leader) else { continue };
                let Some((leader, leader_epoch)) = leader else {
                    leaderless.insert(at.topic.clone());
                    continue;
                };
                if is_full || place.bytes >= config.partition_bytes_max {
                    full.insert(leader);
                    continue;
                }
                let asked = Asked {
                    topic_id: metadata.topic_id(&at.topic),
                    offset: position.offset,
                    leader_epoch,
                    last_fetched_epoch: position.leader_epoch.unwrap_or(-1),
                    bytes_max: config.partition_bytes_max.try_into().unwrap_or(i32::MAX),
                };
                wanted.entry(leader).or_default().insert(at.clone(), asked);
                asks.entry(leader).or_default().insert(at.clone(), (place.version, position.offset));
            }
        }
        if !leaderless.is_empty() {
            leaderless.iter().for_each(|topic| self.core.want(topic));
            self.core.refresh_soon();
        }
        self.ask_all(questions);
        self.close_unused_sessions(&leaders);
        for (node, wanted) in wanted {
            // A fetch without the partitions that are full would wait for the others, and these with it, while they are polled empty.
            if !full.contains(&node) {
                let asks = asks.remove(&node).unwrap_or_default();
                next.at(self.fetch(node, wanted, asks, now));
            }
        }
        next.0
    }

    /// Those of brokers that lead nothing any more that is read.
    fn close_unused_sessions(self: &Rc<Self>, leaders: &BTreeSet<i32>) {
        for (node, broker) in self.nodes.borrow_mut().iter_mut() {
            if !broker.in_flight
                && !leaders.contains(node)
                && let Some(session) = broker.session.close()
            {
                let (fetcher, node) = (self.clone(), *node);
                driver::spawn(async move { fetcher.close_session(node, session).await });
            }
        }
    }

    /// Starts a fetch unless one is under way; returns when to come again.
    fn fetch(
        self: &Rc<Self>,
        node: i32,
        wanted: BTreeMap<TopicPartition, Asked>,
        asks: Asks,
        now: Instant,
    ) -> Option<Instant> {
        let mut nodes = self.nodes.borrow_mut();
        let broker = nodes.entry(node).or_default();
        if broker.in_flight {
            return None;
        }
        if let Some(retry_at) = broker.retry_at.filter(|at| *at > now) {
            return Some(retry_at);
        }
        broker.in_flight = true;
        let fetcher = self.clone();
        driver::spawn(async move {
            let fetched = fetcher.ask(node, wanted).await;
            let mut nodes = fetcher.nodes.borrow_mut();
            let broker = nodes.entry(node).or_default();
            broker.in_flight = false;
            match fetched {
                Ok(response) => {
                    let code = ErrorCode(response.error_code);
                    let again = broker.session.answered(code, response.session_id);
                    match Error::check(code.code(), || format!("fetch from broker {node}")) {
                        Err(_) if again => {
                            // At once, but once.
                            let backoff = || driver::now() + fetcher.core.backoff(broker.failures - 1);
                            broker.retry_at = (broker.failures > 0).then(backoff);
                            broker.failures += 1;
                            fetcher.core.refresh_soon();
                        }
                        Err(error) => {
                            drop(nodes);
                            fetcher.failed(node, error);
                        }
                        Ok(()) => {
                            (broker.failures, broker.retry_at) = (0, None);
                            drop(nodes);
                            fetcher.take(node, &asks, response);
                        }
                    }
                }
                Err(error) => {
                    broker.session.lost();
                    drop(nodes);
                    fetcher.failed(node, error);
                }
            }
            fetcher.changed.notify();
        });
        None
    }

    async fn ask(&self, node: i32, wanted: BTreeMap<TopicPartition, Asked>) -> Result<FetchResponse> {
        let connection = self.core.connection(Node::Id(node), self.lane).await?;
        let has_ids = wanted.values().all(|asked| !asked.topic_id.is_zero());
        let cap = if has_ids { i16::MAX } else { TOPIC_IDS_FROM - 1 };
        let version = connection.pick_max::<FetchRequest>(cap)?;
        if version < V2_BATCHES_FROM {
            return Err(Error::Unsupported {
                address: connection.address.clone(),
                api: "Fetch",
                theirs: Some((0, version)),
                ours: (V2_BATCHES_FROM, cap),
            });
        }
        let config = &self.shared.config;
        let session = {
            let mut nodes = self.nodes.borrow_mut();
            nodes.entry(node).or_default().session.request(wanted, version >= SESSIONS_FROM)
        };
        let bytes = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
        let request = FetchRequest {
            max_wait_ms: config.fetch_wait_max.as_millis().try_into().unwrap_or(i32::MAX),
            min_bytes: bytes(config.fetch_bytes_min),
            max_bytes: bytes(config.fetch_bytes_max),
            isolation_level: config.isolation.on_the_wire(),
            session_id: session.session_id,
            session_epoch: session.session_epoch,
            topics: session.topics,
            forgotten_topics_data: session.forgotten,
            rack_id: config.rack.as_deref().unwrap_or_default().into(),
            ..Default::default()
        };
        let timeout = self.core.config.request_timeout + config.fetch_wait_max;
        connection.call_version(&request, version, timeout).await
    }

    fn failed(&self, node: i32, error: Error) {
        {
            let mut nodes = self.nodes.borrow_mut();
            let broker = nodes.entry(node).or_default();
            broker.retry_at = Some(driver::now() + self.core.backoff(broker.failures));
            broker.failures += 1;
        }
        if error.is_retriable() {
            self.core.refresh_soon();
        } else if !matches!(error, Error::Closed) {
            self.shared.lock().fail(error);
        }
    }

    fn take(&self, node: i32, asks: &Asks, response: FetchResponse) {
        for topic in response.responses {
            let name = match topic.topic_id.is_zero() {
                true => Some(topic.topic.detach()),
                false => self.name_of(asks, topic.topic_id),
            };
            let Some(name) = name else { continue };
            for data in topic.partitions {
                let at = TopicPartition { topic: name.clone(), partition: data.partition_index };
                if let Some((version, offset)) = asks.get(&at) {
                    self.take_partition(node, at, *version, *offset, data);
                }
            }
        }
    }

    fn name_of(&self, asks: &Asks, id: corelog_wire::Uuid) -> Option<Str> {
        let metadata = self.core.metadata.borrow();
        asks.keys().find(|at| metadata.topic_id(&at.topic) == id).map(|at| at.topic.clone())
    }

    fn take_partition(&self, node: i32, at: TopicPartition, version: u64, offset: i64, data: PartitionData) {
        let config = &self.shared.config;
        let mut guard = self.shared.lock();
        let buffer: &mut Buffer = &mut guard;
        let Some(place) = buffer.partitions.get_mut(&at).filter(|place| place.version == version) else {
            return;
        };
        // When leaders change, the next one may have been asked for the same, and may have answered before.
        let is_awaited = matches!(place.start, Start::At(position) if position.offset == offset);
        if !is_awaited || place.is_asked {
            return;
        }
        let code = ErrorCode(data.error_code);
        if code.is_ok() {
            place.failures = 0;
            place.high_watermark = Some(data.high_watermark).filter(|offset| *offset >= 0);
            place.last_stable_offset = Some(data.last_stable_offset).filter(|offset| *offset >= 0);
            if let EpochEndOffset { epoch: 0.., end_offset: 0.. } = data.diverging_epoch {
                let EpochEndOffset { epoch, end_offset } = data.diverging_epoch;
                let end = Position { offset: end_offset, leader_epoch: Some(epoch) };
                self.cut(buffer, &at, Some(end));
                return self.rest(buffer, &at);
            }
            let parts = data.records.unwrap_or_default();
            let bytes = match parts.len() {
                0 => return,
                1 => parts.into_iter().next().unwrap_or_default(),
                _ => parts.concat().into(),
            };
            if bytes.is_empty() {
                return;
            }
            match Chunk::new(bytes, offset, data.aborted_transactions, config.isolation) {
                Some((chunk, next)) => buffer.add(&at, version, chunk, next),
                None => {
                    place.halted = true;
                    buffer.fail(Error::config(
                        format!("the batch at offset {offset} of {at} did not come whole"),
                        "raise partition_bytes_max and fetch_bytes_max, and seek there again",
                    ));
                }
            }
            return;
        }
        if code == ErrorCode::OFFSET_OUT_OF_RANGE {
            if place.has_records() {
                // What was fetched before is still good to poll: fetching starts over when it has been.
                return self.back_off(place);
            }
            self.out_of_range(buffer, &at, offset);
            return self.rest(buffer, &at);
        }
        self.back_off(place);
        let error = Error::broker(code, format!("fetch {at} from broker {node}"));
        if code.wants_metadata_refresh() || code.is_retriable() || is_stale(code) {
            // The topic may have been deleted, and made anew under another id.
            self.core.want(&at.topic);
            self.core.refresh_soon();
            if code == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && place.failures > 20 {
                place.failures = 0;
                buffer.fail(error);
            }
        } else {
            buffer.fail(error);
        }
    }

    pub(super) fn back_off(&self, place: &mut Place) {
        place.retry_at = Some(driver::now() + self.core.backoff(place.failures));
        place.failures += 1;
    }

    /// Looking for where to go on is not done without end by a leader that says each time that it is elsewhere.
    fn rest(&self, buffer: &mut Buffer, at: &TopicPartition) {
        if let Some(place) = buffer.partitions.get_mut(at) {
            place.retry_at = Some(driver::now() + self.core.backoff(0));
        }
    }

    fn out_of_range(&self, buffer: &mut Buffer, at: &TopicPartition, offset: i64) {
        let Some(spec) = self.reset_to() else {
            if let Some(place) = buffer.partitions.get_mut(at) {
                place.halted = true;
            }
            let what = format!("offset {offset} of {at} is not there any more, and offset_reset is Fail");
            return buffer.fail(Error::config(what, "seek to one that is, or set offset_reset"));
        };
        // It is assigned: its version was looked at.
        let _ = buffer.seek(at, Start::Seek(spec));
    }

    /// Tells a broker that its session is not needed any more. It ends by itself otherwise, but takes a place until then.
    async fn close_session(&self, node: i32, session: session::Request) {
        // Where there is another connection this does not wait for a fetch under way.
        let lanes = [Lane::SHARED, self.lane];
        let Some(connection) = lanes.iter().find_map(|lane| self.core.connected(Node::Id(node), *lane))
        else {
            return;
        };
        let request = FetchRequest {
            session_id: session.session_id,
            session_epoch: session.session_epoch,
            ..Default::default()
        };
        if let Ok(version) = connection.pick::<FetchRequest>() {
            let _ = connection.call_version(&request, version, self.core.config.request_timeout).await;
        }
    }

    /// All sessions, as far as brokers answer.
    async fn close_sessions(&self) {
        let sessions: Vec<(i32, session::Request)> = {
            let mut nodes = self.nodes.borrow_mut();
            nodes.iter_mut().filter_map(|(node, broker)| Some((*node, broker.session.close()?))).collect()
        };
        let closing = join_all(sessions.into_iter().map(|(node, session)| self.close_session(node, session)));
        // That it fails is no failure of closing the consumer.
        let patience = SESSION_CLOSE_PATIENCE.min(self.shared.config.close_timeout / 2);
        let _ = driver::timeout_at(driver::now() + patience, closing).await;
    }
}

/// The leader moved, or the topic was made anew: metadata tells.
fn is_stale(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::FENCED_LEADER_EPOCH
            | ErrorCode::UNKNOWN_LEADER_EPOCH
            | ErrorCode::UNKNOWN_TOPIC_ID
            | ErrorCode::INCONSISTENT_TOPIC_ID
            | ErrorCode::OFFSET_NOT_AVAILABLE
            | ErrorCode::UNKNOWN_SERVER_ERROR
    )
}

/// The soonest of several times.
struct Next(Option<Instant>);

impl Next {
    fn at(&mut self, at: Option<Instant>) {
        self.0 = match (self.0, at) {
            (Some(known), Some(at)) => Some(known.min(at)),
            (known, at) => known.or(at),
        };
    }
}
