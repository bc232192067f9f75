//! The receive budget of a shard: the bytes of requests that are being received or processed.
//!
//! A frame grows with the bytes that its client sends, so it takes the budget bit by bit, and frames that each hold
//! a part and wait for more would wait for each other for ever. Two rules keep them from it, and two keep small requests
//! from waiting for large ones:
//! - A lane keeps a reserve as large as the largest frame that goes through it. Steps are given from what is free
//!   beyond the reserve; once that is gone, whoever waits is given all that it still lacks, if that much is free, and needs no
//!   more. Parts are never taken from the reserve, so there is always one that can finish.
//! - Whoever holds a part must go on sending (`patience`), the faster the more others wait, and nobody waits in line
//!   longer than [`WAIT_MAX`].
//! - The line is in the order in which frames are due: a frame of the largest size [`WAIT_MAX`] after it first had to
//!   wait, a smaller one the sooner. So those that fill the room with large frames and let it lie are behind small ones that come later.
//! - Small frames have a lane of their own.
//!
//! An announced length takes nothing: the first [`OWN_BYTES`] of a frame that is not complete are its connection's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::Instant;
use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotSender, Permit, oneshot};

use super::frame::LENGTH_BYTES;
use crate::config::{REQUEST_PERCENT, request_bytes_max};

/// What a connection may hold of a frame that is not complete without taking it from the budget.
pub const OWN_BYTES: usize = 4 * 1024;
/// Frames up to this go through the lane for small ones.
const SMALL_MAX: usize = 64 * 1024;
/// The part of the budget that is the small lane's: one in this many.
const SMALL_LANE_SHARE: u64 = 8;
/// Who has waited for so long gets no room any more: half of what Kafka's clients give a request by default.
pub const WAIT_MAX: Duration = Duration::from_secs(15);
/// The largest frame is at most this part of its lane: one in this many.
const SMALL_FRAMES: u64 = 4;
// Beside the largest request and the small lane others have room to grow.
const _: () = assert!(REQUEST_PERCENT + 100 / SMALL_LANE_SHARE < 100);

pub struct ReceiveBudget {
    small: Lane,
    large: Lane,
    total: u64,
    small_max: usize,
    frame_bytes_max: usize,
}

impl ReceiveBudget {
    /// `frame_bytes_max`: `socket.request.max.bytes`, which counts as far as the budget can take it.
    pub fn new(total: u64, frame_bytes_max: usize) -> ReceiveBudget {
        let small = total / SMALL_LANE_SHARE;
        let small_max = SMALL_MAX.min((small / SMALL_FRAMES) as usize);
        let frame_bytes_max = frame_bytes_max.min(request_bytes_max(total));
        ReceiveBudget {
            small: Lane::new(small, small_max),
            large: Lane::new(total - small, frame_bytes_max + LENGTH_BYTES),
            total,
            small_max,
            frame_bytes_max,
        }
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that frames hold.
    pub fn used(&self) -> u64 {
        [&self.small, &self.large].iter().map(|lane| lane.shared.total - lane.shared.free.get()).sum()
    }

    /// How many frames wait for room.
    pub fn waiting(&self) -> usize {
        [&self.small, &self.large].iter().map(|lane| lane.shared.line.borrow().len()).sum()
    }

    /// The largest request that is taken, without its length prefix.
    pub fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Where a frame of this size, its length prefix included, finds room.
    pub fn lane(&self, frame_bytes: usize) -> &Lane {
        if frame_bytes <= self.small_max { &self.small } else { &self.large }
    }
}

/// Room for frames up to a size. Clones share it.
#[derive(Clone)]
pub struct Lane {
    shared: Rc<Shared>,
}

struct Shared {
    total: u64,
    /// As large as the largest frame.
    reserve: u64,
    free: Cell<u64>,
    frames: Cell<u64>,
    line: RefCell<BTreeMap<Place, Waiting>>,
}

/// A frame's place in the line: the order of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    due: Instant,
    number: u64,
}

struct Waiting {
    step: u64,
    rest: u64,
    given: OneshotSender<Room>,
}

impl Lane {
    fn new(total: u64, frame_bytes_max: usize) -> Lane {
        let (reserve, frames) = (frame_bytes_max as u64, Cell::new(0));
        assert!(reserve <= total, "the largest frame fits into its lane");
        Lane {
            shared: Rc::new(Shared {
                total,
                reserve,
                free: Cell::new(total),
                frames,
                line: RefCell::default(),
            }),
        }
    }

    /// The place of a frame of this size that has to wait from now on.
    pub fn place(&self, frame_bytes: usize, now: Instant) -> Place {
        let number = self.shared.frames.get();
        self.shared.frames.set(number + 1);
        let part = frame_bytes as f64 / self.shared.reserve.max(1) as f64;
        Place { due: now + WAIT_MAX.mul_f64(part.min(1.0)), number }
    }

    /// Whether frames wait for room.
    pub fn is_contended(&self) -> bool {
        !self.shared.line.borrow().is_empty()
    }

    /// As [`Lane::take`], where nobody waits and there is room.
    pub fn try_take(&self, step: u64, rest: u64) -> Option<Room> {
        let shared = &self.shared;
        debug_assert!(0 < step && step <= rest && rest <= shared.reserve);
        let bytes = if shared.line.borrow().is_empty() { shared.next(step, rest) } else { None };
        bytes.map(|bytes| Shared::part(shared, bytes))
    }

    /// Room for `step` bytes more of a frame that lacks `rest`; for all of `rest` if it comes from the reserve. One call at a
    /// time per place.
    pub async fn take(&self, place: Place, step: u64, rest: u64) -> Room {
        let shared = &self.shared;
        debug_assert!(0 < step && step <= rest && rest <= shared.reserve);
        let (given, room) = oneshot();
        shared.line.borrow_mut().insert(place, Waiting { step, rest, given });
        let _in_line = InLine { shared, place };
        Shared::give(shared);
        room.await.expect("a place in the line is kept until it is served")
    }
}

/// Leaves the line when the frame that waits is given up.
struct InLine<'a> {
    shared: &'a Rc<Shared>,
    place: Place,
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let waiting = self.shared.line.borrow_mut().remove(&self.place);
        if waiting.is_some() {
            // It may have been what the line waited behind.
            Shared::give(self.shared);
        }
    }
}

impl Shared {
    /// What the first in line is given now.
    fn next(&self, step: u64, rest: u64) -> Option<u64> {
        let free = self.free.get();
        if planted(Fault::RoomIsTakenBitByBit) {
            return (free >= step).then_some(step);
        }
        if free >= self.reserve + step { Some(step) } else { (free >= rest).then_some(rest) }
    }

    fn part(this: &Rc<Shared>, bytes: u64) -> Room {
        this.free.set(this.free.get() - bytes);
        Room { lane: Rc::clone(this), bytes }
    }

    /// Serves the line as far as there is room.
    fn give(this: &Rc<Shared>) {
        loop {
            let (given, bytes) = {
                let mut line = this.line.borrow_mut();
                let Some(first) = line.first_entry() else { return };
                let Waiting { step, rest, .. } = *first.get();
                let Some(bytes) = this.next(step, rest) else { return };
                (first.remove().given, bytes)
            };
            // Nobody takes it: it is given back at once.
            let _ = given.send(Shared::part(this, bytes));
        }
    }
}

/// What a frame holds of its lane; given back on drop.
#[must_use = "dropping it gives the room back"]
pub struct Room {
    lane: Rc<Shared>,
    bytes: u64,
}

impl Room {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes more room of the same lane in.
    pub fn merge(&mut self, mut more: Room) {
        assert!(Rc::ptr_eq(&self.lane, &more.lane), "a frame is in one lane");
        self.bytes += std::mem::take(&mut more.bytes);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.lane.free.set(self.lane.free.get() + self.bytes);
            Shared::give(&self.lane);
        }
    }
}

/// The room of a request's bytes, and of what they decode to, while it is processed: given back when it is answered, or
/// sooner by a handler that keeps none of them while it waits.
#[derive(Clone)]
pub struct RequestRoom(Rc<RefCell<Option<Held>>>);

struct Held {
    _bytes: Room,
    decoded: Option<Permit>,
}

impl RequestRoom {
    pub fn new(bytes: Room) -> RequestRoom {
        RequestRoom(Rc::new(RefCell::new(Some(Held { _bytes: bytes, decoded: None }))))
    }

    /// The request decodes to what `decoded` stands for.
    pub fn add(&self, decoded: Permit) {
        if let Some(held) = &mut *self.0.borrow_mut() {
            held.decoded = Some(decoded);
        }
    }

    /// What it decodes to is gone, or stands for itself.
    pub fn take_decoded(&self) -> Option<Permit> {
        self.0.borrow_mut().as_mut()?.decoded.take()
    }

    pub fn give_back(&self) {
        let room = self.0.borrow_mut().take();
        drop(room);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_secs(seconds)
    }

    /// What is given at once.
    fn taken(lane: &Lane, step: u64, rest: u64) -> Option<Room> {
        lane.take(lane.place(rest as usize, at(0)), step, rest).now_or_never()
    }

    #[test]
    fn the_first_in_line_is_given_all_it_lacks() {
        let budget = ReceiveBudget::new(16 * MIB, 10 * MIB as usize);
        let lane = budget.lane(10 << 20);
        let mut first = taken(lane, 2 * MIB, 10 * MIB).expect("beyond the reserve");
        assert_eq!(first.bytes(), 2 * MIB);
        let (old, young) = (lane.place(10 << 20, at(0)), lane.place(10 << 20, at(1)));
        let second = taken(lane, 2 * MIB, 10 * MIB).expect("the reserve is free");
        assert_eq!(second.bytes(), 10 * MIB);
        let mut younger = Box::pin(lane.take(young, 3 * MIB, 3 * MIB));
        let mut older = Box::pin(lane.take(old, MIB, 8 * MIB));
        assert!(younger.as_mut().now_or_never().is_none() && older.as_mut().now_or_never().is_none());
        assert!(lane.is_contended());
        drop(second);
        let given = older.as_mut().now_or_never().expect("the oldest is served first");
        assert_eq!(given.bytes(), MIB, "a step, while there is more than the reserve");
        first.merge(given);
        drop(first);
        assert!(younger.as_mut().now_or_never().is_some());
        drop((older, younger));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn small_frames_go_before_large_ones_and_finish_side_by_side() {
        let budget = ReceiveBudget::new(16 * MIB, 10 * MIB as usize);
        let lane = budget.lane(10 << 20);
        let mut parts: Vec<Room> = Vec::new();
        while lane.shared.free.get() > lane.shared.reserve {
            parts.extend(taken(lane, MIB.min(lane.shared.free.get() - lane.shared.reserve), 10 * MIB));
        }
        let all = taken(lane, MIB, 9 * MIB).expect("the reserve");
        let mut large = Box::pin(lane.take(lane.place(10 << 20, at(1)), MIB, 10 * MIB));
        let mut small: Vec<_> =
            (2..6).map(|when| Box::pin(lane.take(lane.place(1 << 20, at(when)), MIB, MIB))).collect();
        fn given<F: Future<Output = Room>>(small: &mut [Pin<Box<F>>]) -> Vec<Room> {
            small.iter_mut().filter_map(|small| small.as_mut().now_or_never()).collect()
        }
        assert!(large.as_mut().now_or_never().is_none());
        let one = given(&mut small);
        assert_eq!(one.len(), 1, "what is left of the reserve");
        drop((all, one));
        drop(small.remove(0));
        assert_eq!(given(&mut small).len(), 3, "all at once");
        assert!(large.as_mut().now_or_never().is_some(), "and then the large one");
    }

    #[test]
    fn who_gives_up_leaves_the_line_and_what_it_was_given() {
        let budget = ReceiveBudget::new(16 * MIB, 12 << 20);
        let lane = budget.lane(11 << 20);
        let all = taken(lane, 11 * MIB, 11 * MIB).expect("it is free");
        let mut waiting: Vec<_> =
            (0..3).map(|_| Box::pin(lane.take(lane.place(11 << 20, at(0)), 11 * MIB, 11 * MIB))).collect();
        assert!(waiting.iter_mut().all(|waiting| waiting.as_mut().now_or_never().is_none()));
        drop(waiting.remove(0));
        drop(all);
        // Given to the next, which goes without having looked.
        drop(waiting.remove(0));
        assert!(waiting.remove(0).now_or_never().is_some());
        assert_eq!((budget.used(), lane.is_contended()), (0, false));
    }

    #[test]
    fn small_frames_have_room_of_their_own_and_each_size_fits() {
        for budget in [1 << 10, 100_000, 16 * MIB, 256 * MIB] {
            let budget = ReceiveBudget::new(budget, 100 << 20);
            let mut held = Vec::new();
            let large = budget.lane(budget.frame_bytes_max() + LENGTH_BYTES);
            while let Some(room) = taken(large, large.shared.reserve, large.shared.reserve) {
                held.push(room);
            }
            assert!(!held.is_empty());
            let small = budget.lane(10);
            assert!(taken(small, 10, small.shared.reserve).is_some());
        }
        assert_eq!(request_bytes_max(16 * MIB), 12_582_900);
    }
}
