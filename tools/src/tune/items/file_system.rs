//! The file system under the data directory.

use crate::tune::item::{Apply, Effect, Finding, Group, Item};
use crate::tune::machine::Machine;
use crate::tune::mount::Mount;

pub const GROUP: Group = Group { title: "File system", items: &[KIND, MOUNT_OPTIONS, MKFS] };

const KIND: Item = Item {
    name: "fs-type",
    title: "File system of the data directory",
    looks_at: "/proc/self/mountinfo",
    wanted: "XFS or ext4, on a disk of its own",
    reason: "Journal and segments are written with O_DIRECT at 4 KiB alignment, synced by RWF_DSYNC (journal), and \
             fdatasync or, where many are due at once, syncfs (segments), which waits for what other programs have \
             written to the same file system, too. The broker tries O_DIRECT when it starts and refuses a file system \
             without it; tmpfs, which takes the flag and ignores it, is refused by name. Others (btrfs, ZFS, overlay, NFS) may \
             take it and still buffer, copy on write or answer late: they are not tested.",
    effect: Effect::NotMeasured("the machine the guide was written on has ext4 alone."),
    apply: Apply::ByHand {
        how: "put the data directory (`--data-dir`) on XFS or ext4",
        undo: "move the stopped broker's data directory back",
    },
    lasting: "/etc/fstab",
    check: |machine| {
        with_mount(machine, |mount| match mount.kind.as_str() {
            "xfs" | "ext4" => Finding::ok(&mount.kind),
            "tmpfs" | "ramfs" => Finding::differs(&mount.kind, "keeps nothing; the broker refuses it"),
            _ => Finding::differs(&mount.kind, "not tested with this broker"),
        })
    },
};

const MOUNT_OPTIONS: Item = Item {
    name: "fs-mount",
    title: "Mount options",
    looks_at: "/proc/self/mountinfo",
    wanted: "none of data=journal, nobarrier, sync, dirsync, wsync, discard, strictatime",
    reason: "The defaults of XFS and ext4 are right. data=journal takes O_DIRECT away (the kernel falls back to the \
             page cache without a word, so the broker cannot notice). nobarrier keeps the flush from the drive: what \
             is acknowledged can be lost with the power. sync makes every write of a segment wait for the disk, which \
             the broker does once for many; wsync and dirsync do so to every file made or removed. discard has the file system send a trim for every segment that retention removes, beside the writes of the moment; the kernel's documentation of XFS calls what it costs quite severe and recommends fstrim, once a week or so. strictatime writes an inode for each read. \
             relatime, the default, does so once a day and file; noatime saves that and is as good.",
    effect: Effect::Measured(
        "102 MB produced to 20 partitions on an ext4 on a loop device (Linux 6.18): with the defaults 210 MB \
                              are written (journal and segments) and the page cache holds 12 KiB of the broker's files; \
                              with data=journal 419 MB are written and the page cache holds 120 MB. Discard and the \
                              others are not measured here.",
    ),
    apply: Apply::ByHand {
        how: "`mount -o remount,nodiscard MOUNTPOINT` (barrier, async, relatime alike); data= and wsync need the broker \
              stopped, umount and mount. For trimming: `systemctl enable --now fstrim.timer`",
        undo: "remount with the former option",
    },
    lasting: "the options in /etc/fstab, such as `UUID=... /var/lib/corelog xfs defaults,noatime 0 2`",
    check: |machine| {
        with_mount(machine, |mount| {
            let wrong: Vec<&str> =
                mount.options.iter().map(String::as_str).filter(|it| is_wrong(it)).collect();
            let now = mount.options.join(",");
            match wrong.as_slice() {
                [] => Finding::ok(now),
                wrong => Finding::differs(now, format!("without {}", wrong.join(", "))),
            }
        })
    },
};

fn is_wrong(option: &str) -> bool {
    matches!(
        option,
        "data=journal" | "nobarrier" | "barrier=0" | "sync" | "dirsync" | "wsync" | "discard" | "strictatime"
    )
}

const MKFS: Item = Item {
    name: "fs-mkfs",
    title: "How the file system was made",
    looks_at: "/proc/self/mountinfo, /proc/PID/comm",
    wanted: "XFS: the defaults. ext4: -m 0 -E lazy_itable_init=0,lazy_journal_init=0",
    reason: "mkfs.xfs takes geometry and sectors from the device and has good defaults for few large files written in \
             large pieces. mkfs.ext4 sets 5 % aside for root, which a broker that runs as a user of its own cannot \
             fill and takes for a full disk, and leaves the zeroing of inode tables and its journal to a kernel thread (ext4lazyinit) that writes after the first mount, beside the first load. \
             Segments preallocate in large steps, so a smaller number of inodes (-T largefile) does too.",
    effect: Effect::NotMeasured("a disk is made once."),
    apply: Apply::ByHand {
        how: "on an empty disk: `mkfs.xfs DEVICE`, or `mkfs.ext4 -m 0 -E lazy_itable_init=0,lazy_journal_init=0 DEVICE`; \
              on a RAID both find its stripe by themselves, or are told (-d su=,sw= and -E stride=,stripe_width=). On \
              an ext4 that is there: `tune2fs -m 0 DEVICE`",
        undo: "`tune2fs -m 5 DEVICE`; for the rest make it again, empty",
    },
    lasting: "it does",
    check: |machine| {
        with_mount(machine, |mount| match mount.kind.as_str() {
            "ext4" if machine.process_named("ext4lazyinit").is_some() => Finding::differs(
                "ext4lazyinit runs",
                "the kernel still zeroes inode tables: wait for it before measuring",
            ),
            "ext4" => Finding::unknown("what mkfs chose: `tune2fs -l DEVICE` shows it"),
            "xfs" => Finding::unknown("what mkfs chose: `xfs_info MOUNTPOINT` shows it"),
            kind => Finding::not_applicable(format!("{kind} is neither XFS nor ext4")),
        })
    },
};

fn with_mount(machine: &Machine, judge: impl Fn(&Mount) -> Finding) -> Vec<Finding> {
    vec![match machine.data_mount() {
        Ok(mount) => judge(&mount).of(mount.mount_point.display().to_string()),
        Err(why) => Finding::unknown(why),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tune::fixture::Fixture;
    use crate::tune::item::Verdict;

    #[test]
    fn options_that_cost_or_endanger_are_named() {
        let fixture = Fixture::new("mount-options");
        for (kind, options, verdict, note) in [
            ("xfs", "rw,attr2,inode64,logbufs=8,logbsize=32k,noquota", Verdict::Ok, ""),
            ("ext4", "rw,discard,nobarrier", Verdict::Differs, "without discard, nobarrier"),
            ("ext4", "rw,data=journal", Verdict::Differs, "without data=journal"),
        ] {
            fixture.disk("nvme0n1", kind, options);
            let found = (MOUNT_OPTIONS.check)(&fixture.machine()).remove(0);
            assert_eq!((found.verdict, found.note.as_str()), (verdict, note), "{options}");
        }
    }
}
