//! Where the time comes from.

use crate::tune::item::{Apply, Effect, Finding, Group, Item};

pub const GROUP: Group = Group { title: "Clock", items: &[SOURCE] };

const DIR: &str = "/sys/devices/system/clocksource/clocksource0";
/// Those that a program reads without a system call (vDSO).
const FAST: [&str; 4] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter"];

const SOURCE: Item = Item {
    name: "clock-source",
    title: "Clock source",
    looks_at: "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    wanted: "one that is read without a system call: tsc, kvm-clock, hyperv_clocksource_tsc_page, arch_sys_counter",
    reason: "Each turn of a core's executor, and each request for its latency figures, reads the clock. From hpet and acpi_pm, and from xen on many hosts, each reading is a system call, with the first two an access to a slow device besides.",
    effect: Effect::Measured(
        "2 virtual CPUs, Linux 6.18, a loop of a million clock_gettime(CLOCK_MONOTONIC), the best of \
                              7, three rounds by turns: tsc 16.1 to 16.2 ns, kvm-clock 20.2 to 20.4 ns a call. Either \
                              is good. No slow source is there to compare with.",
    ),
    apply: Apply::Writes,
    lasting: "`clocksource=tsc` on the kernel command line. If tsc is not even available, the kernel found it unstable \
              (`dmesg | grep -i tsc`): mend the firmware or the hypervisor's settings; do not force it with tsc=reliable",
    check: |machine| {
        let path = format!("{DIR}/current_clocksource");
        let now = match machine.read(&path) {
            Ok(now) => now,
            Err(error) => return vec![Finding::unreadable(&path, &error)],
        };
        if FAST.contains(&now.as_str()) {
            return vec![Finding::ok(now)];
        }
        let available = machine.read(&format!("{DIR}/available_clocksource")).unwrap_or_default();
        let better = FAST.into_iter().find(|fast| available.split_whitespace().any(|source| source == *fast));
        vec![match better {
            Some(better) => Finding::differs(now, "each reading is a system call").change(path, better),
            None => Finding::differs(
                now,
                format!("each reading is a system call, and there is no other but {available}"),
            ),
        }]
    },
};
