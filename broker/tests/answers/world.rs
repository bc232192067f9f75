//! A broker on a simulated machine, set up as a person would, and clients that ask it one thing after the other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use corelog_broker::admin::Scraper;
use corelog_broker::config::{Machine, StaticConfig};
use corelog_broker::identity::Identity;
use corelog_broker::server::{self, Report, Seed, ShardControl};
use corelog_broker::settings::Settings;
use corelog_io::sim::{Process, Sim};
use corelog_wire::Uuid;

use crate::connection::Connection;

pub const PORT: u16 = 9092;
/// Virtual time within which a start or a stop is done.
const DONE_MAX: Duration = Duration::from_secs(60);

pub struct World {
    pub sim: Sim,
    pub machine: Process,
    controls: Vec<ShardControl>,
    ended: Rc<Cell<usize>>,
}

/// What a test's clients need to know of the broker.
#[derive(Clone, Copy)]
pub struct Client {
    pub address: SocketAddr,
}

impl Client {
    pub async fn connect(self) -> Connection {
        Connection::open(self.address, "answers", || false).await.expect("nobody says to stop")
    }
}

impl World {
    /// A broker that was started with these configs on an empty disk.
    pub fn start(configs: &[(&str, &str)]) -> World {
        let sim = Sim::new(1);
        let machine = sim.process("broker");
        let mut world = World { sim, machine, controls: Vec::new(), ended: Rc::default() };
        world.boot(configs);
        world
    }

    /// The same on a disk that was prepared by another process.
    pub fn start_on<Fut>(prepare: impl Fn() -> Fut + Clone + 'static, configs: &[(&str, &str)]) -> World
    where
        Fut: Future<Output = ()> + 'static,
    {
        let sim = Sim::new(1);
        let machine = sim.process("broker");
        let prepared = Rc::new(Cell::new(false));
        let done = prepared.clone();
        machine.start(1, move |_| {
            let (prepare, done) = (prepare(), done.clone());
            async move {
                prepare.await;
                done.set(true);
            }
        });
        let mut world = World { sim, machine, controls: Vec::new(), ended: Rc::default() };
        world.drive(|_| prepared.get());
        world.machine.kill();
        world.boot(configs);
        world
    }

    /// Stops it in good order and starts it with these configs.
    pub fn restart(&mut self, configs: &[(&str, &str)]) {
        self.controls.iter().for_each(ShardControl::stop);
        let cores = self.controls.len();
        self.drive(|world| world.ended.get() == cores);
        self.machine.kill();
        self.boot(configs);
    }

    /// What the HTTP service scrapes.
    pub fn scraper(&self) -> Scraper {
        Scraper::new(self.controls.clone(), None)
    }

    pub fn cores(&self) -> usize {
        self.controls.len()
    }

    fn boot(&mut self, configs: &[(&str, &str)]) {
        let listen = format!("{}:{PORT}", self.machine.ip());
        // Small, so that a test starts at once.
        let small = [
            ("listeners", listen.as_str()),
            ("log.dirs", "/data"),
            ("corelog.cores", "0-1"),
            ("corelog.memory", "128MiB"),
            ("corelog.journal.file.bytes", "4MiB"),
            ("corelog.journal.files", "2"),
            ("offsets.topic.num.partitions", "3"),
        ];
        let given = |name: &str| configs.iter().any(|(given, _)| *given == name);
        let all = small.iter().filter(|(name, _)| !given(name)).chain(configs).copied();
        let machine = Machine {
            cpus: (0..4).collect(),
            cpu_quota: None,
            memory_bytes: 8 << 30,
            host_name: "simulated".into(),
        };
        let settings = Settings { fixed: StaticConfig::of(all).expect("these are configs"), machine };
        let config = settings.broker(&Default::default(), &Default::default()).expect("sound configs");
        let identity = Identity::alone("simulated-cluster-aaaa".into(), config.node_id, Uuid([7; 16]));
        let cores = config.cores.len();
        let (report, reports) = mpsc::channel();
        let (seeds, controls) =
            Seed::for_cores(Arc::new(settings), Arc::new(config), identity, None, move |message| {
                let _ = report.send(message);
            })
            .expect("the listeners' addresses are numbers");
        let seeds: BTreeMap<usize, Seed> = seeds.into_iter().enumerate().collect();
        let seeds = Rc::new(RefCell::new(seeds));
        let ended = Rc::new(Cell::new(0));
        (self.controls, self.ended) = (controls, ended.clone());
        self.machine.start(cores, move |core| {
            let seed = seeds.borrow_mut().remove(&core.core).expect("one seed a core");
            let ended = ended.clone();
            async move {
                // What it failed with was reported.
                let _ = server::run(core, seed).await;
                ended.set(ended.get() + 1);
            }
        });
        self.drive(|_| match reports.try_recv() {
            Ok(Report::Ready { .. }) => true,
            Ok(Report::Failed { shard, what }) => panic!("shard {shard}: {what}"),
            Ok(Report::Starting { .. }) | Err(_) => false,
        });
    }

    fn drive(&self, done: impl Fn(&World) -> bool) {
        let until = self.sim.elapsed() + DONE_MAX;
        while !done(self) {
            assert!(self.sim.elapsed() < until, "not done after {DONE_MAX:?}");
            self.sim.run_steps(50);
        }
    }

    /// What `work` comes to, as a client on another machine.
    pub fn run<T, Fut>(&self, work: impl FnOnce(Client) -> Fut) -> T
    where
        T: 'static,
        Fut: Future<Output = T> + 'static,
    {
        self.sim.block_on(work(Client { address: SocketAddr::new(self.machine.ip(), PORT) }))
    }
}
