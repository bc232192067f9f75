//! The machine that is looked at: every access goes below a root directory, `/` but for tests.

use super::cpus;
use super::mount::{self, Mount};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Layers of a stacked block device (RAID on encryption on partitions) that are followed.
const STACK_MAX: usize = 8;

pub struct Machine {
    root: PathBuf,
    data_dir: PathBuf,
    /// The CPUs that the broker is to run on.
    cpus: Vec<usize>,
}

/// A process, as its directory under `/proc` shows it.
pub struct Process {
    /// `broker`, or the shell that this runs in.
    pub who: String,
    pub dir: String,
}

impl Machine {
    /// `cpus`: those of the broker, if not all that are online.
    pub fn new(root: &Path, data_dir: &Path, cpus: Option<Vec<usize>>) -> io::Result<Machine> {
        let data_dir =
            if root == Path::new("/") { std::path::absolute(data_dir)? } else { data_dir.to_owned() };
        let mut machine = Machine { root: fs::canonicalize(root)?, data_dir, cpus: Vec::new() };
        machine.cpus = cpus.or_else(|| machine.online()).unwrap_or_else(|| vec![0]);
        Ok(machine)
    }

    fn online(&self) -> Option<Vec<usize>> {
        cpus::parse(&self.read("/sys/devices/system/cpu/online").ok()?).ok()
    }

    /// One of the broker's CPUs that the machine does not have, if it tells which it has.
    pub fn absent_cpu(&self) -> Option<usize> {
        let online = self.online()?;
        self.cpus.iter().copied().find(|cpu| !online.contains(cpu))
    }

    pub fn cpus(&self) -> &[usize] {
        &self.cpus
    }

    /// Where `path`, which begins with a slash, lies.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text, without the space around it.
    pub fn read(&self, path: &str) -> io::Result<String> {
        Ok(fs::read_to_string(self.at(path))?.trim().to_owned())
    }

    /// Writes to a file that is there, in one write, as the kernel wants it.
    pub fn write(&self, path: &str, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).truncate(true).open(self.at(path))?.write_all(value.as_bytes())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The names in a directory, numbers in them in order; none if it is not there.
    pub fn list(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.at(path)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_by_cached_key(|name| {
            let digits = name.find(|letter: char| letter.is_ascii_digit()).unwrap_or(name.len());
            let number: u64 = cpus::leading_number(&name[digits..]).unwrap_or(0);
            (name[..digits].to_owned(), number, name.clone())
        });
        names
    }

    /// Where a path leads once its links are followed, as seen from the root.
    pub fn resolve(&self, path: &str) -> io::Result<String> {
        let real = fs::canonicalize(self.at(path))?;
        let below = real.strip_prefix(&self.root).unwrap_or(&real);
        Ok(format!("/{}", below.display()))
    }

    /// The mount that the data directory lies on, or will lie on once it is made.
    pub fn data_mount(&self) -> Result<Mount, String> {
        let mounts =
            self.read("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
        let named = self.data_dir.to_string_lossy().into_owned();
        let there = self.data_dir.ancestors().find_map(|dir| self.resolve(&dir.to_string_lossy()).ok());
        mount::holding(&mounts, Path::new(there.as_deref().unwrap_or(&named)))
            .ok_or_else(|| format!("no mount holds {named}"))
    }

    /// The disks under the data directory, as they are named in `/sys/block`: whole ones, below partitions and stacks.
    pub fn data_disks(&self) -> Result<Vec<String>, String> {
        let mount = self.data_mount()?;
        let device = self.resolve(&format!("/sys/dev/block/{}", mount.device)).map_err(|_| {
            format!("{} on {} has no block device of its own", mount.kind, mount.mount_point.display())
        })?;
        let mut disks = Vec::new();
        self.collect_disks(&device, STACK_MAX, &mut disks);
        if disks.is_empty() { Err(format!("{device} leads to no disk")) } else { Ok(disks) }
    }

    fn collect_disks(&self, device: &str, depth: usize, disks: &mut Vec<String>) {
        let whole = match self.exists(&format!("{device}/partition")) {
            true => device.rsplit_once('/').map_or(device, |(parent, _)| parent),
            false => device,
        };
        let below = self.list(&format!("{whole}/slaves"));
        if below.is_empty() || depth == 0 {
            let name = whole.rsplit('/').next().unwrap_or(whole);
            let paths = self.paths_to(name);
            let all = if paths.is_empty() { vec![name.to_owned()] } else { paths };
            disks.extend(all.into_iter().filter(|name| !disks.contains(name)).collect::<Vec<_>>());
        }
        for slave in below {
            if depth > 0
                && let Ok(slave) = self.resolve(&format!("{whole}/slaves/{slave}"))
            {
                self.collect_disks(&slave, depth - 1, disks);
            }
        }
    }

    /// The devices behind an NVMe drive with several ports (`nvme0n1`: `nvme0c0n1`, ...), which have the queues.
    fn paths_to(&self, disk: &str) -> Vec<String> {
        let Some((subsystem, namespace)) = disk.strip_prefix("nvme").and_then(|rest| rest.split_once('n'))
        else {
            return Vec::new();
        };
        let (start, end) = (format!("nvme{subsystem}c"), format!("n{namespace}"));
        let mut all = self.list("/sys/block");
        all.retain(|name| {
            let controller = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
            controller.is_some_and(|controller| controller.parse::<u32>().is_ok())
        });
        all
    }

    /// Network interfaces with hardware (or a hypervisor) behind them; not bridges, tunnels or the loopback.
    pub fn interfaces(&self) -> Vec<String> {
        let mut all = self.list("/sys/class/net");
        all.retain(|name| self.exists(&format!("/sys/class/net/{name}/device")));
        all
    }

    /// The broker that runs on the data directory if there is one, or else this process, whose limits a broker started from
    /// here gets. Where there is no such directory yet, any broker will do.
    pub fn broker(&self) -> Process {
        let named = self.processes_named("corelog");
        let there = self.exists(&self.data_dir.to_string_lossy());
        let found = match there {
            true => named.into_iter().find(|pid| self.serves_data(*pid)),
            false => named.into_iter().next(),
        };
        match found {
            Some(pid) => Process { who: format!("broker (pid {pid})"), dir: format!("/proc/{pid}") },
            None => Process { who: "this shell".to_owned(), dir: "/proc/self".to_owned() },
        }
    }

    /// Whether a process has a file open in the data directory: a broker holds its lock file open. Who may not see that sees
    /// what it was started with.
    fn serves_data(&self, pid: u32) -> bool {
        let named = self.data_dir.to_string_lossy().into_owned();
        let data_dir = self.resolve(&named).unwrap_or(named);
        let files = self.at(&format!("/proc/{pid}/fd"));
        if let Ok(entries) = fs::read_dir(files) {
            let mut targets = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            return targets.any(|target| target.starts_with(&data_dir));
        }
        let Ok(line) = fs::read(self.at(&format!("/proc/{pid}/cmdline"))) else { return false };
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        let given = words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix("--data-dir") {
            Some("") => words.get(at + 1).copied(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        });
        // A name from elsewhere than the root hangs on where that process stands.
        given.is_some_and(|given| self.resolve(given).is_ok_and(|given| given == data_dir))
    }

    /// A process with this name, by its number.
    pub fn process_named(&self, name: &str) -> Option<u32> {
        self.processes_named(name).into_iter().next()
    }

    fn processes_named(&self, name: &str) -> Vec<u32> {
        let pids = self.list("/proc").into_iter().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid| self.read(&format!("/proc/{pid}/comm")).is_ok_and(|comm| comm == name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::tune::fixture::Fixture;

    #[test]
    fn the_broker_is_the_one_on_the_data_directory() {
        let fixture = Fixture::new("brokers");
        let broker = || fixture.machine().broker().who;
        assert_eq!(broker(), "this shell");
        for (pid, file) in [(11, "/other/lock"), (12, "/data/lock")] {
            fixture.file(&format!("/proc/{pid}/comm"), "corelog");
            fixture.link(&format!("/proc/{pid}/fd/3"), file);
        }
        // Before it is there, any says how one is started here.
        assert_eq!(broker(), "broker (pid 11)");
        fixture.file("/data/lock", "");
        assert_eq!(broker(), "broker (pid 12)");
        fixture.link("/proc/12/fd/3", "/other/lock");
        assert_eq!(broker(), "this shell");
        // Not to be looked into: what it was started with has to do.
        std::fs::remove_dir_all(fixture.machine().at("/proc/12/fd")).unwrap();
        fixture.file("/proc/12/cmdline", "corelog\0--data-dir=/data\0");
        assert_eq!(broker(), "broker (pid 12)");
    }

    #[test]
    fn disks_are_found_below_partitions_stacks_and_paths() {
        let fixture = Fixture::new("stack");
        fixture.disk("nvme0n1", "xfs", "rw");
        let disks = || fixture.machine().data_disks();
        assert_eq!(disks(), Ok(vec!["nvme0n1".to_owned()]));
        for path in ["nvme0c0n1", "nvme0c1n1", "nvme0c0n2", "nvme1c0n1"] {
            fixture.file(&format!("/sys/block/{path}/queue/scheduler"), "[none]");
        }
        assert_eq!(disks(), Ok(vec!["nvme0c0n1".to_owned(), "nvme0c1n1".to_owned()]));
        // A RAID of a whole disk and a partition of another.
        fixture.link("/sys/dev/block/259:1", "../../devices/virtual/block/md0");
        fixture.file("/sys/devices/pci/sdb/queue/scheduler", "[none]");
        fixture.file("/sys/devices/pci/sdc/sdc2/partition", "2");
        fixture.link("/sys/devices/virtual/block/md0/slaves/sdb", "../../../../pci/sdb");
        fixture.link("/sys/devices/virtual/block/md0/slaves/sdc2", "../../../../pci/sdc/sdc2");
        assert_eq!(disks(), Ok(vec!["sdb".to_owned(), "sdc".to_owned()]));
        fixture.file("/proc/self/mountinfo", "1 0 0:40 / / rw - overlay overlay rw");
        assert!(disks().unwrap_err().contains("overlay on /"));
    }
}
