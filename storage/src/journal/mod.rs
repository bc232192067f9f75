//! The journal of a shard: makes the appends of all its logs durable together (DESIGN: "Durability is a service of
//! the shard").
//!
//! ```text
//!  appends ──▶ open group ──▶ sealed, written with O_DIRECT and synced ──▶ durable, in order ──▶ acknowledged
//!             (one aligned     (groups_in_flight at once)                                       └▶ tail cache
//!              block, also
//!              the tail cache)
//! ```
//!
//! A group is sealed as soon as a writer is free to write it; what is appended meanwhile gathers in the next. So
//! groups are small when the shard is idle and large when it is busy, and no timer is involved.
//!
//! Life: [`Journal::new`], then [`writer::write_groups`] runs in as many tasks as writes may be in flight. Lives on
//! one core.

mod completion;
mod group;
pub mod ring;
pub mod writer;

pub use completion::{Completion, Durable};
pub use group::{Effect, Filling, Group};

use crate::config::StorageConfig;
use crate::error::StorageError;
use crate::format::PAGE;
use crate::format::entry::{EntryHeader, entry_span};
use crate::format::group::{GROUP_HEADER, GroupHeader};
use crate::format::page_ceil;
use crate::log::Log;
use bytes::Bytes;
use corelog_io::Block;
use corelog_io::sync::{Event, Notify, Semaphore};
use ring::Ring;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::{Rc, Weak};

/// A block's rest below this is not worth another group.
const BLOCK_REST_MIN: usize = 16 * PAGE;

pub struct Journal {
    shard: usize,
    generation: u64,
    salt: u64,
    group_bytes_max: usize,
    state: RefCell<State>,
    pub ring: Ring,
    /// A group has something to write; wakes a writer.
    work: Notify,
    /// Something that an append may wait for has changed.
    pub room: Event,
    /// Appends pass one after the other, in the order they came.
    pub gate: Semaphore,
    /// Writers take the next group and its place one after the other.
    head: Semaphore,
}

struct State {
    next_sequence: u64,
    /// Every group up to this one is on stable storage.
    durable_through: u64,
    /// The last durable group that has entries.
    durable_entries_through: u64,
    /// The greatest `durable_through` that a durable group says of those before it.
    proved_through: u64,
    /// Groups not sealed yet, oldest first; the last one is open.
    filling: VecDeque<Filling>,
    /// Bytes of all of them.
    filling_bytes: usize,
    /// A block with room left, for the next group.
    spare: Option<Block>,
    /// Groups under way, in order.
    in_flight: VecDeque<Group>,
    failed: Option<StorageError>,
}

/// A place in the journal.
pub struct Pushed {
    pub sequence: u64,
    pub payload: Bytes,
    pub completion: Rc<Completion>,
}

/// A sealed group and where it goes.
pub struct Sealed {
    pub sequence: u64,
    /// What its header says was durable before it.
    pub durable_through: u64,
    pub bytes: Bytes,
    pub place: ring::Place,
}

impl Journal {
    /// A journal that begins with group 1 of `generation`.
    pub fn new(config: &StorageConfig, generation: u64, salt: u64, ring: Ring) -> Journal {
        Journal {
            shard: config.shard,
            generation,
            salt,
            group_bytes_max: config.group_bytes_max,
            state: RefCell::new(State {
                next_sequence: 1,
                durable_through: 0,
                durable_entries_through: 0,
                proved_through: 0,
                filling: VecDeque::new(),
                filling_bytes: 0,
                spare: None,
                in_flight: VecDeque::new(),
                failed: None,
            }),
            ring,
            work: Notify::new(),
            room: Event::new(),
            gate: Semaphore::new(1),
            head: Semaphore::new(1),
        }
    }

    /// The largest payload that one group (and so a journal file) can hold, in bytes.
    pub fn payload_max(&self) -> usize {
        (self.ring.file_bytes() - PAGE as u64) as usize - GROUP_HEADER - entry_span(0) - PAGE
    }

    /// Whether an entry of `span` bytes may be pushed now.
    pub fn has_room(&self, span: usize) -> bool {
        let state = self.state.borrow();
        state.filling.is_empty() || state.filling_bytes + span <= self.group_bytes_max
    }

    /// Fixes an entry's place: appends it to the open group. The caller has asked [`Journal::has_room`].
    pub fn push(&self, header: &EntryHeader, head: &[u8], rest: &[u8]) -> Pushed {
        let span = header.span();
        let mut state = self.state.borrow_mut();
        if !state.filling.back().is_some_and(|open| open.fits(span, self.group_bytes_max)) {
            self.begin(&mut state, span);
        }
        let open = state.filling.back_mut().expect("a group was begun");
        let payload = open.push(header, head, rest);
        let pushed = Pushed { sequence: open.sequence, payload, completion: Rc::clone(&open.completion) };
        state.filling_bytes += span;
        self.work.notify_one();
        pushed
    }

    /// What to do when the group an entry was pushed into last is durable.
    pub fn on_durable(&self, log: Weak<Log>, effect: Effect) {
        let mut state = self.state.borrow_mut();
        let open = state.filling.back_mut().expect("an entry was pushed before");
        open.add_effect(log, effect);
    }

    fn begin(&self, state: &mut State, span: usize) {
        let need = GROUP_HEADER + span;
        let block = match state.spare.take() {
            Some(block) if block.remaining() >= need => block,
            _ => Block::with_capacity(page_ceil(need as u64).max(self.group_bytes_max as u64) as usize),
        };
        state.filling.push_back(Filling::begin(block, state.next_sequence));
        state.filling_bytes += GROUP_HEADER;
        state.next_sequence += 1;
    }

    /// Adds an empty group, whose header proves that those before it were durable. Only when nothing is under way.
    pub fn push_marker(&self) {
        let mut state = self.state.borrow_mut();
        if state.failed.is_none() && state.filling.is_empty() && state.in_flight.is_empty() {
            self.begin(&mut state, 0);
            self.work.notify_one();
        }
    }

    /// Whether the last groups are durable, but no group written after them says so.
    pub fn wants_marker(&self) -> bool {
        let state = self.state.borrow();
        state.filling.is_empty()
            && state.in_flight.is_empty()
            && state.proved_through < state.durable_entries_through
    }

    /// Every group up to this one is on stable storage.
    pub fn durable_through(&self) -> u64 {
        self.state.borrow().durable_through
    }

    /// Completes when everything pushed so far is durable.
    pub fn barrier(&self) -> Durable {
        let state = self.state.borrow();
        let last = state.filling.back().map(|f| &f.completion);
        match last.or_else(|| state.in_flight.back().map(|g| &g.completion)) {
            Some(completion) => Durable::new(Rc::clone(completion)),
            // What was under way when it failed is not known to be durable.
            None => state.failed.clone().map_or_else(Durable::already, Durable::failed),
        }
    }

    /// Completes when group `sequence` is durable.
    pub fn durable(&self, sequence: u64) -> Durable {
        let state = self.state.borrow();
        let in_flight = state.in_flight.iter().find(|g| g.sequence == sequence).map(|g| &g.completion);
        match in_flight
            .or_else(|| state.filling.iter().find(|f| f.sequence == sequence).map(|f| &f.completion))
        {
            Some(completion) => Durable::new(Rc::clone(completion)),
            None if sequence <= state.durable_through => Durable::already(),
            None => state.failed.clone().map_or_else(Durable::already, Durable::failed),
        }
    }

    pub fn failure(&self) -> Option<StorageError> {
        self.state.borrow().failed.clone()
    }

    /// Nothing is acknowledged from now on; all that wait get `error`.
    pub fn fail(&self, error: StorageError) {
        let completions: Vec<_> = {
            let mut state = self.state.borrow_mut();
            if state.failed.is_some() {
                return;
            }
            state.failed = Some(error.clone());
            state.spare = None;
            state.filling_bytes = 0;
            let filling = std::mem::take(&mut state.filling).into_iter().map(|f| f.completion);
            let in_flight = std::mem::take(&mut state.in_flight).into_iter().map(|g| g.completion);
            in_flight.chain(filling).collect()
        };
        for completion in completions {
            completion.complete(Err(error.clone()));
        }
        self.room.notify_all();
        self.ring.freed.notify_all();
        self.work.notify_one();
    }

    /// Bytes the oldest group that is not sealed takes on disk; `None` when there is none.
    fn front_disk_len(&self) -> Option<u64> {
        self.state.borrow().filling.front().map(Filling::disk_len)
    }

    /// Sequence of the oldest group that is not sealed, or of the next one to come.
    fn front_sequence(&self) -> u64 {
        let state = self.state.borrow();
        state.filling.front().map_or(state.next_sequence, |f| f.sequence)
    }

    /// Seals the oldest group and gives it its place, which the ring has room for.
    fn seal_front(&self) -> Sealed {
        let mut state = self.state.borrow_mut();
        let filling = state.filling.pop_front().expect("the caller has seen it");
        state.filling_bytes -= filling.len();
        let durable_through = state.durable_through;
        let (bytes, group, block) = filling.seal(GroupHeader {
            generation: self.generation,
            salt: self.salt,
            sequence: 0,
            durable_through,
            shard: self.shard as u32,
            payload_len: 0,
            entries: 0,
            entries_crc: 0,
        });
        if state.filling.is_empty() && block.remaining() >= BLOCK_REST_MIN {
            state.spare = Some(block);
        }
        let sequence = group.sequence;
        let place = self.ring.take(group.len, sequence);
        state.in_flight.push_back(group);
        drop(state);
        self.room.notify_all();
        Sealed { sequence, durable_through, bytes, place }
    }

    /// A group's write is done. Gives the groups that are durable by that, in order.
    fn written(&self, sequence: u64, durable_through: u64) -> Vec<Group> {
        let mut state = self.state.borrow_mut();
        let Some(group) = state.in_flight.iter_mut().find(|g| g.sequence == sequence) else {
            return Vec::new(); // The journal has failed meanwhile.
        };
        group.written = true;
        state.proved_through = state.proved_through.max(durable_through);
        let mut durable = Vec::new();
        while state.in_flight.front().is_some_and(|g| g.written) {
            let group = state.in_flight.pop_front().expect("there is a front");
            assert_eq!(group.sequence, state.durable_through + 1, "groups become durable in order");
            state.durable_through = group.sequence;
            if group.entries > 0 {
                state.durable_entries_through = group.sequence;
            }
            durable.push(group);
        }
        durable
    }
}
