//! A machine made of plain files, for tests.

use super::machine::Machine;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub struct Fixture(PathBuf);

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Fixture {
    pub fn new(name: &str) -> Fixture {
        let root = std::env::temp_dir().join(format!("corectl-tune-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Fixture(root)
    }

    pub fn machine(&self) -> Machine {
        Machine::new(&self.0, Path::new("/data"), None).unwrap()
    }

    pub fn machine_on(&self, cpus: Vec<usize>) -> Machine {
        Machine::new(&self.0, Path::new("/data"), Some(cpus)).unwrap()
    }

    pub fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn link(&self, path: &str, target: &str) {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    /// The disk under the data directory, its first partition mounted there.
    pub fn disk(&self, name: &str, kind: &str, options: &str) {
        fs::create_dir_all(self.0.join("data")).unwrap();
        let disk = format!("/sys/devices/pci/{name}-controller/block/{name}");
        self.file(&format!("{disk}/{name}p1/partition"), "1");
        let controller = name.split_once('n').filter(|_| name.starts_with("nvme")).map_or(name, |_| "nvme0");
        self.file(&format!("/sys/devices/pci/{controller}/model"), "fixture");
        self.link(&format!("{disk}/device"), &format!("../../../{controller}"));
        self.link(&format!("/sys/block/{name}"), &format!("../devices/pci/{name}-controller/block/{name}"));
        self.link(
            "/sys/dev/block/259:1",
            &format!("../../devices/pci/{name}-controller/block/{name}/{name}p1"),
        );
        self.file(
            "/proc/self/mountinfo",
            &format!("1 0 254:0 / / rw - ext4 /dev/root rw\n2 1 259:1 / /data rw,relatime - {kind} /dev/{name}p1 {options}"),
        );
    }
}
