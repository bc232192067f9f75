//! The real client in the simulated world: programs with its producers, consumers and group members, each on a machine of its own, work
//! against the production broker. The broker crashes, stalls and starts again; networks are slow and cut; programs are paused, killed
//! and started again, and do what programs do: drop a consumer in the middle of a batch, stop polling, subscribe to something else.
//!
//! What must hold is what the client promises:
//! - what was acknowledged is there, at its offset; what failed as not written is not there;
//! - records of an idempotent producer are there once and in their order, of one with a request in flight in their order;
//! - what a group has committed never goes back, is at least what a member was told, and nothing that nobody worked through;
//! - a partition has one owner among members that nothing keeps from knowing, and polls give an owner's records alone;
//! - every call ends within its limit, deliveries and closing too, by the time in which the program's machine runs;
//! - when nothing strikes any more, every partition has an owner, all is worked through, all producers write;
//! - of producers and consumers that are gone nothing is left.
//!
//! `SEEDS`, `FIRST_SEED`, `SEED` and `LOG` as for the other simulations.

mod apps;
mod cluster;
mod members;
mod plan;
mod planted;
mod producers;
mod story;
mod truth;
mod world;

use crate::{Name, setting};
use plan::Plan;

fn run_seed(name: &str, plan: Plan) -> u64 {
    crate::show_log();
    let _name = Name(format!("real_client::{name}, seed {}", plan.seed));
    story::run(&plan)
}

fn run_seeds(name: &str, seeds: u64, plan: impl Fn(u64) -> Plan) {
    if let Some(seed) = setting("SEED") {
        run_seed(name, plan(seed));
        return;
    }
    let first = setting("FIRST_SEED").unwrap_or(1);
    for seed in first..first + setting("SEEDS").unwrap_or(seeds) {
        run_seed(name, plan(seed));
    }
}

#[test]
fn programs() {
    run_seeds("programs", 20, Plan::from_seed);
}

/// Three brokers, each partition on all of them.
#[test]
fn programs_of_a_cluster() {
    run_seeds("programs_of_a_cluster", 10, Plan::of_cluster);
}

/// The same seed gives the same run, to the byte.
#[test]
fn runs_can_be_repeated() {
    let again = |plan: fn(u64) -> Plan| run_seed("again", plan(7));
    assert_eq!(again(Plan::from_seed), again(Plan::from_seed));
    assert_eq!(again(Plan::of_cluster), again(Plan::of_cluster));
}
