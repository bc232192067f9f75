//! Runs one coordinator on its core: requests in, records to the log, deadlines kept.
//!
//! Life: [`CoordinatorPartition::start`] loads the log and serves; should a write be lost (it is not known whether the
//! log has it), whatever waits is refused and the log is loaded anew; [`CoordinatorPartition::close`] ends it.
//!
//! Three tasks run for it: one appends what the coordinator wants written, one waits for what was appended and owns the
//! life cycle, one keeps the deadlines. A request costs no task: it is put to the state machine where it arrives, and
//! waits for its answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sync::{Event, Notify, OneshotSender, Permit, QueueReceiver, QueueSender, bounded, oneshot};
use corelog_io::{Queue, Task, spawn, timeout};
use tracing::{error, warn};

use super::desk::{Effect, Now, Ticket, WriteId};
use super::frame::Coordinator;
use super::load;
use super::log::{CoordinatorLog, NotAppended, WriteLost};
use super::machine::{NotServing, StateMachine, WriteFailure};
use super::write_queue::{NextAppend, WriteQueue, fit};
use crate::logging::sparing::Sparing;

/// How long a request waits for a coordinator that is loading before it is told so. A new, empty log is loaded within
/// a millisecond: its first clients need not know.
const LOADING_WAIT: Duration = Duration::from_millis(200);
/// Appends whose durability is awaited at the same time.
const APPENDS_IN_FLIGHT_MAX: usize = 64;
/// Between a lost write and the next attempt to load.
const RELOAD_AFTER: Duration = Duration::from_secs(1);
/// Between a log that cannot be loaded and the next attempt, unless it is known to be mended.
const LOAD_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// What a coordinator is started with.
pub struct CoordinatorSettings<M> {
    /// Makes a state machine that knows nothing yet.
    pub machine: Box<dyn Fn() -> M>,
    /// The most bytes of one record batch that it appends: `max.message.bytes` of the internal topic.
    pub append_bytes_max: Rc<Cell<usize>>,
    /// Lines about what clients do.
    pub lines: Rc<Sparing>,
}

/// The coordinator of one partition of an internal topic, at work.
pub struct CoordinatorPartition<M: StateMachine, L: CoordinatorLog> {
    shared: Rc<Shared<M, L>>,
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

struct Shared<M: StateMachine, L> {
    partition: i32,
    settings: CoordinatorSettings<M>,
    log: L,
    phase: Cell<Phase>,
    phase_changed: Event,
    /// Never borrowed across an await.
    state: RefCell<State<M>>,
    write_queued: Notify,
    /// A log that could not be loaded may be by now.
    load_again: Notify,
    /// The earliest deadline has become earlier.
    deadline_moved: Notify,
    /// What the clock sleeps towards, in milliseconds of the monotonic clock.
    clock_due: Cell<Option<u64>>,
}

struct State<M: StateMachine> {
    coordinator: Coordinator<M>,
    waiting: BTreeMap<Ticket, Waiting<M::Answer>>,
    next_ticket: u64,
    writes: WriteQueue,
}

/// A request that was handed to the coordinator.
struct Waiting<A> {
    answer: OneshotSender<A>,
    /// Held until it is answered, whether or not anybody waits for the answer.
    _room: Option<Permit>,
}

/// Batches whose order is fixed.
struct InFlight<D> {
    ids: Vec<WriteId>,
    appended: Vec<D>,
}

impl<M: StateMachine, L: CoordinatorLog> CoordinatorPartition<M, L> {
    /// Starts to load the log. Requests that come before it has been loaded wait a little, and are then told to come
    /// again.
    pub fn start(partition: i32, log: L, settings: CoordinatorSettings<M>) -> CoordinatorPartition<M, L> {
        let state = State {
            coordinator: Coordinator::new((settings.machine)()),
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
        CoordinatorPartition { shared, tasks: RefCell::new(tasks) }
    }

    /// Waits a little for a coordinator that is loading, and says why requests are not taken if they are not.
    pub async fn ready(&self) -> Result<(), NotServing> {
        self.shared.loaded().await;
        self.shared.serving()
    }

    /// Answers a request, which may take as long as the machine makes it wait. `room` is given back with the answer. A
    /// dropped future does not take its request back.
    pub async fn ask(&self, context: &M::Context, request: M::Request, room: Option<Permit>) -> M::Answer {
        if let Err(why) = self.shared.serving() {
            return M::refuse(request, context, why);
        }
        let (answer, receiver) = oneshot();
        self.shared.step(|state, now| {
            let ticket = Ticket(state.next_ticket);
            state.next_ticket += 1;
            state.waiting.insert(ticket, Waiting { answer, _room: room });
            state.coordinator.handle(ticket, context, request, now);
        });
        receiver.await.expect("every request is answered, at the latest when its coordinator unloads")
    }

    /// Has the machine do something that nobody asked for, if it serves.
    pub fn act(&self, act: impl FnOnce(&mut M)) {
        if self.shared.phase.get() == Phase::Serving {
            self.shared.step(|state, now| state.coordinator.act(act, now));
        }
    }

    /// Looks at the machine as it is, also while it is loading.
    pub fn look<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        self.shared.look(look)
    }

    /// The epoch in which this broker leads the partition, as of the start.
    pub fn leader_epoch(&self) -> i32 {
        self.shared.log.leader_epoch()
    }

    pub fn is_serving(&self) -> bool {
        self.shared.phase.get() == Phase::Serving
    }

    /// Whether its log cannot be loaded.
    pub fn has_failed(&self) -> bool {
        self.shared.phase.get() == Phase::Failed
    }

    /// The log has been mended: it is loaded now, if it was to be tried again later.
    pub fn load_again(&self) {
        self.shared.load_again.notify_one();
    }

    /// Ends the work: whatever waits is told to look for the coordinator elsewhere. Writes that the log has taken are
    /// in the log.
    pub fn close(&self) {
        self.shared.enter(Phase::Closed);
        self.tasks.borrow_mut().clear();
        self.shared.unload();
    }
}

impl<M: StateMachine, L: CoordinatorLog> Drop for CoordinatorPartition<M, L> {
    fn drop(&mut self) {
        self.close();
    }
}

fn now() -> Now {
    Now { mono_ms: corelog_io::now().as_nanos() / 1_000_000, wall_ms: corelog_io::wall_clock_ms() }
}

impl<M: StateMachine, L: CoordinatorLog> Shared<M, L> {
    // ---- life

    /// Loads, serves, and begins anew when a write is lost. Ends when the log is led in another epoch.
    async fn live(self: Rc<Self>) {
        let mut told = String::new();
        loop {
            if let Err(what) = self.load().await {
                if told != what {
                    error!(partition = self.partition, error = what, "{}", M::LINES.damaged);
                    told = what;
                }
                self.enter(Phase::Failed);
                // What was read of it is let go.
                self.unload();
                let _mended = timeout(LOAD_AGAIN_AFTER, self.load_again.notified()).await;
                continue;
            }
            told.clear();
            self.enter(Phase::Serving);
            self.deadline_moved.notify_one();
            let (sender, receiver) = bounded(APPENDS_IN_FLIGHT_MAX);
            let writer = spawn(Queue::Control, Rc::clone(&self).write(sender));
            let ended = self.settle(receiver).await;
            drop(writer);
            let lost = match ended {
                Ended::Lost(lost) => lost,
                // Whoever follows the metadata will start another, if it is to be here.
                Ended::Fenced => {
                    self.enter(Phase::Closed);
                    return self.unload();
                }
            };
            warn!(partition = self.partition, error = %lost, "{}", M::LINES.begins_anew);
            self.enter(Phase::Loading);
            self.unload();
            corelog_io::sleep(RELOAD_AFTER).await;
        }
    }

    fn look<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.state.borrow().coordinator.machine)
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.phase_changed.notify_all();
    }

    fn serving(&self) -> Result<(), NotServing> {
        match self.phase.get() {
            Phase::Serving => Ok(()),
            Phase::Loading => Err(NotServing::Loading),
            Phase::Failed => Err(NotServing::Damaged),
            Phase::Closed => Err(NotServing::Elsewhere),
        }
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
        let loaded = load::replay_log(&self.log, |records| {
            let (mut state, now) = (self.state.borrow_mut(), now());
            let mut records = records.iter().cloned();
            records
                .try_for_each(|record| state.coordinator.replay(record, now))
                .map_err(|error| error.to_string())
        })
        .await?;
        loop {
            let mut awake = false;
            self.step(|state, now| awake = state.coordinator.wake(now));
            if awake {
                break;
            }
            corelog_io::yield_if_needed().await;
        }
        // There are dozens of coordinators, and most have nothing yet.
        if loaded.records > 0 {
            self.look(|machine| machine.tell_loaded(self.partition, loaded.records, loaded.end));
        }
        Ok(())
    }

    /// Refuses whatever waits, and puts a coordinator that is loading in the place of this one.
    fn unload(&self) {
        let mut state = self.state.borrow_mut();
        state.writes = WriteQueue::default();
        let new = Coordinator::new((self.settings.machine)());
        let effects = std::mem::replace(&mut state.coordinator, new).unload();
        self.apply(&mut state, effects, now());
    }

    // ---- requests and effects

    /// Does something with the coordinator, and then what it wants done.
    fn step(&self, change: impl FnOnce(&mut State<M>, Now)) {
        let mut state = self.state.borrow_mut();
        let now = now();
        change(&mut state, now);
        loop {
            let effects = state.coordinator.take_effects();
            if effects.is_empty() {
                break;
            }
            self.apply(&mut state, effects, now);
        }
        if let Some(next) = state.coordinator.next_deadline()
            && self.clock_due.get().is_none_or(|due| next < due)
        {
            self.deadline_moved.notify_one();
        }
    }

    fn apply(&self, state: &mut State<M>, effects: Vec<Effect<M::Answer>>, now: Now) {
        for effect in effects {
            match effect {
                Effect::Append { id, records, timestamp_ms } => {
                    if !state.coordinator.is_pending(id) {
                        // Refused with one before it.
                    } else if fit(&records, self.settings.append_bytes_max.get()) {
                        state.writes.push(id, records, timestamp_ms);
                        self.write_queued.notify_one();
                    } else {
                        // Told at once: nothing has been decided after it that it could take along.
                        self.tell_too_large();
                        state.coordinator.refused(id, WriteFailure::TooLarge, now);
                    }
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

    fn tell_too_large(&self) {
        let lines = &self.settings.lines;
        if let Some(left_out) = lines.turn(M::LINES.large_record_kind, 0, corelog_io::now()) {
            let limit = self.settings.append_bytes_max.get();
            let failure = WriteFailure::TooLarge;
            warn!(partition = self.partition, left_out, limit, ?failure, "{}", M::LINES.large_record);
        }
    }

    // ---- the log

    /// Appends what is queued, in its order.
    async fn write(self: Rc<Self>, in_flight: QueueSender<Result<InFlight<L::Durable>, Ended>>) {
        loop {
            let next = self.state.borrow_mut().writes.next_append(self.settings.append_bytes_max.get());
            let Some(NextAppend { ids, batches }) = next else {
                self.write_queued.notified().await;
                continue;
            };
            let first = ids[0];
            match self.append(batches).await {
                Ok(appended) => {
                    if in_flight.send(Ok(InFlight { ids, appended })).await.is_err() {
                        return;
                    }
                }
                Err(Unwritten::Refused(failure)) => {
                    self.step(|state, now| {
                        state.writes.drop_from(first);
                        state.coordinator.refused(first, failure, now);
                    });
                }
                // What was decided after it must not come to the log.
                Err(Unwritten::Ended(ended)) => {
                    let _ended = in_flight.send(Err(ended)).await;
                    return;
                }
            }
        }
    }

    async fn append(&self, batches: Result<Vec<Bytes>, WriteFailure>) -> Result<Vec<L::Durable>, Unwritten> {
        // The limit was higher when the write was decided on.
        let batches = batches.map_err(|failure| {
            self.tell_too_large();
            Unwritten::Refused(failure)
        })?;
        let mut appended = Vec::with_capacity(batches.len());
        for batch in batches {
            match self.log.append(batch).await {
                Ok(durable) => appended.push(durable),
                Err(NotAppended::Fenced) => return Err(Unwritten::Ended(Ended::Fenced)),
                // An earlier batch of the same write is in the log, this one is not.
                Err(_) if !appended.is_empty() => {
                    let torn = WriteLost("only a part of it is in the log".to_owned());
                    return Err(Unwritten::Ended(Ended::Lost(torn)));
                }
                Err(NotAppended::Refused(failure)) => return Err(Unwritten::Refused(failure)),
            }
        }
        Ok(appended)
    }

    /// Waits for what was appended, in its order, and reports on it, until there is an end to it.
    async fn settle(&self, mut in_flight: QueueReceiver<Result<InFlight<L::Durable>, Ended>>) -> Ended {
        while let Some(next) = in_flight.recv().await {
            let InFlight { ids, appended } = match next {
                Ok(next) => next,
                Err(ended) => return ended,
            };
            for durable in appended {
                if let Err(lost) = durable.await {
                    return Ended::Lost(lost);
                }
            }
            self.step(|state, now| {
                for id in ids {
                    state.coordinator.committed(id, now);
                }
            });
        }
        Ended::Lost(WriteLost("its task has ended".to_owned()))
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
                    self.step(|state, now| state.coordinator.expire(now));
                    // There may be more that is due.
                    corelog_io::yield_if_needed().await;
                }
            }
        }
    }
}

/// Why a coordinator's state is dropped.
enum Ended {
    Lost(WriteLost),
    /// Its log is led in another epoch.
    Fenced,
}

/// Why a write is not in the log.
enum Unwritten {
    Refused(WriteFailure),
    Ended(Ended),
}
