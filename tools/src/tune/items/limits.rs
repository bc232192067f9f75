//! Limits of the process, as the broker checks them when it starts.

use crate::tune::item::{Apply, Effect, Finding, Group, Item};
use crate::tune::machine::Machine;

pub const GROUP: Group = Group { title: "Limits", items: &[OPEN_FILES, LOCKED_MEMORY] };

/// Open files below which the broker complains when it starts.
pub const OPEN_FILES_MIN: u64 = 10_000;
/// Locked memory below which the executor refuses to start, in bytes.
pub const LOCKED_MIN: u64 = 512 << 10;
/// Locked memory that is asked for each core, in bytes.
pub const LOCKED_PER_CORE: u64 = 512 << 10;

const OPEN_FILES: Item = Item {
    name: "open-files",
    title: "Open files",
    looks_at: "/proc/PID/limits",
    wanted: "a hard limit of 10000 at the least; 1048576 in the systemd unit",
    reason: "One descriptor for each connection, and one for each segment being written or read. The broker raises its \
             soft limit to the hard one, and complains when it starts with fewer than 10000. Out of descriptors, new \
             connections wait and cold reads fail.",
    effect: Effect::Measured(
        "not a speed: started with a hard limit of 2000 the broker says so and names this remedy.",
    ),
    apply: Apply::ByHand {
        how: "`LimitNOFILE=1048576` in the systemd unit, `--ulimit nofile=1048576` for Docker, `ulimit -Hn 1048576` in \
              the shell that starts it. No more than fs.nr_open (1048576 unless changed) can be given",
        undo: "take the line out again and restart the broker",
    },
    lasting: "the systemd unit; for logins a `nofile` line in /etc/security/limits.conf",
    check: |machine| {
        vec![limit(
            machine,
            "Max open files",
            |_| OPEN_FILES_MIN,
            "files and connections may be open at a time",
        )]
    },
};

const LOCKED_MEMORY: Item = Item {
    name: "locked-memory",
    title: "Locked memory",
    looks_at: "/proc/PID/limits, /proc/PID/status",
    wanted: "512 KiB for each core; 512 KiB in all with CAP_IPC_LOCK; `infinity` in the systemd unit",
    reason: "The rings of a core and the memory registered with them are locked. With too little of it the executors \
             do not start; the broker checks it first and says so. The journal and the cache are not locked.",
    effect: Effect::Measured(
        "not a speed: as a user without privileges and on 2 cores the broker refuses to start with 256 KiB, and starts with 1 MiB.",
    ),
    apply: Apply::ByHand {
        how: "`LimitMEMLOCK=infinity` in the systemd unit, `--ulimit memlock=-1` for Docker, `ulimit -Hl unlimited` in the \
              shell that starts it; or grant CAP_IPC_LOCK",
        undo: "take the line out again and restart the broker",
    },
    lasting: "the systemd unit; for logins a `memlock` line in /etc/security/limits.conf",
    check: |machine| {
        let need = |dir: &str| match may_lock_all(machine, dir) {
            true => LOCKED_MIN,
            false => LOCKED_MIN.max(machine.cpus().len() as u64 * LOCKED_PER_CORE),
        };
        vec![limit(machine, "Max locked memory", need, "bytes may be locked")]
    },
};

/// The hard limit of the broker, or of a broker started from here, against what is needed.
fn limit(machine: &Machine, name: &str, need: impl Fn(&str) -> u64, what: &str) -> Finding {
    let process = machine.broker();
    let path = format!("{}/limits", process.dir);
    let limits = match machine.read(&path) {
        Ok(limits) => limits,
        Err(error) => return Finding::unreadable(&path, &error).of(process.who),
    };
    // `Max open files            1024                 524288               files`
    let hard = limits
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|line| line.split_whitespace().nth(1))
        .map(|hard| (hard.to_owned(), if hard == "unlimited" { Some(u64::MAX) } else { hard.parse().ok() }));
    let need = need(&process.dir);
    let finding = match hard {
        Some((text, Some(hard))) if hard >= need => Finding::ok(text),
        Some((text, Some(_))) => Finding::differs(&text, format!("only {text} {what}, {need} are needed")),
        _ => Finding::unknown(format!("{path} has no line {name:?}")),
    };
    finding.of(process.who)
}

/// CAP_IPC_LOCK in the effective set.
fn may_lock_all(machine: &Machine, dir: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = machine.read(&format!("{dir}/status")).unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn the_broker_needs_what_is_said_here() {
        assert_eq!(OPEN_FILES_MIN, corelog_io::NOFILE_MIN);
        assert_eq!(LOCKED_MIN, corelog_io::MEMLOCK_MIN);
        assert_eq!(LOCKED_PER_CORE, corelog_io::MEMLOCK_PER_CORE);
    }

    #[test]
    fn locked_memory_is_needed_by_the_core_unless_privileged() {
        let fixture = Fixture::new("locked");
        fixture.file("/sys/devices/system/cpu/online", "0-3");
        for (hard, capabilities, verdict) in [
            ("2097152", "0000000000000000", Verdict::Ok),
            ("2097151", "0000000000000000", Verdict::Differs),
            ("524288", "0000000000004000", Verdict::Ok),
            ("65536", "0000000000004000", Verdict::Differs),
            ("unlimited", "0000000000000000", Verdict::Ok),
        ] {
            fixture
                .file("/proc/self/limits", &format!("Max locked memory         65536     {hard}    bytes"));
            fixture
                .file("/proc/self/status", &format!("Name:\tcorectl\nCapEff:\t{capabilities}\nSeccomp:\t0"));
            let found = (LOCKED_MEMORY.check)(&fixture.machine()).remove(0);
            assert_eq!(found.verdict, verdict, "{hard} {capabilities}: {}", found.note);
        }
    }

    #[test]
    fn a_running_broker_is_looked_at_rather_than_this_shell() {
        let fixture = Fixture::new("running");
        fixture.file(
            "/proc/self/limits",
            "Max open files            1024                 1048576              files",
        );
        fixture.file("/proc/77/comm", "corelog\n");
        fixture.file(
            "/proc/77/limits",
            "Max open files            1024                 4096                 files",
        );
        let found = (OPEN_FILES.check)(&fixture.machine()).remove(0);
        assert_eq!((found.subject.as_str(), found.verdict), ("broker (pid 77)", Verdict::Differs));
    }
}
