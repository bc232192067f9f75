//! What one core counted, at one moment.

use super::cells::Distribution;
use super::families::{Family, Type};

/// The numbers of one core. Sent to the service thread, which merges those of all cores.
#[derive(Debug)]
pub struct Snapshot {
    /// The shard's number; `None` for numbers of the process as a whole.
    pub core: Option<usize>,
    pub(super) samples: Vec<Sample>,
}

#[derive(Debug)]
pub(super) struct Sample {
    pub family: &'static Family,
    /// In the family's order; "" where it has fewer.
    pub labels: [&'static str; 2],
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    Whole(u64),
    Decimal(f64),
    Distribution(Box<Distribution>),
}

impl Snapshot {
    pub fn new(core: Option<usize>) -> Snapshot {
        Snapshot { core, samples: Vec::new() }
    }

    /// Adds a number of a family without a label.
    pub fn put(&mut self, family: &'static Family, value: u64) {
        self.push(family, &[], Value::Whole(value));
    }

    /// Adds a number of a family that may not be whole.
    pub fn put_decimal(&mut self, family: &'static Family, value: f64) {
        self.push(family, &[], Value::Decimal(value));
    }

    /// Adds a number of a family's member.
    pub fn put_labelled(&mut self, family: &'static Family, label: &'static str, value: u64) {
        self.push(family, &[label], Value::Whole(value));
    }

    /// Adds a number of a member that two labels tell from others.
    pub fn put_labelled_twice(&mut self, family: &'static Family, labels: [&'static str; 2], value: u64) {
        self.push(family, &labels, Value::Whole(value));
    }

    /// Adds a histogram.
    pub fn put_distribution(&mut self, family: &'static Family, label: &'static str, value: Distribution) {
        debug_assert_eq!(family.kind, Type::Histogram, "{}", family.name);
        self.push(family, &[label], Value::Distribution(Box::new(value)));
    }

    fn push(&mut self, family: &'static Family, given: &[&'static str], value: Value) {
        debug_assert_eq!(family.labels.len(), given.len(), "the labels of {}", family.name);
        let mut labels = [""; 2];
        labels[..given.len()].copy_from_slice(given);
        self.samples.push(Sample { family, labels, value });
    }
}
