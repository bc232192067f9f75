//! What the groups of a shard hold in memory, and the bound on it.

use std::cell::Cell;
use std::rc::Rc;

/// This part of the memory is kept for groups that are there: members that come back, assignments, offsets. New groups
/// are taken while there is more.
const KEPT_PART: usize = 8;
/// The members of one group may hold this part of the memory: no group takes the room of all others.
const GROUP_PART: usize = 2;
/// This part is for groups and their members, whatever offsets take: offsets stay, also those that were taken when there was
/// more memory, and a member that left must be able to come back.
const MEMBERS_PART: usize = 4;

/// The memory of all groups of one shard: an estimate, counted up and down as groups, members, offsets and writes on
/// their way come and go. Whatever can grow asks first. When it is used up, what would take more is refused, and what
/// takes no more than before goes on: heartbeats, members that come back as they were, commits of known offsets.
#[derive(Clone, Debug)]
pub struct GroupMemory {
    used: Rc<Cell<usize>>,
    /// Of it, what groups and their members use.
    used_by_members: Rc<Cell<usize>>,
    limit: usize,
}

impl GroupMemory {
    /// `limit` in bytes.
    pub fn new(limit: usize) -> GroupMemory {
        GroupMemory { used: Rc::default(), used_by_members: Rc::default(), limit }
    }

    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit
    }

    /// Room for `bytes` of members of groups that are there.
    pub fn has_room_for_members(&self, bytes: usize) -> bool {
        self.has_room(bytes) || self.used_by_members.get().saturating_add(bytes) <= self.limit / MEMBERS_PART
    }

    /// Room for `bytes` of offsets of groups that are there.
    pub fn has_room_for_offsets(&self, bytes: usize) -> bool {
        let kept = (self.limit / MEMBERS_PART).saturating_sub(self.used_by_members.get());
        self.has_room(bytes.saturating_add(kept))
    }

    /// Room for `bytes` of a group that does not exist yet.
    pub fn has_room_for_new_group(&self, bytes: usize) -> bool {
        self.has_room(bytes.saturating_add(self.limit / KEPT_PART))
    }

    /// Bytes that one group's members may hold.
    pub fn group_max(&self) -> usize {
        self.limit / GROUP_PART
    }

    /// An account that gives back what it holds when it is dropped.
    pub fn account(&self) -> Account {
        Account { memory: self.clone(), of_members: false, bytes: 0 }
    }

    /// One for a group and its members.
    pub fn members_account(&self) -> Account {
        Account { memory: self.clone(), of_members: true, bytes: 0 }
    }
}

/// One owner's part of [`GroupMemory`].
#[derive(Debug)]
pub struct Account {
    memory: GroupMemory,
    of_members: bool,
    bytes: usize,
}

impl Account {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.count(|used| used + bytes);
    }

    pub fn sub(&mut self, bytes: usize) {
        self.bytes = self.bytes.checked_sub(bytes).expect("an account gives back what it took");
        self.count(|used| used - bytes);
    }

    fn count(&self, change: impl Fn(usize) -> usize) {
        let GroupMemory { used, used_by_members, .. } = &self.memory;
        used.set(change(used.get()));
        if self.of_members {
            used_by_members.set(change(used_by_members.get()));
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.count(|used| used - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_account_gives_its_bytes_back() {
        let memory = GroupMemory::new(100);
        let mut a = memory.account();
        let mut b = memory.account();
        a.add(60);
        b.add(40);
        assert!(!memory.has_room(1));
        a.sub(10);
        assert!(memory.has_room(10));
        drop(a);
        assert_eq!(memory.used(), 40);
    }

    #[test]
    fn offsets_leave_members_their_part_and_members_have_it_whatever_offsets_take() {
        let memory = GroupMemory::new(100);
        let (mut offsets, mut members) = (memory.account(), memory.members_account());
        assert!(memory.has_room_for_offsets(75) && !memory.has_room_for_offsets(76));
        members.add(20);
        assert!(memory.has_room_for_offsets(75) && !memory.has_room_for_offsets(76));
        members.add(20);
        assert!(memory.has_room_for_offsets(60) && !memory.has_room_for_offsets(61));
        assert!(memory.has_room_for_members(60) && !memory.has_room_for_members(61));
        members.sub(20);
        // They were taken when there was more.
        offsets.add(200);
        assert!(!memory.has_room_for_offsets(1));
        assert!(memory.has_room_for_members(5) && !memory.has_room_for_members(6));
    }
}
