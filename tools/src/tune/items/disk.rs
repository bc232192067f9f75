//! The block layer between file system and drive.

use crate::tune::item::{Apply, Effect, Finding, Group, Item, single, value_in};
use crate::tune::machine::Machine;

pub const GROUP: Group = Group {
    title: "Disk",
    items: &[SCHEDULER, NO_MERGES, WRITE_CACHE, POWER_STATES, LINK_POWER, BLOCK_FORMAT],
};

const SCHEDULER: Item = Item {
    name: "disk-scheduler",
    title: "Queue scheduler",
    looks_at: "/sys/block/DISK/queue/scheduler",
    wanted: "none; mq-deadline or bfq on a spinning disk",
    reason: "A scheduler holds requests back to sort or ration them, behind a lock that all cores share. A flash drive \
             gains nothing from order, and the broker has ordered its writes already: few large ones, a synced stream \
             per core. A virtual disk is scheduled by its host. A spinning disk does need the order.",
    effect: Effect::Measured(
        "nothing to be seen on a virtual disk with one queue (2 virtual CPUs, Linux 6.18, ext4, 7 rounds by \
                              turns of `cargo run --release -p corelog-io --example measure`): the best median of a \
                              synced 4 KiB write is 160 us with mq-deadline and 167 us with none, less apart than \
                              rounds of the same kind. What many cores on an NVMe drive gain is not measured here.",
    ),
    apply: Apply::Writes,
    lasting: "a rule in /etc/udev/rules.d/60-corelog.rules: `ACTION==\"add|change\", KERNEL==\"nvme[0-9]*n[0-9]*\", \
              ATTR{queue/scheduler}=\"none\"`",
    check: |machine| {
        per_disk(machine, |machine, disk| {
            let path = format!("/sys/block/{disk}/queue/scheduler");
            let text = match machine.read(&path) {
                Ok(text) => text,
                Err(error) => return Finding::unreadable(&path, &error),
            };
            let now = value_in(&text);
            if now == "none" {
                return Finding::ok(now);
            }
            if spins(machine, disk) {
                return Finding::ok(now).note("a spinning disk");
            }
            if !text.split_whitespace().any(|choice| choice == "none") {
                return Finding::unknown(format!("{path} does not offer none: {text}"));
            }
            Finding::differs(now, "requests are held back and sorted").change(path, "none")
        })
    },
};

/// Virtual disks say that they spin unless their host says otherwise; it knows better than this system does.
fn spins(machine: &Machine, disk: &str) -> bool {
    let rotational = machine.read(&format!("/sys/block/{disk}/queue/rotational")).unwrap_or_default();
    rotational == "1" && !disk.starts_with("vd") && !disk.starts_with("xvd")
}

const NO_MERGES: Item = Item {
    name: "disk-nomerges",
    title: "Merging of requests",
    looks_at: "/sys/block/DISK/queue/nomerges",
    wanted: "0, as the kernel has it",
    reason: "2 is widely advised for flash, to save the search for a neighbour to merge with. That is right for random \
             I/O and wrong here: a core hands over a turn's writes at once, many of them next to each other, such as the pieces of a segment, and the kernel merges them into fewer, larger requests.",
    effect: Effect::Measured(
        "102 MB produced to 20 partitions, the only load on an ext4 on a loop device (Linux 6.18), by \
                              /sys/block/loop0/stat: with 0 the device got 608 to 678 writes, 464 to 527 more having \
                              been merged; with 2 it got 1059 to 1147 for the same sectors. CPU time of the broker: no \
                              difference.",
    ),
    apply: Apply::Writes,
    lasting: "take the rule or the service that sets it away: `grep -r nomerges /etc/udev /etc/tuned /usr/lib/tuned`",
    check: |machine| {
        per_disk(machine, |machine, disk| {
            single(machine, &format!("/sys/block/{disk}/queue/nomerges"), |now| match now {
                "0" => None,
                _ => Some(("0".to_owned(), "the device gets more and smaller requests".to_owned())),
            })
        })
    },
};

const WRITE_CACHE: Item = Item {
    name: "disk-write-cache",
    title: "Write cache of the drive",
    looks_at: "/sys/block/DISK/queue/write_cache, /sys/block/DISK/queue/fua",
    wanted: "write through (drives with power-loss protection mostly report that), or write back with FUA",
    reason: "Each journal group is written with RWF_DSYNC and is acknowledged once it would survive a power failure. \
             With `write through` that is one plain write. With `write back` the kernel adds FUA to the write, or, \
             where the drive has none, sends a flush of its whole cache after it, with what the other cores have written. Never write `write through` into this file to make it so: that changes only what the kernel \
             believes, it then sends no flushes, and acknowledged records are lost with the power.",
    effect: Effect::Measured(
        "102 MB produced to 20 partitions on an ext4 on a loop device, which has a cache and no FUA (Linux \
                              6.18): 263 to 350 flushes beside 608 to 1147 writes; none when mounted nobarrier, which \
                              is how much is given up by that option. What a flush costs is the drive's affair.",
    ),
    apply: Apply::ByHand {
        how: "use a drive with power-loss protection; on a virtual machine choose the cache mode of the disk on the \
              host. `nvme id-ctrl DEVICE | grep vwc` tells what the drive itself says",
        undo: "none: nothing is changed",
    },
    lasting: "it does: it is the drive's own",
    check: |machine| {
        per_disk(machine, |machine, disk| {
            let path = format!("/sys/block/{disk}/queue/write_cache");
            match machine.read(&path) {
                Err(error) => Finding::unreadable(&path, &error),
                Ok(now) if now != "write back" => Finding::ok(now),
                Ok(now) => match machine.read(&format!("/sys/block/{disk}/queue/fua")).as_deref() {
                    Ok("1") => Finding::ok(format!("{now}, FUA")),
                    _ => Finding::differs(
                        format!("{now}, no FUA"),
                        "each journal group is followed by a flush of the whole cache",
                    ),
                },
            }
        })
    },
};

const POWER_STATES: Item = Item {
    name: "nvme-power",
    title: "Power states of the NVMe drive (APST)",
    looks_at: "/sys/block/DISK/device/power/pm_qos_latency_tolerance_us",
    wanted: "0: no autonomous power states",
    reason: "A drive that was idle for some milliseconds to seconds puts itself to sleep, and the next journal write waits until \
             it is awake: up to 100 ms by the kernel's default tolerance. A broker at low load pays it again and again, \
             and under full load it changes nothing. Some drives have lost their controller over it.",
    effect: Effect::NotMeasured("the machine the guide was written on has no NVMe drive."),
    apply: Apply::Writes,
    lasting: "`nvme_core.default_ps_max_latency_us=0` on the kernel command line",
    check: |machine| {
        per_nvme(machine, |machine, disk| {
            single(machine, &format!("/sys/block/{disk}/device/power/pm_qos_latency_tolerance_us"), |now| {
                match now {
                    "0" => None,
                    _ => Some(("0".to_owned(), "the drive may sleep, and takes so long to wake".to_owned())),
                }
            })
        })
    },
};

const ASPM: &str = "/sys/module/pcie_aspm/parameters/policy";

const LINK_POWER: Item = Item {
    name: "pcie-aspm",
    title: "Power states of PCIe links (ASPM)",
    looks_at: "/sys/module/pcie_aspm/parameters/policy, /sys/block/DISK/device/device/link",
    wanted: "the policy performance, or links that have no such states switched on",
    reason: "A link that was idle for microseconds is put into a low-power state (L0s, L1, L1 substates), and the next doorbell \
             or completion waits until it is up: some microseconds to a hundred, beside a flash write of twenty. With the \
             policy `default` it is as the firmware left it.",
    effect: Effect::NotMeasured(
        "the machine the guide was written on is virtual and has no PCIe links of its own.",
    ),
    apply: Apply::Writes,
    lasting: "`pcie_aspm.policy=performance` on the kernel command line",
    check: |machine| {
        let policy = match machine.read(ASPM) {
            Ok(text) => value_in(&text),
            Err(error) => return vec![Finding::unreadable(ASPM, &error)],
        };
        if policy == "performance" {
            return vec![Finding::ok(policy)];
        }
        per_nvme(machine, |machine, disk| {
            let link = format!("/sys/block/{disk}/device/device/link");
            let states = machine.list(&link).into_iter().filter(|name| {
                name.ends_with("_aspm") && machine.read(&format!("{link}/{name}")).is_ok_and(|on| on == "1")
            });
            let states: Vec<String> = states.map(|name| name.trim_end_matches("_aspm").to_owned()).collect();
            match states.as_slice() {
                [] if policy == "default" => Finding::ok(&policy).note("none are switched on"),
                [] => Finding::differs(&policy, "links are put to sleep").change(ASPM, "performance"),
                on => Finding::differs(&policy, format!("on: {}", on.join(", "))).change(ASPM, "performance"),
            }
        })
    },
};

const BLOCK_FORMAT: Item = Item {
    name: "nvme-format",
    title: "Logical blocks of the NVMe drive",
    looks_at: "/sys/block/DISK/queue/logical_block_size",
    wanted: "4096, if the drive has such a format",
    reason: "The broker writes in multiples of 4 KiB and counts on what a write in one block does: with blocks of 4096 bytes \
             such a page is one block for the drive, which it writes whole or not at all. With 512 it is eight, which many \
             drives map the same way but promise less of.",
    effect: Effect::NotMeasured(
        "the machine the guide was written on has no NVMe drive, and a format erases one.",
    ),
    apply: Apply::ByHand {
        how: "on an empty drive: `nvme id-ns -H DEVICE | grep 'LBA Format'` tells the formats there are, `nvme format DEVICE \
              --lbaf=N` takes one. It erases the drive",
        undo: "`nvme format` with the former format: it erases the drive again",
    },
    lasting: "it does: it is the drive's own",
    check: |machine| {
        per_nvme(machine, |machine, disk| {
            let path = format!("/sys/block/{disk}/queue/logical_block_size");
            match machine.read(&path) {
                Err(error) => Finding::unreadable(&path, &error),
                Ok(now) if now == "4096" => Finding::ok(now),
                Ok(now) => Finding::unknown(format!(
                    "{now}: `nvme id-ns -H /dev/{disk}` tells whether it can be 4096"
                )),
            }
        })
    },
};

/// As [`per_disk`], of the NVMe drives among them.
fn per_nvme(machine: &Machine, look: impl Fn(&Machine, &str) -> Finding) -> Vec<Finding> {
    per_disk(machine, |machine, disk| match disk.starts_with("nvme") {
        true => look(machine, disk),
        false => Finding::not_applicable("no NVMe drive"),
    })
}

fn per_disk(machine: &Machine, look: impl Fn(&Machine, &str) -> Finding) -> Vec<Finding> {
    match machine.data_disks() {
        Err(why) => vec![Finding::not_applicable(why)],
        Ok(disks) => disks.iter().map(|disk| look(machine, disk).of(disk)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn what_is_right_for_flash_is_not_for_a_spinning_disk() {
        let fixture = Fixture::new("schedulers");
        for (disk, rotational, verdict) in
            [("nvme0n1", "0", Verdict::Differs), ("vda", "1", Verdict::Differs), ("sda", "1", Verdict::Ok)]
        {
            fixture.disk(disk, "xfs", "rw");
            fixture.file(&format!("/sys/block/{disk}/queue/scheduler"), "none [mq-deadline] kyber");
            fixture.file(&format!("/sys/block/{disk}/queue/rotational"), rotational);
            let found = (SCHEDULER.check)(&fixture.machine()).remove(0);
            assert_eq!((found.subject.as_str(), found.verdict), (disk, verdict));
        }
    }

    #[test]
    fn a_drive_that_sleeps_is_kept_awake() {
        let fixture = Fixture::new("nvme-power");
        fixture.disk("vda", "xfs", "rw");
        assert_eq!((POWER_STATES.check)(&fixture.machine())[0].verdict, Verdict::NotApplicable);
        fixture.disk("nvme0n1", "xfs", "rw");
        let path = "/sys/block/nvme0n1/device/power/pm_qos_latency_tolerance_us";
        for (tolerance, verdict) in
            [("100000", Verdict::Differs), ("any", Verdict::Differs), ("0", Verdict::Ok)]
        {
            fixture.file(path, tolerance);
            let found = (POWER_STATES.check)(&fixture.machine()).remove(0);
            assert_eq!(
                (found.verdict, found.changes.len()),
                (verdict, usize::from(verdict == Verdict::Differs))
            );
        }
    }

    #[test]
    fn links_that_sleep_are_found_by_policy_and_by_state() {
        let fixture = Fixture::new("aspm");
        fixture.disk("nvme0n1", "xfs", "rw");
        let look = || (LINK_POWER.check)(&fixture.machine()).remove(0);
        assert_eq!(look().verdict, Verdict::NotApplicable);
        let link = "/sys/block/nvme0n1/device/device/link";
        for (policy, l1, verdict) in [
            ("[default] performance powersave powersupersave", "0", Verdict::Ok),
            ("[default] performance powersave powersupersave", "1", Verdict::Differs),
            ("default performance [powersave] powersupersave", "0", Verdict::Differs),
            ("default [performance] powersave powersupersave", "1", Verdict::Ok),
        ] {
            fixture.file(ASPM, policy);
            fixture.file(&format!("{link}/l1_aspm"), l1);
            fixture.file(&format!("{link}/clkpm"), "1");
            assert_eq!(look().verdict, verdict, "{policy} {l1}");
        }
    }

    #[test]
    fn small_logical_blocks_are_told_and_never_changed() {
        let fixture = Fixture::new("lbaf");
        fixture.disk("nvme0n1", "xfs", "rw");
        for (size, verdict) in [("512", Verdict::Unknown), ("4096", Verdict::Ok)] {
            fixture.file("/sys/block/nvme0n1/queue/logical_block_size", size);
            let found = (BLOCK_FORMAT.check)(&fixture.machine()).remove(0);
            assert_eq!((found.verdict, found.changes.len()), (verdict, 0));
        }
    }

    #[test]
    fn a_volatile_cache_without_fua_is_told_and_never_changed() {
        let fixture = Fixture::new("write-cache");
        fixture.disk("nvme0n1", "xfs", "rw");
        for (cache, fua, verdict) in [
            ("write through", "0", Verdict::Ok),
            ("write back", "1", Verdict::Ok),
            ("write back", "0", Verdict::Differs),
        ] {
            fixture.file("/sys/block/nvme0n1/queue/write_cache", cache);
            fixture.file("/sys/block/nvme0n1/queue/fua", fua);
            let found = (WRITE_CACHE.check)(&fixture.machine()).remove(0);
            assert_eq!((found.verdict, found.changes.len()), (verdict, 0), "{cache} {fua}");
        }
    }
}
