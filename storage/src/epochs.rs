//! Leader-epoch history: at which offset each leader epoch of a log began (KIP-101, KIP-320).

/// What [`EpochHistory::end_offset`] answers when it does not know: Kafka's UNDEFINED_EPOCH and UNDEFINED_EPOCH_OFFSET.
pub const UNDEFINED: EpochEnd = EpochEnd { epoch: -1, end_offset: -1 };

/// The largest epoch not above the one asked for, and the offset after its last record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: i32,
    pub end_offset: i64,
}

/// Epochs in ascending order with the offset each began at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochHistory {
    entries: Vec<(i32, i64)>,
}

impl EpochHistory {
    /// From a checkpoint. `None` if epochs or offsets do not ascend.
    pub fn from_entries(entries: Vec<(i32, i64)>) -> Option<EpochHistory> {
        let ascending = entries.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1);
        ascending.then_some(EpochHistory { entries })
    }

    pub fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }

    /// A batch of `epoch` begins at `offset`.
    pub fn note(&mut self, epoch: i32, offset: i64) {
        match self.entries.last() {
            Some((last, _)) if *last >= epoch => {}
            _ => {
                // An epoch in which nothing was appended leaves no trace.
                while self.entries.last().is_some_and(|(_, start)| *start >= offset) {
                    self.entries.pop();
                }
                self.entries.push((epoch, offset));
            }
        }
    }

    /// The epoch of the last batch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch the record at `offset` was appended in.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let after = self.entries.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map(|i| self.entries[i].0)
    }

    /// OffsetForLeaderEpoch's answer, by Kafka's rules, of the log before `end`, which ends the latest epoch.
    pub fn end_offset(&self, requested: i32, end: i64) -> EpochEnd {
        if requested < 0 {
            return UNDEFINED;
        }
        let entries = &self.entries[..self.entries.partition_point(|(_, start)| *start <= end)];
        if entries.last().is_some_and(|(latest, _)| *latest == requested) {
            return EpochEnd { epoch: requested, end_offset: end };
        }
        let higher = entries.partition_point(|(epoch, _)| *epoch <= requested);
        match (higher.checked_sub(1).map(|i| entries[i]), entries.get(higher)) {
            // Above every epoch known: the asker is ahead of this log.
            (_, None) => UNDEFINED,
            // Below every epoch known: what it had was deleted here.
            (None, Some((_, start))) => EpochEnd { epoch: requested, end_offset: *start },
            (Some((floor, _)), Some((_, start))) => EpochEnd { epoch: floor, end_offset: *start },
        }
    }

    /// The log now starts at `offset`: epochs that ended before are forgotten, the one that spans it starts there.
    pub fn cut_front(&mut self, offset: i64) {
        let spanning = self.entries.partition_point(|(_, start)| *start <= offset);
        if spanning > 0 {
            self.entries.drain(..spanning - 1);
            self.entries[0].1 = self.entries[0].1.max(offset);
        }
    }

    /// The log now ends at `offset`, after a batch of `epoch`: what began later is forgotten.
    pub fn cut_back(&mut self, offset: i64, epoch: i32) {
        self.entries.retain(|(e, start)| *e <= epoch && *start <= offset);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> EpochHistory {
        let mut h = EpochHistory::default();
        for (epoch, offset) in [(2, 0), (2, 5), (4, 10), (7, 20)] {
            h.note(epoch, offset);
        }
        h
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
        assert_eq!(EpochHistory::default().end_offset(0, 0), UNDEFINED);
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
    fn cuts() {
        let mut h = history();
        h.cut_front(12);
        assert_eq!(h.entries(), [(4, 12), (7, 20)]);
        h.cut_front(12);
        assert_eq!(h.entries(), [(4, 12), (7, 20)]);
        h.cut_back(20, 4);
        assert_eq!(h.entries(), [(4, 12)]);
        h.cut_front(100);
        assert_eq!(h.entries(), [(4, 100)]);
    }

    #[test]
    fn an_empty_epoch_leaves_no_trace() {
        let mut h = EpochHistory::default();
        h.note(1, 0);
        h.note(3, 0);
        assert_eq!(h.entries(), [(3, 0)]);
    }
}
