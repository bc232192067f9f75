//! Applies retention to every partition of the shard, every `log.retention.check.interval.ms`.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::{sleep, wall_clock_ms, yield_if_needed};
use corelog_storage::LogId;

use crate::shard::Shard;

pub async fn run(shard: Rc<Shard>) {
    loop {
        sleep(Duration::from_millis(shard.config().storage.retention_check_interval_ms)).await;
        if shard.is_stopping() {
            return;
        }
        let image = shard.image();
        for topic in image.topics() {
            for partition in 0..topic.partitions.len() as i32 {
                yield_if_needed().await;
                let id = LogId { topic: topic.id, partition };
                if shard.owner(id) != shard.id {
                    continue;
                }
                let Ok(partition) = shard.partitions.get(id) else { continue };
                if partition.check_sound().is_err() {
                    continue;
                }
                if let Err(error) = partition.apply_retention(wall_clock_ms()).await {
                    tracing::error!(topic = %topic.name, partition = id.partition, %error, "retention");
                }
            }
        }
    }
}
