//! A broker that was away for so long that nobody keeps the entries which it lacks: it comes back by segments, over links that
//! are slow or cut, and while it or who gives them is killed.
//!
//! What must hold is what `replicas.rs` says.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::Sim;
use corelog_replicas::TransferLimits;

use crate::for_seeds;
use crate::replicas::{BROKERS, Plan, Shared, settle, start, world};
use crate::world::MS;

/// What a world came to.
#[derive(Clone, Copy, Default)]
struct Seen {
    acknowledged: usize,
    segments: u64,
    /// Strikes while a broker took in segments.
    struck: u64,
}

fn plan(sim: &Sim) -> Plan {
    let dice = |n: u64| sim.random_u64() % n;
    let limits = match dice(2) {
        0 => TransferLimits::default(),
        _ => TransferLimits { listed: 1 + dice(3) as usize, producers: 20, ..TransferLimits::default() },
    };
    match dice(5) {
        // Segments of several pieces.
        0 => Plan { segment_bytes: 2 << 20, batch_bytes: 192 << 10, retains: true, limits },
        _ => Plan { segment_bytes: 16 << 10, batch_bytes: 3_000, retains: true, limits },
    }
}

/// Strikes whoever takes in segments, or whoever gives them.
fn strike(sim: &Sim, shared: &Shared, taker: usize) {
    let dice = |n: u64| sim.random_u64() % n;
    let other = (taker + 1 + dice(2) as usize) % BROKERS;
    let [taker, other] = [taker, other].map(|broker| &shared.machines[broker]);
    match dice(5) {
        0 => taker.kill(),
        1 => taker.crash(),
        2 => other.kill(),
        3 => other.crash(),
        _ => sim.partition(taker, other),
    }
}

fn restore(sim: &Sim, shared: &Rc<Shared>) {
    for (broker, machine) in shared.machines.iter().enumerate() {
        shared.machines[..broker].iter().for_each(|other| sim.heal(machine, other));
        if !machine.is_running() {
            start(shared, broker);
        }
    }
}

fn run_seed(seed: u64) -> Seen {
    let sim = Sim::new(seed);
    let dice = |n: u64| sim.random_u64() % n;
    let shared = world(&sim, plan(&sim), 1 + dice(3) as i32);
    if dice(2) == 0 {
        for from in &shared.machines {
            for to in shared.machines.iter().filter(|to| to.ip() != from.ip()) {
                sim.link(from, to).set_bytes_per_second((300 << 10) + dice(3 << 20));
            }
        }
    }
    restore(&sim, &shared);
    sim.run_for(Duration::from_millis(1_000 + dice(1_000)));
    let away = dice(BROKERS as u64) as usize;
    let machine = &shared.machines[away];
    match dice(3) {
        0 => machine.kill(),
        1 => machine.crash(),
        _ => {
            let others = shared.machines.iter().filter(|other| other.ip() != machine.ip());
            others.for_each(|other| sim.partition(machine, other));
        }
    }
    sim.run_for(Duration::from_millis(2_000 + dice(3_000)));
    let (mut strikes, mut struck) = (dice(4), 0);
    restore(&sim, &shared);
    for _ in 0..400 {
        let before = *shared.taken.borrow();
        sim.run_for(MS * (1 + dice(20)) as u32);
        let after = *shared.taken.borrow();
        let taker = (0..BROKERS).find(|broker| after[*broker] > before[*broker]);
        if let Some(taker) = taker.filter(|_| strikes > 0 && dice(2) == 0) {
            strike(&sim, &shared, taker);
            (strikes, struck) = (strikes - 1, struck + 1);
            sim.run_for(Duration::from_millis(200 + dice(3_000)));
            restore(&sim, &shared);
        }
    }
    let acknowledged = settle(&sim, &shared);
    let segments = shared.taken.borrow().iter().sum();
    Seen { acknowledged, segments, struck }
}

#[test]
fn who_was_away_for_long_comes_back_by_segments() {
    let all = Cell::new(Seen::default());
    for_seeds(6, |seed| {
        let (before, seen) = (all.get(), run_seed(seed));
        all.set(Seen {
            acknowledged: before.acknowledged + seen.acknowledged,
            segments: before.segments + seen.segments,
            struck: before.struck + seen.struck,
        });
    });
    let Seen { acknowledged, segments, struck } = all.get();
    println!("{acknowledged} batches acknowledged, {segments} segments taken in, {struck} strikes meanwhile");
    assert!(acknowledged > 50 && segments > 10 && struck > 1);
}
