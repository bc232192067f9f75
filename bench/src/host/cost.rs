//! What a run cost the broker and the machine: differences between two moments.

use super::perf::Counts;
use super::process::{self, Switches, Usage};
use anyhow::Result;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Whom to watch.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    /// The broker, if it runs on this machine.
    pub pid: Option<u32>,
    /// `/sys/dev/block/MAJOR:MINOR` of the device that has its data.
    pub device: Option<PathBuf>,
    /// Whether perf counts its system calls and instructions, which costs it a little.
    pub perf: bool,
}

impl Watched {
    /// The device is that of the file system on which `directory` lies.
    pub fn new(pid: Option<u32>, directory: Option<&Path>) -> Watched {
        Watched { pid, device: directory.and_then(block_device), perf: false }
    }
}

fn block_device(directory: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(directory).ok()?.dev();
    let path = format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device));
    Some(PathBuf::from(path)).filter(|path| path.join("stat").exists())
}

/// A moment.
pub struct Moment {
    at: Instant,
    broker: Option<Usage>,
    machine_busy: Duration,
    kernel: Duration,
    own: Duration,
    threads: Vec<(u32, String, Duration)>,
    device_written: Option<u64>,
}

impl Moment {
    pub fn now(watched: &Watched) -> Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            broker: watched.pid.map(Usage::of).transpose()?,
            machine_busy: machine_busy()?,
            kernel: process::kernel_threads_cpu(),
            own: process::own_cpu(),
            threads: process::own_threads(),
            device_written: watched.device.as_deref().and_then(device_written),
        })
    }
}

/// Time that all CPUs together were not idle.
fn machine_busy() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat")?;
    let fields: Vec<u64> =
        stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|it| it.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let busy = fields.iter().take(7).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, it)| it);
    Ok(process::ticks(busy.sum()))
}

fn device_written(device: &Path) -> Option<u64> {
    const SECTOR_LEN: u64 = 512;
    let stat = fs::read_to_string(device.join("stat")).ok()?;
    Some(stat.split_whitespace().nth(6)?.parse::<u64>().ok()? * SECTOR_LEN)
}

/// Between two moments.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    pub seconds: f64,
    pub broker: Option<BrokerCost>,
    /// CPU seconds of the whole machine less the client's: with what the kernel does for the broker in threads of its own, and
    /// with what others do on this machine.
    pub machine_less_client_cpu_s: f64,
    /// Of these, those of threads of the kernel's own.
    pub kernel_cpu_s: f64,
    /// Of these, what is neither the broker's nor the kernel's own threads': other processes, interrupts, and what a hypervisor took.
    pub others_cpu_s: f64,
    pub client_cpu_s: f64,
    /// The busiest thread of the client, as a share of a CPU.
    pub client_busiest_thread: Option<(String, f64)>,
    pub device_written: Option<u64>,
    /// From the start of the warm-up on.
    pub course: Vec<CpuPoint>,
}

/// CPUs in use over a piece of a run. Where they rise and the load does not, the machine has become slower, or the broker
/// has more to do.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuPoint {
    /// From the run's start to that of the piece.
    pub seconds: f64,
    pub broker: Option<f64>,
    pub client: f64,
}

/// Collects points while a run goes on.
pub struct CpuCourse {
    pid: Option<u32>,
    origin: Instant,
    interval: Duration,
    last: CpuTimes,
    points: Vec<CpuPoint>,
}

struct CpuTimes {
    at: Instant,
    broker: Option<Duration>,
    client: Duration,
}

impl CpuTimes {
    fn now(pid: Option<u32>) -> Result<CpuTimes> {
        let broker = pid.map(process::user_and_system).transpose()?.map(|(user, system)| user + system);
        Ok(CpuTimes { at: Instant::now(), broker, client: process::own_cpu() })
    }
}

impl CpuCourse {
    /// A point about every `interval`; the run starts at `origin`.
    pub fn begin(watched: &Watched, origin: Instant, interval: Duration) -> Result<CpuCourse> {
        let last = CpuTimes::now(watched.pid)?;
        Ok(CpuCourse { pid: watched.pid, origin, interval, last, points: Vec::new() })
    }

    /// Adds a point if it is time for one.
    pub fn tick(&mut self) -> Result<()> {
        if self.last.at.elapsed() < self.interval {
            return Ok(());
        }
        let now = CpuTimes::now(self.pid)?;
        let before = std::mem::replace(&mut self.last, now);
        let now = &self.last;
        let seconds = (now.at - before.at).as_secs_f64();
        let share = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / seconds;
        self.points.push(CpuPoint {
            seconds: before.at.saturating_duration_since(self.origin).as_secs_f64(),
            broker: now.broker.zip(before.broker).map(|(now, before)| share(now, before)),
            client: share(now.client, before.client),
        });
        Ok(())
    }

    pub fn points(self) -> Vec<CpuPoint> {
        self.points
    }
}

#[derive(Clone, Debug, Default, Serialize)]
pub struct BrokerCost {
    pub cpu_s: f64,
    pub user_s: f64,
    pub system_s: f64,
    pub switches: Switches,
    /// If perf was to count.
    pub counts: Counts,
    pub resident: u64,
    pub resident_peak: u64,
    pub written: Option<u64>,
    pub read: Option<u64>,
}

impl Cost {
    pub fn between(from: &Moment, to: &Moment) -> Cost {
        let seconds = (to.at - from.at).as_secs_f64();
        let less = |to: Duration, from: Duration| to.saturating_sub(from).as_secs_f64();
        let optional = |to: Option<u64>, from: Option<u64>| Some(to?.saturating_sub(from?));
        let broker = from.broker.as_ref().zip(to.broker.as_ref()).map(|(from, to)| BrokerCost {
            cpu_s: less(to.cpu(), from.cpu()),
            user_s: less(to.user, from.user),
            system_s: less(to.system, from.system),
            switches: to.switches_since(from),
            counts: Counts::default(),
            resident: to.resident,
            resident_peak: to.resident_peak,
            written: optional(to.written, from.written),
            read: optional(to.read, from.read),
        });
        let client_cpu_s = less(to.own, from.own);
        let ran = |(id, name, to): &(u32, String, Duration)| {
            let before =
                from.threads.iter().find(|(other, ..)| other == id).map_or(Duration::ZERO, |it| it.2);
            (name.clone(), less(*to, before) / seconds)
        };
        let machine_less_client_cpu_s = (less(to.machine_busy, from.machine_busy) - client_cpu_s).max(0.0);
        let kernel_cpu_s = less(to.kernel, from.kernel);
        let known = kernel_cpu_s + broker.as_ref().map_or(0.0, |broker| broker.cpu_s);
        Cost {
            seconds,
            broker,
            machine_less_client_cpu_s,
            kernel_cpu_s,
            others_cpu_s: (machine_less_client_cpu_s - known).max(0.0),
            client_cpu_s,
            client_busiest_thread: to.threads.iter().map(ran).max_by(|a, b| a.1.total_cmp(&b.1)),
            device_written: optional(to.device_written, from.device_written),
            course: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_as_cost() {
        let watched = Watched::new(Some(std::process::id()), Some(Path::new("/")));
        let from = Moment::now(&watched).unwrap();
        let mut course = CpuCourse::begin(&watched, from.at, Duration::from_millis(50)).unwrap();
        let mut sum = 0u64;
        while process::own_cpu() < from.own + Duration::from_millis(100) || course.points.len() < 2 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
            course.tick().unwrap();
        }
        let cost = Cost::between(&from, &Moment::now(&watched).unwrap());
        // Ticks may be as coarse as a hundredth of a second.
        assert!(cost.client_cpu_s >= 0.1 && cost.broker.unwrap().cpu_s >= 0.08);
        assert!(cost.client_busiest_thread.unwrap().1 > 0.0);
        let points = course.points();
        assert!(points.iter().all(|point| point.broker.is_some()), "{points:?}");
        assert!(points.iter().any(|point| point.client > 0.0), "{points:?}");
        assert!(points[1].seconds - points[0].seconds >= 0.05, "{points:?}");
    }
}
