//! A group without members that commits.

use std::time::Duration;

use corelog_io::sleep;
use corelog_wire::ErrorCode;
use corelog_wire::messages::{FindCoordinatorRequest, OffsetCommitRequest, offset_commit_request};

use crate::connection::Connection;

const GROUP: &str = "group";

/// Has a coordinator, and an offset for each of `partitions`.
pub async fn begin(connection: &mut Connection, partitions: impl Iterator<Item = i32> + Clone) {
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP.into()], ..Default::default() };
    let found = connection.call(&request, 4).await.expect("an answer");
    assert_eq!(found.coordinators[0].error_code, 0);
    while !try_to_commit(connection, partitions.clone(), 0).await {
        sleep(Duration::from_millis(20)).await;
    }
}

pub async fn commit(connection: &mut Connection, partitions: impl Iterator<Item = i32>, offset: i32) {
    assert!(try_to_commit(connection, partitions, offset).await, "the coordinator is at work");
}

async fn try_to_commit(
    connection: &mut Connection,
    partitions: impl Iterator<Item = i32>,
    offset: i32,
) -> bool {
    let partitions = partitions.map(|partition_index| offset_commit_request::Partition {
        partition_index,
        committed_offset: offset.into(),
        committed_metadata: Some("".into()),
        ..Default::default()
    });
    let name = "tailed".into();
    let topic = offset_commit_request::Topic { name, partitions: partitions.collect(), ..Default::default() };
    let request = OffsetCommitRequest {
        group_id: GROUP.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let answer = connection.call(&request, 8).await.expect("an answer");
    answer.topics[0].partitions.iter().all(|partition| ErrorCode(partition.error_code).is_ok())
}
