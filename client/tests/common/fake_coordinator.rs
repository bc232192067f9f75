//! The fake broker's transaction coordinator, and its group coordinator as far as transactions go. Rules are those of KIP-98 and KIP-360.

use super::{Batch, Log};
use corelog_wire::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse, add_partitions_to_txn_response, txn_offset_commit_response,
};
use corelog_wire::{ErrorCode, Str};
use std::collections::{BTreeSet, HashMap};

#[derive(Default)]
pub struct Coordinator {
    pub transactional_ids: HashMap<String, TransactionalId>,
    /// By partition of the one topic.
    pub offsets: HashMap<i32, i64>,
    /// What the next request is answered, whatever it asks for.
    pub(super) refusal: Option<ErrorCode>,
}

#[derive(Default)]
pub struct TransactionalId {
    producer_id: i64,
    pub epoch: i16,
    /// The one before the producer raised its own.
    last_epoch: Option<i16>,
    pub is_ongoing: bool,
    /// How the last one ended.
    committed: Option<bool>,
    partitions: BTreeSet<i32>,
    offsets: HashMap<i32, i64>,
    /// Refusals until the markers of the last one are written.
    completing: u32,
    /// EndTxn requests that ended something.
    pub ends: u32,
}

impl TransactionalId {
    fn end(&mut self, commit: bool, logs: &mut HashMap<i32, Log>, offsets: &mut HashMap<i32, i64>) {
        for partition in std::mem::take(&mut self.partitions) {
            logs.entry(partition).or_default().end(self.producer_id, commit);
        }
        let pending = std::mem::take(&mut self.offsets);
        if commit {
            offsets.extend(pending);
        }
        (self.is_ongoing, self.committed, self.completing) = (false, Some(commit), 2);
    }
}

impl Coordinator {
    fn of(&mut self, id: &Str, producer: (i64, i16)) -> Result<&mut TransactionalId, ErrorCode> {
        if let Some(code) = self.refusal {
            return Err(code);
        }
        let of = self.transactional_ids.get_mut(id.as_str()).ok_or(ErrorCode::INVALID_PRODUCER_ID_MAPPING)?;
        if of.producer_id != producer.0 {
            return Err(ErrorCode::INVALID_PRODUCER_ID_MAPPING);
        }
        if of.epoch != producer.1 {
            return Err(ErrorCode::PRODUCER_FENCED);
        }
        if of.completing > 0 {
            of.completing -= 1;
            return Err(ErrorCode::CONCURRENT_TRANSACTIONS);
        }
        Ok(of)
    }

    pub fn init(
        &mut self,
        request: InitProducerIdRequest,
        logs: &mut HashMap<i32, Log>,
    ) -> InitProducerIdResponse {
        let refused =
            |code: ErrorCode| InitProducerIdResponse { error_code: code.code(), ..Default::default() };
        if let Some(code) = self.refusal {
            return refused(code);
        }
        let next_id = 100 + self.transactional_ids.len() as i64;
        let name = request.transactional_id.unwrap().as_str().to_owned();
        let new = || TransactionalId { producer_id: next_id, epoch: -1, ..Default::default() };
        let of = self.transactional_ids.entry(name).or_insert_with(new);
        let own = request.producer_epoch >= 0;
        if own && of.last_epoch == Some(request.producer_epoch) {
            // A repetition.
        } else if own && request.producer_epoch != of.epoch {
            return refused(ErrorCode::PRODUCER_FENCED);
        } else {
            if of.is_ongoing {
                of.end(false, logs, &mut self.offsets);
            }
            of.last_epoch = own.then_some(of.epoch);
            of.epoch += 1;
            of.committed = None;
        }
        InitProducerIdResponse { producer_id: of.producer_id, producer_epoch: of.epoch, ..Default::default() }
    }

    pub fn add_partitions(&mut self, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
        let producer = (request.v3_and_below_producer_id, request.v3_and_below_producer_epoch);
        let topics = request.v3_and_below_topics;
        let of = self.of(&request.v3_and_below_transactional_id, producer);
        let code = match of {
            Err(code) => code,
            Ok(of) => {
                let partitions = topics.iter().flat_map(|topic| &topic.partitions);
                for partition in partitions {
                    assert!(of.partitions.insert(*partition) || of.is_ongoing, "added once");
                }
                of.is_ongoing = true;
                ErrorCode::NONE
            }
        };
        let partition = |partition_index| add_partitions_to_txn_response::PartitionResult {
            partition_index,
            partition_error_code: code.code(),
        };
        let results = topics.into_iter().map(|topic| add_partitions_to_txn_response::TopicResult {
            name: topic.name,
            results_by_partition: topic.partitions.into_iter().map(partition).collect(),
        });
        AddPartitionsToTxnResponse { results_by_topic_v3_and_below: results.collect(), ..Default::default() }
    }

    pub fn end(&mut self, request: EndTxnRequest, logs: &mut HashMap<i32, Log>) -> EndTxnResponse {
        let mut offsets = std::mem::take(&mut self.offsets);
        let code = match self.of(&request.transactional_id, (request.producer_id, request.producer_epoch)) {
            Err(code) => code,
            Ok(of) if of.is_ongoing => {
                of.ends += 1;
                of.end(request.committed, logs, &mut offsets);
                ErrorCode::NONE
            }
            Ok(of) if of.committed == Some(request.committed) => ErrorCode::NONE,
            Ok(_) => ErrorCode::INVALID_TXN_STATE,
        };
        self.offsets = offsets;
        EndTxnResponse { error_code: code.code(), ..Default::default() }
    }

    pub fn add_offsets(&mut self, request: AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
        let of = self.of(&request.transactional_id, (request.producer_id, request.producer_epoch));
        let code = of.map(|of| of.is_ongoing = true).err().map_or(0, ErrorCode::code);
        AddOffsetsToTxnResponse { error_code: code, ..Default::default() }
    }

    pub fn commit_offsets(&mut self, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
        let fenced = request.member_id.as_str() == "gone";
        let of = self.of(&request.transactional_id, (request.producer_id, request.producer_epoch));
        let code = match of {
            Err(code) => code,
            Ok(_) if fenced => ErrorCode::UNKNOWN_MEMBER_ID,
            Ok(of) => {
                let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
                of.offsets.extend(partitions.map(|it| (it.partition_index, it.committed_offset)));
                ErrorCode::NONE
            }
        };
        let partition = |it: &corelog_wire::messages::txn_offset_commit_request::Partition| {
            txn_offset_commit_response::Partition {
                partition_index: it.partition_index,
                error_code: code.code(),
            }
        };
        let topics = request.topics.iter().map(|topic| txn_offset_commit_response::Topic {
            partitions: topic.partitions.iter().map(partition).collect(),
            name: topic.name.clone(),
        });
        TxnOffsetCommitResponse { topics: topics.collect(), ..Default::default() }
    }

    /// Whether a batch may be written: only into a transaction that has its partition (KIP-890).
    pub(super) fn verify(&self, id: Option<&str>, batch: &Batch) -> Result<(), ErrorCode> {
        let Some(id) = id else { return Ok(()) };
        let of = &self.transactional_ids[id];
        if batch.epoch != of.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        match of.is_ongoing && of.partitions.contains(&batch.partition) {
            true => Ok(()),
            false => Err(ErrorCode::INVALID_TXN_STATE),
        }
    }
}
