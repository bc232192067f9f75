//! Each violation is planted in a history, and found.

use super::super::history::{Commit, Poll, Seen};
use super::*;

const IDEMPOTENT: u32 = 0;
const PLAIN: u32 = 1;
/// Offsets of a partition in [`sound`], half of them of each producer.
const END: i64 = 20;

fn it(producer: u32, number: u64) -> Identity {
    Identity { producer, partition: 0, number }
}

/// The record at an offset of the sound history.
fn record(offset: i64) -> Identity {
    it((offset % 2) as u32, offset as u64 / 2)
}

/// One partition, written by two producers in turn; read by one consumer, by a group whose member is followed by another,
/// and twice at the end.
fn sound() -> History {
    let producer = |id: u32| {
        let sent = (0..END).filter(|offset| record(*offset).producer == id).map(|offset| Sent {
            identity: record(offset),
            sent: offset as Micros * 10,
            told: offset as Micros * 10 + 5,
            outcome: Outcome::Written { offset: Some(offset) },
        });
        Producer { id, idempotent: id == IDEMPOTENT, sent: sent.collect() }
    };
    let reading = |what: &str| Reading {
        what: what.to_owned(),
        partitions: vec![(0..END).map(|offset| (offset, record(offset))).collect()],
    };
    let first = Consumer {
        commits: vec![Commit { asked: 1060, answered: Some(1065), offsets: vec![(0, 12)] }],
        ..consumer("first", Some("group"), 1000, 0..12)
    };
    History {
        producers: vec![producer(IDEMPOTENT), producer(PLAIN)],
        consumers: vec![
            consumer("alone", None, 1000, 0..END),
            first,
            consumer("second", Some("group"), 2000, 12..END),
        ],
        readings: vec![reading("first"), reading("second")],
        wrong: Vec::new(),
    }
}

/// It polls four records at a time.
fn consumer(
    name: &str,
    group: Option<&str>,
    began: Micros,
    offsets: impl IntoIterator<Item = i64>,
) -> Consumer {
    let seen: Vec<Seen> =
        offsets.into_iter().map(|offset| Seen { partition: 0, offset, identity: record(offset) }).collect();
    let polls = (0..seen.len()).step_by(4).map(|at| Poll {
        began: began + at as Micros,
        ended: began + at as Micros + 1,
        rebalances: (1, 1),
        records: at..seen.len().min(at + 4),
    });
    Consumer {
        name: name.to_owned(),
        group: group.map(str::to_owned),
        began,
        polls: polls.collect(),
        seen,
        commits: Vec::new(),
    }
}

fn rules(history: &History) -> Vec<Rule> {
    let mut rules: Vec<Rule> = check(history).into_iter().map(|violation| violation.rule).collect();
    rules.sort();
    rules.dedup();
    rules
}

/// Puts the log in this order into all that read it, as if nobody had been told anything else.
fn rewrite(history: &mut History, log: &[Identity]) {
    let at = |offset: i64| log[offset as usize];
    for reading in &mut history.readings {
        reading.partitions = vec![(0..log.len() as i64).map(|offset| (offset, at(offset))).collect()];
    }
    let whole = |name, group, began| {
        let mut consumer = consumer(name, group, began, 0..log.len() as i64);
        consumer.seen.iter_mut().for_each(|seen| seen.identity = at(seen.offset));
        consumer
    };
    history.consumers = vec![whole("alone", None, 1000), whole("member", Some("group"), 1000)];
    for sent in history.producers.iter_mut().flat_map(|producer| &mut producer.sent) {
        let Outcome::Written { .. } = sent.outcome else { continue };
        sent.outcome = match log.iter().position(|it| *it == sent.identity) {
            Some(offset) => Outcome::Written { offset: Some(offset as i64) },
            None => Outcome::Unknown,
        };
    }
}

fn sound_log() -> Vec<Identity> {
    (0..END).map(record).collect()
}

#[test]
fn a_sound_history_breaks_nothing() {
    assert_eq!(check(&sound()), []);
    // A plain producer's record twice, and one of unknown fate missing, are no violation.
    let mut history = sound();
    let mut log = sound_log();
    log.push(it(PLAIN, 9));
    rewrite(&mut history, &log);
    assert_eq!(check(&history), []);
    log.remove(4);
    rewrite(&mut history, &log);
    assert_eq!(check(&history), []);
}

#[test]
fn lost_records_are_found() {
    // Acknowledged, and not in the log.
    let mut history = sound();
    history.producers[PLAIN as usize].sent.push(Sent {
        identity: it(PLAIN, 10),
        sent: 300,
        told: 305,
        outcome: Outcome::Written { offset: None },
    });
    assert_eq!(rules(&history), [Rule::Lost]);
    // The end of the log is gone with the second reading.
    let mut history = sound();
    history.readings[1].partitions[0].pop();
    history.producers[PLAIN as usize].sent[9].outcome = Outcome::Unknown;
    assert_eq!(rules(&history), [Rule::Lost]);
    // Polled, and gone.
    let mut history = sound();
    history.readings.iter_mut().for_each(|reading| {
        reading.partitions[0].pop();
    });
    history.producers[PLAIN as usize].sent[9].outcome = Outcome::Unknown;
    assert_eq!(rules(&history), [Rule::Lost]);
}

#[test]
fn what_an_idempotent_producer_sent_is_there_once() {
    let mut history = sound();
    let mut log = sound_log();
    log.push(it(IDEMPOTENT, 9));
    rewrite(&mut history, &log);
    assert_eq!(rules(&history), [Rule::Twice]);
}

#[test]
fn order_is_looked_at() {
    for producer in [IDEMPOTENT, PLAIN] {
        let mut history = sound();
        let mut log = sound_log();
        let (a, b) = (4 + producer as usize, 6 + producer as usize);
        log.swap(a, b);
        rewrite(&mut history, &log);
        // Both were under way at once: only the producer's own order is broken.
        for sent in &mut history.producers[producer as usize].sent {
            sent.sent = 0;
        }
        assert_eq!(rules(&history), [Rule::Order], "{producer}");
    }
    // Read before another one was sent that came before it.
    let mut history = sound();
    history.producers[0].sent[3].sent = 1500;
    history.producers[0].sent[3].told = 1505;
    assert_eq!(rules(&history), [Rule::Order]);
    // Two producers, the one after the other.
    let mut history = sound();
    let mut log = sound_log();
    log.swap(4, 5);
    rewrite(&mut history, &log);
    assert_eq!(rules(&history), [Rule::Order]);
}

#[test]
fn two_values_at_one_offset_are_found() {
    // Told to the producer, and not so in the log.
    let mut history = sound();
    history.producers[0].sent[4].outcome = Outcome::Written { offset: Some(9) };
    history.producers[0].sent[4].told = 1000;
    assert_eq!(rules(&history), [Rule::Divergence]);
    // Two readings.
    let mut history = sound();
    history.readings[0].partitions[0].swap(7, 9);
    history.readings[0].partitions[0][7].0 = 7;
    history.readings[0].partitions[0][9].0 = 9;
    assert_eq!(rules(&history), [Rule::Divergence]);
    // A consumer's poll.
    let mut history = sound();
    history.consumers[0].seen[7].identity = record(9);
    assert_eq!(rules(&history), [Rule::Divergence]);
}

#[test]
fn offsets_have_no_gaps() {
    let mut history = sound();
    for reading in &mut history.readings {
        reading.partitions[0].iter_mut().skip(15).for_each(|(offset, _)| *offset += 1);
    }
    assert_eq!(rules(&history), [Rule::Gap]);
}

#[test]
fn nothing_is_there_that_nobody_sent() {
    let mut history = sound();
    let mut log = sound_log();
    log.push(it(PLAIN, 10));
    rewrite(&mut history, &log);
    assert_eq!(rules(&history), [Rule::Unsent]);
    let mut history = sound();
    history.producers[0].sent[3].outcome = Outcome::Refused;
    assert_eq!(rules(&history), [Rule::Unsent]);
}

#[test]
fn polls_that_skip_or_go_back_are_found() {
    for (offsets, rule) in [((0..6).chain(7..END), Rule::Skipped), ((0..8).chain(7..END), Rule::WentBack)] {
        let mut history = sound();
        history.consumers[0] = consumer("alone", None, 1000, offsets);
        assert_eq!(rules(&history), [rule]);
    }
    // A member without a rebalance.
    let mut history = sound();
    history.consumers[2].seen[3] = history.consumers[2].seen[1];
    history.consumers[0].group = None;
    assert_eq!(rules(&history), [Rule::Skipped, Rule::WentBack]);
}

#[test]
fn a_group_reads_all_and_never_goes_back_behind_its_commits() {
    let mut history = sound();
    history.consumers[2] = consumer("second", Some("group"), 2000, 13..END);
    assert_eq!(rules(&history), [Rule::Skipped]);
    let mut history = sound();
    history.consumers[2] = consumer("second", Some("group"), 2000, 12..END - 1);
    assert_eq!(rules(&history), [Rule::Unavailable]);
    let mut history = sound();
    history.consumers[2] = consumer("second", Some("group"), 2000, 10..END);
    assert_eq!(rules(&history), [Rule::WentBack]);
    // What nobody answered may have put it back; and who began before the commit could not know of it.
    history.consumers[1].commits.push(Commit { asked: 1070, answered: None, offsets: vec![(0, 10)] });
    assert_eq!(check(&history), []);
    history.consumers[1].commits.pop();
    history.consumers[2].began = 1062;
    assert_eq!(check(&history), []);
}

#[test]
fn a_consumer_that_does_not_reach_the_end_is_told() {
    let mut history = sound();
    history.consumers[0] = consumer("alone", None, 1000, 0..END - 3);
    assert_eq!(rules(&history), [Rule::Unavailable]);
}
