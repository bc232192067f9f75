//! All groups of a shard: which need a look, what leaves to which peer, what is in flight.
//!
//! A turn costs what happened in it, however many groups rest: those with something to do are in a list, those with a
//! deadline in a wheel. All groups are gone through only when a peer falls silent or connects anew.

mod groups;
mod peer;
mod pipe;
mod send;
#[cfg(test)]
mod tests;
mod wheel;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use crate::config::{Bounds, Timing};
use crate::core::{Role, Violation};
use crate::frame::{Content, Frame};
use crate::group::{Group, Leadership, OpenError, Refused};
use crate::ids::{GroupId, PeerId, RaftIndex, ReplicaId, Term, Tick};
use crate::log::{Entry, HardState, Log, Logs};
use crate::membership::Membership;
use crate::message::{Body, Message, Outcome, SnapshotOffer};

pub use groups::NotDone;
use peer::{Heard, Peer};
use pipe::Pipe;
use wheel::Wheel;

/// What a shard has to do for one group: first `append` and `hard_state` to its log and journal, then the rest.
#[derive(Debug)]
pub struct GroupTurn {
    pub group: GroupId,
    /// In order; where the first is below the log's next index, the log is cut there before.
    pub append: Vec<Entry>,
    pub hard_state: Option<HardState>,
    pub committed: Option<RaftIndex>,
    pub leadership: Option<Leadership>,
    pub membership: Option<(RaftIndex, Membership)>,
    /// [`Driver::leave_joint`] is due.
    pub leave_joint: bool,
    pub snapshots_wanted: Vec<ReplicaId>,
    pub install: Option<SnapshotOffer>,
    pub removed: bool,
    /// The group stopped: it takes and says nothing more.
    pub violation: Option<Violation>,
}

/// A replica that is to be opened.
#[derive(Clone, Debug)]
pub struct Replica {
    pub group: GroupId,
    pub id: ReplicaId,
    /// Where the group's other replicas are.
    pub peers: Vec<(ReplicaId, PeerId)>,
}

struct Slot {
    id: GroupId,
    group: Group,
    peers: Vec<(ReplicaId, PeerId)>,
    /// In `looks`.
    looked_at: bool,
    /// In `sends`.
    sends: bool,
    /// The nearest deadline that is in the wheel.
    armed: Option<Tick>,
    pipes: Vec<Pipe>,
    violation: Option<Violation>,
    /// The violation was told.
    stopped: bool,
}

impl Slot {
    fn peer_of(&self, replica: ReplicaId) -> Option<PeerId> {
        self.peers.iter().find(|&&(id, _)| id == replica).map(|&(_, peer)| peer)
    }
}

/// Whose word of rest is in doubt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    All,
    /// Of groups that this shard leads.
    Led,
}

/// Counted since the driver was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that a group was looked at: 0 while all rest.
    pub looks: u64,
    pub elections: u64,
    /// Messages for groups that this shard does not have.
    pub strays: u64,
}

pub struct Driver {
    timing: Timing,
    bounds: Bounds,
    now: Tick,
    groups: Vec<Option<Slot>>,
    free: Vec<usize>,
    by_id: HashMap<GroupId, usize>,
    looks: Vec<usize>,
    sends: Vec<usize>,
    wheel: Wheel,
    /// Elections that wait for their tick.
    elections: VecDeque<usize>,
    peers: BTreeMap<PeerId, Peer>,
    /// Bytes of entries in flight to all followers.
    in_flight: u64,
    /// Groups that wait until there is room for more.
    crowded: BTreeSet<usize>,
    counters: Counters,
}

impl Driver {
    pub fn new(timing: Timing, bounds: Bounds, now: Tick) -> Driver {
        Driver {
            timing,
            bounds,
            now,
            groups: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            looks: Vec::new(),
            sends: Vec::new(),
            wheel: Wheel::new(now),
            elections: VecDeque::new(),
            peers: BTreeMap::new(),
            in_flight: 0,
            crowded: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes of entries that followers owe an answer for.
    pub fn in_flight_bytes(&self) -> u64 {
        self.in_flight
    }

    /// A connection to this peer stands, and nothing comes of the one before any more. What that carried may be lost: groups
    /// that rested on it wake once.
    pub fn peer_connected(&mut self, now: Tick, id: PeerId) {
        self.now = now;
        let known = self.peers.get(&id).map(|peer| peer.heard);
        self.doubt_groups_of(id, known.unwrap_or(now), Doubt::All);
        self.peers.entry(id).or_insert_with(|| Peer::new(now)).connected(now);
    }

    pub fn peer_disconnected(&mut self, now: Tick, id: PeerId) {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.disconnected();
        self.give_up_pipes_to(id);
    }

    /// There is no such peer any more: its broker left the cluster, or came back with fewer shards.
    pub fn forget_peer(&mut self, now: Tick, id: PeerId) {
        self.peer_disconnected(now, id);
        if let Some(peer) = self.peers.remove(&id) {
            self.doubt_groups_of(id, peer.heard, Doubt::All);
            peer.stalled.into_iter().for_each(|key| self.will_send(key));
        }
    }

    /// A frame from a peer that is connected.
    pub fn receive(&mut self, now: Tick, from: PeerId, content: Content) {
        self.now = now;
        let Some(peer) = self.peers.get_mut(&from).filter(|peer| peer.connected) else { return };
        let was_silent = std::mem::take(&mut peer.silent);
        // Silent long enough for this shard to vote for another, and no tick came to see it.
        let lapsed = !was_silent && now.since(peer.heard) >= self.timing.election;
        let before = std::mem::replace(&mut peer.heard, now);
        let heard = match &content {
            Content::Append(..) => Heard::InTime,
            Content::Messages(messages) => peer.heard(messages),
        };
        if lapsed {
            peer.lapse();
            self.doubt_groups_of(from, before, Doubt::All);
        } else if was_silent || heard == Heard::Lapsed {
            self.doubt_groups_of(from, before, Doubt::Led);
        }
        match content {
            _ if heard == Heard::Late => {}
            Content::Append(group, message) => self.deliver(group, message),
            Content::Messages(messages) => {
                messages.messages.into_iter().for_each(|(group, message)| self.deliver(group, message));
            }
        }
    }

    fn deliver(&mut self, group: GroupId, message: Message) {
        let Some(&key) = self.by_id.get(&group) else {
            self.counters.strays += 1;
            return;
        };
        let heard = self.heard_leader(key);
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        if slot.violation.is_some() {
            return;
        }
        slot.group.keep_promise(heard);
        let answered = match &message.body {
            Body::AppendAnswer(answer) => match answer.outcome {
                Outcome::Matched { end } => Some((message.from, message.term, end)),
                Outcome::Mismatch { .. } => None,
            },
            _ => None,
        };
        let outcome = slot.group.step(self.now, message);
        self.note(key, outcome);
        if let Some((from, term, end)) = answered {
            self.pipe_matched(key, from, term, end);
        }
    }

    /// When the peer of this group's leader was last heard.
    fn heard_leader(&self, key: usize) -> Tick {
        let slot = self.groups[key].as_ref().expect("a group of this driver");
        let leader = slot.group.leadership().leader;
        let peer = leader.and_then(|leader| slot.peer_of(leader));
        peer.and_then(|id| self.peers.get(&id)).map_or(Tick(0), |peer| peer.heard)
    }

    /// Time has come to `now`: deadlines, silent peers, heartbeats between peers.
    pub fn tick(&mut self, now: Tick) {
        self.now = now;
        let mut budget = self.bounds.elections_per_tick;
        let mut fired: Vec<usize> = self.elections.drain(..).collect();
        self.wheel.advance(now, &mut fired);
        for key in fired {
            self.fire(key, &mut budget);
        }
        let silence = self.timing.election;
        let fell_silent = |(_, peer): &(_, &mut Peer)| !peer.silent && now.since(peer.heard) >= silence;
        let silent: Vec<_> = self
            .peers
            .iter_mut()
            .filter(fell_silent)
            .map(|(&id, peer)| {
                peer.silent = true;
                peer.lapse();
                (id, peer.heard)
            })
            .collect();
        for (id, heard) in silent {
            self.give_up_pipes_to(id);
            self.doubt_groups_of(id, heard, Doubt::All);
        }
    }

    fn fire(&mut self, key: usize, budget: &mut usize) {
        let now = self.now;
        let Some(slot) = self.groups[key].as_mut() else { return };
        slot.armed = None;
        match slot.group.deadline() {
            Some(due) if due > now => self.arm(key),
            Some(_) if slot.group.would_campaign(now) && *budget == 0 => self.elections.push_back(key),
            Some(_) => {
                if slot.group.leadership().role == Role::Leader {
                    let is_away = |(_, id): &&(_, PeerId)| self.peers.get(id).is_none_or(Peer::is_away);
                    slot.group.set_away(slot.peers.iter().filter(is_away).map(|&(id, _)| id).collect());
                }
                if slot.group.would_campaign(now) {
                    *budget -= 1;
                    self.counters.elections += 1;
                }
                let outcome = slot.group.tick(now);
                self.note(key, outcome);
            }
            None => {}
        }
    }

    /// After an input: the group has a look in this turn, and its deadline is in the wheel.
    fn note(&mut self, key: usize, outcome: Result<(), Violation>) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        if let Err(violation) = outcome {
            slot.violation.get_or_insert(violation);
        }
        if !std::mem::replace(&mut slot.looked_at, true) {
            self.looks.push(key);
        }
        self.arm(key);
    }

    fn arm(&mut self, key: usize) {
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        let Some(due) = slot.group.deadline() else { return };
        // A deadline that moved away is seen when the earlier one fires.
        if slot.armed.is_none_or(|armed| due < armed) {
            slot.armed = Some(due);
            self.wheel.set(due, key);
        }
    }

    /// What groups at rest believe of their replicas at this peer is in doubt: a leader asks who still follows, a follower
    /// waits for its leader. That follower's promise ends here, so the peer has to learn of it: by a count of lapses or a
    /// new connection.
    fn doubt_groups_of(&mut self, id: PeerId, heard: Tick, which: Doubt) {
        for key in 0..self.groups.len() {
            let Some(slot) = &mut self.groups[key] else { continue };
            if which == Doubt::Led && slot.group.leadership().role != Role::Leader {
                continue;
            }
            let rested = slot.group.is_resting();
            for &(replica, _) in slot.peers.iter().filter(|&&(_, of)| of == id) {
                slot.group.doubt(self.now, replica, heard);
            }
            if rested && !slot.group.is_resting() {
                self.note(key, Ok(()));
            }
        }
    }

    /// What groups have to do after the inputs so far. Then [`Driver::send`].
    pub fn collect(&mut self) -> Vec<GroupTurn> {
        let mut turns = Vec::new();
        for key in std::mem::take(&mut self.looks) {
            if let Some(turn) = self.look(key) {
                turns.push(turn);
            }
        }
        turns
    }

    fn look(&mut self, key: usize) -> Option<GroupTurn> {
        self.counters.looks += 1;
        let slot = self.groups[key].as_mut()?;
        slot.looked_at = false;
        if slot.stopped {
            return None;
        }
        let output = slot.group.take_output();
        let violation = slot.violation.clone();
        let (group, now, bounds) = (slot.id, self.now, self.bounds);
        if violation.is_some() {
            self.stop(key);
        } else {
            for message in output.messages {
                if let Some(peer) = self.peer_for(key, message.to) {
                    peer.say(now, group, message, &bounds);
                }
            }
            if output.leadership.is_some() {
                self.drop_pipes(key);
            }
            if let Some((_, membership)) = &output.membership {
                self.keep_pipes_to(key, membership);
            }
            let slot = self.groups[key].as_ref().expect("it was there");
            let now = slot.group.leadership();
            for order in
                output.orders.iter().filter(|order| now.role == Role::Leader && order.term == now.term)
            {
                self.order(key, order);
            }
        }
        let turn = GroupTurn {
            group,
            append: output.append,
            hard_state: output.hard_state,
            committed: output.committed,
            leadership: output.leadership,
            membership: output.membership,
            leave_joint: output.leave_joint,
            snapshots_wanted: output.snapshots_wanted,
            install: output.install,
            removed: output.removed,
            violation,
        };
        let nothing = turn.append.is_empty()
            && turn.hard_state.is_none()
            && turn.committed.is_none()
            && turn.leadership.is_none()
            && turn.membership.is_none()
            && !turn.leave_joint
            && turn.snapshots_wanted.is_empty()
            && turn.install.is_none()
            && !turn.removed
            && turn.violation.is_none();
        (!nothing).then_some(turn)
    }

    /// The group is done here. Who rests with it is told: it says nothing more.
    fn stop(&mut self, key: usize) {
        self.drop_pipes(key);
        let slot = self.groups[key].as_mut().expect("a group of this driver");
        if std::mem::replace(&mut slot.stopped, true) {
            return;
        }
        let (now, group) = (self.now, slot.id);
        for message in slot.group.farewell() {
            if let Some(peer) = self.peer_for(key, message.to) {
                peer.say_surely(now, group, message);
            }
        }
    }

    fn peer_for(&mut self, key: usize, replica: ReplicaId) -> Option<&mut Peer> {
        let id = self.groups[key].as_ref().and_then(|slot| slot.peer_of(replica))?;
        self.peers.get_mut(&id)
    }

    /// The next frame for a peer's connection. Room in its queue is room for groups that found it full.
    pub fn take_frame(&mut self, id: PeerId) -> Option<Frame> {
        let peer = self.peers.get_mut(&id)?;
        let frame = peer.take_frame()?;
        let stalled = std::mem::take(&mut peer.stalled);
        stalled.into_iter().for_each(|key| self.will_send(key));
        Some(frame)
    }
}
