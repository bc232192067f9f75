//! What must hold in the end.

use crate::node::config;
use crate::shared::{Shared, node_of};
use crate::world::{self, log_id, open_as};
use corelog_io::sim::{Process, Sim};
use corelog_storage::{EntriesError, Entry, RaftIndex};
use corelog_wire::records::BatchHeader;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

type Entries = BTreeMap<RaftIndex, Entry>;

/// All that a node's log has, read in a life of its own.
fn entries_of(sim: &Sim, machine: &Process, group: u8) -> Entries {
    let found = Rc::new(RefCell::new(Entries::new()));
    let out = found.clone();
    world::run(sim, machine, async move {
        let storage = open_as(world::config(0, 1)).await;
        let log = storage.log(log_id(group), "topic", config());
        let mut at = log.first_index();
        while at < log.next_index() {
            match log.entries(at, log.next_index(), 50_000).await {
                Ok(entries) => {
                    at = entries.last().map_or(at, |last| last.index.next());
                    out.borrow_mut().extend(entries.into_iter().map(|entry| (entry.index, entry)));
                }
                Err(EntriesError::Compacted { first, .. }) => at = first,
                Err(error) => panic!("the disk is sound: {error}"),
            }
        }
    });
    machine.kill();
    found.take()
}

fn header(entry: &Entry) -> BatchHeader {
    BatchHeader::parse(&entry.bytes).expect("a batch")
}

pub fn at_the_end(sim: &Sim, machines: &[Process], shared: &Shared) {
    machines.iter().for_each(Process::kill);
    for group in shared.groups() {
        let replicas = shared.memberships.borrow()[&group].replicas();
        let nodes = replicas.iter().map(|&replica| node_of(replica));
        let all: Vec<_> = nodes.map(|node| (node, entries_of(sim, &machines[node], group))).collect();
        are_alike(group, &all);
        acknowledged_are_there(shared, group, &all);
        all.iter().for_each(|(_, entries)| nothing_twice(group, entries));
    }
}

/// To the byte, but that each may have lost its beginning.
fn are_alike(group: u8, all: &[(usize, Entries)]) {
    let (_, longest) = all.iter().max_by_key(|(_, entries)| entries.len()).expect("there are replicas");
    for (node, entries) in all {
        let last = |entries: &Entries| entries.keys().last().copied();
        assert!(
            entries.is_empty() || last(entries) == last(longest),
            "group {group}: node {node} ends elsewhere"
        );
        for (index, entry) in entries {
            let describe = |entry: &Entry| (entry.index, entry.term, header(entry));
            let other = longest.get(index);
            assert!(
                other.is_none_or(|other| other == entry),
                "group {group}, node {node}: {:?}, elsewhere {:?}",
                describe(entry),
                other.map(describe)
            );
        }
    }
}

fn acknowledged_are_there(shared: &Shared, group: u8, all: &[(usize, Entries)]) {
    let batches: Vec<BTreeMap<i64, BatchHeader>> = all
        .iter()
        .map(|(_, entries)| {
            let headers = entries.values().map(header).filter(|header| !header.is_internal());
            headers.map(|header| (header.base_offset, header)).collect()
        })
        .collect();
    for one in shared.acknowledged.borrow().get(&group).into_iter().flatten() {
        let (producer, sequence, offset) = (one.producer, one.sequence, one.offset);
        let name =
            format!("group {group}: batch {sequence} of producer {producer}, acknowledged at {offset},");
        for of in &batches {
            let is_gone = of.keys().next().is_none_or(|first| *first > offset);
            let found = of.get(&offset).map(|header| (header.producer_id, header.base_sequence));
            assert!(is_gone || found == Some((producer, sequence)), "{name} is lost: {found:?}");
        }
    }
}

/// Each producer's batches, each once, in the order that it sent them.
fn nothing_twice(group: u8, entries: &Entries) {
    let mut last = BTreeMap::new();
    for header in entries.values().map(header).filter(|header| !header.is_internal()) {
        let (producer, sequence) = (header.producer_id, header.base_sequence);
        let before = last.insert(producer, sequence);
        assert!(
            before.is_none_or(|before| before + 1 == sequence),
            "group {group}: producer {producer}'s batch {sequence} follows {before:?}"
        );
    }
}
