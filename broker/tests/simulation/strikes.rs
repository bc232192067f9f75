//! What strikes a running broker.

use std::time::Duration;

use corelog_io::sim::DiskOp;
use corelog_io::sleep;

use crate::plan::Faults;
use crate::story::{RELIEF_MAX, Story};

/// More than any plan needs of the disk.
const AMPLE: u64 = 1 << 40;
const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
/// A broker's wall clock is fast by this at the most: what expires with time is due after a day at the soonest.
const FAST_MAX_MS: i64 = 10 * 3_600_000;
/// And slow by this: batches from more than an hour ahead are refused (message.timestamp.after.max.ms).
const SLOW_MAX_MS: i64 = 1_800_000;

/// What the broker needs after a strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Nothing,
    /// What failed is given up until then.
    Restart,
}

impl Story {
    /// Something happens to the running broker, and is over.
    pub async fn strike(&mut self) -> After {
        match self.plan().faults {
            Faults::Crashes | Faults::BitFlips | Faults::OneDamage => self.unsettle().await,
            Faults::Network => self.cut_off().await,
            Faults::Links => self.spoil_links().await,
            Faults::Clocks => self.jump().await,
            Faults::FullDisk => self.fill_up().await,
            Faults::IoErrors => {
                self.shared.truth.borrow_mut().storage_may_fail = true;
                let op = self.dice.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::Metadata]);
                let part = self.dice.pick(&["", ".journal", ".checkpoint", ".log", ".index"]);
                let disk = self.broker.machine.disk();
                disk.fail_nth(op, part, self.dice.below(100), std::io::ErrorKind::Other);
                self.sleep_below(1_000).await;
            }
            Faults::Stalls => self.stall().await,
            Faults::LastingErrors => return self.fail_for_long().await,
            Faults::DyingDisk => return self.lose_the_disk().await,
            Faults::Descriptors => {
                let most = 32 + 60 * self.broker.cores + self.plan().descriptors.expect("they are few");
                let machine = self.broker.machine.clone();
                machine.set_descriptor_limit(machine.descriptors() + self.dice.below(4) as usize);
                self.sleep_below(5_000).await;
                machine.set_descriptor_limit(most);
            }
        }
        After::Nothing
    }

    async fn unsettle(&mut self) {
        match self.dice.below(4) {
            0 => {
                let disk = self.broker.machine.disk();
                let extra = self.dice.millis(40);
                disk.set_extra_latency(extra);
                self.sleep_below(2_000).await;
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

    async fn cut_off(&mut self) {
        match self.dice.below(3) {
            0 => self.sim.reset_connections(&self.broker.machine, &self.clients),
            1 => {
                self.sim.partition(&self.broker.machine, &self.clients);
                self.sleep_below(4_000).await;
                self.sim.heal(&self.broker.machine, &self.clients);
            }
            _ => {
                self.broker.machine.pause();
                self.sleep_below(5_000).await;
                self.broker.machine.resume();
            }
        }
    }

    /// One direction, or both, between the broker and its clients.
    async fn spoil_links(&mut self) {
        let (broker, clients) = (self.broker.machine.clone(), self.clients.clone());
        let mut links = vec![self.sim.link(&broker, &clients), self.sim.link(&clients, &broker)];
        if self.dice.below(3) > 0 {
            links.remove(self.dice.below(2) as usize);
        }
        let short = Duration::from_millis(10 + self.dice.below(500));
        let (what, one_in) = (self.dice.below(6), 2 + self.dice.below(50));
        self.note(&format!("of {} links the fault is {what}", links.len()));
        for link in &links {
            match what {
                0 => link.cut(),
                1 => link.flap(short * 2, short),
                2 => link.set_delay(short / 10..short),
                3 => link.set_loss_one_in(one_in),
                4 => link.set_bytes_per_second(one_in * 4_000),
                _ => link.forget_connections(),
            }
        }
        let most = self.dice.pick(&[2_000, 10_000, 150_000]);
        self.sleep_below(most).await;
        links.iter().for_each(corelog_io::sim::Link::heal);
    }

    /// By hours, forwards and backwards, and then it runs fast or slow.
    async fn jump(&mut self) {
        let wrong = self.dice.below((FAST_MAX_MS + SLOW_MAX_MS) as u64) as i64 - SLOW_MAX_MS;
        let (machine, drift) = (self.broker.machine.clone(), self.dice.below(200_000) as i32 - 100_000);
        let jump = wrong - (machine.wall_clock_ms() - self.sim.tester().wall_clock_ms());
        self.note(&format!("the clock jumps by {jump} ms, and drifts by {drift} ppm"));
        machine.set_clock(jump, drift);
        self.sleep_below(3_000).await;
    }

    async fn fill_up(&mut self) {
        self.shared.truth.borrow_mut().storage_may_fail = true;
        let disk = self.broker.machine.disk();
        let used: u64 = disk.files().iter().map(|f| disk.contents(f).map_or(0, |c| c.len() as u64)).sum();
        disk.set_capacity(used + self.dice.below(512 << 10));
        self.sleep_below(4_000).await;
        disk.set_capacity(AMPLE);
        let before = self.shared.truth.borrow().acknowledged;
        let limit = RELIEF_MAX + self.plan().patience();
        self.until(limit, "nothing is acknowledged with space on the disk again", |shared| {
            shared.truth.borrow().acknowledged > before
        })
        .await;
    }

    /// Longer than any limit in time there is, or just longer than some.
    async fn stall(&mut self) {
        let most = self.dice.pick(&[10_000, 70_000, 250_000]);
        let long = self.dice.millis(most);
        let machine = self.broker.machine.clone();
        match self.dice.below(5) {
            0 | 1 => {
                self.note(&format!("the disk does nothing for {long:?}"));
                machine.disk().stall(long);
                sleep(long).await;
            }
            2 => {
                self.note(&format!("the network is cut for {long:?}"));
                self.sim.partition(&machine, &self.clients);
                sleep(long).await;
                self.sim.heal(&machine, &self.clients);
            }
            3 => {
                self.note(&format!("the process is stopped for {long:?}"));
                machine.pause();
                sleep(long).await;
                machine.resume();
            }
            _ => {
                let core = self.dice.below(self.broker.cores as u64) as usize;
                self.note(&format!("core {core} does not run for {long:?}"));
                machine.pause_core(core);
                sleep(long).await;
                machine.resume_core(core);
            }
        }
    }

    async fn fail_for_long(&mut self) -> After {
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
        self.sleep_below(3_000).await;
        disk.clear_faults();
        self.note("and does so no more");
        after
    }

    /// For a while nothing gets to the disk: it is gone, or read-only, or no sync works.
    async fn lose_the_disk(&mut self) -> After {
        self.shared.truth.borrow_mut().storage_may_fail = true;
        let disk = self.broker.machine.disk();
        let what = self.dice.pick(&["is gone", "is read-only", "syncs nothing"]);
        self.note(&format!("the disk {what}"));
        match what {
            "is gone" => disk.set_dead(true),
            "is read-only" => disk.set_read_only(true),
            _ => disk.fail_until_cleared(DiskOp::Sync, "", EIO),
        }
        self.sleep_below(3_000).await;
        self.note("and does so no more");
        disk.set_dead(false);
        disk.set_read_only(false);
        disk.clear_faults();
        After::Restart
    }
}
