//! `Core`: what the driver's tasks share: connections by broker and lane, metadata, coordinators, and the rules of retrying.

use crate::config::{Address, ClientConfig};
use crate::driver::{self, Event};
use crate::error::{Error, Result};
use crate::hashing::HashMap;
use crate::metadata::{Metadata, TopicState};
use crate::net::Connection;
use crate::planted::{Fault, planted};
use corelog_wire::messages::find_coordinator_response::Coordinator;
use corelog_wire::messages::{FindCoordinatorRequest, MetadataRequest, Request, metadata_request};
use corelog_wire::{ErrorCode, Str};
use futures_util::future::{Either, select};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A set of connections, at most one per broker. Brokers answer a connection's requests in order, so whoever may wait long for an
/// answer (fetches, joins) or must not wait for others (producers) has a lane of its own. Lane 0 is everybody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane(u32);

impl Lane {
    pub(crate) const SHARED: Lane = Lane(0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Node {
    /// By place in the bootstrap list: until the cluster's metadata is known, and when none of its brokers can be reached.
    Bootstrap(usize),
    Id(i32),
}

/// What a coordinator coordinates, by FindCoordinator's key types (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum CoordinatorType {
    Group = 0,
    /// Of a transactional id.
    Transaction = 1,
}

impl CoordinatorType {
    fn name(self) -> &'static str {
        match self {
            CoordinatorType::Group => "group",
            CoordinatorType::Transaction => "transactional id",
        }
    }
}

/// A coordinator answers an end of transaction before the partitions have heard of it, and has the next one wait for that: a matter of
/// milliseconds, where other retries wait for brokers to change. The second is what Kafka's Java client waits each time.
const CONCURRENT_TRANSACTIONS_BACKOFF: (Duration, Duration) =
    (Duration::from_millis(2), Duration::from_millis(20));

/// Where brokers are reached at an address that nobody here has typed: the usual fault of a first set-up.
const ANNOUNCED: &str = "the cluster gives this address for one of its brokers: if it cannot be reached from here, correct \
    that broker's advertised.listeners (corelog --advertise)";
/// How long a topic may be unknown before that is believed: brokers learn of new topics at different times.
pub(crate) const UNKNOWN_TOPIC_PATIENCE: Duration = Duration::from_secs(3);
/// Refreshes by age after which a topic that nobody asked for again is forgotten.
const UNWANTED_AFTER: u32 = 3;

pub(crate) struct Core {
    pub(crate) config: ClientConfig,
    bootstrap: Vec<Address>,
    pub(crate) metadata: RefCell<Metadata>,
    /// Told after metadata changed, and when asking for it failed: who still needs it asks again.
    pub(crate) updated: Event,
    /// Topics that producers and consumers asked for: refreshed when they age. With the refreshes by age since they were last asked for:
    /// whoever still uses one asks for it again with each.
    wanted: RefCell<BTreeMap<Str, u32>>,
    connections: RefCell<HashMap<(Node, Lane), Rc<Slot>>>,
    lanes: Cell<u32>,
    open_lanes: RefCell<BTreeSet<u32>>,
    coordinators: RefCell<HashMap<(CoordinatorType, Str), i32>>,
    refreshing: Cell<bool>,
    /// Refreshes that failed in a row, and why the last one did.
    refresh_failed: RefCell<Option<(u32, Error)>>,
}

/// The place of one connection.
#[derive(Default)]
struct Slot {
    connection: RefCell<Option<Rc<Connection>>>,
    connecting: Cell<bool>,
    /// Told when connecting ends, and when the lane is closed.
    connected: Event,
    failures: Cell<u32>,
    retry_at: Cell<Option<Instant>>,
}

impl Core {
    pub(crate) fn new(config: ClientConfig, bootstrap: Vec<Address>) -> Rc<Core> {
        let core = Rc::new(Core {
            config,
            bootstrap,
            metadata: RefCell::default(),
            updated: Event::default(),
            wanted: RefCell::default(),
            connections: RefCell::default(),
            lanes: Cell::new(1),
            open_lanes: RefCell::default(),
            coordinators: RefCell::default(),
            refreshing: Cell::new(false),
            refresh_failed: RefCell::default(),
        });
        driver::spawn(core.clone().refresh_by_age());
        core
    }

    pub(crate) fn new_lane(&self) -> Lane {
        let lane = self.lanes.get();
        self.lanes.set(lane + 1);
        self.open_lanes.borrow_mut().insert(lane);
        Lane(lane)
    }

    /// Closes what a lane has open, or is about to open; it opens no more. Its tasks are told, and must be ready for it.
    pub(crate) fn close_lane(&self, lane: Lane) {
        self.open_lanes.borrow_mut().remove(&lane.0);
        self.connections.borrow_mut().retain(|(_, of), slot| {
            if *of == lane {
                if let Some(connection) = &*slot.connection.borrow() {
                    connection.close(Error::Closed);
                }
                slot.connected.notify();
            }
            *of != lane
        });
    }

    /// None once the lane is closed.
    fn slot(&self, node: Node, lane: Lane) -> Option<Rc<Slot>> {
        let is_open = lane == Lane::SHARED || self.open_lanes.borrow().contains(&lane.0);
        is_open.then(|| self.connections.borrow_mut().entry((node, lane)).or_default().clone())
    }

    /// The lane's connection to a broker if it is there: then nothing has to be awaited before sending.
    pub(crate) fn connected(&self, node: Node, lane: Lane) -> Option<Rc<Connection>> {
        let slot = self.connections.borrow().get(&(node, lane)).cloned()?;
        let connection = slot.connection.borrow().clone();
        connection.filter(|connection| !connection.is_closed())
    }

    /// The lane's connection to a broker, made if need be. After failures it waits before the next try.
    pub(crate) async fn connection(&self, node: Node, lane: Lane) -> Result<Rc<Connection>> {
        loop {
            if let Some(connection) = self.connected(node, lane) {
                return Ok(connection);
            }
            let slot = self.slot(node, lane).ok_or(Error::Closed)?;
            if slot.connecting.get() {
                slot.connected.listen().await;
                continue;
            }
            slot.connecting.set(true);
            let guard = Connecting(&slot);
            // One that is dead is let go before the next is made, not after.
            slot.connection.take();
            let opened = match select(slot.connected.listen(), pin!(self.open(node, &slot))).await {
                Either::Right((opened, _)) => opened,
                // While one connects, only the lane's end tells.
                Either::Left(_) => return Err(Error::Closed),
            };
            match &opened {
                Ok(connection) if self.slot(node, lane).is_none() => {
                    // Nobody would close it later.
                    connection.close(Error::Closed);
                    return Err(Error::Closed);
                }
                Ok(connection) => {
                    slot.failures.set(0);
                    slot.retry_at.set(None);
                    slot.connection.replace(Some(connection.clone()));
                }
                Err(_) => {
                    let backoff = (self.config.reconnect_backoff, self.config.reconnect_backoff_max);
                    slot.retry_at.set(Some(driver::now() + backoff_after(slot.failures.get(), backoff)));
                    slot.failures.set(slot.failures.get().saturating_add(1));
                }
            }
            drop(guard);
            return opened;
        }
    }

    async fn open(&self, node: Node, slot: &Slot) -> Result<Rc<Connection>> {
        if let Some(retry_at) = slot.retry_at.get() {
            driver::sleep_until(retry_at).await;
        }
        let address = self.address(node)?;
        let named = self.bootstrap.contains(&address);
        Connection::open(&self.config, &address).await.map_err(|error| match error {
            Error::Connect { address, source, .. } if !named => {
                Error::Connect { address, source, advice: ANNOUNCED }
            }
            error => error,
        })
    }

    fn address(&self, node: Node) -> Result<Address> {
        match node {
            Node::Bootstrap(at) => Ok(self.bootstrap[at].clone()),
            Node::Id(id) => match self.metadata.borrow().brokers.get(&id) {
                Some(broker) => Ok(Address { host: broker.host.clone(), port: broker.port }),
                // It may come back.
                None => Err(Error::Disconnected {
                    address: format!("broker {id}"),
                    reason: "it is not among the cluster's brokers".into(),
                }),
            },
        }
    }

    /// Any broker: one that is connected already, else the first that can be reached, known ones before the bootstrap list.
    pub(crate) async fn any(&self, lane: Lane) -> Result<Rc<Connection>> {
        let known: Vec<Node> = self.metadata.borrow().brokers.keys().map(|id| Node::Id(*id)).collect();
        let nodes: Vec<Node> =
            known.into_iter().chain((0..self.bootstrap.len()).map(Node::Bootstrap)).collect();
        if let Some(connection) = nodes.iter().find_map(|node| self.connected(*node, lane)) {
            return Ok(connection);
        }
        let mut last = Error::Closed;
        for node in nodes {
            match self.connection(node, lane).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The broker that changes topics and configs. Brokers of today forward to it, older ones refuse unless it is them.
    pub(crate) async fn controller(&self) -> Result<Rc<Connection>> {
        if self.metadata.borrow().controller.is_none() {
            self.refresh(Some(&[])).await?;
        }
        let controller = self.metadata.borrow().controller;
        match controller {
            Some(id) => self.connection(Node::Id(id), Lane::SHARED).await,
            None => self.any(Lane::SHARED).await,
        }
    }

    /// Asks for the cluster for the first time.
    pub(crate) async fn begin(&self) -> Result<()> {
        let after = self.config.api_timeout;
        match driver::timeout_at(self.deadline(), self.refresh(Some(&[]))).await {
            Some(told) => told.map(drop),
            None => Err(Error::Timeout { what: "ask for the cluster's brokers".into(), after, last: None }),
        }
    }

    /// Asks any broker for the cluster and the named topics, or all; returns what it says of the topics. Nothing is created.
    pub(crate) async fn refresh(&self, topics: Option<&[Str]>) -> Result<HashMap<Str, TopicState>> {
        self.refresh_creating(topics, false).await
    }

    pub(crate) async fn refresh_creating(
        &self,
        topics: Option<&[Str]>,
        create: bool,
    ) -> Result<HashMap<Str, TopicState>> {
        let connection = self.any(Lane::SHARED).await?;
        let version = connection.pick::<MetadataRequest>()?;
        let mut names: Option<Vec<metadata_request::Topic>> = topics.map(|topics| {
            topics
                .iter()
                .map(|name| metadata_request::Topic { name: Some(name.clone()), ..Default::default() })
                .collect()
        });
        if version == 0 && names.is_none() {
            names = Some(Vec::new());
        }
        // Below version 4 brokers create by their own config, whatever is said here.
        let allow_auto_topic_creation = create || version < 4;
        let request = MetadataRequest { topics: names, allow_auto_topic_creation, ..Default::default() };
        let response = connection.call_version(&request, version, self.config.request_timeout).await?;
        Error::check(response.error_code, || "ask for metadata".into())?;
        let told = self.metadata.borrow_mut().update(&response);
        self.updated.notify();
        Ok(told)
    }

    /// Refreshes the topics that are in use, in the background; does nothing while that is under way. After a failure it waits
    /// longer the next time.
    pub(crate) fn refresh_soon(self: &Rc<Self>) {
        if !self.refreshing.replace(true) {
            let core = self.clone();
            driver::spawn(async move {
                let failures = core.refresh_failed.borrow().as_ref().map_or(0, |(failures, _)| *failures);
                driver::sleep(core.backoff(failures)).await;
                let wanted: Vec<Str> = core.wanted.borrow().keys().cloned().collect();
                let refreshed = core.refresh(Some(&wanted)).await;
                core.refreshing.set(false);
                let has_failed = refreshed.is_err();
                core.refresh_failed.replace(refreshed.err().map(|error| (failures.saturating_add(1), error)));
                if has_failed {
                    core.updated.notify();
                }
            });
        }
    }

    /// Why the last refresh failed, if it did.
    pub(crate) fn refresh_error(&self) -> Option<Error> {
        self.refresh_failed.borrow().as_ref().map(|(_, error)| error.clone())
    }

    async fn refresh_by_age(self: Rc<Self>) {
        loop {
            driver::sleep(self.config.metadata_max_age).await;
            // Of one that is still under way nobody has been told.
            if !self.refreshing.get() {
                self.forget_unwanted();
            }
            if !self.wanted.borrow().is_empty() {
                self.refresh_soon();
            }
        }
    }

    /// Keeps the topic's metadata fresh, as long as this is said again whenever `updated` is told.
    pub(crate) fn want(&self, topic: &Str) {
        self.wanted.borrow_mut().insert(topic.clone(), 0);
    }

    fn forget_unwanted(&self) {
        let mut metadata = self.metadata.borrow_mut();
        self.wanted.borrow_mut().retain(|topic, refreshes| {
            *refreshes += 1;
            let is_wanted = *refreshes <= UNWANTED_AFTER;
            if !is_wanted {
                metadata.topics.remove(topic);
            }
            is_wanted
        });
    }

    /// The topic, asked for until the broker knows it, or the deadline. With `create`, asking may create it, if the broker is so
    /// configured.
    pub(crate) async fn topic(
        &self,
        name: &Str,
        create: bool,
        deadline: Instant,
    ) -> Result<Rc<crate::metadata::Topic>> {
        if let Some(topic) = self.metadata.borrow().topics.get(name) {
            return Ok(topic.clone());
        }
        let names = [name.clone()];
        let what = format!("find topic {name:?}");
        let patience = driver::now() + UNKNOWN_TOPIC_PATIENCE;
        self.retry(&what, deadline, async || {
            let mut told = self.refresh_creating(Some(&names), create).await?;
            match told.remove(name) {
                Some(Ok(topic)) if !topic.partitions.is_empty() => Ok(topic),
                Some(Err(code))
                    if code != ErrorCode::UNKNOWN_TOPIC_OR_PARTITION || driver::now() > patience =>
                {
                    Err(Error::broker(code, &*what))
                }
                _ => Err(Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, &*what)),
            }
        })
        .await
    }

    /// The coordinator of a group or transactional id, asked for if it is not known.
    pub(crate) async fn coordinator(
        &self,
        of: CoordinatorType,
        key: &Str,
        lane: Lane,
    ) -> Result<Rc<Connection>> {
        let known = self.known_coordinator(of, key);
        if let Some(id) = known
            && self.metadata.borrow().brokers.contains_key(&id)
        {
            return self.connection(Node::Id(id), lane).await;
        }
        let connection = self.any(Lane::SHARED).await?;
        let version = connection.pick::<FindCoordinatorRequest>()?;
        let mut request = FindCoordinatorRequest::default();
        match version {
            0..4 => request.key = key.clone(),
            _ => request.coordinator_keys = vec![key.clone()],
        }
        request.key_type = of as i8;
        let mut response = connection.call_version(&request, version, self.config.request_timeout).await?;
        if version < 4 {
            response.coordinators = vec![Coordinator {
                key: key.clone(),
                node_id: response.node_id,
                host: response.host,
                port: response.port,
                error_code: response.error_code,
                error_message: response.error_message,
            }];
        }
        let what = || format!("find the coordinator of {} {key:?}", of.name());
        let Some(found) = response.coordinators.into_iter().find(|it| it.key == *key) else {
            return Err(Error::broker(ErrorCode::COORDINATOR_NOT_AVAILABLE, what()));
        };
        Error::check_with(found.error_code, found.error_message.as_deref(), what)?;
        let id = found.node_id;
        if !self.metadata.borrow().brokers.contains_key(&id) {
            self.refresh(Some(&[])).await?;
        }
        self.coordinators.borrow_mut().insert((of, key.clone()), id);
        self.connection(Node::Id(id), lane).await
    }

    pub(crate) fn known_coordinator(&self, of: CoordinatorType, key: &Str) -> Option<i32> {
        self.coordinators.borrow().get(&(of, key.clone())).copied()
    }

    /// To be called when a coordinator turns out not to be it, or not to be reachable.
    pub(crate) fn forget_coordinator(&self, of: CoordinatorType, key: &Str) {
        self.coordinators.borrow_mut().remove(&(of, key.clone()));
    }

    /// Asks the group's coordinator, with `error_of` telling the code of an answer: retries while the coordinator moves or loads.
    pub(crate) async fn call_coordinator<R: Request>(
        &self,
        group: &Str,
        what: &str,
        request: impl Fn(i16) -> R,
        error_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        self.retry(what, self.deadline(), async || {
            let asked = async {
                let connection = self.coordinator(CoordinatorType::Group, group, Lane::SHARED).await?;
                let version = connection.pick::<R>()?;
                let response =
                    connection.call_version(&request(version), version, self.config.request_timeout).await?;
                Error::check(error_of(&response), || what.to_owned())?;
                Ok(response)
            };
            asked.await.inspect_err(|error: &Error| {
                if error.is_retriable() {
                    self.forget_coordinator(CoordinatorType::Group, group);
                }
            })
        })
        .await
    }

    pub(crate) fn deadline(&self) -> Instant {
        driver::now() + self.config.api_timeout
    }

    /// Tries until it works, fails for good, or the deadline comes. Metadata is refreshed where that may be the cause. That a topic
    /// is not there is taken as final: who knows better asks for [`Core::topic`].
    pub(crate) async fn retry<T>(
        &self,
        what: &str,
        deadline: Instant,
        mut attempt: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        let started = driver::now();
        let mut last = None;
        let mut failures = 0;
        let tries = async {
            loop {
                match attempt().await {
                    Err(error)
                        if error.is_retriable()
                            && error.code() != Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) =>
                    {
                        let stale = error.wants_metadata();
                        let backoff = match error.code() {
                            Some(ErrorCode::CONCURRENT_TRANSACTIONS) => {
                                backoff_after(failures, CONCURRENT_TRANSACTIONS_BACKOFF)
                            }
                            _ => self.backoff(failures),
                        };
                        last = Some(Box::new(error));
                        driver::sleep(backoff).await;
                        failures += 1;
                        if stale {
                            let _ = self.refresh(Some(&[])).await;
                        }
                    }
                    done => return done,
                }
            }
        };
        match driver::timeout_at(deadline, tries).await {
            Some(done) => done,
            // One that cannot be reached at all is best told as that.
            None => match last {
                Some(error) if matches!(*error, Error::Connect { .. }) => Err(*error),
                last => Err(Error::Timeout { what: what.to_owned(), after: driver::elapsed(started), last }),
            },
        }
    }

    pub(crate) fn backoff(&self, failures: u32) -> Duration {
        backoff_after(failures, (self.config.retry_backoff, self.config.retry_backoff_max))
    }
}

/// A lane that is closed when this is dropped, as when the task that has it is.
pub(crate) struct OwnLane {
    core: Rc<Core>,
    pub(crate) lane: Lane,
}

impl OwnLane {
    pub(crate) fn new(core: &Rc<Core>) -> OwnLane {
        OwnLane { core: core.clone(), lane: core.new_lane() }
    }
}

impl Drop for OwnLane {
    fn drop(&mut self) {
        if !planted(Fault::LanesAreLeft) {
            self.core.close_lane(self.lane);
        }
    }
}

/// Clears the mark also when the one who connects is cancelled.
struct Connecting<'a>(&'a Rc<Slot>);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.connected.notify();
    }
}

/// Doubles with each failure up to a limit, and varies by a fifth so that many clients do not come back at once.
fn backoff_after(failures: u32, (first, max): (Duration, Duration)) -> Duration {
    let backoff = first.saturating_mul(1 << failures.min(16)).min(max);
    backoff.mul_f64(0.8 + 0.4 * (driver::random_u64() as f64 / u64::MAX as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        for (failures, millis) in [(0, 100), (1, 200), (3, 800), (4, 1000), (u32::MAX, 1000)] {
            let backoff = backoff_after(failures, (first, max)).as_millis();
            assert!((millis * 8 / 10..=millis * 12 / 10).contains(&backoff), "{failures}: {backoff}");
        }
    }
}
