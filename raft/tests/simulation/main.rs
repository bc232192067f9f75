//! Clusters of three and five brokers that run the shard's driver on slow disks and bad connections, from a seed.
//!
//! `SEED=N` runs that one alone, with `TRACE=1` printing all that its shards were told to do; `SEEDS=FROM..TO` a range.

mod check;
mod disk;
mod links;
mod plan;
mod planted;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use planted::Planted;
use world::World;

/// In each run of the tests; more with `SEEDS`.
const SEEDS: std::ops::Range<u64> = 0..100;
/// A planted fault shows in one of so many.
const PLANTED_SEEDS: std::ops::Range<u64> = 0..200;

fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("SEED") {
        let seed: u64 = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    let Ok(range) = std::env::var("SEEDS") else { return usual };
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
    for seed in seeds(SEEDS) {
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
    let found = seeds(PLANTED_SEEDS).find_map(|seed| run(seed, Some(planted)).err().map(|why| (seed, why)));
    let (seed, why) = found.expect("none of the seeds shows it");
    eprintln!("{planted:?} is found by seed {seed}: {why}");
}

#[test]
fn an_answer_before_it_is_durable_is_found() {
    is_found(Planted::AnswersBeforeDurable);
}

#[test]
fn a_vote_that_a_crash_forgets_is_found() {
    is_found(Planted::VotesForgotten);
}

#[test]
fn a_commit_counted_from_one_replica_is_found() {
    is_found(Planted::CommitsFromOne);
}

#[test]
fn a_term_that_is_not_checked_is_found() {
    is_found(Planted::TermsIgnored);
}

#[test]
fn a_read_without_a_lease_is_found() {
    is_found(Planted::LeasesIgnored);
}

#[test]
fn a_rest_that_is_trusted_in_doubt_is_found() {
    is_found(Planted::LapsesIgnored);
}
