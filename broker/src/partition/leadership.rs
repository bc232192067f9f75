//! What a replica is to its partition.

use corelog_wire::ErrorCode;

use crate::controller::image::PartitionImage;
use crate::ids::{BrokerId, LeaderEpoch};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes batches and serves clients.
    Leader,
    /// Has what the leader has, and sends clients there.
    Follower,
    /// It is no replica of the partition any more, or not yet.
    None,
}

/// Who leads a partition, as a replica knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    pub role: Role,
    pub epoch: LeaderEpoch,
    /// `None` while none is known.
    pub leader: Option<BrokerId>,
}

impl Leadership {
    /// What `broker` is to a partition by the metadata.
    pub fn of(partition: &PartitionImage, broker: BrokerId) -> Leadership {
        let role = match partition.replicas.contains(&broker) {
            true if partition.leader == Some(broker) => Role::Leader,
            true => Role::Follower,
            false => Role::None,
        };
        Leadership { role, epoch: partition.leader_epoch, leader: partition.leader }
    }

    /// Whether a client that takes `epoch` for the leader's (KIP-320; -1 is "does not say") may be served as by the leader. As
    /// in Kafka, who knows another epoch is told that first.
    pub fn check(self, epoch: i32) -> Result<(), ErrorCode> {
        if epoch != -1 && epoch < self.epoch.0 {
            Err(ErrorCode::FENCED_LEADER_EPOCH)
        } else if epoch > self.epoch.0 {
            Err(ErrorCode::UNKNOWN_LEADER_EPOCH)
        } else if self.role != Role::Leader {
            Err(ErrorCode::NOT_LEADER_OR_FOLLOWER)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_looked_at_before_the_role() {
        use ErrorCode as Code;
        let replicas = BrokerId::of_numbers(&[1, 2]);
        let (leader, leader_epoch, isr) = (Some(BrokerId(1)), LeaderEpoch(5), replicas.clone());
        let replica_ids = [1, 2].map(crate::ids::ReplicaId).into();
        let partition = PartitionImage {
            leader,
            leader_epoch,
            replicas,
            isr,
            adding: [].into(),
            removing: [].into(),
            partition_epoch: 0,
            replica_ids,
            founders: 2,
            has_group: true,
        };
        let of = |broker| Leadership::of(&partition, BrokerId(broker));
        assert_eq!([1, 2, 3].map(|broker| of(broker).role), [Role::Leader, Role::Follower, Role::None]);
        assert_eq!(of(2).leader, Some(BrokerId(1)));
        for (broker, epoch, expected) in [
            (1, -1, Ok(())),
            (1, 5, Ok(())),
            (1, 4, Err(Code::FENCED_LEADER_EPOCH)),
            (1, -2, Err(Code::FENCED_LEADER_EPOCH)),
            (1, 6, Err(Code::UNKNOWN_LEADER_EPOCH)),
            (2, 6, Err(Code::UNKNOWN_LEADER_EPOCH)),
            (2, 4, Err(Code::FENCED_LEADER_EPOCH)),
            (2, 5, Err(Code::NOT_LEADER_OR_FOLLOWER)),
            (2, -1, Err(Code::NOT_LEADER_OR_FOLLOWER)),
            (3, -1, Err(Code::NOT_LEADER_OR_FOLLOWER)),
        ] {
            assert_eq!(of(broker).check(epoch), expected, "broker {broker}, epoch {epoch}");
        }
        assert_eq!(Leadership::of(&PartitionImage { leader: None, ..partition }, BrokerId(1)).leader, None);
    }
}
