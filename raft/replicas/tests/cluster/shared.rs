//! What all processes and the test share: the wires, the clients' requests, and what is known of the groups.

use crate::network::Wires;
use corelog_raft::{Membership, PeerId, ReplicaId};
use corelog_replicas::Opening;
use corelog_storage::{LogId, RaftIndex};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// How often a replica can be replaced by another on the same node.
pub const LIVES: u64 = 16;

pub struct Plan {
    pub nodes: usize,
    pub founders: usize,
    pub groups: u8,
    /// Logs lose their beginnings.
    pub retains: bool,
    /// Replicas come and go.
    pub changes: bool,
}

/// A client's batch, for whoever leads.
#[derive(Clone, Copy)]
pub struct Request {
    pub number: u64,
    pub group: u8,
    pub producer: i64,
    pub sequence: i32,
}

pub enum Reply {
    /// It is committed, at this offset.
    At(i64),
    Elsewhere,
    OutOfOrder(String),
}

pub struct Acknowledged {
    pub offset: i64,
    pub producer: i64,
    pub sequence: i32,
}

/// How a replica is.
pub struct State {
    pub committed: RaftIndex,
    pub next: RaftIndex,
    pub serves: bool,
}

pub struct Shared {
    pub plan: Plan,
    pub wires: Rc<Wires>,
    pub requests: RefCell<BTreeMap<usize, VecDeque<Request>>>,
    pub replies: RefCell<BTreeMap<u64, Reply>>,
    pub asked: Cell<u64>,
    pub acknowledged: RefCell<BTreeMap<u8, Vec<Acknowledged>>>,
    pub leaders: RefCell<BTreeMap<(LogId, i32), usize>>,
    pub states: RefCell<BTreeMap<(usize, u8), State>>,
    /// Bytes of received frames that count, on each node.
    pub held: RefCell<BTreeMap<usize, u64>>,
    /// How often a node's replica was replaced by another of the same node.
    pub lives: RefCell<BTreeMap<(usize, u8), u64>>,
    /// A group's replicas, committed, as a leader that surely led knew them last.
    pub memberships: RefCell<BTreeMap<u8, Membership>>,
    pub settling: Cell<bool>,
    /// Disks fail.
    pub fails: Cell<bool>,
    pub segments_taken: Cell<u64>,
    pub changed: Cell<u64>,
    pub retried: Cell<u64>,
}

impl Shared {
    pub fn new(plan: Plan) -> Rc<Shared> {
        Rc::new(Shared {
            wires: Rc::new(Wires::new(plan.nodes)),
            plan,
            requests: RefCell::default(),
            replies: RefCell::default(),
            asked: Cell::new(0),
            acknowledged: RefCell::default(),
            leaders: RefCell::default(),
            states: RefCell::default(),
            held: RefCell::default(),
            lives: RefCell::default(),
            memberships: RefCell::default(),
            settling: Cell::new(false),
            fails: Cell::new(false),
            segments_taken: Cell::new(0),
            changed: Cell::new(0),
            retried: Cell::new(0),
        })
    }

    pub fn groups(&self) -> impl Iterator<Item = u8> + use<> {
        1..=self.plan.groups
    }

    pub fn replica_of(&self, node: usize, group: u8) -> ReplicaId {
        let life = self.lives.borrow().get(&(node, group)).copied().unwrap_or(0);
        replica_id(node, life)
    }

    pub fn is_live(&self, replica: ReplicaId, group: u8) -> bool {
        self.replica_of(node_of(replica), group) == replica
    }

    /// Another replica comes in its place.
    pub fn replace(&self, node: usize, group: u8) {
        *self.lives.borrow_mut().entry((node, group)).or_default() += 1;
    }

    pub fn opening(&self, node: usize, group: u8) -> Opening {
        let founders: Vec<_> = (0..self.plan.founders).map(|node| replica_id(node, 0)).collect();
        let place = |node| (0..LIVES).map(move |life| (replica_id(node, life), PeerId(node as u64)));
        Opening {
            id: self.replica_of(node, group),
            founders: Membership::of_voters(&founders),
            places: (0..self.plan.nodes).flat_map(place).collect(),
        }
    }

    /// Whether a disk may be lost: no group is short of replicas already.
    pub fn may_wipe(&self, node: usize) -> bool {
        let memberships = self.memberships.borrow();
        self.groups().all(|group| {
            let lives = self.lives.borrow().get(&(node, group)).copied().unwrap_or(0);
            let is_whole = |of: &Membership| {
                !of.is_joint()
                    && of.voters.len() >= 3
                    && of.replicas().iter().all(|&id| self.is_live(id, group))
            };
            lives + 1 < LIVES && memberships.get(&group).is_some_and(is_whole)
        })
    }

    /// Every group is led, by live replicas that all have the same.
    pub fn are_alike(&self) -> bool {
        let (states, memberships) = (self.states.borrow(), self.memberships.borrow());
        self.groups().all(|group| {
            let Some(membership) = memberships.get(&group) else { return false };
            let replicas = membership.replicas();
            let of = |replica: &ReplicaId| states.get(&(node_of(*replica), group));
            let Some(first) = of(&replicas[0]) else { return false };
            let is_alike = |state: &State| (state.committed, state.next) == (first.next, first.next);
            !membership.is_joint()
                && membership.voters.len() >= 3
                && replicas.iter().all(|&replica| self.is_live(replica, group))
                && replicas.iter().all(|replica| of(replica).is_some_and(is_alike))
                && replicas.iter().filter(|replica| of(replica).is_some_and(|state| state.serves)).count()
                    == 1
        })
    }

    pub fn describe(&self) -> String {
        let mut text = String::new();
        for ((node, group), State { committed, next, serves }) in &*self.states.borrow() {
            let replica = self.replica_of(*node, *group);
            text += &format!(
                "group {group} node {node} replica {replica}: {committed} of {next}, serves {serves}\n"
            );
        }
        text + &format!("{:?}", self.memberships.borrow())
    }
}

pub fn replica_id(node: usize, life: u64) -> ReplicaId {
    ReplicaId(life * 64 + node as u64 + 1)
}

pub fn node_of(replica: ReplicaId) -> usize {
    ((replica.0 - 1) % 64) as usize
}
