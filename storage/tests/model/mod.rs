//! The simulation: the model of what must hold, and the run of one plan.

pub mod plan;
mod quorum;
mod truth;
mod work;

use crate::world::{log_id, open_all};
use corelog_io::Dice;
use corelog_io::sim::{Process, Sim};
use corelog_storage::{CommitMode, LogConfig, LogId, RaftIndex, ShardStorage, StorageError};
use plan::{Commits, Faults, Plan};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use truth::Truth;

/// What a process of the simulation shares with the test around it.
pub struct Shared {
    pub plan: Plan,
    pub truth: RefCell<Truth>,
    /// Shards of this incarnation.
    pub shards: Cell<usize>,
    pub incarnation: Cell<u32>,
    pub phase: Cell<Phase>,
    /// The storage refused to start, or a log, for damage it found.
    pub damage_found: Cell<bool>,
    pub last: Cell<bool>,
    /// End this incarnation quietly: what is under way is finished, nothing begins.
    pub stop: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Working,
    /// The process has done all it was to do.
    Done,
}

/// Runs a plan; a hash of all that happened.
pub fn run(plan: &Plan) -> u64 {
    let sim = Sim::new(plan.seed);
    let machine = sim.process("broker");
    if plan.faults == Faults::Crashes {
        machine.disk().set_torn_unreadable(8);
    }
    let shared = Rc::new(Shared {
        plan: plan.clone(),
        truth: RefCell::new(Truth::new(plan)),
        shards: Cell::new(1),
        incarnation: Cell::new(0),
        phase: Cell::new(Phase::Starting),
        damage_found: Cell::new(false),
        last: Cell::new(false),
        stop: Cell::new(false),
    });
    let mut dice = Dice(plan.seed);
    for incarnation in 0..=plan.incarnations {
        shared.incarnation.set(incarnation);
        shared.last.set(incarnation == plan.incarnations);
        shared.shards.set(1 + dice.below(4) as usize);
        shared.phase.set(Phase::Starting);
        shared.stop.set(false);
        incarnate(&sim, &machine, &shared, &mut dice);
        if plan.faults != Faults::Kills {
            // What a killed process had under way in the kernel is done before another can start.
            sim.run_for(Duration::from_millis(50));
        }
        if shared.damage_found.get() {
            assert_eq!(plan.faults, Faults::BitFlips, "damage was reported on a sound disk");
            break;
        }
    }
    sim.trace_hash()
}

/// One life of the process, from start to its end, whichever it is.
fn incarnate(sim: &Sim, machine: &Process, shared: &Rc<Shared>, dice: &mut Dice) {
    let state = Rc::clone(shared);
    machine.start(1, move |_| live(Rc::clone(&state)));
    let plan = &shared.plan;
    if shared.last.get() {
        run_until(sim, shared, |s| s.phase.get() == Phase::Done);
        machine.kill();
        return;
    }
    // Some crash while they start.
    let steps = match dice.below(4) {
        0 => dice.below(300),
        1 => dice.below(2_000),
        2 => dice.below(6_000),
        _ => dice.below(12_000),
    };
    match plan.faults {
        Faults::Kills => {
            sim.run_steps(steps / 4);
            if dice.below(3) > 0 { machine.kill() } else { machine.crash() }
        }
        Faults::BitFlips => {
            sim.run_steps(steps);
            // Only what is proved durable must be found damaged: let the journal come to rest.
            shared.stop.set(true);
            run_until(sim, shared, |s| s.phase.get() == Phase::Done);
            machine.kill();
            if shared.incarnation.get() > 0 && !shared.damage_found.get() {
                flip_bits(machine, dice);
            }
        }
        _ => {
            if plan.faults == Faults::FullDisk {
                squeeze(sim, machine, dice, steps);
            }
            if plan.faults == Faults::IoErrors {
                strike(machine, dice);
            }
            match dice.below(4) {
                0 => {
                    sim.run_steps(steps);
                    machine.kill();
                }
                1 => {
                    sim.run_steps(steps);
                    shared.stop.set(true);
                    run_until(sim, shared, |s| s.phase.get() == Phase::Done);
                    machine.kill();
                }
                _ => {
                    machine.crash_after(steps);
                    sim.run_steps(steps + 1);
                    if machine.is_running() {
                        machine.crash(); // There was nothing left to do.
                    }
                }
            }
            machine.disk().set_capacity(1 << 40);
        }
    }
}

fn run_until(sim: &Sim, shared: &Shared, done: impl Fn(&Shared) -> bool) {
    let mut steps = 0u64;
    while !done(shared) {
        assert!(sim.run_steps(500) > 0 && steps < 20_000_000, "the process is stuck at step {steps}");
        steps += 500;
    }
}

/// Flips a few bits of files of the storage.
fn flip_bits(machine: &Process, dice: &mut Dice) {
    let disk = machine.disk();
    for _ in 0..1 + dice.below(3) {
        let mut files = disk.files();
        if dice.below(2) == 0 {
            files.retain(|f| f.to_string_lossy().contains("/journal/"));
        }
        let file = &files[dice.below(files.len() as u64) as usize];
        let contents = disk.contents(file).expect("it is there");
        let written = contents.iter().rposition(|b| *b != 0).map_or(0, |at| at as u64 + 1);
        // Some go to the first pages, where headers are, some to what was written last, the others anywhere.
        let range = match dice.below(3) {
            0 => 0..written.min(8192),
            1 => written.saturating_sub(12_288)..written,
            _ => 0..contents.len() as u64,
        };
        if range.is_empty() {
            continue;
        }
        let mut byte = range.start + dice.below(range.end - range.start);
        // Rather something that says something than a zero.
        while dice.below(8) > 0 && byte > range.start && contents[byte as usize] == 0 {
            byte =
                contents[..byte as usize].iter().rposition(|b| *b != 0).map_or(range.start, |at| at as u64);
        }
        disk.flip_bit(file, byte * 8 + dice.below(8)).expect("the bit is there");
    }
}

/// Lets the disk be full for a while.
fn squeeze(sim: &Sim, machine: &Process, dice: &mut Dice, steps: u64) {
    let disk = machine.disk();
    for _ in 0..2 {
        sim.run_steps(dice.below(steps + 1));
        let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
        disk.set_capacity(used + dice.below(512 << 10));
        sim.run_steps(dice.below(steps + 1));
        disk.set_capacity(1 << 40);
    }
}

/// Arms an I/O error.
fn strike(machine: &Process, dice: &mut Dice) {
    use corelog_io::sim::DiskOp;
    let op = dice.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::Metadata]);
    let part = dice.pick(&["", ".journal", ".checkpoint", ".log", ".index"]);
    machine.disk().fail_nth(op, part, dice.below(200), std::io::ErrorKind::Other);
}

/// The process: opens the storage, checks what is there, works until it is stopped or struck down.
async fn live(shared: Rc<Shared>) {
    let plan = &shared.plan;
    let shards = shared.shards.get();
    let owner = move |id: LogId| (id.partition as usize + usize::from(id.topic.0[0])) % shards;
    let storages = match open_all(shards, |shard| plan.storage(shard, shards), owner).await {
        Ok(storages) => storages,
        Err(error) => return shared.failed_to_start(error),
    };
    let mut logs = Vec::new();
    for n in 0..plan.logs {
        let config = shared.reopened(usize::from(n));
        let log = storages[owner(log_id(n))].log(log_id(n), "topic", config);
        if let Some(refused) = log.refused() {
            return shared.failed_to_start(refused);
        }
        logs.push(log);
    }
    for (n, log) in logs.iter().enumerate() {
        if let Err(error) = quorum::elect(&shared, n, log).await {
            return shared.failed_to_start(error);
        }
    }
    if shared.incarnation.get() % 3 == 2 {
        // The recovered batches are served before they are flushed.
        if !truth::check_all(&shared, &logs).await {
            return;
        }
    }
    if plan.faults != Faults::Kills || shared.last.get() {
        storages.iter().for_each(|s| s.settle_recovery());
    }
    if !truth::check_all(&shared, &logs).await {
        return;
    }
    shared.phase.set(Phase::Working);
    if !shared.last.get() {
        work::work(&shared, &logs).await;
    }
    finish(&shared, &storages).await;
}

async fn finish(shared: &Shared, storages: &[Rc<ShardStorage>]) {
    for (i, storage) in storages.iter().enumerate() {
        let closes = shared.last.get()
            || (shared.plan.seed + u64::from(shared.incarnation.get()) + i as u64).is_multiple_of(2);
        if closes && let Err(error) = storage.close().await {
            shared.tolerate(&error);
        }
    }
    // Time for markers to be written.
    corelog_io::sleep(Duration::from_millis(200)).await;
    shared.phase.set(Phase::Done);
}

impl Shared {
    /// How a log is to be now.
    pub fn config(&self, n: usize) -> LogConfig {
        self.plan.log(self.truth.borrow().logs[n].commit)
    }

    /// How a log is to be opened: who decides may have changed while it was not open.
    fn reopened(&self, n: usize) -> LogConfig {
        if self.plan.commits == Commits::Changing && corelog_io::random_u64().is_multiple_of(4) {
            let log = &mut self.truth.borrow_mut().logs[n];
            match log.commit {
                // What it had committed then is not known.
                CommitMode::Alone => log.commit = CommitMode::Quorum,
                CommitMode::Quorum => log.change_mode(CommitMode::Alone, RaftIndex(0)),
            }
        }
        self.config(n)
    }

    fn failed_to_start(&self, error: StorageError) {
        self.tolerate(&error);
        self.phase.set(Phase::Done);
    }

    /// An error of the storage: right if the faults of this plan explain it.
    pub fn tolerate(&self, error: &StorageError) {
        match (self.plan.faults, error) {
            (
                Faults::BitFlips,
                StorageError::Corrupt { .. } | StorageError::LogRefused { .. } | StorageError::Version { .. },
            ) => {
                self.damage_found.set(true);
            }
            // A flush that met damage stops the shard's writes.
            (Faults::BitFlips, StorageError::JournalFailed { evidence, .. })
                if evidence.contains("damaged") =>
            {
                self.damage_found.set(true);
            }
            (Faults::IoErrors, StorageError::Io { .. } | StorageError::JournalFailed { .. }) => {}
            (Faults::FullDisk, error) if error.is_storage_full() => {}
            (_, StorageError::Closed) => {}
            (faults, error) => panic!("with {faults:?}, this must not happen: {error}"),
        }
    }
}
