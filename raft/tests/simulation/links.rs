//! Connections between shards: in order each, delayed, cut, and in hostile worlds losing and doubling frames.

use std::collections::{BTreeMap, VecDeque};

use corelog_raft::frame::Frame;
use corelog_raft::{PeerId, Random};

/// One direction of a pair; entries and messages travel on connections of their own and may overtake each other.
#[derive(Default)]
struct Link {
    queues: [VecDeque<(u64, Frame)>; 2],
}

#[derive(Default)]
pub struct Links {
    links: BTreeMap<(PeerId, PeerId), Link>,
    /// Until then no frame passes in this direction.
    cuts: BTreeMap<(PeerId, PeerId), u64>,
    /// Of a hundred frames so many are lost, and as many come twice.
    hostile: u64,
    delay: u64,
}

impl Links {
    pub fn new(hostile: u64, delay: u64) -> Links {
        Links { hostile, delay, ..Links::default() }
    }

    pub fn heal(&mut self) {
        self.cuts.clear();
        self.hostile = 0;
    }

    pub fn cut(&mut self, from: PeerId, to: PeerId, until: u64) {
        self.cuts.insert((from, to), until);
    }

    pub fn is_cut(&self, now: u64, from: PeerId, to: PeerId) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|&until| now < until)
    }

    pub fn send(&mut self, now: u64, from: PeerId, to: PeerId, frame: Frame, random: &mut Random) {
        let queue =
            &mut self.links.entry((from, to)).or_default().queues[usize::from(!frame.body.is_empty())];
        let times = match random.below(100) {
            roll if roll < self.hostile => 0,
            roll if roll < 2 * self.hostile => 2,
            _ => 1,
        };
        for _ in 0..times {
            let due = now + 1 + random.below(self.delay + 1);
            let after = queue.back().map_or(due, |&(last, _)| due.max(last));
            queue.push_back((after, frame.clone()));
        }
    }

    /// Frames that arrive now. What meets a cut waits for its end, or for the connection's.
    pub fn arrivals(&mut self, now: u64) -> Vec<(PeerId, PeerId, Frame)> {
        let mut arrived = Vec::new();
        for (&(from, to), link) in &mut self.links {
            if self.cuts.get(&(from, to)).is_some_and(|&until| now < until) {
                continue;
            }
            for queue in &mut link.queues {
                while queue.front().is_some_and(|&(due, _)| due <= now) {
                    let (_, frame) = queue.pop_front().expect("there is one");
                    arrived.push((from, to, frame));
                }
            }
        }
        arrived
    }

    /// The connection ends: what was on its way is lost.
    pub fn reset(&mut self, a: PeerId, b: PeerId) {
        self.links.remove(&(a, b));
        self.links.remove(&(b, a));
    }
}
