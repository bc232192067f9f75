//! The group APIs: each request goes to the shard that owns its group's partition of `__consumer_offsets`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use corelog_wire::messages::delete_groups_response::DeletableGroupResult;
use corelog_wire::messages::describe_groups_response::DescribedGroup;
use corelog_wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse, offset_commit_response, offset_delete_response, offset_fetch_request,
    offset_fetch_response,
};
use corelog_wire::{ErrorCode, Str, Uuid};
use futures_util::future::join_all;

use super::context::Context;
use crate::audit;
use crate::controller::OFFSETS_TOPIC;
use crate::groups::{GroupRequest, GroupResponse, RequestContext, group_partition};

/// First versions of OffsetCommit and OffsetFetch that name topics by id (KIP-848).
const TOPIC_IDS_FROM: i16 = 10;
/// First version of OffsetFetch that asks of several groups (KIP-709).
const GROUPS_FROM: i16 = 8;

macro_rules! forwarded {
    ($($name:ident: $request:ident -> $response:ident as $variant:ident;)*) => {
        $(pub async fn $name(context: Context, request: $request) -> $response {
            let group = request.group_id.clone();
            match ask(&context, &group, GroupRequest::$variant(request)).await {
                GroupResponse::$variant(response) => response,
                _ => unreachable!("an answer is of its request's kind"),
            }
        })*
    };
}

forwarded! {
    ask_to_join: JoinGroupRequest -> JoinGroupResponse as Join;
    ask_to_sync: SyncGroupRequest -> SyncGroupResponse as Sync;
    heartbeat: HeartbeatRequest -> HeartbeatResponse as Heartbeat;
    leave: LeaveGroupRequest -> LeaveGroupResponse as Leave;
}

pub async fn join(context: Context, mut request: JoinGroupRequest) -> JoinGroupResponse {
    for text in [&mut request.group_id, &mut request.member_id, &mut request.protocol_type] {
        *text = text.detach();
    }
    for text in [&mut request.group_instance_id, &mut request.reason].into_iter().flatten() {
        *text = text.detach();
    }
    for protocol in &mut request.protocols {
        protocol.name = protocol.name.detach();
        protocol.metadata = Bytes::copy_from_slice(&protocol.metadata);
    }
    ask_to_join(before_a_wait(context), request).await
}

pub async fn sync(context: Context, mut request: SyncGroupRequest) -> SyncGroupResponse {
    for text in [&mut request.group_id, &mut request.member_id] {
        *text = text.detach();
    }
    let optional = [&mut request.group_instance_id, &mut request.protocol_type, &mut request.protocol_name];
    for text in optional.into_iter().flatten() {
        *text = text.detach();
    }
    for assignment in &mut request.assignments {
        assignment.member_id = assignment.member_id.detach();
        assignment.assignment = Bytes::copy_from_slice(&assignment.assignment);
    }
    ask_to_sync(before_a_wait(context), request).await
}

/// A member may wait for the others of its group for minutes: it keeps nothing of the frame that its request came in.
fn before_a_wait(mut context: Context) -> Context {
    context.client_id = context.client_id.map(|id| id.detach());
    context.room.give_back();
    context
}

/// Has the coordinator of `group` answer.
async fn ask(context: &Context, group: &str, request: GroupRequest) -> GroupResponse {
    let partitions = match context.shard.image().topic(OFFSETS_TOPIC) {
        Some(topic) => topic.partitions.len() as i32,
        // Nobody has asked for a coordinator yet, so this broker is none.
        None => return request.refuse(context.api_version, ErrorCode::NOT_COORDINATOR),
    };
    ask_partition(context, group_partition(group, partitions), request).await
}

async fn ask_partition(context: &Context, index: i32, request: GroupRequest) -> GroupResponse {
    let version = context.api_version;
    let route = match context.shard.route(OFFSETS_TOPIC, index) {
        Ok(route) => route,
        Err(_) => return request.refuse(version, ErrorCode::NOT_COORDINATOR),
    };
    let asker = RequestContext {
        client_id: context.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", context.connection.peer.ip()).into(),
        api_version: version,
    };
    let gone = request.outline();
    context
        .shard
        .ask(route.owner, move |shard| async move {
            if !shard.may_coordinate(index) {
                return request.refuse(version, ErrorCode::NOT_COORDINATOR);
            }
            shard.groups.ask(index, &asker, request, || shard.group_log(index)).await
        })
        .await
        .unwrap_or_else(|_| gone.refuse(version, ErrorCode::COORDINATOR_NOT_AVAILABLE))
}

pub async fn offset_commit(context: Context, mut request: OffsetCommitRequest) -> OffsetCommitResponse {
    let shard = &context.shard;
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    // What is unknown is answered here; the coordinator gets the rest.
    let image = shard.image();
    let mut unknown: Vec<offset_commit_response::Topic> = Vec::new();
    for topic in &mut request.topics {
        let found = if by_id { image.topic_by_id(topic.topic_id) } else { image.topic(&topic.name) };
        let count = found.map_or(0, |topic| topic.partitions.len() as i32);
        if let Some(found) = found {
            topic.name = found.name.clone();
            topic.topic_id = found.id;
        }
        let code = if by_id && found.is_none() {
            ErrorCode::UNKNOWN_TOPIC_ID
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        let (known, missing) = std::mem::take(&mut topic.partitions)
            .into_iter()
            .partition(|partition| (0..count).contains(&partition.partition_index));
        topic.partitions = known;
        let missing: Vec<_> = missing;
        if !missing.is_empty() {
            unknown.push(offset_commit_response::Topic {
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                partitions: missing
                    .into_iter()
                    .map(|partition| offset_commit_response::Partition {
                        partition_index: partition.partition_index,
                        error_code: code.0,
                    })
                    .collect(),
            });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    let mut response = if request.topics.is_empty() && !unknown.is_empty() {
        OffsetCommitResponse::default()
    } else {
        let group = request.group_id.clone();
        match ask(&context, &group, GroupRequest::OffsetCommit(request)).await {
            GroupResponse::OffsetCommit(response) => response,
            _ => unreachable!("an answer is of its request's kind"),
        }
    };
    let key = |topic: &offset_commit_response::Topic| (topic.name.clone(), topic.topic_id);
    let answered = response.topics.iter().enumerate();
    let mut places: HashMap<(Str, Uuid), usize> =
        answered.map(|(place, topic)| (key(topic), place)).collect();
    for missing in unknown {
        match places.entry(key(&missing)) {
            Entry::Occupied(place) => response.topics[*place.get()].partitions.extend(missing.partitions),
            Entry::Vacant(place) => {
                place.insert(response.topics.len());
                response.topics.push(missing);
            }
        }
    }
    response
}

pub async fn offset_fetch(context: Context, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let require_stable = request.require_stable;
    if context.api_version >= GROUPS_FROM {
        // All offsets of a group are told once, however often they are asked for.
        let mut seen = HashSet::new();
        let groups = request.groups.into_iter();
        let groups = groups.filter(|group| group.topics.is_some() || seen.insert(group.group_id.clone()));
        let answers = groups.map(|group| fetch_one(&context, group, require_stable));
        return OffsetFetchResponse { groups: join_all(answers).await, ..Default::default() };
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| offset_fetch_request::Topics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    let group = offset_fetch_request::Group { group_id: request.group_id, topics, ..Default::default() };
    let asked: Vec<(Str, Vec<i32>)> = group
        .topics
        .iter()
        .flatten()
        .map(|topic| (topic.name.clone(), topic.partition_indexes.clone()))
        .collect();
    let answer = fetch_one(&context, group, require_stable).await;
    // Before version 2 there is no error for the whole: every partition bears it.
    let spread = (context.api_version < 2 && answer.error_code != 0).then_some(answer.error_code);
    let topics = match spread {
        Some(error_code) => asked
            .into_iter()
            .map(|(name, partitions)| offset_fetch_response::Topic {
                name,
                partitions: partitions
                    .into_iter()
                    .map(|partition_index| offset_fetch_response::Partition {
                        partition_index,
                        committed_offset: -1,
                        metadata: Some(Str::default()),
                        error_code,
                        ..Default::default()
                    })
                    .collect(),
            })
            .collect(),
        None => answer
            .topics
            .into_iter()
            .map(|topic| offset_fetch_response::Topic {
                name: topic.name,
                partitions: topic
                    .partitions
                    .into_iter()
                    .map(|partition| offset_fetch_response::Partition {
                        partition_index: partition.partition_index,
                        committed_offset: partition.committed_offset,
                        committed_leader_epoch: partition.committed_leader_epoch,
                        metadata: partition.metadata,
                        error_code: partition.error_code,
                    })
                    .collect(),
            })
            .collect(),
    };
    OffsetFetchResponse { topics, error_code: answer.error_code, ..Default::default() }
}

async fn fetch_one(
    context: &Context,
    mut group: offset_fetch_request::Group,
    require_stable: bool,
) -> offset_fetch_response::Group {
    let by_id = context.api_version >= TOPIC_IDS_FROM;
    let image = context.shard.image();
    let mut unknown = Vec::new();
    if !by_id {
        for topic in group.topics.iter_mut().flatten() {
            topic.topic_id = image.topic(&topic.name).map(|topic| topic.id).unwrap_or_default();
        }
    }
    if by_id && let Some(topics) = &mut group.topics {
        topics.retain_mut(|topic| match image.topic_by_id(topic.topic_id) {
            Some(found) => {
                topic.name = found.name.clone();
                true
            }
            None => {
                unknown.push(offset_fetch_response::Topics {
                    topic_id: topic.topic_id,
                    partitions: topic
                        .partition_indexes
                        .iter()
                        .map(|&partition_index| offset_fetch_response::Partitions {
                            partition_index,
                            committed_offset: -1,
                            metadata: Some(Str::default()),
                            error_code: ErrorCode::UNKNOWN_TOPIC_ID.0,
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                });
                false
            }
        });
    }
    let id = group.group_id.clone();
    let mut answer = match ask(context, &id, GroupRequest::OffsetFetch { group, require_stable }).await {
        GroupResponse::OffsetFetch(answer) => answer,
        _ => unreachable!("an answer is of its request's kind"),
    };
    if by_id {
        // The coordinator knows names; a topic that was deleted since has no id to answer with.
        answer.topics.retain_mut(|topic| match image.topic(&topic.name) {
            Some(found) => {
                let same = topic.topic_id.is_zero() || topic.topic_id == found.id;
                topic.topic_id = found.id;
                same
            }
            None => false,
        });
    }
    answer.topics.extend(unknown);
    answer
}

pub async fn offset_delete(context: Context, mut request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    let image = context.shard.image();
    let mut unknown: BTreeMap<Str, Vec<offset_delete_response::Partition>> = BTreeMap::new();
    for topic in &mut request.topics {
        let count = image.topic(&topic.name).map_or(0, |topic| topic.partitions.len() as i32);
        topic.partitions.retain(|partition| {
            let known = (0..count).contains(&partition.partition_index);
            if !known {
                unknown.entry(topic.name.clone()).or_default().push(offset_delete_response::Partition {
                    partition_index: partition.partition_index,
                    error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.0,
                });
            }
            known
        });
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    let group = request.group_id.clone();
    let partitions = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| format!("{}-{}", topic.name, partition.partition_index))
    });
    let change = context.change("delete offsets", &group, audit::list(partitions));
    let mut response = match ask(&context, &group, GroupRequest::OffsetDelete(request)).await {
        GroupResponse::OffsetDelete(response) => response,
        _ => unreachable!("an answer is of its request's kind"),
    };
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let failed = partitions.map(|partition| partition.error_code).find(|code| *code != 0);
    change.done_with_code(ErrorCode(match response.error_code {
        0 => failed.unwrap_or(0),
        code => code,
    }));
    if response.error_code == 0 {
        for topic in &mut response.topics {
            topic.partitions.extend(unknown.remove(&topic.name).unwrap_or_default());
        }
        let rest = unknown.into_iter();
        response
            .topics
            .extend(rest.map(|(name, partitions)| offset_delete_response::Topic { name, partitions }));
    }
    response
}

/// Groups by the partition that coordinates them, each with its place in the request.
fn by_partition(context: &Context, groups: &[Str]) -> BTreeMap<i32, Vec<(usize, Str)>> {
    let partitions =
        context.shard.image().topic(OFFSETS_TOPIC).map_or(1, |topic| topic.partitions.len() as i32);
    let mut dealt: BTreeMap<i32, Vec<(usize, Str)>> = BTreeMap::new();
    for (place, group) in groups.iter().enumerate() {
        dealt.entry(group_partition(group, partitions)).or_default().push((place, group.clone()));
    }
    dealt
}

pub async fn describe(context: Context, mut request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    // One that is named again is described already.
    let mut seen = HashSet::new();
    request.groups.retain(|group| seen.insert(group.clone()));
    let mut groups = vec![DescribedGroup::default(); request.groups.len()];
    let include_authorized_operations = request.include_authorized_operations;
    for (index, named) in by_partition(&context, &request.groups) {
        let (places, names): (Vec<usize>, Vec<Str>) = named.into_iter().unzip();
        let ask = GroupRequest::Describe { groups: names, include_authorized_operations };
        match ask_partition(&context, index, ask).await {
            GroupResponse::Describe(described) => {
                for (place, group) in places.into_iter().zip(described) {
                    groups[place] = group;
                }
            }
            _ => unreachable!("an answer is of its request's kind"),
        }
    }
    DescribeGroupsResponse { groups, ..Default::default() }
}

pub async fn delete(context: Context, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = vec![DeletableGroupResult::default(); request.groups_names.len()];
    for (index, named) in by_partition(&context, &request.groups_names) {
        let (places, names): (Vec<usize>, Vec<Str>) = named.into_iter().unzip();
        let changes: Vec<_> =
            names.iter().map(|name| context.change("delete group", name, String::new())).collect();
        match ask_partition(&context, index, GroupRequest::Delete(names)).await {
            GroupResponse::Delete(deleted) => {
                for ((place, change), result) in places.into_iter().zip(changes).zip(deleted) {
                    change.done_with_code(ErrorCode(result.error_code));
                    results[place] = result;
                }
            }
            _ => unreachable!("an answer is of its request's kind"),
        }
    }
    DeleteGroupsResponse { results, ..Default::default() }
}

pub async fn list(context: Context, request: ListGroupsRequest) -> ListGroupsResponse {
    let partitions = context.shard.image().topic(OFFSETS_TOPIC).map_or(0, |topic| topic.partitions.len());
    let asked = (0..partitions as i32).map(|index| {
        let request = request.clone();
        let context = &context;
        async move { ask_partition(context, index, GroupRequest::List(request)).await }
    });
    let mut response = ListGroupsResponse::default();
    for answer in join_all(asked).await {
        match answer {
            GroupResponse::List(list) => {
                if list.error_code != 0 {
                    response.error_code = list.error_code;
                }
                response.groups.extend(list.groups);
            }
            _ => unreachable!("an answer is of its request's kind"),
        }
    }
    response
}
