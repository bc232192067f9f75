//! What the groups of a shard hold in memory, and the bound on it.

use std::cell::Cell;
use std::rc::Rc;

/// This part of the memory is kept for groups that are there: members that come back, assignments, offsets. New groups
/// are taken while there is more.
const KEPT_PART: usize = 8;
/// The members of one group may hold this part of the memory: no group takes the room of all others.
const GROUP_PART: usize = 2;

/// The memory of all groups of one shard: an estimate, counted up and down as groups, members, offsets and writes on
/// their way come and go. Whatever can grow asks first. When it is used up, what would take more is refused, and what
/// takes no more than before goes on: heartbeats, members that come back as they were, commits of known offsets.
#[derive(Clone, Debug)]
pub struct GroupMemory {
    used: Rc<Cell<usize>>,
    limit: usize,
}

impl GroupMemory {
    /// `limit` in bytes.
    pub fn new(limit: usize) -> GroupMemory {
        GroupMemory { used: Rc::new(Cell::new(0)), limit }
    }

    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    pub fn has_room(&self, bytes: usize) -> bool {
        self.used.get().saturating_add(bytes) <= self.limit
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
        Account { memory: self.clone(), bytes: 0 }
    }
}

/// One owner's part of [`GroupMemory`].
#[derive(Debug)]
pub struct Account {
    memory: GroupMemory,
    bytes: usize,
}

impl Account {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.memory.used.set(self.memory.used.get() + bytes);
    }

    pub fn sub(&mut self, bytes: usize) {
        self.bytes = self.bytes.checked_sub(bytes).expect("an account gives back what it took");
        self.memory.used.set(self.memory.used.get() - bytes);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.memory.used.set(self.memory.used.get() - self.bytes);
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
}
