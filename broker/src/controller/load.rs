//! Reading the controller's log at a start: from its last snapshot on.

use std::collections::BTreeSet;

use corelog_io::{worked, yield_if_needed};
use corelog_storage::Log;
use corelog_wire::Uuid;
use corelog_wire::metadata_records::MetadataRecord;

use super::delta::Delta;
use super::image::Image;
use super::records::{decode_batches, joined};
use super::snapshot::Mark;

/// Bytes read of the log at once.
const STEP_BYTES: usize = 256 << 10;

/// What the log says.
pub struct Loaded {
    pub image: Image,
    /// Topics that were deleted.
    pub deleted: BTreeSet<Uuid>,
    /// Of the log, behind its last snapshot.
    pub bytes: u64,
}

pub async fn load(log: &Log) -> anyhow::Result<Loaded> {
    // A log that was found damaged may lack topics: their files would be taken for a deleted topic's.
    if let Some(damage) = log.refused() {
        return Err(damage.into());
    }
    let start = log.log_start_offset();
    let mut loading = Loading::new(start > 0);
    let mut offset = start;
    while offset < log.high_watermark() {
        let read = log.read(offset, STEP_BYTES, true).await?;
        let damaged = |what| anyhow::anyhow!("controller log, at or after offset {offset}: {what}");
        worked(read.len);
        for batch in decode_batches(&joined(&read.parts)).map_err(damaged)? {
            loading.take(&batch.records).await.map_err(damaged)?;
            loading.loaded.bytes += batch.bytes;
        }
        anyhow::ensure!(read.next_offset > offset, "controller log: nothing to read at offset {offset}");
        offset = read.next_offset;
    }
    anyhow::ensure!(
        !loading.lacks_beginning,
        "controller log: it begins at offset {start}, and holds no whole snapshot"
    );
    let mut loaded = loading.loaded;
    loaded.image.end_offset = offset;
    Ok(loaded)
}

/// What has been read.
pub(super) struct Loading {
    pub loaded: Loaded,
    /// A snapshot that is not whole yet.
    beginning: Option<Image>,
    /// The log has been cut off in front: changes say nothing until there is a whole snapshot. (Where its true start is not
    /// known any more, a log begins with the oldest segment.)
    pub lacks_beginning: bool,
}

impl Loading {
    pub fn new(lacks_beginning: bool) -> Loading {
        let loaded = Loaded { image: Image::default(), deleted: BTreeSet::new(), bytes: 0 };
        Loading { loaded, beginning: None, lacks_beginning }
    }

    /// One batch more.
    pub async fn take(&mut self, records: &[MetadataRecord]) -> Result<(), String> {
        let mark = Mark::of(records);
        match &mark {
            // Of one that was not finished nothing holds.
            None => self.beginning = None,
            Some(mark) if mark.is_first => self.beginning = Some(Image::default()),
            Some(_) if self.beginning.is_none() && !self.lacks_beginning => {
                return Err("a snapshot goes on that has not begun".into());
            }
            Some(_) => {}
        }
        let mut delta = Delta::default();
        for record in records.iter().skip(usize::from(mark.is_some())) {
            worked(size_of::<MetadataRecord>());
            yield_if_needed().await;
            if let MetadataRecord::RemoveTopicRecord(removed) = record {
                self.loaded.deleted.insert(removed.topic_id);
                if mark.is_some() {
                    continue;
                }
            }
            match &mut self.beginning {
                Some(image) => image.apply(record, &mut delta)?,
                None if self.lacks_beginning => {}
                None => self.loaded.image.apply(record, &mut delta)?,
            }
        }
        if mark.is_some_and(|mark| mark.is_last)
            && let Some(whole) = self.beginning.take()
        {
            (self.loaded.image, self.lacks_beginning, self.loaded.bytes) = (whole, false, 0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use corelog_io::sim::Sim;
    use corelog_wire::Str;
    use corelog_wire::metadata_records::{RemoveTopicRecord, TopicRecord};

    use super::super::snapshot::Batches;
    use super::super::snapshot::tests::image;
    use super::*;

    /// Who does not know where the log begins reads it from its oldest segment on, which may begin with changes of what
    /// is not in it any more, and with the end of a snapshot.
    #[test]
    fn what_is_before_the_first_snapshot_of_a_log_without_its_beginning_does_not_count() {
        Sim::new(1).block_on(async {
            let (image, gone) = (image(30, 2), Uuid([9; 16]));
            let removal = || MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: gone });
            let mut loading = Loading::new(true);
            loading.take(&[removal()]).await.expect("a change of what was before");
            let none = BTreeSet::new();
            let mut batches = Batches::new(&image, &none, 1);
            batches.next();
            let rest = batches.next().expect("it has several");
            loading.take(&rest).await.expect("a snapshot that began before");
            assert!(loading.lacks_beginning);
            let mut batches = Batches::new(&image, &none, 1);
            while let Some(batch) = batches.next() {
                loading.take(&batch).await.expect("it is whole");
            }
            assert!(!loading.lacks_beginning && loading.loaded.deleted.contains(&gone));
            assert_eq!(loading.loaded.image.topic_count(), 30);
            assert!(loading.take(&[removal()]).await.is_err(), "now each change must fit");
            let name: Str = "new".into();
            let topic =
                MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: Uuid([8; 16]) });
            loading.take(&[topic]).await.expect("it fits");
            assert!(loading.loaded.image.topic(&name).is_some());
        });
    }
}
