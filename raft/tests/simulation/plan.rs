//! What a seed makes of the world: its size, its speed, and which faults it has how often.

use corelog_raft::Random;

use crate::planted::Planted;

pub struct Plan {
    pub brokers: u64,
    pub groups: i32,
    pub ticks: u64,
    pub sync_ticks: u64,
    pub delay: u64,
    /// Of a hundred frames so many are lost, and as many come twice.
    pub hostile: u64,
    /// In so many of 400 ticks something is proposed: groups rest in the others.
    pub busy: u64,
    /// A broker that is cut off is heard by one of the others sooner than by another.
    pub ragged: bool,
    pub rates: Rates,
}

/// One of each in so many ticks; 0: never. Some seeds have all, some a few: what one fault hides another one shows.
pub struct Rates {
    pub crash: u64,
    pub wipe: u64,
    pub pause: u64,
    pub slow_disk: u64,
    pub disconnect: u64,
    pub cut: u64,
    pub campaign: u64,
    pub transfer: u64,
    pub change: u64,
    pub retain: u64,
    /// Of brokers that start again so many in a hundred have another number of shards.
    pub reshard: u64,
}

impl Plan {
    /// One seed in four has quiet groups and ragged cuts: leaders at rest that some of their followers leave.
    pub fn of(seed: u64, random: &mut Random) -> Plan {
        let ragged = seed % 4 == 3;
        Plan {
            brokers: if random.below(2) == 0 { 3 } else { 5 },
            groups: 1 + random.below(4) as i32,
            ticks: 800 + random.below(800),
            sync_ticks: random.below(8),
            delay: random.below(6),
            hostile: if random.below(3) == 0 { 4 } else { 0 },
            busy: if ragged { 40 } else { 250 },
            ragged,
            rates: Rates::of(random),
        }
    }
}

impl Plan {
    /// More of what it takes to see a planted fault that few worlds show.
    pub fn favour(&mut self, planted: Planted) {
        if planted == Planted::VotesForgotten {
            // Votes that no promise to a leader stands against, and a replica that gives two of them.
            (self.rates.crash, self.rates.transfer) = (30, 60);
        }
    }
}

impl Rates {
    fn of(random: &mut Random) -> Rates {
        let calm = 100 + random.below(400);
        let mut rate = |one_in: u64| match random.below(6) {
            0 => 0,
            1 => (one_in / 4).max(1),
            2 => one_in * 3,
            _ => one_in,
        };
        Rates {
            crash: rate(calm),
            wipe: rate(calm * 6),
            pause: rate(calm),
            slow_disk: rate(calm),
            disconnect: rate(calm / 2),
            cut: rate(calm / 2),
            campaign: rate(calm * 2),
            transfer: rate(calm),
            change: rate(calm),
            retain: rate(60),
            reshard: rate(30).min(100),
        }
    }
}
