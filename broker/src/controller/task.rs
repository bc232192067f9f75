//! The controller itself: one change at a time, durable before it is seen, in a task of its own.
//!
//! ```text
//!  Shard::change ──▶ queue ──▶ decide ──▶ replicate ──▶ apply ──▶ every shard installs ──▶ answer
//! ```
//!
//! A change belongs to no connection: once it is in the queue it is carried out to its end, whoever has gone away, and
//! in its order. Snapshots wait in the same queue.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotSender, QueueReceiver, QueueSender, bounded};
use corelog_io::{Queue, TrySendError, sleep, spawn, worked};
use corelog_storage::{BatchKind, Log};
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::{ErrorCode, Uuid};

use super::change::{Change, ChangeError, Rules};
use super::delta::Delta;
use super::image::Image;
use super::load::{self, Loaded};
use super::log::MetadataLog;
use super::snapshot::{self, Batches};
use super::view::{View, Viewer};
use crate::config::BrokerConfig;
use crate::leftovers::Deleted;
use crate::settings::Settings;
use crate::shard::Shard;

/// Changes that may wait for their turn; more are refused.
pub const CHANGES_WAITING_MAX: usize = 1024;
/// How long a snapshot waits that finds no place in the queue.
const SNAPSHOT_RETRY: Duration = Duration::from_secs(1);

/// What the shards are told of a change: their view from now on, and what is new in it.
pub struct Update {
    pub view: Arc<View>,
    pub delta: Delta,
}

pub struct Controller {
    log: MetadataLog,
    view: Arc<View>,
    rules: Rules,
    /// Topics that the log says were deleted.
    deleted: BTreeSet<Uuid>,
    /// Bytes of the log behind its last snapshot.
    bytes: u64,
    /// So many make it time for another.
    bytes_max: u64,
    snapshot_is_due: bool,
}

/// What is on its way to the controller's task.
pub(super) enum Submitted {
    Change {
        change: Change,
        validate_only: bool,
        answer: Answer,
    },
    /// Deleted topics of which nothing is left on disk.
    Snapshot {
        gone: BTreeSet<Uuid>,
    },
}

pub(super) type Answer = OneshotSender<Result<Arc<View>, ChangeError>>;

/// Where the controller, at work in its task, is given changes.
pub struct ControllerHandle {
    pub(super) queue: QueueSender<Submitted>,
}

impl Controller {
    /// Reads the log and finishes its image. Beside it the topics that were deleted.
    pub async fn load(
        log: Rc<Log>,
        settings: Arc<Settings>,
        node_id: i32,
        config: &BrokerConfig,
    ) -> anyhow::Result<(Controller, Deleted)> {
        let Loaded { image, deleted, bytes } = load::load(&log).await?;
        let rules = Rules { node_id, partitions_max: config.partitions_max(), settings };
        let controller = Controller {
            log: MetadataLog::new(log),
            view: Arc::new(View::new(Arc::new(image), rules.viewer())),
            rules,
            deleted: deleted.clone(),
            bytes,
            bytes_max: config.metadata_bytes_between_snapshots,
            snapshot_is_due: false,
        };
        Ok((controller, Arc::new(deleted)))
    }

    /// All there is.
    pub fn update(&self) -> Update {
        Update { view: self.view.clone(), delta: Delta::of_all(&self.view.image) }
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

    /// Decides, makes the change durable, applies it and has every shard take the new view, which is given back; with
    /// `validate_only`, the view that would come of it.
    async fn carry_out(
        &mut self,
        shard: &Rc<Shard>,
        change: Change,
        validate_only: bool,
        answer: &Answer,
    ) -> Result<Arc<View>, ChangeError> {
        self.log.check()?;
        let before = &self.view.image;
        let records = change.decide(before, &self.rules)?;
        if records.is_empty() {
            return Ok(self.view.clone());
        }
        worked(records.len() * size_of::<MetadataRecord>());
        // First on a copy: what does not fit must not be in the log.
        let (mut image, delta) = applied(before, &records)?;
        if !validate_only {
            let written = self.log.replicate(&records, BatchKind::Controller).await?;
            (image.end_offset, self.bytes) = (written.end, self.bytes + written.bytes);
            if planted(Fault::ChangeGivenUpHalfway) && answer.is_closed() {
                return Ok(self.view.clone());
            }
        }
        let view = Arc::new(self.view.follow(Arc::new(image), &delta, self.rules.viewer()).await);
        if !validate_only {
            self.publish(shard, Update { view: view.clone(), delta }).await;
        }
        Ok(view)
    }

    async fn publish(&mut self, shard: &Rc<Shard>, update: Update) {
        self.view = update.view.clone();
        self.deleted.extend(update.delta.removed.iter().map(|topic| topic.id));
        let update = Arc::new(update);
        if let Err(gone) = shard.on_all(move |shard| async move { shard.install(&update).await }).await {
            // The process stops. The change is in the log all the same.
            tracing::debug!(%gone, "a change of metadata did not reach every shard");
        }
    }

    /// When it is time for a snapshot: finds out what it need not tell, beside the changes that go on, and puts it in line.
    fn prepare_snapshot(&mut self, shard: &Rc<Shard>) {
        if self.snapshot_is_due || self.bytes <= self.bytes_max || self.log.check().is_err() {
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
        if self.log.check().is_err() {
            return;
        }
        let deleted: BTreeSet<Uuid> = self.deleted.difference(gone).copied().collect();
        let image = self.view.image.clone();
        let mut batches = Batches::new(&image, &deleted, self.rules.node_id);
        let (began, before) = (corelog_io::now(), self.bytes);
        let (mut first, mut bytes, mut records) = (None, 0, 0);
        while let Some(batch) = batches.next() {
            let written = match self.log.replicate(&batch, BatchKind::Coordinator).await {
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
        self.log.begin_with(first).await;
        let took_ms = (corelog_io::now() - began).as_millis() as u64;
        tracing::info!(records, bytes, in_place_of_bytes = before, took_ms, "snapshot of the metadata");
    }
}

impl Rules {
    pub(super) fn viewer(&self) -> Viewer<'_> {
        Viewer { settings: &self.settings, node_id: self.node_id }
    }
}

/// What comes of `records` on `image`.
pub(super) fn applied(image: &Image, records: &[MetadataRecord]) -> Result<(Image, Delta), ChangeError> {
    let (mut image, mut delta) = (image.clone(), Delta::default());
    for record in records {
        let wrong = |what| ChangeError::new(ErrorCode::UNKNOWN_SERVER_ERROR, what);
        image.apply(record, &mut delta).map_err(wrong)?;
    }
    Ok((image, delta))
}
