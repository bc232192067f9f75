//! The broker under test: the production server as the one process of a simulated machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use corelog_broker::admin::Scraper;
use corelog_broker::identity::Identity;
use corelog_broker::server::{self, Report, Seed, ShardControl};
use corelog_io::sim::{Process, Sim};

use crate::plan::{PORT, Plan};

/// A start must end, in readiness or in an error, within this much virtual time.
const READY_MAX: Duration = Duration::from_secs(60);
/// A stop in good order must end within this.
const STOP_MAX: Duration = Duration::from_secs(60);

pub struct Broker {
    pub machine: Process,
    pub controls: Vec<ShardControl>,
    reports: Option<mpsc::Receiver<Report>>,
    /// Cores whose main has ended.
    ended: Rc<Cell<usize>>,
    pub cores: usize,
    pub request_bytes_max: usize,
}

/// How a start came out.
#[derive(Debug, PartialEq, Eq)]
pub enum Start {
    Ready,
    /// A shard refused to start, or ended, for this reason.
    Failed(String),
    /// The machine went down before.
    Died,
}

impl Broker {
    pub fn new(sim: &Sim) -> Broker {
        let machine = sim.process("broker");
        Broker {
            machine,
            controls: Vec::new(),
            reports: None,
            ended: Rc::default(),
            cores: 0,
            request_bytes_max: 0,
        }
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.machine.ip(), PORT)
    }

    /// Starts the process. The data directory and who it belongs to are the main thread's affair in production, and
    /// given here.
    pub fn start(&mut self, plan: &Plan, cores: usize) {
        let (settings, config) = plan.config(self.machine.ip(), cores);
        self.request_bytes_max = plan.request_bytes_max(&config, cores);
        if let Some(more) = plan.descriptors {
            self.machine.set_descriptor_limit(32 + 60 * cores + more);
        }
        let identity = Identity { cluster_id: "simulated-cluster-aaaa".into(), node_id: config.node_id };
        let (report, reports) = mpsc::channel();
        let (seeds, controls) = Seed::for_cores(settings, config, identity, move |message| {
            let _ = report.send(message);
        })
        .expect("the listeners' addresses are numbers");
        let seeds: BTreeMap<usize, Seed> = seeds.into_iter().enumerate().collect();
        let seeds = Rc::new(RefCell::new(seeds));
        let ended = Rc::new(Cell::new(0));
        (self.controls, self.reports, self.ended, self.cores) =
            (controls, Some(reports), ended.clone(), cores);
        self.machine.start(cores, move |core| {
            let seed = seeds.borrow_mut().remove(&core.core).expect("one seed a core");
            let ended = ended.clone();
            async move {
                // What it failed with was reported.
                let _ = server::run(core, seed).await;
                ended.set(ended.get() + 1);
            }
        });
    }

    /// What the HTTP service scrapes.
    pub fn scraper(&self) -> Scraper {
        Scraper::new(self.controls.clone(), None)
    }

    /// What a shard has reported since it was last asked.
    pub fn report(&self) -> Option<Report> {
        let reports = self.reports.as_ref()?;
        reports.try_iter().find(|report| !matches!(report, Report::Starting { .. }))
    }

    /// Drives the world until the broker is ready or has failed.
    pub fn await_ready(&self, sim: &Sim) -> Start {
        let until = sim.elapsed() + READY_MAX;
        loop {
            match self.report() {
                Some(Report::Ready { .. }) => return Start::Ready,
                Some(Report::Failed { shard, what }) => {
                    return Start::Failed(format!("shard {shard}: {what}"));
                }
                Some(Report::Starting { .. }) | None => {}
            }
            if !self.machine.is_running() {
                return Start::Died;
            }
            assert!(sim.elapsed() < until, "the broker is neither ready nor failed after {READY_MAX:?}");
            sim.run_steps(50);
        }
    }

    /// Whether every shard is there to be told to stop.
    pub fn is_up(&self) -> bool {
        self.machine.is_running() && self.ended.get() == 0
    }

    /// Stops it in good order, as SIGTERM does.
    pub fn stop(&self, sim: &Sim) {
        self.controls.iter().for_each(ShardControl::stop);
        let until = sim.elapsed() + STOP_MAX;
        while self.ended.get() < self.cores {
            assert!(sim.elapsed() < until, "the broker has not stopped after {STOP_MAX:?}");
            sim.run_steps(50);
        }
        // The process exits: on a simulated machine tasks outlive their core's main.
        self.machine.kill();
    }
}
