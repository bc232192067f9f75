//! The load as the command line describes it.

use crate::args;
use crate::load::payload::{Filler, Sizes};
use crate::load::plan::{Pace, Plan};
use crate::load::schedule::Arrivals;
use clap::Args;
use corelog_client::{Acks, Encoding};
use std::time::Duration;

/// For all kinds of runs.
#[derive(Args, Clone, Debug)]
pub struct Timing {
    /// At least so long nothing counts yet: caches, connections and compilers get warm. Then the window begins when throughput and p99 stand
    #[arg(long, default_value = "20s", value_parser = args::duration, value_name = "DURATION", help_heading = "Time")]
    pub warm_up: Duration,
    /// Waits at most so long for that; then the run is marked as not steady
    #[arg(long, default_value = "2m", value_parser = args::duration, value_name = "DURATION", help_heading = "Time")]
    pub warm_up_max: Duration,
    /// Measures for this long
    #[arg(short, long, default_value = "30s", value_parser = args::duration, value_name = "DURATION", help_heading = "Time")]
    pub duration: Duration,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Records")]
pub struct Records {
    /// Size of values: 1000, 100..2000 (uniform), log:100..100000, mix:100=9,10000=1
    #[arg(short, long, default_value = "1000", value_parser = args::sizes, value_name = "SIZES")]
    pub size: Sizes,
    /// Fill values with this
    #[arg(long, value_enum, default_value_t = Filler::Random)]
    pub filler: Filler,
    /// Give each record one of so many keys, by which it goes to its partition
    #[arg(short, long, default_value_t = 0, value_name = "COUNT")]
    pub keys: usize,
    /// Records (40000, 40k, 1M) or bytes (40MB) a second, by a schedule, whatever the broker does; without it, as fast as it takes them
    #[arg(short, long, value_parser = args::rate, value_name = "RATE")]
    pub rate: Option<args::Rate>,
    /// How a schedule spreads records over time
    #[arg(long, value_enum, default_value_t = Arrivals::Even)]
    pub arrivals: Arrivals,
    /// Repeats sizes, keys and arrivals
    #[arg(long, default_value_t = 1, value_name = "NUMBER", hide_short_help = true)]
    pub seed: u64,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Topic and producers")]
pub struct Producing {
    /// Partitions of the topic, which is made for the run and deleted after it
    #[arg(short, long, default_value_t = 100, value_name = "COUNT")]
    pub partitions: usize,
    /// A setting of the topic; may be given more than once
    #[arg(short = 'c', long, value_parser = args::pair, value_name = "NAME=VALUE")]
    pub config: Vec<(String, String)>,
    /// Producers, each with a connection of its own
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub producers: usize,
    /// Threads that drive them, each with a client of its own, which has one more; by default one for two CPUs
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,
    /// When a record counts as written: 0 when sent, 1 when the leader has it, all when the in-sync replicas have it
    #[arg(long, default_value = "all", value_name = "ACKS")]
    pub acks: Acks,
    /// Do without idempotence, which is on with --acks all
    #[arg(long)]
    pub no_idempotence: bool,
    /// Send in transactions: each producer commits what it sent for so long, and begins anew. Consumers read what is committed
    #[arg(long, value_parser = args::duration, value_name = "DURATION")]
    pub transaction_every: Option<Duration>,
    /// none, gzip, snappy, lz4 or zstd, with an optional level, as in zstd:9
    #[arg(short = 'z', long, default_value = "none", value_name = "CODEC")]
    pub compression: Encoding,
    /// A batch of this size is sent at once
    #[arg(long, default_value = "16KiB", value_parser = args::size, value_name = "SIZE")]
    pub batch: u64,
    /// How long a smaller one waits for more
    #[arg(long, default_value = "5ms", value_parser = args::duration, value_name = "DURATION")]
    pub linger: Duration,
    /// Records without an answer, over all producers; 1 MiB for each at least
    #[arg(long, default_value = "32MiB", value_parser = args::size, value_name = "SIZE")]
    pub buffer: u64,
    /// Requests without an answer, of each producer
    #[arg(long, default_value_t = 5, value_name = "COUNT")]
    pub in_flight: usize,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Consumers")]
pub struct Consuming {
    /// Consumers in a group; they share the partitions
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    pub consumers: usize,
    /// A broker answers a fetch when it has so many bytes
    #[arg(long, default_value = "1", value_parser = args::size, value_name = "SIZE")]
    pub fetch_min: u64,
}

/// Threads of producers, if nothing else is said: their clients have one each too.
pub fn threads_by_default(producers: usize) -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    (cpus / 2).clamp(1, producers.max(1))
}

impl Producing {
    /// A plan without consumers.
    pub fn plan(&self, bootstrap: &str, records: &Records, timing: &Timing) -> Plan {
        let mean = records.size.mean();
        Plan {
            partitions: self.partitions,
            topic_configs: self.config.clone(),
            producers: self.producers,
            producer_threads: self.threads.unwrap_or_else(|| threads_by_default(self.producers)),
            pace: match records.rate {
                None => Pace::Saturate,
                Some(rate) => Pace::Rate {
                    records_per_second: rate.records_per_second(mean),
                    arrivals: records.arrivals,
                },
            },
            sizes: records.size.clone(),
            filler: records.filler,
            keys: records.keys,
            acks: self.acks,
            idempotent: self.acks == Acks::All && !self.no_idempotence,
            transaction_every: self.transaction_every,
            encoding: self.compression,
            batch_bytes: self.batch as usize,
            linger: self.linger,
            buffer_bytes: self.buffer as usize / self.producers.max(1),
            requests_in_flight: self.in_flight,
            warm_up: timing.warm_up,
            warm_up_max: timing.warm_up_max,
            measured: timing.duration,
            seed: records.seed,
            ..Plan::new(bootstrap)
        }
    }
}

impl Timing {
    /// For what takes as long as it takes.
    pub fn none() -> Timing {
        Timing { warm_up: Duration::ZERO, warm_up_max: Duration::ZERO, duration: Duration::from_secs(1) }
    }
}

impl Consuming {
    /// Nothing is produced; how many partitions there are the topic tells.
    pub fn plan(&self, bootstrap: &str) -> Plan {
        self.add_to(Plan { partitions: usize::MAX, ..Plan::new(bootstrap) }, 0)
    }

    /// With `groups` that each read everything.
    pub fn add_to(&self, plan: Plan, groups: usize) -> Plan {
        Plan { groups, consumers: self.consumers, fetch_bytes_min: self.fetch_min as usize, ..plan }
    }
}
