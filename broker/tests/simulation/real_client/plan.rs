//! What one seed does: who is there, what strikes.

use std::time::Duration;

use corelog_client::{Acks, Assignor, ClientConfig, ConsumerConfig, ProducerConfig};
use corelog_io::Dice;

use super::cluster::Ordeal;
use super::truth::Promise;

pub const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(4);
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub const DELIVERY_TIMEOUT: Duration = Duration::from_secs(4);
pub const SEND_TIMEOUT: Duration = Duration::from_secs(3);
pub const API_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Of a cluster, if it is more than one.
    pub brokers: usize,
    /// Partitions of each topic.
    pub topics: Vec<i32>,
    /// Replicas of each topic; of those that are not named there is one on each broker.
    pub replication: Vec<i16>,
    /// What strikes the brokers of a cluster, if it is more than what strikes one.
    pub ordeal: Option<Ordeal>,
    pub producers: Vec<ProducerPlan>,
    pub groups: Vec<GroupPlan>,
    pub strikes: u64,
    pub network_latency: std::ops::Range<Duration>,
    pub reset_one_in: u64,
    /// Below and above what a record's delivery may take.
    pub request_timeout: Duration,
    /// Between a producer's records.
    pub pace: Duration,
    pub cores_max: u64,
}

#[derive(Clone, Copy, Debug)]
pub struct ProducerPlan {
    pub promise: Promise,
    pub linger: Duration,
    pub batch_bytes: usize,
}

#[derive(Clone, Debug)]
pub struct GroupPlan {
    pub members: usize,
    pub assignors: Vec<Assignor>,
    pub commits: Commits,
    /// Its members have names that outlive them (KIP-345).
    pub is_static: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commits {
    Automatic,
    Explicit,
    Background,
}

impl Plan {
    pub fn from_seed(seed: u64) -> Plan {
        let mut dice = Dice(seed ^ 0xc11e_4700);
        let promises = [
            Promise::Idempotent,
            Promise::Idempotent,
            Promise::Ordered,
            Promise::Delivered,
            Promise::Unheard,
        ];
        let producer = |dice: &mut Dice| ProducerPlan {
            promise: dice.pick(&promises),
            linger: Duration::from_millis(dice.pick(&[0, 5, 50])),
            batch_bytes: dice.pick(&[100, 1_000, 64 << 10]),
        };
        let group = |dice: &mut Dice| GroupPlan {
            members: 1 + dice.below(4) as usize,
            assignors: match dice.below(4) {
                0 => vec![Assignor::Range],
                1 => vec![Assignor::RoundRobin, Assignor::CooperativeSticky],
                _ => vec![Assignor::CooperativeSticky],
            },
            commits: dice.pick(&[Commits::Automatic, Commits::Explicit, Commits::Background]),
            is_static: dice.below(4) == 0,
        };
        let group = |dice: &mut Dice| group(dice).sound();
        let slow = Duration::from_millis(dice.pick(&[1, 1, 20]));
        Plan {
            seed,
            brokers: 1,
            replication: Vec::new(),
            ordeal: None,
            topics: (0..1 + dice.below(2)).map(|_| dice.pick(&[1, 2, 4])).collect(),
            producers: (0..1 + dice.below(2)).map(|_| producer(&mut dice)).collect(),
            groups: (0..1 + dice.below(2)).map(|_| group(&mut dice)).collect(),
            strikes: 3 + dice.below(6),
            network_latency: slow / 20..slow,
            reset_one_in: dice.pick(&[0, 0, 300]),
            request_timeout: Duration::from_millis(dice.pick(&[1_500, 6_000])),
            pace: Duration::from_millis(dice.pick(&[20, 60, 200])),
            cores_max: 2,
        }
    }

    /// The same work, done by a cluster. What one broker has can be lost with it: nothing is promised of it.
    pub fn of_cluster(seed: u64) -> Plan {
        let mut plan = Plan { brokers: 3, ..Plan::from_seed(seed) };
        for producer in plan.producers.iter_mut().filter(|one| one.promise == Promise::Delivered) {
            producer.promise = Promise::Idempotent;
        }
        plan
    }
}

pub fn topic_name(topic: usize) -> String {
    format!("topic-{topic}")
}

pub fn group_name(group: usize) -> String {
    format!("group-{group}")
}

/// Short times, so that a short life meets every limit.
/// `bootstrap`: brokers to begin with.
pub fn client_config(bootstrap: &str, request_timeout: Duration) -> ClientConfig {
    ClientConfig {
        connect_timeout: Duration::from_secs(1),
        request_timeout,
        api_timeout: API_TIMEOUT,
        retry_backoff: Duration::from_millis(30),
        retry_backoff_max: Duration::from_millis(300),
        reconnect_backoff: Duration::from_millis(20),
        reconnect_backoff_max: Duration::from_millis(300),
        metadata_max_age: Duration::from_secs(5),
        ..ClientConfig::new(bootstrap)
    }
}

impl ProducerPlan {
    pub fn config(&self) -> ProducerConfig {
        let config = ProducerConfig {
            linger: self.linger,
            batch_bytes: self.batch_bytes,
            send_timeout: SEND_TIMEOUT,
            delivery_timeout: DELIVERY_TIMEOUT,
            ..ProducerConfig::default()
        };
        match self.promise {
            Promise::Idempotent => config,
            Promise::Ordered => ProducerConfig { idempotent: false, requests_in_flight_max: 1, ..config },
            Promise::Delivered => config.acks(Acks::Leader),
            Promise::Unheard => config.acks(Acks::None),
        }
    }
}

impl GroupPlan {
    /// A static member that dies between two rounds of a cooperative rebalance comes back without a word, and what it was to give
    /// up waits for the next round, whenever that is: so it is in Kafka too, and nothing that this world may blame anyone for.
    fn sound(mut self) -> GroupPlan {
        if self.is_static && self.assignors == [Assignor::CooperativeSticky] {
            self.assignors = vec![Assignor::Range];
        }
        self
    }

    pub fn config(&self, group: usize, machine: usize, dice: &mut Dice) -> ConsumerConfig {
        ConsumerConfig {
            instance_id: self.is_static.then(|| format!("program-{machine}")),
            auto_commit: (self.commits == Commits::Automatic).then_some(Duration::from_millis(300)),
            fetch_wait_max: Duration::from_millis(dice.pick(&[50, 300])),
            poll_records_max: dice.pick(&[1, 5, 50]),
            session_timeout: SESSION_TIMEOUT,
            heartbeat_interval: Duration::from_millis(300),
            poll_interval_max: POLL_INTERVAL_MAX,
            close_timeout: CLOSE_TIMEOUT,
            assignors: self.assignors.clone(),
            ..ConsumerConfig::group(group_name(group)).from_earliest()
        }
    }
}
