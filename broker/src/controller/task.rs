//! The controller itself: one change at a time, durable before it is seen, in a task of its own.
//!
//! ```text
//!  Shard::change ──▶ queue ──▶ decide ──▶ replicate ──▶ apply ──▶ every shard installs ──▶ answer
//!                    other brokers' changes, committed ──────▲ (follow.rs)
//! ```
//!
//! A change belongs to no connection: once it is in the queue it is carried out to its end, whoever has gone away, and
//! in its order. What is new in the log and snapshots wait in the same queue.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use corelog_io::planted::{Fault, planted};
use corelog_io::sync::{OneshotSender, QueueReceiver, QueueSender, bounded};
use corelog_io::{Queue, spawn, worked};
use corelog_storage::{BatchKind, Log};
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::{ErrorCode, Uuid};

use super::change::{Change, ChangeError, Rules};
use super::delta::Delta;
use super::follow::Bell;
use super::image::Image;
use super::log::MetadataLog;
use super::member::{Group, Member};
use super::membership;
use super::replay::{self, Replay};
use super::view::{View, Viewer};
use crate::config::BrokerConfig;
use crate::ids::LeaderEpoch;
use crate::leftovers::Deleted;
use crate::settings::Settings;
use crate::shard::Shard;

/// Changes that may wait for their turn; more are refused.
pub const CHANGES_WAITING_MAX: usize = 1024;

/// What the shards are told of a change: their view from now on, and what is new in it.
pub struct Update {
    pub view: Arc<View>,
    pub delta: Delta,
}

pub struct Controller {
    pub(super) log: MetadataLog,
    pub(super) view: Arc<View>,
    pub(super) rules: Rules,
    /// What was read of the log, or written to it.
    pub(super) replay: Replay,
    /// So many bytes behind the last snapshot make it time for another.
    pub(super) bytes_max: u64,
    pub(super) snapshot_is_due: bool,
}

/// What is on its way to the controller's task.
pub(super) enum Submitted {
    Change {
        change: Change,
        validate_only: bool,
        answer: Answer,
    },
    /// A snapshot is to be written. Deleted topics of which nothing is left on disk.
    Snapshot {
        gone: BTreeSet<Uuid>,
    },
    /// Of topics that the snapshot at this offset does not tell of nothing is left on disk.
    Begin {
        first: i64,
        gone: BTreeSet<Uuid>,
    },
    /// More of the log is committed, or its group is led otherwise.
    News,
}

pub(super) type Answer = OneshotSender<Result<Arc<View>, ChangeError>>;

/// Where the controller, at work in its task, is given changes.
pub struct ControllerHandle {
    pub(super) queue: QueueSender<Submitted>,
    /// `None`: this broker is alone.
    pub(super) member: Option<Rc<Member>>,
}

impl Controller {
    /// Reads what is committed of the log, and finishes its image. Beside it the topics that were deleted. `group`: that of the
    /// log, where there may be several brokers; what is not known to be committed yet comes when it is.
    pub async fn load(
        log: Rc<Log>,
        group: Option<Group>,
        settings: Arc<Settings>,
        node_id: i32,
        config: &BrokerConfig,
    ) -> anyhow::Result<(Controller, Deleted)> {
        let (replay, image) = replay::load(&log).await?;
        anyhow::ensure!(
            replay.is_whole() || group.is_some(),
            "controller log: it begins at offset {}, and holds no whole snapshot",
            log.log_start_offset()
        );
        let member = group.map(|group| Rc::new(Member::new(group)));
        let rules =
            Rules { node_id, partitions_max: config.partitions_max(), settings, is_alone: member.is_none() };
        let deleted = Arc::new(replay.deleted.clone());
        let controller = Controller {
            log: MetadataLog::new(log, member),
            view: Arc::new(View::new(Arc::new(image), rules.viewer())),
            rules,
            replay,
            bytes_max: config.metadata_bytes_between_snapshots,
            snapshot_is_due: false,
        };
        Ok((controller, deleted))
    }

    /// All there is.
    pub fn update(&self) -> Update {
        Update { view: self.view.clone(), delta: Delta::of_all(&self.view.image) }
    }

    /// Begins to take changes, and to follow those of others.
    pub fn start(self, shard: &Rc<Shard>) -> ControllerHandle {
        let (queue, changes) = bounded(CHANGES_WAITING_MAX);
        let member = self.log.member().cloned();
        let bell = member.as_ref().map(|member| {
            let keeps = membership::run(shard.clone(), member.clone(), queue.clone());
            spawn(Queue::Background, keeps).detach();
            Bell::new(queue.clone(), self.log.log())
        });
        spawn(Queue::Control, self.run(shard.clone(), changes, bell)).detach();
        ControllerHandle { queue, member }
    }

    async fn run(mut self, shard: Rc<Shard>, mut changes: QueueReceiver<Submitted>, bell: Option<Bell>) {
        self.follow(&shard, bell.as_ref()).await;
        self.prepare_snapshot(&shard);
        while let Some(submitted) = changes.recv().await {
            self.follow(&shard, bell.as_ref()).await;
            match submitted {
                Submitted::Change { change, validate_only, answer } => {
                    let result = self.carry_out(&shard, change, validate_only, &answer).await;
                    // Whoever asked may have gone.
                    let _gone = answer.send(result);
                }
                Submitted::Snapshot { gone } => self.write_snapshot(&shard, &gone).await,
                Submitted::Begin { first, gone } => self.begin_with(first, &gone).await,
                Submitted::News => {}
            }
            self.prepare_snapshot(&shard);
        }
    }

    /// Decides, makes the change hold, applies it and has every shard take the new view, which is given back; with
    /// `validate_only`, the view that would come of it.
    async fn carry_out(
        &mut self,
        shard: &Rc<Shard>,
        change: Change,
        validate_only: bool,
        answer: &Answer,
    ) -> Result<Arc<View>, ChangeError> {
        if validate_only {
            self.log.check_sound()?;
            let records = change.decide(&self.view.image, &self.rules)?;
            let (image, delta) = applied(&self.view.image, &records)?;
            return Ok(Arc::new(self.view.follow(Arc::new(image), &delta, self.rules.viewer()).await));
        }
        let epoch = self.log.check(self.replay.whole_to())?;
        let records = change.decide(&self.view.image, &self.rules)?;
        self.make(shard, &records, epoch, || answer.is_closed()).await?;
        Ok(self.view.clone())
    }

    /// Makes what was decided in `epoch` hold, and has every shard take it.
    pub(super) async fn make(
        &mut self,
        shard: &Rc<Shard>,
        records: &[MetadataRecord],
        epoch: LeaderEpoch,
        is_given_up: impl Fn() -> bool,
    ) -> Result<(), ChangeError> {
        if records.is_empty() {
            return Ok(());
        }
        worked(size_of_val(records));
        // First on a copy: what does not fit must not be in the log.
        let (mut image, delta) = applied(&self.view.image, records)?;
        let written = self.log.replicate(records, BatchKind::Controller, epoch).await?;
        self.replay.wrote(&written);
        image.end_offset = written.end;
        if planted(Fault::ChangeGivenUpHalfway) && is_given_up() {
            return Ok(());
        }
        self.publish(shard, image, delta).await;
        Ok(())
    }

    /// Has every shard take an image, to which `delta` leads from the one before.
    pub(super) async fn publish(&mut self, shard: &Rc<Shard>, image: Image, delta: Delta) {
        self.view = Arc::new(self.view.follow(Arc::new(image), &delta, self.rules.viewer()).await);
        self.replay.deleted.extend(delta.removed.iter().map(|topic| topic.id));
        let update = Arc::new(Update { view: self.view.clone(), delta });
        if let Err(gone) = shard.on_all(move |shard| async move { shard.install(&update).await }).await {
            // The process stops. The change is in the log all the same.
            tracing::debug!(%gone, "a change of metadata did not reach every shard");
        }
        if let Some(member) = self.log.member() {
            member.set_applied(self.replay.next);
        }
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
