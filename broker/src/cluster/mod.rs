//! What brokers of a cluster do together.
//!
//! Calls between brokers ([`crate::peer::Links::call`]) say in their first byte what they are: [`CallKind`].

pub mod asks;
pub mod changes;

/// What a call is for. The numbers are on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKind {
    /// Segments of a log ([`corelog_replicas::Ask`]), of the shard that has a replica.
    Segments = 1,
    /// Which cluster a broker belongs to, and whether it would found one. Shard 0.
    Status = 2,
    /// To become a broker of the cluster. Shard 0 of whoever leads the controller's group.
    Join = 3,
    /// A change of the metadata. Shard 0 of whoever leads the controller's group.
    Change = 4,
}

impl CallKind {
    pub const ALL: [CallKind; 4] = [CallKind::Segments, CallKind::Status, CallKind::Join, CallKind::Change];

    pub fn of(byte: u8) -> Option<CallKind> {
        CallKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
