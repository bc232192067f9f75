//! Requests that wait for their answer.

/// Names one request from the time it is handed to the coordinator until its [`super::effect::Effect::Respond`].
/// The caller chooses it; no two open requests of one coordinator bear the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A JoinGroup or SyncGroup that waits for other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    pub ticket: Ticket,
    /// The version it is answered in.
    pub version: i16,
}
