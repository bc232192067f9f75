//! Names and numbers that must not be mixed.

use std::fmt;

/// Position of an entry in its group's log, from 0, without gaps. Ends (`next`, `durable`, `committed`) are exclusive:
/// the index of the first entry that does not belong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RaftIndex(pub u64);

impl RaftIndex {
    pub fn next(self) -> RaftIndex {
        RaftIndex(self.0 + 1)
    }
}

impl fmt::Display for RaftIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A term of leadership: the leader epoch that Kafka's clients see. The first election makes term 1; 0 is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Term(pub i32);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One replica of one group in one life of its disk. The controller gives each out once for ever: a broker that lost its
/// disk comes back under new ones, so that it can't vote a second time in a term, nor be counted for what it forgot.
/// Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub u64);

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Another broker's driver, which is one shard of it: brokers need not have the same number of shards, and each places its
/// replicas itself. The number is whatever the shard makes of broker and shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The log that a group replicates: topic id and partition number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId {
    pub topic: u128,
    pub partition: i32,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{}", self.topic, self.partition)
    }
}

/// A moment on a shard's monotonic clock, in ticks of [`crate::config::TICK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tick(pub u64);

impl Tick {
    pub fn after(self, ticks: u64) -> Tick {
        Tick(self.0 + ticks)
    }

    /// Ticks from `earlier` to this; 0 where that is later.
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
