//! Term history: where each term of a log began, as a Raft index and as a Kafka offset (Raft §5.3; KIP-101, KIP-320: a
//! term is Kafka's leader epoch).
//!
//! Raft asks for the term of any entry that is kept, also of a term in which no record was appended. Kafka's epochs are a
//! view of it: those with records, from the log start offset on.

use crate::ids::RaftIndex;

/// The term before the first entry of all.
pub const NO_TERM: i32 = -1;

/// Terms a log remembers. With more, the oldest entries are not given by index any more, but by whole segments.
pub const TERMS_MAX: usize = 1024;

/// What [`TermHistory::end_offset`] answers when it does not know: Kafka's UNDEFINED_EPOCH and UNDEFINED_EPOCH_OFFSET.
pub const UNDEFINED: EpochEnd = EpochEnd { epoch: -1, end_offset: -1 };

/// The largest epoch not above the one asked for, and the offset after its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: i32,
    pub end_offset: i64,
}

/// Where a term began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermStart {
    pub term: i32,
    /// Of its first entry.
    pub index: RaftIndex,
    /// Of its first record, or the one that the next record takes.
    pub offset: i64,
}

/// Terms in ascending order, each with its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TermHistory {
    starts: Vec<TermStart>,
    /// The first entry whose term is known, and the term of the one before it.
    first: RaftIndex,
    before: i32,
    log_start_offset: i64,
}

impl Default for TermHistory {
    fn default() -> TermHistory {
        TermHistory::beginning_at(RaftIndex(0), NO_TERM, 0)
    }
}

impl TermHistory {
    /// Of a log whose first entry will be `first`, at `offset`, after one of term `before`.
    pub fn beginning_at(first: RaftIndex, before: i32, offset: i64) -> TermHistory {
        TermHistory { starts: Vec::new(), first, before, log_start_offset: offset }
    }

    /// From a checkpoint. `None` if the starts do not ascend, or are too many.
    pub fn from_starts(
        first: RaftIndex,
        before: i32,
        log_start_offset: i64,
        starts: Vec<TermStart>,
    ) -> Option<TermHistory> {
        let ascending = starts
            .windows(2)
            .all(|w| w[0].term < w[1].term && w[0].index <= w[1].index && w[0].offset <= w[1].offset);
        let is_sound = ascending && starts.len() <= TERMS_MAX;
        is_sound.then_some(TermHistory { starts, first, before, log_start_offset })
    }

    /// From where only epochs and offsets are known, of a log that ends at `next`: what there is so far is not given by
    /// index.
    pub fn without_indexes(
        next: RaftIndex,
        log_start_offset: i64,
        epochs: impl IntoIterator<Item = (i32, i64)>,
    ) -> Option<TermHistory> {
        let start = |(term, offset)| TermStart { term, index: next, offset };
        let mut starts: Vec<TermStart> = epochs.into_iter().map(start).collect();
        let before = starts.last().map_or(NO_TERM, |last| last.term);
        starts.drain(..starts.len().saturating_sub(TERMS_MAX));
        TermHistory::from_starts(next, before, log_start_offset, starts)
    }

    pub fn starts(&self) -> &[TermStart] {
        &self.starts
    }

    /// The first entry whose term is known.
    pub fn first(&self) -> RaftIndex {
        self.first
    }

    /// The term of the entry before [`TermHistory::first`].
    pub fn before(&self) -> i32 {
        self.before
    }

    /// A batch of `term` at `index` begins at `offset`. Terms never fall.
    pub fn note(&mut self, term: i32, index: RaftIndex, offset: i64) {
        if self.starts.last().is_some_and(|last| last.term >= term) {
            return;
        }
        self.starts.push(TermStart { term, index, offset });
        if self.starts.len() > TERMS_MAX {
            self.before = self.starts.remove(0).term;
            self.first = self.first.max(self.starts[0].index);
        }
    }

    /// The term of the last batch.
    pub fn latest(&self) -> Option<i32> {
        self.starts.last().map(|last| last.term)
    }

    /// The term of the entry at `index`, which is below the log's end; `None` if it is not known any more.
    pub fn term_at(&self, index: RaftIndex) -> Option<i32> {
        if index < self.first {
            return None;
        }
        let after = self.starts.partition_point(|start| start.index <= index);
        after.checked_sub(1).map(|i| self.starts[i].term)
    }

    /// Entries below `first` are gone.
    pub fn forget_below(&mut self, first: RaftIndex) {
        if first <= self.first {
            return;
        }
        let last_gone = first.0.checked_sub(1).map(RaftIndex);
        self.before = last_gone.and_then(|index| self.term_at(index)).unwrap_or(self.before);
        self.first = first;
        let spanning = self.starts.partition_point(|start| start.index <= first);
        self.starts.drain(..spanning.saturating_sub(1));
    }

    /// The log start offset is `offset` from now on.
    pub fn start_at(&mut self, offset: i64) {
        self.log_start_offset = self.log_start_offset.max(offset);
    }

    /// The log now ends before the entry at `index`, at `offset`: what began later is forgotten.
    pub fn cut_back(&mut self, index: RaftIndex, offset: i64) {
        self.starts.retain(|start| start.index < index || start.offset < offset);
        if index < self.first {
            self.first = index;
            self.before = self.latest().unwrap_or(self.before);
        }
    }

    /// Epochs as Kafka tells of them, each with the offset it begins at: without those that hold no record, and from the log
    /// start offset on.
    pub fn epochs(&self) -> impl Iterator<Item = (i32, i64)> {
        let spanning = self.starts.partition_point(|start| start.offset <= self.log_start_offset);
        let kept = &self.starts[spanning.saturating_sub(1)..];
        let next = kept.iter().skip(1).map(|next| next.offset).chain([i64::MAX]);
        let with_records = kept.iter().zip(next).filter(|(start, next)| start.offset < *next);
        with_records.map(|(start, _)| (start.term, start.offset.max(self.log_start_offset)))
    }

    /// The epoch the record at `offset` was appended in.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        if offset < self.log_start_offset {
            return None;
        }
        let after = self.starts.partition_point(|start| start.offset <= offset);
        after.checked_sub(1).map(|i| self.starts[i].term)
    }

    /// Whether a batch at `offset` can bear `epoch`. Of what it has forgotten the history knows only the last.
    pub fn admits(&self, epoch: i32, offset: i64) -> bool {
        match (self.epoch_at(offset), self.starts.first()) {
            (Some(known), _) => known == epoch,
            (None, Some(oldest)) => offset >= self.log_start_offset && epoch < oldest.term,
            (None, None) => false,
        }
    }

    /// OffsetForLeaderEpoch's answer, by Kafka's rules, of the log before `end`, which ends the latest epoch.
    pub fn end_offset(&self, requested: i32, end: i64) -> EpochEnd {
        if requested < 0 {
            return UNDEFINED;
        }
        let begun = &self.starts[..self.starts.partition_point(|start| start.offset <= end)];
        if begun.last().is_some_and(|latest| latest.term == requested) {
            return EpochEnd { epoch: requested, end_offset: end };
        }
        let mut floor = None;
        for (epoch, start) in self.epochs().take_while(|(_, start)| *start <= end) {
            if epoch > requested {
                // Below every epoch known: what it had was deleted here.
                return EpochEnd { epoch: floor.unwrap_or(requested), end_offset: start };
            }
            floor = Some(epoch);
        }
        // Above every epoch known: the asker is ahead of this log.
        UNDEFINED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Terms 2, 4 and 7; term 3 has internal entries alone.
    fn history() -> TermHistory {
        let mut h = TermHistory::default();
        for (term, index, offset) in [(2, 0, 0), (2, 4, 5), (3, 7, 10), (4, 9, 10), (7, 15, 20)] {
            h.note(term, RaftIndex(index), offset);
        }
        h
    }

    fn epochs(h: &TermHistory) -> Vec<(i32, i64)> {
        h.epochs().collect()
    }

    fn terms(h: &TermHistory, indexes: &[u64]) -> Vec<Option<i32>> {
        indexes.iter().map(|index| h.term_at(RaftIndex(*index))).collect()
    }

    #[test]
    fn answers_as_kafka_does() {
        let h = history();
        let answer = |epoch| {
            let e = h.end_offset(epoch, 33);
            (e.epoch, e.end_offset)
        };
        for (asked, expected) in [
            (-1, (-1, -1)),
            (0, (0, 0)),
            (2, (2, 10)),
            (3, (2, 10)),
            (4, (4, 20)),
            (6, (4, 20)),
            (7, (7, 33)),
            (8, (-1, -1)),
        ] {
            assert_eq!(answer(asked), expected, "epoch {asked}");
        }
        assert_eq!(TermHistory::default().end_offset(0, 0), UNDEFINED);
        // Of what is not committed nothing is said.
        let answer = |epoch| h.end_offset(epoch, 15);
        assert_eq!([answer(4), answer(7)], [EpochEnd { epoch: 4, end_offset: 15 }, UNDEFINED]);
    }

    #[test]
    fn epoch_of_an_offset() {
        let h = history();
        assert_eq!(h.epoch_at(-1), None);
        assert_eq!(h.epoch_at(0), Some(2));
        assert_eq!(h.epoch_at(10), Some(4));
        assert_eq!(h.epoch_at(1000), Some(7));
    }

    #[test]
    fn term_of_an_index() {
        let h = history();
        let expected = [Some(2), Some(2), Some(3), Some(3), Some(4), Some(7)];
        assert_eq!(terms(&h, &[0, 6, 7, 8, 9, 1000]), expected);
        assert_eq!((h.first(), h.before()), (RaftIndex(0), NO_TERM));
        assert_eq!(TermHistory::default().term_at(RaftIndex(0)), None);
    }

    #[test]
    fn what_goes_in_front_leaves_the_term_before_it() {
        let mut h = history();
        h.start_at(12);
        assert_eq!(epochs(&h), [(4, 12), (7, 20)]);
        assert_eq!(terms(&h, &[0, 8]), [Some(2), Some(3)], "entries stay as long as their segments do");
        h.forget_below(RaftIndex(9));
        assert_eq!((h.first(), h.before()), (RaftIndex(9), 3));
        assert_eq!(terms(&h, &[8, 9]), [None, Some(4)]);
        assert_eq!(epochs(&h), [(4, 12), (7, 20)]);
        h.forget_below(RaftIndex(8));
        assert_eq!(h.first(), RaftIndex(9), "what is gone stays gone");
        h.start_at(100);
        h.forget_below(RaftIndex(40));
        assert_eq!((epochs(&h), h.before(), h.starts().len()), (vec![(7, 100)], 7, 1));
    }

    #[test]
    fn what_is_cut_behind_leaves_internal_terms_too() {
        let mut h = history();
        h.cut_back(RaftIndex(9), 10);
        assert_eq!((epochs(&h), h.latest()), (vec![(2, 0), (3, 10)], Some(3)));
        h.cut_back(RaftIndex(8), 10);
        assert_eq!(h.latest(), Some(3));
        h.cut_back(RaftIndex(7), 10);
        assert_eq!((epochs(&h), h.latest()), (vec![(2, 0)], Some(2)));
        h.cut_back(RaftIndex(0), 0);
        assert_eq!((epochs(&h), h.latest()), (vec![], None));
    }

    #[test]
    fn an_empty_epoch_leaves_no_trace_for_kafka() {
        let mut h = TermHistory::default();
        h.note(1, RaftIndex(0), 0);
        assert_eq!(epochs(&h), [(1, 0)], "the last is there, whatever it holds");
        h.note(3, RaftIndex(2), 0);
        assert_eq!(epochs(&h), [(3, 0)]);
        assert_eq!(terms(&h, &[1, 2]), [Some(1), Some(3)]);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut h = TermHistory::default();
        let last = TERMS_MAX as u64 + 10;
        (0..last).for_each(|n| h.note(n as i32, RaftIndex(n), n as i64));
        assert_eq!((h.starts().len(), h.first(), h.before()), (TERMS_MAX, RaftIndex(10), 9));
        assert_eq!(terms(&h, &[9, 10]), [None, Some(10)]);
        assert!(h.admits(3, 3) && h.admits(10, 10) && !h.admits(10, 3) && !h.admits(9, 10));
        let starts = [h.starts(), h.starts()].concat();
        assert_eq!(TermHistory::from_starts(RaftIndex(0), 0, 0, starts), None);
    }

    #[test]
    fn without_indexes_what_was_there_is_known_by_offset_alone() {
        let mut h = TermHistory::without_indexes(RaftIndex(30), 0, [(1, 0), (4, 10)]).expect("they ascend");
        assert_eq!((epochs(&h), terms(&h, &[29, 30])), (vec![(1, 0), (4, 10)], vec![None, Some(4)]));
        assert_eq!((h.first(), h.before()), (RaftIndex(30), 4));
        h.note(5, RaftIndex(32), 40);
        assert_eq!(terms(&h, &[31, 32]), [Some(4), Some(5)]);
        h.cut_back(RaftIndex(20), 9);
        assert_eq!((epochs(&h), h.first(), h.before()), (vec![(1, 0)], RaftIndex(20), 1));
        assert_eq!(TermHistory::without_indexes(RaftIndex(0), 0, [(2, 0), (2, 1)]), None);
    }
}
