//! The kernel itself, and whether it lets the broker use io_uring.

use crate::tune::cpus::leading_number;
use crate::tune::item::{Apply, Effect, Finding, Group, Item, single};

pub const GROUP: Group = Group { title: "Kernel", items: &[VERSION, IO_URING, SECCOMP] };

const RELEASE: &str = "/proc/sys/kernel/osrelease";
const DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";

const VERSION: Item = Item {
    name: "kernel-version",
    title: "Kernel release",
    looks_at: "/proc/sys/kernel/osrelease",
    wanted: "5.11 at the least, 6.1 or newer is recommended",
    reason: "5.11 has what the broker uses of io_uring. From 6.0 on a ring can be told that one thread alone uses \
             it and that completions need not interrupt that thread (SINGLE_ISSUER, COOP_TASKRUN), which is how the broker sets up the ring of its data.",
    effect: Effect::NotMeasured("one kernel to a machine."),
    apply: Apply::ByHand {
        how: "install a newer kernel of your distribution and reboot",
        undo: "boot the former kernel",
    },
    lasting: "the boot loader's default entry",
    check: |machine| {
        let release = match machine.read(RELEASE) {
            Ok(release) => release,
            Err(error) => return vec![Finding::unreadable(RELEASE, &error)],
        };
        let mut parts = release.split('.').map(leading_number::<u32>);
        let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
            return vec![Finding::unknown(format!("{release:?} is no release number"))];
        };
        vec![match (major, minor) {
            (..=4, _) | (5, ..=10) => Finding::differs(release, "the broker does not start on it"),
            (5, _) | (6, 0) => Finding::ok(release).note("6.1 or newer is recommended"),
            _ => Finding::ok(release),
        }]
    },
};

const IO_URING: Item = Item {
    name: "io-uring",
    title: "io_uring allowed",
    looks_at: "/proc/sys/kernel/io_uring_disabled",
    wanted: "0",
    reason: "All file I/O, every timer and every wait for a socket go through io_uring; without it the broker refuses \
             to start, and says this remedy. 1 lets in only CAP_SYS_ADMIN and members of kernel.io_uring_group, 2 \
             nobody. Kernels before 6.6 have no such switch and allow it.",
    effect: Effect::NotMeasured("not a speed: without it the broker does not start."),
    apply: Apply::Writes,
    lasting: "`kernel.io_uring_disabled = 0` in /etc/sysctl.d/90-corelog.conf. Where policy wants 1: keep it, and set \
              `kernel.io_uring_group` to the group the broker runs as",
    check: |machine| {
        let finding = single(machine, DISABLED, |now| {
            let why = match now {
                "0" => return None,
                "1" => "1 lets in only CAP_SYS_ADMIN and kernel.io_uring_group",
                _ => "nobody may use io_uring: the broker does not start",
            };
            Some(("0".to_owned(), why.to_owned()))
        });
        vec![finding]
    },
};

const SECCOMP: Item = Item {
    name: "seccomp",
    title: "Container seccomp profile",
    looks_at: "/proc/PID/status",
    wanted: "no filter, or one that allows io_uring_setup, io_uring_enter and io_uring_register",
    reason: "Docker since 25.0 and containerd since 2.0, and with them Kubernetes' RuntimeDefault, leave these three out of what a container may call: the broker then refuses to start with EPERM, whatever the sysctl says. \
             What a filter lets through cannot be read from /proc; only the attempt tells, and the broker makes it \
             at start-up.",
    effect: Effect::NotMeasured("not a speed: without it the broker does not start."),
    apply: Apply::ByHand {
        how: "`corectl tune seccomp PROFILE > corelog-seccomp.json` adds the three to your runtime's profile; run the \
              container with `--security-opt seccomp=corelog-seccomp.json` (Kubernetes: seccompProfile of type \
              Localhost). In a systemd unit, @system-service and @aio have them",
        undo: "run the container with its former profile",
    },
    lasting: "the container's or the pod's definition",
    check: |machine| {
        let process = machine.broker();
        let path = format!("{}/status", process.dir);
        let status = match machine.read(&path) {
            Ok(status) => status,
            Err(error) => return vec![Finding::unreadable(&path, &error)],
        };
        let mode = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map(str::trim);
        let finding = match mode {
            Some("0") => Finding::ok("no filter"),
            // It got past the check that every start makes.
            Some(_) if process.who.starts_with("broker") => {
                Finding::ok("a filter").note("the broker runs under it")
            }
            Some(_) => Finding::unknown("a filter is at work; what it allows shows when the broker starts"),
            None => Finding::unknown("the kernel does not tell of seccomp"),
        };
        vec![finding.of(process.who)]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn releases() {
        let fixture = Fixture::new("releases");
        for (release, verdict, noted) in [
            ("5.4.0-42-generic", Verdict::Differs, true),
            ("5.15.0", Verdict::Ok, true),
            ("6.1.0-13-amd64", Verdict::Ok, false),
            ("10.0", Verdict::Ok, false),
            ("strange", Verdict::Unknown, true),
        ] {
            fixture.file(RELEASE, release);
            let found = (VERSION.check)(&fixture.machine()).remove(0);
            assert_eq!((found.verdict, !found.note.is_empty()), (verdict, noted), "{release}");
        }
    }
}
