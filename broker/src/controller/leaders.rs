//! Who leads partitions is decided by their groups, and reported: the metadata say what was heard last.

use std::collections::BTreeMap;

use corelog_wire::metadata_records::{MetadataRecord, PartitionChangeRecord};
use corelog_wire::{ErrorCode, Uuid};

use super::change::ChangeError;
use super::image::{Image, PartitionImage};
use super::reassign::settled;
use crate::ids::{BrokerId, LeaderEpoch};

/// Reports in one change, so that it fits one batch of the controller's log.
pub const LEADERS_MAX: usize = 4096;

/// Who leads a partition's group, and who is up with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Led {
    pub topic: Uuid,
    pub partition: i32,
    pub leader: BrokerId,
    pub epoch: LeaderEpoch,
    pub isr: Vec<BrokerId>,
    /// Its group has the replicas that are wanted, and no others.
    pub settled: bool,
}

/// What is news of the reports. Those of partitions that are gone, of former leaders, and what is known is none.
pub fn leaders(image: &Image, reports: Vec<Led>) -> Result<Vec<MetadataRecord>, ChangeError> {
    if reports.len() > LEADERS_MAX {
        return Err(ChangeError::new(
            ErrorCode::INVALID_REQUEST,
            format!("{} leaders in one report: there may be {LEADERS_MAX}", reports.len()),
        ));
    }
    // Of several the last: who reports names each partition once.
    let reports: BTreeMap<(Uuid, i32), Led> =
        reports.into_iter().map(|led| ((led.topic, led.partition), led)).collect();
    let known = |led: &Led| image.topic_by_id(led.topic)?.partition(led.partition).cloned();
    let news = reports.into_values().filter_map(|led| news(&known(&led)?, &led));
    Ok(news.collect())
}

fn news(known: &PartitionImage, led: &Led) -> Option<MetadataRecord> {
    let is_replica = |broker: &BrokerId| known.replicas.contains(broker);
    if !led.isr.iter().all(is_replica) || !led.isr.contains(&led.leader) {
        return None;
    }
    let same_isr = in_order(&known.isr) == in_order(&led.isr);
    let (is_newer, is_same) = (
        led.epoch > known.leader_epoch,
        led.epoch == known.leader_epoch && Some(led.leader) == known.leader && !same_isr,
    );
    // Of the leader that is known, or of a later one.
    let settles = led.settled
        && known.is_moving()
        && (is_newer || (led.epoch == known.leader_epoch && Some(led.leader) == known.leader));
    if !is_newer && !is_same && !settles {
        return None;
    }
    let unchanged = PartitionChangeRecord::default();
    let unchanged = if settles { settled(known, unchanged) } else { unchanged };
    Some(MetadataRecord::PartitionChangeRecord(PartitionChangeRecord {
        partition_id: led.partition,
        topic_id: led.topic,
        isr: (!same_isr).then(|| BrokerId::numbers(&led.isr)),
        leader: if is_newer { led.leader.0 } else { unchanged.leader },
        leader_epoch: if is_newer { led.epoch.0 } else { unchanged.leader_epoch },
        ..unchanged
    }))
}

fn in_order(brokers: &[BrokerId]) -> Vec<BrokerId> {
    let mut brokers = brokers.to_vec();
    brokers.sort_unstable();
    brokers
}

#[cfg(test)]
mod tests {
    use corelog_wire::metadata_records::TopicRecord;

    use super::super::change::partition_record;
    use super::super::image::tests::brokers;
    use super::super::task::applied;
    use super::*;

    const TOPIC: Uuid = Uuid([9; 16]);

    fn led(partition: i32, leader: i32, epoch: i32, isr: &[i32]) -> Led {
        let isr = isr.iter().copied().map(BrokerId).collect();
        Led {
            topic: TOPIC,
            partition,
            leader: BrokerId(leader),
            epoch: LeaderEpoch(epoch),
            isr,
            settled: false,
        }
    }

    #[test]
    fn the_latest_leader_counts_and_former_ones_are_passed_over() {
        let topic = MetadataRecord::TopicRecord(TopicRecord { name: "t".into(), topic_id: TOPIC });
        let partition = |index| partition_record(TOPIC, index, [1, 2, 3].map(BrokerId).to_vec());
        let records = [topic, partition(0), partition(1)];
        let (mut image, _) = applied(&brokers(&[None; 4]), &records).expect("they fit");
        let known = |image: &Image, index: i32| {
            let known = image.topic_by_id(TOPIC).and_then(|topic| topic.partition(index).cloned());
            let known = known.expect("it is there");
            (known.leader.map(|leader| leader.0), known.leader_epoch.0, BrokerId::numbers(&known.isr))
        };
        assert_eq!(known(&image, 0), (None, 0, vec![1, 2, 3]), "its group says who leads it");
        let none: &[Led] = &[
            led(0, 1, 2, &[2, 3]),
            led(0, 4, 9, &[4]),
            led(0, 2, 9, &[2, 4]),
            led(7, 2, 9, &[2]),
            Led { topic: Uuid([8; 16]), ..led(0, 1, 9, &[1]) },
        ];
        assert_eq!(leaders(&image, none.to_vec()), Ok(Vec::new()));
        for (reports, expected) in [
            (vec![led(0, 2, 3, &[2, 3, 1]), led(1, 1, 1, &[1])], (Some(2), 3, vec![1, 2, 3])),
            (vec![led(0, 1, 2, &[1])], (Some(2), 3, vec![1, 2, 3])),
            (vec![led(0, 1, 3, &[1])], (Some(2), 3, vec![1, 2, 3])),
            (vec![led(0, 2, 3, &[2])], (Some(2), 3, vec![2])),
            (vec![led(0, 2, 4, &[2])], (Some(2), 4, vec![2])),
            (vec![led(0, 3, 6, &[3, 2])], (Some(3), 6, vec![3, 2])),
        ] {
            let records = leaders(&image, reports).expect("they are few");
            image = applied(&image, &records).expect("they fit").0;
            assert_eq!(known(&image, 0), expected);
        }
        assert_eq!(known(&image, 1), (Some(1), 1, vec![1]));
        assert!(leaders(&image, vec![led(0, 1, 9, &[1]); LEADERS_MAX + 1]).is_err());
    }
}
