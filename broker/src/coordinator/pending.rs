//! Records on their way to the log: what will be, beside the state, which is what is committed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeFrom;

use super::desk::WriteId;
use super::machine::Record;

/// By key, each key's in the order of their writes. Who decides looks here first and then at the state; who reads looks
/// at the state alone.
pub struct Pending<R: Record> {
    records: BTreeMap<R::Key, VecDeque<(WriteId, R)>>,
}

impl<R: Record> Default for Pending<R> {
    fn default() -> Pending<R> {
        Pending { records: BTreeMap::new() }
    }
}

impl<R: Record> Pending<R> {
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The last record on its way of the key, and its write.
    pub fn latest(&self, key: &R::Key) -> Option<(WriteId, &R)> {
        if self.records.is_empty() {
            return None;
        }
        self.records.get(key).map(last)
    }

    /// The last record on its way of each key from `first` on.
    pub fn latest_from(&self, range: RangeFrom<R::Key>) -> impl Iterator<Item = (&R::Key, WriteId, &R)> {
        self.records.range(range).map(|(key, of_key)| {
            let (write, record) = last(of_key);
            (key, write, record)
        })
    }

    pub(super) fn push(&mut self, write: WriteId, record: R) {
        // Most keys have one at a time.
        let of_key = self.records.entry(record.key()).or_insert_with(|| VecDeque::with_capacity(1));
        of_key.push_back((write, record));
    }

    /// Takes the first record of the key, which is one of `write`.
    pub(super) fn take_first(&mut self, key: R::Key, write: WriteId) -> R {
        let Entry::Occupied(mut of_key) = self.records.entry(key) else {
            panic!("a record on its way is pending")
        };
        let (of_write, record) = of_key.get_mut().pop_front().expect("no key without records is kept");
        assert_eq!(of_write, write, "records are committed in their order");
        if of_key.get().is_empty() {
            of_key.remove();
        }
        record
    }

    /// Drops the records of the key that belong to `first` or a later write.
    pub(super) fn drop_from(&mut self, key: &R::Key, first: WriteId) {
        let Some(of_key) = self.records.get_mut(key) else { return };
        while of_key.pop_back_if(|(write, _)| *write >= first).is_some() {}
        if of_key.is_empty() {
            self.records.remove(key);
        }
    }
}

fn last<R>(of_key: &VecDeque<(WriteId, R)>) -> (WriteId, &R) {
    let (write, record) = of_key.back().expect("no key without records is kept");
    (*write, record)
}
