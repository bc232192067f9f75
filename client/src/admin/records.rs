//! Deleting records from the front of a partition (KIP-107).

use super::{Admin, Outcomes, timeout_ms};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::leaders::{Answers, ask_leaders};
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::messages::{DeleteRecordsRequest, delete_records_request};
use std::rc::Rc;

impl Admin {
    /// Deletes all records before an offset; -1 stands for all that is there. Returns each partition's new first offset.
    pub async fn delete_records(
        &self,
        before: Vec<(TopicPartition, i64)>,
    ) -> Result<Outcomes<TopicPartition, i64>> {
        self.handle.call(async move |core| Ok(delete(&core, before).await)).await
    }
}

async fn delete(core: &Rc<Core>, before: Vec<(TopicPartition, i64)>) -> Answers<i64> {
    ask_leaders(core, "delete records", before, core.deadline(), async |connection, share| {
        let topics = by_topic(share).into_iter().map(|(name, partitions)| delete_records_request::Topic {
            name,
            partitions: partitions
                .into_iter()
                .map(|(partition_index, offset)| delete_records_request::Partition {
                    partition_index,
                    offset,
                })
                .collect(),
        });
        let request = DeleteRecordsRequest { topics: topics.collect(), timeout_ms: timeout_ms(core) };
        let response = connection.call(&request).await?;
        let mut answers = Vec::new();
        for topic in response.topics {
            let name = topic.name.detach();
            for partition in topic.partitions {
                let at = TopicPartition { topic: name.clone(), partition: partition.partition_index };
                let checked = Error::check(partition.error_code, || format!("delete records of {at}"));
                answers.push((at, checked.map(|()| partition.low_watermark)));
            }
        }
        Ok(answers)
    })
    .await
}
