//! A shard's links and lines, and the way to them from the listener.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sync::Semaphore;
use corelog_io::{
    Detached, ListenOptions, Listener, Queue, Receiver, Seat, Senders, Task, TrySendError, spawn,
    yield_if_needed,
};

use super::calls::{self, Answer, CALL_BYTES_MAX, CallError, Callee, Serving};
use super::envelope::{ENVELOPE_BYTES, Frame};
use super::handshake::{self, Failed};
use super::hello::{Greeting, Hello, Introduction, Purpose, Refusal, RefusalKind};
use super::line::Lines;
use super::link::{self, Link};
use super::metrics::PeerMetrics;
use super::{BrokerId, Incarnation, PeerId, STALL_MAX, ShardId, Traffic, listener};
use crate::logging::sparing::Sparing;
use crate::metrics::Snapshot;
use crate::net::receive::ReceiveBudget;
use crate::net::transport::Transport;

/// Connections that may wait for one shard.
const ARRIVALS_MAX: usize = 64;
/// Knocks that are answered at once.
const KNOCKS_MAX: u64 = 64;
const BACKLOG: i32 = 1024;
/// Bytes of a frame beside one batch: more than there are.
const BESIDE_A_BATCH: usize = 16 << 10;
/// Brokers that have log lines of their own: who calls may say that it is any.
const TOLD_MAX: usize = 1024;

/// What links must know of their broker; the same on all its shards.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    pub broker: BrokerId,
    pub incarnation: Incarnation,
    /// None: it belongs to none yet ([`Links::set_cluster`]).
    pub cluster: Option<String>,
    pub feature_level: u16,
    pub feature_level_required: u16,
    /// Where shard 0 listens for brokers; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// What a shard may hold of what its peers send.
    pub receive_bytes: u64,
    /// The largest frame, as far as `receive_bytes` has room for it.
    pub frame_bytes_max: usize,
}

/// A connection on its way to the shard that it wants.
pub(super) struct Arrival {
    pub detached: Detached,
    pub hello: Hello,
    pub from: SocketAddr,
}

/// A shard's place among those that hand connections to each other.
pub struct LinkSeat(Seat<Arrival>);

/// One for each shard of a process.
pub fn seats(shards: usize) -> Vec<LinkSeat> {
    corelog_io::mesh(shards, ARRIVALS_MAX).into_iter().map(LinkSeat).collect()
}

/// The links of one shard. They end when it is dropped.
pub struct Links {
    local: Rc<Local>,
    address: Option<SocketAddr>,
    _tasks: Vec<Task<()>>,
}

/// What the tasks of a shard's links share.
pub(super) struct Local {
    introduction: RefCell<Introduction>,
    pub traffic: Rc<dyn Traffic>,
    pub budget: Rc<ReceiveBudget>,
    pub metrics: Rc<PeerMetrics>,
    addresses: RefCell<BTreeMap<BrokerId, SocketAddr>>,
    links: RefCell<BTreeMap<PeerId, Rc<Link>>>,
    pub lines: Lines,
    pub serving: Serving,
    arrivals: Senders<Arrival>,
    knocks: Semaphore,
    sparing: Sparing,
    /// Lines about each broker.
    told: RefCell<BTreeMap<BrokerId, Rc<Sparing>>>,
    is_over: Cell<bool>,
}

impl Links {
    pub async fn start(config: LinksConfig, seat: LinkSeat, traffic: Rc<dyn Traffic>) -> io::Result<Links> {
        let (shard, shards) = (ShardId(corelog_io::core()), corelog_io::cores());
        let (arrivals, receiver) = seat.0.join(shard.0).await;
        let introduction = Introduction {
            cluster: config.cluster,
            broker: config.broker,
            incarnation: config.incarnation,
            shard,
            shards,
            feature_level: config.feature_level,
            feature_level_required: config.feature_level_required,
        };
        let budget = ReceiveBudget::new(config.receive_bytes, config.frame_bytes_max);
        assert!(CALL_BYTES_MAX + ENVELOPE_BYTES <= budget.frame_bytes_max(), "there is memory for a call");
        let local = Rc::new(Local {
            introduction: RefCell::new(introduction),
            traffic,
            budget: Rc::new(budget),
            metrics: Rc::default(),
            addresses: RefCell::default(),
            links: RefCell::default(),
            lines: Lines::new(),
            serving: Serving::new(),
            arrivals,
            knocks: Semaphore::new(KNOCKS_MAX),
            sparing: Sparing::default(),
            told: RefCell::default(),
            is_over: Cell::new(false),
        });
        let mut links = Links { local: local.clone(), address: None, _tasks: Vec::new() };
        if let Some(address) = config.listen.filter(|_| shard.0 == 0) {
            let options = ListenOptions { backlog: BACKLOG, dead_after: STALL_MAX };
            let listener = Listener::bind(address, options)?;
            links.address = Some(listener.local_addr()?);
            links._tasks.push(spawn(Queue::Control, listener::run(local.clone(), listener)));
        }
        links._tasks.push(spawn(Queue::Control, take_in(local, receiver)));
        Ok(links)
    }

    /// Where shard 0 listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The cluster that the broker belongs to from now on.
    pub fn set_cluster(&self, cluster: &str) {
        self.local.introduction.borrow_mut().cluster = Some(cluster.to_owned());
        self.local.links.borrow().values().for_each(|link| link.hurry.notify_all());
    }

    /// Where a broker's port for brokers is. Shard 0 must know those of all brokers: it keeps places for them.
    pub fn set_address(&self, broker: BrokerId, address: Option<SocketAddr>) {
        let before = match address {
            Some(address) => self.local.addresses.borrow_mut().insert(broker, address),
            None => self.local.addresses.borrow_mut().remove(&broker),
        };
        if before != address {
            let links = self.local.links.borrow();
            let of_broker = links.values().filter(|link| link.peer.broker == broker);
            of_broker.for_each(|link| link.hurry.notify_all());
        }
    }

    /// There is, or will be, something to say to this peer. It has a link once it wants one too.
    pub fn want(&self, peer: PeerId) {
        assert_ne!(peer.broker, self.local.introduction.borrow().broker, "a broker has no link to itself");
        let mut links = self.local.links.borrow_mut();
        links.entry(peer).or_insert_with(|| link::start(&self.local, peer));
    }

    /// The largest record batch that fits a frame here, with what is said of it.
    pub fn batch_bytes_max(&self) -> usize {
        self.local.budget.frame_bytes_max() - BESIDE_A_BATCH
    }

    /// The incarnation of this peer that there is a link with.
    pub fn stands_with(&self, peer: PeerId) -> Option<Incarnation> {
        self.local.links.borrow().get(&peer)?.incarnation()
    }

    /// There is nothing more to say to it. Nothing more of it is told, its disconnection neither.
    pub fn forget(&self, peer: PeerId) {
        let link = self.local.links.borrow_mut().remove(&peer);
        if let Some(link) = link {
            link.end();
        }
    }

    /// [`Traffic::take_frame`] has something for this peer.
    pub fn has_frames(&self, peer: PeerId) {
        if let Some(link) = self.local.links.borrow().get(&peer) {
            link.has_frames.notify_all();
        }
    }

    /// Asks a peer, and awaits its answer for so long. Whatever the error: what was asked for may have been done.
    pub fn call(
        &self,
        callee: Callee,
        request: Frame,
        limit: Duration,
    ) -> impl Future<Output = Result<Answer, CallError>> + use<> {
        let local = self.local.clone();
        async move { calls::call(&local, callee, request, limit).await }
    }

    /// Adds what was counted.
    pub fn put_metrics(&self, snapshot: &mut Snapshot) {
        let links = self.local.links.borrow();
        let standing = links.values().filter(|link| link.incarnation().is_some()).count();
        self.local.metrics.put(snapshot, [links.len(), standing]);
        snapshot.put_labelled(
            &crate::metrics::families::MEMORY_USED_BYTES,
            "peers",
            self.local.budget.used(),
        );
        snapshot.put_labelled(
            &crate::metrics::families::MEMORY_LIMIT_BYTES,
            "peers",
            self.local.budget.total(),
        );
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.local.is_over.set(true);
        let links = self.local.links.take();
        links.into_values().for_each(|link| link.end());
        self.local.lines.end();
        self.local.serving.end();
    }
}

impl Local {
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    pub fn introduction(&self) -> Introduction {
        self.introduction.borrow().clone()
    }

    pub fn broker(&self) -> BrokerId {
        self.introduction.borrow().broker
    }

    pub fn address(&self, broker: BrokerId) -> Option<SocketAddr> {
        self.addresses.borrow().get(&broker).copied()
    }

    pub fn hello(&self, purpose: Purpose, to_broker: Option<BrokerId>, to_shard: ShardId) -> Hello {
        Hello { from: self.introduction(), purpose, to_broker, to_shard }
    }

    /// Whether a broker is known to be at this address.
    pub fn knows(&self, ip: IpAddr) -> bool {
        self.addresses.borrow().values().any(|address| address.ip() == ip)
    }

    /// Gives a connection to the shard that it wants; it comes back where that has no room.
    pub fn hand_over(&self, to: ShardId, arrival: Arrival) -> Option<Arrival> {
        match self.arrivals.try_send(to.0, arrival) {
            Ok(()) => None,
            Err(TrySendError::Full(arrival) | TrySendError::Disconnected(arrival)) => Some(arrival),
        }
    }

    pub async fn refuse(&self, transport: &Transport, refusal: Refusal) {
        self.metrics.refused(refusal.kind);
        // Who has gone does not want to know.
        let _ = handshake::send(transport, &Greeting::Refusal(refusal)).await;
    }

    pub fn sparingly(&self, kind: &'static str, line: impl FnOnce(u64)) {
        if let Some(left_out) = self.sparing.turn(kind, 0, corelog_io::now()) {
            line(left_out);
        }
    }

    /// A line about one broker: one a minute of each kind.
    pub fn tell(&self, broker: BrokerId, kind: &'static str, line: impl FnOnce(u64)) {
        let is_crowded = {
            let told = self.told.borrow();
            told.len() >= TOLD_MAX && !told.contains_key(&broker)
        };
        if is_crowded {
            return self.sparingly(kind, line);
        }
        let sparing = self.told.borrow_mut().entry(broker).or_default().clone();
        if let Some(left_out) = sparing.turn(kind, 0, corelog_io::now()) {
            line(left_out);
        }
    }

    pub fn tell_failed(&self, peer: PeerId, address: SocketAddr, failed: &Failed) {
        if let Failed::Unsuitable(refusal) = failed {
            self.metrics.refused(refusal.kind);
        }
        // Ordinary while brokers start, and told where it lasts.
        let is_passing = failed.refusal().is_some_and(|refusal| refusal.kind == RefusalKind::NotWanted);
        if !is_passing {
            self.tell(peer.broker, failed.kind(), |left_out| {
                tracing::warn!(%peer, %address, left_out, "no connection to a broker: {failed}");
            });
        }
    }

    /// Whether another incarnation has followed this one, as far as this shard knows.
    pub fn check_former(&self, who: &Introduction) -> Result<(), Refusal> {
        let link = self.links.borrow().get(&who.peer()).cloned();
        link.map_or(Ok(()), |link| link.check_former(who))
    }

    /// Whom a connection is for that has come to this shard.
    fn arrived(self: &Rc<Self>, arrival: Arrival) {
        let peer = arrival.hello.from.peer();
        match arrival.hello.purpose {
            Purpose::Calls => calls::serve(self, arrival),
            Purpose::Knock => match self.knocks.try_acquire(1) {
                Some(place) => {
                    let local = self.clone();
                    spawn(Queue::Control, async move {
                        local.answer_knock(arrival).await;
                        drop(place);
                    })
                    .detach();
                }
                None => drop(arrival),
            },
            Purpose::Frames => {
                let link = self.links.borrow().get(&peer).filter(|link| !link.dials).cloned();
                match link {
                    Some(link) => link.arrived(arrival),
                    None if peer.broker > self.broker() => {
                        let text =
                            format!("of two brokers the one with the lower id connects: {}", self.broker().0);
                        self.refuse_later(arrival, Refusal::new(RefusalKind::Malformed, text));
                    }
                    None => self.refuse_later(arrival, not_wanted(peer)),
                }
            }
        }
    }

    pub fn refuse_later(self: &Rc<Self>, arrival: Arrival, refusal: Refusal) {
        let Some(place) = self.knocks.try_acquire(1) else { return };
        let local = self.clone();
        spawn(Queue::Control, async move {
            local.refuse(&Transport::attach(arrival.detached), refusal).await;
            drop(place);
        })
        .detach();
    }

    async fn answer_knock(&self, arrival: Arrival) {
        let peer = arrival.hello.from.peer();
        let transport = Transport::attach(arrival.detached);
        let link = self.links.borrow().get(&peer).cloned();
        match link {
            Some(link) => {
                link.hurry.notify_all();
                let _ = handshake::send(&transport, &Greeting::Welcome(self.introduction())).await;
            }
            None => self.refuse(&transport, not_wanted(peer)).await,
        }
    }
}

fn not_wanted(peer: PeerId) -> Refusal {
    Refusal::new(RefusalKind::NotWanted, format!("this shard has nothing to say to {peer} yet"))
}

/// Takes in connections that other shards, or this one's listener, hand over.
async fn take_in(local: Rc<Local>, mut receiver: Receiver<Arrival>) {
    while let Some((_, arrival)) = receiver.recv().await {
        if local.is_over.get() {
            return;
        }
        local.arrived(arrival);
        yield_if_needed().await;
    }
}
