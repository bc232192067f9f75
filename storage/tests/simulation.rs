//! THE test: a random workload on random settings in a world that crashes, run from one seed.
//!
//! Producers append to many logs (plain and idempotent, internal batches between), readers read, records are deleted,
//! retention and rolls go on; then the power fails or the process is killed, at any moment, and it starts again, with
//! as many shards as it likes. What must hold is what a user relies on:
//! - every acknowledged batch is there, at its offset, once, byte for byte;
//! - what a reader was shown once stays as it was shown;
//! - what was refused, or was gone at a restart, never appears;
//! - offsets have no gaps, a producer's batches keep their order, retries of idempotent producers change nothing;
//! - with a damaged disk: an error, or the truth.
//!
//! `CORELOG_SIM_SEEDS` says how many seeds each test runs (from `CORELOG_SIM_FIRST_SEED`, default 1). A failure names
//! its seed: paste it into [`one_seed`].

mod model;
mod world;

#[cfg(debug_assertions)]
use corelog_io::planted::{Fault, Planting};
use model::plan::{Faults, Plan};
#[cfg(debug_assertions)]
use std::panic::AssertUnwindSafe;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} is no number: {v}")))
}

fn run_seeds(default: u64, faults: Faults) {
    let first = setting("CORELOG_SIM_FIRST_SEED", 1);
    for seed in first..first + setting("CORELOG_SIM_SEEDS", default) {
        run_seed(seed, faults);
    }
}

fn run_seed(seed: u64, faults: Faults) {
    // Names the seed whatever fails.
    struct Name(u64, Faults);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("FAILED: seed {}, {:?}; paste both into one_seed", self.0, self.1);
            }
        }
    }
    let _name = Name(seed, faults);
    model::run(&Plan::from_seed(seed, faults));
}

#[test]
fn crashes() {
    run_seeds(800, Faults::Crashes);
}

#[test]
fn kills() {
    run_seeds(1000, Faults::Kills);
}

#[test]
fn full_disk() {
    run_seeds(120, Faults::FullDisk);
}

#[test]
fn io_errors() {
    run_seeds(300, Faults::IoErrors);
}

#[test]
fn bit_flips() {
    run_seeds(500, Faults::BitFlips);
}

/// Seeds that found something once.
#[test]
fn seeds_that_failed() {
    for (seed, faults) in [
        (41, Faults::Crashes),
        (299, Faults::Crashes),
        (897, Faults::Crashes),
        (21, Faults::IoErrors),
        (16, Faults::FullDisk),
        (39, Faults::FullDisk),
        (18, Faults::BitFlips),
        // A segment's greatest timestamp was cut off, and nothing else of it counted.
        (204, Faults::Crashes),
        (106, Faults::Kills),
        // A group whose sync had failed was read, synced by the next start to no effect, and served.
        (53, Faults::IoErrors),
    ] {
        run_seed(seed, faults);
    }
}

/// The simulation would find them.
#[cfg(debug_assertions)]
#[test]
fn planted_faults_are_found() {
    for fault in [Fault::AllFoundIsCommitted, Fault::CutForgetsNoProducers, Fault::ProducersSettleWhenDurable]
    {
        let _planting = Planting::of(fault);
        let fails = |seed| {
            let plan = Plan::from_seed(seed, Faults::Crashes);
            std::panic::catch_unwind(AssertUnwindSafe(|| model::run(&plan))).is_err()
        };
        assert!((1..200).any(fails), "{fault:?} goes unnoticed");
    }
}

/// Paste a failing seed here.
#[test]
fn one_seed() {
    run_seed(1, Faults::Crashes);
}

/// The same seed gives the same run, to the byte.
#[test]
fn runs_can_be_repeated() {
    let plan = Plan::from_seed(7, Faults::Crashes);
    assert_eq!(model::run(&plan), model::run(&plan));
}
