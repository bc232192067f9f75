//! What one seed does: settings, how much of what work, and which faults strike.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use corelog_broker::config::{BrokerConfig, Endpoint, Machine, StaticConfig, request_bytes_max};
use corelog_broker::settings::Settings;
use corelog_io::Dice;

use crate::connection::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Power loss, kills, stops in good order; slow disks.
    Crashes,
    /// Resets, cuts and pauses; crashes too.
    Network,
    /// The disk fills up now and then; crashes too.
    FullDisk,
    /// Reads, writes and syncs fail now and then; crashes too.
    IoErrors,
    /// Bits flip while the process is down.
    BitFlips,
    /// Disk, network and cores stand still, also for longer than every limit in time.
    Stalls,
    /// Links between broker and clients: one direction cut, flapping, slow, lossy; connections that are forgotten on the way.
    Links,
    /// The wall clock jumps by hours, both clocks drift by up to a tenth.
    Clocks,
    /// The disk is gone for a while, or its file system read-only, or syncs fail: the broker starts again after it.
    DyingDisk,
    /// What fails goes on failing: a journal, a log's segments, all reads, descriptors, space.
    LastingErrors,
    /// The process may open few files, and a crowd of clients takes all that it can get.
    Descriptors,
    /// One bit flips, or one part of the data directory is missing, while the process is down: all else is served.
    OneDamage,
}

impl Faults {
    /// Storage does its work, if only after a while.
    pub fn spares_storage(self) -> bool {
        [Faults::Crashes, Faults::Network, Faults::Stalls, Faults::Links, Faults::Clocks].contains(&self)
    }
}

/// Clients beside those that keep to the protocol and wait for their answers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guests {
    /// Change topics, produce, fetch, join, and leave at any moment.
    pub leavers: u32,
    /// Ask for all there is, again and again, and read nothing.
    pub mutes: u32,
    /// Begin large requests and do not go on.
    pub halting: u32,
    /// Open many connections, and close them again.
    pub crowds: u32,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub faults: Faults,
    /// Partitions of each topic.
    pub topics: Vec<i32>,
    pub incarnations: u32,
    pub cores_max: u64,
    pub producers: u32,
    pub idempotent_producers: u32,
    pub consumers: u32,
    pub committers: u32,
    /// Members of one consumer group.
    pub members: u32,
    /// Each makes a topic, uses it and deletes it, again and again.
    pub passing: u32,
    /// Send requests as large as the limits allow.
    pub large: u32,
    pub guests: Guests,
    /// Bytes of a record batch's values.
    pub value_bytes_max: u64,
    pub segment_ms: u64,
    pub journal_file_bytes: u64,
    pub journal_files: usize,
    pub memory_bytes: u64,
    /// Fetch sessions that there may be.
    pub fetch_sessions_max: usize,
    /// After so many bytes the controller's log begins anew.
    pub metadata_bytes: u64,
    /// Virtual time between a client's requests.
    pub pace: Duration,
    pub reset_one_in: u64,
    pub half_open_one_in: u64,
    /// Topics that somebody names come into being.
    pub auto_create: bool,
    /// Files that the process may have open, beside what each core takes for certain.
    pub descriptors: Option<usize>,
}

pub const PORT: u16 = 9092;
pub const DATA_DIR: &str = "/data";
/// Kept free of the disk.
const RESERVE_BYTES: u64 = 256 << 10;

impl Plan {
    pub fn from_seed(seed: u64, faults: Faults) -> Plan {
        let mut dice = Dice(seed ^ 0xb20c_e200);
        let journal_file_bytes = dice.pick(&[64 << 10, 128 << 10, 512 << 10]);
        let plan = Plan {
            seed,
            faults,
            topics: (0..1 + dice.below(2)).map(|_| dice.pick(&[1, 2, 3, 5])).collect(),
            incarnations: 1 + dice.below(4) as u32,
            cores_max: 3,
            producers: dice.below(3) as u32,
            idempotent_producers: 1 + dice.below(2) as u32,
            consumers: 1 + dice.below(3) as u32,
            committers: dice.below(2) as u32,
            members: dice.below(3) as u32,
            value_bytes_max: dice.pick(&[100, 1_000, 12_000]),
            segment_ms: dice.pick(&[50, 1_000, 604_800_000]),
            journal_file_bytes,
            journal_files: dice.pick(&[2, 3, 4]),
            fetch_sessions_max: 1_000,
            // At the least what the tail caches of three cores need.
            memory_bytes: dice.pick(&[(18 * journal_file_bytes).max(4 << 20), 16 << 20]),
            metadata_bytes: Dice(seed ^ 0x5a5a).pick(&[500, 2_000, 20 << 20]),
            pace: Duration::from_micros(dice.pick(&[500, 3_000, 10_000])),
            reset_one_in: if faults == Faults::Network { dice.pick(&[0, 100, 1_000]) } else { 0 },
            half_open_one_in: if faults == Faults::Links { 3 } else { 0 },
            passing: dice.pick(&[0, 0, 1]),
            large: 0,
            guests: Guests { leavers: dice.pick(&[0, 0, 1]), ..Guests::default() },
            auto_create: false,
            descriptors: None,
        };
        plan.for_faults(&mut dice)
    }

    /// What this kind of faults needs to show.
    fn for_faults(self, dice: &mut Dice) -> Plan {
        // Much time passes.
        let slow = Duration::from_millis(dice.pick(&[20, 50, 100]));
        let guests = Guests { leavers: 2, mutes: dice.pick(&[0, 6]), halting: dice.pick(&[0, 4]), crowds: 0 };
        match self.faults {
            Faults::Stalls => Plan {
                pace: slow,
                incarnations: 1 + dice.below(2) as u32,
                passing: 1 + dice.below(2) as u32,
                large: dice.below(3) as u32,
                guests,
                ..self
            },
            Faults::Links => Plan {
                pace: slow,
                incarnations: 1 + dice.below(2) as u32,
                passing: 1,
                guests: Guests { halting: 0, ..guests },
                ..self
            },
            Faults::Clocks => {
                Plan { pace: slow / 4, passing: 1, guests: Guests { leavers: 1, ..self.guests }, ..self }
            }
            Faults::LastingErrors | Faults::DyingDisk => {
                Plan { pace: slow / 4, passing: 2, incarnations: 2 + dice.below(2) as u32, ..self }
            }
            Faults::Descriptors => Plan {
                pace: slow / 4,
                incarnations: 1 + dice.below(2) as u32,
                guests: Guests { crowds: 2, ..guests },
                descriptors: Some(dice.pick(&[40, 60, 100])),
                ..self
            },
            // Little fills the journal and the tail caches.
            Faults::OneDamage => Plan {
                topics: vec![3, 2],
                pace: slow / 4,
                incarnations: 1,
                journal_file_bytes: 64 << 10,
                journal_files: 2,
                memory_bytes: 4 << 20,
                guests: Guests::default(),
                ..self
            },
            _ => self,
        }
    }

    /// Whether waiting for everybody costs little: the others do not do much meanwhile.
    pub fn is_unhurried(&self) -> bool {
        self.pace >= Duration::from_millis(5)
    }

    /// How long a client may go on waiting on a connection whose end it was not told of.
    pub fn patience(&self) -> Duration {
        if self.half_open_one_in > 0 { PATIENCE } else { Duration::ZERO }
    }

    /// Answers may come without records for want of room.
    pub fn is_crowded(&self) -> bool {
        self.guests.mutes > 0
    }

    /// The largest request that the broker takes on so many cores, its length included.
    pub fn request_bytes_max(&self, config: &BrokerConfig, cores: usize) -> usize {
        let receive_bytes = config.budgets(cores).receive_bytes;
        4 + request_bytes_max(receive_bytes).min(config.connections.request_bytes_max)
    }

    /// The broker's settings and config on `cores` cores. The journal and the budgets are made far smaller than a
    /// person may, so that a short run fills them.
    pub fn config(
        &self,
        ip: IpAddr,
        cores: usize,
        node_id: i32,
        peer: Option<SocketAddr>,
    ) -> (Arc<Settings>, Arc<BrokerConfig>) {
        let (listen, node_id) = (format!("{ip}:{PORT}"), node_id.to_string());
        let fixed = StaticConfig::of([
            ("listen", listen.as_str()),
            ("node.id", node_id.as_str()),
            ("auto.create.topics.enable", if self.auto_create { "true" } else { "false" }),
            ("offsets.topic.num.partitions", "3"),
            ("group.initial.rebalance.delay.ms", "100"),
            ("group.min.session.timeout.ms", "500"),
            ("log.segment.bytes", "1048576"),
        ])
        .expect("these are configs");
        let machine = Machine {
            cpus: (0..cores).collect(),
            cpu_quota: None,
            memory_bytes: 8 << 30,
            host_name: "simulated".into(),
        };
        let settings = Settings { fixed, machine };
        let none = Default::default();
        let mut config = settings.broker(&none, &none).expect("the settings are sound");
        config.data_dir = PathBuf::from(DATA_DIR);
        // What others send takes room of its own.
        let for_peers = if peer.is_some() { (64 << 20) * cores as u64 } else { 0 };
        config.memory_bytes = self.memory_bytes.max(for_peers);
        config.peer = peer.map(|peer| Endpoint { host: peer.ip().to_string(), port: peer.port() });
        config.fetch_sessions_max = self.fetch_sessions_max;
        config.metadata_bytes_between_snapshots = self.metadata_bytes;
        config.storage.journal_file_bytes = self.journal_file_bytes;
        config.storage.journal_files = self.journal_files;
        config.storage.disk_reserve_bytes = RESERVE_BYTES;
        (Arc::new(settings), Arc::new(config))
    }
}
