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
mod members;
mod plan;
mod planted;
mod producers;
mod story;
mod truth;
mod world;

use crate::setting;
use plan::Plan;

fn run_seed(seed: u64) -> u64 {
    struct Name(u64);
    impl Drop for Name {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("FAILED: real_client, seed {}", self.0);
            }
        }
    }
    let _name = Name(seed);
    story::run(&Plan::from_seed(seed))
}

#[test]
fn programs() {
    if let Some(seed) = setting("SEED") {
        run_seed(seed);
        return;
    }
    let first = setting("FIRST_SEED").unwrap_or(1);
    for seed in first..first + setting("SEEDS").unwrap_or(20) {
        run_seed(seed);
    }
}

/// The same seed gives the same run, to the byte.
#[test]
fn runs_can_be_repeated() {
    assert_eq!(run_seed(7), run_seed(7));
}
