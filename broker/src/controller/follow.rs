//! What other brokers have decided: read from this broker's own log as it is committed.

use std::rc::Rc;

use corelog_io::sync::{Following, Inbox, Mark, QueueSender};
use corelog_storage::{Log, ReadError};
use corelog_wire::ErrorCode;
use corelog_wire::metadata_records::MetadataRecord;

use super::change::ChangeError;
use super::delta::Delta;
use super::image::{BrokerImage, Image};
use super::replay::ReplayError;
use super::task::{Controller, Submitted};
use crate::shard::Shard;

/// Puts news of the log in line for the controller. A full queue needs none: with each thing that it takes from there the
/// controller looks for news.
pub struct Bell {
    inbox: Inbox,
    mark: Mark,
    _following: Following,
}

impl Bell {
    pub fn new(queue: QueueSender<Submitted>, log: &Log) -> Bell {
        let inbox = Inbox::new(move || drop(queue.try_send(Submitted::News)));
        let mark = inbox.mark(0);
        let _following = log.news().follow(&mark);
        Bell { inbox, mark, _following }
    }

    /// What has come is about to be looked at.
    fn arm(&self) {
        self.inbox.take();
        self.mark.take();
        self.inbox.arm();
    }
}

impl Controller {
    /// Takes in what is committed and is not known yet. Nothing, where this broker is alone.
    pub(super) async fn follow(&mut self, shard: &Rc<Shard>, bell: Option<&Bell>) {
        let (Some(bell), Some(member)) = (bell, self.log.member().cloned()) else { return };
        bell.arm();
        while self.log.check_sound().is_ok() && self.replay.next < self.log.log().high_watermark() {
            match self.step(shard).await {
                Ok(()) => {}
                Err(error @ ReplayError::Damaged { .. }) => self.log.fail(ChangeError::new(
                    ErrorCode::KAFKA_STORAGE_ERROR,
                    format!("{error}: this broker knows nothing of later changes of the metadata"),
                )),
                Err(ReplayError::Read(error)) => {
                    shard.sparingly("the controller's log", move |left_out| {
                        tracing::error!(%error, left_out, "the controller's log cannot be read: later changes are not known here");
                    });
                    break;
                }
            }
        }
        member.set_applied(self.replay.next);
        self.prepare_begin(shard);
        self.found(shard).await;
    }

    async fn step(&mut self, shard: &Rc<Shard>) -> Result<(), ReplayError> {
        let log = self.log.log().clone();
        self.replay.follow_start(&log);
        let before = self.view.image.clone();
        let mut image = Image::clone(&before);
        let step = match self.replay.step(&log, &mut image).await {
            // It has come to begin later while it was read.
            Err(ReplayError::Read(ReadError::OffsetOutOfRange { .. }))
                if log.log_start_offset() > self.replay.next =>
            {
                return Ok(());
            }
            step => step?,
        };
        let delta = if step.anew { Delta::between(&before, &image).await } else { step.delta };
        if !delta.is_empty() {
            self.publish(shard, image, delta).await;
        }
        Ok(())
    }

    /// The first that leads a cluster's group writes down who founded it.
    async fn found(&mut self, shard: &Rc<Shard>) {
        if !self.view.image.brokers.is_empty() {
            return;
        }
        let (Some(member), Ok(epoch)) = (self.log.member(), self.log.check(self.replay.whole_to())) else {
            return;
        };
        let founders = member.group.founders.iter().map(|founder| BrokerImage::of_founder(founder).record());
        let records: Vec<MetadataRecord> = founders.collect();
        if let Err(error) = self.make(shard, &records, epoch, || false).await {
            tracing::warn!(%error, "the cluster's founders are not in its metadata yet");
        }
    }
}
