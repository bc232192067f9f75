//! Reading the controller's log: at a start from its last snapshot on, and then what is committed, as it comes.

use std::collections::BTreeSet;

use corelog_io::{worked, yield_if_needed};
use corelog_storage::{Log, ReadError};
use corelog_wire::Uuid;
use corelog_wire::metadata_records::MetadataRecord;

use super::delta::Delta;
use super::image::Image;
use super::log::Written;
use super::records::{Batch, decode_batches, joined};
use super::snapshot::Mark;

/// Bytes read of the log at once.
const STEP_BYTES: usize = 256 << 10;

/// The log, as far as it was read.
#[derive(Default)]
pub struct Replay {
    /// The offset after that.
    pub next: i64,
    /// Its image is whole. One that was cut off in front says nothing until there is a whole snapshot. (Where its true start
    /// is not known any more, a log begins with the oldest segment.)
    is_whole: bool,
    /// Topics that were deleted.
    pub deleted: BTreeSet<Uuid>,
    /// Of the log, behind its last snapshot.
    pub bytes: u64,
    /// One that has begun, and does not end yet.
    snapshot: Option<Partial>,
    /// The last one that is whole.
    pub last_snapshot: Option<Snapshot>,
}

/// A snapshot in the log.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Its first offset.
    pub first: i64,
    /// Topics that had been deleted before it, and that it does not tell of.
    pub forgotten: BTreeSet<Uuid>,
}

struct Partial {
    first: i64,
    told: BTreeSet<Uuid>,
    /// Where the image is not whole, the one that it makes.
    image: Image,
}

/// What a step of reading came to.
#[derive(Debug, Default)]
pub struct Step {
    pub delta: Delta,
    /// The image is a snapshot's, and no delta leads to it.
    pub anew: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("controller log, at or after offset {offset}: {what}")]
    Damaged { offset: i64, what: String },
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Replay {
    /// Of a log whose first offset is `start`.
    pub fn new(start: i64) -> Replay {
        Replay { next: start, ..Replay::default() }
    }

    /// Of an empty log all is known.
    pub fn is_whole(&self) -> bool {
        self.is_whole || self.next == 0
    }

    /// Up to where (exclusive) the image is what the log says.
    pub fn whole_to(&self) -> Option<i64> {
        self.is_whole().then_some(self.next)
    }

    /// Where the log does not have any more what would be next, it is read anew from where it begins now.
    pub fn follow_start(&mut self, log: &Log) {
        let start = log.log_start_offset();
        if start > self.next {
            let deleted = std::mem::take(&mut self.deleted);
            *self = Replay { deleted, ..Replay::new(start) };
        }
    }

    /// Applies some of what is committed and was not read yet.
    pub async fn step(&mut self, log: &Log, image: &mut Image) -> Result<Step, ReplayError> {
        let offset = self.next;
        let damaged = |what| ReplayError::Damaged { offset, what };
        let read = log.read(offset, STEP_BYTES, true).await?;
        worked(read.len);
        let mut step = Step::default();
        for batch in decode_batches(&joined(&read.parts)).map_err(damaged)? {
            self.take(&batch, image, &mut step).await.map_err(damaged)?;
        }
        if self.next <= offset {
            return Err(damaged("nothing to read".into()));
        }
        if self.is_whole {
            image.end_offset = self.next;
        }
        Ok(step)
    }

    /// One batch more.
    pub async fn take(&mut self, batch: &Batch, image: &mut Image, step: &mut Step) -> Result<(), String> {
        let written = Written { first: batch.first, end: batch.end, bytes: batch.bytes };
        match Mark::of(&batch.records) {
            None => {
                self.wrote(&written);
                self.change(&batch.records, image, step).await?;
            }
            Some(mark) => {
                if let Some(whole) = self.take_part(mark, &batch.records, &written).await? {
                    (*image, step.anew) = (whole, true);
                }
            }
        }
        Ok(())
    }

    /// A change stands there, and is applied, or is to be.
    pub fn wrote(&mut self, written: &Written) {
        (self.next, self.bytes) = (written.end, self.bytes + written.bytes);
        self.is_whole |= written.first == 0;
        // Of a snapshot that was not finished nothing holds.
        self.snapshot = None;
    }

    /// A part of a snapshot stands there. The image, if it was not whole and is so now.
    pub async fn take_part(
        &mut self,
        mark: Mark,
        records: &[MetadataRecord],
        written: &Written,
    ) -> Result<Option<Image>, String> {
        (self.next, self.bytes) = (written.end, self.bytes + written.bytes);
        if mark.is_first {
            let (told, image) = (BTreeSet::new(), Image::default());
            self.snapshot = Some(Partial { first: written.first, told, image });
        }
        let Some(mut partial) = self.snapshot.take() else {
            return if self.is_whole {
                Err("a snapshot goes on that has not begun".into())
            } else {
                Ok(None)
            };
        };
        for record in &records[1..] {
            pace().await;
            match record {
                MetadataRecord::RemoveTopicRecord(removed) => drop(partial.told.insert(removed.topic_id)),
                // It says what is known.
                _ if self.is_whole => {}
                record => partial.image.apply(record, &mut Delta::default())?,
            }
        }
        if mark.is_last {
            return Ok(self.finish(partial));
        }
        self.snapshot = Some(partial);
        Ok(None)
    }

    async fn change(
        &mut self,
        records: &[MetadataRecord],
        image: &mut Image,
        step: &mut Step,
    ) -> Result<(), String> {
        for record in records {
            pace().await;
            if let MetadataRecord::RemoveTopicRecord(removed) = record {
                self.deleted.insert(removed.topic_id);
            }
            if self.is_whole {
                image.apply(record, &mut step.delta)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, snapshot: Partial) -> Option<Image> {
        let Partial { first, told, image } = snapshot;
        let forgotten = self.deleted.difference(&told).copied().collect();
        self.deleted.extend(told);
        (self.last_snapshot, self.bytes) = (Some(Snapshot { first, forgotten }), 0);
        let was_whole = std::mem::replace(&mut self.is_whole, true);
        (!was_whole).then_some(image)
    }
}

/// A record was looked at.
async fn pace() {
    worked(size_of::<MetadataRecord>());
    yield_if_needed().await;
}

/// All that is committed of a log, and its image.
pub async fn load(log: &Log) -> anyhow::Result<(Replay, Image)> {
    // A log that was found damaged may lack topics: their files would be taken for a deleted topic's.
    if let Some(damage) = log.refused() {
        return Err(damage.into());
    }
    let (mut replay, mut image) = (Replay::new(log.log_start_offset()), Image::default());
    while replay.next < log.high_watermark() {
        replay.step(log, &mut image).await?;
    }
    Ok((replay, image))
}

#[cfg(test)]
pub mod tests {
    use corelog_io::sim::Sim;
    use corelog_wire::Str;
    use corelog_wire::metadata_records::{RemoveTopicRecord, TopicRecord};

    use super::super::snapshot::Batches;
    use super::super::snapshot::tests::image;
    use super::*;

    /// A log in memory.
    pub struct Replayed {
        pub replay: Replay,
        pub image: Image,
    }

    impl Replayed {
        pub fn new(start: i64) -> Replayed {
            Replayed { replay: Replay::new(start), image: Image::default() }
        }

        pub async fn take(&mut self, records: &[MetadataRecord]) -> Result<(), String> {
            let first = self.replay.next;
            let (records, end) = (records.to_vec(), first + records.len() as i64);
            let batch = Batch { records, first, end, bytes: 1 };
            self.replay.take(&batch, &mut self.image, &mut Step::default()).await
        }
    }

    /// Who does not know where the log begins reads it from its oldest segment on, which may begin with changes of what
    /// is not in it any more, and with the end of a snapshot.
    #[test]
    fn what_is_before_the_first_snapshot_of_a_log_without_its_beginning_does_not_count() {
        Sim::new(1).block_on(async {
            let (image, gone) = (image(30, 2), Uuid([9; 16]));
            let removal = || MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: gone });
            let mut log = Replayed::new(100);
            log.take(&[removal()]).await.expect("a change of what was before");
            let none = BTreeSet::new();
            let mut batches = Batches::new(&image, &none, 1);
            batches.next();
            let (_, rest) = batches.next().expect("it has several");
            log.take(&rest).await.expect("a snapshot that began before");
            assert!(!log.replay.is_whole());
            let mut batches = Batches::new(&image, &none, 1);
            while let Some((_, batch)) = batches.next() {
                log.take(&batch).await.expect("it is whole");
            }
            assert!(log.replay.is_whole() && log.replay.deleted.contains(&gone));
            let snapshot = log.replay.last_snapshot.as_ref().expect("it is whole");
            assert_eq!(snapshot.forgotten, [gone].into());
            assert_eq!(log.image.topic_count(), 30);
            assert!(log.take(&[removal()]).await.is_err(), "now each change must fit");
            let name: Str = "new".into();
            let topic =
                MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: Uuid([8; 16]) });
            log.take(&[topic]).await.expect("it fits");
            assert!(log.image.topic(&name).is_some());
        });
    }
}
