//! What the driver sends: from memory where it is there, else read and sent later.

use std::collections::HashMap;
use std::rc::Rc;

use corelog_raft::{Entry, GroupId, RaftIndex};
use corelog_storage::Log;

use crate::Replica;
use crate::entries::from_log;

pub struct Memory<'a> {
    replicas: &'a HashMap<GroupId, Rc<Replica>>,
    /// Each once, though several followers may be where it begins.
    pub reads: Vec<ColdRead>,
}

/// Entries to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdRead {
    pub group: GroupId,
    pub from: RaftIndex,
    to: RaftIndex,
    bytes_max: usize,
}

impl<'a> Memory<'a> {
    pub fn new(replicas: &'a HashMap<GroupId, Rc<Replica>>) -> Memory<'a> {
        Memory { replicas, reads: Vec::new() }
    }
}

impl corelog_raft::Logs for Memory<'_> {
    fn entries(
        &mut self,
        group: GroupId,
        from: RaftIndex,
        to: RaftIndex,
        max_bytes: u64,
    ) -> Option<Vec<Entry>> {
        let Some(replica) = self.replicas.get(&group) else { return Some(Vec::new()) };
        let bytes_max = max_bytes as usize;
        let found = replica.log.entries_in_memory(in_log(from), in_log(to), bytes_max);
        if let Some(found) = found {
            return Some(found.iter().map_while(from_log).collect());
        }
        let read = ColdRead { group, from, to, bytes_max };
        if !self.reads.iter().any(|other| (other.group, other.from) == (group, from)) {
            self.reads.push(read);
        }
        None
    }
}

impl ColdRead {
    /// None where they can't be read, or are gone: the follower is asked anew what it has.
    pub async fn entries(&self, log: &Log) -> Vec<Entry> {
        match log.entries(in_log(self.from), in_log(self.to), self.bytes_max).await {
            Ok(found) => found.iter().map_while(from_log).collect(),
            Err(error) => {
                tracing::debug!(log = %log.id(), %error, from = %self.from, "entries for a follower can't be read");
                Vec::new()
            }
        }
    }
}

fn in_log(index: RaftIndex) -> corelog_storage::RaftIndex {
    corelog_storage::RaftIndex(index.0)
}
