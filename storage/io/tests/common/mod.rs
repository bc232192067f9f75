//! Runs one test in both worlds.

#![allow(dead_code, reason = "each test binary uses its part")]

use corelog_io::sim::Sim;
use corelog_io::{CoreCtx, RunConfig, available_cpus, run_glommio_with};
use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a test gets: a directory of its own, and where it runs.
#[derive(Clone)]
pub struct World {
    pub dir: PathBuf,
    pub ctx: CoreCtx,
    pub simulated: bool,
}

/// Seeds per test in the simulated world; `CORELOG_SIM_SEEDS` asks for more, or none.
fn seeds() -> u64 {
    std::env::var("CORELOG_SIM_SEEDS").map_or(20, |seeds| seeds.parse().expect("a number of seeds"))
}

/// Runs `test` on `cores` cores of the glommio world, and of the simulated one for a number of seeds.
pub fn in_both_worlds<F, Fut>(cores: usize, test: F)
where
    F: Fn(World) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    in_glommio(cores, test.clone());
    for seed in 0..seeds() {
        in_simulation(seed, cores, test.clone());
    }
}

pub fn in_glommio<F, Fut>(cores: usize, test: F)
where
    F: Fn(World) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    in_glommio_with(vec![(); cores], move |world, ()| test(world));
}

/// One core for each of `seeds`, on a disk that has O_DIRECT, which the system's temporary directory may lack.
pub fn in_glommio_with<S, F, Fut>(seeds: Vec<S>, test: F)
where
    S: Send + 'static,
    F: Fn(World, S) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique);
    std::fs::create_dir_all(&dir).unwrap();
    let cpus = available_cpus().unwrap();
    let config = RunConfig::new((0..seeds.len()).map(|core| cpus[core % cpus.len()]).collect());
    let for_test = dir.clone();
    let main = move |ctx, seed| test(World { dir: for_test.clone(), ctx, simulated: false }, seed);
    run_glommio_with(config, seeds, main).unwrap().join().unwrap();
    std::fs::remove_dir_all(dir).unwrap();
}

/// The hash of the run's trace.
pub fn in_simulation<F, Fut>(seed: u64, cores: usize, test: F) -> u64
where
    F: Fn(World) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    in_simulation_with(seed, vec![(); cores], move |world, ()| test(world))
}

/// As [`in_simulation`], with one core for each of `seeds`.
pub fn in_simulation_with<S, F, Fut>(seed: u64, seeds: Vec<S>, test: F) -> u64
where
    S: 'static,
    F: Fn(World, S) -> Fut + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let cores = seeds.len();
    let sim = Sim::new(seed);
    let process = sim.process("under test");
    let finished = Rc::new(Cell::new(0));
    let count = Rc::clone(&finished);
    process.start_with(seeds, move |ctx, seed| {
        let (test, count) = (test.clone(), Rc::clone(&count));
        async move {
            let dir = PathBuf::from("/work");
            corelog_io::fs::create_dir_all(&dir).await.unwrap();
            test(World { dir, ctx, simulated: true }, seed).await;
            count.set(count.get() + 1);
        }
    });
    assert!(sim.run_until_idle(5_000_000), "seed {seed}: the simulation does not end");
    assert_eq!(finished.get(), cores, "seed {seed}: cores that finished");
    sim.trace_hash()
}
