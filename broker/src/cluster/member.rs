//! What a shard has if its broker is of a cluster: its links to other brokers' shards, and its replicas over them.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use anyhow::Context as _;
use corelog_io::{Queue, sleep, spawn};
use corelog_raft::Membership;
use corelog_raft::config::{Bounds, Timing};
use corelog_replicas::{CannotOpen, Led, Opening, Owner, Replica, Replicas};
use corelog_storage::{Log, LogId, ShardStorage};
use corelog_wire::Uuid;

use super::FEATURE_LEVEL;
use crate::config::BrokerConfig;
use crate::controller::image::PartitionImage;
use crate::controller::{Endpoint, Group, Image};
use crate::identity::{Belongs, Founder, Identity};
use crate::ids::{BrokerId, CONTROLLER_TOPIC, ReplicaId, ShardId};
use crate::partition::placement;
use crate::peer::{self, Incarnation, LinkSeat, Links, LinksConfig, PeerId};
use crate::replication::{Carrier, raft_peer};
use crate::shard::Shard;

/// How long it is waited before a replica whose log could not be read is opened again.
const OPEN_RETRY: Duration = Duration::from_secs(5);
/// A new group's first replica tries this often to lead it at once, before the others' patience ends.
const CAMPAIGN_TRIES: usize = 20;
const CAMPAIGN_PAUSE: Duration = Duration::from_millis(40);

/// What the process knows of its cluster before its cores run.
#[derive(Clone, Debug)]
pub struct MemberPlan {
    /// Where it listens for brokers, and where they reach it.
    pub peer: SocketAddr,
    /// Drawn for this life of the process.
    pub incarnation: Incarnation,
    /// Where brokers are, that the metadata may not tell of yet.
    pub known: Vec<(BrokerId, SocketAddr)>,
    /// Where brokers are whose ids are not known.
    pub seeds: Vec<SocketAddr>,
}

impl MemberPlan {
    /// Of a broker that others reach. `life`: of this process, another one for each. Looks names up, which may block.
    pub fn of(config: &BrokerConfig, identity: &Identity, life: Uuid) -> anyhow::Result<Option<MemberPlan>> {
        let Some(peer) = config.peer.as_ref().filter(|_| identity.belongs != Belongs::Alone) else {
            return Ok(None);
        };
        let peer = peer.resolve().map_err(anyhow::Error::msg)?;
        // Names of others may come to be known later: who registers is reached by address.
        let known = identity.founders().iter();
        let known = known.filter_map(|one| Some((BrokerId(one.node_id), one.peer.resolve().ok()?)));
        let seeds = config.seeds.iter().filter_map(|seed| seed.resolve().ok());
        Ok(Some(MemberPlan {
            peer,
            incarnation: Incarnation(u128::from_be_bytes(life.0) as u64),
            known: known.collect(),
            seeds: seeds.filter(|seed| *seed != peer).collect(),
        }))
    }
}

/// What a shard is given for it at its start.
pub struct MemberSeed {
    seat: LinkSeat,
    links: LinksConfig,
    plan: MemberPlan,
}

/// One for each shard; all `None` for a broker that is alone.
pub fn member_seeds(
    plan: Option<MemberPlan>,
    config: &BrokerConfig,
    identity: &Identity,
    shards: usize,
) -> Vec<Option<MemberSeed>> {
    let Some(plan) = plan else { return (0..shards).map(|_| None).collect() };
    let receive_bytes = config.budgets(shards).peers_bytes;
    let links = LinksConfig {
        broker: BrokerId(identity.node_id),
        incarnation: plan.incarnation,
        cluster: Some(identity.cluster_id.clone()),
        feature_level: FEATURE_LEVEL,
        feature_level_required: FEATURE_LEVEL,
        listen: Some(plan.peer),
        receive_bytes,
        frame_bytes_max: receive_bytes as usize,
    };
    let seed = |seat| MemberSeed { seat, links: links.clone(), plan: plan.clone() };
    peer::seats(shards).into_iter().map(|seat| Some(seed(seat))).collect()
}

pub struct Member {
    broker: BrokerId,
    pub plan: MemberPlan,
    pub links: Rc<Links>,
    pub carrier: Rc<Carrier>,
    pub replicas: Rc<Replicas>,
    keeper: Rc<Keeper>,
    /// The metadata know this broker by this life of its disk: what they say of its replicas is meant for it.
    is_known: Cell<bool>,
}

/// Hears what replicas have to say of their groups.
#[derive(Default)]
struct Keeper {
    shard: OnceCell<Weak<Shard>>,
}

impl Member {
    pub async fn start(seed: MemberSeed, storage: Rc<ShardStorage>) -> io::Result<Rc<Member>> {
        let (carrier, keeper) = (Carrier::new(), Rc::new(Keeper::default()));
        let times = (Timing::default(), Bounds::default());
        let replicas = Replicas::new(storage, carrier.clone(), keeper.clone(), times);
        let broker = seed.links.broker;
        let links = Rc::new(Links::start(seed.links, seed.seat, carrier.clone()).await?);
        carrier.set_links(&links);
        carrier.set_replicas(&replicas);
        for (known, address) in seed.plan.known.iter().filter(|(known, _)| *known != broker) {
            links.set_address(*known, Some(*address));
        }
        let plan = seed.plan;
        Ok(Rc::new(Member { broker, plan, links, carrier, replicas, keeper, is_known: Cell::new(false) }))
    }

    /// From now on the shard hears of its replicas.
    pub fn serve(&self, shard: &Rc<Shard>) {
        assert!(self.keeper.shard.set(Rc::downgrade(shard)).is_ok(), "one shard has them");
        self.replicas.start();
    }

    /// Nothing is said to other brokers any more.
    pub fn stop(&self) {
        self.replicas.stop();
    }

    /// Where brokers are reached, as the image says. `which`: those of which something has changed.
    pub fn follow_brokers(&self, image: &Image, which: &BTreeSet<BrokerId>) {
        for id in which.iter().filter(|id| **id != self.broker) {
            let address = image.brokers.get(id).and_then(|broker| broker.peer.as_ref());
            let address = address.and_then(|peer| Some(SocketAddr::new(peer.host.parse().ok()?, peer.port)));
            // Who is not in the image yet may be known otherwise.
            if address.is_some() || !image.brokers.contains_key(id) {
                self.links.set_address(*id, address);
            }
            // The controller's group has a replica on each, and whoever decides looks whether they are there.
            if corelog_io::core() == 0 && image.brokers.contains_key(id) {
                self.want_first(*id);
            }
        }
    }

    /// Whether replicas may be opened by what the metadata say of this broker.
    pub fn is_known(&self) -> bool {
        self.is_known.get()
    }

    pub fn set_known(&self) {
        self.is_known.set(true);
    }

    /// Where a partition's replicas are, as far as it is known, and wants links there.
    pub fn places(
        &self,
        image: &Image,
        log: LogId,
        partition: &PartitionImage,
    ) -> Vec<(ReplicaId, corelog_raft::PeerId)> {
        let mut places = Vec::with_capacity(partition.replicas.len());
        for (replica, broker) in partition.replicas_with_ids() {
            let shards = image.brokers.get(&broker).map_or(0, |broker| broker.shards);
            if shards == 0 {
                continue;
            }
            let peer = PeerId { broker, shard: placement::owner(log, shards) };
            places.push((replica, raft_peer(peer)));
            self.want(peer);
        }
        places
    }

    pub fn want(&self, peer: PeerId) {
        if peer.broker != self.broker {
            self.links.want(peer);
        }
    }

    /// Shard 0 of that broker.
    pub fn want_first(&self, broker: BrokerId) {
        self.want(PeerId { broker, shard: ShardId(0) });
    }

    /// Where it is reached by others.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint { host: self.plan.peer.ip().to_string().into(), port: self.plan.peer.port() }
    }

    /// Opens the replica that this broker has of the controller's log.
    pub async fn open_controller(&self, identity: &Identity, log: Rc<Log>) -> anyhow::Result<Group> {
        let founders = identity.founders().to_vec();
        let place = |founder: &Founder| {
            let peer = PeerId { broker: BrokerId(founder.node_id), shard: ShardId(0) };
            self.want(peer);
            (founder.replica, raft_peer(peer))
        };
        let opening = Opening {
            id: identity.controller_replica(),
            places: founders.iter().map(place).collect(),
            founders: Membership::of_voters(&identity.founding_replicas()),
        };
        let replica = self.replicas.open(log, opening).await.context("the controller's log")?;
        let (replicas, carrier) = (self.replicas.clone(), self.carrier.clone());
        Ok(Group { replica, replicas, carrier, founders })
    }

    /// What a replica of a partition is opened with; `None`: this broker has none, or what is known of it is of another life.
    pub fn opening(&self, image: &Image, log: LogId, partition: &PartitionImage) -> Option<Opening> {
        let (id, _) = partition.replicas_with_ids().find(|(_, broker)| *broker == self.broker)?;
        let founders: Vec<_> = (1..=partition.founders as u64).map(ReplicaId).collect();
        let places = self.places(image, log, partition);
        self.is_known().then(|| Opening { id, founders: Membership::of_voters(&founders), places })
    }

    /// Opens the replica that a log is. `leads`: of a new group, it is to lead it.
    pub async fn open(&self, log: Rc<Log>, opening: Opening, leads: bool) -> Option<Rc<Replica>> {
        let (id, replica_id) = (log.id(), opening.id);
        loop {
            let error = match self.replicas.open(log.clone(), opening.clone()).await {
                Ok(replica) => {
                    if leads && log.next_index().0 == 0 {
                        spawn(Queue::Control, stand(self.replicas.clone(), replica.clone())).detach();
                    }
                    return Some(replica);
                }
                Err(error) => error,
            };
            tracing::error!(log = %id, %error, "a replica is not opened: its group goes on without it");
            match error {
                // The disk may be well again later.
                CannotOpen::Read(_) if !log.is_deleted() => sleep(OPEN_RETRY).await,
                CannotOpen::Refused(_) => {
                    if let Some(shard) = self.keeper.shard() {
                        shard.renew_replica(id, replica_id);
                    }
                    return None;
                }
                _ => return None,
            }
        }
    }
}

/// Stands for election until somebody leads. The others may not have heard of the group yet.
async fn stand(replicas: Rc<Replicas>, replica: Rc<Replica>) {
    for _ in 0..CAMPAIGN_TRIES {
        if replica.led().leader.is_some() {
            return;
        }
        // It may have become what it can be by then; its timeout comes all the same.
        let _stands = replicas.campaign(replica.log().id());
        sleep(CAMPAIGN_PAUSE).await;
    }
}

impl Keeper {
    fn shard(&self) -> Option<Rc<Shard>> {
        self.shard.get()?.upgrade()
    }
}

impl Owner for Keeper {
    fn led(&self, log: LogId, led: Led) {
        let Some(shard) = self.shard() else { return };
        if log.topic == CONTROLLER_TOPIC {
            shard.controller_is_led();
        } else {
            shard.partition_is_led(log, led);
        }
    }

    fn removed(&self, log: LogId) {
        // What it has goes when the metadata say so.
        tracing::info!(%log, "its group goes on without this replica");
    }

    fn stopped(&self, log: LogId) {
        tracing::error!(%log, "this replica has stopped: its group goes on without it");
    }
}
