//! What a shard's links and lines count.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::carry::Lost;
use super::hello::RefusalKind;
use super::receive::Received;
use crate::metrics::{Counter, Snapshot, families};

#[derive(Default)]
pub(super) struct PeerMetrics {
    sent_frames: Counter,
    sent_bytes: Counter,
    received_frames: Counter,
    received_bytes: Counter,
    pub connects: Counter,
    pub calls: Counter,
    pub calls_failed: Counter,
    pub strangers_turned_away: Counter,
    /// By reason: those that have happened.
    lost: RefCell<BTreeMap<&'static str, u64>>,
    refused: RefCell<BTreeMap<&'static str, u64>>,
}

impl PeerMetrics {
    pub fn sent(&self, frames: usize, bytes: usize) {
        self.sent_frames.add(frames as u64);
        self.sent_bytes.add(bytes as u64);
    }

    pub fn received(&self, received: &Received) {
        self.received_frames.add(1);
        self.received_bytes.add((received.head.len() + received.body.len()) as u64);
    }

    pub fn lost(&self, lost: &Lost) {
        *self.lost.borrow_mut().entry(lost.name()).or_default() += 1;
    }

    pub fn refused(&self, kind: RefusalKind) {
        *self.refused.borrow_mut().entry(kind.name()).or_default() += 1;
    }

    pub fn put(&self, snapshot: &mut Snapshot, [wanted, standing]: [usize; 2]) {
        for (family, value) in [
            (&families::PEER_LINKS_WANTED, wanted as u64),
            (&families::PEER_LINKS, standing as u64),
            (&families::PEER_CONNECTS, self.connects.get()),
            (&families::PEER_SENT_FRAMES, self.sent_frames.get()),
            (&families::PEER_SENT_BYTES, self.sent_bytes.get()),
            (&families::PEER_RECEIVED_FRAMES, self.received_frames.get()),
            (&families::PEER_RECEIVED_BYTES, self.received_bytes.get()),
            (&families::PEER_CALLS, self.calls.get()),
            (&families::PEER_CALLS_FAILED, self.calls_failed.get()),
            (&families::PEER_STRANGERS, self.strangers_turned_away.get()),
        ] {
            snapshot.put(family, value);
        }
        for (family, counts) in [(&families::PEER_LOST, &self.lost), (&families::PEER_REFUSED, &self.refused)]
        {
            for (reason, count) in counts.borrow().iter() {
                snapshot.put_labelled(family, reason, *count);
            }
        }
    }
}
