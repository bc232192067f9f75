//! What befalls the brokers of a cluster.

use corelog_io::Dice;

use crate::real_client::plan::Plan;

/// What strikes all through one seed. Never so many at once that a majority is gone for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ordeal {
    /// Several lose their power, are killed or stopped at once; or all; or one after the other.
    Power,
    /// Links between brokers are cut in one direction, flap, are slow, lose packets.
    Links,
    /// Clocks jump, and run fast or slow.
    Clocks,
    /// Disks are slow, full, or fail for a while.
    Disks,
    /// Bits flip on a broker's disk while it is down.
    Damage,
    /// A broker's disk is lost, and an empty one comes in its place.
    Wipes,
    /// Replicas move, topics come and go, while power fails and links are cut.
    Moves,
}

impl Plan {
    /// Three or five brokers, topics with different numbers of replicas.
    pub fn of_ordeal(seed: u64, ordeal: Ordeal) -> Plan {
        let mut dice = Dice(seed ^ 0x0dea_1000);
        let mut plan = Plan::of_cluster(seed);
        plan.brokers = dice.pick(&[3, 3, 5]);
        // One disk that is lost, or damaged, must not be a majority's.
        let least: u64 = if matches!(ordeal, Ordeal::Wipes | Ordeal::Damage) { 3 } else { 1 };
        plan.topics.push(1 + dice.below(2) as i32);
        let replication = |dice: &mut Dice| least + dice.below(plan.brokers as u64 + 1 - least);
        plan.replication = plan.topics.iter().map(|_| replication(&mut dice) as i16).collect();
        Plan { ordeal: Some(ordeal), strikes: 3 + dice.below(5), cores_max: 3, ..plan }
    }

    /// Replicas of a topic.
    pub fn replication_of(&self, topic: usize) -> i16 {
        self.replication.get(topic).copied().unwrap_or(self.brokers as i16)
    }
}
