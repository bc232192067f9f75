//! `/proc/PID`: what a process has used.

use anyhow::{Context, Result};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

/// Sums since the process began, and its memory now.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub cpu: Duration,
    /// How the kernel splits it up, which it only samples; and not to the nanosecond.
    pub user: Duration,
    pub system: Duration,
    /// Of each thread that lives.
    pub switches: HashMap<u32, Switches>,
    pub resident: u64,
    pub resident_peak: u64,
    /// What it made the storage layer write: for the page cache when pages become dirty. None where that may not be read.
    pub written: Option<u64>,
    pub read: Option<u64>,
}

/// Of the CPU, to another thread: because it waits, or because others shall run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Switches {
    pub voluntary: u64,
    pub forced: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Result<Usage> {
        let root = format!("/proc/{pid}");
        let (user, system) = user_and_system(pid)?;
        let status = fs::read_to_string(format!("{root}/status"))?;
        let kib = |name| field(&status, name).map_or(0, |kib| kib << 10);
        let io = fs::read_to_string(format!("{root}/io")).ok();
        let mut usage = Usage {
            cpu: cpu(pid)?,
            user,
            system,
            resident: kib("VmRSS"),
            resident_peak: kib("VmHWM"),
            written: io.as_deref().and_then(|io| field(io, "write_bytes")),
            read: io.as_deref().and_then(|io| field(io, "read_bytes")),
            ..Default::default()
        };
        for task in fs::read_dir(format!("{root}/task"))?.flatten() {
            // A thread may end meanwhile.
            let Ok(status) = fs::read_to_string(task.path().join("status")) else { continue };
            let Some(id) = task.file_name().to_str().and_then(|id| id.parse().ok()) else { continue };
            let count = |name| field(&status, name).unwrap_or(0);
            let (voluntary, forced) = (count("voluntary_ctxt_switches"), count("nonvoluntary_ctxt_switches"));
            usage.switches.insert(id, Switches { voluntary, forced });
        }
        Ok(usage)
    }

    /// Switches since an earlier moment, of the threads that live now.
    pub fn switches_since(&self, before: &Usage) -> Switches {
        let mut sum = Switches::default();
        for (id, now) in &self.switches {
            let then = before.switches.get(id).copied().unwrap_or_default();
            sum.voluntary += now.voluntary.saturating_sub(then.voluntary);
            sum.forced += now.forced.saturating_sub(then.forced);
        }
        sum
    }
}

/// CPU time of a process, and of all threads that it had. The same clock for all processes: the scheduler's, which does not sample, and
/// does not run while a hypervisor has the CPU, if that tells.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut clock = 0;
    // SAFETY: the kernel fills in `clock`, which lives as long as the call.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    clock_time(clock)
        .filter(|_| error == 0)
        .with_context(|| format!("process {pid} has no clock: has it ended?"))
}

fn clock_time(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in `time`, which lives as long as the call.
    let error = unsafe { libc::clock_gettime(clock, &mut time) };
    (error == 0).then(|| Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32))
}

/// CPU time of a process in user and in kernel mode.
fn user_and_system(pid: u32) -> Result<(Duration, Duration)> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path)
        .with_context(|| format!("process {pid} cannot be looked at: has it ended?"))?;
    let (user, system) = cpu_ticks(&stat).context(path)?;
    Ok((ticks(user), ticks(system)))
}

/// User and system time of a `stat` line. The name in parentheses may contain anything.
fn cpu_ticks(stat: &str) -> Option<(u64, u64)> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

pub(super) fn ticks(ticks: u64) -> Duration {
    // SAFETY: no memory is involved.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Duration::from_secs_f64(ticks as f64 / per_second.max(1) as f64)
}

/// CPU time of the kernel's own threads: writeback and block work among them.
pub fn kernel_threads_cpu() -> Duration {
    let Ok(processes) = fs::read_dir("/proc") else { return Duration::ZERO };
    let cpu_of = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        // All of them are children of kthreadd, which is process 2.
        let parent = stat[stat.rfind(')')? + 1..].split_whitespace().nth(1)?;
        if parent == "2" { cpu(pid).ok() } else { None }
    };
    processes.flatten().filter_map(cpu_of).sum()
}

/// A thread's number and name, and its CPU time since it began.
pub type ThreadTime = (u32, String, Duration);

/// Of each thread of this process.
pub fn own_threads() -> Vec<ThreadTime> {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let thread = |task: fs::DirEntry| {
        let id = task.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        // Nanoseconds on a CPU, then waiting for one, then time slices.
        let stat = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let ran = Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?);
        Some((id, name.trim().to_owned(), ran))
    };
    tasks.flatten().filter_map(thread).collect()
}

/// CPU time of this process.
pub fn own_cpu() -> Duration {
    clock_time(libc::CLOCK_PROCESS_CPUTIME_ID).unwrap_or_default()
}

/// The command line that a process was started with.
pub fn command(pid: u32) -> Result<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).with_context(|| format!("process {pid}"))?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    Ok(words.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "))
}

/// The process on this machine that listens on the address; none if it is elsewhere, or another user's.
pub fn listener(address: &str) -> Option<u32> {
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().ok()?.collect();
    let port = addresses.iter().find(|address| is_local(address))?.port();
    let inodes: HashSet<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening(&table, port))
        .collect();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .find(|pid| holds(Path::new(&format!("/proc/{pid}/fd")), &inodes))
}

/// An address of this machine's own can be bound.
fn is_local(address: &SocketAddr) -> bool {
    std::net::UdpSocket::bind((address.ip(), 0)).is_ok()
}

/// Inodes of the sockets that listen on the port.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = u16::from_str_radix(fields.get(1)?.rsplit(':').next()?, 16).ok()?;
        (local == port && *fields.get(3)? == LISTEN)
            .then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn holds(files: &Path, inodes: &HashSet<String>) -> bool {
    let Ok(files) = fs::read_dir(files) else { return false };
    files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|name| name.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.is_some_and(|inode| inodes.contains(inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_contain_anything() {
        let stat = "77 (a ) (b) S 1 77 77 0 -1 4194560 5 0 0 0 1234 56 0 0 20 0 9 0 1 2 3";
        assert_eq!(cpu_ticks(stat), Some((1234, 56)));
    }

    #[test]
    fn this_process_is_found_by_its_port_and_has_used_something() {
        let listener_socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener_socket.local_addr().unwrap().to_string();
        assert_eq!(listener(&address), Some(std::process::id()));
        drop(listener_socket);
        assert_eq!(listener(&address), None);
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 1 << 20 && usage.resident_peak >= usage.resident);
        assert!(own_cpu() > Duration::ZERO);
    }
}
