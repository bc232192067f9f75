//! What the application's threads and the driver share of a consumer: which partitions, from where, and what has come of them.

use super::chunk::Chunk;
use super::commit::Commits;
use super::record::ConsumerRecord;
use crate::driver;
use crate::error::{Error, Result};
use crate::groups::{Committer, NewOffset};
use crate::leaders::OffsetSpec;
use crate::planted::{Fault, planted};
use crate::topic_partition::TopicPartition;
use corelog_wire::Str;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

/// Errors kept for polling; later ones are dropped until some are taken.
const ERRORS_MAX: usize = 64;

#[derive(Default)]
pub(super) struct Buffer {
    pub(super) partitions: BTreeMap<TopicPartition, Place>,
    /// Those with something to poll, in turn.
    ready: VecDeque<TopicPartition>,
    /// Fetched and not yet polled.
    pub(super) bytes: usize,
    errors: VecDeque<Error>,
    versions: u64,
    /// Polls under way, and those of them that wait, each until then.
    polls: usize,
    pollers: Vec<(Waker, Instant)>,
    driver: Option<Waker>,
    news: bool,
    pub(super) rebalance: Rebalance,
    /// Since when nobody polls. While somebody does, the time until which: a future that is kept and not driven is no poll.
    pub(super) idle_since: Option<Instant>,
    /// It left its group since nobody polled, and comes back with the next poll.
    pub(super) is_away: bool,
    /// Offsets known to be committed, so as not to commit them again.
    pub(super) committed: BTreeMap<TopicPartition, i64>,
    pub(super) commits: Commits,
    /// What the group is joined for; none while partitions are assigned by hand.
    pub(super) subscription: Option<Arc<BTreeSet<Str>>>,
    pub(super) subscription_version: u64,
    /// As whom to commit, while a member. None also as soon as a commit tells that it is none any more.
    pub(super) committer: Option<Committer>,
    /// On the way to its group's next generation: that the coordinator is there already is no news.
    pub(super) is_joining: bool,
    pub(super) closed: Option<Error>,
}

/// Partitions may be taken away only between two polls: what was polled before counts as processed then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Rebalance {
    #[default]
    None,
    /// The group waits for a poll.
    Wanted,
    /// Polls give no records until it is over.
    Granted,
}

/// The next record to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: i64,
    /// Of the record before it, where known.
    pub(super) leader_epoch: Option<i32>,
}

impl Position {
    pub(super) fn at(offset: i64) -> Position {
        Position { offset, leader_epoch: None }
    }
}

/// One partition of the consumer's.
pub(super) struct Place {
    /// Changes whenever what is under way for it no longer counts.
    pub(super) version: u64,
    /// Of polling.
    pub(super) position: Option<Position>,
    /// Up to which polled records count as processed: the position at the beginning of the latest poll.
    processed: Option<Position>,
    pub(super) start: Start,
    /// A question about `start` is under way.
    pub(super) is_asked: bool,
    /// Since when such questions fail.
    pub(super) unresolved_since: Option<Instant>,
    /// The leader epoch for which `start` is known to be there.
    pub(super) validated: Option<i32>,
    chunks: VecDeque<Chunk>,
    records: VecDeque<ConsumerRecord>,
    /// Where polling is once `records` is empty.
    records_end: Option<Position>,
    pub(super) bytes: usize,
    /// Whether it is among those with something to poll.
    is_ready: bool,
    pub(super) paused: bool,
    /// Assigned by the application: no affair of the group's, which may just be being left.
    pub(super) by_hand: bool,
    /// After an error that only seeking can mend.
    pub(super) halted: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) failures: u32,
    pub(super) high_watermark: Option<i64>,
    pub(super) last_stable_offset: Option<i64>,
}

/// Of fetching, which is ahead of polling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// To be found: the committed offset, else as `offset_reset` says.
    Committed,
    /// To be found.
    Seek(OffsetSpec),
    At(Position),
}

/// A step of polling.
pub(super) enum Step {
    /// At least one record.
    Records(Vec<ConsumerRecord>),
    /// This has to be parsed, and given back.
    Parse(TopicPartition, u64, Chunk),
    Error(Error),
    Nothing,
}

impl Buffer {
    /// Whoever never polls is idle from the beginning.
    pub(super) fn new() -> Buffer {
        Buffer { idle_since: Some(driver::now()), ..Default::default() }
    }

    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    /// Tells the driver that something changed.
    pub(super) fn tell_driver(&mut self) {
        self.news = true;
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    pub(super) fn poll_news(&mut self, waker: &Waker) -> bool {
        match &mut self.driver {
            Some(driver) => driver.clone_from(waker),
            None => self.driver = Some(waker.clone()),
        }
        std::mem::take(&mut self.news)
    }

    pub(super) fn wake_pollers(&mut self) {
        self.pollers.drain(..).for_each(|(poller, _)| poller.wake());
    }

    /// Wakes this poller when something comes, or at the latest then.
    pub(super) fn wait(&mut self, waker: &Waker, until: Instant) {
        if planted(Fault::OnePollIsWoken) {
            self.pollers.clear();
        }
        let is_sooner = self.pollers.iter().all(|(_, known)| until < *known);
        match self.pollers.iter_mut().find(|(poller, _)| poller.will_wake(waker)) {
            Some((_, known)) => *known = until.min(*known),
            None => self.pollers.push((waker.clone(), until)),
        }
        if is_sooner {
            self.tell_driver();
        }
    }

    /// Wakes pollers whose time is over; says when the next one's will be.
    pub(super) fn pollers_until(&mut self, now: Instant) -> Option<Instant> {
        self.pollers.extract_if(.., |(_, until)| *until <= now).for_each(|(poller, _)| poller.wake());
        self.pollers.iter().map(|(_, until)| *until).min()
    }

    pub(super) fn subscribe(&mut self, topics: Option<BTreeSet<Str>>) {
        self.subscription = topics.map(Arc::new);
        // From now on somebody has to poll.
        self.idle_since = self.idle_since.max(Some(driver::now()));
        self.subscription_version += 1;
        self.tell_driver();
    }

    /// Makes these the consumer's partitions. Those that it has already go on where they are, unless they are given a start.
    pub(super) fn assign(&mut self, partitions: BTreeMap<TopicPartition, Option<Start>>) {
        let gone: Vec<TopicPartition> =
            self.partitions.keys().filter(|at| !partitions.contains_key(*at)).cloned().collect();
        self.revoke(&gone.into_iter().collect());
        for (at, start) in partitions {
            match (self.partitions.contains_key(&at), start) {
                (true, None) => {}
                (true, Some(start)) => drop(self.seek(&at, start)),
                (false, start) => {
                    let place = Place::new(self.next_version(), start.unwrap_or(Start::Committed));
                    self.partitions.insert(at, place);
                }
            }
        }
        self.tell_driver();
    }

    pub(super) fn assign_by_hand(&mut self, partitions: impl IntoIterator<Item = TopicPartition>) {
        self.assign(partitions.into_iter().map(|at| (at, None)).collect());
        self.partitions.values_mut().for_each(|place| place.by_hand = true);
    }

    /// Takes away what the group had given.
    pub(super) fn revoke_shared(&mut self, partitions: &BTreeSet<TopicPartition>) {
        let is_by_hand = |at: &TopicPartition| self.partitions.get(at).is_some_and(|place| place.by_hand);
        let shared = partitions.iter().filter(|at| !is_by_hand(at)).cloned().collect();
        self.revoke(&shared);
    }

    fn revoke(&mut self, partitions: &BTreeSet<TopicPartition>) {
        for at in partitions {
            if let Some(place) = self.partitions.remove(at) {
                self.bytes -= place.bytes;
            }
            self.committed.remove(at);
        }
        self.ready.retain(|at| !partitions.contains(at));
        self.tell_driver();
    }

    pub(super) fn seek(&mut self, at: &TopicPartition, start: Start) -> Result<()> {
        let version = self.next_version();
        let place = self.partitions.get_mut(at).ok_or_else(|| not_assigned(at))?;
        self.bytes -= place.bytes;
        let (paused, by_hand) = (place.paused, place.by_hand);
        *place = Place { paused, by_hand, ..Place::new(version, start) };
        if let Start::At(position) = start {
            // Where one seeks to is where one has read up to.
            (place.position, place.processed) = (Some(position), Some(position));
        }
        self.ready.retain(|ready| ready != at);
        self.tell_driver();
        Ok(())
    }

    /// Goes on at this position of the log, without what was fetched. That says nothing of what the application has processed.
    pub(super) fn rewind(&mut self, at: &TopicPartition, position: Position) {
        let Some(place) = self.partitions.get(at) else { return };
        let beyond = |processed: &Position| processed.offset > position.offset;
        let processed = place.processed.map(|it| if beyond(&it) { position } else { it });
        // It is there.
        let _ = self.seek(at, Start::At(position));
        if let Some(place) = self.partitions.get_mut(at) {
            place.processed = processed;
        }
    }

    /// The place, if the version still counts.
    pub(super) fn place(&mut self, at: &TopicPartition, version: u64) -> Option<&mut Place> {
        self.partitions.get_mut(at).filter(|place| place.version == version)
    }

    /// Fetching begins here.
    pub(super) fn start_at(&mut self, at: &TopicPartition, version: u64, position: Position) {
        let Some(place) = self.place(at, version) else { return };
        (place.start, place.position) = (Start::At(position), Some(position));
        place.resolve();
        self.wake_pollers();
    }

    /// Fetching begins where this is.
    pub(super) fn look_up(&mut self, at: &TopicPartition, version: u64, spec: OffsetSpec) {
        let Some(place) = self.place(at, version) else { return };
        place.start = Start::Seek(spec);
        place.resolve();
    }

    pub(super) fn ask_again(&mut self, at: &TopicPartition, version: u64) {
        if let Some(place) = self.place(at, version) {
            place.is_asked = false;
        }
    }

    pub(super) fn fetch_position(&mut self, at: &TopicPartition, version: u64) -> Option<Position> {
        match self.place(at, version)?.start {
            Start::At(position) => Some(position),
            Start::Committed | Start::Seek(_) => None,
        }
    }

    /// What was read is there in the log of this epoch's leader.
    pub(super) fn validated(&mut self, at: &TopicPartition, version: u64, leader_epoch: i32) {
        if let Some(place) = self.place(at, version) {
            place.validated = Some(leader_epoch);
            place.resolve();
        }
    }

    pub(super) fn pause(&mut self, partitions: &[TopicPartition], paused: bool) -> Result<()> {
        for at in partitions {
            let place = self.partitions.get_mut(at).ok_or_else(|| not_assigned(at))?;
            place.paused = paused;
            self.enqueue(at);
        }
        self.tell_driver();
        self.wake_pollers();
        Ok(())
    }

    /// Adds what was fetched, and where to fetch next.
    pub(super) fn add(&mut self, at: &TopicPartition, version: u64, chunk: Chunk, next: Position) {
        let Some(place) = self.partitions.get_mut(at).filter(|place| place.version == version) else {
            return;
        };
        place.start = Start::At(next);
        place.bytes += chunk.len;
        self.bytes += chunk.len;
        place.chunks.push_back(chunk);
        self.enqueue(at);
        self.wake_pollers();
    }

    fn enqueue(&mut self, at: &TopicPartition) {
        let Some(place) = self.partitions.get_mut(at) else { return };
        if place.has_records() && !place.paused && !std::mem::replace(&mut place.is_ready, true) {
            self.ready.push_back(at.clone());
        }
    }

    pub(super) fn fail(&mut self, error: Error) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push_back(error);
        }
        self.wake_pollers();
    }

    pub(super) fn begin_poll(&mut self, until: Instant) {
        self.polls += 1;
        self.idle_since = self.idle_since.max(Some(until));
        if std::mem::take(&mut self.is_away) {
            self.tell_driver();
        }
        self.confirm_polled();
        if self.rebalance == Rebalance::Wanted {
            self.grant();
        }
    }

    pub(super) fn end_poll(&mut self) {
        self.polls -= 1;
        if self.polls == 0 {
            self.idle_since = Some(driver::now());
            self.pollers.clear();
        }
    }

    /// The application says by itself up to where it is done.
    pub(super) fn confirm(&mut self, offsets: &BTreeMap<TopicPartition, NewOffset>) {
        for (at, new) in offsets {
            if let Some(place) = self.partitions.get_mut(at) {
                place.processed = Some(Position { offset: new.offset, leader_epoch: new.leader_epoch });
            }
        }
    }

    /// Polls give records again.
    pub(super) fn end_rebalance(&mut self) {
        self.rebalance = Rebalance::None;
        self.wake_pollers();
    }

    fn grant(&mut self) {
        self.rebalance = Rebalance::Granted;
        self.tell_driver();
    }

    /// The application is done with all that polls gave.
    pub(super) fn confirm_polled(&mut self) {
        for place in self.partitions.values_mut() {
            place.processed = place.position.or(place.processed);
        }
    }

    /// What may be committed without a word of the application's.
    pub(super) fn processed(&self) -> BTreeMap<TopicPartition, Position> {
        let known = self.partitions.iter().filter_map(|(at, place)| Some((at.clone(), place.processed?)));
        known.collect()
    }

    pub(super) fn positions(&self) -> BTreeMap<TopicPartition, Position> {
        let known = self.partitions.iter().filter_map(|(at, place)| Some((at.clone(), place.position?)));
        known.collect()
    }

    /// What there is to poll next, at most `max` records of it, and `bytes_max` bytes or one record.
    pub(super) fn step(&mut self, max: usize, bytes_max: usize) -> Step {
        if let Some(error) = self.errors.pop_front() {
            return Step::Error(error);
        }
        if let Some(error) = &self.closed {
            return Step::Error(error.clone());
        }
        match self.rebalance {
            Rebalance::None => {}
            Rebalance::Wanted => {
                // Nothing was given since this poll began: whatever was given before is processed.
                self.confirm_polled();
                self.grant();
                return Step::Nothing;
            }
            Rebalance::Granted => return Step::Nothing,
        }
        while let Some(at) = self.ready.pop_front() {
            let Some(place) = self.partitions.get_mut(&at) else { continue };
            if !place.paused
                && place.records.is_empty()
                && let Some(chunk) = place.chunks.pop_front()
            {
                // It stays ready: what comes for it meanwhile does not give it another turn.
                return Step::Parse(at, place.version, chunk);
            }
            place.is_ready = false;
            if place.paused || place.records.is_empty() {
                continue;
            }
            let mut bytes = 0;
            let fits = place.records.iter().take(max).take_while(|record| {
                bytes += record.size();
                bytes <= bytes_max
            });
            let take = fits.count().max(1);
            let records: Vec<ConsumerRecord> = place.records.drain(..take).collect();
            let behind =
                |last: &ConsumerRecord| Position { offset: last.offset + 1, leader_epoch: last.leader_epoch };
            place.position = match place.records.is_empty() {
                true => place.records_end.take(),
                false => records.last().map(behind),
            };
            // Each partition has its turn; one with records left goes on where the application's batch ended.
            self.enqueue(&at);
            return Step::Records(records);
        }
        Step::Nothing
    }

    /// Takes back what [`Step::Parse`] gave, with the records of its next batch, or none at its end.
    pub(super) fn parsed(
        &mut self,
        at: &TopicPartition,
        version: u64,
        chunk: Chunk,
        parsed: Result<Option<super::chunk::Parsed>>,
    ) -> Result<()> {
        let Some(place) = self.partitions.get_mut(at).filter(|place| place.version == version) else {
            return Ok(());
        };
        match parsed {
            Ok(Some(parsed)) => {
                match parsed.records.is_empty() {
                    true => place.position = Some(parsed.next),
                    false => place.records_end = Some(parsed.next),
                }
                place.records.extend(parsed.records);
                place.chunks.push_front(chunk);
            }
            Ok(None) => {
                place.bytes -= chunk.len;
                self.bytes -= chunk.len;
                // There is room to fetch more.
                self.tell_driver();
            }
            Err(error) => {
                (place.halted, place.is_ready) = (true, false);
                place.bytes -= chunk.len;
                self.bytes -= chunk.len;
                for chunk in place.chunks.drain(..) {
                    place.bytes -= chunk.len;
                    self.bytes -= chunk.len;
                }
                return Err(error);
            }
        }
        // Whole batches of one partition are polled before it is another one's turn.
        let Some(place) = self.partitions.get_mut(at) else { return Ok(()) };
        place.is_ready = place.has_records() && !place.paused;
        if place.is_ready {
            self.ready.push_front(at.clone());
        }
        Ok(())
    }
}

impl Place {
    fn new(version: u64, start: Start) -> Place {
        Place {
            version,
            position: None,
            processed: None,
            is_ready: false,
            start,
            is_asked: false,
            unresolved_since: None,
            validated: None,
            chunks: VecDeque::new(),
            records: VecDeque::new(),
            records_end: None,
            bytes: 0,
            paused: false,
            by_hand: false,
            halted: false,
            retry_at: None,
            failures: 0,
            high_watermark: None,
            last_stable_offset: None,
        }
    }

    /// A question is answered.
    fn resolve(&mut self) {
        (self.is_asked, self.unresolved_since) = (false, None);
        (self.retry_at, self.failures) = (None, 0);
    }

    pub(super) fn has_records(&self) -> bool {
        !self.records.is_empty() || !self.chunks.is_empty()
    }
}

pub(super) fn not_assigned(at: &TopicPartition) -> Error {
    Error::config(format!("{at} is not assigned to this consumer"), "assign it, or check the assignment")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leaders::Isolation;
    use corelog_wire::records::{BatchBuilder, BatchOptions};

    fn chunk(base_offset: i64, records: usize) -> (Chunk, Position) {
        let mut builder = BatchBuilder::new(BatchOptions { base_offset, ..Default::default() });
        for _ in 0..records {
            builder.append(1, None, Some(b"v"), &[]).unwrap();
        }
        Chunk::new(builder.build().unwrap(), base_offset, None, Isolation::ReadUncommitted).unwrap()
    }

    fn poll(buffer: &mut Buffer, max: usize) -> Vec<String> {
        buffer.begin_poll(driver::now());
        let mut polled = Vec::new();
        while polled.len() < max {
            match buffer.step(max - polled.len(), usize::MAX) {
                Step::Records(records) => {
                    polled.extend(records.iter().map(|it| format!("{}-{}", it.partition, it.offset)));
                }
                Step::Parse(at, version, mut chunk) => {
                    let parsed = chunk.next_batch(&at, 1 << 20);
                    buffer.parsed(&at, version, chunk, parsed).unwrap();
                }
                Step::Error(error) => panic!("{error}"),
                Step::Nothing => break,
            }
        }
        buffer.end_poll();
        polled
    }

    fn filled() -> (Buffer, TopicPartition, TopicPartition) {
        let mut buffer = Buffer::default();
        let (a, b) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let start = |offset| Some(Start::At(Position::at(offset)));
        let starts = [(a.clone(), start(10)), (b.clone(), start(0))];
        buffer.assign(starts.into_iter().collect());
        for (at, base) in [(&a, 10), (&b, 0)] {
            let (chunk, next) = chunk(base, 3);
            let version = buffer.partitions[at].version;
            buffer.add(at, version, chunk, next);
        }
        (buffer, a, b)
    }

    #[test]
    fn partitions_take_turns_and_positions_follow() {
        let (mut buffer, a, b) = filled();
        assert!(buffer.bytes > 0);
        assert_eq!(poll(&mut buffer, 2), ["0-10", "0-11"]);
        assert_eq!(buffer.positions()[&a].offset, 12);
        assert!(!buffer.processed().contains_key(&a), "the application has it, and is not done with it");
        assert_eq!(poll(&mut buffer, 9), ["1-0", "1-1", "1-2", "0-12"]);
        assert_eq!(buffer.processed()[&a].offset, 12);
        assert_eq!((buffer.positions()[&a].offset, buffer.positions()[&b].offset), (13, 3));
        assert!(poll(&mut buffer, 9).is_empty());
        assert_eq!(buffer.processed()[&b].offset, 3);
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn polls_are_bounded_in_bytes_and_give_one_record_at_least() {
        let (mut buffer, a, _) = filled();
        for (bytes_max, expected) in [(2, 2), (0, 1)] {
            let records = loop {
                match buffer.step(9, bytes_max) {
                    Step::Records(records) => break records,
                    Step::Parse(at, version, mut chunk) => {
                        let parsed = chunk.next_batch(&at, 1 << 20);
                        buffer.parsed(&at, version, chunk, parsed).unwrap();
                    }
                    _ => panic!("there are records"),
                }
            };
            assert_eq!(records.len(), expected);
        }
        assert_eq!(buffer.positions()[&a].offset, 12);
    }

    #[test]
    fn seeking_drops_what_was_fetched_before() {
        let (mut buffer, a, b) = filled();
        let old = buffer.partitions[&a].version;
        let five = Start::At(Position::at(5));
        buffer.seek(&a, five).unwrap();
        let (late, next) = chunk(13, 1);
        buffer.add(&a, old, late, next);
        assert_eq!(poll(&mut buffer, 9), ["1-0", "1-1", "1-2"]);
        assert_eq!(buffer.partitions[&a].start, five);
        buffer.revoke(&BTreeSet::from([b.clone()]));
        assert!(buffer.seek(&b, five).is_err());
        assert_eq!(buffer.bytes, 0);
    }

    #[test]
    fn a_rewind_confirms_nothing() {
        let (mut buffer, a, _) = filled();
        assert_eq!(poll(&mut buffer, 2), ["0-10", "0-11"]);
        buffer.rewind(&a, Position::at(12));
        assert_eq!(buffer.positions()[&a].offset, 12);
        assert!(!buffer.processed().contains_key(&a), "the application has it, and is not done with it");
        buffer.confirm_polled();
        buffer.rewind(&a, Position::at(11));
        assert_eq!(buffer.processed()[&a].offset, 11, "what came after it is lost");
    }

    #[test]
    fn paused_partitions_keep_what_they_have() {
        let (mut buffer, a, _) = filled();
        buffer.pause(std::slice::from_ref(&a), true).unwrap();
        assert_eq!(poll(&mut buffer, 9), ["1-0", "1-1", "1-2"]);
        buffer.pause(std::slice::from_ref(&a), false).unwrap();
        assert_eq!(poll(&mut buffer, 9), ["0-10", "0-11", "0-12"]);
    }

    #[test]
    fn a_rebalance_waits_for_a_poll_and_stops_records() {
        let (mut buffer, a, _) = filled();
        assert_eq!(poll(&mut buffer, 2), ["0-10", "0-11"]);
        buffer.rebalance = Rebalance::Wanted;
        assert!(poll(&mut buffer, 9).is_empty());
        assert_eq!(buffer.rebalance, Rebalance::Granted);
        assert_eq!(buffer.processed()[&a].offset, 12);
        assert!(poll(&mut buffer, 9).is_empty());
        buffer.rebalance = Rebalance::None;
        assert_eq!(poll(&mut buffer, 9).len(), 4);
    }
}
