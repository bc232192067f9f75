//! The block layer between file system and drive.

use crate::tune::item::{Apply, Effect, Finding, Group, Item, single, value_in};
use crate::tune::machine::Machine;

pub const GROUP: Group = Group { title: "Disk", items: &[SCHEDULER, NO_MERGES, WRITE_CACHE] };

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
