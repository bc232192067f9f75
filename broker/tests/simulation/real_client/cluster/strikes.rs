//! What strikes brokers, several at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use corelog_io::sim::DiskOp;

use super::plan::Ordeal;
use crate::broker::Start;
use crate::plan::DATA_DIR;
use crate::real_client::story::Story;

/// More than any plan needs of the disk.
const AMPLE: u64 = 1 << 40;
const EIO: i32 = 5;
/// A broker's wall clock is fast by this at the most, and slow by this, as where there is one broker.
const FAST_MAX_MS: i64 = 10 * 3_600_000;
const SLOW_MAX_MS: i64 = 1_800_000;

impl Story {
    pub fn strike_cluster(&mut self, ordeal: Ordeal, long: Duration) {
        match ordeal {
            Ordeal::Power => self.take_down_several(long),
            Ordeal::Links => self.spoil_links(long),
            Ordeal::Clocks => self.move_clocks(long),
            Ordeal::Disks => self.spoil_a_disk(long),
            Ordeal::Damage => self.damage_a_disk(long),
            Ordeal::Wipes => self.lose_a_disk(long),
            Ordeal::Moves => match self.dice.below(2) {
                0 => self.take_down_several(long),
                _ => self.spoil_links(long),
            },
        }
    }

    /// Some, fewer than a majority.
    fn minority(&mut self) -> Vec<usize> {
        let most = (self.brokers.len() as u64 - 1) / 2;
        let count = 1 + self.dice.below(most) as usize;
        let mut all: Vec<usize> = (0..self.brokers.len()).collect();
        (0..count).map(|_| all.remove(self.dice.below(all.len() as u64) as usize)).collect()
    }

    fn take_down(&mut self, at: usize) {
        let kind = self.dice.below(4);
        self.note(&format!("broker {} goes down ({kind})", at + 1));
        match kind {
            0 => self.brokers[at].machine.kill(),
            1 => self.brokers[at].stop(&self.sim),
            _ => self.brokers[at].machine.crash(),
        }
    }

    fn bring_up(&mut self, all: &[usize]) {
        for at in all {
            self.start_broker(*at);
            let pause = self.dice.below(200);
            self.run_below(pause);
        }
        for at in all {
            assert_eq!(self.brokers[*at].await_ready(&self.sim), Start::Ready, "broker {}", at + 1);
        }
    }

    fn take_down_several(&mut self, long: Duration) {
        let all: Vec<usize> = (0..self.brokers.len()).collect();
        match self.dice.below(5) {
            0 => {
                self.note("all lose their power");
                all.iter().for_each(|at| self.brokers[*at].machine.crash());
                self.sim.run_for(long);
                self.bring_up(&all);
            }
            1 => {
                for at in all {
                    self.take_down(at);
                    self.run_below(300);
                    self.bring_up(&[at]);
                }
            }
            2 => self.crash_when_it_comes_up(long),
            _ => {
                let some = self.minority();
                for at in &some {
                    self.take_down(*at);
                    self.run_below(200);
                }
                self.sim.run_for(long);
                self.bring_up(&some);
            }
        }
    }

    /// In the middle of whatever it does.
    fn crash_when_it_comes_up(&mut self, long: Duration) {
        let some = self.minority();
        for at in &some {
            self.take_down(*at);
        }
        self.sim.run_for(long);
        for at in &some {
            self.start_broker(*at);
            let steps = self.dice.below(20_000);
            self.note(&format!("broker {} crashes after {steps} steps", at + 1));
            self.brokers[*at].machine.crash_after(steps);
        }
        self.sim.run_for(Duration::from_secs(3));
        let down: Vec<usize> =
            some.into_iter().filter(|at| !self.brokers[*at].machine.is_running()).collect();
        self.bring_up(&down);
    }

    /// Of links between brokers any number, in one direction each.
    fn spoil_links(&mut self, long: Duration) {
        let mut links = Vec::new();
        let one_in = 1 + self.dice.below(4);
        for from in 0..self.brokers.len() {
            for to in (0..self.brokers.len()).filter(|to| *to != from) {
                if self.dice.below(one_in) == 0 {
                    links.push((from, to));
                }
            }
        }
        for (from, to) in &links {
            let link = self.sim.link(&self.brokers[*from].machine, &self.brokers[*to].machine);
            let short = Duration::from_millis(10 + self.dice.below(800));
            let (what, one_in) = (self.dice.below(7), 2 + self.dice.below(50));
            self.note(&format!("the link from broker {} to {}: {what}", from + 1, to + 1));
            match what {
                0 | 1 => link.cut(),
                2 => link.flap(short * 2, short),
                3 => link.set_delay(short / 10..short),
                4 => link.set_loss_one_in(one_in),
                5 => link.set_bytes_per_second(one_in * 4_000),
                _ => link.forget_connections(),
            }
        }
        self.sim.run_for(long);
        for (from, to) in links {
            self.sim.link(&self.brokers[from].machine, &self.brokers[to].machine).heal();
        }
        self.note("links are healed");
    }

    fn move_clocks(&mut self, long: Duration) {
        for at in 0..self.brokers.len() {
            if self.dice.below(2) == 0 {
                let wrong = self.dice.below((FAST_MAX_MS + SLOW_MAX_MS) as u64) as i64 - SLOW_MAX_MS;
                let drift = self.dice.below(100_000) as i32 - 50_000;
                let machine = &self.brokers[at].machine;
                let jump = wrong - (machine.wall_clock_ms() - self.sim.tester().wall_clock_ms());
                self.note(&format!(
                    "the clock of broker {} jumps by {jump} ms, drifts by {drift} ppm",
                    at + 1
                ));
                machine.set_clock(jump, drift);
            }
        }
        match self.dice.below(3) {
            0 => self.take_down_several(long),
            1 => {
                let some = self.minority();
                some.iter().for_each(|at| self.brokers[*at].machine.pause());
                self.sim.run_for(long);
                some.iter().for_each(|at| self.brokers[*at].machine.resume());
            }
            _ => self.sim.run_for(long),
        }
    }

    fn spoil_a_disk(&mut self, long: Duration) {
        let at = self.dice.below(self.brokers.len() as u64) as usize;
        let disk = self.brokers[at].machine.disk();
        let kind = self.dice.below(7);
        self.note(&format!("the disk of broker {}: {kind}, for {long:?}", at + 1));
        match kind {
            0 => disk.set_extra_latency(self.dice.millis(100)),
            1 => {
                let used: u64 =
                    disk.files().iter().map(|file| disk.contents(file).map_or(0, |it| it.len() as u64)).sum();
                disk.set_capacity(used + self.dice.below(256 << 10));
            }
            2 => {
                let op = self.dice.pick(&[DiskOp::Read, DiskOp::Write, DiskOp::Sync, DiskOp::Metadata]);
                let part = self.dice.pick(&["", ".journal", ".checkpoint", ".log", ".index"]);
                disk.fail_nth(op, part, self.dice.below(100), std::io::ErrorKind::Other);
            }
            3 => disk.fail_until_cleared(self.dice.pick(&[DiskOp::Write, DiskOp::Sync]), "", EIO),
            4 => disk.set_dead(true),
            5 => disk.set_read_only(true),
            _ => disk.stall(long),
        }
        self.sim.run_for(long);
        disk.set_extra_latency(Duration::ZERO);
        disk.set_capacity(AMPLE);
        disk.clear_faults();
        disk.set_dead(false);
        disk.set_read_only(false);
        self.note("the disk is well again");
        if (2..=5).contains(&kind) {
            // What failed is given up until then.
            self.take_down(at);
            self.run_below(500);
            self.bring_up(&[at]);
        }
    }

    /// One bit of what was written to a partition's segments.
    fn damage_a_disk(&mut self, long: Duration) {
        self.settle_cluster(false);
        let at = self.dice.below(self.brokers.len() as u64) as usize;
        self.take_down(at);
        self.run_below(500);
        let disk = self.brokers[at].machine.disk();
        let mut files = disk.files();
        files.retain(|file| is_of_partition(file));
        let file: PathBuf = files[self.dice.below(files.len() as u64) as usize].clone();
        let contents = disk.contents(&file).expect("it is there");
        let written: Vec<usize> = (0..contents.len()).filter(|at| contents[*at] != 0).collect();
        if let Some(byte) = (!written.is_empty()).then(|| self.dice.pick(&written)) {
            let bit = byte as u64 * 8 + self.dice.below(8);
            self.note(&format!("bit {bit} of {} flips on broker {}", file.display(), at + 1));
            disk.flip_bit(&file, bit).expect("the bit is there");
        }
        self.sim.run_for(long);
        self.bring_up(&[at]);
    }

    fn lose_a_disk(&mut self, long: Duration) {
        self.settle_cluster(false);
        let at = self.dice.below(self.brokers.len() as u64) as usize;
        self.take_down(at);
        self.sim.run_for(long);
        self.note(&format!("the disk of broker {} is lost", at + 1));
        self.brokers[at].machine.wipe();
        self.join(at);
        self.bring_up(&[at]);
    }
}

fn is_of_partition(file: &Path) -> bool {
    let name = file.to_string_lossy();
    file.starts_with(DATA_DIR) && name.ends_with(".log") && !name.contains("__cluster_metadata")
}
