//! Clusters of three and five brokers that run the shard's driver on slow disks and bad connections, from a seed.
//!
//! `SEED=N` runs that one alone; `SEEDS=FROM..TO` a range.

mod check;
mod disk;
mod links;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use world::{Planted, World};

/// In each run of the tests; more with `SEEDS`.
const SEEDS: std::ops::Range<u64> = 0..100;

fn seeds() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        let seed: u64 = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    let Ok(range) = std::env::var("SEEDS") else { return SEEDS };
    let (from, to) = range.split_once("..").expect("SEEDS is FROM..TO");
    from.parse().expect("SEEDS is FROM..TO")..to.parse().expect("SEEDS is FROM..TO")
}

fn run(seed: u64, planted: Option<Planted>) -> Result<usize, String> {
    let run = || {
        let mut world = World::new(seed, planted);
        world.run().map(|()| world.elections())
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.unwrap_or_else(|| "a panic".to_string()))
    })
}

#[test]
fn nothing_committed_is_lost_and_all_goes_on() {
    let mut elections = 0;
    let mut failed = Vec::new();
    for seed in seeds() {
        match run(seed, None) {
            Ok(count) => elections += count,
            Err(why) => {
                eprintln!("SEED={seed}: {why}");
                failed.push(seed);
            }
        }
    }
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
    // The faults do make leaders change.
    assert!(elections > 0);
}

fn is_found(planted: Planted) {
    let found = (0..200).find_map(|seed| run(seed, Some(planted)).err().map(|why| (seed, why)));
    let (seed, why) = found.expect("none of 200 seeds shows it");
    eprintln!("{planted:?} is found by seed {seed}: {why}");
}

#[test]
fn an_answer_before_it_is_durable_is_found() {
    is_found(Planted::AnswersBeforeDurable);
}

#[test]
fn a_commit_counted_from_one_replica_is_found() {
    is_found(Planted::CommitsFromOne);
}

#[test]
fn a_term_that_is_not_checked_is_found() {
    is_found(Planted::TermsIgnored);
}
