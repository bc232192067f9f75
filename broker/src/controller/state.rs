//! The controller itself: one change at a time, durable before it is seen, in a task of its own.
//!
//! ```text
//!  Shard::change ──▶ queue ──▶ decide ──▶ append, durable ──▶ apply ──▶ every shard installs ──▶ answer
//! ```
//!
//! A change belongs to no connection: once it is in the queue it is carried out to its end, whoever has gone away, and
//! in its order.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotSender, QueueReceiver, QueueSender, bounded, oneshot};
use corelog_io::{Queue, spawn, worked, yield_if_needed};
use corelog_storage::{AppendBatch, BatchKind, Log};
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::{ErrorCode, Str};

use super::CONTROLLER_SHARD;
use super::change::{Change, ChangeError, Limits};
use super::image::{Image, RESOURCE_BROKER, TopicImage};
use super::records::{decode_batches, encode_batch, joined};
use crate::leftovers::Deleted;
use crate::settings::Settings;
use crate::shard::Shard;

/// Bytes read of the controller's log at once while it is loaded.
const LOAD_STEP_BYTES: usize = 256 << 10;
/// Changes that may wait for their turn; more are refused.
const CHANGES_WAITING_MAX: usize = 1024;

pub struct Controller {
    log: Rc<Log>,
    image: Arc<Image>,
    settings: Arc<Settings>,
    limits: Limits,
    /// Why no change is taken any more: it is not known whether the log has one that the image does not.
    failed: Option<ChangeError>,
}

/// A change on its way to the controller's task.
struct Submitted {
    change: Change,
    validate_only: bool,
    answer: Asker,
}

type Asker = OneshotSender<Result<Arc<Image>, ChangeError>>;

/// Where the controller, at work in its task, is given changes.
pub struct ControllerHandle {
    queue: QueueSender<Submitted>,
}

impl Controller {
    /// Reads the whole log and finishes its image. Beside it the topics that were deleted.
    pub async fn load(
        log: Rc<Log>,
        settings: Arc<Settings>,
        node_id: i32,
        partitions_max: usize,
    ) -> anyhow::Result<(Controller, Deleted)> {
        // A log that was found damaged may lack topics: their files would be taken for a deleted topic's.
        if let Some(damage) = log.refused() {
            return Err(damage.into());
        }
        let mut image = Image::new(&settings);
        let mut deleted = BTreeSet::new();
        let mut offset = log.log_start_offset();
        while offset < log.high_watermark() {
            let read = log.read(offset, LOAD_STEP_BYTES, true).await?;
            let damaged = |what| anyhow::anyhow!("controller log, at or after offset {offset}: {what}");
            worked(read.len);
            for record in decode_batches(&joined(&read.parts)).map_err(damaged)? {
                worked(size_of::<MetadataRecord>());
                yield_if_needed().await;
                image.apply(&record).map_err(damaged)?;
                if let MetadataRecord::RemoveTopicRecord(removed) = record {
                    deleted.insert(removed.topic_id);
                }
            }
            anyhow::ensure!(read.next_offset > offset, "controller log: nothing to read at offset {offset}");
            offset = read.next_offset;
        }
        image.end_offset = offset;
        let names: Vec<Str> = image.topics.keys().cloned().collect();
        image.finish_configs(&settings, node_id, &names);
        let limits = Limits { node_id, partitions_max };
        let controller = Controller { log, image: Arc::new(image), settings, limits, failed: None };
        Ok((controller, Arc::new(deleted)))
    }

    pub fn image(&self) -> Arc<Image> {
        self.image.clone()
    }

    /// Begins to take changes.
    pub fn start(self, shard: &Rc<Shard>) -> ControllerHandle {
        let (queue, changes) = bounded(CHANGES_WAITING_MAX);
        spawn(Queue::Control, self.run(shard.clone(), changes)).detach();
        ControllerHandle { queue }
    }

    async fn run(mut self, shard: Rc<Shard>, mut changes: QueueReceiver<Submitted>) {
        while let Some(Submitted { change, validate_only, answer }) = changes.recv().await {
            let result = self.carry_out(&shard, change, validate_only, &answer).await;
            // Whoever asked may have gone.
            let _gone = answer.send(result);
        }
    }

    /// Decides, makes the change durable, applies it and has every shard take the new image, which is given back; with
    /// `validate_only`, the image that would come of it.
    async fn carry_out(
        &mut self,
        shard: &Rc<Shard>,
        change: Change,
        validate_only: bool,
        asker: &Asker,
    ) -> Result<Arc<Image>, ChangeError> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone());
        }
        let records = change.decide(&self.image, &self.limits)?;
        if records.is_empty() {
            return Ok(self.image.clone());
        }
        let removed = removed(&self.image, &records);
        worked(self.image.topics.len() * size_of::<(Str, Arc<TopicImage>)>());
        let mut next = (*self.image).clone();
        for record in &records {
            next.apply(record).map_err(|what| ChangeError::new(ErrorCode::UNKNOWN_SERVER_ERROR, what))?;
        }
        next.finish_configs(&self.settings, self.limits.node_id, &touched(&next, &records));
        if validate_only {
            return Ok(Arc::new(next));
        }
        next.end_offset = self.write(&records).await?;
        if planted(Fault::ChangeGivenUpHalfway) && asker.is_closed() {
            return Ok(self.image.clone());
        }
        self.image = Arc::new(next);
        let (image, removed) = (self.image.clone(), Arc::new(removed));
        let installed = shard.on_all(move |shard| async move { shard.install(image, &removed).await }).await;
        if let Err(gone) = installed {
            // The process stops. The change is in the log all the same.
            tracing::debug!(%gone, "a change of metadata did not reach every shard");
        }
        Ok(self.image.clone())
    }

    /// Makes `records` durable. The log's end behind them.
    async fn write(&mut self, records: &[MetadataRecord]) -> Result<i64, ChangeError> {
        let storage = |error: &dyn std::fmt::Display| {
            ChangeError::new(ErrorCode::KAFKA_STORAGE_ERROR, format!("the controller's log: {error}"))
        };
        let bytes = encode_batch(records, corelog_io::wall_clock_ms()).map_err(|error| storage(&error))?;
        let batch = AppendBatch { bytes, kind: BatchKind::Controller, leader_epoch: 0 };
        // Refused here, it is not in the log.
        let appended = self.log.append(batch).await.map_err(|error| storage(&error))?;
        if let Err(error) = appended.durable.await {
            let failed = ChangeError::new(
                ErrorCode::KAFKA_STORAGE_ERROR,
                format!(
                    "the controller's log failed ({error}), and whether it has the last change is not known: topics and \
                     configs cannot be changed until this broker is restarted"
                ),
            );
            tracing::error!("{failed}");
            self.failed = Some(failed.clone());
            return Err(failed);
        }
        Ok(appended.last_offset + 1)
    }
}

impl ControllerHandle {
    /// Puts a change in line. What is returned waits for its answer, and may be dropped.
    fn submit(
        &self,
        change: Change,
        validate_only: bool,
    ) -> Result<impl Future<Output = Result<Arc<Image>, ChangeError>> + use<>, ChangeError> {
        let (answer, answered) = oneshot();
        self.queue.try_send(Submitted { change, validate_only, answer }).map_err(|_| {
            ChangeError::new(
                ErrorCode::REQUEST_TIMED_OUT,
                format!(
                    "{CHANGES_WAITING_MAX} changes of metadata wait for the controller, which is as many as may: its disk \
                     is slow. Try again later"
                ),
            )
        })?;
        Ok(async move {
            answered.await.unwrap_or_else(|_| {
                Err(ChangeError::new(ErrorCode::BROKER_NOT_AVAILABLE, "the controller is shutting down"))
            })
        })
    }
}

impl Shard {
    /// Has the controller carry out `change`, on whatever shard it is. The image that holds it, installed on every
    /// shard by then; with `validate_only`, what it would be. Whoever gives up waiting, the change goes on.
    pub async fn change(
        self: &Rc<Shard>,
        change: Change,
        validate_only: bool,
    ) -> Result<Arc<Image>, ChangeError> {
        self.ask(CONTROLLER_SHARD, move |shard| async move {
            shard.controller()?.submit(change, validate_only)?.await
        })
        .await
        .unwrap_or_else(|gone| Err(ChangeError::new(ErrorCode::BROKER_NOT_AVAILABLE, gone.to_string())))
    }
}

/// The topics that `records` remove from `image`.
fn removed(image: &Image, records: &[MetadataRecord]) -> Vec<Arc<TopicImage>> {
    let removed = |record: &MetadataRecord| match record {
        MetadataRecord::RemoveTopicRecord(r) => image.topic_by_id(r.topic_id).cloned(),
        _ => None,
    };
    records.iter().filter_map(removed).collect()
}

/// The topics whose effective configs follow from what `records` have set.
fn touched(image: &Image, records: &[MetadataRecord]) -> Vec<Str> {
    let of_broker = |record: &MetadataRecord| matches!(record, MetadataRecord::ConfigRecord(r) if r.resource_type == RESOURCE_BROKER);
    if records.iter().any(of_broker) {
        return image.topics.keys().cloned().collect();
    }
    let named = |record: &MetadataRecord| match record {
        MetadataRecord::TopicRecord(r) => Some(r.name.clone()),
        MetadataRecord::ConfigRecord(r) => Some(r.resource_name.clone()),
        _ => None,
    };
    records.iter().filter_map(named).collect()
}
