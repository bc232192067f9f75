//! What clients did and what they were told: all that the checker knows.

use crate::record::Identity;
use std::ops::Range;

/// Since the run began.
pub type Micros = u64;

/// What a producer was told of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Acknowledged, mostly with its offset.
    Written { offset: Option<i64> },
    /// No broker can have it.
    Refused,
    /// It may be there or not.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub identity: Identity,
    pub sent: Micros,
    pub told: Micros,
    pub outcome: Outcome,
}

/// One producer's records, in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct Producer {
    pub id: u32,
    pub idempotent: bool,
    pub sent: Vec<Sent>,
}

/// A record that was read.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub partition: u32,
    pub offset: i64,
    pub identity: Identity,
}

#[derive(Clone, Debug)]
pub struct Poll {
    pub began: Micros,
    pub ended: Micros,
    /// How many rebalances the consumer had been told of when it began, and when it had ended.
    pub rebalances: (u32, u32),
    /// Of [`Consumer::seen`].
    pub records: Range<usize>,
}

#[derive(Clone, Debug)]
pub struct Commit {
    pub asked: Micros,
    /// None: it failed, and may have taken effect all the same.
    pub answered: Option<Micros>,
    /// Partitions with the offset of the next record to read.
    pub offsets: Vec<(u32, i64)>,
}

/// One life of a consumer.
#[derive(Clone, Debug, Default)]
pub struct Consumer {
    pub name: String,
    /// Of a group, whose members share what is there; without one it reads all partitions.
    pub group: Option<String>,
    pub began: Micros,
    pub seen: Vec<Seen>,
    pub polls: Vec<Poll>,
    pub commits: Vec<Commit>,
}

/// All of all partitions, after the load.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// When and of whom.
    pub what: String,
    /// By partition, in the order in which they came.
    pub partitions: Vec<Vec<(i64, Identity)>>,
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub producers: Vec<Producer>,
    pub consumers: Vec<Consumer>,
    pub readings: Vec<Reading>,
    /// What was seen to be wrong at once: values that nobody wrote, partitions that took no writes.
    pub wrong: Vec<(super::checker::Rule, String)>,
}
