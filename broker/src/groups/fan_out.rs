//! Requests that name several groups, and the shapes that older versions have: taken apart for the coordinators, put
//! together again for the client. Pure: who sends what where is the caller's.

use std::collections::BTreeMap;

use corelog_wire::messages::list_groups_response::ListGroupsResponse;
use corelog_wire::messages::offset_fetch_request::OffsetFetchRequest;
use corelog_wire::messages::offset_fetch_response::OffsetFetchResponse;
use corelog_wire::messages::{offset_fetch_request, offset_fetch_response};
use corelog_wire::{ErrorCode, Str};

use super::partition::group_partition;

/// From this version on an OffsetFetch names several groups.
const SEVERAL_GROUPS_FROM: i16 = 8;
/// From this version on an OffsetFetch has an error for the whole group.
const GROUP_ERROR_FROM: i16 = 2;

/// Groups by the partition of `__consumer_offsets` (of `partitions` in all) that coordinates them, for DescribeGroups
/// and DeleteGroups.
pub fn by_partition(groups: impl IntoIterator<Item = Str>, partitions: i32) -> BTreeMap<i32, Vec<Str>> {
    let mut by_partition: BTreeMap<i32, Vec<Str>> = BTreeMap::new();
    for group in groups {
        by_partition.entry(group_partition(&group, partitions)).or_default().push(group);
    }
    by_partition
}

/// The groups that an OffsetFetch names, in the form of version 8 and later.
pub fn offset_fetch_groups(request: OffsetFetchRequest, version: i16) -> Vec<offset_fetch_request::Group> {
    if version >= SEVERAL_GROUPS_FROM {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| offset_fetch_request::Topics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..Default::default()
        });
        topics.collect()
    });
    vec![offset_fetch_request::Group { group_id: request.group_id, topics, ..Default::default() }]
}

/// The answer to an OffsetFetch from those of its groups. `asked` is what [`offset_fetch_groups`] gave; a version that
/// has no error for the group repeats it for each partition that was asked for.
pub fn offset_fetch_response(
    groups: Vec<offset_fetch_response::Group>,
    asked: &[offset_fetch_request::Group],
    version: i16,
) -> OffsetFetchResponse {
    if version >= SEVERAL_GROUPS_FROM {
        return OffsetFetchResponse { groups, ..Default::default() };
    }
    let Some(group) = groups.into_iter().next() else { return OffsetFetchResponse::default() };
    if version < GROUP_ERROR_FROM && group.error_code != 0 {
        let topics = asked.iter().flat_map(|group| group.topics.iter().flatten());
        let topics = topics.map(|topic| offset_fetch_response::Topic {
            name: topic.name.clone(),
            partitions: topic
                .partition_indexes
                .iter()
                .map(|index| refused(*index, group.error_code))
                .collect(),
        });
        return OffsetFetchResponse { topics: topics.collect(), ..Default::default() };
    }
    let topics = group.topics.into_iter().map(|topic| offset_fetch_response::Topic {
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
    });
    OffsetFetchResponse { topics: topics.collect(), error_code: group.error_code, ..Default::default() }
}

fn refused(partition_index: i32, error_code: i16) -> offset_fetch_response::Partition {
    offset_fetch_response::Partition {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Str::default()),
        error_code,
    }
}

/// The answer to a ListGroups from those of all shards: the groups of all, or the first error.
pub fn merge_lists(parts: impl IntoIterator<Item = ListGroupsResponse>) -> ListGroupsResponse {
    let mut all = ListGroupsResponse::default();
    for part in parts {
        if ErrorCode(part.error_code) != ErrorCode::NONE {
            return ListGroupsResponse { groups: Vec::new(), ..part };
        }
        all.groups.extend(part.groups);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(text: &str) -> Str {
        Str::from(text)
    }

    fn request(topics: Option<&[i32]>) -> OffsetFetchRequest {
        let topics = topics.map(|indexes| {
            vec![offset_fetch_request::Topic { name: s("t"), partition_indexes: indexes.to_vec() }]
        });
        OffsetFetchRequest { group_id: s("g"), topics, ..Default::default() }
    }

    #[test]
    fn one_group_or_several() {
        let old = offset_fetch_groups(request(Some(&[1, 2])), 1);
        assert_eq!(old.len(), 1);
        assert_eq!((&*old[0].group_id, old[0].member_epoch), ("g", -1));
        let topics = old[0].topics.as_ref().expect("topics");
        assert_eq!((&*topics[0].name, &topics[0].partition_indexes[..]), ("t", &[1, 2][..]));
        assert_eq!(offset_fetch_groups(request(None), 2)[0].topics, None);
        let group = |id| offset_fetch_request::Group { group_id: s(id), ..Default::default() };
        let several = OffsetFetchRequest { groups: vec![group("a"), group("b")], ..Default::default() };
        assert_eq!(offset_fetch_groups(several, 8).len(), 2);
    }

    #[test]
    fn a_groups_error_is_where_the_version_has_it() {
        let error_code = ErrorCode::NOT_COORDINATOR.code();
        let refused =
            || vec![offset_fetch_response::Group { group_id: s("g"), error_code, ..Default::default() }];
        for (version, top, by_partition, by_group) in [
            (0, 0, Some(error_code), None),
            (1, 0, Some(error_code), None),
            (2, error_code, None, None),
            (7, error_code, None, None),
            (8, 0, None, Some(error_code)),
        ] {
            let asked = offset_fetch_groups(request(Some(&[4])), 1);
            let response = offset_fetch_response(refused(), &asked, version);
            assert_eq!(response.error_code, top, "version {version}");
            let first = response.topics.first().and_then(|topic| topic.partitions.first());
            assert_eq!(first.map(|partition| partition.error_code), by_partition);
            assert_eq!(
                first.map(|partition| (partition.partition_index, partition.committed_offset)),
                by_partition.map(|_| (4, -1))
            );
            assert_eq!(response.groups.first().map(|group| group.error_code), by_group);
        }
    }

    #[test]
    fn offsets_keep_their_place_in_every_version() {
        let partitions = vec![offset_fetch_response::Partitions {
            partition_index: 4,
            committed_offset: 9,
            committed_leader_epoch: 2,
            metadata: Some(s("m")),
            error_code: 0,
        }];
        let topics = vec![offset_fetch_response::Topics { name: s("t"), partitions, ..Default::default() }];
        let group = offset_fetch_response::Group { group_id: s("g"), topics, ..Default::default() };
        let asked = offset_fetch_groups(request(Some(&[4])), 1);
        let old = offset_fetch_response(vec![group.clone()], &asked, 5);
        let partition = &old.topics[0].partitions[0];
        assert_eq!((partition.committed_offset, partition.committed_leader_epoch), (9, 2));
        assert_eq!(partition.metadata.as_deref(), Some("m"));
        assert_eq!(offset_fetch_response(vec![group.clone()], &asked, 8).groups, [group]);
    }

    #[test]
    fn groups_go_to_their_partitions() {
        let split = by_partition([s("a"), s("b"), s("a")], 50);
        assert_eq!(split, BTreeMap::from([(97 % 50, vec![s("a"), s("a")]), (98 % 50, vec![s("b")])]));
    }
}
