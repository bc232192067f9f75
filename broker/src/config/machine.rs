//! What this process has to run on: CPUs, memory, a name.

use std::fs;
use std::path::{Path, PathBuf};

use super::quantity;

/// The machine as this process sees it through its CPU affinity and its cgroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The CPUs of the process's affinity set, ascending.
    pub cpus: Vec<usize>,
    /// How many CPUs' time the cgroup allows, rounded up; `None` is no quota.
    pub cpu_quota: Option<usize>,
    /// The machine's memory, or the cgroup's limit if that is less.
    pub memory_bytes: u64,
    pub host_name: String,
}

impl Machine {
    /// Asks the kernel. Reads a few small files of /proc and /sys: for start-up.
    pub fn detect() -> Machine {
        let root = Path::new("/");
        let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| mem_total(&text)).unwrap_or(0);
        let limits = Limits::read(root);
        let mut cpus: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        cpus.sort_unstable();
        let host_name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned();
        Machine {
            cpus,
            cpu_quota: limits.cpus,
            memory_bytes: limits.memory_bytes.map_or(total, |limit| limit.min(total)),
            host_name: if host_name.is_empty() { "localhost".to_owned() } else { host_name },
        }
    }

    /// The CPUs for `corelog.cores=auto`.
    pub fn default_cpus(&self) -> Vec<usize> {
        let count = self.cpu_quota.unwrap_or(usize::MAX).min(self.cpus.len());
        self.cpus[..count].to_vec()
    }

    /// The budget for `corelog.memory=auto`: a quarter of the memory, between the least and the most that cores
    /// make use of by default.
    pub fn default_memory_bytes(&self, cores: usize) -> u64 {
        let cores = cores as u64;
        (self.memory_bytes / 4).clamp(cores * MEMORY_PER_CORE_MIN, cores * MEMORY_PER_CORE_DEFAULT_MAX)
    }
}

/// Below this a core has no room for its journal groups, tail cache and one large request at once.
pub const MEMORY_PER_CORE_MIN: u64 = 64 << 20;
/// With it thousands of thin logs are written to their segments in pieces of about 100 KB. `corelog.memory` goes beyond it.
const MEMORY_PER_CORE_DEFAULT_MAX: u64 = 1 << 30;
const _: () = assert!(MEMORY_PER_CORE_MIN < MEMORY_PER_CORE_DEFAULT_MAX);

/// `corelog.memory`: `auto`, or bytes.
pub fn canonical_memory(text: &str) -> Result<String, String> {
    if text == "auto" {
        return Ok(text.to_owned());
    }
    quantity::parse_size(text).map(|bytes| bytes.to_string())
}

fn mem_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The least limits on the way from this process's cgroup to the root, v1 and v2.
#[derive(Debug, Default, PartialEq, Eq)]
struct Limits {
    memory_bytes: Option<u64>,
    cpus: Option<usize>,
}

impl Limits {
    /// `root` is `/`, or a copy of its `proc` and `sys` in tests.
    fn read(root: &Path) -> Limits {
        let mut limits = Limits::default();
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let mounts = root.join("sys/fs/cgroup");
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
            let (Some(controllers), Some(path)) = (controllers, path) else { continue };
            if controllers.is_empty() {
                limits.walk(&mounts, path, &["memory.max"], v2_cpus);
            }
            // v1 mounts one hierarchy per set of controllers.
            if controllers.split(',').any(|controller| controller == "memory") {
                limits.walk(&mounts.join("memory"), path, &["memory.limit_in_bytes"], |_| None);
            }
            if controllers.split(',').any(|controller| controller == "cpu") {
                limits.walk(&mounts.join(controllers), path, &[], v1_cpus);
            }
        }
        limits
    }

    fn walk(&mut self, mount: &Path, path: &str, memory: &[&str], cpus: fn(&Path) -> Option<usize>) {
        // A path from outside of this mount's namespace names nothing here: then only the root is left.
        let mut directory: PathBuf = mount.join(path.trim_start_matches('/'));
        while directory.starts_with(mount) {
            for file in memory {
                let limit = read_number(&directory.join(file));
                self.memory_bytes = least(self.memory_bytes, limit);
            }
            self.cpus = least(self.cpus, cpus(&directory));
            if !directory.pop() {
                break;
            }
        }
    }
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The number in a file of one line; `max` and the like are none.
fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn v2_cpus(directory: &Path) -> Option<usize> {
    let text = fs::read_to_string(directory.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole_cpus(quota.parse().ok()?, period.parse().ok()?)
}

fn v1_cpus(directory: &Path) -> Option<usize> {
    // The quota is -1 without a limit, which is no u64.
    whole_cpus(
        read_number(&directory.join("cpu.cfs_quota_us"))?,
        read_number(&directory.join("cpu.cfs_period_us"))?,
    )
}

fn whole_cpus(quota: u64, period: u64) -> Option<usize> {
    (period > 0).then(|| quota.div_ceil(period).max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Root(PathBuf);

    impl Root {
        fn new(tag: &str, files: &[(&str, &str)]) -> Root {
            let root = std::env::temp_dir().join(format!("corelog-machine-{tag}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Root(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let v2 = Root::new(
            "v2",
            &[
                ("proc/self/cgroup", "0::/pods/one\n"),
                ("sys/fs/cgroup/pods/one/memory.max", "max\n"),
                ("sys/fs/cgroup/pods/memory.max", "1000\n"),
                ("sys/fs/cgroup/pods/one/cpu.max", "150000 100000\n"),
                ("sys/fs/cgroup/pods/cpu.max", "max 100000\n"),
            ],
        );
        assert_eq!(Limits::read(&v2.0), Limits { memory_bytes: Some(1000), cpus: Some(2) });
        let v1 = Root::new(
            "v1",
            &[
                ("proc/self/cgroup", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "2000\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
                ("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ],
        );
        assert_eq!(Limits::read(&v1.0), Limits { memory_bytes: Some(2000), cpus: None });
        let none = Root::new("none", &[]);
        assert_eq!(Limits::read(&none.0), Limits::default());
    }

    #[test]
    fn defaults() {
        let machine = |cpus: usize, quota, memory_gib: u64| Machine {
            cpus: (0..cpus).collect(),
            cpu_quota: quota,
            memory_bytes: memory_gib << 30,
            host_name: "box".into(),
        };
        assert_eq!(machine(4, None, 1).default_cpus(), [0, 1, 2, 3]);
        assert_eq!(machine(4, Some(2), 1).default_cpus(), [0, 1]);
        assert_eq!(machine(4, Some(9), 1).default_cpus(), [0, 1, 2, 3]);
        assert_eq!(machine(2, None, 2).default_memory_bytes(2), 512 << 20);
        assert_eq!(machine(2, None, 64).default_memory_bytes(2), 2 << 30);
        assert_eq!(machine(8, None, 1).default_memory_bytes(8), 512 << 20);
        assert_eq!(mem_total("MemTotal:       24689764 kB\nMemFree: 1 kB\n"), Some(24_689_764 << 10));
        let here = Machine::detect();
        assert!(!here.cpus.is_empty() && here.memory_bytes > 64 << 20 && !here.host_name.is_empty());
    }
}
