//! Makes segments durable: each by itself while they are few, all at once while they are many.
//!
//! A sync of one file writes the file system's pages that describe it and flushes the device. Thousands of thin logs cost
//! thousands of those, for a few pages of records each. One sync of the whole file system writes each of its pages
//! once and flushes once; those who come while it is under way share the next, as appends share a journal group.

use corelog_io::sync::Semaphore;
use corelog_io::{File, Instant, fs, now};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Others write to the file system too, if its sync takes longer than this: one waits for what is theirs.
const LONG: Duration = Duration::from_secs(1);
/// How long segments are then synced one by one.
const APART: Duration = Duration::from_secs(30);

pub struct Syncs {
    /// With so many of a file system under way they are synced together.
    together_from: usize,
    /// By device: topics' directories may lie on other file systems than the data directory.
    systems: RefCell<BTreeMap<u64, Rc<System>>>,
}

/// One file system.
#[derive(Default)]
struct System {
    /// Whether it can be synced as one; `None`: not asked yet.
    as_one: Cell<Option<bool>>,
    under_way: Cell<usize>,
    /// One sync of the file system at a time; those who wait for it, in the order of their wishes.
    turn: Turn,
    wished: Cell<u64>,
    /// Wishes up to this one are covered by the last sync of the file system.
    covered: Cell<u64>,
    /// Not together before this.
    apart_until: Cell<Instant>,
}

impl Syncs {
    pub fn new(together_from: usize) -> Syncs {
        Syncs { together_from, systems: RefCell::default() }
    }

    /// All completed writes to `file` and its length are on stable storage when this returns; so is its name, if it is new
    /// in a directory.
    pub async fn sync(&self, file: &File, new_in: Option<&Path>) -> io::Result<()> {
        let system = Rc::clone(self.systems.borrow_mut().entry(file.device()?).or_default());
        let _counted = Counted::one_more(&system.under_way);
        let many = system.under_way.get() >= self.together_from;
        if many && system.syncs_as_one(file).await && system.sync(file).await {
            return Ok(());
        }
        file.sync_data().await?;
        match new_in {
            Some(dir) => fs::sync_dir(dir).await,
            None => Ok(()),
        }
    }
}

impl System {
    async fn syncs_as_one(&self, file: &File) -> bool {
        if self.as_one.get().is_none() {
            self.as_one.set(Some(file.syncs_as_one().await.unwrap_or(false)));
        }
        self.as_one.get() == Some(true)
    }

    /// Whether the caller's file is durable by a sync of the file system.
    async fn sync(&self, file: &File) -> bool {
        if self.is_apart() {
            return false;
        }
        let wish = self.wished.get() + 1;
        self.wished.set(wish);
        let _turn = self.turn.0.acquire(1).await;
        if self.covered.get() < wish && !self.is_apart() {
            self.sync_together(file).await;
        }
        self.covered.get() >= wish
    }

    fn is_apart(&self) -> bool {
        now() < self.apart_until.get()
    }

    /// Covers every wish that is there when it begins; none if it fails. An error may be of another program's file: those
    /// who wished ask for their own.
    async fn sync_together(&self, file: &File) {
        let covers = self.wished.get();
        let began = now();
        let outcome = file.sync_file_system().await;
        let took = began.elapsed();
        let (apart_s, took_ms) = (APART.as_secs(), took.as_millis());
        match outcome {
            Ok(()) => self.covered.set(covers),
            Err(error) => {
                self.apart_until.set(now() + APART);
                tracing::warn!(%error, "the data directory's file system cannot be synced: for {apart_s} s segments are synced one by one");
            }
        }
        if took > LONG {
            self.apart_until.set(now() + APART);
            tracing::info!(
                took_ms,
                "syncing the data directory's file system takes long, as where other programs write to it: for {apart_s} s \
                 segments are synced one by one; give the data directory a file system of its own"
            );
        }
    }
}

struct Turn(Semaphore);

impl Default for Turn {
    fn default() -> Turn {
        Turn(Semaphore::new(1))
    }
}

struct Counted<'a>(&'a Cell<usize>);

impl Counted<'_> {
    fn one_more(count: &Cell<usize>) -> Counted<'_> {
        count.set(count.get() + 1);
        Counted(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_io::sim::{DiskOp, Sim};
    use corelog_io::{OpenOptions, Queue, spawn};
    use std::path::PathBuf;

    impl Syncs {
        /// The one that the tests' files lie on.
        fn system(&self) -> Rc<System> {
            Rc::clone(&self.systems.borrow()[&0])
        }
    }

    async fn new_file(n: impl std::fmt::Display) -> File {
        let path = PathBuf::from(format!("/d/{n}"));
        let options = OpenOptions { read: true, write: true, create: true, ..OpenOptions::default() };
        let file = File::open(&path, options).await.unwrap();
        file.write_at(0, vec![7; 4096].into(), false).await.unwrap();
        file
    }

    /// Writes `files` files and syncs them, all at the same time; how many succeeded.
    async fn sync_all(syncs: &Rc<Syncs>, files: usize) -> usize {
        let tasks: Vec<_> = (0..files)
            .map(|n| {
                let syncs = Rc::clone(syncs);
                spawn(Queue::Background, async move {
                    let file = new_file(n).await;
                    syncs.sync(&file, Some(Path::new("/d"))).await.is_ok()
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += usize::from(task.await);
        }
        done
    }

    #[test]
    fn a_failure_of_the_file_system_leaves_each_to_itself() {
        let sim = Sim::new(3);
        let disk = sim.tester().disk();
        sim.block_on(async move {
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            let syncs = Rc::new(Syncs::new(1));
            disk.fail_nth(DiskOp::Sync, "/d/", 1, io::ErrorKind::Other);
            let done = sync_all(&syncs, 50).await;
            assert!(done > 0 && done < 50, "those that have lost nothing: {done}");
            assert!(syncs.system().covered.get() < 50 && syncs.system().is_apart());
            disk.fail_nth(DiskOp::Sync, "/d/", 1, io::ErrorKind::Other);
            assert_eq!(sync_all(&syncs, 50).await, 49, "its own failure is a file's own");
        });
    }

    #[test]
    fn what_was_synced_together_survives_a_power_loss() {
        let sim = Sim::new(5);
        let machine = sim.process("machine");
        machine.start(1, |_| async {
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            fs::sync_dir(Path::new("/")).await.unwrap();
            let syncs = Rc::new(Syncs::new(2));
            assert_eq!(sync_all(&syncs, 20).await, 20);
        });
        sim.run_for(Duration::from_secs(10));
        machine.crash();
        let disk = machine.disk();
        let kept = |path: &PathBuf| disk.contents(path).unwrap() == vec![7; 4096];
        assert_eq!(disk.files().iter().filter(|path| kept(path)).count(), 20);
    }

    #[test]
    fn a_sync_of_one_file_system_is_not_taken_for_anothers() {
        let sim = Sim::new(5);
        let machine = sim.process("machine");
        machine.disk().mount(Path::new("/d/elsewhere"));
        machine.start(1, |_| async {
            fs::create_dir_all(Path::new("/d/elsewhere")).await.unwrap();
            fs::sync_dir(Path::new("/d")).await.unwrap();
            let syncs = Rc::new(Syncs::new(2));
            let tasks: Vec<_> = (0..40)
                .map(|n| {
                    let syncs = Rc::clone(&syncs);
                    spawn(Queue::Background, async move {
                        let (name, dir) = if n % 2 == 0 {
                            (n.to_string(), "/d")
                        } else {
                            (format!("elsewhere/{n}"), "/d/elsewhere")
                        };
                        let file = new_file(name).await;
                        syncs.sync(&file, Some(Path::new(dir))).await.unwrap();
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
        });
        sim.run_for(Duration::from_secs(10));
        machine.crash();
        let disk = machine.disk();
        let kept = |path: &PathBuf| disk.contents(path).unwrap() == vec![7; 4096];
        assert_eq!(disk.files().iter().filter(|path| kept(path)).count(), 40);
    }

    #[test]
    fn a_file_system_that_is_slow_to_sync_is_left_alone_for_a_while() {
        let sim = Sim::new(3);
        let disk = sim.tester().disk();
        sim.block_on(async move {
            let syncs = Syncs::new(1);
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            let file = new_file(0).await;
            disk.set_extra_latency(2 * LONG);
            syncs.sync(&file, None).await.unwrap();
            assert_eq!(syncs.system().covered.get(), 1);
            disk.set_extra_latency(Duration::ZERO);
            syncs.sync(&file, None).await.unwrap();
            assert_eq!(syncs.system().covered.get(), 1, "by itself");
            corelog_io::sleep(APART).await;
            syncs.sync(&file, None).await.unwrap();
            assert_eq!(syncs.system().covered.get(), 2);
        });
    }
}
