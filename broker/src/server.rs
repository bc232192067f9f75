//! Starting and stopping the shards of one process.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use corelog_io::{
    CoreCtx, Instant, ListenOptions, Listener, Queue, Received, RemoteReceiver, RemoteSender, Seat, Task,
    sleep, spawn,
};
use corelog_storage::{CommitMode, LogConfig, LogId, Recovered, Replayed, ShardStorage, StorageConfig};
use futures_util::future::{Either, select};

use crate::api;
use crate::call::{self, CallSeats, Calls, ShardGone};
use crate::cluster::{self, Member, MemberPlan, MemberSeed};
use crate::config::BrokerConfig;
use crate::config::describe::{self, Entry, Wanted};
use crate::controller::{
    CONTROLLER_SHARD, CONTROLLER_TOPIC, CONTROLLER_TOPIC_NAME, Change, Controller, Terms,
};
use crate::identity::Identity;
use crate::ids::ShardId;
use crate::leftovers::{self, Deleted, KEEP_ALL};
use crate::lifecycle::{Barrier, Stopping};
use crate::metrics::{Snapshot, families};
use crate::net::accept;
use crate::partition::{Role, placement};
use crate::settings::Settings;
use crate::shard::{Parts, Shard};
use crate::told::told;

/// Connections get this long to finish what is in progress when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// A client whose machine says nothing for this long is gone.
const PEER_DEAD_AFTER: Duration = Duration::from_secs(120);

/// How long a port that is taken is asked for.
const PORT_PATIENCE: Duration = Duration::from_secs(1);
const PORT_RETRY: Duration = Duration::from_millis(20);

/// How long it is waited before a broker that could not be registered is again.
const REGISTER_RETRY: Duration = Duration::from_secs(10);
const REGISTER_IN_CLUSTER_RETRY: Duration = Duration::from_millis(200);

/// Control messages that a shard takes before who sends them waits.
const CONTROL_CAPACITY: usize = 16;

/// How a start goes on, in words that follow the shard's number.
const READS_JOURNALS: &str = "reads the journals";
const OPENS_STORAGE: &str = "recovers what it read and waits for the other shards' part";
const LOADS_CONTROLLER: &str = "loads the controller's log";
const WAITS_FOR_CLUSTER: &str = "waits until its cluster knows it: for a majority of the controller's group";
const WAITS_FOR_CONTROLLER: &str = "waits for the controller";

/// What a shard is given at its start. Made for all shards of a process at once ([`Seed::for_cores`]), then each is
/// carried to its core and consumed by [`run`].
pub struct Seed {
    /// Of a broker of a cluster.
    member: Option<MemberSeed>,
    config: Arc<BrokerConfig>,
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    calls: CallSeats,
    /// Mailboxes through which shards hand each other what they found in the journals.
    recovery: Seat<Recovered>,
    /// Where the shards wait for each other before they close their storage.
    end: Seat<()>,
    /// Where the listeners are bound: looked up before the cores run, since that may take its time.
    addresses: Arc<[SocketAddr]>,
    control: RemoteReceiver<Control>,
    stop: RemoteReceiver<()>,
    report: Arc<dyn Fn(Report) + Send + Sync>,
}

impl Seed {
    /// One seed for each of `config.cores`, joined by mailboxes, and where each shard is told what to do. `report` is
    /// called on the cores. Names nothing of the world that the cores run in: `process` runs them on glommio, the
    /// simulation on simulated machines. Looks up the listeners' names, which may block.
    pub fn for_cores(
        settings: Arc<Settings>,
        config: Arc<BrokerConfig>,
        identity: Identity,
        member: Option<MemberPlan>,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> anyhow::Result<(Vec<Seed>, Vec<ShardControl>)> {
        let addresses = config.listeners.iter().map(|listener| listener.bind.resolve());
        let addresses: Arc<[SocketAddr]> = addresses.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
        let cores = config.cores.len();
        let members = cluster::member_seeds(member, &config, &identity, cores);
        let (identity, report) = (Arc::new(identity), Arc::new(report));
        let (recovery, end) = (corelog_io::mesh(cores, 1), corelog_io::mesh(cores, 1));
        let seats = call::meshes(cores).into_iter().zip(recovery).zip(end).zip(members);
        Ok(seats
            .map(|(((calls, recovery), end), member)| {
                let (orders, control) = corelog_io::remote(CONTROL_CAPACITY);
                let (stop_sender, stop) = corelog_io::remote(1);
                let seed = Seed {
                    member,
                    config: config.clone(),
                    settings: settings.clone(),
                    identity: identity.clone(),
                    calls,
                    recovery,
                    end,
                    addresses: addresses.clone(),
                    control,
                    stop,
                    report: report.clone(),
                };
                (seed, ShardControl { orders, stop: stop_sender })
            })
            .unzip())
    }
}

/// Where a shard is told what to do, from any thread.
#[derive(Clone)]
pub struct ShardControl {
    orders: RemoteSender<Control>,
    /// Apart: a stop is heard however many orders wait, and whatever the shard is about.
    stop: RemoteSender<()>,
}

impl ShardControl {
    /// Whether there is room for the order.
    pub fn ask(&self, order: Control) -> bool {
        self.orders.try_send(order).is_ok()
    }

    pub fn stop(&self) {
        // It is full when the shard has been told.
        let _ = self.stop.try_send(());
    }
}

/// What the service thread asks of a shard.
pub enum Control {
    /// A short look at what the shard knows.
    Look(Box<dyn FnOnce(&Shard) + Send>),
}

/// What shards tell the service thread.
#[derive(Debug)]
pub enum Report {
    /// Every shard takes connections, on these addresses.
    Ready { addresses: Vec<SocketAddr>, found: Found },
    /// How a shard's start goes on.
    Starting { shard: usize, what: &'static str },
    /// A shard has ended with an error. The others may wait for it for ever: the process is to end.
    Failed { shard: usize, what: String },
}

/// How a start found the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    New,
    /// As a stop in good order leaves it.
    Clean,
    /// The journals had more than the segments.
    Recovered(Replayed),
}

impl Found {
    fn new(recovered: &Recovered) -> Found {
        match recovered.replayed {
            _ if recovered.next_generation == 1 => Found::New,
            Replayed { entries: 0, .. } => Found::Clean,
            replayed => Found::Recovered(replayed),
        }
    }

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            Found::New => "new",
            Found::Clean => "clean",
            Found::Recovered(_) => "recovered",
        }
    }
}

/// Another shard has ended before this one could start: what it failed with is its own to tell.
#[derive(Debug, thiserror::Error)]
#[error("another shard ended before this one had started")]
struct PeerEnded;

/// One shard, from its start to its end.
pub async fn run(core: CoreCtx, seed: Seed) -> anyhow::Result<()> {
    let report = seed.report.clone();
    match live(core, seed).await {
        Err(error) if error.is::<PeerEnded>() || error.is::<ShardGone>() => {
            tracing::debug!(shard = core.core, "ends: {error:#}");
            Ok(())
        }
        Err(error) => {
            report(Report::Failed { shard: core.core, what: told(&error) });
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

async fn live(core: CoreCtx, seed: Seed) -> anyhow::Result<()> {
    let stopping = Rc::new(Stopping::default());
    let _listening = spawn(Queue::Control, hear_stop(seed.stop, stopping.clone()));
    let all_drained = Barrier::join(seed.end, core.core, core.cores).await;
    let start = Start {
        member: seed.member,
        id: ShardId(core.core),
        shards: core.cores,
        config: seed.config,
        settings: seed.settings,
        identity: seed.identity,
        addresses: seed.addresses,
        report: seed.report,
        stopping: stopping.clone(),
    };
    let started = {
        let starting = std::pin::pin!(start.run(seed.calls, seed.recovery));
        match select(std::pin::pin!(stopping.begun()), starting).await {
            // As if it had been killed there: what it has not made durable, nobody was told of.
            Either::Left(_) => None,
            Either::Right((started, _)) => Some(started?),
        }
    };
    if let Some((shard, _)) = &started {
        spawn(Queue::Background, crate::retention::run(shard.clone())).detach();
        let orders = std::pin::pin!(serve_control(shard, seed.control));
        select(std::pin::pin!(stopping.begun()), orders).await;
        cluster::drain::hand_over(shard).await;
        drain(shard).await;
    }
    // Until the last connection is drained its batches may be for any shard.
    all_drained.wait().await;
    match started {
        Some((shard, _serving)) => {
            if let Some(member) = &shard.member {
                member.stop();
            }
            shard.storage.close().await.context("closing the shard's storage")
        }
        None => Ok(()),
    }
}

async fn hear_stop(mut stop: RemoteReceiver<()>, stopping: Rc<Stopping>) {
    if stop.recv().await.is_some() {
        stopping.begin();
    }
}

/// A shard that starts. It may be given up at any point.
struct Start {
    member: Option<MemberSeed>,
    id: ShardId,
    shards: usize,
    config: Arc<BrokerConfig>,
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    addresses: Arc<[SocketAddr]>,
    report: Arc<dyn Fn(Report) + Send + Sync>,
    stopping: Rc<Stopping>,
}

impl Start {
    /// The shard, and the tasks by which the others reach it.
    async fn run(
        mut self,
        calls: CallSeats,
        recovery: Seat<Recovered>,
    ) -> anyhow::Result<(Rc<Shard>, [Task<()>; 2])> {
        let Start { id, shards, .. } = self;
        let (calls, call_receiver, reply_senders, reply_receiver) = Calls::join(calls, id.0).await;
        let storage_config = self.config.storage_config(id.0, shards);
        self.tell(READS_JOURNALS);
        let begun = corelog_io::now();
        let recovered = exchange(&storage_config, id, shards, recovery).await?;
        // The first shard's is of all.
        let found = Found::new(&recovered);
        self.tell(OPENS_STORAGE);
        let storage =
            ShardStorage::open(storage_config, recovered).await.context("opening the shard's storage")?;
        let (config, settings, identity) =
            (self.config.clone(), self.settings.clone(), self.identity.clone());
        let stopping = self.stopping.clone();
        let member = match self.member.take() {
            Some(seed) => Some(Member::start(seed, storage.clone()).await.context("the port for brokers")?),
            None => None,
        };
        let shard = Shard::new(Parts { id, config, settings, identity, storage, member, calls, stopping });
        if let Some(member) = &shard.member {
            member.serve(&shard);
            cluster::handover::serve(&shard);
            cluster::trim::serve(&shard);
            spawn(Queue::Control, cluster::steward::run(shard.clone())).detach();
            if id == CONTROLLER_SHARD {
                api::describe_quorum::serve(&shard);
                cluster::changes::serve(&shard);
                cluster::reception::serve(&shard);
            }
        }
        let serving = call::start(&shard, call_receiver, reply_senders, reply_receiver);
        if id == CONTROLLER_SHARD {
            self.tell(LOADS_CONTROLLER);
            let addresses = self.lead(&shard, found, begun).await?;
            (self.report)(Report::Ready { addresses, found });
        } else {
            self.tell(WAITS_FOR_CONTROLLER);
        }
        Ok((shard, serving))
    }

    fn tell(&self, what: &'static str) {
        (self.report)(Report::Starting { shard: self.id.0, what });
    }

    /// Shard 0's part: what the others need of the controller, then the listeners of all. Returns where they are.
    async fn lead(&self, shard: &Rc<Shard>, found: Found, begun: Instant) -> anyhow::Result<Vec<SocketAddr>> {
        let log_id = LogId { topic: CONTROLLER_TOPIC, partition: 0 };
        let commit = if shard.member.is_some() { CommitMode::Quorum } else { CommitMode::Alone };
        let log = shard.storage.log(log_id, CONTROLLER_TOPIC_NAME, LogConfig { commit, ..KEEP_ALL });
        let group = match &shard.member {
            Some(member) => Some(member.open_controller(&shard.identity, log.clone()).await?),
            None => None,
        };
        let (controller, deleted) =
            Controller::load(log, group, shard.settings.clone(), shard.identity.node_id, &shard.config())
                .await
                .context("loading the controller's log")?;
        let update = Arc::new(controller.update());
        let loaded = update.view.image.clone();
        if shard.member.is_none() {
            if loaded.end_offset == 0 {
                leftovers::expect_no_logs(shard).await.context("the controller's log")?;
            }
            leftovers::expect_own_partitions(&loaded, shard.broker()).context("the controller's log")?;
        }
        shard.set_controller(controller.start(shard));
        shard.on_all(move |shard| async move { shard.install(&update).await }).await?;
        if shard.member.is_none() {
            self.claim(shard, found, begun, &deleted).await?;
        }
        // Shard 0 binds first: with port 0 it is the one that finds out which port.
        let (bound, listeners) = take_ports(shard, &self.addresses).await?;
        let mut waiting = Some(listeners);
        if shard.member.is_some() {
            // What it knows of the metadata may be old, and so whom its partitions belong to.
            self.tell(WAITS_FOR_CLUSTER);
            register_in_cluster(shard).await;
            self.claim(shard, found, begun, &deleted).await?;
        } else {
            accept_all(shard, waiting.take());
            register(shard).await;
        }
        spawn(Queue::Background, leftovers::sweep(shard.clone(), loaded, deleted)).detach();
        spawn(Queue::Background, crate::disk::run(shard.clone())).detach();
        shard.admission.tell();
        accept_all(shard, waiting);
        let addresses = bound.clone();
        for listening in shard
            .on_all(move |shard| async move {
                if shard.id == CONTROLLER_SHARD {
                    return Ok::<(), String>(());
                }
                let (_, listeners) =
                    listen(&shard, &bound).map_err(|refused| format!("{:#}", refused.why))?;
                accept_all(&shard, Some(listeners));
                Ok(())
            })
            .await?
        {
            listening.map_err(anyhow::Error::msg)?;
        }
        Ok(addresses)
    }

    /// Every shard takes over what it recovered.
    async fn claim(
        &self,
        shard: &Rc<Shard>,
        found: Found,
        begun: Instant,
        deleted: &Deleted,
    ) -> anyhow::Result<()> {
        let claimed = deleted.clone();
        shard.on_all(move |shard| async move { leftovers::claim(&shard, &claimed).await }).await?;
        if let Found::Recovered(Replayed { journal_files, entries, bytes }) = found {
            let took_ms = (corelog_io::now() - begun).as_millis() as u64;
            tracing::info!(
                journal_files,
                entries,
                bytes,
                took_ms,
                "recovered: the last stop was not in good order"
            );
        }
        Ok(())
    }
}

/// Has the cluster know this broker, however long it takes until somebody leads the controller's group. Then what the metadata
/// say is known here as far as that.
async fn register_in_cluster(shard: &Rc<Shard>) {
    while let Err(error) = shard.change(Change::RegisterBroker(shard.registration()), Terms::MAKE).await {
        shard.sparingly("registering", move |left_out| {
            tracing::warn!(%error, left_out, "the cluster does not know this broker yet: it goes on trying");
        });
        sleep(REGISTER_IN_CLUSTER_RETRY).await;
    }
}

/// Has the metadata tell how clients reach this broker, if they do not yet. A disk may be too full for it: then it is tried
/// again until there is room.
async fn register(shard: &Rc<Shard>) {
    let change = Change::RegisterBroker(shard.registration());
    let Err(error) = shard.change(change, Terms::MAKE).await else { return };
    tracing::warn!(%error, "this broker is not registered yet: topics cannot be created until it is");
    let shard = shard.clone();
    spawn(Queue::Background, async move {
        while !shard.is_stopping() {
            sleep(REGISTER_RETRY).await;
            if shard.change(Change::RegisterBroker(shard.registration()), Terms::MAKE).await.is_ok() {
                return tracing::info!("this broker is registered");
            }
        }
    })
    .detach();
}

/// Reads this shard's part of the journals and deals what it found to the owners. When this returns, every shard has
/// read its part, and none needs the old journals any more.
async fn exchange(
    config: &StorageConfig,
    id: ShardId,
    shards: usize,
    seat: Seat<Recovered>,
) -> anyhow::Result<Recovered> {
    let found = corelog_storage::read_journals(&config.data_dir, id.0, shards)
        .await
        .context("reading the journals")?;
    let (senders, mut receiver) = seat.join(id.0).await;
    let mut parts = Vec::with_capacity(shards);
    for (to, part) in found.split(shards, |log| placement::owner(log, shards).0).into_iter().enumerate() {
        if to == id.0 {
            parts.push(part);
        } else {
            senders.send(to, part).await.map_err(|_| PeerEnded)?;
        }
    }
    // Who has handed its part over may be gone before the others' are here.
    let mut missing = vec![true; shards];
    missing[id.0] = false;
    while missing.contains(&true) {
        match receiver.recv_or_gone().await {
            Some((from, Received::Message(part))) => {
                missing[from] = false;
                parts.push(part);
            }
            Some((from, Received::Gone)) if !missing[from] => {}
            _ => return Err(PeerEnded.into()),
        }
    }
    Ok(Recovered::merge(parts))
}

/// As [`listen`], for shard 0. A process that was killed may have its port for a moment longer: what its rings had under way
/// the kernel ends after it.
async fn take_ports(
    shard: &Rc<Shard>,
    addresses: &[SocketAddr],
) -> anyhow::Result<(Vec<SocketAddr>, Vec<Listener>)> {
    let until = corelog_io::now() + PORT_PATIENCE;
    loop {
        match listen(shard, addresses) {
            Err(NotListening { is_taken: true, .. }) if corelog_io::now() < until => sleep(PORT_RETRY).await,
            bound => return bound.map_err(|refused| refused.why),
        }
    }
}

/// Why a shard does not listen.
struct NotListening {
    /// Somebody else does.
    is_taken: bool,
    why: anyhow::Error,
}

/// Binds this shard's listeners. Beside them the addresses, with the ports they got. Shard 0 comes first and takes the addresses
/// for this process; the others join it there.
fn listen(
    shard: &Rc<Shard>,
    addresses: &[SocketAddr],
) -> Result<(Vec<SocketAddr>, Vec<Listener>), NotListening> {
    let options = ListenOptions { backlog: shard.config().connections.backlog, dead_after: PEER_DEAD_AFTER };
    let open = if shard.id == CONTROLLER_SHARD { Listener::bind } else { Listener::join };
    let mut bound = Vec::with_capacity(addresses.len());
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = open(*address, options).map_err(|error| refusal(*address, error))?;
        bound.push(listener.local_addr().map_err(|error| refusal(*address, error))?);
        listeners.push(listener);
    }
    shard.set_ports(bound.iter().map(SocketAddr::port).collect());
    Ok((bound, listeners))
}

/// From now on clients are served.
fn accept_all(shard: &Rc<Shard>, listeners: Option<Vec<Listener>>) {
    for (index, listener) in listeners.into_iter().flatten().enumerate() {
        spawn(Queue::Control, accept::run(shard.clone(), listener, index)).detach();
    }
}

/// Why there is no listener, and what to do about it.
fn refusal(address: SocketAddr, error: std::io::Error) -> NotListening {
    let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
    let remedy = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let port = address.port();
            format!(
                "another process listens on port {port} (`ss -ltnp 'sport = :{port}'` tells which): stop it, or choose another \
                 port for this broker with --listen HOST:PORT"
            )
        }
        std::io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: choose one of its own with --listen HOST:PORT".to_owned()
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose another with --listen HOST:PORT".to_owned()
        }
        _ => "choose another address with --listen HOST:PORT".to_owned(),
    };
    NotListening { is_taken, why: anyhow::anyhow!("cannot listen on {address}: {error}; {remedy}") }
}

async fn serve_control(shard: &Rc<Shard>, mut control: RemoteReceiver<Control>) {
    while let Some(message) = control.recv().await {
        match message {
            Control::Look(look) => look(shard),
        }
    }
}

/// The broker's configs, dynamic ones included.
pub fn configs(shard: &Shard) -> Vec<Entry> {
    let image = shard.image();
    let (own, cluster) = image.broker_layers(shard.identity.node_id);
    describe::broker(&shard.settings.layers(own, cluster), Wanted(None))
}

/// All that this shard counts.
pub fn snapshot(shard: &Shard) -> Snapshot {
    let mut snapshot = shard.metrics.snapshot(shard.id.0);
    let groups = shard.groups.memory();
    let storage = shard.storage.metrics();
    let config = shard.config();
    let budgets = config.budgets(shard.shards);
    for (part, used, limit) in [
        ("receive", shard.receive_budget.used(), budgets.receive_bytes),
        ("fetch", shard.fetching.room.used(), budgets.fetch_bytes),
        ("answers", shard.answers.used(), shard.answers.total()),
        ("groups", groups.used() as u64, groups.limit() as u64),
        ("fetch_sessions", shard.fetching.sessions.bytes() as u64, budgets.sessions_bytes),
        ("tail", storage.cached_bytes, budgets.tail_bytes),
    ] {
        snapshot.put_labelled(&families::MEMORY_USED_BYTES, part, used);
        snapshot.put_labelled(&families::MEMORY_LIMIT_BYTES, part, limit);
    }
    for (queue, length) in [
        ("receive", shard.receive_budget.waiting()),
        ("fetch", shard.fetching.room.waiting()),
        ("append", shard.append_turn.waiting()),
        ("commit", shard.groups.commits_waiting()),
        ("calls", shard.calls.waiting()),
    ] {
        snapshot.put_labelled(&families::QUEUE_LENGTH, queue, length as u64);
    }
    if let Some(member) = &shard.member {
        member.links.put_metrics(&mut snapshot);
        put_replicas(shard, &mut snapshot);
    }
    // What is of the whole process is told by one.
    if shard.id == CONTROLLER_SHARD {
        snapshot.put(&families::CONNECTIONS_LIMIT, u64::from(config.connections.max));
        snapshot.put(&families::DISK_RESERVE, config.storage.disk_reserve_bytes);
        if let Some(free) = storage.disk_free_bytes {
            snapshot.put(&families::DISK_FREE, free);
        }
    }
    for (family, value) in [
        (&families::APPENDED_BATCHES, storage.appended_batches),
        (&families::APPENDED_BYTES, storage.appended_bytes),
        (&families::JOURNAL_GROUPS, storage.journal_groups),
        (&families::JOURNAL_BYTES, storage.journal_bytes),
        (&families::TAIL_READ_BYTES, storage.tail_read_bytes),
        (&families::COLD_READ_BYTES, storage.cold_read_bytes),
        (&families::FLUSHED_BYTES, storage.flushed_bytes),
        (&families::SEGMENT_WRITES, storage.segment_writes),
        (&families::CHECKPOINTS, storage.checkpoints),
        (&families::CACHED_BYTES, storage.cached_bytes),
        (&families::DIRTY_BYTES, storage.dirty_bytes),
        (&families::LOGS, storage.logs),
        (&families::FILES_OPEN, storage.files_open),
        (&families::DISK_FULL, u64::from(storage.disk_full)),
    ] {
        snapshot.put(family, value);
    }
    snapshot
}

/// What groups have of replicas here.
fn put_replicas(shard: &Shard, snapshot: &mut Snapshot) {
    let (image, mut replicas, mut led, mut unled, mut lacking) = (shard.image(), 0, 0, 0, 0);
    for partition in shard.partitions.all_opened().iter().filter(|partition| partition.has_group()) {
        let (id, leadership) = (partition.id(), partition.leadership());
        replicas += 1;
        unled += u64::from(leadership.leader.is_none());
        if leadership.role == Role::Leader {
            led += 1;
            let found = image.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
            lacking += u64::from(found.is_some_and(|found| found.isr.len() < found.replicas.len()));
        }
    }
    for (family, value) in [
        (&families::REPLICAS, replicas),
        (&families::REPLICAS_LEADING, led),
        (&families::REPLICAS_LEADERLESS, unled),
        (&families::REPLICAS_UNDER_REPLICATED, lacking),
    ] {
        snapshot.put(family, value);
    }
    if shard.id == CONTROLLER_SHARD {
        let decides = shard.controller().is_ok_and(|controller| controller.decides());
        snapshot.put(&families::CONTROLLER_LEADS, u64::from(decides));
    }
}

/// Lets connections finish what they have begun, for a time.
async fn drain(shard: &Rc<Shard>) {
    let drained = async || {
        while shard.connections.get() > 0 {
            corelog_io::sleep(Duration::from_millis(5)).await;
        }
    };
    if corelog_io::timeout(DRAIN_MAX, drained()).await.is_err() {
        tracing::warn!(connections = shard.connections.get(), "closing connections that did not finish");
        shard.stopping.cut();
        drained().await;
    }
}
