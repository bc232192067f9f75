//! Snapshots of the metadata, so that a start reads what there is and not all that ever was, and the controller's log has an end.
//!
//! A snapshot lies in the controller's log itself: batches that together create what the image holds, each begun by a
//! [`Mark`]. When the last of them is durable the log begins with the first. A snapshot that was not finished says nothing.
//!
//! Of deleted topics a start must know as long as anything on disk is left of them ([`crate::leftovers`]): a snapshot tells of
//! those, and forgets the others ([`gone`]).

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::{Queue, TrySendError, fs, sleep, spawn};
use corelog_storage::{BatchKind, refused_topics, topic_of_dir, topics_dir};
use corelog_wire::Uuid;
use corelog_wire::metadata_records::{
    FeatureLevelRecord, MetadataRecord, ProducerIdsRecord, RemoveTopicRecord, TopicRecord,
};

use super::change::config_records;
use super::image::{BrokerImage, Image, RESOURCE_BROKER, RESOURCE_TOPIC, TopicImage};
use super::replay::{Replay, Snapshot};
use super::task::{Controller, Submitted};
use crate::shard::Shard;

/// Records of one batch, beside its mark. Few without optimization, so that simulations have snapshots of several batches.
const RECORDS_PER_BATCH: usize = if cfg!(debug_assertions) { 10 } else { 2_000 };
/// Bytes of configs of one batch, if it is more than one of them: a batch must fit into the smallest journal.
const CONFIG_BYTES_PER_BATCH: usize = if cfg!(debug_assertions) { 16 << 10 } else { 1 << 20 };

/// How long a snapshot waits that finds no place in the queue.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// A build that does not know it refuses the log, as it does any feature that is unknown to it.
const FEATURE: &str = "corelog.metadata.snapshot";

/// How a batch of a snapshot begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Everything begins anew with this batch.
    pub is_first: bool,
    /// With it the snapshot is whole.
    pub is_last: bool,
}

impl Mark {
    const KNOWN: i16 = 1;
    const FIRST: i16 = 2;
    const LAST: i16 = 4;

    /// That of a batch with these records; `None`: it is a change.
    pub fn of(records: &[MetadataRecord]) -> Option<Mark> {
        match records.first() {
            Some(MetadataRecord::FeatureLevelRecord(mark))
                if &*mark.name == FEATURE
                    && mark.feature_level & !(Mark::FIRST | Mark::LAST) == Mark::KNOWN =>
            {
                let has = |bit| mark.feature_level & bit != 0;
                Some(Mark { is_first: has(Mark::FIRST), is_last: has(Mark::LAST) })
            }
            _ => None,
        }
    }

    fn record(self) -> MetadataRecord {
        let bit = |is_set, bit| if is_set { bit } else { 0 };
        MetadataRecord::FeatureLevelRecord(FeatureLevelRecord {
            name: FEATURE.into(),
            feature_level: Mark::KNOWN | bit(self.is_first, Mark::FIRST) | bit(self.is_last, Mark::LAST),
        })
    }
}

/// The batches of a snapshot, one after the other: an image of thousands of partitions is never there twice.
pub struct Batches<'a> {
    is_first: bool,
    /// Not in a batch yet: of the broker first, then topic by topic.
    records: Vec<MetadataRecord>,
    topics: Peekable<Box<dyn Iterator<Item = &'a Arc<TopicImage>> + 'a>>,
}

impl<'a> Batches<'a> {
    pub fn new(image: &'a Image, deleted: &BTreeSet<Uuid>, node_id: i32) -> Batches<'a> {
        let ids = ProducerIdsRecord {
            broker_id: node_id,
            broker_epoch: -1,
            next_producer_id: image.next_producer_id,
        };
        let mut records = vec![MetadataRecord::ProducerIdsRecord(ids)];
        records.extend(image.brokers.values().map(BrokerImage::record));
        for (name, overrides) in &*image.broker_overrides {
            records.extend(config_records(RESOURCE_BROKER, name.as_str().into(), overrides));
        }
        records.extend(
            deleted.iter().map(|id| MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: *id })),
        );
        let topics: Box<dyn Iterator<Item = _>> = Box::new(image.topics());
        Batches { is_first: true, records, topics: topics.peekable() }
    }

    /// The next one, which begins with its mark; `None` after the last.
    pub fn next(&mut self) -> Option<(Mark, Vec<MetadataRecord>)> {
        while self.records.len() < RECORDS_PER_BATCH
            && let Some(topic) = self.topics.next()
        {
            self.records.push(MetadataRecord::TopicRecord(TopicRecord {
                name: topic.name.clone(),
                topic_id: topic.id,
            }));
            self.records
                .extend((0..).zip(&topic.partitions).map(|(index, known)| known.record(topic.id, index)));
            self.records.extend(config_records(RESOURCE_TOPIC, topic.name.clone(), &topic.overrides));
        }
        if self.records.is_empty() {
            return None;
        }
        let rest = self.records.split_off(first_batch(&self.records));
        let is_last = rest.is_empty() && self.topics.peek().is_none();
        let mark = Mark { is_first: std::mem::take(&mut self.is_first), is_last };
        let mut batch = vec![mark.record()];
        batch.append(&mut std::mem::replace(&mut self.records, rest));
        Some((mark, batch))
    }
}

/// How many of the records are a batch.
fn first_batch(records: &[MetadataRecord]) -> usize {
    let mut bytes = 0;
    let fits = |record: &&MetadataRecord| {
        let MetadataRecord::ConfigRecord(config) = record else { return true };
        let before = bytes;
        bytes += config.value.as_deref().unwrap_or_default().len();
        before == 0 || bytes <= CONFIG_BYTES_PER_BATCH
    };
    records.iter().take(RECORDS_PER_BATCH).take_while(fits).count()
}

impl Controller {
    /// When it is time for a snapshot: finds out what it need not tell, beside the changes that go on, and puts it in line.
    pub(super) fn prepare_snapshot(&mut self, shard: &Rc<Shard>) {
        let Replay { bytes, deleted, .. } = &self.replay;
        if self.snapshot_is_due || *bytes <= self.bytes_max || self.log.check(self.replay.whole_to()).is_err()
        {
            return;
        }
        self.snapshot_is_due = true;
        let (shard, deleted) = (shard.clone(), deleted.clone());
        spawn(Queue::Background, async move {
            // What is left of a full disk is for what frees space.
            while shard.storage.metrics().disk_full && !shard.is_stopping() {
                sleep(SNAPSHOT_RETRY).await;
            }
            let gone = gone(&shard, &deleted).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a snapshot of the metadata tells of all topics that were deleted");
                BTreeSet::new()
            });
            submit(&shard, Submitted::Snapshot { gone }).await;
        })
        .detach();
    }

    /// Has the log begin anew with what there is. Where that fails it goes on as it is, and tries again later.
    pub(super) async fn write_snapshot(&mut self, shard: &Shard, gone: &BTreeSet<Uuid>) {
        self.snapshot_is_due = false;
        let Ok(epoch) = self.log.check(self.replay.whole_to()) else { return };
        let deleted: BTreeSet<Uuid> = self.replay.deleted.difference(gone).copied().collect();
        let image = self.view.image.clone();
        let mut batches = Batches::new(&image, &deleted, self.rules.node_id);
        let (began, before) = (corelog_io::now(), self.replay.bytes);
        let (mut bytes, mut records) = (0, 0);
        while let Some((mark, batch)) = batches.next() {
            let written = match self.log.replicate(&batch, BatchKind::Coordinator, epoch).await {
                Ok(written) => written,
                Err(error) => {
                    self.replay.bytes = self.bytes_max / 2;
                    return tracing::warn!(%error, "no snapshot of the metadata was made");
                }
            };
            (bytes, records) = (bytes + written.bytes, records + batch.len());
            let taken = self.replay.take_part(mark, &batch, &written).await;
            assert!(taken.is_ok_and(|image| image.is_none()), "it says what is known, in order");
        }
        shard.metrics.metadata_snapshot();
        let took_ms = (corelog_io::now() - began).as_millis() as u64;
        tracing::info!(records, bytes, in_place_of_bytes = before, took_ms, "snapshot of the metadata");
        if let Some(Snapshot { first, forgotten }) = self.replay.last_snapshot.take() {
            self.begin_with(first, &forgotten).await;
        }
    }

    /// A snapshot that another broker wrote is whole: the log here begins with it too, once nothing is left on this broker's
    /// disk of what it does not tell.
    pub(super) fn prepare_begin(&mut self, shard: &Rc<Shard>) {
        let Some(Snapshot { first, forgotten }) = self.replay.last_snapshot.take() else { return };
        if first <= self.log.log().log_start_offset() {
            return;
        }
        let shard = shard.clone();
        spawn(Queue::Background, async move {
            match gone(&shard, &forgotten).await {
                Ok(gone) if gone == forgotten => submit(&shard, Submitted::Begin { first, gone }).await,
                // With the next snapshot, perhaps.
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "the controller's log keeps what is before a snapshot"),
            }
        })
        .detach();
    }

    /// What is before `first` says nothing any more, and of `gone` nobody need know.
    pub(super) async fn begin_with(&mut self, first: i64, gone: &BTreeSet<Uuid>) {
        self.replay.deleted.retain(|id| !gone.contains(id));
        self.log.begin_with(first).await;
    }
}

/// Puts it in line for the controller, as soon as there is room.
async fn submit(shard: &Rc<Shard>, mut submitted: Submitted) {
    while !shard.is_stopping() {
        let Ok(controller) = shard.controller() else { return };
        match controller.queue.try_send(submitted) {
            Err(TrySendError::Full(again)) => submitted = again,
            _ => return,
        }
        sleep(SNAPSHOT_RETRY).await;
    }
}

/// Those of `deleted`, whose deletion is durable, of which nothing is left that a start could find: no directory, and in the
/// journals nothing that would be read.
pub async fn gone(shard: &Rc<Shard>, deleted: &BTreeSet<Uuid>) -> anyhow::Result<BTreeSet<Uuid>> {
    if deleted.is_empty() {
        return Ok(BTreeSet::new());
    }
    let emptied = shard.on_all(|shard| async move { shard.storage.empty_journal().await }).await?;
    for emptied in emptied {
        if !emptied? {
            return Ok(BTreeSet::new());
        }
    }
    let data_dir = shard.config().data_dir.clone();
    let (topics_dir, mut gone) = (topics_dir(&data_dir), deleted.clone());
    for id in dirs(&topics_dir).await?.iter().filter_map(|name| topic_of_dir(name)) {
        gone.remove(&id);
    }
    // What is not there any more does not come back when power fails.
    if fs::exists(&topics_dir).await? {
        fs::sync_dir(&topics_dir).await?;
    }
    for id in refused_topics(&data_dir).await? {
        gone.remove(&id);
    }
    Ok(gone)
}

async fn dirs(path: &Path) -> std::io::Result<Vec<String>> {
    match fs::read_dir(path).await {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries?.into_iter().filter_map(|entry| entry.name.into_string().ok()).collect()),
    }
}

#[cfg(test)]
pub mod tests {
    use corelog_wire::Str;

    use super::super::change::partition_record;
    use super::super::delta::Delta;
    use super::super::image;
    use super::*;
    use crate::config::Machine;
    use crate::config::StaticConfig;
    use crate::ids::BrokerId;
    use crate::settings::Settings;

    pub fn settings() -> Settings {
        let machine =
            Machine { cpus: vec![0], cpu_quota: None, memory_bytes: 8 << 30, host_name: "h".into() };
        Settings { fixed: StaticConfig::of([]).expect("no configs"), machine }
    }

    fn id(n: usize) -> Uuid {
        Uuid((n as u128 + 1).to_be_bytes())
    }

    pub fn image(topics: usize, partitions: i32) -> Image {
        let mut image = image::tests::brokers(&[Some("rack"), None]);
        let mut apply = |record| image.apply(&record, &mut Delta::default()).expect("it fits");
        for topic in 0..topics {
            let name: Str = format!("topic-{topic}").into();
            apply(MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: id(topic) }));
            (0..partitions).for_each(|partition| {
                apply(partition_record(id(topic), partition, vec![BrokerId(topic as i32)]))
            });
            let set = [("retention.ms".to_owned(), topic.to_string())].into();
            config_records(RESOURCE_TOPIC, name, &set).for_each(&mut apply);
        }
        let set = [("max.connections".to_owned(), "17".to_owned())].into();
        config_records(RESOURCE_BROKER, "".into(), &set).for_each(&mut apply);
        image.next_producer_id = 4_000;
        image
    }

    #[test]
    fn the_batches_make_the_image_again() {
        for (topics, partitions) in [(0, 0), (3, 2), (7, 900), (1, 5_000), (1999, 1)] {
            let (image, deleted) = (image(topics, partitions), BTreeSet::from([id(1 << 20)]));
            let mut batches = Batches::new(&image, &deleted, 1);
            let (mut again, mut seen, mut whole) = (Image::default(), BTreeSet::new(), false);
            while let Some((mark, batch)) = batches.next() {
                assert!(!whole && batch.len() <= RECORDS_PER_BATCH + 1);
                assert_eq!(Mark::of(&batch), Some(mark));
                assert_eq!(mark.is_first, again == Image::default() && seen.is_empty());
                whole = mark.is_last;
                for record in &batch[1..] {
                    match record {
                        MetadataRecord::RemoveTopicRecord(removed) => drop(seen.insert(removed.topic_id)),
                        record => again.apply(record, &mut Delta::default()).expect("it fits"),
                    }
                }
            }
            assert!(whole);
            assert_eq!(seen, deleted);
            assert_eq!(again, image);
        }
    }

    /// Lists in configs may have 32 KiB each; no batch of the log may be larger than a journal's file.
    #[test]
    fn batches_of_long_configs_are_small() {
        let mut image = image(20, 1);
        let names: Vec<Str> = image.topics().map(|topic| topic.name.clone()).collect();
        for name in names {
            let long = name.repeat(30_000 / name.len());
            let set = ["a", "b"].map(|config| (config.to_owned(), long.clone())).into();
            for record in config_records(RESOURCE_TOPIC, name, &set) {
                image.apply(&record, &mut Delta::default()).expect("it fits");
            }
        }
        let none = BTreeSet::new();
        let (mut batches, mut configs) = (Batches::new(&image, &none, 1), 0);
        while let Some((_, batch)) = batches.next() {
            let value = |record: &MetadataRecord| match record {
                MetadataRecord::ConfigRecord(config) => config.value.as_deref().map_or(0, str::len),
                _ => 0,
            };
            let bytes: usize = batch.iter().map(value).sum();
            assert!(bytes < 50_000, "{bytes} bytes in one batch");
            configs += bytes;
        }
        assert!(configs > 40 * 29_000, "all are told");
    }

    #[test]
    fn other_features_and_later_marks_are_none() {
        let feature = |name: &str, feature_level| {
            [MetadataRecord::FeatureLevelRecord(FeatureLevelRecord { name: name.into(), feature_level })]
        };
        assert!(Mark::of(&feature("metadata.version", 1)).is_none());
        assert!(Mark::of(&feature(FEATURE, 0)).is_none() && Mark::of(&feature(FEATURE, 9)).is_none());
        assert_eq!(Mark::of(&feature(FEATURE, 1)), Some(Mark { is_first: false, is_last: false }));
        assert!(Mark::of(&[]).is_none());
    }
}
