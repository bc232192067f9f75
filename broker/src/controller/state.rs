//! The controller itself: one change at a time, durable before it is seen, in a task of its own.
//!
//! ```text
//!  Shard::change ──▶ queue ──▶ decide ──▶ append, durable ──▶ apply ──▶ every shard installs ──▶ answer
//! ```
//!
//! A change belongs to no connection: once it is in the queue it is carried out to its end, whoever has gone away, and
//! in its order. Snapshots wait in the same queue.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotSender, QueueReceiver, QueueSender, bounded, oneshot};
use corelog_io::{Queue, TrySendError, sleep, spawn, worked, yield_if_needed};
use corelog_storage::{AppendBatch, BatchKind, Log};
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::{ErrorCode, Str, Uuid};

use super::CONTROLLER_SHARD;
use super::change::{Change, ChangeError, Limits};
use super::image::{Image, RESOURCE_BROKER, TopicImage};
use super::records::{decode_batches, encode_batch, joined};
use super::snapshot::{self, Batches, Mark};
use crate::config::BrokerConfig;
use crate::leftovers::Deleted;
use crate::settings::Settings;
use crate::shard::Shard;

/// Bytes read of the controller's log at once while it is loaded.
const LOAD_STEP_BYTES: usize = 256 << 10;
/// Changes that may wait for their turn; more are refused.
const CHANGES_WAITING_MAX: usize = 1024;
/// How long a snapshot waits that finds no place in the queue.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

pub struct Controller {
    log: Rc<Log>,
    image: Arc<Image>,
    settings: Arc<Settings>,
    limits: Limits,
    /// Why no change is taken any more: it is not known whether the log has one that the image does not.
    failed: Option<ChangeError>,
    /// Topics that the log says were deleted.
    deleted: BTreeSet<Uuid>,
    /// Bytes of the log behind its last snapshot.
    bytes: u64,
    /// So many make it time for another.
    bytes_max: u64,
    snapshot_is_due: bool,
}

/// What is on its way to the controller's task.
enum Submitted {
    Change {
        change: Change,
        validate_only: bool,
        answer: Asker,
    },
    /// Deleted topics of which nothing is left on disk.
    Snapshot {
        gone: BTreeSet<Uuid>,
    },
}

type Asker = OneshotSender<Result<Arc<Image>, ChangeError>>;

/// Where the controller, at work in its task, is given changes.
pub struct ControllerHandle {
    queue: QueueSender<Submitted>,
}

impl Controller {
    /// Reads the log from its last snapshot on and finishes its image. Beside it the topics that were deleted.
    pub async fn load(
        log: Rc<Log>,
        settings: Arc<Settings>,
        node_id: i32,
        limits: &BrokerConfig,
    ) -> anyhow::Result<(Controller, Deleted)> {
        // A log that was found damaged may lack topics: their files would be taken for a deleted topic's.
        if let Some(damage) = log.refused() {
            return Err(damage.into());
        }
        let start = log.log_start_offset();
        let mut loaded = Loaded::new(&settings, start > 0);
        let mut offset = start;
        while offset < log.high_watermark() {
            let read = log.read(offset, LOAD_STEP_BYTES, true).await?;
            let damaged = |what| anyhow::anyhow!("controller log, at or after offset {offset}: {what}");
            worked(read.len);
            for batch in decode_batches(&joined(&read.parts)).map_err(damaged)? {
                loaded.take(&batch.records, &settings).await.map_err(damaged)?;
                loaded.bytes += batch.bytes;
            }
            anyhow::ensure!(read.next_offset > offset, "controller log: nothing to read at offset {offset}");
            offset = read.next_offset;
        }
        anyhow::ensure!(
            !loaded.lacks_beginning,
            "controller log: it begins at offset {start}, and holds no whole snapshot"
        );
        let Loaded { mut image, deleted, bytes, .. } = loaded;
        image.end_offset = offset;
        let names: Vec<Str> = image.topics.keys().cloned().collect();
        image.finish_configs(&settings, node_id, &names);
        let controller = Controller {
            log,
            image: Arc::new(image),
            settings,
            limits: Limits { node_id, partitions_max: limits.partitions_max() },
            failed: None,
            deleted: deleted.clone(),
            bytes,
            bytes_max: limits.metadata_bytes_between_snapshots,
            snapshot_is_due: false,
        };
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
        self.prepare_snapshot(&shard);
        while let Some(submitted) = changes.recv().await {
            match submitted {
                Submitted::Change { change, validate_only, answer } => {
                    let result = self.carry_out(&shard, change, validate_only, &answer).await;
                    // Whoever asked may have gone.
                    let _gone = answer.send(result);
                }
                Submitted::Snapshot { gone } => self.write_snapshot(&shard, &gone).await,
            }
            self.prepare_snapshot(&shard);
        }
    }

    /// When it is time for a snapshot: finds out what it need not tell, beside the changes that go on, and puts it in line.
    fn prepare_snapshot(&mut self, shard: &Rc<Shard>) {
        if self.snapshot_is_due || self.bytes <= self.bytes_max || self.failed.is_some() {
            return;
        }
        self.snapshot_is_due = true;
        let (shard, deleted) = (shard.clone(), self.deleted.clone());
        spawn(Queue::Background, async move {
            // What is left of a full disk is for what frees space.
            while shard.storage.metrics().disk_full && !shard.is_stopping() {
                sleep(SNAPSHOT_RETRY).await;
            }
            let mut gone = snapshot::gone(&shard, &deleted).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "a snapshot of the metadata tells of all topics that were deleted");
                BTreeSet::new()
            });
            while !shard.is_stopping() {
                let Ok(controller) = shard.controller() else { return };
                match controller.queue.try_send(Submitted::Snapshot { gone }) {
                    Err(TrySendError::Full(Submitted::Snapshot { gone: again })) => gone = again,
                    _ => return,
                }
                sleep(SNAPSHOT_RETRY).await;
            }
        })
        .detach();
    }

    /// Has the log begin anew with what there is. Where that fails it goes on as it is, and tries again later.
    async fn write_snapshot(&mut self, shard: &Shard, gone: &BTreeSet<Uuid>) {
        self.snapshot_is_due = false;
        if self.failed.is_some() {
            return;
        }
        let deleted: BTreeSet<Uuid> = self.deleted.difference(gone).copied().collect();
        let mut batches = Batches::new(&self.image, &deleted, self.limits.node_id);
        let (began, before) = (corelog_io::now(), self.bytes);
        let (mut first, mut bytes, mut records) = (None, 0, 0);
        while let Some(batch) = batches.next() {
            let written = match self.write(&batch, BatchKind::Coordinator).await {
                Ok(written) => written,
                Err(error) => {
                    self.bytes = self.bytes_max / 2;
                    return tracing::warn!(%error, "no snapshot of the metadata was made");
                }
            };
            first = first.or(Some(written.first));
            (bytes, records) = (bytes + written.bytes, records + batch.len());
        }
        let Some(first) = first else { return };
        (self.deleted, self.bytes) = (deleted, 0);
        shard.metrics.metadata_snapshot();
        // What is before it says nothing any more, and may stay until the next one.
        if let Err(error) = self.log.delete_records(first).await {
            tracing::warn!(%error, "the controller's log keeps what is before its snapshot");
        }
        let took_ms = (corelog_io::now() - began).as_millis() as u64;
        tracing::info!(records, bytes, in_place_of_bytes = before, took_ms, "snapshot of the metadata");
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
        next.end_offset = self.write(&records, BatchKind::Controller).await?.end;
        if planted(Fault::ChangeGivenUpHalfway) && asker.is_closed() {
            return Ok(self.image.clone());
        }
        self.image = Arc::new(next);
        self.deleted.extend(removed.iter().map(|topic| topic.id));
        let (image, removed) = (self.image.clone(), Arc::new(removed));
        let installed = shard.on_all(move |shard| async move { shard.install(image, &removed).await }).await;
        if let Err(gone) = installed {
            // The process stops. The change is in the log all the same.
            tracing::debug!(%gone, "a change of metadata did not reach every shard");
        }
        Ok(self.image.clone())
    }

    /// Makes `records` durable, as one batch. `kind`: whether a full disk refuses it.
    async fn write(&mut self, records: &[MetadataRecord], kind: BatchKind) -> Result<Written, ChangeError> {
        let storage = |error: &dyn std::fmt::Display| {
            ChangeError::new(ErrorCode::KAFKA_STORAGE_ERROR, format!("the controller's log: {error}"))
        };
        let bytes = encode_batch(records, corelog_io::wall_clock_ms()).map_err(|error| storage(&error))?;
        let len = bytes.len() as u64;
        let batch = AppendBatch { bytes, kind, leader_epoch: 0 };
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
        self.bytes += len;
        Ok(Written { first: appended.base_offset, end: appended.last_offset + 1, bytes: len })
    }
}

/// Where a batch is in the log.
struct Written {
    first: i64,
    /// The offset after it.
    end: i64,
    bytes: u64,
}

/// What has been read of the log.
struct Loaded {
    image: Image,
    deleted: BTreeSet<Uuid>,
    /// A snapshot that is not whole yet.
    beginning: Option<Image>,
    /// The log has been cut off in front: changes say nothing until there is a whole snapshot. (Where its true start is not
    /// known any more, a log begins with the oldest segment.)
    lacks_beginning: bool,
    /// Behind the last snapshot.
    bytes: u64,
}

impl Loaded {
    fn new(settings: &Settings, lacks_beginning: bool) -> Loaded {
        Loaded {
            image: Image::new(settings),
            deleted: BTreeSet::new(),
            beginning: None,
            lacks_beginning,
            bytes: 0,
        }
    }

    /// One batch more.
    async fn take(&mut self, records: &[MetadataRecord], settings: &Settings) -> Result<(), String> {
        let mark = Mark::of(records);
        match &mark {
            // Of one that was not finished nothing holds.
            None => self.beginning = None,
            Some(mark) if mark.is_first => self.beginning = Some(Image::new(settings)),
            Some(_) if self.beginning.is_none() && !self.lacks_beginning => {
                return Err("a snapshot goes on that has not begun".into());
            }
            Some(_) => {}
        }
        for record in records.iter().skip(usize::from(mark.is_some())) {
            worked(size_of::<MetadataRecord>());
            yield_if_needed().await;
            if let MetadataRecord::RemoveTopicRecord(removed) = record {
                self.deleted.insert(removed.topic_id);
                if mark.is_some() {
                    continue;
                }
            }
            match &mut self.beginning {
                Some(image) => image.apply(record)?,
                None if self.lacks_beginning => {}
                None => self.image.apply(record)?,
            }
        }
        if mark.is_some_and(|mark| mark.is_last)
            && let Some(whole) = self.beginning.take()
        {
            (self.image, self.lacks_beginning, self.bytes) = (whole, false, 0);
        }
        Ok(())
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
        self.queue.try_send(Submitted::Change { change, validate_only, answer }).map_err(|_| {
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

#[cfg(test)]
mod tests {
    use corelog_io::sim::Sim;
    use corelog_wire::metadata_records::{RemoveTopicRecord, TopicRecord};

    use super::super::snapshot::tests::{image, settings};
    use super::*;

    /// Who does not know where the log begins reads it from its oldest segment on, which may begin with changes of what
    /// is not in it any more, and with the end of a snapshot.
    #[test]
    fn what_is_before_the_first_snapshot_of_a_log_without_its_beginning_does_not_count() {
        Sim::new(1).block_on(async {
            let (settings, image, gone) = (settings(), image(30, 2), Uuid([9; 16]));
            let removal = || MetadataRecord::RemoveTopicRecord(RemoveTopicRecord { topic_id: gone });
            let mut loaded = Loaded::new(&settings, true);
            loaded.take(&[removal()], &settings).await.expect("a change of what was before");
            let mut batches = Batches::new(&image, &BTreeSet::new(), 1);
            batches.next();
            let rest = batches.next().expect("it has several");
            loaded.take(&rest, &settings).await.expect("a snapshot that began before");
            assert!(loaded.lacks_beginning);
            let mut batches = Batches::new(&image, &BTreeSet::new(), 1);
            while let Some(batch) = batches.next() {
                loaded.take(&batch, &settings).await.expect("it is whole");
            }
            assert!(!loaded.lacks_beginning && loaded.deleted.contains(&gone));
            assert_eq!(loaded.image.topics.len(), 30);
            assert!(loaded.take(&[removal()], &settings).await.is_err(), "now each change must fit");
            let name: Str = "new".into();
            let topic =
                MetadataRecord::TopicRecord(TopicRecord { name: name.clone(), topic_id: Uuid([8; 16]) });
            loaded.take(&[topic], &settings).await.expect("it fits");
            assert!(loaded.image.topic(&name).is_some());
        });
    }
}
