//! Topics that come and go while the broker works: each client has a name of its own under which it makes a topic, uses it
//! and deletes it, again and again. A topic is its id: nothing of a former one under the name is ever the next one's.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use corelog_io::{sleep, wall_clock_ms};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchTopic};
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::metadata_request::Topic as Named;
use corelog_wire::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest,
    offset_commit_request, offset_fetch_request,
};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, split_batches, with_scratch};
use corelog_wire::{ErrorCode, Str, Uuid};

use crate::committer;
use crate::connection::Connection;
use crate::shared::{Shared, below};

const PARTITIONS: i32 = 2;

/// What is known of one topic.
#[derive(Default)]
struct Topic {
    /// The end of what was acknowledged, of each partition.
    acked: [i64; PARTITIONS as usize],
    committed: BTreeSet<i64>,
    /// Its deletion was asked for, perhaps in vain.
    is_deleted: bool,
}

struct Passing {
    shared: Rc<Shared>,
    name: Str,
    group: Str,
    topics: BTreeMap<Uuid, Topic>,
    commits: i64,
}

pub async fn pass(shared: Rc<Shared>, number: u32) {
    let name = format!("passing-{number}").as_str().into();
    let group = format!("of-passing-{number}").as_str().into();
    let mut passing = Passing { shared: shared.clone(), name, group, topics: BTreeMap::new(), commits: 0 };
    while !shared.stopped() {
        let Some(mut connection) = shared.connect("passing").await else { return };
        while !shared.stopped() {
            if passing.pass(&mut connection).await.is_err() {
                break;
            }
        }
    }
}

impl Passing {
    /// One topic, from its beginning to its end.
    async fn pass(&mut self, connection: &mut Connection) -> io::Result<()> {
        self.shared.may_change().await;
        let Some(id) = self.make(connection).await? else {
            self.shared.pause().await;
            return Ok(());
        };
        for _ in 0..1 + below(6) {
            sleep(self.shared.plan.pace * (1 + below(10) as u32)).await;
            if self.shared.stopped() {
                return Ok(());
            }
            let partition = below(PARTITIONS as u64) as i32;
            self.look_at_commit(connection, id, partition).await?;
            match below(3) {
                0 => self.commit(connection, id, partition).await?,
                1 => self.read(connection, id, partition).await?,
                _ => self.produce(connection, id, partition).await?,
            }
        }
        self.shared.may_change().await;
        self.delete(connection, id).await
    }

    /// An answer of a partition. Whether it is one without error.
    fn is_served(&self, id: Uuid, code: i16, what: &str) -> bool {
        let code = ErrorCode(code);
        let gone = [ErrorCode::UNKNOWN_TOPIC_ID, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
        if gone.contains(&code) {
            assert!(self.topics[&id].is_deleted, "{what}: topic {} {id} was created and is gone", self.name);
        } else if !code.is_ok() && !committer::is_transient(code) {
            self.shared.expect_explained(code, what);
        }
        code.is_ok()
    }

    /// The topic that bears the name now, made where there is none.
    async fn make(&mut self, connection: &mut Connection) -> io::Result<Option<Uuid>> {
        let topic = CreatableTopic {
            name: self.name.clone(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 10_000, ..Default::default() };
        let created = connection.call(&request, 7).await?.topics.remove(0);
        match ErrorCode(created.error_code) {
            ErrorCode::NONE => {
                let topic = self.topics.insert(created.topic_id, Topic::default());
                assert!(topic.is_none(), "{} is made anew with the id of a former topic", self.name);
                Ok(Some(created.topic_id))
            }
            ErrorCode::TOPIC_ALREADY_EXISTS => self.find(connection).await,
            code => {
                self.shared.expect_explained(code, "CreateTopics");
                Ok(None)
            }
        }
    }

    async fn find(&mut self, connection: &mut Connection) -> io::Result<Option<Uuid>> {
        let named = Named { name: Some(self.name.clone()), ..Default::default() };
        let request = MetadataRequest { topics: Some(vec![named]), ..Default::default() };
        let found = connection.call(&request, 12).await?.topics.remove(0);
        if found.error_code != 0 {
            // A deletion that was left behind came between.
            return Ok(None);
        }
        self.topics.entry(found.topic_id).or_default();
        Ok(Some(found.topic_id))
    }

    async fn delete(&mut self, connection: &mut Connection, id: Uuid) -> io::Result<()> {
        self.topics.get_mut(&id).expect("it is known").is_deleted = true;
        let topics = vec![State { topic_id: id, ..Default::default() }];
        let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
        let answer = connection.call(&request, 6).await?.responses.remove(0);
        self.is_served(id, answer.error_code, "DeleteTopics");
        Ok(())
    }

    async fn produce(&mut self, connection: &mut Connection, id: Uuid, partition: i32) -> io::Result<()> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(wall_clock_ms(), Some(&id.0), None, &[]).expect("the record fits");
        let records = Some(builder.build().expect("the batch can be built"));
        let data = PartitionProduceData { index: partition, records };
        let topic = TopicProduceData { topic_id: id, partition_data: vec![data], ..Default::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let response = connection.call(&request, 13).await?;
        let answer = &response.responses[0].partition_responses[0];
        if self.is_served(id, answer.error_code, "Produce") {
            let acked = &mut self.topics.get_mut(&id).expect("it is known").acked[partition as usize];
            *acked = (*acked).max(answer.base_offset + 1);
        }
        Ok(())
    }

    /// From the start: all that was acknowledged, and nothing of another topic.
    async fn read(&mut self, connection: &mut Connection, id: Uuid, partition: i32) -> io::Result<()> {
        let partitions = vec![FetchPartition {
            partition,
            partition_max_bytes: 1 << 20,
            current_leader_epoch: -1,
            ..Default::default()
        }];
        let request = FetchRequest {
            max_bytes: 1 << 20,
            session_epoch: -1,
            topics: vec![FetchTopic { topic_id: id, partitions, ..Default::default() }],
            ..Default::default()
        };
        let response = connection.call(&request, 13).await?;
        let data = &response.responses[0].partitions[0];
        if !self.is_served(id, data.error_code, "Fetch") {
            return Ok(());
        }
        let (name, acked) = (&self.name, self.topics[&id].acked[partition as usize]);
        let end = data.high_watermark;
        assert!(end >= acked, "{name} {id} ends at {end}; acknowledged up to {acked}");
        let records = Bytes::from(data.records.clone().unwrap_or_default().concat());
        let mut next = 0;
        for batch in split_batches(&records) {
            let batch = batch.unwrap_or_else(|error| panic!("{name} at {next}: {error}"));
            assert_eq!(batch.header().base_offset, next, "{name} {id}: a gap");
            next = batch.header().next_offset();
            let key = with_scratch(|scratch| {
                let mut records = batch.records(scratch, 1 << 20).expect("records can be read");
                let record = records.next().expect("there is one").expect("it is sound");
                record.key.map(<[u8]>::to_vec)
            });
            assert_eq!(key.as_deref(), Some(&id.0[..]), "{name} {id} has records of another topic");
        }
        Ok(())
    }

    async fn commit(&mut self, connection: &mut Connection, id: Uuid, partition: i32) -> io::Result<()> {
        if committer::find(&self.shared, connection, &self.group).await.is_none() {
            return Ok(());
        }
        self.commits += 1;
        let offset = self.commits;
        self.topics.get_mut(&id).expect("it is known").committed.insert(offset);
        let partitions = vec![offset_commit_request::Partition {
            partition_index: partition,
            committed_offset: offset,
            ..Default::default()
        }];
        let request = OffsetCommitRequest {
            group_id: self.group.clone(),
            generation_id_or_member_epoch: -1,
            topics: vec![offset_commit_request::Topic { topic_id: id, partitions, ..Default::default() }],
            ..Default::default()
        };
        let response = connection.call(&request, 10).await?;
        self.is_served(id, response.topics[0].partitions[0].error_code, "OffsetCommit");
        Ok(())
    }

    async fn look_at_commit(
        &mut self,
        connection: &mut Connection,
        id: Uuid,
        partition: i32,
    ) -> io::Result<()> {
        let topic = offset_fetch_request::Topics {
            topic_id: id,
            partition_indexes: vec![partition],
            ..Default::default()
        };
        let group = offset_fetch_request::Group {
            group_id: self.group.clone(),
            topics: Some(vec![topic]),
            ..Default::default()
        };
        let request = OffsetFetchRequest { groups: vec![group], ..Default::default() };
        let response = connection.call(&request, 10).await?;
        let group = &response.groups[0];
        let Some(found) = group.topics.first().map(|topic| &topic.partitions[0]) else {
            self.is_served(id, group.error_code, "OffsetFetch");
            return Ok(());
        };
        let code = if group.error_code != 0 { group.error_code } else { found.error_code };
        if self.is_served(id, code, "OffsetFetch") && found.committed_offset != -1 {
            let (name, offset) = (&self.name, found.committed_offset);
            let known = self.topics[&id].committed.contains(&offset);
            assert!(known, "{name} {id} has a commit ({offset}) of a former topic of its name");
        }
        Ok(())
    }
}
