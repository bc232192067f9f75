//! The broker's process as the kernel sees it.

use super::world::World;
use crate::broker::Broker;
use anyhow::{Context, Result, bail};
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
pub struct Figures {
    pub rss: u64,
    cpu_ticks: u64,
    at: Instant,
}

impl Figures {
    /// Of one core.
    pub fn cpu_percent_since(&self, before: &Figures) -> u64 {
        // SAFETY: it asks for a number.
        let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        let seconds = (self.at - before.at).as_secs_f64();
        ((self.cpu_ticks - before.cpu_ticks) as f64 / per_second / seconds * 100.0) as u64
    }
}

/// Resident memory, and processor time, of /proc/PID/stat.
pub fn figures(pid: u32) -> Result<Figures> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("is the broker gone?")?;
    // Behind the name, which may hold anything: state is field 3, utime 14, stime 15, rss 24.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let (Some(user), Some(system), Some(pages)) = (field(14), field(15), field(24)) else {
        bail!("/proc/{pid}/stat is {stat}");
    };
    // SAFETY: it asks for a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64;
    Ok(Figures { rss: pages * page, cpu_ticks: user + system, at: Instant::now() })
}

pub fn sockets(pid: u32) -> Result<usize> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).context("is the broker gone?")?;
    let links = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    Ok(links.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
}

/// Looks at the broker's memory all the time.
#[derive(Default)]
pub struct Sampler {
    pid: AtomicU32,
    rss_kib_max: AtomicU32,
}

impl Sampler {
    pub fn watch(&self, broker: &Broker) {
        self.pid.store(broker.pid(), Ordering::SeqCst);
    }

    pub fn run(&self, world: &World) {
        while !world.is_done() {
            // It may be between two lives.
            if let Ok(now) = figures(self.pid.load(Ordering::SeqCst)) {
                self.rss_kib_max.fetch_max((now.rss >> 10) as u32, Ordering::Relaxed);
            }
            std::thread::sleep(SAMPLE_INTERVAL);
        }
    }

    /// The most since it was last taken.
    pub fn take(&self) -> u64 {
        u64::from(self.rss_kib_max.swap(0, Ordering::Relaxed)) << 10
    }
}

/// Raises the limit of open files as far as it goes, for this process and the brokers that it starts; returns it.
pub fn raise_open_files() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a whole rlimit of this frame.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !done {
        bail!("raising the limit of open files: {}", std::io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}
