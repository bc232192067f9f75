//! Links between brokers, in the simulated world and on the real one: what arrives, in which order, of whose life; who is
//! refused; how soon silence is noticed; what strangers can do.
//!
//! **To replay a seed:** a failure prints its seed and test; run that test with `SEED=N`. `SEEDS` says how many each test
//! runs, from `FIRST_SEED` on. `LOG=info` (or `debug`) shows the brokers' log.

mod calls;
mod faults;
mod forming;
mod kinds;
mod memory;
#[cfg(debug_assertions)]
mod planted;
mod real;
mod refusals;
mod replicas;
mod segments;
mod shard;
mod silence;
mod strangers;
mod world;

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is no number: {value}")))
}

/// Runs the seeds that are asked for, or so many.
fn for_seeds(default: u64, run: impl Fn(u64)) {
    if let Ok(level) = std::env::var("LOG") {
        let level: tracing::Level = level.parse().expect("LOG is a level: error, warn, info, debug");
        let _ = tracing_subscriber::fmt().with_max_level(level).without_time().with_test_writer().try_init();
    }
    if let Some(seed) = setting("SEED") {
        return run(seed);
    }
    let first = setting("FIRST_SEED").unwrap_or(1);
    for seed in first..first + setting("SEEDS").unwrap_or(default) {
        let _name = Name(seed);
        run(seed);
    }
}

/// Names the seed whatever fails.
struct Name(u64);

impl Drop for Name {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("FAILED: seed {}", self.0);
        }
    }
}
