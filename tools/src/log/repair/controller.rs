//! The controller's log again: topics that it does not know any more are put back under the names of their directories.

use super::plan::LogPlan;
use crate::log::data_dir::DataDir;
use crate::log::names::CONTROLLER;
use crate::log::report::plain;
use anyhow::{Context, Result};
use bytes::Bytes;
use corelog_storage::format::entry::{EntryHeader, EntryKind};
use corelog_storage::{LogId, RaftIndex, paths};
use corelog_wire::Uuid;
use corelog_wire::metadata_records::{MetadataRecord, PartitionRecord, ProducerIdsRecord, TopicRecord};
use corelog_wire::records::{BatchBuilder, BatchOptions, BatchView, RecordIter, split_batches};
use std::collections::{BTreeMap, BTreeSet};

/// Its partitions' number decides where each group's offsets are: of those without records nothing is on disk.
const OFFSETS_TOPIC: (&str, i32) = ("__consumer_offsets", 50);
/// Producer ids that shards may hold and that no batch tells of.
const PRODUCER_IDS_HELD: i64 = 1_000_000;

/// What the controller's log says as far as it is left.
#[derive(Default)]
struct Topics {
    names: BTreeMap<Uuid, String>,
    deleted: BTreeSet<Uuid>,
    next_producer_id: i64,
    node: Option<i32>,
}

impl Topics {
    fn note(&mut self, batch: &Bytes) {
        let Ok(batch) = BatchView::parse(batch) else { return };
        let Ok(plain) = plain(&batch) else { return };
        for record in RecordIter::new(&plain, batch.header().records_count).flatten() {
            let value = record.value.map(|value| plain.slice_ref(value)).unwrap_or_default();
            match MetadataRecord::from_bytes(value) {
                Ok(MetadataRecord::TopicRecord(topic)) => {
                    self.names.insert(topic.topic_id, topic.name.as_str().to_owned());
                }
                Ok(MetadataRecord::RemoveTopicRecord(topic)) => {
                    self.names.remove(&topic.topic_id);
                    self.deleted.insert(topic.topic_id);
                }
                Ok(MetadataRecord::PartitionRecord(partition)) => self.node = Some(partition.leader),
                Ok(MetadataRecord::ProducerIdsRecord(ids)) => {
                    self.next_producer_id = self.next_producer_id.max(ids.next_producer_id);
                }
                _ => {}
            }
        }
    }
}

/// A topic that is put back.
pub struct PutBack {
    pub topic: Uuid,
    pub name: String,
    pub partitions: i32,
    /// What of it a person must look after.
    pub doubt: Option<&'static str>,
}

/// Adds to the plan of the controller's log what brings back the topics of all other logs. `partitions`: numbers of
/// partitions that are known to the person, by topic. `node`: whom the partitions are led by.
pub fn put_back(
    data_dir: &DataDir,
    plans: &mut Vec<LogPlan>,
    partitions: &BTreeMap<String, i32>,
    node: i32,
    now_ms: i64,
) -> Result<Vec<PutBack>> {
    let log = LogId { topic: CONTROLLER, partition: 0 };
    let mut topics = Topics::default();
    for (path, _) in data_dir.segments(log)?.into_values() {
        let bytes =
            Bytes::from(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        let first = (corelog_storage::format::segment_file::FIRST_BATCH as usize).min(bytes.len());
        for batch in split_batches(&bytes.slice(first..)).map_while(Result::ok) {
            topics.note(&batch.into_bytes());
        }
    }
    for plan in plans.iter().filter(|plan| plan.log == log) {
        plan.entries.iter().for_each(|(_, batch)| topics.note(batch));
    }
    let mut unknown: BTreeMap<Uuid, i32> = BTreeMap::new();
    for LogId { topic, partition } in plans.iter().map(|plan| plan.log) {
        if topic != CONTROLLER && !topics.names.contains_key(&topic) && !topics.deleted.contains(&topic) {
            let count = unknown.entry(topic).or_default();
            *count = partition.saturating_add(1).max(*count);
        }
    }
    let node = topics.node.unwrap_or(node);
    let mut names: BTreeSet<String> = topics.names.values().cloned().collect();
    let (mut records, mut back) = (Vec::new(), Vec::new());
    for (topic, found) in unknown {
        let known_as = data_dir.names.of(topic);
        let mut name = known_as.map_or_else(|| format!("unknown.{topic}"), str::to_owned);
        let mut doubt = known_as.is_none().then_some("its name is not known");
        if name.len() >= paths::NAME_MAX {
            doubt = Some("its name may have been longer");
        }
        let told = partitions.get(&name).copied();
        if !names.insert(name.clone()) {
            name = format!("{name}.{topic}");
            doubt = Some("another topic has its name now");
            names.insert(name.clone());
        }
        let usual = (name == OFFSETS_TOPIC.0).then_some(OFFSETS_TOPIC.1);
        let count = told.or(usual).unwrap_or(0).max(found);
        records
            .push(MetadataRecord::TopicRecord(TopicRecord { name: name.as_str().into(), topic_id: topic }));
        records.extend((0..count).map(|partition_id| {
            MetadataRecord::PartitionRecord(PartitionRecord {
                partition_id,
                topic_id: topic,
                replicas: vec![node],
                isr: vec![node],
                leader: node,
                ..Default::default()
            })
        }));
        let lacks =
            "partitions without records may be missing at its end: --partitions NAME=COUNT sets the number";
        back.push(PutBack {
            topic,
            name,
            partitions: count,
            doubt: doubt.or(told.or(usual).is_none().then_some(lacks)),
        });
    }
    // Ids must not be given twice: batches of another producer would be taken for retries.
    let seen = plans.iter().filter_map(|plan| plan.producer_id_max).max();
    if !back.is_empty() || seen.is_some_and(|seen| seen >= topics.next_producer_id) {
        records.push(MetadataRecord::ProducerIdsRecord(ProducerIdsRecord {
            broker_id: node,
            broker_epoch: -1,
            next_producer_id: topics.next_producer_id.max(seen.map_or(0, |seen| seen + 1))
                + PRODUCER_IDS_HELD,
        }));
    }
    if !records.is_empty() {
        add(log, plans, &records, now_ms)?;
    }
    Ok(back)
}

/// Appends the records to the controller's log.
fn add(log: LogId, plans: &mut Vec<LogPlan>, records: &[MetadataRecord], now_ms: i64) -> Result<()> {
    if !plans.iter().any(|plan| plan.log == log) {
        plans.push(LogPlan::new(log));
    }
    let plan = plans.iter_mut().find(|plan| plan.log == log).expect("it was just added");
    // A batch a topic and more: each is whole or not there.
    for records in records.chunks(5_000) {
        let options =
            BatchOptions { base_offset: plan.next_offset, leader_epoch: 0, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for record in records {
            builder.append(now_ms, None, Some(&record.to_bytes()?), &[])?;
        }
        let batch = builder.build()?;
        let index = plan.state.next_index.0 + plan.journal_batches();
        let header = EntryHeader {
            log,
            kind: EntryKind::Append,
            index: RaftIndex(index),
            base_offset: plan.next_offset,
            term: 0,
            len: batch.len() as u32,
        };
        plan.next_offset += records.len() as i64;
        plan.entries.push((header, batch));
    }
    Ok(())
}
