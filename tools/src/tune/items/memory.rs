//! Memory: what keeps the broker's pages where they are.

use crate::tune::item::{Apply, Effect, Finding, Group, Item, single};

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
    looks_at: "/sys/kernel/mm/transparent_hugepage/enabled",
    wanted: "madvise or never",
    reason: "With always, the first touch of any 2 MiB of heap takes a whole huge page, zeroed on the spot by the core that \
             touched it, used or not: an idle broker is almost three times as large, and growing costs more. The broker \
             asks for none itself, so with madvise it has none. Once the caches are full it makes no difference.",
    effect: Effect::Measured(
        "2 virtual CPUs, Linux 6.18, medians of 6 rounds by turns. Idle: 32 MB resident with huge pages, 12 MB without. \
         CPU time of the broker for 820 MB produced to 100 partitions just after the start: 1.89 s with, 1.34 s without. \
         For 2 GB after the first 2 GB: 3.20 s with, 3.32 s without, less apart than rounds of the same kind.",
    ),
    apply: Apply::Writes,
    lasting: "`transparent_hugepage=madvise` on the kernel command line",
    check: |machine| {
        vec![single(machine, HUGE, |now| match now {
            "madvise" | "never" => None,
            _ => Some(("madvise".to_owned(), "the broker starts large and grows slowly".to_owned())),
        })]
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
    fn huge_pages_are_for_those_who_ask() {
        let fixture = Fixture::new("huge");
        let look = || (HUGE_PAGES.check)(&fixture.machine()).remove(0).verdict;
        fixture.file(HUGE, "[always] madvise never");
        assert_eq!(look(), Verdict::Differs);
        fixture.file(HUGE, "always [madvise] never");
        assert_eq!(look(), Verdict::Ok);
        fixture.file(HUGE, "always madvise [never]");
        assert_eq!(look(), Verdict::Ok);
    }
}
