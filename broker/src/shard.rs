//! One core's share of the broker: its partitions, connections, budgets and caches. Everything here belongs to one
//! thread; other shards are reached by calls (`call.rs`).

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Display;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::Semaphore;
use corelog_io::{Queue, sleep, spawn, yield_if_needed};
use corelog_replicas::Led;
use corelog_storage::{LogId, ReadError, ShardStorage};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::call::Calls;
use crate::cluster::{Member, Steward};
use crate::config::BrokerConfig;
use crate::controller::{
    BrokerImage, CONTROLLER_SHARD, Change, ChangeError, ControllerHandle, Delta, Endpoint, Image,
    OFFSETS_TOPIC, RecentChanges, Terms, TopicImage, Update, View, Viewer,
};
use crate::coordinator::StorageLog;
use crate::fetch::{Fetching, Given, Host, ListId};
use crate::groups::{GroupConfig, GroupShard, TopicIds};
use crate::identity::Identity;
use crate::ids::{BrokerId, ReplicaId, ShardId};
use crate::lifecycle::Stopping;
use crate::logging::sparing::Sparing;
use crate::metrics::ShardMetrics;
use crate::net::admission::{Admission, Descriptors};
use crate::net::answers::AnswerRoom;
use crate::net::receive::ReceiveBudget;
use crate::partition::{Partition, Partitions, Route, Router, placement};
use crate::producer_ids::ProducerIds;
use crate::settings::Settings;

/// How long it is waited before a damaged replica is renewed again.
const RENEW_RETRY: Duration = Duration::from_secs(5);
/// What other requests decode to may take this part of the receive budget, but for small ones.
const DECODED_SHARE: u64 = 4;
/// And what those decode to that ask the controller for changes, beside the others.
const DECODED_CHANGES_SHARE: u64 = 8;

pub struct Shard {
    pub id: ShardId,
    pub shards: usize,
    pub settings: Arc<Settings>,
    pub identity: Arc<Identity>,
    pub storage: Rc<ShardStorage>,
    pub partitions: Partitions,
    /// Of a broker of a cluster.
    pub member: Option<Rc<Member>>,
    pub steward: Steward,
    pub calls: Calls,
    pub metrics: ShardMetrics,
    /// Bytes of requests that are being received or processed.
    pub receive_budget: Rc<ReceiveBudget>,
    /// Bytes that other requests decode to.
    pub decoded: Semaphore,
    /// Bytes that requests decode to which ask the controller for changes.
    pub decoded_changes: Semaphore,
    /// For other answers that are not sent yet.
    pub answers: AnswerRoom,
    /// Held while a request's batches get their order, so that those of a later request do not get in between.
    pub append_turn: Semaphore,
    pub fetching: Fetching,
    pub groups: GroupShard<StorageLog>,
    pub connections: Cell<usize>,
    /// Counts the connections of all shards; used on shard 0.
    pub admission: Admission,
    /// Lines about what clients do; shard 0 has the last word on each.
    sparing: Rc<Sparing>,
    pub stopping: Rc<Stopping>,
    /// The effective config, dynamic values included.
    config: RefCell<Arc<BrokerConfig>>,
    view: Rc<RefCell<Arc<View>>>,
    /// Of its image.
    recent_changes: RefCell<RecentChanges>,
    controller: OnceCell<ControllerHandle>,
    /// Of each listener, in the configuration's order: known once they are bound.
    ports: RefCell<Vec<u16>>,
    producer_ids: ProducerIds,
}

/// What a shard is made of.
pub struct Parts {
    pub id: ShardId,
    pub config: Arc<BrokerConfig>,
    pub settings: Arc<Settings>,
    pub identity: Arc<Identity>,
    pub storage: Rc<ShardStorage>,
    /// Of a broker of a cluster.
    pub member: Option<Rc<Member>>,
    pub calls: Calls,
    pub stopping: Rc<Stopping>,
}

impl Shard {
    pub fn new(parts: Parts) -> Rc<Shard> {
        let Parts { id, config, settings, identity, storage, member, calls, stopping } = parts;
        let shards = corelog_io::cores();
        let budgets = config.budgets(shards);
        let viewer = Viewer { settings: &settings, node_id: identity.node_id };
        let view = Rc::new(RefCell::new(Arc::new(View::new(Arc::default(), viewer))));
        let partitions =
            Partitions::new(BrokerId(identity.node_id), storage.clone(), member.clone(), view.clone());
        let topics = {
            let view = view.clone();
            TopicIds::new(move |name| view.borrow().image.topic(name).map(|topic| topic.id))
        };
        let sparing = Rc::new(Sparing::default());
        let groups = GroupShard::new(
            group_config(&config),
            budgets.groups_bytes as usize,
            topics,
            Rc::clone(&sparing),
        );
        let limit = corelog_io::fs::descriptors_max();
        let descriptors = Descriptors::share(limit, shards, storage.descriptors_kept(), member.is_some());
        Rc::new(Shard {
            id,
            shards,
            view,
            recent_changes: RefCell::default(),
            settings,
            identity,
            storage,
            partitions,
            member,
            steward: Steward::default(),
            calls,
            metrics: ShardMetrics::new(),
            receive_budget: Rc::new(ReceiveBudget::new(
                budgets.receive_bytes,
                config.connections.request_bytes_max,
            )),
            decoded: Semaphore::new(budgets.receive_bytes / DECODED_SHARE),
            decoded_changes: Semaphore::new(budgets.receive_bytes / DECODED_CHANGES_SHARE),
            answers: AnswerRoom::new(budgets.answers_bytes),
            append_turn: Semaphore::new(1),
            fetching: Fetching::new(
                config.fetch_sessions_max.div_ceil(shards),
                budgets.fetch_bytes,
                budgets.sessions_bytes,
            ),
            groups,
            connections: Cell::new(0),
            sparing,
            stopping,
            controller: OnceCell::new(),
            ports: RefCell::default(),
            admission: Admission::new(descriptors),
            producer_ids: ProducerIds::new(),
            config: RefCell::new(config),
        })
    }

    pub fn broker(&self) -> BrokerId {
        BrokerId(self.identity.node_id)
    }

    pub fn image(&self) -> Arc<Image> {
        self.view.borrow().image.clone()
    }

    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// Finds partitions by the metadata as they are.
    pub fn with_router<T>(&self, find: impl FnOnce(&Router) -> T) -> T {
        let (view, changes) = (self.view.borrow(), self.recent_changes.borrow());
        let (broker, shards) = (self.broker(), self.shards);
        find(&Router { image: &view.image, changes: &changes, broker, shards })
    }

    pub fn route(&self, topic: &str, partition: i32) -> Result<Route, ErrorCode> {
        self.with_router(|router| router.route(topic, partition))
    }

    pub fn config(&self) -> Arc<BrokerConfig> {
        self.config.borrow().clone()
    }

    /// Takes over a change of metadata, at once but for the logs' configs: logs of topics that are gone are deleted, changed
    /// configs take effect. Looks only at what has changed.
    pub async fn install(self: &Rc<Self>, update: &Update) {
        let Update { view, delta } = update;
        let before = self.view.replace(view.clone());
        self.recent_changes.borrow_mut().note(&view.image, delta);
        let touches_all = delta.touches_broker(self.identity.node_id);
        if touches_all {
            let (own, cluster) = view.image.broker_layers(self.identity.node_id);
            match self.settings.broker(own, cluster) {
                Ok(config) => *self.config.borrow_mut() = Arc::new(config),
                Err(error) => tracing::error!(%error, "dynamic broker configs do not take effect"),
            }
        }
        self.follow_brokers(view, delta);
        self.follow_partitions(view, delta).await;
        self.follow_groups(view, delta);
        for topic in &delta.removed {
            self.remove_logs(topic);
        }
        if touches_all {
            self.reconfigure_all_logs(&before).await;
        } else {
            self.reconfigure_logs(delta).await;
        }
    }

    /// What the coordinators of groups must know of a change.
    fn follow_groups(self: &Rc<Self>, view: &View, delta: &Delta) {
        if delta.removed.iter().any(|topic| &*topic.name == OFFSETS_TOPIC) {
            self.groups.stop_all();
        }
        if let Some(topic) = view.image.topic(OFFSETS_TOPIC)
            && (delta.topics.contains_key(&topic.id) || !delta.brokers.is_empty())
        {
            self.groups.set_append_bytes_max(view.config(topic).max_message_bytes);
            // Sessions expire and offsets age whether or not somebody asks.
            for index in self.owned(topic).map(|id| id.partition) {
                // The coordinator is where the partition's leader is.
                self.groups.follow(index, self.group_log(index));
            }
        }
        if !delta.removed.is_empty() {
            let topics: Vec<(Str, Uuid)> =
                delta.removed.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
            self.groups.topics_deleted(&topics);
        }
    }

    fn remove_logs(&self, topic: &TopicImage) {
        let removals: Vec<_> =
            self.owned(topic).map(|id| (id.partition, self.partitions.delete(id))).collect();
        if planted(Fault::DeletedTopicsStay) {
            return;
        }
        let name = topic.name.clone();
        // The topic is gone now; its files may take seconds, and nobody need wait for them. A restart sweeps up what is left.
        spawn(Queue::Background, async move {
            for (partition, removal) in removals {
                if let Err(error) = removal.await {
                    tracing::error!(topic = %name, partition, %error, "files of a deleted partition stay");
                }
            }
        })
        .detach();
    }

    /// The configs of topics that have changed take effect. There may be thousands of logs; meanwhile another image may come,
    /// and what it says counts.
    async fn reconfigure_logs(&self, delta: &Delta) {
        for id in delta.topics.iter().filter(|(_, topic)| topic.configs).map(|(id, _)| *id) {
            let view = self.view();
            let Some(topic) = view.image.topic_by_id(id) else { continue };
            for id in self.owned(topic) {
                yield_if_needed().await;
                if let Some(partition) = self.partitions.opened(id) {
                    self.partitions.configure(&partition);
                }
            }
        }
    }

    /// The configs that all topics' rest on have changed, since the view `before`.
    async fn reconfigure_all_logs(&self, before: &View) {
        for partition in self.partitions.all_opened() {
            yield_if_needed().await;
            let view = self.view();
            let config = |view: &View| {
                let topic = view.image.topic_by_id(partition.id().topic)?;
                Some(Arc::as_ptr(view.config(topic)))
            };
            if config(before) != config(&view) {
                self.partitions.configure(&partition);
            }
        }
    }

    /// Where brokers are reached from now on.
    fn follow_brokers(&self, view: &View, delta: &Delta) {
        if let Some(member) = self.member.as_ref().filter(|_| !delta.registered.is_empty()) {
            member.follow_brokers(&view.image, &delta.registered);
        }
    }

    /// Partitions whose leaders have changed are led, or followed, from now on; their replicas are where the image says. All of
    /// them where a broker has come: it may run other numbers of shards than it did.
    async fn follow_partitions(self: &Rc<Self>, view: &View, delta: &Delta) {
        let all = self.member.as_ref().is_some_and(|member| self.may_open_all(member, view, delta));
        if all {
            for topic in view.image.topics() {
                for id in self.owned(topic) {
                    yield_if_needed().await;
                    self.follow_partition(view, topic, id);
                }
            }
            return;
        }
        for (topic, changed) in &delta.topics {
            let Some(image) = view.image.topic_by_id(*topic) else { continue };
            if changed.is_new && self.member.is_some() {
                self.owned(image).for_each(|id| self.follow_partition(view, image, id));
            }
            for partition in &changed.partitions {
                let id = LogId { topic: *topic, partition: *partition };
                if self.owner(id) == self.id {
                    self.follow_partition(view, image, id);
                }
            }
        }
    }

    /// Whether any of its replicas may be elsewhere than before, or may be opened now.
    fn may_open_all(&self, member: &Member, view: &View, delta: &Delta) -> bool {
        if delta.registered.is_empty() {
            return false;
        }
        // What was said before may be of another life of its disk, or old: a replica that has moved away and come back since is not
        // the one that it was, and what it has must not go for what the first one was told.
        let own = view.image.brokers.get(&self.broker());
        let is_this_life = |own: &BrokerImage| {
            own.directory == self.identity.directory && own.incarnation == member.plan.incarnation.0
        };
        if own.is_some_and(is_this_life) {
            member.set_known();
        }
        member.is_known()
    }

    fn follow_partition(self: &Rc<Self>, view: &View, topic: &TopicImage, id: LogId) {
        if let Some(now) = topic.partition(id.partition) {
            if self.member.is_some() && !now.replicas.contains(&self.broker()) {
                // The metadata say so once its group has gone on without it.
                if self.partitions.opened(id).is_some() {
                    self.remove_replica(id);
                }
                return;
            }
            let own = now.replicas_with_ids().find(|(_, broker)| *broker == self.broker());
            let opened = self.partitions.opened(id).and_then(|opened| opened.replica_id());
            if opened.is_some() && opened != own.map(|(id, _)| id) {
                return self.remove_replica(id);
            }
            self.partitions.follow(id, &view.image, now);
            if now.has_group && self.member.is_some() {
                self.steward.note(id);
            }
        }
    }

    /// Who leads a partition's group has changed, as its replica here knows it.
    pub fn partition_is_led(self: &Rc<Self>, id: LogId, led: Led) {
        if !self.partitions.led_in_group(id, led) {
            return;
        }
        self.steward.note(id);
        let is_of_groups = self.image().topic(OFFSETS_TOPIC).is_some_and(|topic| topic.id == id.topic);
        if is_of_groups {
            self.groups.follow(id.partition, self.group_log(id.partition));
        }
    }

    /// The same of the controller's group.
    pub fn controller_is_led(&self) {
        if let Ok(controller) = self.controller() {
            controller.led();
        }
    }

    /// What is here of a partition goes, once the metadata say that it is no replica any more: until then its group may take it back as
    /// who it was, and it must still have what it had. Should it be a replica again, under another id, it begins anew after that.
    pub fn remove_replica(self: &Rc<Self>, id: LogId) {
        let (removal, shard) = (self.partitions.leave(id), self.clone());
        spawn(Queue::Background, async move {
            if let Err(error) = removal.await {
                return tracing::error!(log = %id, %error, "files of a replica that is not one any more stay");
            }
            shard.partitions.has_left(id);
            let view = shard.view();
            if let Some(topic) = view.image.topic_by_id(id.topic) {
                shard.follow_partition(&view, topic, id);
            }
        })
        .detach();
    }

    /// What this broker has of a partition is damaged: it is to begin anew, from what the others have.
    pub fn renew_replica(self: &Rc<Self>, id: LogId, replica: ReplicaId) {
        let (shard, broker) = (self.clone(), self.broker());
        spawn(Queue::Background, async move {
            while !shard.is_stopping() {
                let change = Change::Renew { topic: id.topic, partition: id.partition, broker, replica };
                match shard.change(change, Terms::MAKE).await {
                    Ok(_) => return tracing::warn!(log = %id, "a damaged replica begins anew"),
                    Err(error) => {
                        tracing::warn!(log = %id, %error, "a damaged replica cannot begin anew yet");
                        sleep(RENEW_RETRY).await;
                    }
                }
            }
        })
        .detach();
    }

    /// The partitions of a topic that are this shard's.
    fn owned(&self, topic: &TopicImage) -> impl Iterator<Item = LogId> + use<'_> {
        let id = topic.id;
        let all = (0..topic.partition_count()).map(move |partition| LogId { topic: id, partition });
        all.filter(|log| self.owner(*log) == self.id)
    }

    /// The log of a partition of `__consumer_offsets` that this shard owns, if this broker leads it.
    pub fn group_log(&self, index: i32) -> Option<StorageLog> {
        let id = LogId { topic: self.image().topic(OFFSETS_TOPIC)?.id, partition: index };
        if self.owner(id) != self.id {
            return None;
        }
        let (partition, epoch) = self.partitions.get(id).ok()?.coordinators()?;
        Some(StorageLog::new(partition, epoch, Rc::clone(&self.sparing)))
    }

    /// Whether what the coordinators of a partition of `__consumer_offsets` know is all that there is: not where another broker may
    /// lead it by now, and coordinate.
    pub fn may_coordinate(&self, index: i32) -> bool {
        if self.member.is_none() {
            return true;
        }
        let topic = self.view.borrow().image.topic(OFFSETS_TOPIC).map(|topic| topic.id);
        let opened = topic.and_then(|topic| self.partitions.opened(LogId { topic, partition: index }));
        opened.is_none_or(|partition| partition.check_leader(-1) != Err(ErrorCode::NOT_LEADER_OR_FOLLOWER))
    }

    pub fn owner(&self, log: LogId) -> ShardId {
        placement::owner(log, self.shards)
    }

    /// A partition's files could not be read or written: a person is to know, and `what` was to be done. The code for it.
    /// On its owner.
    pub fn storage_failed(
        self: &Rc<Self>,
        what: &'static str,
        partition: LogId,
        error: impl Display + Send + 'static,
    ) -> ErrorCode {
        if self.partitions.opened(partition).is_none() {
            // Its topic was deleted meanwhile, and its files with it.
            return ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        }
        self.sparingly(
            what,
            move |left_out| tracing::error!(log = ?partition, %error, left_out, "{what} failed"),
        );
        ErrorCode::KAFKA_STORAGE_ERROR
    }

    /// The controller; only shard 0 has it.
    pub fn controller(&self) -> Result<&ControllerHandle, ChangeError> {
        self.controller.get().ok_or_else(|| {
            ChangeError::new(
                ErrorCode::NOT_CONTROLLER,
                "the controller is not on this shard or not loaded yet",
            )
        })
    }

    pub fn set_controller(&self, controller: ControllerHandle) {
        assert_eq!(self.id, CONTROLLER_SHARD, "the controller lives on one shard");
        assert!(self.controller.set(controller).is_ok(), "the controller is loaded once");
    }

    /// A producer id that was never given out.
    pub async fn next_producer_id(self: &Rc<Self>) -> Result<i64, ChangeError> {
        let take_block =
            async || Ok(self.change(Change::TakeProducerIds, Terms::MAKE).await?.next_producer_id);
        self.producer_ids.next(take_block).await
    }

    /// This broker as it registers itself: where clients reach it by each listener.
    pub fn registration(&self) -> BrokerImage {
        let (config, ports) = (self.config(), self.ports.borrow());
        let endpoints = config.listeners.iter().zip(&*ports).map(|(listener, port)| {
            let advertised = listener.advertised(*port);
            let endpoint = Endpoint { host: advertised.host.into(), port: advertised.port };
            (Str::from(listener.name.as_str()), endpoint)
        });
        BrokerImage {
            id: self.broker(),
            epoch: -1,
            endpoints: endpoints.collect(),
            rack: config.rack.as_deref().map(Str::from),
            fenced: false,
            incarnation: self.member.as_ref().map_or(0, |member| member.plan.incarnation.0),
            directory: self.identity.directory,
            peer: self.member.as_ref().map(|member| member.endpoint()),
            shards: self.shards,
            batch_bytes_max: self.member.as_ref().map(|member| member.links.batch_bytes_max()),
            controller_replica: self.member.as_ref().map(|_| self.identity.controller_replica()),
        }
    }

    pub fn set_ports(&self, ports: Vec<u16>) {
        *self.ports.borrow_mut() = ports;
    }

    /// Has `line` written, with how many of its kind were left out since the last: one a minute of each kind, over all
    /// shards. For what a client can cause as often as it likes.
    pub fn sparingly(self: &Rc<Self>, kind: &'static str, line: impl FnOnce(u64) + Send + 'static) {
        let Some(left_out) = self.sparing.turn(kind, 0, corelog_io::now()) else { return };
        if self.id == CONTROLLER_SHARD {
            return line(left_out);
        }
        self.post(CONTROLLER_SHARD, move |shard| {
            if let Some(left_out) = shard.sparing.turn(kind, left_out, corelog_io::now()) {
                line(left_out);
            }
        });
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.has_begun()
    }

    /// Completes when the shard is told to stop; at once if it has been.
    pub async fn stopping(&self) {
        self.stopping.begun().await;
    }
}

impl Host for Shard {
    fn id(&self) -> ShardId {
        self.id
    }

    fn fetching(&self) -> &Fetching {
        &self.fetching
    }

    fn partition(&self, id: LogId) -> Result<Rc<Partition>, ErrorCode> {
        self.partitions.get(id)
    }

    fn read_failed(self: Rc<Self>, partition: LogId, error: ReadError) -> ErrorCode {
        self.storage_failed("Fetch", partition, error)
    }

    fn ring(self: Rc<Self>, (home, number): ListId) {
        self.post(home, move |home| home.fetching.bells.ring(number));
    }

    fn unwatch(self: Rc<Self>, owner: ShardId, list: ListId, given: Vec<Given>) {
        self.post(owner, move |owner| owner.fetching.watches.remove(list, &given));
    }
}

fn group_config(config: &BrokerConfig) -> GroupConfig {
    GroupConfig {
        session_timeout_min_ms: config.groups.session_timeout_ms_min,
        session_timeout_max_ms: config.groups.session_timeout_ms_max,
        initial_rebalance_delay_ms: config.groups.initial_rebalance_delay_ms,
        group_members_max: config.groups.members_max,
        offset_metadata_max: config.offsets.metadata_bytes_max,
        offsets_retention_ms: config.offsets.retention_ms,
        offsets_retention_check_interval_ms: config.offsets.retention_check_interval_ms,
    }
}
