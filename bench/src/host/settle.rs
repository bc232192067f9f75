//! Before a measurement the machine comes to rest: what was written before is on the device, and the device has nothing to do.

use super::machine::device_of;
use crate::progress::Progress;
use anyhow::{Context, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// A device that moves less is quiet: a machine's own logs, and a broker that is idle.
const QUIET_BYTES_PER_SECOND: f64 = 1e6;
/// It has to be quiet for so long. Journals, caches of devices and file systems catch up after seconds.
const QUIET_FOR: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(500);
const SECTOR_LEN: u64 = 512;

/// How a machine came to rest, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Settled {
    /// With writing what was waiting for it.
    pub seconds: f64,
    pub quiet: bool,
    /// What the device still moved, at last. None where the device is not known.
    pub bytes_per_second: Option<f64>,
}

impl Settled {
    /// What to keep in mind with what was measured then.
    pub fn remark(&self) -> Option<String> {
        match (self.quiet, self.bytes_per_second) {
            (true, _) => None,
            (false, Some(rate)) => Some(format!(
                "not settled: after {:.0} s the device still moved {:.1} MB/s",
                self.seconds,
                rate / 1e6
            )),
            (false, None) => Some("not known to be settled: the device of --dir has no counters".to_owned()),
        }
    }
}

/// Has everything written, and waits until the device under the directory is quiet, at most for so long.
pub fn settle(directory: &Path, at_most: Duration, progress: &Progress) -> Result<Settled> {
    progress.say("settling");
    let started = Instant::now();
    let opened = File::open(directory).with_context(|| format!("{}", directory.display()))?;
    // SAFETY: the descriptor is open; no memory is involved.
    if unsafe { libc::syncfs(opened.as_raw_fd()) } != 0 {
        return Err(std::io::Error::last_os_error()).context("writing what is waiting for it");
    }
    let device = device_of(directory);
    let moved = || moved(&fs::read_to_string("/proc/diskstats").ok()?, device?);
    let settled = wait(at_most, moved, std::thread::sleep);
    Ok(Settled { seconds: started.elapsed().as_secs_f64(), ..settled })
}

fn wait(at_most: Duration, moved: impl Fn() -> Option<u64>, mut sleep: impl FnMut(Duration)) -> Settled {
    let (mut waited, mut quiet_for) = (Duration::ZERO, Duration::ZERO);
    let mut before = moved();
    let mut rate = None;
    while waited < at_most && quiet_for < QUIET_FOR {
        sleep(LOOK);
        waited += LOOK;
        let now = moved();
        rate = now.zip(before).map(|(now, before)| now.saturating_sub(before) as f64 / LOOK.as_secs_f64());
        before = now;
        match rate {
            Some(rate) if rate < QUIET_BYTES_PER_SECOND => quiet_for += LOOK,
            Some(_) => quiet_for = Duration::ZERO,
            // Nobody says anything: some rest all the same.
            None if waited >= QUIET_FOR => break,
            None => {}
        }
    }
    Settled { seconds: waited.as_secs_f64(), quiet: quiet_for >= QUIET_FOR, bytes_per_second: rate }
}

/// Bytes that a device has read, written and discarded, by `/proc/diskstats`.
fn moved(diskstats: &str, (major, minor): (u32, u32)) -> Option<u64> {
    let of = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        // major minor name, reads merged sectors ms, writes merged sectors ms, three more, discards merged sectors ms.
        let is_it = number(0) == Some(major.into()) && number(1) == Some(minor.into());
        // Old kernels have no discards.
        is_it.then(|| Some((number(5)? + number(9)? + number(16).unwrap_or(0)) * SECTOR_LEN))?
    };
    diskstats.lines().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn diskstats(read: u64, written: u64, discarded: u64) -> String {
        let sectors = |bytes: u64| bytes / SECTOR_LEN;
        format!(
            "   7       0 loop0 9 0 900 1 0 0 0 0 0 1 1 0 0 0 0 0 0\n 254       0 vda 100 5 {} 30 200 6 {} 90 0 50 120 3 0 {} 4 12 9\n 254       1 vda1 1 0 7 1 1 0 7 1 0 1 1 0 0 0 0 0 0\n",
            sectors(read),
            sectors(written),
            sectors(discarded)
        )
    }

    #[test]
    fn a_device_is_found_among_others_with_all_that_it_moves() {
        let text = diskstats(512_000, 1_024_000, 2_048_000);
        assert_eq!(moved(&text, (254, 0)), Some(3_584_000));
        assert_eq!(moved(&text, (254, 1)), Some(14 * 512));
        assert_eq!(moved(&text, (8, 0)), None);
        let old = "8 0 sda 1 0 10 1 1 0 20 1 0 1 1";
        assert_eq!(moved(old, (8, 0)), Some(30 * 512));
    }

    /// As the device goes on for so long at this rate, and is quiet then but for a little.
    fn settled(busy: Duration, rate: u64, at_most: u64) -> Settled {
        let clock = Cell::new(Duration::ZERO);
        let bytes = || {
            let busy = clock.get().min(busy).as_millis() as u64 * rate / 1000;
            busy + clock.get().as_millis() as u64 * 20
        };
        let read = || moved(&diskstats(0, bytes(), 0), (254, 0));
        wait(Duration::from_secs(at_most), read, |time| clock.set(clock.get() + time))
    }

    #[test]
    fn it_waits_until_the_device_is_quiet_and_tells_how_long() {
        let at_once = settled(Duration::ZERO, 0, 60);
        assert!(at_once.quiet && at_once.seconds == 3.0 && at_once.remark().is_none(), "{at_once:?}");
        let backlog = settled(Duration::from_secs(10), 200_000_000, 60);
        assert!(backlog.quiet && backlog.seconds == 13.0, "{backlog:?}");
        // A pause in the middle is no rest.
        let clock = Cell::new(0u32);
        let bursts = || Some((0..clock.get()).filter(|tick| tick / 4 % 2 == 0).count() as u64 * 10_000_000);
        let restless = wait(Duration::from_secs(30), bursts, |_| clock.set(clock.get() + 1));
        assert!(!restless.quiet && restless.seconds == 30.0, "{restless:?}");
    }

    #[test]
    fn what_does_not_rest_is_told_with_what_it_moved() {
        let busy = settled(Duration::from_secs(100), 200_000_000, 20);
        assert!(!busy.quiet && busy.seconds == 20.0, "{busy:?}");
        let remark = busy.remark().unwrap();
        assert!(remark.contains("after 20 s") && remark.contains("200.0 MB/s"), "{remark}");
        let unknown = wait(Duration::from_secs(20), || None, |_| ());
        assert!(!unknown.quiet && unknown.seconds == 3.0 && unknown.remark().is_some(), "{unknown:?}");
    }

    #[test]
    fn a_directory_here_settles() {
        let program = std::env::current_exe().unwrap();
        let directory = program.parent().unwrap();
        let settled = settle(directory, Duration::from_secs(1), &Progress::new("test")).unwrap();
        assert!(settled.seconds >= 1.0, "{settled:?}");
    }
}
