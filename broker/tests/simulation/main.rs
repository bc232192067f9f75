//! The simulation of brokers: production shards, mailboxes, listeners, connections, controller, groups and storage run as
//! the process of a simulated machine, from one seed; clients on other machines speak Kafka's protocol to it over the
//! simulated network. Power fails, the process is killed or stopped, it starts again with another number of cores;
//! connections break, links are cut, slow or lossy, in one direction or both; the disk is slow, full, failing, gone or
//! damaged; clocks jump and drift. All may stand still for longer than anybody waits; clients leave, do not read, send half
//! a request; topics come and go, grow and change.
//!
//! One broker and its data have a story ([`story`]): what befalls them is in [`strikes`] and [`damage`], who works with them
//! in [`clients`], what must hold in the end in [`judge`]. In [`cluster`] several stories are told in one world.
//!
//! What must hold is what a user relies on:
//! - every acknowledged batch is there, at its offset, once, byte for byte, in its producer's order;
//! - what was acknowledged before a batch was sent has lower offsets than that batch;
//! - what a consumer was shown stays as it was shown, and is never above the high watermark, which never falls;
//! - offsets have no gaps; retries of idempotent producers change nothing;
//! - a waiting fetch is woken by what it waits for;
//! - committed offsets are those that were committed last, producer ids are given once, topics keep their ids;
//! - in one generation of a group each partition has one owner, and a generation that is over commits nothing;
//! - with a damaged disk: an error, or the truth; one damage costs one log at the most, and nothing for ever;
//! - what is served of topics is what the controller's log says; nothing of a topic is ever another's of its name;
//! - when what struck the broker is over, every client is answered, each partition takes batches, and a new client finds all
//!   in order ([`probe`]);
//! - of clients that left, no descriptor, memory or queued request stays; starts leave the files that they find;
//! - no task holds its core for long.
//!
//! **To replay a seed:** a failure prints `FAILED: seed N, Faults::F`. Paste both into [`one_seed`] (a seed of several
//! brokers: into [`cluster::one_world`]), or run the test that failed with `SEED=N`. What happened to the broker is printed
//! with its virtual time; `LOG=info` (or `debug`) shows the broker's log between. The same seed does the same on every
//! machine, until the code changes. `SEEDS` says how many seeds each test runs, from `FIRST_SEED` on (default 1).
//!
//! **To add a fault:** give [`Faults`] a variant that says what happens; choose in [`Plan::from_seed`] what it needs of
//! settings and clients; do it in [`story::Story::strike`], with draws from the story's dice alone, and undo it there, or
//! answer [`strikes::After::Restart`]; give it a test below and a place in [`cluster`]. An error that it explains is allowed
//! by `storage_may_fail`; all else must hold as ever. Then plant a bug that it should find ([`corelog_io::planted`]).

mod broker;
mod changes;
mod clients;
mod cluster;
mod committer;
mod connection;
mod consumer;
mod crowds;
mod damage;
mod earlier;
mod expiry;
mod groups;
mod guests;
mod judge;
mod log_lines;
mod member;
mod metrics;
mod passing;
mod plan;
#[cfg(debug_assertions)]
mod planted;
mod probe;
mod producer;
mod pulse;
mod real_client;
mod sessions;
mod shared;
mod stops;
mod story;
mod strikes;
mod tailer;
mod truth;

use plan::{Faults, Plan};

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// The seeds that are asked for, or so many.
fn for_seeds(default: u64, run: impl Fn(u64)) {
    if let Some(seed) = setting("SEED") {
        return run(seed);
    }
    let first = setting("FIRST_SEED").unwrap_or(1);
    (first..first + setting("SEEDS").unwrap_or(default)).for_each(run);
}

fn run_seeds(default: u64, faults: Faults) {
    for_seeds(default, |seed| {
        run_seed(seed, faults);
    });
}

/// As [`run_seeds`], of several brokers each.
fn run_worlds(default: u64) {
    for_seeds(default, |seed| {
        let _name = Name(format!("seed {seed} of several brokers; paste it into cluster::one_world"));
        show_log();
        let hash = cluster::run(seed);
        eprintln!("world {seed} ends: {hash:016x}");
    });
}

/// Names the seed whatever fails.
struct Name(String);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: {}", self.0);
        }
    }
}

fn show_log() {
    if let Ok(level) = std::env::var("LOG") {
        let level: tracing::Level = level.parse().expect("LOG is a level: error, warn, info, debug");
        let _ = tracing_subscriber::fmt().with_max_level(level).without_time().with_test_writer().try_init();
    }
}

fn run_seed(seed: u64, faults: Faults) -> u64 {
    let _name = Name(format!("seed {seed}, Faults::{faults:?}; paste both into one_seed"));
    show_log();
    story::run(&Plan::from_seed(seed, faults))
}

#[test]
fn crashes() {
    run_seeds(30, Faults::Crashes);
}

#[test]
fn network() {
    run_seeds(20, Faults::Network);
}

#[test]
fn full_disk() {
    run_seeds(10, Faults::FullDisk);
}

#[test]
fn io_errors() {
    run_seeds(10, Faults::IoErrors);
}

#[test]
fn stalls() {
    run_seeds(8, Faults::Stalls);
}

#[test]
fn links() {
    run_seeds(6, Faults::Links);
}

#[test]
fn clocks() {
    run_seeds(6, Faults::Clocks);
}

#[test]
fn dying_disk() {
    run_seeds(6, Faults::DyingDisk);
}

#[test]
fn lasting_errors() {
    run_seeds(6, Faults::LastingErrors);
}

#[test]
fn descriptors() {
    run_seeds(4, Faults::Descriptors);
}

#[test]
fn one_damage() {
    run_seeds(6, Faults::OneDamage);
}

#[test]
fn bit_flips() {
    run_seeds(20, Faults::BitFlips);
}

/// Paste a failing seed here.
#[test]
fn one_seed() {
    run_seed(1, Faults::Crashes);
}

/// Runs that found something, once it was mended. Later changes of the code move what a seed does: these are worth
/// their time, and no proof.
#[test]
fn found_before() {
    for (seed, faults) in [
        // A later request's batch came between those of one that waited for the journal.
        (7, Faults::Network),
        // A log found damaged was served up to the damage.
        (7, Faults::BitFlips),
        // A leader epoch with a flipped bit was served: no checksum covers it.
        (6, Faults::BitFlips),
        // A connection missed that the broker stops.
        (95, Faults::Crashes),
        // The power failed while what had been put aside of a log was removed, and what was left of it was missed. Who
        // was at the end of a log that was refused was not told.
        (2, Faults::LastingErrors),
        // A damaged checkpoint whose copy was older, since the process was killed between both, cost all logs.
        (11, Faults::OneDamage),
    ] {
        run_seed(seed, faults);
    }
}

/// The same seed gives the same run, to the byte.
#[test]
fn runs_can_be_repeated() {
    for faults in [Faults::Crashes, Faults::Network] {
        assert_eq!(run_seed(7, faults), run_seed(7, faults));
    }
}
