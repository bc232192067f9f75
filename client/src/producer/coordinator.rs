//! What a transactional producer says to its transaction coordinator, and, for offsets, to a group's.
//!
//! It speaks the protocol of KIP-98, in which the producer adds partitions itself and keeps its epoch from one transaction to the next:
//! EndTxn up to version 4, AddPartitionsToTxn up to 3, Produce up to 11, TxnOffsetCommit up to 4. Every broker with transactions
//! speaks it, Kafka 4 too. Later versions belong to transaction.version 2 (KIP-890), which not all brokers have and a cluster may have
//! switched off: it would be needed beside this one, not instead.

use super::Shared;
use crate::core::{CoordinatorType, Core, Lane};
use crate::error::{Error, Result};
use crate::groups::{GroupMetadata, NewOffset, forget_on};
use crate::topic_partition::{TopicPartition, by_topic};
use corelog_wire::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, EndTxnRequest,
    InitProducerIdRequest, Message, Request, TxnOffsetCommitRequest, add_partitions_to_txn_request,
    txn_offset_commit_request,
};
use corelog_wire::{ErrorCode, Str};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

/// Of Produce.
pub(super) const PRODUCE_MAX: i16 = 11;
const ADD_PARTITIONS_MAX: i16 = 3;
const END_TXN_MAX: i16 = 4;
const TXN_OFFSET_COMMIT_MAX: i16 = 4;
/// The first version of InitProducerId in which a producer can raise its own epoch, and not another's (KIP-360).
const OWN_EPOCH_FROM: i16 = 3;

pub(super) struct Coordinator {
    core: Rc<Core>,
    shared: Arc<Shared>,
    transactional_id: Str,
    /// The producer's own: with many producers, none waits for the others' transactions.
    lane: Lane,
}

/// A request counts as under way until this is dropped. Dropped before it is done, whether it took effect is not known.
pub(super) struct UnderWay {
    shared: Arc<Shared>,
    is_done: bool,
}

impl UnderWay {
    /// Of one that is counted already.
    pub(super) fn counted(shared: &Arc<Shared>) -> UnderWay {
        UnderWay { shared: shared.clone(), is_done: false }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut accumulator = self.shared.lock();
        if let Some(transaction) = &mut accumulator.transaction {
            transaction.under_way -= 1;
            if !self.is_done {
                let cause =
                    Error::config("a call was given up", "await what adds to a transaction to its end");
                transaction.fail(&cause, false);
            }
        }
        accumulator.drop_failed();
        accumulator.wake_all();
    }
}

impl Coordinator {
    /// None without a transactional id.
    pub(super) fn new(core: &Rc<Core>, shared: &Arc<Shared>, lane: Lane) -> Option<Coordinator> {
        let transactional_id = shared.config.transactional_id.as_deref().map(Str::from)?;
        Some(Coordinator { core: core.clone(), shared: shared.clone(), transactional_id, lane })
    }

    /// Asks the coordinator, and again while that moves, loads, or has not finished with an earlier transaction.
    async fn ask<R: Request>(
        &self,
        deadline: Instant,
        what: &str,
        version_max: i16,
        request: &R,
        code_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        self.core
            .retry(what, deadline, async || self.ask_once(what, version_max, request, &code_of).await)
            .await
    }

    async fn ask_once<R: Request>(
        &self,
        what: &str,
        version_max: i16,
        request: &R,
        code_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        const OF: CoordinatorType = CoordinatorType::Transaction;
        let asked = async {
            let connection = self.core.coordinator(OF, &self.transactional_id, self.lane).await?;
            let version = connection.pick_max::<R>(version_max)?;
            let response =
                connection.call_version(request, version, self.core.config.request_timeout).await?;
            Error::check(code_of(&response), || what.to_owned())?;
            Ok(response)
        };
        asked.await.inspect_err(|error: &Error| {
            if error.is_retriable() && error.code() != Some(ErrorCode::CONCURRENT_TRANSACTIONS) {
                self.core.forget_coordinator(OF, &self.transactional_id);
            }
        })
    }

    fn named(&self, what: &str) -> String {
        format!("{what} of transactional id {:?}", self.transactional_id)
    }

    fn identity(&self) -> (i64, i16) {
        self.shared.lock().identity.unwrap_or((-1, -1))
    }

    /// Gets the producer's id and a new epoch: earlier producers of this transactional id are fenced, what they left open is aborted.
    pub(super) async fn init(&self) -> Result<()> {
        let deadline = self.core.deadline();
        // Brokers without transactions have coordinators, for groups, all the same.
        self.core
            .retry("look for transactions", deadline, async || {
                let connection = self.core.any(Lane::SHARED).await?;
                connection.pick_max::<AddPartitionsToTxnRequest>(ADD_PARTITIONS_MAX)?;
                connection.pick_max::<EndTxnRequest>(END_TXN_MAX)
            })
            .await?;
        let identity = self.producer_id(deadline, (-1, -1)).await?;
        let mut accumulator = self.shared.lock();
        accumulator.set_identity(identity);
        if let Some(transaction) = &mut accumulator.transaction {
            transaction.initialized();
        }
        Ok(())
    }

    /// An identity that follows `current`, if that is not negative.
    async fn producer_id(
        &self,
        deadline: Instant,
        (producer_id, producer_epoch): (i64, i16),
    ) -> Result<(i64, i16)> {
        let timeout = self.shared.config.transaction_timeout.as_millis();
        let request = InitProducerIdRequest {
            transactional_id: Some(self.transactional_id.clone()),
            transaction_timeout_ms: timeout.try_into().unwrap_or(i32::MAX),
            producer_id,
            producer_epoch,
        };
        let what = self.named("get an epoch");
        let response = self.ask(deadline, &what, i16::MAX, &request, |response| response.error_code).await?;
        Ok((response.producer_id, response.producer_epoch))
    }

    /// Adds partitions to the transaction. What comes of it the accumulator is told.
    pub(super) async fn add_partitions(&self, asked: Vec<(usize, TopicPartition)>, mut under_way: UnderWay) {
        let places = asked.iter().map(|(place, _)| *place).collect();
        let added = self.add(asked.into_iter().map(|(_, at)| (at, ()))).await;
        under_way.is_done = true;
        let mut accumulator = self.shared.lock();
        match added {
            Ok(true) => accumulator.partitions_added(places),
            Err(error) if !error.is_retriable() => drop(accumulator.transaction_refused(&error)),
            // The end of the records' time, or of the transaction, ends this.
            Ok(false) | Err(_) => {
                if let Some(transaction) = &mut accumulator.transaction {
                    transaction.not_added(places);
                }
            }
        }
    }

    /// False if the transaction came to its end before.
    async fn add(&self, partitions: impl Iterator<Item = (TopicPartition, ())>) -> Result<bool> {
        let (producer_id, producer_epoch) = self.identity();
        let topic = |(name, partitions): (Str, Vec<(i32, ())>)| add_partitions_to_txn_request::Topic {
            name,
            partitions: partitions.into_iter().map(|(partition, ())| partition).collect(),
        };
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.transactional_id.clone(),
            v3_and_below_producer_id: producer_id,
            v3_and_below_producer_epoch: producer_epoch,
            v3_and_below_topics: by_topic(partitions).into_iter().map(topic).collect(),
            ..Default::default()
        };
        let what = self.named("add partitions to the transaction");
        let attempt = async || {
            if !self.shared.lock().transaction.as_ref().is_some_and(|it| it.may_grow()) {
                return Ok(false);
            }
            self.ask_once(&what, ADD_PARTITIONS_MAX, &request, worst).await.map(|_| true)
        };
        self.core.retry(&what, self.core.deadline(), attempt).await
    }

    /// Adds a group's offsets to the transaction.
    pub(super) async fn send_offsets(
        &self,
        group: &GroupMetadata,
        offsets: &BTreeMap<TopicPartition, NewOffset>,
    ) -> Result<()> {
        self.shared.transaction(|transaction| {
            transaction.check_open()?;
            transaction.under_way += 1;
            Ok(())
        })?;
        let mut under_way = UnderWay::counted(&self.shared);
        let sent = self.offsets(group, offsets).await;
        under_way.is_done = true;
        sent.map_err(|error| self.shared.lock().transaction_refused(&error))
    }

    async fn offsets(
        &self,
        group: &GroupMetadata,
        offsets: &BTreeMap<TopicPartition, NewOffset>,
    ) -> Result<()> {
        let deadline = self.core.deadline();
        let (producer_id, producer_epoch) = self.identity();
        let group_id = Str::from(group.group.as_str());
        let request = AddOffsetsToTxnRequest {
            transactional_id: self.transactional_id.clone(),
            producer_id,
            producer_epoch,
            group_id: group_id.clone(),
        };
        let what = self.named(&format!("add offsets of group {group_id:?} to the transaction"));
        self.ask(deadline, &what, i16::MAX, &request, |response| response.error_code).await?;
        self.shared.transaction(|transaction| {
            transaction.added();
            Ok(())
        })?;

        let partition = |(partition_index, new): (i32, &NewOffset)| txn_offset_commit_request::Partition {
            partition_index,
            committed_offset: new.offset,
            committed_leader_epoch: new.leader_epoch.unwrap_or(-1),
            committed_metadata: Some(new.metadata.as_str().into()),
        };
        let topic = |(name, partitions): (Str, Vec<(i32, &NewOffset)>)| txn_offset_commit_request::Topic {
            name,
            partitions: partitions.into_iter().map(partition).collect(),
        };
        let topics = by_topic(offsets.iter().map(|(at, new)| (at.clone(), new)));
        let request = TxnOffsetCommitRequest {
            transactional_id: self.transactional_id.clone(),
            group_id: group_id.clone(),
            producer_id,
            producer_epoch,
            generation_id: group.generation,
            member_id: group.member_id.as_str().into(),
            group_instance_id: group.instance_id.as_deref().map(Str::from),
            topics: topics.into_iter().map(topic).collect(),
        };
        let what = self.named(&format!("commit offsets of group {group_id:?} in the transaction"));
        let attempt = async || {
            let asked = async {
                let connection =
                    self.core.coordinator(CoordinatorType::Group, &group_id, Lane::SHARED).await?;
                let version = connection.pick_max::<TxnOffsetCommitRequest>(TXN_OFFSET_COMMIT_MAX)?;
                let response =
                    connection.call_version(&request, version, self.core.config.request_timeout).await?;
                let codes = response.topics.iter().flat_map(|it| &it.partitions).map(|it| it.error_code);
                Error::check(codes.into_iter().find(|code| *code != 0).unwrap_or(0), || what.clone())
            };
            asked.await.inspect_err(|error| forget_on(&self.core, &group_id, error))
        };
        self.core.retry(&what, deadline, attempt).await
    }

    /// Commits or aborts, once nothing of the transaction is under way.
    ///
    /// Errors: one that may be retried leaves it being ended; others make it fail, or end the producer.
    pub(super) async fn end(&self, commit: bool) -> Result<()> {
        let deadline = self.core.deadline();
        let refused = |error: Error| match error.is_retriable() {
            true => error,
            false => self.shared.lock().transaction_refused(&error),
        };
        let mut needs_epoch = false;
        let is_started = self.shared.transaction(|transaction| {
            needs_epoch = transaction.needs_epoch();
            Ok(transaction.is_started())
        })?;
        let identity = self.identity();
        if is_started {
            let request = EndTxnRequest {
                transactional_id: self.transactional_id.clone(),
                producer_id: identity.0,
                producer_epoch: identity.1,
                committed: commit,
            };
            let what = self.named(if commit { "commit the transaction" } else { "abort the transaction" });
            let ended =
                self.ask(deadline, &what, END_TXN_MAX, &request, |response| response.error_code).await;
            match ended.err() {
                None => {}
                // The coordinator has forgotten the transactional id: there is nothing to abort.
                Some(error) if !commit && error.code() == Some(ErrorCode::INVALID_PRODUCER_ID_MAPPING) => {
                    needs_epoch = true;
                }
                Some(error) => return Err(refused(error)),
            }
            self.shared.transaction(|transaction| {
                transaction.ended_there();
                Ok(())
            })?;
        }
        let renewed = match needs_epoch {
            true => Some(self.next_epoch(deadline, identity).await.map_err(refused)?),
            false => None,
        };
        let mut accumulator = self.shared.lock();
        if let Some(identity) = renewed {
            accumulator.set_identity(identity);
        }
        if let Some(transaction) = &mut accumulator.transaction {
            transaction.ended();
        }
        Ok(())
    }

    async fn next_epoch(&self, deadline: Instant, identity: (i64, i16)) -> Result<(i64, i16)> {
        let look = async || {
            let connection = self.core.any(Lane::SHARED).await?;
            if connection.pick::<InitProducerIdRequest>()? < OWN_EPOCH_FROM {
                return Err(Error::Unsupported {
                    address: connection.address.clone(),
                    api: InitProducerIdRequest::API_KEY.name(),
                    theirs: Some((0, OWN_EPOCH_FROM - 1)),
                    ours: (OWN_EPOCH_FROM, InitProducerIdRequest::MAX_VERSION),
                });
            }
            Ok(())
        };
        self.core.retry("look for epochs of producers", deadline, look).await?;
        self.producer_id(deadline, identity).await
    }
}

/// The code that says most. Of several partitions those that are in order are told as not attempted when one is not.
fn worst(response: &AddPartitionsToTxnResponse) -> i16 {
    let topics = response.results_by_topic_v3_and_below.iter();
    let codes = topics.flat_map(|it| &it.results_by_partition).map(|it| ErrorCode(it.partition_error_code));
    let rank = |code: &ErrorCode| match *code {
        ErrorCode::NONE => 0,
        ErrorCode::OPERATION_NOT_ATTEMPTED => 1,
        code if code.is_retriable() => 2,
        _ => 3,
    };
    match codes.max_by_key(rank) {
        // Its producer knows the topic: the coordinator's broker will in a moment.
        Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => ErrorCode::LEADER_NOT_AVAILABLE.code(),
        code => code.unwrap_or(ErrorCode::NONE).code(),
    }
}
