//! What a start finds on disk, against what the controller's log knows: logs are claimed, what is left of deleted topics
//! is removed, and what nobody knows stays as it is and is told.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use corelog_io::planted::{Fault, planted};
use corelog_storage::{CommitMode, LogConfig, LogId};
use corelog_wire::Uuid;

use crate::controller::image::PartitionImage;
use crate::controller::{CONTROLLER_TOPIC, Image};
use crate::ids::BrokerId;
use crate::shard::Shard;

/// Neither retention nor compaction touches it.
pub const KEEP_ALL: LogConfig = LogConfig {
    segment_bytes: 64 << 20,
    segment_ms: i64::MAX,
    retention_ms: -1,
    retention_bytes: -1,
    delete_enabled: false,
    write_caching: false,
    commit: CommitMode::Alone,
};

/// Topics that the controller's log says were deleted: alone these may be removed.
pub type Deleted = Arc<BTreeSet<Uuid>>;

/// A topic is in the controller's log before any of its logs is begun: with that log empty, other logs mean that it was
/// lost. Called on the controller's shard, before anything is claimed.
pub async fn expect_no_logs(shard: &Rc<Shard>) -> anyhow::Result<()> {
    let found = shard.on_all(|shard| async move { shard.storage.unclaimed() }).await?;
    let logs: Vec<LogId> = found.into_iter().flatten().collect();
    let topics: BTreeSet<Uuid> = logs.iter().map(|log| log.topic).collect();
    anyhow::ensure!(
        logs.is_empty() || planted(Fault::AbsenceIsEmpty),
        "it is empty, and there are {} logs of {} topics in {}: the controller's log was lost. Nothing was touched. \
         Restore the whole data directory from a copy, or rebuild the logs' state from their segments: `corectl log \
         repair {}` shows what that keeps and what it cannot, and changes nothing without --execute",
        logs.len(),
        topics.len(),
        shard.config().data_dir.display(),
        shard.config().data_dir.display(),
    );
    Ok(())
}

/// A broker that came up as another node than the one that has all partitions would have none of them, and say so to each client.
pub fn expect_own_partitions(image: &Image, node: BrokerId) -> anyhow::Result<()> {
    let partitions = || image.topics().flat_map(|topic| topic.partitions.iter());
    let is_own = |partition: &PartitionImage| partition.replicas.contains(&node);
    if let Some(other) = partitions().next()
        && !partitions().any(is_own)
    {
        anyhow::bail!(
            "this is node {}, and no partition is on it: the first is on {:?}. Nothing was touched. Has the data directory's \
             identity.toml been written anew? Set its node_id, and node.id, to what they were",
            node.0,
            BrokerId::numbers(&other.replicas),
        );
    }
    Ok(())
}

/// Claims every log that journals, checkpoints or directories tell of. Those of deleted topics are forgotten; of those
/// that the controller's log does not know, what is in the journal goes to segments, and nobody is served it.
pub async fn claim(shard: &Rc<Shard>, deleted: &Deleted) {
    let (mut unknown, mut moved) = (Vec::new(), Vec::new());
    for id in shard.storage.unclaimed() {
        corelog_io::yield_if_needed().await;
        if shard.partitions.get(id).is_ok() || deleted.contains(&id.topic) {
            continue;
        }
        let name = shard.image().topic_by_id(id.topic).map_or("unknown".into(), |topic| topic.name.clone());
        let log = shard.storage.log(id, &name, KEEP_ALL);
        if shard.member.is_some() && is_elsewhere(shard, id) {
            moved.push((id, log));
        } else {
            unknown.push(id);
        }
    }
    if let Some(first) = unknown.first() {
        tracing::error!(
            logs = unknown.len(), %first,
            "logs of topics that the controller's log does not know are kept, and not served: it has lost its end, or \
             these files came from elsewhere. `corectl log repair` puts such topics back"
        );
    }
    shard.storage.settle_recovery();
    for (id, _log) in moved {
        tracing::info!(log = %id, "its replicas are on other brokers now: what is here goes");
        shard.remove_replica(id);
    }
}

/// Whether a partition has its replicas on other brokers. The metadata say so once its group has gone on without this one.
fn is_elsewhere(shard: &Shard, id: LogId) -> bool {
    let image = shard.image();
    let found = image.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
    found.is_some_and(|found| !found.replicas.contains(&shard.broker()))
}

/// Removes the directories of topics whose deletion a crash cut short. `at_start`: the image that was loaded.
pub async fn sweep(shard: Rc<Shard>, at_start: Arc<Image>, deleted: Deleted) {
    let topics = corelog_storage::topics_dir(&shard.config().data_dir);
    let entries = match corelog_io::fs::read_dir(&topics).await {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => return tracing::warn!(%error, dir = %topics.display(), "cannot list"),
    };
    for entry in entries {
        let Some(id) = entry.name.to_str().and_then(corelog_storage::topic_of_dir) else { continue };
        if deleted.contains(&id) && !planted(Fault::DeletedTopicsStay) {
            tracing::info!(dir = ?entry.name, "removing what is left of a deleted topic");
            if let Err(error) = corelog_io::fs::remove_dir_all(&topics.join(&entry.name)).await {
                tracing::warn!(%error, dir = ?entry.name, "cannot remove");
            }
        } else if id != CONTROLLER_TOPIC
            && at_start.topic_by_id(id).is_none()
            && shard.image().topic_by_id(id).is_none()
        {
            tracing::warn!(dir = ?entry.name, "the controller's log knows no such topic: the directory stays as it is");
        }
    }
}

#[cfg(test)]
mod tests {
    use corelog_wire::metadata_records::{MetadataRecord, PartitionRecord, TopicRecord};

    use super::*;
    use crate::controller::Delta;

    #[test]
    fn a_broker_under_anothers_number_is_refused() {
        let topic_id = Uuid([1; 16]);
        let topic = TopicRecord { name: "t".into(), topic_id };
        let partition = PartitionRecord {
            partition_id: 0,
            topic_id,
            replicas: vec![1],
            isr: vec![1],
            leader: 1,
            ..Default::default()
        };
        let mut image = Image::default();
        for record in [MetadataRecord::TopicRecord(topic), MetadataRecord::PartitionRecord(partition)] {
            image.apply(&record, &mut Delta::default()).expect("it fits");
        }
        assert!(expect_own_partitions(&image, BrokerId(1)).is_ok());
        let refused = expect_own_partitions(&image, BrokerId(2)).unwrap_err().to_string();
        assert!(refused.contains("this is node 2") && refused.contains("[1]"), "{refused}");
        assert!(expect_own_partitions(&Image::default(), BrokerId(2)).is_ok());
    }
}
