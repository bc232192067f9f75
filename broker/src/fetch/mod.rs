//! What fetching keeps on a shard: sessions and the lists of what they fetch, the watches that owners of partitions keep
//! for lists, the bells that watches ring, and the room for answers. `api::fetch` makes the answers.
//!
//! ```text
//!  the shard of the connection                        an owner of partitions
//!    Sessions ─ Plan ─ List ── read: changes ────────▶ Watches ─ Watch ─ Partition
//!                        ▲                                         │ news
//!                      Bells ◀───────────── ring ─────────────────┘
//! ```

mod list;
mod room;
mod session;
mod watch;

use std::rc::Rc;

use corelog_io::sync::Semaphore;
use corelog_storage::{LogId, ReadError};
use corelog_wire::ErrorCode;

use crate::ids::ShardId;
use crate::partition::Partition;
pub use list::{Asked, Bells, List};
pub use room::{FetchRoom, GRANT_MIN};
pub use session::{EPOCH_FINAL, Plan, Sessions};
pub use watch::{Given, Got, ListId, ReadRoom, Watches, read};

/// A shard's part in fetching.
pub struct Fetching {
    pub sessions: Rc<Sessions>,
    /// Bytes of records in answers that are not sent yet.
    pub room: FetchRoom,
    /// Bytes that fetches of thousands of partitions work with.
    pub large: Semaphore,
    /// Of the partitions of this shard, for the lists of all shards.
    pub watches: Watches,
    /// Of the lists of this shard.
    pub bells: Bells,
}

impl Fetching {
    /// `room_bytes`: for records on their way; `lists_bytes`: for what sessions, and fetches that wait, name.
    pub fn new(session_slots: usize, room_bytes: u64, lists_bytes: u64) -> Fetching {
        Fetching {
            sessions: Sessions::new(session_slots, lists_bytes as usize),
            room: FetchRoom::new(room_bytes),
            large: Semaphore::new(lists_bytes),
            watches: Watches::default(),
            bells: Bells::default(),
        }
    }
}

/// The shard that this is on, as far as fetching knows it.
pub trait Host {
    fn id(&self) -> ShardId;

    fn fetching(&self) -> &Fetching;

    /// The replica that this shard has of a partition.
    fn partition(&self, id: LogId) -> Result<Rc<Partition>, ErrorCode>;

    /// A partition could not be read: a person is to know. The code for it.
    fn read_failed(self: Rc<Self>, partition: LogId, error: ReadError) -> ErrorCode;

    /// Has the bell of a list rung on the shard that it belongs to.
    fn ring(self: Rc<Self>, list: ListId);

    /// Has `owner` give up its watch for a list that is no more. `given`: what its last answers held.
    fn unwatch(self: Rc<Self>, owner: ShardId, list: ListId, given: Vec<Given>);
}
