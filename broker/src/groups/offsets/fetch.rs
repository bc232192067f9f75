//! OffsetFetch: what a group has committed (KIP-88, 447, 709).

use corelog_wire::messages::{offset_fetch_request, offset_fetch_response};
use corelog_wire::{ErrorCode, Str};

use super::store::{CommittedOffset, OffsetKey};
use crate::coordinator::{Ticket, WriteId};
use crate::groups::machine::Groups;
use crate::groups::request::GroupResponse;

/// OffsetFetches of one coordinator that may wait for writes; more are told to come again, as Kafka tells all.
const WAITING_FETCHES_MAX: usize = 1_000;

/// An OffsetFetch that waits until `until` and every write before it are reported on.
#[derive(Debug)]
pub struct WaitingFetch {
    until: WriteId,
    ticket: Ticket,
    group: offset_fetch_request::Group,
}

impl Groups {
    /// Members are not checked: as in Kafka, anyone may read the offsets of a classic group, also by the versions that
    /// name a member and its epoch.
    pub(in crate::groups) fn offset_fetch(
        &mut self,
        ticket: Ticket,
        group: offset_fetch_request::Group,
        require_stable: bool,
    ) {
        // Who wants stable offsets waits for those that are on their way, rather than be told to ask again.
        let until = if require_stable { self.last_pending_write(&group) } else { None };
        match until {
            Some(_) if self.waiting_fetches.len() >= WAITING_FETCHES_MAX => {
                let response = offset_fetch_response::Group {
                    group_id: group.group_id,
                    error_code: ErrorCode::UNSTABLE_OFFSET_COMMIT.code(),
                    ..Default::default()
                };
                self.env.respond(ticket, GroupResponse::OffsetFetch(response));
            }
            Some(until) => self.waiting_fetches.push(WaitingFetch { until, ticket, group }),
            None => {
                let response = self.fetch(group);
                self.env.respond(ticket, GroupResponse::OffsetFetch(response));
            }
        }
    }

    fn last_pending_write(&self, group: &offset_fetch_request::Group) -> Option<WriteId> {
        if self.env.desk.pending().is_empty() {
            return None;
        }
        let Some(topics) = &group.topics else {
            return self.pending_offsets_of(&group.group_id).map(|(_, write, _)| write).max();
        };
        let partitions = topics
            .iter()
            .flat_map(|topic| topic.partition_indexes.iter().map(move |partition| (&topic.name, *partition)));
        let keys = partitions.map(|(topic, partition)| OffsetKey {
            group: group.group_id.clone(),
            topic: topic.clone(),
            partition,
        });
        keys.filter_map(|key| self.last_write_to(key)).max()
    }

    /// Writes have been reported on; those that waited for them are answered, from what is committed now.
    pub(in crate::groups) fn answer_waiting_fetches(&mut self) {
        for mut fetch in std::mem::take(&mut self.waiting_fetches) {
            if !self.env.is_pending(Some(fetch.until)) {
                // If it was refused, one before it may be on its way still.
                match self.last_pending_write(&fetch.group).filter(|write| *write < fetch.until) {
                    Some(before) => fetch.until = before,
                    None => {
                        let response = self.fetch(fetch.group);
                        self.env.respond(fetch.ticket, GroupResponse::OffsetFetch(response));
                        continue;
                    }
                }
            }
            self.waiting_fetches.push(fetch);
        }
    }

    pub(in crate::groups) fn refuse_waiting_fetches(&mut self, error: ErrorCode) {
        for waiting in std::mem::take(&mut self.waiting_fetches) {
            let response = offset_fetch_response::Group {
                group_id: waiting.group.group_id,
                error_code: error.code(),
                ..Default::default()
            };
            self.env.respond(waiting.ticket, GroupResponse::OffsetFetch(response));
        }
    }

    fn fetch(&self, group: offset_fetch_request::Group) -> offset_fetch_response::Group {
        let mut asked = group.topics.iter().flatten();
        if !asked.all(|topic| self.topics.agree(&topic.name, topic.topic_id)) {
            // A topic is being created or deleted, and not every shard knows. "No offset" would be no answer: clients
            // start somewhere else then. With this they ask again.
            return offset_fetch_response::Group {
                group_id: group.group_id,
                error_code: ErrorCode::COORDINATOR_LOAD_IN_PROGRESS.code(),
                ..Default::default()
            };
        }
        let topics = match group.topics {
            Some(topics) => topics
                .into_iter()
                .map(|topic| {
                    let read = |index: &i32| {
                        let offset = self.state.offsets.get(&group.group_id, &topic.name, *index);
                        answer(*index, offset.filter(|offset| self.is_current(&topic.name, offset)))
                    };
                    let partitions = topic.partition_indexes.iter().map(read).collect();
                    offset_fetch_response::Topics { partitions, name: topic.name, topic_id: topic.topic_id }
                })
                .collect(),
            None => {
                let mut topics: Vec<offset_fetch_response::Topics> = Vec::new();
                for (topic, partition, offset) in self.state.offsets.of(&group.group_id) {
                    if !self.is_current(topic, offset) {
                        continue;
                    }
                    if topics.last().is_none_or(|last| last.name != *topic) {
                        topics.push(offset_fetch_response::Topics {
                            name: topic.clone(),
                            topic_id: self.topics.id(topic).unwrap_or_default(),
                            ..Default::default()
                        });
                    }
                    let last = topics.last_mut().expect("there is one by now");
                    last.partitions.push(answer(partition, Some(offset)));
                }
                topics
            }
        };
        offset_fetch_response::Group { group_id: group.group_id, topics, ..Default::default() }
    }
}

impl Groups {
    /// Whether the offset was committed for the topic that bears the name now.
    fn is_current(&self, topic: &Str, offset: &CommittedOffset) -> bool {
        offset.topic_id.is_none_or(|id| self.topics.id(topic) == Some(id))
    }
}

fn answer(partition_index: i32, offset: Option<&CommittedOffset>) -> offset_fetch_response::Partitions {
    let mut partition = offset_fetch_response::Partitions {
        partition_index,
        committed_offset: -1,
        committed_leader_epoch: -1,
        metadata: Some(Default::default()),
        ..Default::default()
    };
    if let Some(offset) = offset {
        partition.committed_offset = offset.offset;
        partition.committed_leader_epoch = offset.leader_epoch;
        partition.metadata = Some(offset.metadata.clone());
    }
    partition
}
