//! The Raft groups of a core, driven over its logs: [`corelog_raft`] decides, [`corelog_storage`] keeps, and here one is
//! brought to the other.
//!
//! ```text
//!  append ──▶ Log ──asks──▶ Replicas ──▶ Driver        (a batch is in log and group, or in neither)
//!  frames ────────────────▶ Replicas::receive
//!  journal ──Progress─────▶ Replicas ──▶ durable
//!                              │ turn: collect
//!                              ▼
//!                  Replica: its work, in order ──▶ Log: entries, term and vote, what is committed
//!                              │ send
//!                              ▼
//!                  Network::frames: a peer has something to take
//! ```
//!
//! # One log, two who know it
//!
//! A leader's batch gets its offset from its log and its index from its group, and these must agree. So the log asks
//! ([`corelog_storage::Leads`]) at the moment that a batch takes its place, with nothing in between: what the group does not
//! take, since it leads no more, never is in the log. What a group writes by itself, the first entry of a term, is in the log
//! before anyone is told that this replica leads.
//!
//! # In order
//!
//! What a group has to do to its log is done one after the other ([`work`]): an append may wait for room in the journal, and
//! neither a later one, nor what is committed of it, may come before. Groups don't wait for each other, but where the
//! journal is full.
//!
//! # What a leader keeps no more
//!
//! It offers segments ([`snapshot`]), and the follower fetches them ([`install`]): whole files and the state beside them, past
//! the journals, at a rate that the giver bounds. The follower's group is closed meanwhile, and opens on whatever its log is then.
//! Nothing is told whole that may be long: a list, or producers, come in parts, each of use by itself.
//!
//! # What bounds memory
//!
//! | what waits | at most |
//! |---|---|
//! | entries for a log that takes them slowly | the room that they came with ([`Replicas::receive`]), and a few leaders' windows of one follower; then the replica leaves its group until they are in |
//! | entries for a disk that is full | the latter alone: links would stand still, and with them what makes space |
//! | who waits for a batch ([`Replica::committed`]) | as many as batches wait for a majority, which the log bounds, and requests that are still there |
//! | replicas that are to take in segments | each once; one at a time does |
//! | followers that were offered segments | each once; a piece at a time, forgotten when it asks for no more |
//! | what is read for followers | one read a follower, of a frame's bytes |
//!
//! # What is said to others
//!
//! [`Owner`] learns who leads, and that this replica does once it has committed in its own term. [`Replica::committed`]
//! completes when a batch is committed here, or can't be any more.

mod entries;
mod found;
mod install;
mod memory;
mod replica;
mod snapshot;
mod work;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_io::sync::Notify;
use corelog_io::{Instant, Queue, sleep, spawn};
use corelog_raft::config::{Bounds, TICK, Timing};
use corelog_raft::frame::{Content, Frame};
use corelog_raft::{
    Body, Driver, GroupId, GroupTurn, Membership, Message, OpenError, PeerId, ReplicaId, Term, Tick,
};
use corelog_storage::{Leads, Log, LogId, NotTaken, RaftIndex, ShardStorage};
use corelog_wire::records::BatchHeader;

pub use install::Taken;
pub use replica::{Led, NotCommitted, Replica};
pub use snapshot::{ANSWER_MAX, Answer, Ask, LISTED_MAX, PIECE_BYTES, Told, TransferLimits, What};

/// What brings frames to other cores' drivers, and questions to those who have a log.
pub trait Network {
    /// There may be frames for this peer: [`Replicas::take_frame`] until there is none.
    fn frames(&self, peer: PeerId);
    /// Has [`Replicas::answer`] called there. None, if no answer comes within [`ANSWER_MAX`].
    fn ask(&self, peer: PeerId, ask: Ask) -> Answer;
}

/// Whose logs these are.
pub trait Owner {
    /// Who leads a log's group has changed, as this replica knows it.
    fn led(&self, log: LogId, led: Led);
    /// The group goes on without this replica, whose data may go.
    fn removed(&self, log: LogId);
    /// The log takes no more, or a rule of replication is broken: this replica is closed, and the group goes on without it.
    fn stopped(&self, log: LogId);
}

/// Where a replica is opened.
#[derive(Clone, Debug)]
pub struct Opening {
    pub id: ReplicaId,
    /// What the group begins with, for a log that says nothing of it.
    pub founders: Membership,
    /// Where its replicas are, this one among them.
    pub places: Vec<(ReplicaId, PeerId)>,
}

/// A leader sends no more than its followers' bound of what it has no answer for. Several may do so one after the other, while a
/// log takes nothing.
const LEADERS_IN_A_ROW: u64 = 4;

/// All replicas of a core.
pub struct Replicas {
    me: Weak<Replicas>,
    storage: Rc<ShardStorage>,
    driver: RefCell<Driver>,
    replicas: RefCell<HashMap<GroupId, Rc<Replica>>>,
    /// Those whose logs took batches that the driver does not know yet: all of a turn are one proposal.
    proposers: RefCell<Vec<Rc<Replica>>>,
    /// Those that were given entries since the last turn.
    counting: RefCell<Vec<Rc<Replica>>>,
    /// Peers that are connected.
    peers: RefCell<Vec<PeerId>>,
    network: Rc<dyn Network>,
    owner: Rc<dyn Owner>,
    giving: snapshot::Giving,
    installs: install::Installs,
    turn_is_due: Notify,
    began: Instant,
    stopped: Cell<bool>,
    /// Bytes of entries that may wait for one log.
    waiting_max: u64,
}

pub fn group_of(log: LogId) -> GroupId {
    GroupId { topic: u128::from_be_bytes(log.topic.0), partition: log.partition }
}

/// Of the entries in it, the last one's index and term.
fn last_entry(content: &Content) -> Option<(GroupId, (RaftIndex, Term))> {
    let Content::Append(group, Message { body: Body::Append(append), .. }) = content else { return None };
    let last = append.entries.last()?;
    Some((*group, (RaftIndex(last.index.0), last.term)))
}

impl Replicas {
    pub fn new(
        storage: Rc<ShardStorage>,
        network: Rc<dyn Network>,
        owner: Rc<dyn Owner>,
        (timing, bounds): (Timing, Bounds),
    ) -> Rc<Replicas> {
        Rc::new_cyclic(|me| Replicas {
            me: me.clone(),
            storage,
            driver: RefCell::new(Driver::new(timing, bounds, Tick(0))),
            replicas: RefCell::default(),
            proposers: RefCell::default(),
            counting: RefCell::default(),
            peers: RefCell::default(),
            network,
            owner,
            giving: snapshot::Giving::new(),
            installs: install::Installs::new(),
            turn_is_due: Notify::new(),
            began: corelog_io::now(),
            stopped: Cell::new(false),
            waiting_max: bounds.follower_bytes * LEADERS_IN_A_ROW,
        })
    }

    /// Begins to drive; until [`Replicas::stop`].
    pub fn start(self: &Rc<Self>) {
        let (turns, ticks, progress) = (self.clone(), self.clone(), self.clone());
        spawn(Queue::Produce, async move {
            while !turns.stopped.get() {
                turns.turn();
                turns.turn_is_due.notified().await;
            }
        })
        .detach();
        spawn(Queue::Produce, async move {
            while !ticks.stopped.get() {
                sleep(TICK).await;
                ticks.drive(Driver::tick);
                ticks.give_up_stalled();
            }
        })
        .detach();
        spawn(Queue::Produce, async move {
            while !progress.stopped.get() {
                let moved = progress.storage.progress().moved().await;
                progress.have_moved(moved);
            }
        })
        .detach();
        self.start_installs();
    }

    /// Nothing is driven any more; who waits for a batch learns no more of it.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.turn_is_due.notify_one();
        self.stop_installs();
        for replica in self.replicas.take().into_values() {
            replica.close();
        }
    }

    /// Opens the replica that the log is. All that the log has is on stable storage.
    pub async fn open(&self, log: Rc<Log>, opening: Opening) -> Result<Rc<Replica>, CannotOpen> {
        if let Some(refused) = log.refused() {
            return Err(CannotOpen::Refused(refused));
        }
        let group = group_of(log.id());
        let replica = Rc::new(Replica::new(self.me.clone(), group, log.clone(), opening));
        self.enter(&replica).await?;
        log.watch_progress(true);
        log.lead_by(Some(self.me.upgrade().expect("it is borrowed from an Rc")));
        self.replicas.borrow_mut().insert(group, replica.clone());
        Ok(replica)
    }

    /// The group is driven, from what the replica's log is now.
    async fn enter(&self, replica: &Replica) -> Result<(), CannotOpen> {
        let found = found::Found::read(&replica.log, &replica.founders).await?;
        let peers = replica.places.borrow().clone();
        let with = corelog_raft::Replica { group: replica.group, id: replica.id, peers };
        let seed = corelog_io::random_u64();
        if !replica.is_closed() {
            self.drive(|driver, now| driver.open(now, with, seed, &found))?;
        }
        Ok(())
    }

    /// The group has no replica here any more, as far as it goes for this process; its log is as it is.
    pub fn close(&self, log: LogId) {
        let group = group_of(log);
        self.drive(|driver, _| driver.close(group));
        if let Some(replica) = self.replicas.borrow_mut().remove(&group) {
            replica.close();
        }
    }

    pub fn peer_connected(&self, peer: PeerId) {
        self.peers.borrow_mut().retain(|&known| known != peer);
        self.peers.borrow_mut().push(peer);
        self.drive(|driver, now| driver.peer_connected(now, peer));
    }

    pub fn peer_disconnected(&self, peer: PeerId) {
        self.peers.borrow_mut().retain(|&known| known != peer);
        self.drive(|driver, now| driver.peer_disconnected(now, peer));
    }

    /// `room` is what the content's memory counts by: it is dropped when the log has the entries, or nobody has them.
    pub fn receive<R: 'static>(&self, from: PeerId, content: Content, room: R) {
        let content = if planted(Fault::TermsIgnored) { self.as_of_now(content) } else { content };
        let counts = last_entry(&content).and_then(|(group, last)| Some((self.replica_of(group)?, last)));
        self.drive(|driver, now| driver.receive(now, from, content));
        if let Some((replica, last)) = counts
            && replica.keep_room(last, room)
        {
            self.counting.borrow_mut().push(replica);
        }
    }

    /// As if a leader's term were this replica's.
    fn as_of_now(&self, content: Content) -> Content {
        let Content::Append(group, mut message) = content else { return content };
        let term = self.driver.borrow().group(group).map(|group| group.leadership().term);
        message.term = message.term.max(term.unwrap_or_default());
        Content::Append(group, message)
    }

    pub fn take_frame(&self, peer: PeerId) -> Option<Frame> {
        let frame = self.driver.borrow_mut().take_frame(peer);
        // Its room may be what others wait for.
        if frame.is_some() {
            self.turn_is_due.notify_one();
        }
        frame
    }

    /// Where a group's replicas are now.
    pub fn set_places(&self, log: LogId, places: Vec<(ReplicaId, PeerId)>) {
        if let Some(replica) = self.replica(log) {
            *replica.places.borrow_mut() = places.clone();
            self.drive(|driver, now| driver.set_peers(now, group_of(log), places));
        }
    }

    /// Whether this replica leads and no other can: it may read, and say where its log ends.
    pub fn may_lead(&self, log: LogId) -> bool {
        let now = self.now();
        self.driver.borrow().may_lead(now, group_of(log))
    }

    /// Has this replica stand for election, if it hears no leader.
    pub fn campaign(&self, log: LogId) -> Result<(), corelog_raft::NotDone> {
        self.drive(|driver, now| driver.campaign(now, group_of(log)))
    }

    /// Hands the leadership to another replica, if it is one and can take it.
    pub fn transfer(&self, log: LogId, to: ReplicaId) -> Result<(), corelog_raft::NotDone> {
        self.drive(|driver, now| driver.transfer(now, group_of(log), to))
    }

    /// Bytes of entries that came and wait for their logs.
    pub fn waiting_bytes(&self) -> u64 {
        self.replicas.borrow().values().map(|replica| replica.waiting.get()).sum()
    }

    pub fn replica(&self, log: LogId) -> Option<Rc<Replica>> {
        self.replica_of(group_of(log))
    }

    fn replica_of(&self, group: GroupId) -> Option<Rc<Replica>> {
        self.replicas.borrow().get(&group).cloned()
    }

    fn now(&self) -> Tick {
        // 0 is "never".
        Tick(1 + (self.began.elapsed().as_nanos() / TICK.as_nanos()) as u64)
    }

    /// An input to the driver: what logs took before it is known to it before.
    fn drive<T>(&self, act: impl FnOnce(&mut Driver, Tick) -> T) -> T {
        let driver = &mut *self.driver.borrow_mut();
        let now = self.now();
        self.propose(driver, now);
        let done = act(driver, now);
        self.turn_is_due.notify_one();
        done
    }

    fn propose(&self, driver: &mut Driver, now: Tick) {
        for replica in self.proposers.take() {
            let batches = vec![Bytes::new(); replica.proposed.take()];
            let proposed = driver.propose(now, replica.group, batches);
            assert!(proposed.is_ok(), "the group said that it takes them, and has heard nothing since");
        }
    }

    /// The durable ends of these logs moved.
    fn have_moved(&self, logs: Vec<LogId>) {
        for replica in logs.into_iter().filter_map(|log| self.replica(log)) {
            let (end, term) = replica.durable_end();
            self.drive(|driver, now| driver.durable(now, replica.group, end, term));
            if planted(Fault::CommittedByOne) && replica.leads_in(replica.led().term) {
                replica.log.advance_commit(RaftIndex(end.0));
            }
            replica.settle(&*self.owner);
        }
    }

    /// What the groups have to do: to their logs, then to their peers.
    fn turn(&self) {
        let turns = {
            let driver = &mut *self.driver.borrow_mut();
            self.propose(driver, self.now());
            driver.collect()
        };
        turns.into_iter().for_each(|turn| self.take(turn));
        // Those whose entries no group took.
        self.counting.take().into_iter().for_each(|replica| replica.give_room_back());
        let reads = {
            let replicas = self.replicas.borrow();
            let mut memory = memory::Memory::new(&replicas);
            self.driver.borrow_mut().send(&mut memory);
            memory.reads
        };
        reads.into_iter().for_each(|read| self.read(read));
        let peers = self.peers.borrow().clone();
        peers.into_iter().for_each(|peer| self.network.frames(peer));
    }

    fn take(&self, turn: GroupTurn) {
        if let Some(replica) = self.replica_of(turn.group) {
            replica.take(turn, &self.me.upgrade().expect("it is borrowed from an Rc"));
        }
    }

    /// Entries that a follower needs and are not in memory.
    fn read(&self, read: memory::ColdRead) {
        let Some(replica) = self.replica_of(read.group) else { return };
        let replicas = self.me.clone();
        spawn(Queue::Background, async move {
            let entries = read.entries(&replica.log).await;
            if let Some(replicas) = replicas.upgrade() {
                replica.forget_dropped(&replicas);
                if let Some(damage) = replica.log.refused() {
                    return replica.fail(&damage, &replicas);
                }
                replicas.drive(|driver, now| driver.entries_read(now, read.group, read.from, entries));
            }
        })
        .detach();
    }
}

/// Why a log's replica is not opened.
#[derive(Debug, thiserror::Error)]
pub enum CannotOpen {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] corelog_storage::EntriesError),
    /// Its replica is taken out of its group, and another comes in its place.
    #[error(transparent)]
    Refused(corelog_storage::StorageError),
    #[error("the log's membership is damaged: {0}")]
    Membership(&'static str),
}

impl Leads for Replicas {
    fn take(
        &self,
        log: LogId,
        index: RaftIndex,
        header: &BatchHeader,
        bytes: &Bytes,
    ) -> Result<(), NotTaken> {
        let replica = self.replica(log).ok_or(NotTaken::NotLeading)?;
        let (index, term) = (corelog_raft::RaftIndex(index.0), Term(header.partition_leader_epoch));
        if header.is_internal() {
            return self.take_change(&replica, index, term, bytes);
        }
        let driver = self.driver.borrow();
        let group = driver.group(replica.group).ok_or(NotTaken::NotLeading)?;
        let proposed = replica.proposed.get();
        if !group.would_take(term, corelog_raft::RaftIndex(index.0 - proposed as u64)) {
            return Err(NotTaken::NotLeading);
        }
        if proposed == 0 {
            self.proposers.borrow_mut().push(replica.clone());
            self.turn_is_due.notify_one();
        }
        replica.proposed.set(proposed + 1);
        Ok(())
    }
}

impl Replicas {
    /// A leader's own entry: a change of the group's replicas.
    fn take_change(
        &self,
        replica: &Replica,
        index: corelog_raft::RaftIndex,
        term: Term,
        bytes: &Bytes,
    ) -> Result<(), NotTaken> {
        let change = entries::change(bytes).ok_or(NotTaken::Change("it is none".into()))?;
        let group = replica.group;
        self.drive(|driver, now| {
            let takes = driver.group(group).is_some_and(|group| group.would_take(term, index));
            if !takes {
                return Err(NotTaken::NotLeading);
            }
            let taken = match change {
                corelog_raft::Change::To { voters, learners } => {
                    driver.change_membership(now, group, voters, learners)
                }
                corelog_raft::Change::LeaveJoint => driver.leave_joint(now, group),
            };
            taken.map(drop).map_err(|why| NotTaken::Change(why.to_string()))
        })
    }
}
