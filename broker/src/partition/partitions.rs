//! The partitions of a shard: those of which this broker has a replica, and which the shard owns.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use corelog_storage::{HashLogId, LogConfig, LogId, ShardStorage, StorageError};
use corelog_wire::ErrorCode;

use super::{Leadership, Partition, Role};
use crate::controller::image::PartitionImage;
use crate::controller::{TopicImage, View};
use crate::ids::BrokerId;

pub struct Partitions {
    broker: BrokerId,
    storage: Rc<ShardStorage>,
    view: Rc<RefCell<Arc<View>>>,
    /// Those that were asked for since the start.
    open: RefCell<HashMap<LogId, Rc<Partition>, HashLogId>>,
}

impl Partitions {
    /// `broker`: this one; `view`: of the metadata, as they are at each moment.
    pub fn new(broker: BrokerId, storage: Rc<ShardStorage>, view: Rc<RefCell<Arc<View>>>) -> Partitions {
        Partitions { broker, storage, view, open: RefCell::default() }
    }

    /// The replica that this shard has of a partition, whatever it is to it.
    pub fn get(&self, id: LogId) -> Result<Rc<Partition>, ErrorCode> {
        // Open are partitions that there are: a deleted topic's are taken out with it.
        if let Some(partition) = self.opened(id) {
            return Ok(partition);
        }
        let view = self.view.borrow();
        let topic = view.image.topic_by_id(id.topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let found = topic.partition(id.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let leadership = Leadership::of(found, self.broker);
        if leadership.role == Role::None {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let log = self.storage.log(id, &topic.name, log_config(&view, topic, id));
        let partition = Partition::new(log, leadership);
        self.open.borrow_mut().insert(id, partition.clone());
        Ok(partition)
    }

    /// The partition, to be asked as its leader by a client that takes `epoch` for the leader's (-1: it does not say).
    pub fn led(&self, id: LogId, epoch: i32) -> Result<Rc<Partition>, ErrorCode> {
        let partition = self.get(id)?;
        partition.check_leader(epoch)?;
        Ok(partition)
    }

    /// The partition, if it was asked for since the start.
    pub fn opened(&self, id: LogId) -> Option<Rc<Partition>> {
        self.open.borrow().get(&id).cloned()
    }

    pub fn all_opened(&self) -> Vec<Rc<Partition>> {
        self.open.borrow().values().cloned().collect()
    }

    /// Who leads a partition may have changed.
    pub fn follow_leadership(&self, id: LogId, image: &PartitionImage) {
        if let Some(partition) = self.opened(id) {
            partition.set_leadership(Leadership::of(image, self.broker));
        }
    }

    /// Has a partition take the config that its topic has now.
    pub fn configure(&self, partition: &Partition) {
        let (view, id) = (self.view.borrow(), partition.id());
        if let Some(topic) = view.image.topic_by_id(id.topic) {
            partition.log.set_config(log_config(&view, topic, id));
        }
    }

    /// Takes a partition of a deleted topic out, here and now; what is returned removes its files.
    pub fn delete(&self, id: LogId) -> impl Future<Output = Result<(), StorageError>> + use<> {
        self.open.borrow_mut().remove(&id);
        self.storage.delete(id)
    }
}

fn log_config(view: &View, topic: &TopicImage, id: LogId) -> LogConfig {
    view.config(topic).log_config(seed(id))
}

/// Tells partitions apart where chance should.
fn seed(log: LogId) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&log.topic.0[..8]);
    u64::from_be_bytes(half) ^ u64::from(log.partition as u32)
}
