//! Runs one coordinator on its core: requests in, records to the log, deadlines kept.
//!
//! Life: [`GroupPartition::start`] loads the log and serves; should a write be lost (it is not known whether the log
//! has it), whatever waits is refused and the log is loaded anew; [`GroupPartition::close`] ends it.
//!
//! Three tasks run for it: one appends what the coordinator wants written, one waits for what was appended and owns the
//! life cycle, one keeps the deadlines. A request costs no task: it is put to the state machine where it arrives, and
//! waits for its answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sync::{
    Event, Notify, OneshotSender, Permit, QueueReceiver, QueueSender, Semaphore, bounded, oneshot,
};
use corelog_io::{Queue, Task, spawn, timeout};
use corelog_wire::records::{split_batches, with_scratch};
use corelog_wire::{ErrorCode, Str, Uuid};
use tracing::{debug, error, info, warn};

use super::config::GroupConfig;
use super::coordinator::GroupCoordinator;
use super::effect::{Effect, WriteFailure, WriteId};
use super::env::Now;
use super::group::GroupState;
use super::group_log::{GroupLog, LogRead, WriteLost};
use super::memory::GroupMemory;
use super::observe::{GroupRow, Place};
use super::parked::Ticket;
use super::request::{GroupRequest, GroupResponse, RequestContext};
use super::topics::TopicIds;
use super::write_queue::{NextAppend, WriteQueue};
use crate::logging::sparing::Sparing;

/// How long a request waits for a coordinator that is loading before it is told so. A new, empty log is loaded within
/// a millisecond: its first clients need not know.
const LOADING_WAIT: Duration = Duration::from_millis(200);
/// Appends whose durability is awaited at the same time.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Bytes read at a time when loading.
const LOAD_BYTES: usize = 1 << 20;
/// The most bytes that one batch may decompress to when loading. Our own are not compressed.
const BATCH_PLAIN_BYTES_MAX: usize = 64 << 20;
/// Between a lost write and the next attempt to load.
const RELOAD_AFTER: Duration = Duration::from_secs(1);
/// Between a log that cannot be loaded and the next attempt, unless it is known to be mended.
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Loading yields the core after this many records.
const RECORDS_A_TURN: usize = 1_000;

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

/// The coordinator of one partition of `__consumer_offsets`, at work.
pub struct GroupPartition<L: GroupLog> {
    shared: Rc<Shared<L>>,
    tasks: RefCell<Vec<Task<()>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Loading,
    Serving,
    /// The log can't be read.
    Failed,
    Closed,
}

struct Shared<L> {
    partition: i32,
    settings: GroupSettings,
    log: L,
    phase: Cell<Phase>,
    phase_changed: Event,
    /// Never borrowed across an await.
    state: RefCell<State>,
    write_queued: Notify,
    /// A log that could not be loaded may be by now.
    load_again: Notify,
    /// The earliest deadline has become earlier.
    deadline_moved: Notify,
    /// What the clock sleeps towards, in milliseconds of the monotonic clock.
    clock_due: Cell<Option<u64>>,
}

struct State {
    coordinator: GroupCoordinator,
    waiting: BTreeMap<Ticket, Waiting>,
    next_ticket: u64,
    writes: WriteQueue,
}

/// A request that was handed to the coordinator.
struct Waiting {
    answer: OneshotSender<GroupResponse>,
    /// A commit's, until it is answered, whether or not anybody waits for the answer.
    _room: Option<Permit>,
}

/// Batches whose order is fixed, or the refusal of the log.
struct InFlight<D> {
    ids: Vec<WriteId>,
    outcome: Result<Vec<D>, WriteFailure>,
    /// An earlier batch of the same write is in the log, this one is not.
    torn: bool,
}

impl<L: GroupLog> GroupPartition<L> {
    /// Starts to load the log. Requests that come before it has been loaded wait a little, and are then told to come
    /// again.
    pub fn start(partition: i32, log: L, settings: GroupSettings) -> GroupPartition<L> {
        let state = State {
            coordinator: new_coordinator(&settings),
            waiting: BTreeMap::new(),
            next_ticket: 0,
            writes: WriteQueue::default(),
        };
        let shared = Rc::new(Shared {
            partition,
            settings,
            log,
            phase: Cell::new(Phase::Loading),
            phase_changed: Event::new(),
            state: RefCell::new(state),
            write_queued: Notify::new(),
            load_again: Notify::new(),
            deadline_moved: Notify::new(),
            clock_due: Cell::new(None),
        });
        let tasks = vec![
            spawn(Queue::Control, Rc::clone(&shared).live()),
            spawn(Queue::Control, Rc::clone(&shared).keep_deadlines()),
        ];
        GroupPartition { shared, tasks: RefCell::new(tasks) }
    }

    /// Answers a request. JoinGroup and SyncGroup may take as long as the group's timeouts allow. A dropped future
    /// does not take its request back.
    pub async fn handle(&self, context: &RequestContext, request: GroupRequest) -> GroupResponse {
        let shared = &self.shared;
        shared.loaded().await;
        let refusal = match shared.phase.get() {
            Phase::Serving => None,
            // Which groups it has is not known. Those of other partitions are, and this one's error is in the log.
            Phase::Failed if matches!(request, GroupRequest::List(_)) => {
                return GroupResponse::List(Default::default());
            }
            Phase::Loading => Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Phase::Failed => Some(ErrorCode::COORDINATOR_NOT_AVAILABLE),
            Phase::Closed => Some(ErrorCode::NOT_COORDINATOR),
        };
        if let Some(error) = refusal {
            return request.refuse(context.api_version, error);
        }
        let room = match shared.room_for(&request).await {
            Ok(room) => room,
            Err(error) => return request.refuse(context.api_version, error),
        };
        let (answer, receiver) = oneshot();
        shared.with_state(|state, now| {
            let ticket = Ticket(state.next_ticket);
            state.next_ticket += 1;
            state.waiting.insert(ticket, Waiting { answer, _room: room });
            state.coordinator.handle(ticket, context, request, now);
        });
        receiver.await.expect("every request is answered, at the latest when its coordinator resigns")
    }

    /// Removes what groups have committed for topics that were deleted.
    pub fn topics_deleted(&self, topics: &[(Str, Uuid)]) {
        if self.shared.phase.get() == Phase::Serving {
            self.shared.with_state(|state, now| state.coordinator.topics_deleted(topics, now));
        }
    }

    /// Whether its log cannot be loaded.
    pub fn has_failed(&self) -> bool {
        self.shared.phase.get() == Phase::Failed
    }

    /// The log has been mended: it is loaded now, if it was to be tried again later.
    pub fn load_again(&self) {
        self.shared.load_again.notify_one();
    }

    pub fn is_loading(&self) -> bool {
        self.shared.phase.get() == Phase::Loading
    }

    /// Tells of groups from `from` on: see [`GroupCoordinator::observe`]. Of groups that are being loaded it does not.
    pub fn observe(&self, from: Place, rows: &mut Vec<GroupRow>, room: &mut usize) -> Option<Place> {
        match self.shared.phase.get() {
            Phase::Serving => self.shared.state.borrow().coordinator.observe(from, rows, room),
            Phase::Loading | Phase::Failed | Phase::Closed => None,
        }
    }

    /// How many groups there are in each state.
    pub fn groups_by_state(&self) -> BTreeMap<GroupState, usize> {
        self.shared.state.borrow().coordinator.groups_by_state()
    }

    /// Ends the work: whatever waits is told to look for the coordinator elsewhere. Writes that the log has taken are
    /// in the log.
    pub fn close(&self) {
        self.shared.enter(Phase::Closed);
        self.tasks.borrow_mut().clear();
        self.shared.resign();
    }
}

impl<L: GroupLog> Drop for GroupPartition<L> {
    fn drop(&mut self) {
        self.close();
    }
}

fn new_coordinator(settings: &GroupSettings) -> GroupCoordinator {
    GroupCoordinator::new(
        settings.config.clone(),
        settings.memory.clone(),
        settings.topics.clone(),
        settings.lines.clone(),
        Box::new(corelog_io::random_u64),
    )
}

fn now() -> Now {
    Now { mono_ms: corelog_io::now().as_nanos() / 1_000_000, wall_ms: corelog_io::wall_clock_ms() }
}

impl<L: GroupLog> Shared<L> {
    // ---- life

    /// Loads, serves, and begins anew when a write is lost.
    async fn live(self: Rc<Self>) {
        let mut told = String::new();
        loop {
            if let Err(what) = self.load().await {
                if told != what {
                    error!(
                        partition = self.partition,
                        error = what,
                        "group coordinator is not available: its log cannot be loaded. Its groups are refused, those of \
                         other partitions are served. Restore the partition of __consumer_offsets from a copy; or, to give \
                         up the groups and offsets that were stored before the damage, delete its records up to behind the \
                         offset named here (DeleteRecords, which __consumer_offsets takes as long as this is so, but for a \
                         log that was refused at the start). It is loaded again then, without a restart"
                    );
                    told = what;
                }
                self.enter(Phase::Failed);
                // What was read of it is let go.
                self.resign();
                let _mended = timeout(LOAD_AGAIN_AFTER, self.load_again.notified()).await;
                continue;
            }
            told.clear();
            self.enter(Phase::Serving);
            self.deadline_moved.notify_one();
            let (sender, receiver) = bounded(APPENDS_IN_FLIGHT_MAX);
            let writer = spawn(Queue::Control, Rc::clone(&self).write(sender));
            let lost = self.settle(receiver).await;
            drop(writer);
            warn!(partition = self.partition, error = %lost, "group coordinator begins anew: a write was lost");
            self.enter(Phase::Loading);
            self.resign();
            corelog_io::sleep(RELOAD_AFTER).await;
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.phase_changed.notify_all();
    }

    /// Waits while the coordinator is loading, for a little while.
    async fn loaded(&self) {
        if self.phase.get() != Phase::Loading {
            return;
        }
        let leave_loading = async {
            loop {
                let changed = self.phase_changed.listen();
                if self.phase.get() != Phase::Loading {
                    return;
                }
                changed.await;
            }
        };
        // Whoever waits in vain finds the phase as it is.
        let _waited = timeout(LOADING_WAIT, leave_loading).await;
    }

    /// Replays the log into the coordinator, and opens it.
    async fn load(&self) -> Result<(), String> {
        let mut offset = self.log.start_offset();
        let mut records = 0;
        loop {
            let LogRead { batches, next_offset } = self
                .log
                .read(offset, LOAD_BYTES)
                .await
                .map_err(|failed| format!("at offset {offset}: {failed}"))?;
            if batches.is_empty() {
                break;
            }
            records += self.replay(&batches, offset).await?;
            offset = next_offset;
        }
        self.with_state(|state, now| state.coordinator.loaded(now));
        // There are dozens of coordinators, and most have nothing yet.
        if records > 0 {
            let groups = self.state.borrow().coordinator.group_count();
            info!(partition = self.partition, records, end = offset, groups, "group coordinator is loaded");
        }
        Ok(())
    }

    /// Replays the records of the batches from `from` on. Gives their number.
    async fn replay(&self, batches: &Bytes, from: i64) -> Result<usize, String> {
        let mut count = 0;
        for batch in split_batches(batches) {
            let batch = batch.map_err(|error| error.to_string())?;
            let base = batch.header().base_offset;
            let at = |error: &dyn std::fmt::Display| format!("batch at offset {base}: {error}");
            corelog_io::worked(batch.bytes().len());
            batch.verify_checksum().map_err(|error| at(&error))?;
            if batch.header().is_control() || batch.header().is_internal() {
                continue;
            }
            let records = with_scratch(|scratch| {
                let records = batch.records(scratch, BATCH_PLAIN_BYTES_MAX).map_err(|error| at(&error))?;
                let mut owned = Vec::new();
                for record in records {
                    let record = record.map_err(|error| at(&error))?;
                    if base + i64::from(record.offset_delta) >= from
                        && let Some(key) = record.key
                    {
                        owned.push((Bytes::copy_from_slice(key), record.value.map(Bytes::copy_from_slice)));
                    }
                }
                Ok::<_, String>(owned)
            })?;
            for turn in records.chunks(RECORDS_A_TURN) {
                {
                    let (mut state, now) = (self.state.borrow_mut(), now());
                    for (key, value) in turn {
                        state
                            .coordinator
                            .replay(key.clone(), value.clone(), now)
                            .map_err(|error| at(&error))?;
                    }
                }
                count += turn.len();
                corelog_io::yield_if_needed().await;
            }
        }
        Ok(count)
    }

    /// Refuses whatever waits, and puts a coordinator that is loading in the place of this one.
    fn resign(&self) {
        let effects = {
            let mut state = self.state.borrow_mut();
            state.writes = WriteQueue::default();
            std::mem::replace(&mut state.coordinator, new_coordinator(&self.settings)).resign()
        };
        self.apply(effects);
    }

    // ---- requests and effects

    /// Does something with the state machine, and then what it wants done.
    fn with_state(&self, change: impl FnOnce(&mut State, Now)) {
        let effects = {
            let mut state = self.state.borrow_mut();
            change(&mut state, now());
            state.coordinator.take_effects()
        };
        self.apply(effects);
        let next = self.state.borrow().coordinator.next_deadline();
        if let Some(next) = next
            && self.clock_due.get().is_none_or(|due| next < due)
        {
            self.deadline_moved.notify_one();
        }
    }

    fn apply(&self, effects: Vec<Effect>) {
        let mut state = self.state.borrow_mut();
        for effect in effects {
            match effect {
                Effect::Append { id, records, timestamp_ms } => {
                    state.writes.push(id, records, timestamp_ms);
                    self.write_queued.notify_one();
                }
                Effect::Respond { ticket, response } => {
                    if let Some(waiting) = state.waiting.remove(&ticket) {
                        // Nobody is there any more when the connection is gone.
                        let _gone = waiting.answer.send(response);
                    }
                }
            }
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

    // ---- the log

    /// Appends what is queued, in its order.
    async fn write(self: Rc<Self>, in_flight: QueueSender<InFlight<L::Durable>>) {
        loop {
            let next = self.state.borrow_mut().writes.next_append(self.settings.append_bytes_max.get());
            let Some(NextAppend { ids, batches }) = next else {
                self.write_queued.notified().await;
                continue;
            };
            let (outcome, torn) = self.append(batches).await;
            if in_flight.send(InFlight { ids, outcome, torn }).await.is_err() {
                return;
            }
        }
    }

    async fn append(
        &self,
        batches: Result<Vec<Bytes>, WriteFailure>,
    ) -> (Result<Vec<L::Durable>, WriteFailure>, bool) {
        let batches = match batches {
            Ok(batches) => batches,
            Err(failure) => {
                if let Some(left_out) = self.settings.lines.turn("large group record", 0, corelog_io::now()) {
                    warn!(
                        partition = self.partition,
                        left_out,
                        limit = self.settings.append_bytes_max.get(),
                        ?failure,
                        "a group's record is larger than a batch of __consumer_offsets may be: raise max.message.bytes of that \
                     topic, or message.max.bytes of the broker"
                    );
                }
                return (Err(failure), false);
            }
        };
        let mut appended = Vec::with_capacity(batches.len());
        for batch in batches {
            match self.log.append(batch).await {
                Ok(durable) => appended.push(durable),
                Err(failure) => return (Err(failure), !appended.is_empty()),
            }
        }
        (Ok(appended), false)
    }

    /// Waits for what was appended, in its order, and reports on it. Ends when a write is lost.
    async fn settle(&self, mut in_flight: QueueReceiver<InFlight<L::Durable>>) -> WriteLost {
        while let Some(InFlight { ids, outcome, torn }) = in_flight.recv().await {
            if torn {
                return WriteLost("only a part of it is in the log".to_owned());
            }
            let result = match outcome {
                Ok(appended) => {
                    for durable in appended {
                        if let Err(lost) = durable.await {
                            return lost;
                        }
                    }
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            self.with_state(|state, now| {
                for id in ids {
                    state.coordinator.written(id, result, now);
                }
            });
        }
        WriteLost("its task has ended".to_owned())
    }

    // ---- time

    async fn keep_deadlines(self: Rc<Self>) {
        loop {
            let next = self.state.borrow().coordinator.next_deadline();
            self.clock_due.set(next);
            match next {
                None => self.deadline_moved.notified().await,
                Some(at) => {
                    let wait = Duration::from_millis(at.saturating_sub(now().mono_ms));
                    if !wait.is_zero() && timeout(wait, self.deadline_moved.notified()).await.is_ok() {
                        continue;
                    }
                    self.with_state(|state, now| state.coordinator.expire(now));
                }
            }
        }
    }
}
