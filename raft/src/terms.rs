//! Which term each entry of a log has, without its entries.

use crate::ids::{RaftIndex, Term};
use crate::log::LogStart;

/// The terms of a log's entries: one pair for each term, however many entries it has.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    start: LogStart,
    /// Each term with the index of its first entry, in order, from the first kept entry on.
    runs: Vec<(RaftIndex, Term)>,
    next: RaftIndex,
}

impl Terms {
    /// `None`: these are no terms of a log. They rise, begin where it begins, and end before it ends.
    pub fn new(start: LogStart, runs: Vec<(RaftIndex, Term)>, next: RaftIndex) -> Option<Terms> {
        let begins = runs.first().map_or(next, |&(index, _)| index) == start.first;
        let rises = runs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        let after_start = runs.first().is_none_or(|&(_, term)| term >= start.term_before && term > Term(0));
        let before_end = runs.last().is_none_or(|&(index, _)| index < next);
        (begins && rises && after_start && before_end).then_some(Terms { start, runs, next })
    }

    pub fn first(&self) -> RaftIndex {
        self.start.first
    }

    pub fn next(&self) -> RaftIndex {
        self.next
    }

    /// The term of a kept entry.
    pub fn at(&self, index: RaftIndex) -> Option<Term> {
        if index < self.start.first || index >= self.next {
            return None;
        }
        let after = self.runs.partition_point(|&(first, _)| first <= index);
        Some(self.runs[after - 1].1)
    }

    /// The term of the entry before `end`: of the last one where `end` ends a log.
    pub fn before(&self, end: RaftIndex) -> Option<Term> {
        if end == self.start.first {
            return Some(self.start.term_before);
        }
        self.at(RaftIndex(end.0.checked_sub(1)?))
    }

    /// Where this log may match one that has `term` before `end`, and this log's term there: it is the last place at or
    /// below `end` before which the term is no later.
    pub fn may_match(&self, end: RaftIndex, term: Term) -> (RaftIndex, Term) {
        let mut end = end.min(self.next);
        while let Some(found) = self.before(end) {
            if found <= term || end == self.start.first {
                return (end, found);
            }
            let run = self.runs.iter().rev().find(|&&(first, _)| first < end);
            end = run.expect("an entry before the end").0;
        }
        // Below what is kept: nothing is known of it.
        (end, Term(0))
    }

    /// An entry at `index`, after what the log has below it: what it had from there on is cut.
    pub fn put(&mut self, index: RaftIndex, term: Term) {
        assert!(
            index >= self.start.first && index <= self.next,
            "a gap in the log: {index} after {}",
            self.next
        );
        if index < self.next {
            self.cut(index);
        }
        if self.runs.last().is_none_or(|&(_, last)| last != term) {
            assert!(
                self.runs.last().is_none_or(|&(_, last)| last < term),
                "a term that falls: {term} at {index}"
            );
            self.runs.push((index, term));
        }
        self.next = index.next();
    }

    fn cut(&mut self, from: RaftIndex) {
        let kept = self.runs.partition_point(|&(first, _)| first < from);
        self.runs.truncate(kept);
        self.next = from;
    }

    /// The entries below `first` are kept no more.
    pub fn drop_below(&mut self, first: RaftIndex) {
        if first <= self.start.first || first > self.next {
            return;
        }
        self.start.term_before = self.before(first).expect("an entry of this log");
        self.start.first = first;
        let passed = self.runs.partition_point(|&(index, _)| index <= first);
        self.runs.drain(..passed.saturating_sub(1));
        if first == self.next {
            self.runs.clear();
        } else if let Some(run) = self.runs.first_mut() {
            run.0 = first;
        }
    }

    /// The log begins anew, empty.
    pub fn reset(&mut self, start: LogStart) {
        *self = Terms { start, runs: Vec::new(), next: start.first };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        let start = LogStart { first: RaftIndex(3), term_before: Term(1) };
        Terms::new(start, vec![(RaftIndex(3), Term(1)), (RaftIndex(5), Term(4))], RaftIndex(8)).unwrap()
    }

    #[test]
    fn each_index_has_the_term_of_its_run() {
        let terms = terms();
        let of = |index| terms.at(RaftIndex(index)).map(|term| term.0);
        assert_eq!(
            (2..9).map(of).collect::<Vec<_>>(),
            [None, Some(1), Some(1), Some(4), Some(4), Some(4), None]
        );
        assert_eq!(terms.before(RaftIndex(3)), Some(Term(1)));
        assert_eq!(terms.before(RaftIndex(2)), None);
        assert_eq!(terms.before(RaftIndex(8)), Some(Term(4)));
    }

    #[test]
    fn logs_may_match_where_the_term_is_no_later() {
        let may_match = |end, term| {
            let (end, term) = terms().may_match(RaftIndex(end), Term(term));
            (end.0, term.0)
        };
        assert_eq!(may_match(9, 4), (8, 4));
        assert_eq!(may_match(7, 9), (7, 4));
        assert_eq!(may_match(7, 3), (5, 1));
        assert_eq!(may_match(4, 1), (4, 1));
        assert_eq!(may_match(8, 0), (3, 1));
        assert_eq!(may_match(1, 7), (1, 0));
    }

    #[test]
    fn an_entry_cuts_what_follows_it() {
        let mut terms = terms();
        terms.put(RaftIndex(5), Term(6));
        assert_eq!((terms.next(), terms.at(RaftIndex(5))), (RaftIndex(6), Some(Term(6))));
        assert_eq!(terms.runs, [(RaftIndex(3), Term(1)), (RaftIndex(5), Term(6))]);
    }

    #[test]
    fn what_retention_takes_leaves_the_term_before_it() {
        for first in 3..=8 {
            let (whole, mut terms) = (terms(), terms());
            terms.drop_below(RaftIndex(first));
            assert_eq!(terms.before(RaftIndex(first)), whole.before(RaftIndex(first)));
            for index in first..8 {
                assert_eq!(terms.at(RaftIndex(index)), whole.at(RaftIndex(index)));
            }
            assert_eq!(terms.runs.first().map_or(8, |run| run.0.0), first);
        }
    }

    #[test]
    fn what_is_no_log_is_refused() {
        let start = LogStart { first: RaftIndex(3), term_before: Term(2) };
        let new = |runs: &[(u64, i32)], next| {
            let runs = runs.iter().map(|&(index, term)| (RaftIndex(index), Term(term))).collect();
            Terms::new(start, runs, RaftIndex(next)).is_some()
        };
        assert!(new(&[], 3) && new(&[(3, 2), (4, 3)], 5));
        assert!(!new(&[], 4) && !new(&[(4, 2)], 5) && !new(&[(3, 1)], 4) && !new(&[(3, 2), (4, 2)], 5));
        assert!(!new(&[(3, 2), (5, 3)], 5));
    }
}
