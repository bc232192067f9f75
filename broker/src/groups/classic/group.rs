//! One classic group: its members, generation and state. No time, no I/O: the coordinator drives it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use corelog_io::planted::{Fault, planted};
use corelog_wire::Str;
use corelog_wire::coordinator_records::GroupMetadataValue;

use super::member::{Member, Protocol};
use super::parked::Parked;
use super::state::{GroupState, JoinPhase};
use super::subscription::{TOPICS_MAX, subscribed_topics, topic_cost};
use crate::coordinator::WriteId;
use crate::groups::memory::{Account, GroupMemory};

/// The protocol type of Kafka's consumers; the coordinator reads the subscriptions of such groups.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

#[derive(Debug)]
pub struct Group {
    pub id: Str,
    state: GroupState,
    previous_state: GroupState,
    /// Wall clock of the last change of state; `None` when loaded from a record that has none.
    pub state_since_ms: Option<i64>,
    pub generation: i32,
    /// `None` for a simple group, one that only holds offsets.
    pub protocol_type: Option<Str>,
    pub protocol: Option<Str>,
    pub leader: Option<Str>,
    members: BTreeMap<Str, Member>,
    static_members: BTreeMap<Str, Str>,
    /// Member ids handed out (KIP-394) and not yet joined with.
    pending_members: BTreeSet<Str>,
    /// Members that have not synced in this generation.
    pub pending_sync: BTreeSet<Str>,
    /// How many members support a protocol, by its name.
    supported: BTreeMap<Str, usize>,
    members_joining: usize,
    /// Topics that members subscribe to; `None` when that is not known.
    subscribed: Option<BTreeSet<Str>>,
    pub join_phase: Option<JoinPhase>,
    /// A member came since the initial delay was last set.
    pub new_member_added: bool,
    /// The write that makes the group exist. Of this and the next two counts only whether they are on their way.
    pub creation: Option<WriteId>,
    /// The write that removes the group: as long as it is on its way readers see the group, and who decides doesn't.
    pub removal: Option<WriteId>,
    /// The write of this generation's assignment.
    pub assignment: Option<WriteId>,
    account: Account,
}

/// Why a request of a member is refused (KIP-345 for the second).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberRefusal {
    Unknown,
    Fenced,
}

impl Group {
    /// Bytes a group without members holds, beside its id.
    pub const COST: usize = 768;

    pub fn new(id: Str, memory: &GroupMemory, wall_ms: i64) -> Group {
        let mut account = memory.members_account();
        account.add(Group::COST + 3 * id.len());
        Group {
            id,
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_since_ms: Some(wall_ms),
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            supported: BTreeMap::new(),
            members_joining: 0,
            subscribed: None,
            join_phase: None,
            new_member_added: false,
            creation: None,
            removal: None,
            assignment: None,
            account,
        }
    }

    /// A group as its record has it.
    pub fn loaded(id: Str, memory: &GroupMemory, stored: &GroupMetadataValue) -> Group {
        let mut group = Group::new(id, memory, 0);
        group.generation = stored.generation;
        let protocol_type = &stored.protocol_type;
        group.set_protocol_type(Some(protocol_type.clone()).filter(|name| !name.is_empty()));
        group.protocol = stored.protocol.clone();
        group.state_since_ms =
            (stored.current_state_timestamp != -1).then_some(stored.current_state_timestamp);
        if !stored.members.is_empty() {
            group.state = GroupState::Stable;
        }
        for member in &stored.members {
            let instance_id = member.group_instance_id.as_ref();
            if instance_id.is_some_and(|id| group.static_members.contains_key(id))
                || group.has_member(&member.member_id)
            {
                // No coordinator writes such a record; whoever did, it is no reason to stop.
                continue;
            }
            group.add_member(Member::loaded(member, stored.protocol.as_ref()), protocol_type.clone());
        }
        let leader = stored.leader.clone().filter(|leader| group.members.contains_key(leader));
        group.leader = leader.or(group.leader);
        group.find_subscribed();
        group
    }

    // ---- state

    pub fn state(&self) -> GroupState {
        self.state
    }

    pub fn is(&self, state: GroupState) -> bool {
        self.state == state
    }

    /// Whether the join phase under way is the first of an empty group.
    pub fn is_initial_rebalance(&self) -> bool {
        self.state == GroupState::PreparingRebalance && self.previous_state == GroupState::Empty
    }

    pub fn can_rebalance(&self) -> bool {
        GroupState::PreparingRebalance.may_follow(self.state)
    }

    pub fn transition(&mut self, to: GroupState, wall_ms: i64) {
        assert!(to.may_follow(self.state), "group {}: no way from {} to {to}", &*self.id, self.state);
        self.previous_state = self.state;
        self.state = to;
        self.state_since_ms = Some(wall_ms);
        self.assignment = None;
        if to != GroupState::PreparingRebalance {
            self.join_phase = None;
        }
    }

    /// Ends the join phase: the next generation, with a protocol that all its members support.
    pub fn init_next_generation(&mut self, wall_ms: i64) {
        if self.generation == 0 || !planted(Fault::GenerationStandsStill) {
            self.generation = self.generation.wrapping_add(1).max(0);
        }
        self.pending_sync.clear();
        if self.members.is_empty() {
            self.protocol = None;
            self.find_subscribed();
            self.transition(GroupState::Empty, wall_ms);
        } else {
            self.protocol = self.select_protocol();
            self.find_subscribed();
            self.transition(GroupState::CompletingRebalance, wall_ms);
        }
    }

    // ---- members

    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    pub fn member_ids(&self) -> Vec<Str> {
        self.members.keys().cloned().collect()
    }

    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    pub fn has_member(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    pub fn is_leader(&self, id: &str) -> bool {
        self.leader.as_deref() == Some(id)
    }

    pub fn static_member_id(&self, instance_id: &str) -> Option<&Str> {
        self.static_members.get(instance_id)
    }

    pub fn static_member_count(&self) -> usize {
        self.static_members.len()
    }

    pub fn is_pending(&self, id: &str) -> bool {
        self.pending_members.contains(id)
    }

    pub fn pending_member_count(&self) -> usize {
        self.pending_members.len()
    }

    pub fn pending_members(&self) -> impl Iterator<Item = &Str> {
        self.pending_members.iter()
    }

    pub fn add_pending_member(&mut self, id: Str) {
        self.account.add(pending_cost(&id));
        self.pending_members.insert(id);
    }

    fn remove_pending_member(&mut self, id: &str) {
        if let Some(id) = self.pending_members.take(id) {
            self.account.sub(pending_cost(&id));
        }
    }

    /// Adds a member. The first one sets the group's protocol type, and leads until a join phase elects.
    pub fn add_member(&mut self, member: Member, protocol_type: Str) {
        if self.members.is_empty() {
            self.set_protocol_type(Some(protocol_type));
        }
        self.remove_pending_member(&member.id);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        self.count_in(&member);
        let former = self.members.insert(member.id.clone(), member);
        assert!(former.is_none(), "group {}: a member joined twice", &*self.id);
    }

    fn set_protocol_type(&mut self, protocol_type: Option<Str>) {
        self.account.sub(text_bytes(self.protocol_type.as_ref()));
        self.protocol_type = protocol_type;
        self.account.add(text_bytes(self.protocol_type.as_ref()));
    }

    /// Takes a member, or a pending member id, out. What the member has parked is to be answered: use
    /// [`super::rebalance::remove_member`].
    #[must_use = "what it has parked is to be answered"]
    pub fn remove_member(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id);
        if let Some(member) = &member {
            self.count_out(member);
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.remove_pending_member(id);
        self.pending_sync.remove(id);
        member
    }

    /// Changes a member in place, keeping the group's counts of it true.
    pub fn update_member<T>(&mut self, id: &str, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let mut member = self.members.remove(id)?;
        self.count_out(&member);
        let result = change(&mut member);
        self.count_in(&member);
        self.members.insert(member.id.clone(), member);
        Some(result)
    }

    /// Lets `new_id` take the place of the static member `old_id`: same instance, same assignment, same leadership.
    /// Gives back the parked requests of the former bearer, who is now fenced.
    pub fn replace_static_member(&mut self, old_id: &str, new_id: Str) -> (Option<Parked>, Option<Parked>) {
        let Some(mut member) = self.members.remove(old_id) else { return (None, None) };
        self.count_out(&member);
        let parked = (member.join.take(), member.sync.take());
        member.id = new_id.clone();
        // The instance has been a member before: that its join is parked is a sign of life.
        member.is_new = false;
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new_id.clone());
        }
        if self.leader.as_deref() == Some(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_sync.remove(old_id) {
            self.pending_sync.insert(new_id.clone());
        }
        self.count_in(&member);
        self.members.insert(new_id, member);
        parked
    }

    pub fn take_join(&mut self, id: &str) -> Option<Parked> {
        let parked = self.members.get_mut(id)?.join.take();
        if parked.is_some() {
            self.members_joining -= 1;
        }
        parked
    }

    pub fn take_sync(&mut self, id: &str) -> Option<Parked> {
        self.members.get_mut(id)?.sync.take()
    }

    pub fn members_joining(&self) -> usize {
        self.members_joining
    }

    pub fn all_members_joined(&self) -> bool {
        self.members_joining == self.members.len() && self.pending_members.is_empty()
    }

    /// Makes sure that the leader is one of those who have joined. False if none has.
    pub fn elect_joined_leader(&mut self) -> bool {
        let leads = |id: &Str| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(leads) {
            return true;
        }
        match self.members.values().find(|member| member.join.is_some()) {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    /// The longest rebalance timeout of any member.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub fn set_assignments(&mut self, mut assignments: BTreeMap<Str, Bytes>) {
        for member in self.members.values_mut() {
            self.account.sub(member.assignment.len());
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            self.account.add(member.assignment.len());
        }
    }

    /// Refuses a request that bears a member id or instance id which is not (or no longer) in the group.
    pub fn check_member(&self, member_id: &str, instance_id: Option<&Str>) -> Result<(), MemberRefusal> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(MemberRefusal::Unknown),
                Some(current) if **current != *member_id => return Err(MemberRefusal::Fenced),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(MemberRefusal::Unknown) }
    }

    /// Whether its members may hold `more` bytes. Nothing more is never too much.
    pub fn has_room(&self, memory: &GroupMemory, more: usize) -> bool {
        more == 0 || (memory.has_room_for_members(more) && self.account.bytes() + more <= memory.group_max())
    }

    // ---- protocols

    /// Whether a member with this protocol type and one of these protocols can be in the group.
    pub fn supports_protocols(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.members.is_empty() {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.supported.get(&protocol.name) == Some(&self.members.len()))
    }

    /// The protocol that most members would rather have, of those that all support. On a tie the one that was voted
    /// for first, in the order of member ids. `None` if there is none.
    pub fn select_protocol(&self) -> Option<Str> {
        let mut votes: Vec<(&Str, usize)> = Vec::new();
        for member in self.members.values() {
            let choice = member
                .protocols
                .iter()
                .find(|protocol| self.supported.get(&protocol.name) == Some(&self.members.len()));
            let Some(choice) = choice else { continue };
            match votes.iter_mut().find(|(name, _)| **name == choice.name) {
                Some((_, count)) => *count += 1,
                None => votes.push((&choice.name, 1)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).clone())
    }

    pub fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether members read `topic`. Where that can't be known, a consumer group is taken to read everything.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed {
            Some(topics) => topics.contains(topic),
            None => self.is_consumer_group(),
        }
    }

    /// Topics that members read, as far as that is known.
    pub fn subscribed_topics(&self) -> impl Iterator<Item = &Str> {
        self.subscribed.iter().flatten()
    }

    pub fn knows_subscriptions(&self) -> bool {
        self.subscribed.is_some()
    }

    fn find_subscribed(&mut self) {
        self.account.sub(subscribed_cost(self.subscribed.as_ref()));
        self.subscribed = self.compute_subscribed();
        self.account.add(subscribed_cost(self.subscribed.as_ref()));
    }

    fn compute_subscribed(&self) -> Option<BTreeSet<Str>> {
        if !self.is_consumer_group() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_ref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.append(&mut subscribed_topics(&member.metadata(Some(protocol)))?);
            if topics.len() > TOPICS_MAX {
                return None;
            }
        }
        Some(topics)
    }

    // ---- counts that follow from the members

    fn count_in(&mut self, member: &Member) {
        self.account.add(member.cost());
        self.members_joining += usize::from(member.join.is_some());
        for name in distinct_names(&member.protocols) {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
    }

    fn count_out(&mut self, member: &Member) {
        self.account.sub(member.cost());
        self.members_joining -= usize::from(member.join.is_some());
        for name in distinct_names(&member.protocols) {
            if let Some(count) = self.supported.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }
}

fn text_bytes(text: Option<&Str>) -> usize {
    text.map_or(0, |text| text.len())
}

fn subscribed_cost(topics: Option<&BTreeSet<Str>>) -> usize {
    topics.into_iter().flatten().map(topic_cost).sum()
}

fn pending_cost(id: &Str) -> usize {
    128 + id.len()
}

/// A member that lists a protocol twice supports it once.
fn distinct_names(protocols: &[Protocol]) -> BTreeSet<&Str> {
    protocols.iter().map(|protocol| &protocol.name).collect()
}

#[cfg(test)]
impl Group {
    /// What is always true of a group, and the bytes it accounts for.
    pub fn check(&self) -> usize {
        let id = &*self.id;
        let count =
            |wanted: fn(&Member) -> bool| self.members.values().filter(|member| wanted(member)).count();
        assert_eq!(self.members_joining, count(|member| member.join.is_some()), "{id}: parked joins");
        assert_eq!(self.static_members.len(), count(Member::is_static), "{id}: an instance is one member");
        for (key, member) in &self.members {
            assert_eq!(*key, member.id);
            if let Some(instance_id) = &member.instance_id {
                assert_eq!(self.static_members.get(instance_id), Some(key), "{id}: instance {instance_id}");
            }
            assert!(!self.pending_members.contains(key), "{id}: {key} is a member and not one yet");
            assert!(member.sync.is_none() || self.is(GroupState::CompletingRebalance), "{id}: parked sync");
        }
        let mut supported: BTreeMap<Str, usize> = BTreeMap::new();
        for name in self.members.values().flat_map(|member| distinct_names(&member.protocols)) {
            *supported.entry(name.clone()).or_default() += 1;
        }
        assert_eq!(self.supported, supported, "{id}: supported protocols");
        assert!(
            self.pending_sync.iter().all(|member| self.members.contains_key(member)),
            "{id}: pending sync"
        );
        assert_eq!(self.leader.is_some(), !self.members.is_empty(), "{id}: leader");
        assert!(
            self.leader.iter().all(|leader| self.members.contains_key(leader)),
            "{id}: leader is a member"
        );
        // Without members, a join phase only waits for its deadline.
        let empties = self.members.is_empty() && self.is(GroupState::PreparingRebalance);
        assert!(empties || self.members.is_empty() == self.is(GroupState::Empty), "{id}: empty");
        assert_eq!(self.join_phase.is_some(), self.is(GroupState::PreparingRebalance), "{id}: join phase");
        Group::COST
            + 3 * self.id.len()
            + self.members.values().map(Member::cost).sum::<usize>()
            + self.pending_members.iter().map(pending_cost).sum::<usize>()
            + subscribed_cost(self.subscribed.as_ref())
            + text_bytes(self.protocol_type.as_ref())
    }
}
