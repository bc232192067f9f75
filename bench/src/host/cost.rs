//! What a run cost the broker and the machine: differences between two moments.

use super::perf::Counts;
use super::process::{self, Switches, ThreadTime, Usage};
use anyhow::{Context, Result};
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
    machine: MachineTimes,
    kernel: Duration,
    own: Duration,
    threads: Vec<ThreadTime>,
    device_written: Option<u64>,
}

impl Moment {
    pub fn now(watched: &Watched) -> Result<Moment> {
        Ok(Moment {
            at: Instant::now(),
            broker: watched.pid.map(Usage::of).transpose()?,
            machine: MachineTimes::now()?,
            kernel: process::kernel_threads_cpu(),
            own: process::own_cpu(),
            threads: process::own_threads(),
            device_written: watched.device.as_deref().and_then(device_written),
        })
    }
}

impl Moment {
    /// Of threads that live no longer, what they had used a moment before.
    pub fn with_ended(mut self, before: Vec<ThreadTime>) -> Moment {
        let ended = before.into_iter().filter(|(id, ..)| !self.threads.iter().any(|(other, ..)| other == id));
        let ended: Vec<ThreadTime> = ended.collect();
        self.threads.extend(ended);
        self
    }
}

/// Of all CPUs together. The kernel samples it: at each tick it looks at what a CPU does.
#[derive(Clone, Copy, Debug, PartialEq)]
struct MachineTimes {
    /// Processes, the kernel and interrupts.
    busy: Duration,
    /// What a hypervisor gave to others while there was something to do.
    stolen: Duration,
}

impl MachineTimes {
    fn now() -> Result<MachineTimes> {
        MachineTimes::parse(&fs::read_to_string("/proc/stat")?)
            .context("/proc/stat does not begin with the CPUs' times")
    }

    fn parse(stat: &str) -> Option<MachineTimes> {
        let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let fields: Vec<u64> = fields.map(str::parse).collect::<Result<_, _>>().ok()?;
        // Guests are in user already.
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen] = *fields.first_chunk()?;
        let busy = process::ticks(user + nice + system + irq + softirq);
        Some(MachineTimes { busy, stolen: process::ticks(stolen) })
    }
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
    /// with what others do on this machine. The machine's are sampled, a process's are not.
    pub machine_less_client_cpu_s: f64,
    /// Of these, those of threads of the kernel's own.
    pub kernel_cpu_s: f64,
    /// Of these, what is neither the broker's nor the kernel's own threads': other processes, and interrupts. Less than nothing if the
    /// samples missed more than others did.
    pub others_cpu_s: f64,
    /// CPU seconds that the hypervisor gave to other machines while this one had something to do; in none of the others.
    pub stolen_cpu_s: f64,
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
        let broker = pid.map(process::cpu).transpose()?;
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
    /// The parts of it, as the kernel splits up what it has sampled.
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
        // What goes back shows.
        let less = |to: Duration, from: Duration| to.as_secs_f64() - from.as_secs_f64();
        let optional = |to: Option<u64>, from: Option<u64>| Some(to?.saturating_sub(from?));
        let broker = from.broker.as_ref().zip(to.broker.as_ref()).map(|(from, to)| BrokerCost {
            cpu_s: less(to.cpu, from.cpu),
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
        let ran = |(id, name, to): &ThreadTime| {
            let before =
                from.threads.iter().find(|(other, ..)| other == id).map_or(Duration::ZERO, |it| it.2);
            (name.clone(), less(*to, before) / seconds)
        };
        let machine_less_client_cpu_s = less(to.machine.busy, from.machine.busy) - client_cpu_s;
        let kernel_cpu_s = less(to.kernel, from.kernel);
        let known = kernel_cpu_s + broker.as_ref().map_or(0.0, |broker| broker.cpu_s);
        Cost {
            seconds,
            broker,
            machine_less_client_cpu_s,
            kernel_cpu_s,
            others_cpu_s: machine_less_client_cpu_s - known,
            stolen_cpu_s: less(to.machine.stolen, from.machine.stolen),
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
    use std::process::Command;

    /// After so many seconds; the rest is in milliseconds.
    fn moment(seconds: u64, busy: u64, stolen: u64, broker: u64, own: u64) -> Moment {
        Moment {
            at: Instant::now() + Duration::from_secs(seconds),
            broker: Some(Usage { cpu: Duration::from_millis(broker), ..Default::default() }),
            machine: MachineTimes {
                busy: Duration::from_millis(busy),
                stolen: Duration::from_millis(stolen),
            },
            kernel: Duration::ZERO,
            own: Duration::from_millis(own),
            threads: Vec::new(),
            device_written: None,
        }
    }

    #[test]
    fn what_a_hypervisor_takes_is_told_on_its_own() {
        let times = |text| MachineTimes::parse(text).unwrap();
        let line = times("cpu  100 20 30 5000 400 5 6 700 80 9\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
        assert_eq!((line.busy, line.stolen), (process::ticks(161), process::ticks(700)));
        assert_eq!(MachineTimes::parse("cpu  100 20"), None);
        let begin = moment(0, 1000, 500, 0, 0);
        let near = |value: f64, expected: f64| (value - expected).abs() < 1e-6;
        let cost = Cost::between(&begin, &moment(10, 9000, 2500, 4000, 3000));
        assert!(near(cost.others_cpu_s, 1.0) && near(cost.stolen_cpu_s, 2.0), "{cost:?}");
        // The samples saw less than the processes used: that is no nothing.
        let cost = Cost::between(&begin, &moment(10, 9000, 500, 6000, 4000));
        assert!(near(cost.others_cpu_s, -2.0) && near(cost.machine_less_client_cpu_s, 4.0), "{cost:?}");
    }

    /// CPU seconds of all children that have ended, as the kernel tells their parent.
    fn of_children() -> f64 {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the kernel fills in `usage`, which lives as long as the call; all zeros are a usage, too.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr());
            usage.assume_init()
        };
        let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
        seconds(usage.ru_utime) + seconds(usage.ru_stime)
    }

    #[test]
    fn what_another_process_uses_is_charged_to_it() {
        let before = of_children();
        // Whatever becomes of this test, it ends.
        let forever = "ulimit -t 5; while :; do :; done";
        let mut busy = Command::new("sh").args(["-c", forever]).spawn().unwrap();
        let watched = Watched::new(Some(busy.id()), None);
        let (charged, unknown) = (Moment::now(&watched).unwrap(), Moment::now(&Watched::default()).unwrap());
        while process::cpu(busy.id()).unwrap() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let charged = Cost::between(&charged, &Moment::now(&watched).unwrap());
        let unknown = Cost::between(&unknown, &Moment::now(&Watched::default()).unwrap());
        busy.kill().unwrap();
        busy.wait().unwrap();
        // Its whole life's: it was looked at a moment after its beginning, and before its end.
        let all = of_children() - before;
        let broker = charged.broker.unwrap();
        assert!(broker.cpu_s > 0.45 && broker.cpu_s <= all + 0.01, "{broker:?} of {all}");
        assert!((broker.user_s + broker.system_s - broker.cpu_s).abs() < 0.05, "{broker:?}");
        // Not its broker's: another's. By samples, so not to the millisecond.
        assert!(unknown.others_cpu_s > 0.2, "{unknown:?}");
    }

    #[test]
    fn a_thread_that_has_ended_counts() {
        let thread = |id, name: &str, seconds| (id, name.to_owned(), Duration::from_secs(seconds));
        let begin =
            Moment { threads: vec![thread(1, "lives", 1), thread(2, "ends", 1)], ..moment(0, 0, 0, 0, 0) };
        let end = Moment { threads: vec![thread(1, "lives", 5)], ..moment(10, 0, 0, 0, 0) };
        let end = end.with_ended(vec![thread(1, "lives", 4), thread(2, "ends", 9)]);
        assert_eq!(end.threads.len(), 2);
        let (name, share) = Cost::between(&begin, &end).client_busiest_thread.unwrap();
        assert!(name == "ends" && (share - 0.8).abs() < 0.01, "{name} {share}");
    }

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
