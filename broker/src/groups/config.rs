//! The coordinator's settings, with Kafka's names and defaults.

/// How long a JoinGroup of a member that is new to the group may stay parked. Such a member cannot heartbeat (it does
/// not know its id yet) and its broken connection is not noticed while the request is parked; without this, clients
/// that give up and retry would fill the group with members that no longer exist. Fixed in Kafka as well.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

/// Settings of the group coordinators of one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long the first rebalance of an empty group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`: members in one group.
    pub group_members_max: usize,
    /// `offset.metadata.max.bytes`. Kafka counts UTF-16 code units, and so do we.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: u64,
}

impl Default for GroupConfig {
    fn default() -> GroupConfig {
        GroupConfig {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            group_members_max: i32::MAX as usize,
            offset_metadata_max: 4096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1000,
            offsets_retention_check_interval_ms: 10 * 60 * 1000,
        }
    }
}
