//! The rules of Jepsen's Kafka workload, and what follows from offsets without gaps, held against a history.

use super::history::{Consumer, History, Micros, Outcome, Producer, Reading, Sent};
use crate::record::Identity;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What a history can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Acknowledged or read, and no longer there.
    Lost,
    /// From an idempotent producer, and there more than once.
    Twice,
    /// Not in the order of its producer, or before what was known before it was sent.
    Order,
    /// Another record at an offset than somebody else was told.
    Divergence,
    /// Between two records there are offsets without one.
    Gap,
    /// There, though no producer sent it, or its producer knows that no broker has it.
    Unsent,
    /// A consumer passed over records.
    Skipped,
    /// A consumer, or a group's offset, went back.
    WentBack,
    /// Nobody was served, long after all faults had ended.
    Unavailable,
    /// Bytes that nobody wrote, or a broker that ended by itself.
    Broken,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: Rule,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.what)
    }
}

/// All that is broken; nothing if the history is as it should be.
pub fn check(history: &History) -> Vec<Violation> {
    let mut checker = Checker { found: Vec::new(), log: Vec::new() };
    for (rule, what) in &history.wrong {
        checker.add(*rule, what.clone());
    }
    checker.readings(&history.readings);
    let sent = Register::new(&history.producers);
    checker.what_is_there(&sent);
    for producer in &history.producers {
        checker.acknowledged(producer);
    }
    checker.real_time(history);
    history.consumers.iter().for_each(|consumer| checker.polled(consumer));
    checker.groups(&history.consumers);
    checker.found
}

/// Sent records by identity: a producer numbers those of a partition from 0 and without gaps.
struct Register<'a>(HashMap<(u32, u32), (bool, Vec<&'a Sent>)>);

impl<'a> Register<'a> {
    fn new(producers: &'a [Producer]) -> Self {
        let mut all: HashMap<(u32, u32), (bool, Vec<&Sent>)> = HashMap::new();
        for producer in producers {
            for sent in &producer.sent {
                let of = all.entry((producer.id, sent.identity.partition)).or_default();
                of.0 = producer.idempotent;
                of.1.push(sent);
            }
        }
        Register(all)
    }

    fn get(&self, it: Identity) -> Option<&'a Sent> {
        self.0.get(&(it.producer, it.partition))?.1.get(it.number as usize).copied()
    }
}

struct Checker {
    found: Vec<Violation>,
    /// By partition; the index is the offset.
    log: Vec<Vec<Identity>>,
}

fn named(it: Identity) -> String {
    format!("record {} of producer {}", it.number, it.producer)
}

impl Checker {
    fn add(&mut self, rule: Rule, what: String) {
        self.found.push(Violation { rule, what });
    }

    fn at(&self, partition: u32, offset: i64) -> Option<Identity> {
        let offset = usize::try_from(offset).ok()?;
        self.log.get(partition as usize)?.get(offset).copied()
    }

    /// Every reading has no gaps, and has what the one before had; the last one is the log.
    fn readings(&mut self, readings: &[Reading]) {
        for (index, reading) in readings.iter().enumerate() {
            for (partition, records) in reading.partitions.iter().enumerate() {
                let gap = records.iter().enumerate().find(|(at, (offset, _))| *offset != *at as i64);
                if let Some((at, (offset, _))) = gap {
                    let what = format!(
                        "{}: partition {partition} has offset {offset} where {at} is next",
                        reading.what
                    );
                    self.add(Rule::Gap, what);
                }
            }
            if index > 0 {
                self.compare(&readings[index - 1], reading);
            }
        }
        if let Some(last) = readings.last() {
            let identities = |records: &Vec<(i64, Identity)>| records.iter().map(|(_, it)| *it).collect();
            self.log = last.partitions.iter().map(identities).collect();
        }
    }

    fn compare(&mut self, before: &Reading, after: &Reading) {
        for (partition, (old, new)) in before.partitions.iter().zip(&after.partitions).enumerate() {
            if new.len() < old.len() {
                let what = format!(
                    "partition {partition} had {} records ({}), and {} later ({})",
                    old.len(),
                    before.what,
                    new.len(),
                    after.what
                );
                self.add(Rule::Lost, what);
            }
            if let Some((old, new)) = old.iter().zip(new).find(|(old, new)| old != new) {
                let what = format!(
                    "partition {partition}, offset {}: {} ({}), then {} ({})",
                    old.0,
                    named(old.1),
                    before.what,
                    named(new.1),
                    after.what
                );
                self.add(Rule::Divergence, what);
            }
        }
    }

    /// Each record was sent, and an idempotent producer's are there once and in order.
    fn what_is_there(&mut self, sent: &Register) {
        let mut found = Vec::new();
        for (partition, log) in self.log.iter().enumerate() {
            let mut last: HashMap<u32, u64> = HashMap::new();
            let mut there = HashSet::new();
            for (offset, it) in log.iter().enumerate() {
                let place = || format!("partition {partition}, offset {offset}: {}", named(*it));
                match sent.get(*it) {
                    None => found.push((Rule::Unsent, format!("{} was never sent", place()))),
                    Some(Sent { outcome: Outcome::Refused, .. }) => {
                        found.push((Rule::Unsent, format!("{} was given up unsent", place())))
                    }
                    Some(_) => {}
                }
                let is_new = there.insert(*it);
                if !sent.0.get(&(it.producer, it.partition)).is_some_and(|(idempotent, _)| *idempotent) {
                    continue;
                }
                if !is_new {
                    found.push((Rule::Twice, format!("{} is there before", place())));
                    continue;
                }
                if let Some(before) = last.get(&it.producer).filter(|before| **before > it.number) {
                    found.push((Rule::Order, format!("{} comes after record {before}", place())));
                }
                last.insert(it.producer, it.number);
            }
        }
        found.into_iter().for_each(|(rule, what)| self.add(rule, what));
    }

    /// What was acknowledged is there, where it was said to be. Of a producer that is not idempotent the first copies are in order.
    fn acknowledged(&mut self, producer: &Producer) {
        let mut first: HashMap<(u32, u64), i64> = HashMap::new();
        for log in &self.log {
            for (offset, it) in log.iter().enumerate().filter(|(_, it)| it.producer == producer.id) {
                first.entry((it.partition, it.number)).or_insert(offset as i64);
            }
        }
        let mut last: HashMap<u32, i64> = HashMap::new();
        for Sent { identity, outcome, told, .. } in &producer.sent {
            let Outcome::Written { offset } = *outcome else { continue };
            let partition = identity.partition;
            let place =
                format!("partition {partition}: {}, acknowledged at {} ms", named(*identity), told / 1000);
            let Some(copy) = first.get(&(partition, identity.number)).copied() else {
                self.add(Rule::Lost, format!("{place} with offset {offset:?}, is not there"));
                continue;
            };
            if let Some(offset) = offset
                && self.at(partition, offset) != Some(*identity)
            {
                let other = self.at(partition, offset).map_or("nothing".to_owned(), named);
                self.add(Rule::Divergence, format!("{place} with offset {offset}, where there is {other}"));
            }
            // Of an idempotent one the order of all is looked at where the log is.
            if !producer.idempotent && last.insert(partition, copy).is_some_and(|before| before > copy) {
                self.add(Rule::Order, format!("{place}, stands at {copy}, before an earlier one"));
            }
        }
    }

    /// What is sent after something was acknowledged or read comes after it in its partition, whoever sent both.
    fn real_time(&mut self, history: &History) {
        let mut sends: BTreeMap<u32, Vec<(&Sent, i64)>> = BTreeMap::new();
        let mut known: BTreeMap<u32, Vec<(Micros, i64, Identity)>> = BTreeMap::new();
        for sent in history.producers.iter().flat_map(|producer| &producer.sent) {
            if let Outcome::Written { offset: Some(offset) } = sent.outcome {
                sends.entry(sent.identity.partition).or_default().push((sent, offset));
                known.entry(sent.identity.partition).or_default().push((sent.told, offset, sent.identity));
            }
        }
        for consumer in &history.consumers {
            for poll in &consumer.polls {
                for seen in &consumer.seen[poll.records.clone()] {
                    known.entry(seen.partition).or_default().push((poll.ended, seen.offset, seen.identity));
                }
            }
        }
        for (partition, mut sends) in sends {
            let mut known = known.remove(&partition).unwrap_or_default();
            sends.sort_by_key(|(sent, _)| sent.sent);
            known.sort_by_key(|(time, ..)| *time);
            let mut known = known.into_iter().peekable();
            let mut highest: Option<(i64, Identity)> = None;
            for (sent, offset) in sends {
                while let Some((_, at, it)) = known.next_if(|(time, ..)| *time < sent.sent) {
                    highest = highest.max(Some((at, it)));
                }
                if let Some((at, before)) = highest.filter(|(at, _)| *at >= offset) {
                    let what = format!(
                        "partition {partition}: {} got offset {offset}, and was sent after {} was known at {at}",
                        named(sent.identity),
                        named(before)
                    );
                    self.add(Rule::Order, what);
                }
            }
        }
    }

    /// What was polled is there; without a rebalance one offset follows the other.
    fn polled(&mut self, consumer: &Consumer) {
        /// The last offset of a partition, and the rebalances known when its poll began.
        struct Last(i64, u32);
        let mut last: HashMap<u32, Last> = HashMap::new();
        for poll in &consumer.polls {
            for seen in &consumer.seen[poll.records.clone()] {
                let place =
                    format!("{}: partition {}, offset {}", consumer.name, seen.partition, seen.offset);
                match self.at(seen.partition, seen.offset) {
                    Some(it) if it == seen.identity => {}
                    None => self.add(
                        Rule::Lost,
                        format!("{place}: {} was read, and is not there", named(seen.identity)),
                    ),
                    Some(it) => {
                        let what = format!(
                            "{place}: {} was read where there is {}",
                            named(seen.identity),
                            named(it)
                        );
                        self.add(Rule::Divergence, what);
                    }
                }
                let before = last.insert(seen.partition, Last(seen.offset, poll.rebalances.0));
                let next = match (&before, &consumer.group) {
                    (Some(Last(offset, rebalances)), _) if *rebalances == poll.rebalances.1 => offset + 1,
                    (None, None) => 0,
                    // Another member may have had the partition in between: see `groups`.
                    _ => continue,
                };
                if seen.offset > next {
                    self.add(Rule::Skipped, format!("{place} came where {next} is next"));
                } else if seen.offset < next {
                    self.add(Rule::WentBack, format!("{place} came where {next} is next"));
                }
            }
        }
        if consumer.group.is_none() {
            for (partition, end) in self.ends() {
                let next = last.get(&partition).map_or(0, |Last(offset, _)| offset + 1);
                if next < end {
                    let what =
                        format!("{}: partition {partition} was read up to {next} of {end}", consumer.name);
                    self.add(Rule::Unavailable, what);
                }
            }
        }
    }

    fn ends(&self) -> Vec<(u32, i64)> {
        self.log.iter().enumerate().map(|(partition, log)| (partition as u32, log.len() as i64)).collect()
    }

    /// A group's members together have read all, and one that takes over begins where the group has committed, or later.
    fn groups(&mut self, consumers: &[Consumer]) {
        let mut groups: BTreeMap<&str, Vec<&Consumer>> = BTreeMap::new();
        for consumer in consumers {
            if let Some(group) = &consumer.group {
                groups.entry(group).or_default().push(consumer);
            }
        }
        for (group, members) in groups {
            let mut read: HashMap<u32, HashSet<i64>> = HashMap::new();
            for seen in members.iter().flat_map(|member| &member.seen) {
                read.entry(seen.partition).or_default().insert(seen.offset);
            }
            for (partition, end) in self.ends() {
                let read = read.get(&partition);
                let is_unread = |offset: &i64| !read.is_some_and(|read| read.contains(offset));
                if let Some(offset) = (0..end).find(is_unread) {
                    let beyond = read.into_iter().flatten().any(|read| *read > offset);
                    let rule = if beyond { Rule::Skipped } else { Rule::Unavailable };
                    self.add(
                        rule,
                        format!(
                            "group {group}: nobody read offset {offset} of {end} of partition {partition}"
                        ),
                    );
                }
            }
            members.iter().for_each(|member| self.takes_over(group, member, &members));
        }
    }

    fn takes_over(&mut self, group: &str, member: &Consumer, members: &[&Consumer]) {
        let mut last: HashMap<u32, u32> = HashMap::new();
        // The offset was asked for after that.
        let mut since = member.began;
        for poll in &member.polls {
            for seen in &member.seen[poll.records.clone()] {
                let known = last.insert(seen.partition, poll.rebalances.0);
                if known == Some(poll.rebalances.1) {
                    continue;
                }
                if let Some(committed) =
                    committed(members, seen.partition, since).filter(|at| *at > seen.offset)
                {
                    let what = format!(
                        "group {group}: {} begins at offset {} of partition {}, and {committed} was committed before",
                        member.name, seen.offset, seen.partition
                    );
                    self.add(Rule::WentBack, what);
                }
            }
            since = poll.began;
        }
    }
}

/// The highest offset that the group was told to have committed before this time; none if a commit that nobody answered
/// may have put it back.
fn committed(members: &[&Consumer], partition: u32, before: Micros) -> Option<i64> {
    let mut highest: Option<i64> = None;
    for commit in members.iter().flat_map(|member| &member.commits).filter(|commit| commit.asked < before) {
        for (_, offset) in commit.offsets.iter().filter(|(at, _)| *at == partition) {
            match commit.answered {
                Some(answered) if answered < before => highest = highest.max(Some(*offset)),
                Some(_) => {}
                None => return None,
            }
        }
    }
    highest
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
