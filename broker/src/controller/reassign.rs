//! Where the replicas of partitions are to be from now on (KIP-455). The metadata say what is wanted; the partition's leader has its
//! group follow, and says when it has.

use corelog_wire::ErrorCode;
use corelog_wire::metadata_records::{MetadataRecord, PartitionChangeRecord};

use super::change::ChangeError;
use super::image::{Image, PartitionImage};
use crate::ids::BrokerId;

/// The records by which a partition gets these replicas, the one that is preferred to lead first; `None`: what is under way is
/// taken back.
pub fn reassign(
    image: &Image,
    topic: &str,
    partition: i32,
    target: Option<&[BrokerId]>,
) -> Result<Vec<MetadataRecord>, ChangeError> {
    let unknown = || {
        let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        ChangeError::new(code, "The partition does not exist.")
    };
    let topic = image.topic(topic).ok_or_else(unknown)?;
    let found = topic.partition(partition).ok_or_else(unknown)?;
    let target: Vec<BrokerId> = match target {
        Some(target) => {
            check(image, target)?;
            target.to_vec()
        }
        None if found.is_moving() => {
            found.replicas.iter().copied().filter(|id| !found.adding.contains(id)).collect()
        }
        None => {
            let code = ErrorCode::NO_REASSIGNMENT_IN_PROGRESS;
            return Err(ChangeError::new(code, code.message()));
        }
    };
    let change = towards(found, &target);
    let is_known = change.replicas == BrokerId::numbers(&found.replicas)
        && change.adding == BrokerId::numbers(&found.adding)
        && change.removing == BrokerId::numbers(&found.removing);
    if is_known {
        return Ok(Vec::new());
    }
    Ok(vec![MetadataRecord::PartitionChangeRecord(PartitionChangeRecord {
        partition_id: partition,
        topic_id: topic.id,
        replicas: Some(change.replicas),
        adding_replicas: Some(change.adding),
        removing_replicas: Some(change.removing),
        ..Default::default()
    })])
}

struct Change {
    replicas: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
}

/// Those that go stay in the list until their group has gone on without them, and come last.
fn towards(found: &PartitionImage, target: &[BrokerId]) -> Change {
    let is_whole = |id: &BrokerId| found.replicas.contains(id) && !found.adding.contains(id);
    let adding: Vec<BrokerId> = target.iter().copied().filter(|id| !is_whole(id)).collect();
    let removing: Vec<BrokerId> = found.replicas.iter().copied().filter(|id| !target.contains(id)).collect();
    let replicas: Vec<BrokerId> = target.iter().chain(&removing).copied().collect();
    let [replicas, adding, removing] = [replicas, adding, removing].map(|ids| BrokerId::numbers(&ids));
    Change { replicas, adding, removing }
}

fn check(image: &Image, target: &[BrokerId]) -> Result<(), ChangeError> {
    let wrong = |what: String| Err(ChangeError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, what));
    if target.is_empty() {
        return wrong("The manual partition assignment includes an empty replica list.".into());
    }
    for (at, id) in target.iter().enumerate() {
        if target[..at].contains(id) {
            return wrong(format!(
                "The manual partition assignment includes the broker {} more than once.",
                id.0
            ));
        }
        if !image.brokers.contains_key(id) {
            return wrong(format!(
                "The manual partition assignment includes broker {}, but no such broker is registered.",
                id.0
            ));
        }
    }
    Ok(())
}

/// The record by which a partition's replicas are those that were wanted: its group has them.
pub fn settled(found: &PartitionImage, unchanged: PartitionChangeRecord) -> PartitionChangeRecord {
    let wanted: Vec<i32> = found.wanted().map(|(_, broker)| broker.0).collect();
    PartitionChangeRecord {
        replicas: Some(wanted),
        adding_replicas: Some(Vec::new()),
        removing_replicas: Some(Vec::new()),
        ..unchanged
    }
}

#[cfg(test)]
mod tests {
    use corelog_wire::Uuid;
    use corelog_wire::metadata_records::TopicRecord;

    use super::super::change::partition_record;
    use super::super::delta::Delta;
    use super::super::image::tests::brokers;
    use super::*;

    const TOPIC: Uuid = Uuid([7; 16]);

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn image(replicas: &[i32]) -> Image {
        let mut image = brokers(&[None; 4]);
        let topic = MetadataRecord::TopicRecord(TopicRecord { name: "t".into(), topic_id: TOPIC });
        for record in [topic, partition_record(TOPIC, 0, ids(replicas))] {
            image.apply(&record, &mut Delta::default()).expect("it fits");
        }
        image
    }

    fn make(image: &mut Image, target: Option<&[i32]>) -> Result<(), ErrorCode> {
        let target = target.map(ids);
        let records = reassign(image, "t", 0, target.as_deref()).map_err(|error| error.code)?;
        for record in records {
            image.apply(&record, &mut Delta::default()).expect("it fits");
        }
        Ok(())
    }

    fn settle(image: &mut Image) {
        let found = image.topic_by_id(TOPIC).unwrap().partition(0).unwrap();
        let unchanged = PartitionChangeRecord { topic_id: TOPIC, partition_id: 0, ..Default::default() };
        let record = MetadataRecord::PartitionChangeRecord(settled(found, unchanged));
        image.apply(&record, &mut Delta::default()).expect("it fits");
    }

    fn shown(image: &Image) -> [Vec<i32>; 3] {
        let found = image.topic_by_id(TOPIC).unwrap().partition(0).unwrap();
        [&found.replicas, &found.adding, &found.removing].map(|ids| BrokerId::numbers(ids))
    }

    fn replica_ids(image: &Image) -> Vec<u64> {
        let found = image.topic_by_id(TOPIC).unwrap().partition(0).unwrap();
        found.replica_ids.iter().map(|id| id.0).collect()
    }

    #[test]
    fn replicas_move_and_come_back_under_other_ids() {
        let mut image = image(&[1, 2, 3]);
        assert_eq!(replica_ids(&image), [1, 2, 3]);
        assert_eq!(make(&mut image, Some(&[4, 1, 2])), Ok(()));
        assert_eq!(shown(&image), [vec![4, 1, 2, 3], vec![4], vec![3]]);
        let new = replica_ids(&image)[0];
        assert!(new > 3, "{new}");
        settle(&mut image);
        assert_eq!(shown(&image), [vec![4, 1, 2], vec![], vec![]]);
        assert_eq!(replica_ids(&image), [new, 1, 2]);
        assert_eq!(make(&mut image, Some(&[1, 2, 3])), Ok(()));
        assert!(replica_ids(&image)[2] > new, "3 is not who it was: {:?}", replica_ids(&image));
    }

    #[test]
    fn what_is_under_way_can_be_taken_back() {
        let mut image = image(&[1]);
        assert_eq!(make(&mut image, None), Err(ErrorCode::NO_REASSIGNMENT_IN_PROGRESS));
        assert_eq!(make(&mut image, Some(&[1, 2, 3])), Ok(()));
        assert_eq!(shown(&image), [vec![1, 2, 3], vec![2, 3], vec![]]);
        assert_eq!(make(&mut image, None), Ok(()));
        assert_eq!(shown(&image), [vec![1, 2, 3], vec![], vec![2, 3]]);
        settle(&mut image);
        assert_eq!(shown(&image), [vec![1], vec![], vec![]]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let mut image = image(&[1, 2]);
        for target in [&[][..], &[1, 1], &[1, 9]] {
            assert_eq!(make(&mut image, Some(target)), Err(ErrorCode::INVALID_REPLICA_ASSIGNMENT));
        }
        assert!(reassign(&image, "t", 1, Some(&ids(&[1]))).is_err());
        assert!(reassign(&image, "u", 0, Some(&ids(&[1]))).is_err());
        assert!(reassign(&image, "t", 0, Some(&ids(&[1, 2]))).unwrap().is_empty(), "it is so already");
    }
}
