//! Topic names by id: from the controller's own log, and from the names of directories.

use super::report::plain;
use bytes::Bytes;
use corelog_wire::Uuid;
use corelog_wire::metadata_records::MetadataRecord;
use corelog_wire::records::{BatchView, RecordIter};
use std::collections::HashMap;

/// The controller's log has the id of Kafka's `__cluster_metadata`.
pub const CONTROLLER: Uuid = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);

#[derive(Default)]
pub struct Names(HashMap<Uuid, String>);

impl Names {
    pub fn of(&self, topic: Uuid) -> Option<&str> {
        match self.0.get(&topic) {
            None if topic == CONTROLLER => Some("__cluster_metadata"),
            name => name.map(String::as_str),
        }
    }

    /// From a directory's name: NAME~ID.
    pub fn note_dir(&mut self, name: &str) {
        if let Some((name, id)) = name.rsplit_once('~')
            && let Ok(id) = id.parse()
        {
            self.0.insert(id, name.to_owned());
        }
    }

    /// From a batch of the controller's log. One that cannot be read names nothing: the dump of that log tells why.
    pub fn note_batch(&mut self, bytes: &Bytes) {
        let Ok(batch) = BatchView::parse(bytes) else { return };
        let Ok(plain) = plain(&batch) else { return };
        for record in RecordIter::new(&plain, batch.header().records_count).flatten() {
            let value = record.value.map(|value| plain.slice_ref(value)).unwrap_or_default();
            if let Ok(MetadataRecord::TopicRecord(topic)) = MetadataRecord::from_bytes(value) {
                self.0.insert(topic.topic_id, topic.name.as_str().to_owned());
            }
        }
    }
}
