use std::path::Path;

use corelog_io::sim::Sim;
use corelog_io::sync::Inbox;
use corelog_storage::{LogConfig, Recovered, ShardStorage, StorageConfig, read_journals};
use corelog_wire::Uuid;
use corelog_wire::records::{BatchBuilder, BatchOptions};

use super::*;
use crate::ids::BrokerId;

fn led_by(leader: i32, epoch: i32) -> Leadership {
    let role = if leader == 1 { Role::Leader } else { Role::Follower };
    Leadership { role, epoch: LeaderEpoch(epoch), leader: Some(BrokerId(leader)) }
}

fn batch() -> Bytes {
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.append(7, None, Some(b"value"), &[]).unwrap();
    batch.build().unwrap()
}

async fn open() -> (Rc<ShardStorage>, Rc<Partition>) {
    let config = StorageConfig {
        journal_file_bytes: 1 << 20,
        journal_files: 2,
        tail_cache_bytes: 4 << 20,
        group_bytes_max: 256 << 10,
        ..StorageConfig::new("/data", 0, 1)
    };
    let recovered = read_journals(Path::new("/data"), 0, 1).await.unwrap();
    let storage = ShardStorage::open(config, Recovered::merge([recovered])).await.unwrap();
    storage.settle_recovery();
    let log = storage.log(LogId { topic: Uuid([7; 16]), partition: 0 }, "t", LogConfig::default());
    (storage, Partition::new(log, led_by(1, 5), Commits::default()))
}

async fn appended(partition: &Partition) -> Result<i64, ErrorCode> {
    let appended = partition.append(batch(), Acks::All).await.map_err(|refusal| refusal.code)?;
    appended.committed.await.map_err(|refusal| refusal.code)?;
    Ok(appended.base_offset)
}

async fn found(partition: &Partition, query: OffsetQuery) -> (i64, i32) {
    let found = partition.find_offset(query).await.unwrap().unwrap();
    (found.offset, found.leader_epoch)
}

/// This broker leads, then another does, then this one again.
async fn leadership_comes_and_goes() {
    let (_storage, partition) = open().await;
    let inbox = Inbox::new(|| {});
    let mark = inbox.mark(0);
    let _following = partition.news().follow(&mark);
    let has_news = || inbox.take().into_iter().any(|_| mark.take());
    // Nothing is written in the leader's epoch, and it has begun all the same.
    assert_eq!(partition.diverging(5, 0), Ok(None));
    assert_eq!(partition.diverging(6, 0), Err(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert_eq!(appended(&partition).await, Ok(0));
    assert!(has_news() && !has_news());
    partition.set_leadership(led_by(1, 5));
    assert!(!has_news(), "nothing has changed");

    partition.set_leadership(led_by(2, 6));
    assert!(has_news(), "who waits is to look for the new leader");
    assert_eq!(appended(&partition).await, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(partition.check_leader(-1), Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    assert_eq!(partition.check_leader(5), Err(ErrorCode::FENCED_LEADER_EPOCH));
    assert!(partition.coordinators().is_none());

    partition.set_leadership(led_by(1, 7));
    assert_eq!(partition.check_leader(7), Ok(()));
    assert_eq!(partition.diverging(7, 1), Ok(None));
    assert_eq!(partition.diverging(7, 2), Ok(Some(EpochEnd { epoch: 7, end_offset: 1 })));
    assert_eq!(found(&partition, OffsetQuery::Latest(Isolation::ReadCommitted)).await, (1, 7));
    assert_eq!(appended(&partition).await, Ok(1));
    assert_eq!(found(&partition, OffsetQuery::Earliest).await, (0, 5));
    assert_eq!(partition.epoch_end(5), EpochEnd { epoch: 5, end_offset: 1 });
    assert_eq!(partition.epoch_end(6), EpochEnd { epoch: 5, end_offset: 1 });
    assert_eq!(partition.epoch_end(7), EpochEnd { epoch: 7, end_offset: 2 });
    assert_eq!(partition.diverging(5, 1), Ok(None));
    assert_eq!(partition.diverging(5, 2), Ok(Some(EpochEnd { epoch: 5, end_offset: 1 })));

    // One that led on without knowing better: its batches belong to an epoch that is over.
    partition.set_leadership(led_by(1, 6));
    assert_eq!(appended(&partition).await, Err(ErrorCode::NOT_LEADER_OR_FOLLOWER));
}

#[test]
fn a_partition_serves_while_it_leads() {
    let sim = Sim::new(1);
    let done = Rc::new(Cell::new(false));
    let ended = done.clone();
    sim.process("broker").start(1, move |_| {
        let ended = ended.clone();
        async move {
            leadership_comes_and_goes().await;
            ended.set(true);
        }
    });
    for _ in 0..1000 {
        sim.run_steps(50);
        if done.get() {
            return;
        }
    }
    panic!("it does not end");
}
