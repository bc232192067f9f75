//! The broker under test: the production server as the one process of a simulated machine.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use corelog_broker::admin::Scraper;
use corelog_broker::cluster::MemberPlan;
use corelog_broker::identity::Identity;
use corelog_broker::server::{self, Report, Seed, ShardControl};
use corelog_io::sim::{Process, Sim};
use corelog_io::{now, sleep};
use corelog_wire::Uuid;

use crate::plan::{PORT, Plan};

/// A start must end, in readiness or in an error, within this much virtual time.
const READY_MAX: Duration = Duration::from_secs(60);
/// A stop in good order must end within this.
const STOP_MAX: Duration = Duration::from_secs(60);
const NOT_READY: &str = "the broker is neither ready nor failed";
const NOT_STOPPED: &str = "the broker has not stopped";

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
        Broker::on(sim.process("broker"))
    }

    pub fn on(machine: Process) -> Broker {
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

    /// Starts the process, of a broker that is alone. The data directory and who it belongs to are the main thread's affair in
    /// production, and given here.
    pub fn start(&mut self, plan: &Plan, cores: usize) {
        let identity = Identity::alone("simulated-cluster-aaaa".into(), 1, Uuid([7; 16]));
        self.start_as(plan, cores, identity, None);
    }

    /// The same of a broker of a cluster, or of one.
    pub fn start_as(&mut self, plan: &Plan, cores: usize, identity: Identity, member: Option<MemberPlan>) {
        let peer = member.as_ref().map(|member| member.peer);
        let (settings, config) = plan.config(self.machine.ip(), cores, identity.node_id, peer);
        self.request_bytes_max = plan.request_bytes_max(&config, cores);
        if let Some(more) = plan.descriptors {
            self.machine.set_descriptor_limit(32 + 60 * cores + more);
        }
        let (report, reports) = mpsc::channel();
        let (seeds, controls) = Seed::for_cores(settings, config, identity, member, move |message| {
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

    /// How the start came out, if it has.
    fn outcome(&self) -> Option<Start> {
        match self.report() {
            Some(Report::Ready { .. }) => Some(Start::Ready),
            Some(Report::Failed { shard, what }) => Some(Start::Failed(format!("shard {shard}: {what}"))),
            Some(Report::Starting { .. }) | None => (!self.machine.is_running()).then_some(Start::Died),
        }
    }

    /// Drives the world until the broker is ready or has failed.
    pub fn await_ready(&self, sim: &Sim) -> Start {
        drive(sim, || self.outcome(), READY_MAX, NOT_READY)
    }

    /// As [`Broker::await_ready`], for a task of the tester.
    pub async fn ready(&self) -> Start {
        look(|| self.outcome(), READY_MAX, NOT_READY).await
    }

    /// Whether every shard is there to be told to stop.
    pub fn is_up(&self) -> bool {
        self.machine.is_running() && self.ended.get() == 0
    }

    fn has_stopped(&self) -> Option<()> {
        (self.ended.get() == self.cores).then_some(())
    }

    /// Stops it in good order, as SIGTERM does.
    pub fn stop(&self, sim: &Sim) {
        self.controls.iter().for_each(ShardControl::stop);
        drive(sim, || self.has_stopped(), STOP_MAX, NOT_STOPPED);
        // The process exits: on a simulated machine tasks outlive their core's main.
        self.machine.kill();
    }

    /// As [`Broker::stop`], for a task of the tester.
    pub async fn stopped(&self) {
        self.controls.iter().for_each(ShardControl::stop);
        look(|| self.has_stopped(), STOP_MAX, NOT_STOPPED).await;
        self.machine.kill();
    }
}

/// Drives the world until something has come about.
fn drive<T>(sim: &Sim, outcome: impl Fn() -> Option<T>, limit: Duration, otherwise: &str) -> T {
    let until = sim.elapsed() + limit;
    loop {
        if let Some(outcome) = outcome() {
            return outcome;
        }
        assert!(sim.elapsed() < until, "{otherwise} after {limit:?}");
        sim.run_steps(50);
    }
}

/// Looks again and again whether something has come about.
async fn look<T>(outcome: impl Fn() -> Option<T>, limit: Duration, otherwise: &str) -> T {
    let until = now() + limit;
    loop {
        if let Some(outcome) = outcome() {
            return outcome;
        }
        assert!(now() < until, "{otherwise} after {limit:?}");
        sleep(Duration::from_millis(1)).await;
    }
}
