//! Mounts, as `/proc/self/mountinfo` lists them (proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

pub struct Mount {
    /// Major and minor number of the device, as in `/sys/dev/block`.
    pub device: String,
    pub mount_point: PathBuf,
    /// Of the file system: ext4, xfs, ...
    pub kind: String,
    /// Options of the mount and of the file system.
    pub options: Vec<String>,
}

/// The mount that `path` lies on: the deepest, and of several at one place the last.
pub fn holding(mountinfo: &str, path: &Path) -> Option<Mount> {
    mountinfo
        .lines()
        .filter_map(parse)
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())
}

/// `36 35 98:0 /root /mount/point options optional - kind source options`
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ');
    let device = before.nth(2)?.to_owned();
    let mount_point = PathBuf::from(unescape(before.nth(1)?));
    let own = before.next()?;
    let mut after = after.split(' ');
    let kind = after.next()?.to_owned();
    let of_file_system = after.nth(1).unwrap_or_default();
    let options = own.split(',').chain(of_file_system.split(',')).map(str::to_owned).collect();
    Some(Mount { device, mount_point, kind, options })
}

/// Spaces and backslashes are written in octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 27 259:2 / /nvme rw,noatime shared:7 - xfs /dev/nvme0n1p2 rw,logbsize=256k
31 27 0:9 / /nvme rw - tmpfs tmpfs rw
32 27 259:3 / /two\\040words rw - ext4 /dev/nvme1n1 rw";

    #[test]
    fn the_deepest_and_latest_mount_holds_a_path() {
        let at = |path: &str| holding(MOUNTS, Path::new(path)).unwrap();
        assert_eq!(at("/var/lib").device, "254:0");
        assert_eq!(at("/var/lib").options, ["rw", "relatime", "rw", "discard"]);
        assert_eq!(at("/nvme/corelog").kind, "tmpfs");
        assert_eq!(at("/nvmes").kind, "ext4");
        assert_eq!(at("/two words/x").device, "259:3");
    }
}
