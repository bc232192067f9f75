//! Waiting within one core. World-independent; nothing here is Send; every wait may be dropped at any point.

mod bounded;
mod event;
mod inbox;
mod notify;
mod oneshot;
mod semaphore;

pub use bounded::{QueueReceiver, QueueSender, bounded};
pub use event::{Event, Listener};
pub use inbox::{Following, Inbox, Mark, Source};
pub use notify::Notify;
pub use oneshot::{OneshotReceiver, OneshotSender, oneshot};
pub use semaphore::{Permit, Semaphore};

/// The other side was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side was dropped")]
pub struct Closed;
