//! Where to begin in a partition, and whether that is still there (KIP-320): questions to coordinator and leaders.
//!
//! Each broker is asked by a task of its own, and each partition takes its answer, or tries again, by itself: a slow one holds back
//! nobody else.

use super::buffer::{Place, Position, Start};
use super::config::OffsetReset;
use super::fetcher::Fetcher;
use crate::core::{Lane, Node, UNKNOWN_TOPIC_PATIENCE};
use crate::driver;
use crate::error::{Error, Result};
use crate::groups;
use crate::hashing::HashMap;
use crate::leaders::{self, EpochEnd, OffsetSpec};
use crate::topic_partition::TopicPartition;
use corelog_wire::{ErrorCode, Str};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How often metadata that is older than a committed offset's epoch is asked for anew before it is believed: the topic may have been
/// deleted and made anew.
const STALE_TRIES: u32 = 5;

/// What has to be asked before fetching, by whom to ask. Versions are those of the places.
#[derive(Default)]
pub(super) struct Questions {
    committed: Vec<(TopicPartition, u64)>,
    leaderless: Vec<(TopicPartition, u64)>,
    starts: BTreeMap<i32, Vec<(TopicPartition, u64, OffsetSpec)>>,
    ends: BTreeMap<i32, Vec<(TopicPartition, u64, Valid)>>,
}

/// Asks whether a position holds for a leader.
#[derive(Clone, Copy)]
struct Valid {
    /// Of the leader.
    current_epoch: i32,
    /// Of the record before the position.
    epoch: i32,
}

impl Questions {
    /// Notes what is to be asked for a place, given its leader and that one's epoch; returns where to fetch if nothing is.
    pub(super) fn of(
        &mut self,
        at: &TopicPartition,
        place: &mut Place,
        leader: Option<(i32, i32)>,
    ) -> Option<Position> {
        let version = place.version;
        match (place.start, leader) {
            (Start::Committed, _) => self.committed.push((at.clone(), version)),
            (Start::Seek(_), None) => self.leaderless.push((at.clone(), version)),
            (Start::Seek(spec), Some((node, _))) => {
                self.starts.entry(node).or_default().push((at.clone(), version, spec));
            }
            (Start::At(position), Some((node, current_epoch))) => {
                let known = position.leader_epoch.filter(|_| current_epoch >= 0);
                let Some(epoch) = known.filter(|_| place.validated != Some(current_epoch)) else {
                    place.validated = Some(current_epoch);
                    return Some(position);
                };
                match epoch > current_epoch && place.failures < STALE_TRIES {
                    // An older leader would take the newer one's records for lost.
                    true => self.leaderless.push((at.clone(), version)),
                    false => {
                        let valid = Valid { current_epoch, epoch };
                        self.ends.entry(node).or_default().push((at.clone(), version, valid));
                    }
                }
            }
            (Start::At(position), None) => return Some(position),
        }
        place.is_asked = true;
        None
    }
}

impl Fetcher {
    pub(super) fn ask_all(self: &Rc<Self>, questions: Questions) {
        let Questions { committed, leaderless, starts, ends } = questions;
        let topics = committed.iter().chain(&leaderless).map(|(at, _)| at);
        let topics = topics.chain(starts.values().flatten().map(|(at, ..)| at));
        topics.for_each(|at| self.core.want(&at.topic));
        if !committed.is_empty() {
            self.spawn(async move |fetcher| fetcher.find_committed(committed).await);
        }
        if !leaderless.is_empty() {
            self.spawn(async move |fetcher| fetcher.find_leaders(leaderless).await);
        }
        for (node, asked) in starts {
            self.spawn(async move |fetcher| fetcher.find_offsets(node, asked).await);
        }
        for (node, asked) in ends {
            self.spawn(async move |fetcher| fetcher.validate(node, asked).await);
        }
    }

    fn spawn(self: &Rc<Self>, work: impl AsyncFnOnce(Rc<Fetcher>) + 'static) {
        let fetcher = self.clone();
        driver::spawn(async move {
            work(fetcher.clone()).await;
            fetcher.changed.notify();
        });
    }

    async fn find_committed(&self, asked: Vec<(TopicPartition, u64)>) {
        let partitions: Vec<TopicPartition> = asked.iter().map(|(at, _)| at.clone()).collect();
        let found = match self.shared.config.group.as_deref().map(Str::from) {
            Some(group) => groups::committed_once(&self.core, &group, Some(&partitions), true).await,
            None => Ok(partitions.into_iter().map(|at| (at, Ok(None))).collect()),
        };
        let mut found = match found {
            Ok(found) => found,
            Err(error) => {
                return asked.iter().for_each(|(at, version)| self.unresolved(at, *version, &error));
            }
        };
        for (at, version) in asked {
            match found.remove(&at).unwrap_or_else(|| Err(unanswered(&at))) {
                Ok(Some(found)) => {
                    let position = Position { offset: found.offset, leader_epoch: found.leader_epoch };
                    self.shared.lock().start_at(&at, version, position);
                }
                Ok(None) => match self.reset_to() {
                    Some(spec) => self.shared.lock().look_up(&at, version, spec),
                    None => {
                        let what = format!("nothing is committed for {at}, and offset_reset is Fail");
                        self.unresolved(&at, version, &Error::config(what, "seek, or set offset_reset"));
                    }
                },
                Err(error) => self.unresolved(&at, version, &error),
            }
        }
    }

    /// Where to go on if what was looked for is not there.
    pub(super) fn reset_to(&self) -> Option<OffsetSpec> {
        match self.shared.config.offset_reset {
            OffsetReset::Earliest => Some(OffsetSpec::Earliest),
            OffsetReset::Latest => Some(OffsetSpec::Latest),
            OffsetReset::Fail => None,
        }
    }

    async fn find_leaders(&self, asked: Vec<(TopicPartition, u64)>) {
        let topics: BTreeSet<Str> = asked.iter().map(|(at, _)| at.topic.clone()).collect();
        let topics: Vec<Str> = topics.into_iter().collect();
        let told = self.core.refresh(Some(&topics)).await;
        for (at, version) in asked {
            let code = match &told {
                Err(error) => {
                    self.unresolved(&at, version, error);
                    continue;
                }
                Ok(told) => match told.get(&at.topic) {
                    Some(Err(code)) => *code,
                    Some(Ok(topic)) if topic.partition(at.partition).is_none() => {
                        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
                    }
                    _ => ErrorCode::LEADER_NOT_AVAILABLE,
                },
            };
            let is_seeking = {
                let buffer = self.shared.lock();
                buffer.partitions.get(&at).is_some_and(|place| matches!(place.start, Start::Seek(_)))
            };
            match self.core.metadata.borrow().leader(&at.topic, at.partition) {
                Some(_) if is_seeking => self.shared.lock().ask_again(&at, version),
                _ => self.unresolved(&at, version, &Error::broker(code, format!("find the leader of {at}"))),
            }
        }
    }

    async fn find_offsets(&self, node: i32, asked: Vec<(TopicPartition, u64, OffsetSpec)>) {
        let isolation = self.shared.config.isolation;
        let share = asked.iter().map(|(at, _, spec)| (at.clone(), *spec)).collect();
        let listed = async {
            let connection = self.core.connection(Node::Id(node), Lane::SHARED).await?;
            leaders::list_offsets_on(&self.core, &connection, share, isolation).await
        };
        let asked = asked.into_iter().map(|(at, version, _)| (at, version)).collect();
        self.take_answers(asked, listed.await, |at, version, listed| {
            let mut buffer = self.shared.lock();
            let Some(place) = buffer.place(at, version) else { return };
            match (listed.offset, place.start) {
                // Nothing was read before it that could be compared.
                (Some(offset), _) => buffer.start_at(at, version, Position::at(offset)),
                (None, Start::Seek(OffsetSpec::Earliest | OffsetSpec::Latest)) => {
                    drop(buffer);
                    self.unresolved(at, version, &unanswered(at));
                }
                // No record is as late as the time asked for: what comes next is.
                (None, _) => buffer.look_up(at, version, OffsetSpec::Latest),
            }
        });
    }

    async fn validate(&self, node: i32, asked: Vec<(TopicPartition, u64, Valid)>) {
        let share =
            asked.iter().map(|(at, _, valid)| (at.clone(), (valid.current_epoch, valid.epoch))).collect();
        let current: HashMap<TopicPartition, i32> =
            asked.iter().map(|(at, _, valid)| (at.clone(), valid.current_epoch)).collect();
        let ends = async {
            let connection = self.core.connection(Node::Id(node), Lane::SHARED).await?;
            leaders::epoch_ends_on(&self.core, &connection, share).await
        };
        let asked = asked.into_iter().map(|(at, version, _)| (at, version)).collect();
        self.take_answers(asked, ends.await, |at, version, end| {
            let mut buffer = self.shared.lock();
            let Some(position) = buffer.fetch_position(at, version) else { return };
            let end = match end {
                EpochEnd::Unsupported => None,
                EpochEnd::Unknown => Some(None),
                EpochEnd::At { offset, .. } if offset >= position.offset => None,
                EpochEnd::At { offset, epoch } => Some(Some(Position { offset, leader_epoch: Some(epoch) })),
            };
            match end {
                Some(end) => self.cut(&mut buffer, at, end),
                None => buffer.validated(at, version, current[at]),
            }
        });
    }

    fn take_answers<T>(
        &self,
        asked: Vec<(TopicPartition, u64)>,
        answers: Result<leaders::Answers<T>>,
        take: impl Fn(&TopicPartition, u64, T),
    ) {
        let mut answers: HashMap<TopicPartition, Result<T>> = match answers {
            Ok(answers) => answers.into_iter().collect(),
            Err(error) => {
                return asked.iter().for_each(|(at, version)| self.unresolved(at, *version, &error));
            }
        };
        for (at, version) in asked {
            match answers.remove(&at).unwrap_or_else(|| Err(unanswered(&at))) {
                Ok(answer) => take(&at, version, answer),
                Err(error) => self.unresolved(&at, version, &error),
            }
        }
    }

    /// Tries again later, or gives up; a lasting failure is told now and then.
    fn unresolved(&self, at: &TopicPartition, version: u64, error: &Error) {
        let mut buffer = self.shared.lock();
        let Some(place) = buffer.place(at, version) else { return };
        place.is_asked = false;
        let is_told = if error.is_retriable() {
            self.back_off(place);
            let patience = match error.code() {
                Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => UNKNOWN_TOPIC_PATIENCE,
                _ => self.core.config.api_timeout,
            };
            let since = *place.unresolved_since.get_or_insert_with(driver::now);
            let is_over = driver::elapsed(since) >= patience;
            if is_over {
                place.unresolved_since = None;
            }
            self.core.want(&at.topic);
            if error.wants_metadata() {
                self.core.refresh_soon();
            }
            is_over
        } else if matches!(error, Error::Config { .. }) {
            place.halted = true;
            true
        } else {
            // Somebody may mend it.
            self.back_off(place);
            true
        };
        // A client that is closed tells so by itself.
        if is_told && !matches!(error, Error::Closed) {
            buffer.fail(error.clone());
        }
    }

    /// The log parts from what was read at `end`, or the leader does not know where: goes on there, or fails, as `offset_reset` says.
    pub(super) fn cut(&self, buffer: &mut super::buffer::Buffer, at: &TopicPartition, end: Option<Position>) {
        let Some(place) = buffer.partitions.get_mut(at) else { return };
        let Some(polled) = place.position else { return };
        match (end, self.reset_to()) {
            // What was lost had been fetched only. An epoch that this log does not have would be told again and again.
            (Some(end), _) if polled.offset <= end.offset => {
                let epochs = polled.leader_epoch.zip(end.leader_epoch);
                let leader_epoch = epochs.map(|(polled, end)| polled.min(end)).or(polled.leader_epoch);
                buffer.rewind(at, Position { leader_epoch, ..polled });
            }
            (Some(end), Some(_)) => buffer.rewind(at, end),
            (None, Some(spec)) => drop(buffer.seek(at, Start::Seek(spec))),
            (end, None) => {
                buffer.rewind(at, polled);
                if let Some(place) = buffer.partitions.get_mut(at) {
                    place.halted = true;
                }
                buffer.fail(Error::LogCut {
                    topic: at.topic.as_str().to_owned(),
                    partition: at.partition,
                    position: polled.offset,
                    offset: end.map(|end| end.offset),
                });
            }
        }
    }
}

fn unanswered(at: &TopicPartition) -> Error {
    Error::broker(
        ErrorCode::LEADER_NOT_AVAILABLE,
        format!("find where to begin in {at}: it was not answered"),
    )
}
