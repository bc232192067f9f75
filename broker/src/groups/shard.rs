//! The group coordinators of one shard.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use corelog_io::sync::Semaphore;
use corelog_wire::{ErrorCode, Str, Uuid};

use super::classic::GroupState;
use super::config::GroupConfig;
use super::memory::GroupMemory;
use super::observe::{Cursor, GroupRow};
use super::request::{GroupRequest, GroupResponse, RequestContext};
use super::serve::{GroupPartition, GroupSettings};
use super::topics::TopicIds;
use crate::coordinator::CoordinatorLog;
use crate::logging::sparing::Sparing;

/// Bytes of OffsetCommit requests of one shard that may wait for the log, and as many again that may wait for room.
const COMMIT_ROOM_BYTES: u64 = 16 << 20;
/// Groups and offsets that are told of at once: some fifty microseconds.
const ROWS_A_TURN: usize = 512;
/// Kafka's default for `max.message.bytes`.
const APPEND_BYTES_MAX: usize = 1_048_588;

/// Every partition of `__consumer_offsets` that this shard leads, each with its coordinator.
pub struct GroupShard<L: CoordinatorLog> {
    settings: GroupSettings,
    partitions: RefCell<BTreeMap<i32, Rc<GroupPartition<L>>>>,
}

impl<L: CoordinatorLog> GroupShard<L> {
    /// `memory_bytes_max`: what all groups of the shard may hold together; `lines`: what is logged of clients.
    pub fn new(
        config: GroupConfig,
        memory_bytes_max: usize,
        topics: TopicIds,
        lines: Rc<Sparing>,
    ) -> GroupShard<L> {
        let settings = GroupSettings {
            config,
            memory: GroupMemory::new(memory_bytes_max),
            topics,
            lines,
            append_bytes_max: Rc::new(Cell::new(APPEND_BYTES_MAX)),
            commit_room: Semaphore::new(COMMIT_ROOM_BYTES),
            commit_line: Semaphore::new(COMMIT_ROOM_BYTES),
        };
        GroupShard { settings, partitions: RefCell::default() }
    }

    /// Answers a request for groups of this partition. If the partition is not at work yet, it is started on the log
    /// that `open` gives; none says that this shard does not lead it: NOT_COORDINATOR.
    pub async fn ask(
        &self,
        partition: i32,
        context: &RequestContext,
        request: GroupRequest,
        open: impl FnOnce() -> Option<L>,
    ) -> GroupResponse {
        match self.start(partition, open) {
            Some(at_work) => at_work.handle(context, request).await,
            None => request.refuse(context.api_version, ErrorCode::NOT_COORDINATOR),
        }
    }

    /// The partition, started if it is not at work yet. To be called for each partition when the broker starts, so that
    /// sessions and retention go on without anyone asking.
    pub fn start(&self, partition: i32, open: impl FnOnce() -> Option<L>) -> Option<Rc<GroupPartition<L>>> {
        if let Some(at_work) = self.partitions.borrow().get(&partition) {
            return Some(Rc::clone(at_work));
        }
        let started = Rc::new(GroupPartition::start(partition, open()?, self.settings.clone()));
        self.partitions.borrow_mut().insert(partition, Rc::clone(&started));
        Some(started)
    }

    /// How the partition is led by now: by this shard with `log`, or not. Another epoch is another start, from the log:
    /// others may have led in between, and appended.
    pub fn follow(&self, partition: i32, log: Option<L>) {
        let at_work = self.partitions.borrow().get(&partition).map(|at_work| at_work.leader_epoch());
        if at_work != log.as_ref().map(CoordinatorLog::leader_epoch) {
            self.stop(partition);
        }
        if let Some(log) = log {
            self.start(partition, || Some(log));
        }
    }

    /// Batches of all coordinators have at most so many bytes from now on: `max.message.bytes` of `__consumer_offsets`.
    pub fn set_append_bytes_max(&self, bytes: usize) {
        self.settings.append_bytes_max.set(bytes);
    }

    /// Whether the partition is at work and cannot load its log.
    pub fn has_failed(&self, partition: i32) -> bool {
        self.partitions.borrow().get(&partition).is_some_and(|at_work| at_work.has_failed())
    }

    /// The partition's log has been mended.
    pub fn load_again(&self, partition: i32) {
        if let Some(at_work) = self.partitions.borrow().get(&partition) {
            at_work.load_again();
        }
    }

    fn stop(&self, partition: i32) {
        let stopped = self.partitions.borrow_mut().remove(&partition);
        if let Some(stopped) = stopped {
            stopped.close();
        }
    }

    /// Stops them all: for shutdown, and when `__consumer_offsets` itself is deleted.
    pub fn stop_all(&self) {
        let all = self.partitions.take();
        for partition in all.values() {
            partition.close();
        }
    }

    /// Removes what groups here have committed for topics that were deleted.
    pub fn topics_deleted(&self, topics: &[(Str, Uuid)]) {
        for partition in self.partitions.borrow().values() {
            partition.topics_deleted(topics);
        }
    }

    /// Some of the groups here, and where to go on, `None` at the end. What there is of groups and offsets is told a few
    /// hundred at a time.
    pub fn observe(&self, from: Option<Cursor>) -> (Vec<GroupRow>, Option<Cursor>) {
        corelog_io::worked(ROWS_A_TURN * size_of::<GroupRow>());
        let (mut rows, mut room) = (Vec::new(), ROWS_A_TURN);
        let mut from = from.unwrap_or(Cursor::partition(i32::MIN));
        for (index, partition) in self.partitions.borrow().range(from.partition..) {
            if room == 0 {
                return (rows, Some(Cursor::partition(*index)));
            }
            let begin = match from.partition == *index {
                true => std::mem::replace(&mut from, Cursor::partition(i32::MIN)),
                false => Cursor::partition(*index),
            };
            if let Some(next) = partition.observe(begin, &mut rows, &mut room) {
                return (rows, Some(next));
            }
        }
        (rows, None)
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

    /// Commits that wait for the log to take those before them.
    pub fn commits_waiting(&self) -> usize {
        self.settings.commit_room.waiting()
    }

    /// Bytes that the groups here hold, and may hold.
    pub fn memory(&self) -> &GroupMemory {
        &self.settings.memory
    }
}
