//! Which shard of this broker owns a partition, should the broker have it.

use corelog_storage::LogId;
use corelog_wire::Uuid;

use crate::ids::{CONTROLLER_SHARD, CONTROLLER_TOPIC, ShardId};

/// The owner of a log among `shards` shards: the controller's is on its own shard.
pub fn owner(log: LogId, shards: usize) -> ShardId {
    if log.topic == CONTROLLER_TOPIC { CONTROLLER_SHARD } else { spread(log.topic, log.partition, shards) }
}

/// Partitions of one topic go round the shards, beginning at a place that the topic's id decides, so that the
/// loads of one topic differ by at most one partition between shards and single-partition topics spread. The
/// result depends on nothing that is stored: a broker started on more or fewer cores places anew, and since no
/// file path names a shard, nothing moves on disk.
fn spread(topic: Uuid, partition: i32, shards: usize) -> ShardId {
    let mut seed = [0u8; 8];
    seed.copy_from_slice(&topic.0[8..]);
    // Topic ids are random (version 4) UUIDs but for the well-known internal ones; a multiplication spreads those.
    let start = u64::from_be_bytes(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ShardId(((start + partition as u32 as u64) % shards as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_a_topic_spread_evenly() {
        for shards in 1..=9 {
            let mut load = vec![0usize; shards];
            for partition in 0..100 {
                load[spread(Uuid([7; 16]), partition, shards).0] += 1;
            }
            assert!(load.iter().max().unwrap() - load.iter().min().unwrap() <= 1, "{load:?}");
        }
    }

    #[test]
    fn single_partition_topics_spread() {
        let mut load = [0usize; 4];
        for n in 0..400u32 {
            let mut id = [0u8; 16];
            id[12..].copy_from_slice(&n.to_be_bytes());
            load[spread(Uuid(id), 0, 4).0] += 1;
        }
        assert!(load.iter().all(|&n| (70..130).contains(&n)), "{load:?}");
    }
}
