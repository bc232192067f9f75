//! One shard of another broker, as this one sees it.

use std::collections::{BTreeSet, VecDeque};

use crate::config::{Bounds, Timing};
use crate::frame::{Frame, MESSAGES_MAX, OFFERS_MAX, encode_messages};
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
    beat_due: Tick,
    pending: Vec<(GroupId, Message)>,
    offers: usize,
    queue: VecDeque<Frame>,
    queued: u64,
    /// Groups that had something for it and found the queue full.
    pub stalled: BTreeSet<usize>,
}

impl Peer {
    pub fn new(now: Tick) -> Peer {
        Peer {
            connected: false,
            heard: now,
            acked: None,
            echo: Tick(0),
            silent: true,
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
        (self.connected, self.acked, self.echo) = (false, None, Tick(0));
        self.pending.clear();
        self.offers = 0;
        self.queue.clear();
        self.queued = 0;
    }

    pub fn heard(&mut self, now: Tick, sent: Tick, echo: Tick) {
        self.heard = now;
        self.echo = self.echo.max(sent);
        self.acked = self.acked.max((echo > Tick(0)).then_some(echo));
    }

    /// To a peer that can't be reached nothing is said, nor more than fits: Raft says it again.
    pub fn say(&mut self, now: Tick, group: GroupId, message: Message, bounds: &Bounds) {
        let is_offer = matches!(message.body, Body::SnapshotOffer(_));
        if !self.has_room(bounds) || (is_offer && self.offers == OFFERS_MAX) {
            return;
        }
        self.offers += usize::from(is_offer);
        self.pending.push((group, message));
        if self.pending.len() == MESSAGES_MAX {
            self.flush_pending(now);
        }
    }

    fn flush_pending(&mut self, now: Tick) {
        let frame = encode_messages(now, self.echo, &self.pending);
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
