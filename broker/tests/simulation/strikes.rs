//! What strikes a running broker.

use std::time::Duration;

use corelog_io::sim::DiskOp;

use crate::plan::Faults;
use crate::story::{RELIEF_MAX, Story};

/// More than any plan needs of the disk.
const AMPLE: u64 = 1 << 40;
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;

/// What the broker needs after a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// What failed is given up until then.
    Restart,
}

impl Story {
    /// Something happens to the running broker, and is over.
    pub fn strike(&mut self) -> After {
        match self.plan().faults {
            Faults::Crashes | Faults::BitFlips | Faults::OneDamage => self.unsettle(),
            Faults::Network => self.cut_off(),
            Faults::FullDisk => self.fill_up(),
            Faults::IoErrors => {
                self.shared.truth.borrow_mut().storage_may_fail = true;
                let op = self.dice.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::Metadata]);
                let part = self.dice.pick(&["", ".journal", ".checkpoint", ".log", ".index"]);
                let disk = self.broker.machine.disk();
                disk.fail_nth(op, part, self.dice.below(100), std::io::ErrorKind::Other);
                self.run_below(1_000);
            }
            Faults::Stalls => self.stall(),
            Faults::LastingErrors => return self.fail_for_long(),
            Faults::Descriptors => {
                let most = 32 + 60 * self.broker.cores + self.plan().descriptors.expect("they are few");
                self.broker
                    .machine
                    .set_descriptor_limit(self.broker.machine.descriptors() + self.dice.below(4) as usize);
                self.run_below(5_000);
                self.broker.machine.set_descriptor_limit(most);
            }
        }
        After::Nothing
    }

    fn run_below(&mut self, millis: u64) {
        let time = self.dice.millis(millis);
        self.sim.run_for(time);
    }

    fn unsettle(&mut self) {
        match self.dice.below(4) {
            0 => {
                let disk = self.broker.machine.disk();
                let extra = self.dice.millis(40);
                disk.set_extra_latency(extra);
                self.run_below(2_000);
                disk.set_extra_latency(Duration::ZERO);
            }
            1 => {
                let (jump, drift) =
                    (self.dice.below(4_000) as i64 - 2_000, self.dice.below(400) as i32 - 200);
                self.broker.machine.set_clock(jump, drift);
            }
            _ => {}
        }
    }

    fn cut_off(&mut self) {
        match self.dice.below(3) {
            0 => self.sim.reset_connections(&self.broker.machine, &self.clients),
            1 => {
                self.sim.partition(&self.broker.machine, &self.clients);
                self.run_below(4_000);
                self.sim.heal(&self.broker.machine, &self.clients);
            }
            _ => {
                self.broker.machine.pause();
                self.run_below(5_000);
                self.broker.machine.resume();
            }
        }
    }

    fn fill_up(&mut self) {
        self.shared.truth.borrow_mut().storage_may_fail = true;
        let disk = self.broker.machine.disk();
        let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
        disk.set_capacity(used + self.dice.below(512 << 10));
        self.run_below(4_000);
        disk.set_capacity(AMPLE);
        let before = self.shared.truth.borrow().acknowledged;
        self.run_until(RELIEF_MAX, "nothing is acknowledged with space on the disk again", |shared| {
            shared.truth.borrow().acknowledged > before
        });
    }

    /// Longer than any limit in time there is, or just longer than some.
    fn stall(&mut self) {
        let most = self.dice.pick(&[10_000, 70_000, 250_000]);
        let long = self.dice.millis(most);
        let machine = self.broker.machine.clone();
        match self.dice.below(5) {
            0 | 1 => {
                self.note(&format!("the disk does nothing for {long:?}"));
                machine.disk().stall(long);
                self.sim.run_for(long);
            }
            2 => {
                self.note(&format!("the network is cut for {long:?}"));
                self.sim.partition(&machine, &self.clients);
                self.sim.run_for(long);
                self.sim.heal(&machine, &self.clients);
            }
            3 => {
                self.note(&format!("the process is stopped for {long:?}"));
                machine.pause();
                self.sim.run_for(long);
                machine.resume();
            }
            _ => {
                let core = self.dice.below(self.broker.cores as u64) as usize;
                self.note(&format!("core {core} does not run for {long:?}"));
                machine.pause_core(core);
                self.sim.run_for(long);
                machine.resume_core(core);
            }
        }
    }

    fn fail_for_long(&mut self) -> After {
        self.shared.truth.borrow_mut().storage_may_fail = true;
        let shard = self.dice.below(self.broker.cores as u64);
        let (of_shard, of_partition) = (format!("-{shard}-"), format!("/{}/0", self.dice.below(3)));
        let (op, part, errno, after) = match self.dice.below(6) {
            0 | 1 => (DiskOp::Write, &*of_shard, EIO, After::Restart),
            2 => (DiskOp::Write, &*of_partition, EIO, After::Restart),
            3 => (DiskOp::Read, ".log", EIO, After::Nothing),
            4 => (DiskOp::Metadata, "", EMFILE, After::Nothing),
            _ => (DiskOp::Write, ".journal", ENOSPC, After::Nothing),
        };
        self.note(&format!("{op:?} of {part:?} fails with {errno}"));
        let disk = self.broker.machine.disk();
        disk.fail_until_cleared(op, part, errno);
        self.run_below(3_000);
        disk.clear_faults();
        self.note("and does so no more");
        after
    }
}
