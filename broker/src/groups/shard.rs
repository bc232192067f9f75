//! The group coordinators of one shard.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corelog_io::sync::Semaphore;
use corelog_wire::messages::list_groups_request::ListGroupsRequest;
use corelog_wire::messages::list_groups_response::ListGroupsResponse;
use corelog_wire::{ErrorCode, Str};

use super::config::GroupConfig;
use super::driver::{GroupPartition, GroupSettings};
use super::group::GroupState;
use super::group_log::GroupLog;
use super::memory::GroupMemory;
use super::request::{GroupRequest, GroupResponse, RequestContext};

/// Bytes of OffsetCommit requests of one shard that may wait for the log.
const COMMIT_ROOM_BYTES: u64 = 16 << 20;

/// Every partition of `__consumer_offsets` that this shard leads, each with its coordinator.
pub struct GroupShard<L: GroupLog> {
    settings: GroupSettings,
    partitions: RefCell<BTreeMap<i32, Rc<GroupPartition<L>>>>,
}

impl<L: GroupLog> GroupShard<L> {
    /// `memory_bytes_max`: what all groups of the shard may hold together.
    pub fn new(config: GroupConfig, memory_bytes_max: usize) -> GroupShard<L> {
        let settings = GroupSettings {
            config,
            memory: GroupMemory::new(memory_bytes_max),
            commit_room: Semaphore::new(COMMIT_ROOM_BYTES),
        };
        GroupShard { settings, partitions: RefCell::default() }
    }

    /// This shard leads the partition from now on. A second call for a partition that is at work does nothing.
    pub fn start(&self, partition: i32, log: impl FnOnce() -> L) {
        let mut partitions = self.partitions.borrow_mut();
        partitions
            .entry(partition)
            .or_insert_with(|| Rc::new(GroupPartition::start(partition, log(), self.settings.clone())));
    }

    /// This shard does not lead the partition any more.
    pub fn stop(&self, partition: i32) {
        let stopped = self.partitions.borrow_mut().remove(&partition);
        if let Some(stopped) = stopped {
            stopped.close();
        }
    }

    /// Stops them all, for shutdown.
    pub fn close(&self) {
        let all = self.partitions.take();
        for partition in all.values() {
            partition.close();
        }
    }

    /// Answers a request for groups of this partition; NOT_COORDINATOR if it is not here.
    pub async fn handle(
        &self,
        partition: i32,
        context: &RequestContext,
        request: GroupRequest,
    ) -> GroupResponse {
        let found = self.partitions.borrow().get(&partition).cloned();
        match found {
            Some(found) => found.handle(context, request).await,
            None => request.refuse(context.api_version, ErrorCode::NOT_COORDINATOR),
        }
    }

    /// The groups of all partitions here. An error of any partition is the error of the whole.
    pub async fn list(&self, context: &RequestContext, request: &ListGroupsRequest) -> ListGroupsResponse {
        let partitions: Vec<_> = self.partitions.borrow().values().cloned().collect();
        let mut all = ListGroupsResponse::default();
        for partition in partitions {
            let GroupResponse::List(part) =
                partition.handle(context, GroupRequest::List(request.clone())).await
            else {
                continue;
            };
            // A partition that has just been handed on is listed where it is now.
            if part.error_code != 0 && ErrorCode(part.error_code) != ErrorCode::NOT_COORDINATOR {
                return part;
            }
            all.groups.extend(part.groups);
        }
        all
    }

    /// Removes what groups here have committed for topics that were deleted.
    pub fn topics_deleted(&self, topics: &[Str]) {
        for partition in self.partitions.borrow().values() {
            partition.topics_deleted(topics);
        }
    }

    /// How many groups there are in each state, for metrics.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        let mut counts = BTreeMap::new();
        for partition in self.partitions.borrow().values() {
            for (state, count) in partition.groups_by_state() {
                *counts.entry(state).or_default() += count;
            }
        }
        counts
    }

    /// Bytes that the groups here hold, and may hold.
    pub fn memory(&self) -> &GroupMemory {
        &self.settings.memory
    }
}
