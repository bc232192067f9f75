//! DescribeLogDirs (KIP-113, KIP-827): sizes on disk, the one directory of this broker.

use std::collections::{BTreeMap, HashMap, HashSet};

use corelog_storage::LogId;
use corelog_wire::messages::describe_log_dirs_response::{DescribeLogDirsResult, Partition, Topic};
use corelog_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use corelog_wire::{ErrorCode, Str, Uuid};

use super::context::Context;
use crate::controller::TopicImage;
use crate::ids::ShardId;
use crate::partition::Route;

pub async fn handle(context: Context, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let shard = &context.shard;
    let image = shard.image();
    let mut by_owner: Vec<Vec<LogId>> = vec![Vec::new(); shard.shards];
    let mut names: HashMap<Uuid, Str> = HashMap::new();
    let mut find = |topic: &TopicImage, partition: i32| {
        // Replicas that this broker has; others have the rest.
        if let Ok(Route { log, owner }) = shard.with_router(|router| router.route_in(topic, partition)) {
            by_owner[owner.0].push(log);
            names.entry(topic.id).or_insert_with(|| topic.name.clone());
        }
    };
    match &request.topics {
        None => {
            for topic in image.topics() {
                for partition in 0..topic.partitions.len() as i32 {
                    find(topic, partition);
                }
            }
        }
        Some(topics) => {
            let mut seen = HashSet::new();
            for asked in topics {
                let Some(topic) = image.topic(&asked.topic) else { continue };
                for &partition in &asked.partitions {
                    if seen.insert((topic.id, partition)) {
                        find(topic, partition);
                    }
                }
            }
        }
    }
    let sizes = by_owner.into_iter().enumerate().filter(|(_, ids)| !ids.is_empty()).map(|(owner, ids)| {
        shard.on(ShardId(owner), move |shard| async move {
            let mut sizes = Vec::with_capacity(ids.len());
            for id in ids {
                if let Ok(partition) = shard.partitions.get(id) {
                    match partition.size_bytes().await {
                        Ok(size) => sizes.push((id, size as i64)),
                        Err(error) => {
                            shard.storage_failed("DescribeLogDirs", id, error);
                        }
                    }
                    corelog_io::yield_if_needed().await;
                }
            }
            sizes
        })
    });
    let mut topics: BTreeMap<Str, Vec<Partition>> = BTreeMap::new();
    for sizes in futures_util::future::join_all(sizes).await.into_iter().flatten() {
        for (id, size) in sizes {
            topics.entry(names[&id.topic].clone()).or_default().push(Partition {
                partition_index: id.partition,
                partition_size: size,
                ..Default::default()
            });
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        Topic { name, partitions }
    });
    let config = shard.config();
    let space = corelog_io::fs::space(&config.data_dir).await;
    let result = DescribeLogDirsResult {
        error_code: if space.is_ok() { ErrorCode::NONE.0 } else { ErrorCode::KAFKA_STORAGE_ERROR.0 },
        log_dir: config.data_dir_shown().into(),
        topics: topics.collect(),
        total_bytes: space.as_ref().map_or(-1, |space| space.total as i64),
        usable_bytes: space.as_ref().map_or(-1, |space| space.available as i64),
        ..Default::default()
    };
    DescribeLogDirsResponse { results: vec![result], ..Default::default() }
}
