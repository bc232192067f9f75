//! The process's own numbers, under the names that Prometheus's libraries have made customary.

use std::fs;

use super::families;
use super::snapshot::Snapshot;

/// Reads them. A few small files of /proc: for the service thread.
pub fn process() -> Snapshot {
    let mut snapshot = Snapshot::new(None);
    snapshot.put_labelled(&families::BUILD_INFO, crate::version::version(), 1);
    snapshot.put(&families::LOG_LINES_DROPPED, crate::logging::dropped_lines() as u64);
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    if let Some(stat) = parse_stat(&stat) {
        // SAFETY: sysconf has no preconditions.
        let (ticks, page) = unsafe { (libc::sysconf(libc::_SC_CLK_TCK), libc::sysconf(libc::_SC_PAGESIZE)) };
        let ticks = ticks.max(1) as f64;
        snapshot.put_decimal(&families::CPU_SECONDS, stat.cpu_ticks as f64 / ticks);
        snapshot.put(&families::RESIDENT_BYTES, stat.resident_pages * page.max(1) as u64);
        if let Some(boot) = boot_time(&boot) {
            snapshot.put_decimal(&families::START_TIME, boot as f64 + stat.start_ticks as f64 / ticks);
        }
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        snapshot.put(&families::OPEN_FDS, descriptors.count() as u64);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    if let Some(limit) = open_files_limit(&limits) {
        snapshot.put(&families::MAX_FDS, limit);
    }
    snapshot
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    resident_pages: u64,
}

/// See proc_pid_stat(5): utime 14, stime 15, starttime 22, rss 24. The name, field 2, may hold anything in its
/// parentheses.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
    Some(Stat { cpu_ticks: field(14)? + field(15)?, start_ticks: field(22)?, resident_pages: field(24)? })
}

fn boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn open_files_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 12345 1000 77 18446744073709551615";
        assert_eq!(parse_stat(stat), Some(Stat { cpu_ticks: 200, start_ticks: 12345, resident_pages: 77 }));
        assert_eq!(parse_stat("7 (a) S 1"), None);
        assert_eq!(boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000));
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(open_files_limit(limits), Some(1024));
    }
}
