//! One pinned thread with an executor per core.

use super::blocking::BlockingThread;
use super::core::{Core, tracked};
use super::roster::{Member, Roster};
use crate::world::{self, World};
use crate::{CoreCtx, RunConfig};
use core_affinity::CoreId;
use glommio::{LocalExecutorBuilder, Placement, PoolPlacement};
use std::cell::Cell;
use std::future::Future;
use std::io::{self, Write};
use std::sync::{Once, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How long glommio runs tasks until it goes back to its own loop, to look at rings that carry nothing here: never, as
/// far as that can be had. For in that loop glommio 0.9.0 sleeps after a turn that ran nothing, and takes a turn that was
/// preempted before its first task for one. With 100 ms, a thread that lost its CPU there for so long (a busy host, a
/// virtual machine that was stopped) slept for ever, with tasks that could run. The core itself sleeps in its own ring.
const PREEMPT: Duration = Duration::from_secs(86_400 * 365);
/// Entries of each of glommio's own rings.
const EXECUTOR_RING_DEPTH: usize = 128;

pub(crate) fn start<S, F, Fut, T>(
    config: &RunConfig,
    seeds: Vec<S>,
    main: F,
) -> io::Result<Vec<JoinHandle<io::Result<T>>>>
where
    S: Send + 'static,
    F: Fn(CoreCtx, S) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    if config.cores.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no CPU to run on"));
    }
    make_panics_fatal();
    let cores = config.cores.len();
    let (ready, readiness) = mpsc::channel();
    let mut threads = Vec::with_capacity(cores);
    let mut starts = Vec::with_capacity(cores);
    for ((core, &cpu), seed) in config.cores.iter().enumerate().zip(seeds) {
        let (start, started) = mpsc::channel::<()>();
        let (ready, main, config) = (ready.clone(), main.clone(), config.clone());
        let thread = thread::Builder::new().name(format!("core-{core}")).spawn(move || {
            mark_core_thread();
            // The threads beside the core are made unpinned, the rest on the core's own CPU.
            let beside = BlockingThread::start(format!("blocking-{core}"))
                .and_then(|blocking| Ok([blocking, BlockingThread::start(format!("computing-{core}"))?]));
            let roster = Roster::new();
            let executor = LocalExecutorBuilder::new(Placement::Unbound)
                .io_memory(config.io_memory)
                .ring_depth(EXECUTOR_RING_DEPTH)
                .preempt_timer(PREEMPT)
                .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
                .make()
                .map_err(io::Error::from)
                .and_then(|executor| pin_to(cpu).map(|()| executor))
                .and_then(|executor| Ok((executor, beside?, roster?)));
            let (executor, beside, roster) = match executor {
                Ok(made) => made,
                Err(error) => {
                    let _ = ready.send(Err(io::Error::new(
                        error.kind(),
                        format!("core {core} on CPU {cpu}: {error}"),
                    )));
                    return Err(error);
                }
            };
            let (member, _main_is_not_cancelled) = Member::new(&roster);
            let run = async move {
                let this = match Core::start(core, cores, config.ring_depth, roster, beside) {
                    Ok(this) => this,
                    Err(error) => {
                        let _ = ready
                            .send(Err(io::Error::new(error.kind(), format!("ring of core {core}: {error}"))));
                        return Err(error);
                    }
                };
                let _ = ready.send(Ok(()));
                // All cores start, or none does.
                if started.recv().is_err() {
                    this.end();
                    return Err(io::ErrorKind::Interrupted.into());
                }
                world::settle(World::Real(this.clone()));
                let value = this.spawn(crate::Queue::Control, main(CoreCtx { core, cores }, seed)).await;
                this.ring.shut_down().await;
                // Behind all that it was given before.
                this.blocking.run(|| ()).await;
                this.end();
                Ok(value)
            };
            let outcome = executor.run(tracked(member, run, || ()));
            // Other tasks are dropped with the executor, and may still ask where they are.
            drop(executor);
            outcome
        })?;
        threads.push(thread);
        starts.push(start);
    }
    for _ in 0..cores {
        readiness.recv().expect("this function holds a sender")?;
    }
    for start in starts {
        let _ = start.send(());
    }
    Ok(threads)
}

fn pin_to(cpu: usize) -> io::Result<()> {
    if available_cpus()?.contains(&cpu) && core_affinity::set_for_current(CoreId { id: cpu }) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "cannot be pinned to it: it is not among the CPUs {:?} that this process may use",
            available_cpus()?
        ),
    ))
}

thread_local! {
    static ON_CORE: Cell<bool> = const { Cell::new(false) };
}

/// From here on a panic on the calling thread ends the process.
pub(crate) fn mark_core_thread() {
    ON_CORE.with(|on_core| on_core.set(true));
}

/// A core that lost a task is in no known state, and its peers would wait for it for ever. So a panic on any of them
/// ends the process, with its reason as the last line.
fn make_panics_fatal() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if ON_CORE.with(Cell::get) {
                let thread = thread::current();
                let name = thread.name().unwrap_or("blocking thread");
                // Straight to the descriptor: print macros may be captured, and the process is about to end.
                let _ = writeln!(io::stderr(), "corelog: fatal: {name}: {panic}; the process stops");
                std::process::abort();
            }
        }));
    });
}

pub(crate) fn available_cpus() -> io::Result<Vec<usize>> {
    let ids = core_affinity::get_core_ids().ok_or_else(io::Error::last_os_error)?;
    Ok(ids.into_iter().map(|core| core.id).collect())
}

#[cfg(test)]
mod tests {
    use super::super::core::current;
    use super::*;
    use std::rc::Rc;

    /// A timer of glommio's would fire in its loop.
    #[test]
    fn a_core_does_not_go_back_to_glommios_own_loop() {
        let config = RunConfig::new(vec![available_cpus().expect("there are CPUs")[0]]);
        let main = |_, ()| async {
            let fired = Rc::new(Cell::new(false));
            let flag = Rc::clone(&fired);
            current().spawn_untracked(async move {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                flag.set(true);
            });
            let began = crate::now();
            while began.elapsed() < Duration::from_millis(300) {
                crate::yield_now().await;
            }
            crate::sleep(Duration::from_millis(300)).await;
            fired.get()
        };
        for core in start(&config, vec![()], main).expect("the core starts") {
            let fired = core.join().expect("the core ends").expect("it has run");
            assert!(!fired);
        }
    }
}
