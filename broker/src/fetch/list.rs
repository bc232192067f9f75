//! What one fetch is about: its partitions, on which shard each of them is, and what the client knows of it. Of a
//! session it lives on from fetch to fetch, and so do the watches (`watch.rs`) that the owning shards keep for it:
//! they are told what changes.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::{Rc, Weak};

use corelog_io::sync::Event;
use corelog_wire::fetch::{FetchPartition, FetchRequest};
use corelog_wire::{ErrorCode, Str, Uuid};
use slab::Slab;

use super::Host;
use super::watch::{Change, Given, Got, ListId, Place, Wanted};
use crate::controller::Changed;
use crate::ids::ShardId;
use crate::partition::{Route, Router};

/// A partition as its consumer last asked for it.
#[derive(Debug)]
pub struct Asked {
    pub topic: Str,
    pub topic_id: Uuid,
    pub partition: i32,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
    pub fetch_offset: i64,
    pub max_bytes: i32,
    /// High watermark and log start offset as the client was last told them; `None` before the first answer.
    pub told: Option<(i64, i64)>,
    /// Answers are filled in this order.
    pub turn: u64,
    /// Where it is by the image that the list was last resolved with.
    found: Option<Result<Route, ErrorCode>>,
    refusal: Option<ErrorCode>,
    /// The shard whose watch has it.
    watched_by: Option<ShardId>,
    /// The client has asked anew since it was last resolved.
    is_new: bool,
}

impl Asked {
    fn new(topic: Str, topic_id: Uuid, partition: i32, turn: u64) -> Asked {
        Asked {
            topic,
            topic_id,
            partition,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            fetch_offset: 0,
            max_bytes: 0,
            told: None,
            turn,
            found: None,
            refusal: None,
            watched_by: None,
            is_new: true,
        }
    }

    fn ask(&mut self, partition: &FetchPartition) {
        self.current_leader_epoch = partition.current_leader_epoch;
        self.last_fetched_epoch = partition.last_fetched_epoch;
        self.fetch_offset = partition.fetch_offset;
        self.max_bytes = partition.partition_max_bytes;
        self.is_new = true;
    }

    pub fn bytes_max(&self) -> usize {
        self.max_bytes.max(0) as usize
    }
}

/// How a topic is named: all of a list in one of the two ways.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Topic {
    Name(Str),
    Id(Uuid),
}

impl Topic {
    fn new(name: &Str, id: Uuid, by_id: bool) -> Topic {
        if by_id { Topic::Id(id) } else { Topic::Name(name.clone()) }
    }
}

/// One owning shard's part.
pub struct Share {
    pub owner: ShardId,
    /// What its watch is to be told.
    pub changes: Vec<Change>,
    /// What its watch does not know yet to be given to the client.
    pub given: Vec<Given>,
    partitions: usize,
    /// The bytes that are asked for at most.
    pub bytes: u64,
}

/// What a partition of a list takes at the most, here and on the shard that watches it for the list.
const PARTITION_BYTES: usize = 512;
/// What a topic takes beside its name.
const TOPIC_BYTES: usize = 128;

/// What lists take, of sessions and of fetches that wait.
#[derive(Clone, Default)]
pub struct ListMemory(Rc<Cell<usize>>);

impl ListMemory {
    pub fn used(&self) -> usize {
        self.0.get()
    }
}

pub struct List {
    by_id: bool,
    /// Where it counts, and what for.
    memory: ListMemory,
    counted: usize,
    asked: Slab<Asked>,
    /// Names and ids are of the client's choice: no hash that it can foresee.
    topics: HashMap<Topic, BTreeMap<i32, Place>>,
    /// Of the topics' names.
    name_bytes: usize,
    turns: u64,
    /// Places that are new to the resolver.
    unresolved: Vec<Place>,
    /// The image that it was resolved with, by its offset.
    resolved_with: Option<i64>,
    refused: usize,
    shares: Vec<Share>,
    home: Option<Home>,
}

/// What a list has on the shard that it belongs to, from its first fetch on.
struct Home {
    host: Weak<dyn Host>,
    number: u64,
    bell: Rc<Event>,
}

impl List {
    pub fn new(by_id: bool, memory: ListMemory) -> List {
        List {
            by_id,
            memory,
            counted: 0,
            asked: Slab::new(),
            topics: HashMap::new(),
            name_bytes: 0,
            turns: 0,
            unresolved: Vec::new(),
            resolved_with: None,
            refused: 0,
            shares: Vec::new(),
            home: None,
        }
    }

    pub fn is_by_id(&self) -> bool {
        self.by_id
    }

    pub fn len(&self) -> usize {
        self.asked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// What the list takes, on all shards together.
    pub fn bytes(&self) -> usize {
        self.counted
    }

    fn count(&mut self) {
        let bytes = self.asked.len() * PARTITION_BYTES + self.topics.len() * TOPIC_BYTES + self.name_bytes;
        self.memory.0.set(self.memory.0.get() - self.counted + bytes);
        self.counted = bytes;
    }

    pub fn get(&self, place: Place) -> &Asked {
        &self.asked[place as usize]
    }

    pub fn get_mut(&mut self, place: Place) -> &mut Asked {
        &mut self.asked[place as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (Place, &Asked)> {
        self.asked.iter().map(|(place, asked)| (place as Place, asked))
    }

    /// Takes over what a request says.
    pub fn update(&mut self, request: &FetchRequest) {
        for topic in &request.forgotten_topics_data {
            self.forget(&Topic::new(&topic.topic, topic.topic_id, self.by_id), &topic.partitions);
        }
        for topic in request.topics.iter().filter(|topic| !topic.partitions.is_empty()) {
            // Names are slices of the request's frame; a session outlives it.
            let mut name = None;
            let mut name = || name.get_or_insert_with(|| topic.topic.detach()).clone();
            let key = Topic::new(&topic.topic, topic.topic_id, self.by_id);
            if !self.topics.contains_key(&key) {
                self.name_bytes += topic.topic.len();
                self.topics.insert(Topic::new(&name(), topic.topic_id, self.by_id), BTreeMap::new());
            }
            let places = self.topics.get_mut(&key).expect("it is there by now");
            for partition in &topic.partitions {
                let place = *places.entry(partition.partition).or_insert_with(|| {
                    self.turns += 1;
                    let new = Asked::new(name(), topic.topic_id, partition.partition, self.turns);
                    self.asked.insert(new) as Place
                });
                let asked = &mut self.asked[place as usize];
                if let Some(owner) = asked.watched_by {
                    let share = share(&mut self.shares, owner);
                    share.bytes =
                        share.bytes - asked.bytes_max() as u64 + partition.partition_max_bytes.max(0) as u64;
                }
                asked.ask(partition);
                self.unresolved.push(place);
            }
        }
        self.count();
    }

    fn forget(&mut self, topic: &Topic, partitions: &[i32]) {
        let Some(places) = self.topics.get_mut(topic) else { return };
        for place in partitions.iter().filter_map(|partition| places.remove(partition)) {
            let asked = self.asked.remove(place as usize);
            self.refused -= usize::from(asked.refusal.is_some());
            leave(&mut self.shares, place, &asked);
        }
        if places.is_empty() {
            self.topics.remove(topic);
            if let Topic::Name(name) = topic {
                self.name_bytes -= name.len();
            }
        }
    }

    /// Finds where the partitions are that are new, or that the cluster's metadata say something new of.
    pub fn resolve(&mut self, router: &Router) {
        let changed = self.changed(router);
        let unresolved = std::mem::take(&mut self.unresolved);
        corelog_io::worked((changed.len() + unresolved.len()) * size_of::<Asked>());
        let changed = changed.into_iter().map(|place| (place, true));
        for (place, again) in changed.chain(unresolved.into_iter().map(|place| (place, false))) {
            // One that was forgotten since is not there, or another is.
            let Some(asked) = self.asked.get_mut(place as usize) else { continue };
            let found = match asked.found {
                Some(found) if !again => found,
                _ if self.by_id => router.route_by_id(asked.topic_id, asked.partition),
                _ => router.route(&asked.topic, asked.partition),
            };
            let has_moved = asked.found.replace(found) != Some(found);
            if std::mem::take(&mut asked.is_new) || has_moved {
                self.direct(place, found);
            }
        }
    }

    /// Places of which the metadata have changed since the list was last resolved.
    fn changed(&mut self, router: &Router) -> Vec<Place> {
        let version = router.image.end_offset;
        match self.resolved_with.replace(version) {
            Some(before) if before != version => match router.changes.since(before) {
                Some(changes) => changes.flat_map(|(changed, name)| self.places(changed, name)).collect(),
                None => self.iter().map(|(place, _)| place).collect(),
            },
            // At first all are new.
            _ => Vec::new(),
        }
    }

    fn places(&self, changed: Changed, name: &Str) -> impl Iterator<Item = Place> + use<'_> {
        let places = self.topics.get(&Topic::new(name, changed.topic, self.by_id));
        places.into_iter().flat_map(move |places| {
            let range = changed.partition.map_or(i32::MIN..=i32::MAX, |partition| partition..=partition);
            places.range(range).map(|(_, place)| *place)
        })
    }

    /// Has the owner of a partition read it from now on as its client asks, and no other.
    fn direct(&mut self, place: Place, found: Result<Route, ErrorCode>) {
        let asked = &mut self.asked[place as usize];
        let owner = found.ok().map(|route| route.owner);
        if asked.watched_by != owner {
            leave(&mut self.shares, place, asked);
            asked.watched_by = owner;
            if let Some(owner) = owner {
                let share = share(&mut self.shares, owner);
                share.partitions += 1;
                share.bytes += asked.bytes_max() as u64;
            }
        }
        if let Ok(route) = found {
            let wanted = Wanted {
                log: route.log,
                offset: asked.fetch_offset,
                max_bytes: asked.bytes_max(),
                // As Kafka does, any negative epoch is taken for "does not say" here, and here alone.
                leader_epoch: asked.current_leader_epoch.max(-1),
                last_fetched_epoch: asked.last_fetched_epoch,
            };
            share(&mut self.shares, route.owner).changes.push((place, Some(wanted)));
        }
        self.refused -= usize::from(asked.refusal.is_some());
        asked.refusal = found.err();
        self.refused += usize::from(asked.refusal.is_some());
    }

    /// What can be answered without asking an owner.
    pub fn refusals(&self) -> Vec<Got> {
        if self.refused == 0 {
            return Vec::new();
        }
        self.iter().filter_map(|(place, asked)| Some(Got::refused(place, asked.refusal?))).collect()
    }

    /// What is answered for the partitions of a shard that is gone.
    pub fn gone(&self, owner: ShardId) -> impl Iterator<Item = Got> {
        self.iter()
            .filter(move |(_, asked)| asked.watched_by == Some(owner))
            .map(|(place, _)| Got::refused(place, ErrorCode::NOT_LEADER_OR_FOLLOWER))
    }

    /// The shards that have to be asked.
    pub fn shares(&mut self) -> impl Iterator<Item = &mut Share> {
        let is_news = |share: &Share| !share.changes.is_empty() || !share.given.is_empty();
        self.shares.iter_mut().filter(move |share| share.partitions > 0 || is_news(share))
    }

    /// So much of a partition goes out to the client. Its owner learns of it with the next read.
    pub fn note_given(&mut self, place: Place, bytes: usize, records: u64) {
        if let Some(owner) = self.asked[place as usize].watched_by {
            share(&mut self.shares, owner).given.push(Given { place, bytes: bytes as u64, records });
        }
    }

    /// Puts a partition behind all others.
    pub fn put_last(&mut self, place: Place) {
        self.turns += 1;
        self.asked[place as usize].turn = self.turns;
    }

    /// The name under which owners know the list, and the bell that they ring.
    pub fn at_home(&mut self, host: &Rc<dyn Host>) -> (ListId, Rc<Event>) {
        let home = self.home.get_or_insert_with(|| {
            let (number, bell) = host.fetching().bells.hang();
            Home { host: Rc::downgrade(host), number, bell }
        });
        ((host.id(), home.number), home.bell.clone())
    }
}

impl Drop for List {
    fn drop(&mut self) {
        self.memory.0.set(self.memory.0.get() - self.counted);
        let Some(home) = &self.home else { return };
        let Some(host) = home.host.upgrade() else { return };
        host.fetching().bells.take_down(home.number);
        let id = (host.id(), home.number);
        for share in &mut self.shares {
            let given = std::mem::take(&mut share.given);
            host.clone().unwatch(share.owner, id, given);
        }
    }
}

fn share(shares: &mut Vec<Share>, owner: ShardId) -> &mut Share {
    let index = shares.iter().position(|share| share.owner == owner).unwrap_or_else(|| {
        shares.push(Share { owner, changes: Vec::new(), given: Vec::new(), partitions: 0, bytes: 0 });
        shares.len() - 1
    });
    &mut shares[index]
}

/// The shard that watches a partition, if one does, is to watch it no more.
fn leave(shares: &mut Vec<Share>, place: Place, asked: &Asked) {
    if let Some(owner) = asked.watched_by {
        let share = share(shares, owner);
        share.changes.push((place, None));
        share.partitions -= 1;
        share.bytes -= asked.bytes_max() as u64;
    }
}

/// The bells of a shard's lists: owners ring them when a fetch waits and there is news.
#[derive(Default)]
pub struct Bells {
    bells: RefCell<BTreeMap<u64, Rc<Event>>>,
    next: Cell<u64>,
}

impl Bells {
    fn hang(&self) -> (u64, Rc<Event>) {
        let number = self.next.replace(self.next.get() + 1);
        let bell = Rc::new(Event::new());
        self.bells.borrow_mut().insert(number, bell.clone());
        (number, bell)
    }

    fn take_down(&self, number: u64) {
        self.bells.borrow_mut().remove(&number);
    }

    /// Of a list that is no more there is none.
    pub fn ring(&self, number: u64) {
        let bell = self.bells.borrow().get(&number).cloned();
        if let Some(bell) = bell {
            bell.notify_all();
        }
    }
}
