//! One shard of another broker, as this one sees it.

use std::collections::{BTreeSet, VecDeque};

use crate::config::{Bounds, Timing};
use crate::frame::{Frame, MESSAGES_MAX, Messages, OFFERS_MAX, encode_messages};
use crate::ids::{GroupId, Tick};
use crate::message::{Body, Message};

/// Its connection's queue, and when it was heard.
pub(super) struct Peer {
    pub connected: bool,
    /// When a frame of it last came.
    pub heard: Tick,
    /// The latest moment of ours that it answered, on this connection.
    pub acked: Option<Tick>,
    /// The latest moment of its clock: our echo.
    echo: Tick,
    pub silent: bool,
    /// How often what rests on this pair was put in doubt here; it is told with every echo.
    lapses: u64,
    /// The same at the other side, since this connection began.
    their_lapses: Option<u64>,
    beat_due: Tick,
    pending: Vec<(GroupId, Message)>,
    offers: usize,
    queue: VecDeque<Frame>,
    queued: u64,
    /// Groups that had something for it and found the queue full.
    pub stalled: BTreeSet<usize>,
}

/// What a frame says of groups at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    InTime,
    /// The peer doubts them since its last frame.
    Lapsed,
    /// It was overtaken by one that says so: all in it is void.
    Late,
}

impl Peer {
    pub fn new(now: Tick) -> Peer {
        Peer {
            connected: false,
            heard: now,
            acked: None,
            echo: Tick(0),
            silent: true,
            lapses: 0,
            their_lapses: None,
            beat_due: now,
            pending: Vec::new(),
            offers: 0,
            queue: VecDeque::new(),
            queued: 0,
            stalled: BTreeSet::new(),
        }
    }

    /// A new connection: nothing of the one before is under way.
    pub fn connected(&mut self, now: Tick) {
        self.disconnected();
        self.connected = true;
        self.silent = false;
        (self.heard, self.beat_due) = (now, now);
    }

    pub fn disconnected(&mut self) {
        (self.connected, self.acked, self.echo, self.their_lapses) = (false, None, Tick(0), None);
        self.pending.clear();
        self.offers = 0;
        self.queue.clear();
        self.queued = 0;
    }

    pub fn is_away(&self) -> bool {
        !self.connected || self.silent
    }

    /// What groups at rest believe of this pair is in doubt: the next echo says so, or the connection that begins anew.
    /// What was said of a rest before, and travels with that echo, is void.
    pub fn lapse(&mut self) {
        self.lapses += 1;
        self.pending.iter_mut().for_each(|(_, message)| message.take_back_rest());
    }

    pub fn heard(&mut self, messages: &Messages) -> Heard {
        let known = *self.their_lapses.get_or_insert(messages.lapses);
        if messages.lapses < known {
            return Heard::Late;
        }
        self.echo = self.echo.max(messages.sent);
        self.acked = self.acked.max((messages.echo > Tick(0)).then_some(messages.echo));
        self.their_lapses = Some(messages.lapses);
        if messages.lapses == known { Heard::InTime } else { Heard::Lapsed }
    }

    /// To a peer that can't be reached nothing is said, nor more than fits: Raft says it again.
    pub fn say(&mut self, now: Tick, group: GroupId, message: Message, bounds: &Bounds) {
        let is_offer = matches!(message.body, Body::SnapshotOffer(_));
        if !self.has_room(bounds) || (is_offer && self.offers == OFFERS_MAX) {
            self.lapse();
            return;
        }
        self.offers += usize::from(is_offer);
        self.say_surely(now, group, message);
    }

    /// Whether there is room or not: once in a group's life.
    pub fn say_surely(&mut self, now: Tick, group: GroupId, message: Message) {
        if !self.connected {
            return;
        }
        self.pending.push((group, message));
        if self.pending.len() == MESSAGES_MAX {
            self.flush_pending(now);
        }
    }

    fn flush_pending(&mut self, now: Tick) {
        let frame = encode_messages(now, self.echo, self.lapses, &self.pending);
        self.pending.clear();
        self.offers = 0;
        self.push(frame);
    }

    pub fn push(&mut self, frame: Frame) {
        self.queued += frame.bytes();
        self.queue.push_back(frame);
    }

    pub fn has_room(&self, bounds: &Bounds) -> bool {
        self.connected && self.queued < bounds.peer_queue_bytes
    }

    /// One frame for all that was said, and one in each heartbeat interval whatever was.
    pub fn flush(&mut self, now: Tick, timing: &Timing, bounds: &Bounds) {
        let due = now >= self.beat_due;
        if !self.has_room(bounds) || (self.pending.is_empty() && !due) {
            return;
        }
        if due {
            self.beat_due = now.after(timing.heartbeat);
        }
        self.flush_pending(now);
    }

    pub fn take_frame(&mut self) -> Option<Frame> {
        let frame = self.queue.pop_front()?;
        self.queued -= frame.bytes();
        Some(frame)
    }
}
