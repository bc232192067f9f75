//! Requests that wait for other members.

use crate::coordinator::Ticket;

/// A JoinGroup or SyncGroup that waits for other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub ticket: Ticket,
    /// The version it is answered in.
    pub version: i16,
}
