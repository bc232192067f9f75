//! One member of a group.

use bytes::Bytes;
use corelog_wire::Str;
use corelog_wire::coordinator_records::group_metadata_value::MemberMetadata;

use super::parked::Parked;

/// A protocol (for consumers: an assignor) that a member can follow, and what it says to the leader under it.
/// Opaque to the coordinator, but for the subscription of the protocol type `consumer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: Str,
    pub metadata: Bytes,
}

#[derive(Debug)]
pub struct Member {
    pub id: Str,
    /// `group.instance.id` of a static member (KIP-345).
    pub instance_id: Option<Str>,
    pub client_id: Str,
    pub client_host: Str,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// What the leader of the current generation gave it; empty before that.
    pub assignment: Bytes,
    /// Its JoinGroup, while that waits for the join phase to end. At most one.
    pub join: Option<Parked>,
    /// Its SyncGroup, while that waits for the leader's assignment. At most one.
    pub sync: Option<Parked>,
    /// Until its first join phase has ended the member doesn't know its id, so it can't heartbeat, and a parked join is
    /// no sign of life.
    pub is_new: bool,
}

impl Member {
    /// As its group's record has it.
    pub fn loaded(stored: &MemberMetadata, protocol: Option<&Str>) -> Member {
        Member {
            id: stored.member_id.clone(),
            instance_id: stored.group_instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            // Version 0 has none. With none at all each join phase would be over as soon as it has begun, for ever.
            rebalance_timeout_ms: match stored.rebalance_timeout {
                ..=0 => stored.session_timeout.max(1),
                timeout => timeout,
            },
            session_timeout_ms: stored.session_timeout,
            // The others that the member knew are not in the record; it names them when it joins next.
            protocols: vec![Protocol {
                name: protocol.cloned().unwrap_or_default(),
                metadata: stored.subscription.clone(),
            }],
            assignment: stored.assignment.clone(),
            join: None,
            sync: None,
            is_new: false,
        }
    }

    pub fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// Whether a session that has run out is to be overlooked: a member that waits for others is alive.
    pub fn is_waiting(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// What the member says under `protocol`. Empty if it does not know that protocol.
    pub fn metadata(&self, protocol: Option<&Str>) -> Bytes {
        protocol
            .and_then(|name| self.protocols.iter().find(|known| known.name == *name))
            .map(|known| known.metadata.clone())
            .unwrap_or_default()
    }

    /// Bytes the member holds, for [`crate::groups::memory::GroupMemory`].
    pub fn cost(&self) -> usize {
        const FIXED: usize = 512;
        FIXED
            + 2 * self.id.len()
            + self.instance_id.as_ref().map_or(0, |id| 2 * id.len())
            + self.client_id.len()
            + self.client_host.len()
            + protocols_cost(&self.protocols)
            + self.assignment.len()
    }
}

/// Bytes that protocols hold.
pub fn protocols_cost(protocols: &[Protocol]) -> usize {
    protocols.iter().map(|protocol| protocol.name.len() + protocol.metadata.len() + 96).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_member_has_a_rebalance_timeout() {
        for (rebalance_timeout, session_timeout, expected) in
            [(5, 10, 5), (-1, 10, 10), (0, 10, 10), (i32::MIN, 10, 10), (0, 0, 1)]
        {
            let stored = MemberMetadata { rebalance_timeout, session_timeout, ..Default::default() };
            let loaded = Member::loaded(&stored, None);
            assert_eq!(loaded.rebalance_timeout_ms, expected, "{stored:?}");
        }
    }
}
