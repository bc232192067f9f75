//! A fetch session with one broker (KIP-227): only what changed since the last request is sent.

use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::fetch::{FetchPartition, FetchTopic, ForgottenTopic};
use corelog_wire::{ErrorCode, Str, Uuid};
use std::collections::BTreeMap;

/// What is asked of a partition; when it changes, the broker is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) topic_id: Uuid,
    pub(super) offset: i64,
    pub(super) leader_epoch: i32,
    /// Of the record before `offset`; the broker tells if its log has another one there. -1 where unknown.
    pub(super) last_fetched_epoch: i32,
    pub(super) bytes_max: i32,
}

#[derive(Default)]
pub(super) struct Session {
    /// 0 without one.
    id: i32,
    epoch: i32,
    /// What the broker has on record.
    known: BTreeMap<TopicPartition, Asked>,
}

/// The session's part of a request.
pub(super) struct Request {
    pub(super) session_id: i32,
    pub(super) session_epoch: i32,
    pub(super) topics: Vec<FetchTopic>,
    pub(super) forgotten: Vec<ForgottenTopic>,
}

const EPOCH_NEW: i32 = 0;
const EPOCH_NONE: i32 = -1;

impl Session {
    /// The request for these partitions. Without `supported`, each request stands alone.
    pub(super) fn request(&mut self, wanted: BTreeMap<TopicPartition, Asked>, supported: bool) -> Request {
        if !supported {
            self.reset();
            let topics = topics(wanted.iter());
            return Request { session_id: 0, session_epoch: EPOCH_NONE, topics, forgotten: Vec::new() };
        }
        let request = if self.epoch == EPOCH_NEW {
            let topics = topics(wanted.iter());
            // One that there was before is closed by this.
            Request { session_id: self.id, session_epoch: EPOCH_NEW, topics, forgotten: Vec::new() }
        } else {
            let changed = wanted.iter().filter(|(at, asked)| self.known.get(at) != Some(asked));
            // A topic that was made anew has another id: the old one's partitions leave the session.
            let gone = self
                .known
                .iter()
                .filter(|(at, asked)| wanted.get(at).is_none_or(|new| new.topic_id != asked.topic_id));
            Request {
                session_id: self.id,
                session_epoch: self.epoch,
                topics: topics(changed),
                forgotten: by_topic(gone.map(|(at, asked)| (at.clone(), asked.topic_id)))
                    .into_iter()
                    .map(forgotten)
                    .collect(),
            }
        };
        self.known = wanted;
        request
    }

    /// Takes the answer's session. Returns whether the request is to be made again, from scratch.
    pub(super) fn answered(&mut self, code: ErrorCode, session_id: i32) -> bool {
        match code {
            ErrorCode::FETCH_SESSION_ID_NOT_FOUND => {
                self.reset();
                return true;
            }
            ErrorCode::INVALID_FETCH_SESSION_EPOCH
            | ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR
            | ErrorCode::INCONSISTENT_TOPIC_ID => {
                self.lost();
                return true;
            }
            _ if !code.is_ok() => self.lost(),
            _ if session_id == 0 => self.reset(),
            _ if session_id == self.id => {
                self.epoch = if self.epoch == i32::MAX { 1 } else { self.epoch + 1 };
            }
            _ => (self.id, self.epoch) = (session_id, 1),
        }
        false
    }

    /// After an answer that never came: what the broker has on record is not known. The next request begins anew, and closes it.
    pub(super) fn lost(&mut self) {
        *self = Session { id: self.id, ..Default::default() };
    }

    fn reset(&mut self) {
        *self = Session::default();
    }

    /// What closes it, if it is open.
    pub(super) fn close(&mut self) -> Option<Request> {
        let session_id = std::mem::take(self).id;
        let request =
            Request { session_id, session_epoch: EPOCH_NONE, topics: Vec::new(), forgotten: Vec::new() };
        (session_id != 0).then_some(request)
    }
}

fn topics<'a>(partitions: impl Iterator<Item = (&'a TopicPartition, &'a Asked)>) -> Vec<FetchTopic> {
    let partition = |(index, asked): (i32, Asked)| FetchPartition {
        partition: index,
        current_leader_epoch: asked.leader_epoch,
        fetch_offset: asked.offset,
        last_fetched_epoch: asked.last_fetched_epoch,
        partition_max_bytes: asked.bytes_max,
        ..Default::default()
    };
    let topic = |(name, partitions): (Str, Vec<(i32, Asked)>)| FetchTopic {
        topic: name,
        topic_id: partitions.first().map_or(Uuid::ZERO, |(_, asked)| asked.topic_id),
        partitions: partitions.into_iter().map(partition).collect(),
    };
    by_topic(partitions.map(|(at, asked)| (at.clone(), *asked))).into_iter().map(topic).collect()
}

fn forgotten((name, partitions): (Str, Vec<(i32, Uuid)>)) -> ForgottenTopic {
    ForgottenTopic {
        topic: name,
        topic_id: partitions.first().map_or(Uuid::ZERO, |(_, id)| *id),
        partitions: partitions.into_iter().map(|(index, _)| index).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(offsets: &[(i32, i64)]) -> BTreeMap<TopicPartition, Asked> {
        let asked = |offset| Asked {
            topic_id: Uuid([1; 16]),
            offset,
            leader_epoch: 0,
            last_fetched_epoch: -1,
            bytes_max: 9,
        };
        offsets
            .iter()
            .map(|(partition, offset)| (TopicPartition::new("t", *partition), asked(*offset)))
            .collect()
    }

    /// Partitions asked for and forgotten.
    fn shape(request: &Request) -> (i32, i32, Vec<i32>, Vec<i32>) {
        let topics = request.topics.iter().flat_map(|topic| &topic.partitions).map(|it| it.partition);
        let forgotten = request.forgotten.iter().flat_map(|topic| &topic.partitions).copied();
        (request.session_id, request.session_epoch, topics.collect(), forgotten.collect())
    }

    #[test]
    fn only_changes_are_sent_within_a_session() {
        let mut session = Session::default();
        let request = session.request(wanted(&[(0, 5), (1, 5)]), true);
        assert_eq!(shape(&request), (0, 0, vec![0, 1], vec![]));
        assert!(!session.answered(ErrorCode::NONE, 77));
        let request = session.request(wanted(&[(0, 5), (1, 6), (2, 0)]), true);
        assert_eq!(shape(&request), (77, 1, vec![1, 2], vec![]));
        assert!(!session.answered(ErrorCode::NONE, 77));
        let request = session.request(wanted(&[(2, 0)]), true);
        assert_eq!(shape(&request), (77, 2, vec![], vec![0, 1]));
        assert!(session.answered(ErrorCode::FETCH_SESSION_ID_NOT_FOUND, 0));
        let request = session.request(wanted(&[(2, 0)]), true);
        assert_eq!(shape(&request), (0, 0, vec![2], vec![]));
    }

    #[test]
    fn a_session_is_closed_by_the_next_or_at_the_end() {
        let mut session = Session::default();
        session.request(wanted(&[(0, 5)]), true);
        assert!(session.close().is_none());
        for lose in [
            |session: &mut Session| session.lost(),
            |session: &mut Session| {
                assert!(session.answered(ErrorCode::INVALID_FETCH_SESSION_EPOCH, 0));
            },
        ] {
            session.request(wanted(&[(0, 5)]), true);
            session.answered(ErrorCode::NONE, 77);
            lose(&mut session);
            assert_eq!(shape(&session.request(wanted(&[(0, 5)]), true)), (77, 0, vec![0], vec![]));
            session.answered(ErrorCode::NONE, 78);
            assert_eq!(shape(&session.close().unwrap()), (78, -1, vec![], vec![]));
            assert!(session.close().is_none());
        }
    }

    #[test]
    fn brokers_without_sessions_are_asked_for_all() {
        let mut session = Session::default();
        for _ in 0..2 {
            assert_eq!(shape(&session.request(wanted(&[(0, 5)]), false)), (0, -1, vec![0], vec![]));
        }
        for _ in 0..2 {
            // One that has no slot left answers with session 0.
            assert_eq!(shape(&session.request(wanted(&[(0, 5)]), true)), (0, 0, vec![0], vec![]));
            assert!(!session.answered(ErrorCode::NONE, 0));
        }
    }

    #[test]
    fn a_topic_made_anew_leaves_under_its_old_id() {
        let mut session = Session::default();
        session.request(wanted(&[(0, 5)]), true);
        session.answered(ErrorCode::NONE, 7);
        let mut anew = wanted(&[(0, 0)]);
        anew.values_mut().for_each(|asked| asked.topic_id = Uuid([2; 16]));
        let request = session.request(anew, true);
        assert_eq!(request.forgotten[0].topic_id, Uuid([1; 16]));
        assert_eq!(request.topics[0].topic_id, Uuid([2; 16]));
    }
}
