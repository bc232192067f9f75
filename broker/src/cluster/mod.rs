//! What brokers of a cluster do together.
//!
//! Calls between brokers ([`crate::peer::Links::call`]) say in their first byte what they are: [`CallKind`].

pub mod asks;
mod balancer;
pub mod changes;
pub mod drain;
pub mod forming;
pub mod founding;
pub mod handover;
pub mod join;
mod liveness;
mod member;
pub mod reception;
pub mod status;
pub mod steward;
#[cfg(test)]
mod tests;
pub mod trim;

pub use member::{Member, MemberPlan, MemberSeed, member_seeds};
pub use steward::Steward;

/// What this build can do of what brokers must agree on.
pub const FEATURE_LEVEL: u16 = 1;

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
    /// That a partition be led by another replica. The shard that has the leader.
    Handover = 5,
    /// What the controller's group is like. Shard 0 of whoever leads it.
    Quorum = 6,
    /// That a log begins later from now on. The shard that has a replica.
    Trim = 7,
}

impl CallKind {
    pub const ALL: [CallKind; 7] = [
        CallKind::Segments,
        CallKind::Status,
        CallKind::Join,
        CallKind::Change,
        CallKind::Handover,
        CallKind::Quorum,
        CallKind::Trim,
    ];

    pub fn of(byte: u8) -> Option<CallKind> {
        CallKind::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}
