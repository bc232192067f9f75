//! The groups of one partition, at work on their core.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use corelog_io::sync::{Permit, Semaphore};
use corelog_wire::{ErrorCode, Str, Uuid};
use tracing::debug;

use super::classic::GroupState;
use super::config::GroupConfig;
use super::machine::Groups;
use super::memory::GroupMemory;
use super::observe::{Cursor, GroupRow};
use super::request::{GroupRequest, GroupResponse, RequestContext};
use super::topics::TopicIds;
use crate::coordinator::{CoordinatorLog, CoordinatorPartition, CoordinatorSettings, StateMachine};
use crate::logging::sparing::Sparing;

/// What the coordinators of a shard share.
#[derive(Clone)]
pub struct GroupSettings {
    pub config: GroupConfig,
    pub memory: GroupMemory,
    pub topics: TopicIds,
    /// Lines about what clients do.
    pub lines: Rc<Sparing>,
    /// The most bytes of one record batch that a coordinator appends: `max.message.bytes` of `__consumer_offsets`.
    pub append_bytes_max: Rc<Cell<usize>>,
    /// Bytes of OffsetCommit requests that wait for the log.
    pub commit_room: Semaphore,
    /// Bytes of those that wait for room. Further ones are refused.
    pub commit_line: Semaphore,
}

/// The coordinator of one partition of `__consumer_offsets`.
pub struct GroupPartition<L: CoordinatorLog> {
    partition: CoordinatorPartition<Groups, L>,
    settings: GroupSettings,
}

impl<L: CoordinatorLog> GroupPartition<L> {
    pub fn start(partition: i32, log: L, settings: GroupSettings) -> GroupPartition<L> {
        let GroupSettings { config, memory, topics, lines, append_bytes_max, .. } = settings.clone();
        let of_machine = lines.clone();
        let machine = Box::new(move || {
            // Who knows a member's id may leave, or go on, in its name.
            let random = Box::new(|| u64::from_ne_bytes(corelog_io::random_secret()));
            Groups::new(config.clone(), memory.clone(), topics.clone(), of_machine.clone(), random)
        });
        let frame = CoordinatorSettings { machine, append_bytes_max, lines };
        GroupPartition { partition: CoordinatorPartition::start(partition, log, frame), settings }
    }

    /// Answers a request. JoinGroup and SyncGroup may take as long as the group's timeouts allow. A dropped future
    /// does not take its request back.
    pub async fn handle(&self, context: &RequestContext, request: GroupRequest) -> GroupResponse {
        if let Err(why) = self.partition.ready().await {
            return Groups::refuse(request, context, why);
        }
        match self.room_for(&request).await {
            Ok(room) => self.partition.ask(context, request, room).await,
            Err(error) => request.refuse(context.api_version, error),
        }
    }

    /// Room for a commit among those that wait for the log. Other requests write little, or what they replace.
    async fn room_for(&self, request: &GroupRequest) -> Result<Option<Permit>, ErrorCode> {
        let GroupRequest::OffsetCommit(request) = request else { return Ok(None) };
        let partition_bytes = |metadata: Option<&Str>| 256 + metadata.map_or(0, |metadata| metadata.len());
        let bytes: usize = request
            .topics
            .iter()
            .map(|topic| {
                let partitions = topic.partitions.iter();
                partitions
                    .map(|p| topic.name.len() + partition_bytes(p.committed_metadata.as_ref()))
                    .sum::<usize>()
            })
            .sum();
        let GroupSettings { commit_room, commit_line, .. } = &self.settings;
        if let Some(room) = commit_room.try_acquire(bytes as u64) {
            return Ok(Some(room));
        }
        let Some(_in_line) = commit_line.try_acquire(bytes as u64) else {
            debug!(
                limit = commit_line.total(),
                "commit refused: the log is slow, and as many bytes of commits wait for it as may"
            );
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        };
        Ok(Some(commit_room.acquire(bytes as u64).await))
    }

    /// Removes what groups have committed for topics that were deleted.
    pub fn topics_deleted(&self, topics: &[(Str, Uuid)]) {
        self.partition.act(|groups| groups.topics_deleted(topics));
    }

    /// See [`CoordinatorPartition::leader_epoch`].
    pub fn leader_epoch(&self) -> i32 {
        self.partition.leader_epoch()
    }

    /// Whether its log cannot be loaded.
    pub fn has_failed(&self) -> bool {
        self.partition.has_failed()
    }

    /// The log has been mended: it is loaded now, if it was to be tried again later.
    pub fn load_again(&self) {
        self.partition.load_again();
    }

    /// Tells of groups from `from` on: see [`Groups::observe`]. Of groups that are being loaded it does not.
    pub fn observe(&self, from: Cursor, rows: &mut Vec<GroupRow>, room: &mut usize) -> Option<Cursor> {
        match self.partition.is_serving() {
            true => self.partition.look(|groups| groups.observe(from, rows, room)),
            false => None,
        }
    }

    /// How many groups there are in each state.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        self.partition.look(Groups::groups_by_state)
    }

    /// See [`CoordinatorPartition::close`].
    pub fn close(&self) {
        self.partition.close();
    }
}
