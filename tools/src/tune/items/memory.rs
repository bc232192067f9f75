//! Memory: what keeps the broker's pages where they are.

use crate::tune::item::{Apply, Effect, Finding, Group, Item, single, value_in};

pub const GROUP: Group = Group { title: "Memory", items: &[SWAP, HUGE_PAGES] };

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";
const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";

const SWAP: Item = Item {
    name: "swap",
    title: "Swappiness",
    looks_at: "/proc/swaps, /proc/sys/vm/swappiness",
    wanted: "no swap, or a swappiness of at most 1",
    reason: "Nearly all of the broker's memory is anonymous: the tail of every log, receive buffers, the journal's \
             blocks. A page of it in swap costs the core that touches it a read from disk, in which it serves nobody. \
             The broker uses no page cache, so nothing of its own is gained by making room for one; programs beside \
             it (backups, log shippers) fill it and push the broker out. Its memory is bounded by `--memory`, so it \
             does not grow into swap by itself.",
    effect: Effect::NotMeasured("the machine the guide was written on has no swap."),
    apply: Apply::Writes,
    lasting: "`vm.swappiness = 1` in /etc/sysctl.d/90-corelog.conf; or `MemorySwapMax=0` in the systemd unit, which keeps \
              the broker alone out of swap",
    check: |machine| {
        let swaps = machine.read("/proc/swaps").unwrap_or_default();
        if swaps.lines().count() < 2 {
            return vec![Finding::ok("no swap")];
        }
        vec![single(machine, SWAPPINESS, |now| match now {
            "0" | "1" => None,
            _ => Some((
                "1".to_owned(),
                "the broker's memory may go to swap to make room for a page cache".to_owned(),
            )),
        })]
    },
};

const HUGE_PAGES: Item = Item {
    name: "huge-pages",
    title: "Transparent huge pages",
    looks_at: "/sys/kernel/mm/transparent_hugepage/enabled, /proc/PID/status",
    wanted: "off in the broker (THP_enabled 0), or never for the machine",
    reason: "The first touch of any 2 MiB of heap takes a whole huge page, zeroed on the spot by the core that touched it, \
             used or not: an idle broker is almost three times as large, and growing costs more. `madvise` does not help, \
             as the allocator asks for huge pages itself. Once the caches are full it makes no difference.",
    effect: Effect::Measured(
        "2 virtual CPUs, Linux 6.18, medians of 6 rounds by turns. Idle: 32 MB resident with madvise and with \
                              always, 12 MB with never or with MIMALLOC_ALLOW_THP=0. CPU time of the broker for 820 MB \
                              produced to 100 partitions just after the start: 1.89 s with madvise, 1.34 s with never, \
                              1.38 s with MIMALLOC_ALLOW_THP=0. For 2 GB after the first 2 GB: 3.20 s with madvise, 3.32 s \
                              with MIMALLOC_ALLOW_THP=0, less apart than rounds of the same kind.",
    ),
    apply: Apply::ByHand {
        how: "start the broker with MIMALLOC_ALLOW_THP=0 in its environment, as the unit that `corectl tune unit` prints \
              does: other programs keep theirs. On a machine with no other, `echo never > \
              /sys/kernel/mm/transparent_hugepage/enabled` before it starts does the same",
        undo: "start the broker without it",
    },
    lasting: "`Environment=MIMALLOC_ALLOW_THP=0` in the systemd unit",
    check: |machine| {
        let process = machine.broker();
        let status = machine.read(&format!("{}/status", process.dir)).unwrap_or_default();
        let enabled = status.lines().find_map(|line| line.strip_prefix("THP_enabled:")).map(str::trim);
        if enabled == Some("0") && process.who.starts_with("broker") {
            return vec![Finding::ok("off in the broker").of(process.who)];
        }
        vec![match machine.read(HUGE) {
            Err(error) => Finding::unreadable(HUGE, &error),
            Ok(text) if value_in(&text) == "never" => Finding::ok("never"),
            Ok(text) if process.who.starts_with("broker") => {
                Finding::differs(value_in(&text), "the broker starts large and grows slowly").of(process.who)
            }
            Ok(text) => Finding::unknown("no broker runs that could have it off").now(value_in(&text)),
        }]
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn swap_counts_only_where_there_is_some() {
        let fixture = Fixture::new("swap");
        let look = || (SWAP.check)(&fixture.machine()).remove(0).verdict;
        fixture.file(SWAPPINESS, "60");
        fixture.file("/proc/swaps", "Filename Type Size Used Priority\n");
        assert_eq!(look(), Verdict::Ok);
        fixture.file("/proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2");
        assert_eq!(look(), Verdict::Differs);
        fixture.file(SWAPPINESS, "1");
        assert_eq!(look(), Verdict::Ok);
    }

    #[test]
    fn huge_pages_may_be_off_in_the_broker_alone() {
        let fixture = Fixture::new("huge");
        let look = || (HUGE_PAGES.check)(&fixture.machine()).remove(0).verdict;
        fixture.file(HUGE, "always [madvise] never");
        fixture.file("/proc/self/status", "THP_enabled:\t0");
        assert_eq!(look(), Verdict::Unknown, "what this shell has says nothing about a broker");
        fixture.file("/proc/77/comm", "corelog");
        fixture.file("/proc/77/status", "THP_enabled:\t1");
        assert_eq!(look(), Verdict::Differs);
        fixture.file("/proc/77/status", "THP_enabled:\t0");
        assert_eq!(look(), Verdict::Ok);
        fixture.file("/proc/77/status", "");
        fixture.file(HUGE, "always madvise [never]");
        assert_eq!(look(), Verdict::Ok);
    }
}
