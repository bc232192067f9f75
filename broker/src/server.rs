//! Starting and stopping the shards of one process.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use corelog_io::{CoreCtx, ListenOptions, Listener, Queue, RemoteReceiver, RemoteSender, Seat, spawn};
use corelog_storage::{LogId, Recovered, Replayed, ShardStorage, StorageConfig};
use futures_util::future::{Either, select};

use crate::call::{self, CallSeats, Calls};
use crate::config::BrokerConfig;
use crate::config::describe::{self, Entry, Wanted};
use crate::controller::{CONTROLLER_SHARD, CONTROLLER_TOPIC, CONTROLLER_TOPIC_NAME, Controller};
use crate::identity::Identity;
use crate::leftovers::{self, KEEP_ALL};
use crate::metrics::{Snapshot, families};
use crate::net::accept;
use crate::settings::Settings;
use crate::shard::{self, Shard, ShardId};

/// Connections get this long to finish what is in progress when the broker stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// Control messages that a shard takes before who sends them waits.
const CONTROL_CAPACITY: usize = 16;

/// What a shard is given at its start. Made for all shards of a process at once ([`Seed::for_cores`]), then each is
/// carried to its core and consumed by [`run`].
pub struct Seed {
    config: Arc<BrokerConfig>,
    settings: Arc<Settings>,
    identity: Arc<Identity>,
    calls: CallSeats,
    /// Mailboxes through which shards hand each other what they found in the journals.
    recovery: Seat<Recovered>,
    control: RemoteReceiver<Control>,
    report: Arc<dyn Fn(Report) + Send + Sync>,
}

impl Seed {
    /// One seed for each of `config.cores`, joined by mailboxes, and where each shard is told what to do. `report` is
    /// called on the cores. Names nothing of the world that the cores run in: `process` runs them on glommio, the
    /// simulation on simulated machines.
    pub fn for_cores(
        settings: Arc<Settings>,
        config: Arc<BrokerConfig>,
        identity: Identity,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> (Vec<Seed>, Vec<RemoteSender<Control>>) {
        let cores = config.cores.len();
        let (identity, report) = (Arc::new(identity), Arc::new(report));
        let recovery = corelog_io::mesh(cores, 1);
        let seats = call::meshes(cores).into_iter().zip(recovery);
        seats
            .map(|(calls, recovery)| {
                let (sender, control) = corelog_io::remote(CONTROL_CAPACITY);
                let (config, settings, identity) = (config.clone(), settings.clone(), identity.clone());
                (
                    Seed { config, settings, identity, calls, recovery, control, report: report.clone() },
                    sender,
                )
            })
            .unzip()
    }
}

/// What the service thread asks of a shard.
pub enum Control {
    Stop,
    /// A short look at what the shard knows.
    Look(Box<dyn FnOnce(&Shard) + Send>),
}

/// What shards tell the service thread.
#[derive(Debug)]
pub enum Report {
    /// Every shard takes connections, on these addresses.
    Ready { addresses: Vec<SocketAddr>, found: Found },
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

/// One shard, from its start to its end.
pub async fn run(core: CoreCtx, seed: Seed) -> anyhow::Result<()> {
    let report = seed.report.clone();
    let outcome = live(core, seed).await;
    if let Err(error) = &outcome {
        report(Report::Failed { shard: core.core, what: format!("{error:#}") });
    }
    outcome
}

async fn live(core: CoreCtx, seed: Seed) -> anyhow::Result<()> {
    let id = ShardId(core.core);
    let shards = core.cores;
    let (calls, call_receiver, reply_senders, reply_receiver) = Calls::join(seed.calls, core.core).await;
    let storage_config = seed.config.storage_config(id.0, shards);
    let begun = corelog_io::now();
    let recovered = exchange(&storage_config, id, shards, seed.recovery).await?;
    // The first shard's is of all.
    let found = Found::new(&recovered);
    let storage =
        ShardStorage::open(storage_config, recovered).await.context("opening the shard's storage")?;
    let shard = Shard::new(id, shards, seed.config, seed.settings, seed.identity, storage, calls);
    call::start(&shard, call_receiver, reply_senders, reply_receiver);

    if id == CONTROLLER_SHARD {
        let log_id = LogId { topic: CONTROLLER_TOPIC, partition: 0 };
        let log = shard.storage.log(log_id, CONTROLLER_TOPIC_NAME, KEEP_ALL);
        let (controller, deleted) = Controller::load(
            log,
            shard.settings.clone(),
            shard.identity.node_id,
            shard.config().partitions_max(),
        )
        .await
        .context("loading the controller's log")?;
        let image = controller.image();
        if image.end_offset == 0 {
            leftovers::expect_no_logs(&shard).await.context("the controller's log")?;
        }
        shard.set_controller(controller);
        let loaded = image.clone();
        shard
            .on_all(move |shard| async move { shard.install(image, &[]).await })
            .await
            .context("publishing the cluster's metadata")?;
        let claimed = deleted.clone();
        shard.on_all(move |shard| async move { leftovers::claim(&shard, &claimed) }).await?;
        if let Found::Recovered(Replayed { journal_files, entries, bytes }) = found {
            let took_ms = (corelog_io::now() - begun).as_millis() as u64;
            tracing::info!(
                journal_files,
                entries,
                bytes,
                took_ms,
                "recovered: the last stop was none in good order"
            );
        }
        spawn(Queue::Background, leftovers::sweep(shard.clone(), loaded, deleted)).detach();
        spawn(Queue::Background, crate::disk::run(shard.clone())).detach();
        shard.admission.tell();
        // Shard 0 binds first: with port 0 it is the one that finds out which port.
        let config = shard.config();
        let wanted = config.listeners.iter().map(|listener| listener.bind.resolve());
        let wanted = wanted.collect::<Result<Vec<_>, _>>().map_err(anyhow::Error::msg)?;
        let addresses = listen(&shard, &wanted)?;
        let bound = addresses.clone();
        for listening in shard
            .on_all(move |shard| async move {
                if shard.id == CONTROLLER_SHARD {
                    return Ok(bound);
                }
                listen(&shard, &bound).map_err(|error| format!("{error:#}"))
            })
            .await?
        {
            listening.map_err(anyhow::Error::msg)?;
        }
        (seed.report)(Report::Ready { addresses, found });
    }
    spawn(Queue::Background, crate::retention::run(shard.clone())).detach();
    serve_control(&shard, seed.control).await;
    stop(&shard).await
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
    for (to, part) in found.split(shards, |log| shard::owner(log, shards).0).into_iter().enumerate() {
        if to == id.0 {
            parts.push(part);
        } else {
            senders.send(to, part).await.map_err(|_| anyhow::anyhow!("another shard failed to start"))?;
        }
    }
    for _ in 1..shards {
        let (_, part) =
            receiver.recv().await.ok_or_else(|| anyhow::anyhow!("another shard failed to start"))?;
        parts.push(part);
    }
    Ok(Recovered::merge(parts))
}

/// Binds this shard's listeners and begins to accept. Returns the addresses, with the ports they got. Shard 0 comes
/// first and takes the addresses for this process; the others join it there.
fn listen(shard: &Rc<Shard>, addresses: &[SocketAddr]) -> anyhow::Result<Vec<SocketAddr>> {
    let options = ListenOptions { backlog: shard.config().connections.backlog };
    let open = if shard.id == CONTROLLER_SHARD { Listener::bind } else { Listener::join };
    let mut bound = Vec::with_capacity(addresses.len());
    let mut listeners = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = open(*address, options).map_err(|error| refusal(*address, error))?;
        bound.push(listener.local_addr()?);
        listeners.push(listener);
    }
    shard.set_ports(bound.iter().map(SocketAddr::port).collect());
    for (index, listener) in listeners.into_iter().enumerate() {
        spawn(Queue::Control, accept::run(shard.clone(), listener, index)).detach();
    }
    Ok(bound)
}

/// Why there is no listener, and what to do about it.
fn refusal(address: SocketAddr, error: std::io::Error) -> anyhow::Error {
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
    anyhow::anyhow!("cannot listen on {address}: {error}; {remedy}")
}

async fn serve_control(shard: &Rc<Shard>, mut control: RemoteReceiver<Control>) {
    while let Some(message) = control.recv().await {
        match message {
            Control::Stop => return,
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
        ("receive", shard.receive_budget.total() - shard.receive_budget.available(), budgets.receive_bytes),
        ("fetch", shard.fetch_budget.total() - shard.fetch_budget.available(), budgets.fetch_bytes),
        ("groups", groups.used() as u64, groups.limit() as u64),
        ("tail", storage.cached_bytes, budgets.tail_bytes),
    ] {
        snapshot.put_labelled(&families::MEMORY_USED_BYTES, part, used);
        snapshot.put_labelled(&families::MEMORY_LIMIT_BYTES, part, limit);
    }
    for (queue, length) in [
        ("receive", shard.receive_budget.waiting()),
        ("fetch", shard.fetch_budget.waiting()),
        ("append", shard.append_turn.waiting()),
        ("commit", shard.groups.commits_waiting()),
        ("calls", shard.calls.waiting()),
    ] {
        snapshot.put_labelled(&families::QUEUE_LENGTH, queue, length as u64);
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

/// Lets connections finish, then the storage.
async fn stop(shard: &Rc<Shard>) -> anyhow::Result<()> {
    shard.stop();
    let drained = async {
        while shard.connections.get() > 0 {
            corelog_io::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = corelog_io::sleep(DRAIN_MAX);
    if let Either::Right(_) = select(std::pin::pin!(drained), std::pin::pin!(limit)).await {
        tracing::warn!(connections = shard.connections.get(), "closing connections that did not finish");
    }
    shard.storage.close().await.context("closing the shard's storage")
}
