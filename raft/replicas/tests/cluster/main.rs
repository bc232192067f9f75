//! Three to five processes, each with one core, their logs on simulated disks, and the groups of these driven by the code
//! that drives them in a broker. They crash, lose power, stand still, lose each other and their disks, at any moment, while
//! logs lose their beginnings, replicas come and go, and idempotent producers send what is not acknowledged again.
//!
//! What must hold: what was acknowledged is there, in its place, on each replica; nothing is there twice, nor out of order;
//! a term has one leader, who knows all that was acknowledged before it serves; memory is bounded; in the end all replicas
//! are alike, to the byte.
//!
//! `CORELOG_SIM_SEEDS` says how many seeds run (from `CORELOG_SIM_FIRST_SEED`). A failure names its seed.

mod check;
mod clients;
mod network;
mod node;
#[cfg(debug_assertions)]
mod planted;
mod shared;
#[path = "../../../../storage/tests/world/mod.rs"]
mod world;

use corelog_io::sim::{DiskOp, Process, Sim};
use shared::{Plan, Shared};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// What a seed's run did.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    batches: u64,
    terms: u64,
    segments: u64,
    changes: u64,
    retries: u64,
}

impl std::ops::AddAssign for Ran {
    fn add_assign(&mut self, other: Ran) {
        self.batches += other.batches;
        self.terms += other.terms;
        self.segments += other.segments;
        self.changes += other.changes;
        self.retries += other.retries;
    }
}

struct Name(u64);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: seed {}", self.0);
        }
    }
}

struct World {
    sim: Sim,
    machines: Vec<Process>,
    shared: Rc<Shared>,
    /// Of the kinds of trouble that not all seeds have, the one that this has.
    trouble: Trouble,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    None,
    Pauses,
    Clocks,
    FullDisks,
    FailedWrites,
    LostDisks,
}

impl World {
    fn new(seed: u64) -> World {
        let sim = Sim::new(seed);
        let dice = |n: u64| sim.random_u64() % n.max(1);
        let nodes = 3 + dice(3) as usize;
        let kinds = [
            Trouble::None,
            Trouble::Pauses,
            Trouble::Clocks,
            Trouble::FullDisks,
            Trouble::FailedWrites,
            Trouble::LostDisks,
        ];
        let trouble = kinds[dice(6) as usize];
        let plan = Plan {
            nodes,
            founders: if nodes == 5 && dice(2) == 0 { 5 } else { 3 },
            groups: 1 + dice(3) as u8,
            retains: dice(4) > 0,
            changes: dice(2) == 0 || trouble == Trouble::LostDisks,
        };
        let machines = (0..nodes).map(|node| sim.process(&format!("node{node}"))).collect();
        let shared = Shared::new(plan);
        shared.fails.set(matches!(trouble, Trouble::FullDisks | Trouble::FailedWrites));
        World { sim, machines, shared, trouble }
    }

    fn dice(&self, n: u64) -> u64 {
        self.sim.random_u64() % n.max(1)
    }

    fn start(&self, node: usize) {
        let shared = self.shared.clone();
        soothe(&self.machines[node]);
        shared.wires.restarted(node);
        self.machines[node].start(1, move |_| node::run(shared.clone(), node));
    }

    fn strike(&self) {
        let (nodes, wires) = (self.machines.len() as u64, &self.shared.wires);
        let node = self.dice(nodes) as usize;
        let struck = &self.machines[node];
        match self.dice(7) {
            0 if struck.is_running() => struck.kill(),
            1 if struck.is_running() => struck.crash(),
            2 => wires.cut(node, self.dice(nodes) as usize),
            3 => wires.isolate(node),
            4 => self.trouble(node),
            5 => {
                // The power fails before what is written now is on the disk, or not at all.
                struck.disk().stall(Duration::from_millis(self.dice(1_500)));
                if struck.is_running() && self.dice(2) == 0 {
                    struck.crash_after(self.dice(20_000));
                }
            }
            _ => wires.heal(),
        }
    }

    fn trouble(&self, node: usize) {
        let struck = &self.machines[node];
        match self.trouble {
            Trouble::None => {}
            Trouble::Pauses => struck.pause(),
            Trouble::Clocks => {
                // Leases hold for clocks that differ by a tenth.
                let drift = self.dice(100_000) as i32 - 50_000;
                struck.set_clock(self.dice(7_200_000) as i64 - 3_600_000, drift);
            }
            Trouble::FullDisks => {
                let disk = struck.disk();
                let len = |path: &PathBuf| disk.contents(path).map_or(0, |bytes| bytes.len() as u64);
                let used: u64 = disk.files().iter().map(len).sum();
                disk.set_capacity(used + self.dice(512 << 10));
            }
            Trouble::FailedWrites => {
                let op = if self.dice(2) == 0 { DiskOp::Write } else { DiskOp::Sync };
                struck.disk().fail_nth(op, "", self.dice(50), std::io::ErrorKind::Other);
            }
            Trouble::LostDisks if self.shared.may_wipe(node) => {
                if struck.is_running() {
                    struck.crash();
                }
                struck.wipe();
                self.shared.groups().for_each(|group| self.shared.replace(node, group));
            }
            Trouble::LostDisks => {}
        }
    }

    /// Nothing is broken any more.
    fn heal(&self) {
        self.shared.wires.heal();
        for (node, machine) in self.machines.iter().enumerate() {
            machine.resume();
            if self.trouble == Trouble::FailedWrites && machine.is_running() {
                machine.kill();
            }
            soothe(machine);
            if !machine.is_running() {
                self.start(node);
            }
        }
    }

    /// Time passes; who loses its power now, as was said before, starts again.
    fn settle(&self, seconds: u64) {
        for _ in 0..seconds {
            self.sim.run_for(Duration::from_secs(1));
            for (node, _) in self.machines.iter().enumerate().filter(|(_, machine)| !machine.is_running()) {
                self.start(node);
            }
        }
    }
}

/// Its disk has room, and fails at nothing.
fn soothe(machine: &Process) {
    machine.disk().clear_faults();
    machine.disk().set_capacity(1 << 40);
}

fn run_seed(seed: u64) -> Ran {
    let _name = Name(seed);
    let world = World::new(seed);
    let (sim, shared) = (&world.sim, &world.shared);
    let clients = sim.process("clients");
    let of = shared.clone();
    clients.start(1, move |_| clients::start(of.clone()));
    for round in 0..4 + world.dice(6) {
        for (node, machine) in world.machines.iter().enumerate() {
            if !machine.is_running() && (round == 0 || world.dice(3) > 0) {
                world.start(node);
            }
            if world.dice(2) == 0 {
                machine.resume();
                soothe(machine);
            }
        }
        sim.run_for(Duration::from_millis(200 + world.dice(3_000)));
        world.strike();
    }
    world.heal();
    world.settle(8);
    shared.settling.set(true);
    // Who produces sees it.
    world.settle(2);
    let mut waited = 0;
    while !shared.are_alike() {
        assert!(waited < 60, "replicas don't become alike:\n{}", shared.describe());
        world.settle(1);
        waited += 1;
    }
    let held = shared.held.borrow().clone();
    assert!(held.values().all(|held| *held == 0), "nothing is under way, and still counts: {held:?}");
    check::at_the_end(sim, &world.machines, shared);
    Ran {
        batches: shared.acknowledged.borrow().values().map(|all| all.len() as u64).sum(),
        terms: shared.leaders.borrow().len() as u64,
        segments: shared.segments_taken.get(),
        changes: shared.changed.get(),
        retries: shared.retried.get(),
    }
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().expect("it is a number"))
}

#[test]
fn what_is_acknowledged_is_there() {
    let first = setting("CORELOG_SIM_FIRST_SEED", 1);
    let seeds = setting("CORELOG_SIM_SEEDS", 20);
    let mut ran = Ran::default();
    (first..first + seeds).for_each(|seed| ran += run_seed(seed));
    println!("acknowledged, changed, taken in: {ran:?}");
    let enough =
        ran.batches > 1_000 && ran.terms > 20 && ran.segments > 20 && ran.changes > 20 && ran.retries > 100;
    assert!(seeds < 10 || enough, "too little happened: {ran:?}");
}
