//! The partitions of a shard: those of which this broker has a replica, and which the shard owns.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::{Queue, sleep, spawn};
use corelog_replicas::{Led, Opening};
use corelog_storage::{CommitMode, HashLogId, LogConfig, LogId, ShardStorage, StorageError};
use corelog_wire::ErrorCode;

use super::commits::Commits;
use super::{Leadership, Partition, Role};
use crate::cluster::Member;
use crate::controller::image::PartitionImage;
use crate::controller::{Image, TopicImage, View};
use crate::ids::BrokerId;

/// Former journals are emptied at a start, beside everything else.
const JOURNAL_RETRY: Duration = Duration::from_millis(200);

pub struct Partitions {
    broker: BrokerId,
    storage: Rc<ShardStorage>,
    /// Of a broker of a cluster: what groups are opened with.
    member: Option<Rc<Member>>,
    view: Rc<RefCell<Arc<View>>>,
    /// Those that were asked for since the start.
    open: RefCell<HashMap<LogId, Rc<Partition>, HashLogId>>,
    /// Former replicas of which something is left.
    leaving: RefCell<HashSet<LogId, HashLogId>>,
}

impl Partitions {
    /// `broker`: this one; `view`: of the metadata, as they are at each moment.
    pub fn new(
        broker: BrokerId,
        storage: Rc<ShardStorage>,
        member: Option<Rc<Member>>,
        view: Rc<RefCell<Arc<View>>>,
    ) -> Partitions {
        Partitions { broker, storage, member, view, open: RefCell::default(), leaving: RefCell::default() }
    }

    /// The replica that this shard has of a partition, whatever it is to it.
    pub fn get(&self, id: LogId) -> Result<Rc<Partition>, ErrorCode> {
        // Open are partitions that there are: a deleted topic's are taken out with it.
        if let Some(partition) = self.opened(id) {
            return Ok(partition);
        }
        if self.leaving.borrow().contains(&id) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let view = self.view.borrow();
        let topic = view.image.topic_by_id(id.topic).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let found = topic.partition(id.partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let leadership = Leadership::of(found, self.broker);
        if leadership.role == Role::None {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        let partition = match &self.member {
            Some(member) if found.has_group => self.open_in_group(member, &view, topic, id, found)?,
            _ => {
                let log = self.storage.log(id, &topic.name, log_config(&view, topic, id, CommitMode::Alone));
                Partition::new(log, leadership, Commits::default())
            }
        };
        self.open.borrow_mut().insert(id, partition.clone());
        Ok(partition)
    }

    /// One of several replicas: who leads it its group says.
    fn open_in_group(
        &self,
        member: &Rc<Member>,
        view: &View,
        topic: &TopicImage,
        id: LogId,
        found: &PartitionImage,
    ) -> Result<Rc<Partition>, ErrorCode> {
        let opening = member.opening(&view.image, id, found).ok_or(ErrorCode::NOT_LEADER_OR_FOLLOWER)?;
        let log = self.storage.log(id, &topic.name, log_config(view, topic, id, CommitMode::Quorum));
        let partition =
            Partition::new(log, self.at_first(found), Commits::in_group(member.replicas.clone(), opening.id));
        self.open_replica(member, &partition, opening, found);
        Ok(partition)
    }

    /// What is known of who leads before the group has said anything.
    fn at_first(&self, found: &PartitionImage) -> Leadership {
        let leader = found.leader.filter(|leader| *leader != self.broker);
        Leadership { role: Role::Follower, epoch: found.leader_epoch, leader }
    }

    /// A partition that had one replica is to have several.
    fn join_group(
        &self,
        member: &Rc<Member>,
        partition: &Rc<Partition>,
        image: &Image,
        found: &PartitionImage,
    ) {
        let Some(opening) = member.opening(image, partition.id(), found) else { return };
        let config = LogConfig { commit: CommitMode::Quorum, ..partition.log.config() };
        partition.log.set_config(config);
        partition.commits.join_group(member.replicas.clone(), opening.id);
        partition.set_leadership(self.at_first(found));
        self.open_replica(member, partition, opening, found);
    }

    fn open_replica(
        &self,
        member: &Rc<Member>,
        partition: &Rc<Partition>,
        opening: Opening,
        found: &PartitionImage,
    ) {
        let is_preferred = found.replicas.first() == Some(&self.broker);
        let (member, opened, view) = (member.clone(), partition.clone(), self.view.clone());
        spawn(Queue::Control, async move {
            let id = opened.id();
            match member.open(opened.log.clone(), opening, is_preferred).await {
                Some(replica) => opened.set_replica(replica),
                None => return,
            }
            if opened.is_deleted() {
                return member.replicas.close(id);
            }
            // Meanwhile they may have moved.
            let image = view.borrow().image.clone();
            let topic = image.topic_by_id(id.topic);
            if let Some(found) = topic.and_then(|topic| topic.partition(id.partition)) {
                member.replicas.set_places(id, member.places(&image, id, found));
            }
        })
        .detach();
    }

    /// Who leads a partition's group has changed. True: this replica leads from now on, or no more.
    pub fn led_in_group(&self, id: LogId, led: Led) -> bool {
        let Some(partition) = self.opened(id) else { return false };
        let view = self.view.borrow();
        let image = view.image.topic_by_id(id.topic).and_then(|topic| topic.partition(id.partition));
        let broker = |replica| {
            let found = image?.replicas_with_ids().find(|(id, _)| *id == replica);
            found.map(|(_, broker)| broker)
        };
        partition.set_led(led, led.leader.and_then(broker))
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

    /// Who leads a partition may have changed, or where its replicas are.
    pub fn follow(&self, id: LogId, image: &Image, found: &PartitionImage) {
        let Some(partition) = self.opened(id) else {
            if found.has_group {
                // It has to take part, whoever asks for it or not. Where this broker has none of it, there is nothing to open.
                let _none = self.get(id);
            }
            return;
        };
        match &self.member {
            Some(member) if partition.has_group() => {
                member.replicas.set_places(id, member.places(image, id, found));
            }
            Some(member) if found.has_group => self.join_group(member, &partition, image, found),
            _ => partition.set_leadership(Leadership::of(found, self.broker)),
        }
    }

    /// Has a partition take the config that its topic has now.
    pub fn configure(&self, partition: &Partition) {
        let (view, id) = (self.view.borrow(), partition.id());
        if let Some(topic) = view.image.topic_by_id(id.topic) {
            let commit = partition.log.config().commit;
            partition.log.set_config(log_config(&view, topic, id, commit));
        }
    }

    /// Takes out a replica that is none any more: what is returned completes when nothing of it can be found by a start. Until then
    /// there is none of its partition here, should it become one again.
    pub fn leave(&self, id: LogId) -> impl Future<Output = Result<(), StorageError>> + use<> {
        self.leaving.borrow_mut().insert(id);
        let (deleted, storage) = (self.delete(id), self.storage.clone());
        async move {
            deleted.await?;
            // Its entries would come back from the journal, and be taken for those of another replica under its name.
            while !storage.empty_journal().await? {
                sleep(JOURNAL_RETRY).await;
            }
            Ok(())
        }
    }

    /// Nothing is left of it.
    pub fn has_left(&self, id: LogId) {
        self.leaving.borrow_mut().remove(&id);
    }

    /// Takes a partition of a deleted topic out, here and now; what is returned removes its files.
    pub fn delete(&self, id: LogId) -> impl Future<Output = Result<(), StorageError>> + use<> {
        let opened = self.open.borrow_mut().remove(&id);
        if let Some(member) = self.member.as_ref().filter(|_| opened.is_some_and(|opened| opened.has_group()))
        {
            member.replicas.close(id);
        }
        self.storage.delete(id)
    }
}

fn log_config(view: &View, topic: &TopicImage, id: LogId, commit: CommitMode) -> LogConfig {
    LogConfig { commit, ..view.config(topic).log_config(seed(id)) }
}

/// Tells partitions apart where chance should.
fn seed(log: LogId) -> u64 {
    let mut half = [0; 8];
    half.copy_from_slice(&log.topic.0[..8]);
    u64::from_be_bytes(half) ^ u64::from(log.partition as u32)
}
