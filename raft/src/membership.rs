//! Who belongs to a group, and how that changes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::config::REPLICAS_MAX;
use crate::ids::ReplicaId;

/// The replicas of a group. While `outgoing` has any, both it and `voters` must have a majority for each decision: a
/// joint configuration, on its way from one to the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    pub voters: Vec<ReplicaId>,
    pub outgoing: Vec<ReplicaId>,
    pub learners: Vec<ReplicaId>,
    /// Voters of `outgoing` that become learners when the joint configuration is left.
    pub learners_next: Vec<ReplicaId>,
}

impl Membership {
    pub fn of_voters(voters: &[ReplicaId]) -> Membership {
        Membership { voters: voters.to_vec(), ..Membership::default() }
    }

    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    pub fn is_voter(&self, replica: ReplicaId) -> bool {
        self.voters.contains(&replica) || self.outgoing.contains(&replica)
    }

    pub fn contains(&self, replica: ReplicaId) -> bool {
        self.is_voter(replica) || self.learners.contains(&replica)
    }

    /// All replicas, each once.
    pub fn replicas(&self) -> Vec<ReplicaId> {
        let mut all: Vec<_> =
            self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The highest value that a majority of the voters has, of both halves where the configuration is joint.
    pub fn quorum<V: Ord + Copy>(&self, value: impl Fn(ReplicaId) -> V) -> Option<V> {
        let majority = |voters: &[ReplicaId]| {
            let mut values: Vec<V> = voters.iter().map(|&voter| value(voter)).collect();
            values.sort_unstable_by(|a, b| b.cmp(a));
            values.get(values.len() / 2).copied()
        };
        let incoming = majority(&self.voters)?;
        Some(majority(&self.outgoing).map_or(incoming, |outgoing| incoming.min(outgoing)))
    }

    fn sorted(mut self) -> Membership {
        for list in [&mut self.voters, &mut self.outgoing, &mut self.learners, &mut self.learners_next] {
            list.sort_unstable();
        }
        self
    }

    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        for list in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            put_replicas(&mut bytes, list.iter().copied());
        }
        bytes.freeze()
    }

    /// `None`: these bytes are no membership.
    pub fn decode(mut bytes: &[u8]) -> Option<Membership> {
        let membership = Membership {
            voters: take_replicas(&mut bytes)?,
            outgoing: take_replicas(&mut bytes)?,
            learners: take_replicas(&mut bytes)?,
            learners_next: take_replicas(&mut bytes)?,
        };
        let learns_later =
            membership.learners_next.iter().all(|replica| membership.outgoing.contains(replica));
        let votes = membership.learners.iter().all(|&replica| !membership.is_voter(replica));
        (bytes.is_empty() && !membership.voters.is_empty() && learns_later && votes)
            .then(|| membership.sorted())
    }
}

/// What one entry changes. The entry says the step; each replica takes it when it has the entry in its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// To these voters and learners: in one step where one replica changes and no voter goes, else by way of a joint
    /// configuration.
    To { voters: Vec<ReplicaId>, learners: Vec<ReplicaId> },
    /// Out of the joint configuration.
    LeaveJoint,
}

impl Change {
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        match self {
            Change::To { voters, learners } => {
                bytes.put_u8(1);
                put_replicas(&mut bytes, voters.iter().copied());
                put_replicas(&mut bytes, learners.iter().copied());
            }
            Change::LeaveJoint => bytes.put_u8(2),
        }
        bytes.freeze()
    }

    /// `None`: these bytes are no change that a leader would propose.
    pub fn decode(mut bytes: &[u8]) -> Option<Change> {
        let change = match take_u8(&mut bytes)? {
            1 => {
                let voters = take_replicas(&mut bytes)?;
                let learners = take_replicas(&mut bytes)?;
                let apart = learners.iter().all(|replica| !voters.contains(replica));
                (!voters.is_empty() && apart).then_some(Change::To { voters, learners })?
            }
            2 => Change::LeaveJoint,
            _ => return None,
        };
        bytes.is_empty().then_some(change)
    }
}

fn put_replicas(bytes: &mut BytesMut, replicas: impl ExactSizeIterator<Item = ReplicaId>) {
    assert!(replicas.len() <= REPLICAS_MAX, "a group of more than {REPLICAS_MAX} replicas");
    bytes.put_u8(replicas.len() as u8);
    replicas.for_each(|replica| bytes.put_u64(replica.0));
}

fn take_u8(bytes: &mut &[u8]) -> Option<u8> {
    bytes.has_remaining().then(|| bytes.get_u8())
}

/// Each replica once, none of them 0, no more than a group may have.
fn take_replicas(bytes: &mut &[u8]) -> Option<Vec<ReplicaId>> {
    let count = usize::from(take_u8(bytes)?);
    if count > REPLICAS_MAX || bytes.len() < count * 8 {
        return None;
    }
    let mut replicas: Vec<_> = (0..count).map(|_| ReplicaId(bytes.get_u64())).collect();
    replicas.sort_unstable();
    let distinct = replicas.windows(2).all(|pair| pair[0] != pair[1]);
    (distinct && replicas.first() != Some(&ReplicaId(0))).then_some(replicas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replicas(ids: &[u64]) -> Vec<ReplicaId> {
        ids.iter().map(|&id| ReplicaId(id)).collect()
    }

    #[test]
    fn a_quorum_is_a_majority_of_each_half() {
        let mut membership = Membership::of_voters(&replicas(&[1, 2, 3]));
        let value = |replica: ReplicaId| [0, 10, 7, 5, 2, 1][replica.0 as usize];
        assert_eq!(membership.quorum(value), Some(7));
        membership.outgoing = replicas(&[3, 4, 5]);
        assert_eq!(membership.quorum(value), Some(2));
        assert_eq!(Membership::of_voters(&replicas(&[1, 2])).quorum(value), Some(7));
        assert_eq!(Membership::default().quorum(value), None);
    }

    #[test]
    fn what_is_encoded_comes_back() {
        let membership = Membership {
            voters: replicas(&[1, 2, 3]),
            outgoing: replicas(&[1, 4]),
            learners: replicas(&[9]),
            learners_next: replicas(&[4]),
        };
        assert_eq!(Membership::decode(&membership.encode()), Some(membership));
        for change in [Change::To { voters: replicas(&[1]), learners: replicas(&[2, 3]) }, Change::LeaveJoint]
        {
            assert_eq!(Change::decode(&change.encode()), Some(change));
        }
    }

    #[test]
    fn what_no_leader_proposes_is_refused() {
        let to = |voters: &[u64], learners: &[u64]| {
            Change::decode(&Change::To { voters: replicas(voters), learners: replicas(learners) }.encode())
        };
        assert!(to(&[1, 2], &[3]).is_some());
        assert_eq!(to(&[], &[1]), None);
        assert_eq!(to(&[1, 1], &[]), None);
        assert_eq!(to(&[0], &[]), None);
        assert_eq!(to(&[1], &[1]), None);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_or_make_sense(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(membership) = Membership::decode(&bytes) {
                prop_assert!(!membership.voters.is_empty());
            }
            let _ = Change::decode(&bytes);
        }
    }
}
