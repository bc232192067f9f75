//! `corectl tune` on a machine made of plain files.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const SWAPPINESS: &str = "proc/sys/vm/swappiness";
const SOMAXCONN: &str = "proc/sys/net/core/somaxconn";
const SCHEDULER: &str = "sys/block/nvme0n1/queue/scheduler";
const NOMERGES: &str = "sys/block/nvme0n1/queue/nomerges";
const SLOW_START: &str = "proc/sys/net/ipv4/tcp_slow_start_after_idle";
const STATE: &str = "var/lib/corectl/tune.json";

struct Machine(PathBuf);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Machine {
    fn new(name: &str) -> Machine {
        let root = std::env::temp_dir().join(format!("corectl-tune-bin-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let machine = Machine(root);
        machine.write("sys/devices/system/cpu/online", "0-1");
        machine.write("proc/sys/kernel/osrelease", "6.1.0");
        machine.write("proc/swaps", "Filename Type Size Used Priority\n/dev/sda2 partition 8388604 0 -2\n");
        machine.write(SWAPPINESS, "60\n");
        machine.write(SOMAXCONN, "128\n");
        machine.write(SLOW_START, "0\n");
        let disk = "sys/devices/pci/nvme0/nvme0n1";
        machine.write(&format!("{disk}/queue/scheduler"), "none [mq-deadline] kyber\n");
        machine.write(&format!("{disk}/queue/nomerges"), "0\n");
        machine.link("sys/block/nvme0n1", "../devices/pci/nvme0/nvme0n1");
        machine.link("sys/dev/block/259:0", "../../devices/pci/nvme0/nvme0n1");
        machine.write("proc/self/mountinfo", "2 1 259:0 / / rw,relatime - xfs /dev/nvme0n1 rw\n");
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        let _ = fs::remove_file(self.path(path));
        symlink(target, self.path(path)).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap()
    }

    /// Whether it succeeded, and what it printed, errors included.
    fn tune(&self, line: &[&str]) -> (bool, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corectl"));
        command
            .arg("tune")
            .args(line)
            .arg("--root")
            .arg(&self.0)
            .args(["--data-dir", "/"])
            .stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(text).unwrap())
    }

    /// The findings, and whether all is as wanted.
    fn check(&self, items: &[&str]) -> (bool, Vec<Value>) {
        let (ok, text) = self.tune(&[&["check"], items, &["--json"]].concat());
        (ok, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    fn verdict(&self, item: &str) -> String {
        let (_, findings) = self.check(&[item]);
        findings[0]["verdict"].as_str().unwrap().to_owned()
    }
}

#[test]
fn what_differs_is_changed_checked_and_given_back() {
    let machine = Machine::new("round");
    let items = ["swap", "listen-backlog", "disk-scheduler"];
    assert!(items.iter().all(|item| machine.verdict(item) == "differs"));
    let (ok, said) = machine.tune(&["apply", "swap", "listen-backlog", "disk-scheduler", "--yes"]);
    assert!(ok, "{said}");
    assert!(items.iter().all(|item| machine.verdict(item) == "ok"), "{said}");
    assert_eq!((machine.read(SWAPPINESS), machine.read(SOMAXCONN)), ("1".into(), "4096".into()));
    let state: Value = serde_json::from_str(&machine.read(STATE)).unwrap();
    assert_eq!(state["changes"][0]["former"], "60");
    // The choice that was in force, not the whole of what the file says.
    assert!(state["changes"].as_array().unwrap().iter().any(|it| it["former"] == "mq-deadline"), "{state}");

    // Applied again, the first former value still counts.
    machine.write(SWAPPINESS, "30");
    assert!(machine.tune(&["apply", "swap", "--yes"]).0);
    let (ok, said) = machine.tune(&["undo", "swap", "--yes"]);
    assert!(ok, "{said}");
    assert_eq!((machine.read(SWAPPINESS), machine.read(SOMAXCONN)), ("60".into(), "4096".into()));
    assert!(machine.tune(&["undo", "--yes"]).0);
    assert_eq!((machine.read(SOMAXCONN), machine.read(SCHEDULER)), ("128".into(), "mq-deadline".into()));
    assert!(!machine.path(STATE).exists());
    assert!(machine.tune(&["undo", "--yes"]).1.contains("nothing was applied"));
}

#[test]
fn what_cannot_be_written_or_does_not_hold_is_told_and_the_rest_goes_on() {
    let machine = Machine::new("read-only");
    // Not even root can write to this one, and what is written to that one is gone.
    machine.link(NOMERGES, "/proc/sys/kernel/cap_last_cap");
    machine.link(SLOW_START, "/dev/null");
    let (ok, said) = machine.tune(&["apply", "disk-nomerges", "slow-start", "swap", "--yes"]);
    assert!(!ok, "{said}");
    for part in ["failed: ", "did not hold: \"0\" was written", "applied", "2 findings still differ"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(machine.read(SWAPPINESS), "1");
    // Only what was changed is given back.
    let state: Value = serde_json::from_str(&machine.read(STATE)).unwrap();
    assert_eq!(state["changes"].as_array().unwrap().len(), 1, "{state}");
    assert!(machine.tune(&["undo", "--yes"]).0);
    assert_eq!(machine.read(SWAPPINESS), "60");
}

#[test]
fn absent_devices_and_files_do_not_apply() {
    let machine = Machine::new("absent");
    machine.write("proc/self/mountinfo", "2 1 0:40 / / rw - overlay overlay rw\n");
    for item in ["disk-scheduler", "irq-nic", "cpu-governor", "numa-balancing", "io-uring", "clock-source"] {
        assert_eq!(machine.verdict(item), "n/a", "{item}");
    }
    assert_eq!(machine.verdict("fs-type"), "differs");
    // Gone between apply and undo.
    assert!(machine.tune(&["apply", "swap", "--yes"]).0);
    fs::remove_file(machine.path(SWAPPINESS)).unwrap();
    let (ok, said) = machine.tune(&["undo", "--yes"]);
    assert!(ok && said.contains("no longer there"), "{said}");
}

#[test]
fn what_somebody_else_set_since_is_left_to_them() {
    let machine = Machine::new("theirs");
    assert!(machine.tune(&["apply", "swap", "--yes"]).0);
    machine.write(SWAPPINESS, "10");
    let (ok, said) = machine.tune(&["undo", "--yes"]);
    assert!(!ok && said.contains("left: it reads \"10\""), "{said}");
    assert_eq!(machine.read(SWAPPINESS), "10");
    assert!(machine.path(STATE).exists());
}

#[test]
fn nothing_is_changed_unasked_or_without_a_place_for_former_values() {
    let machine = Machine::new("unasked");
    let (ok, said) = machine.tune(&["apply", "swap"]);
    assert!(!ok && said.contains("--yes"), "{said}");
    fs::create_dir_all(machine.path("var/lib/corectl/tune.json.tmp")).unwrap();
    let (ok, said) = machine.tune(&["apply", "swap", "--yes"]);
    assert!(!ok && said.contains("cannot keep former values"), "{said}");
    let (ok, said) = machine.tune(&["apply", "swop", "--yes"]);
    assert!(!ok && said.contains("there is no item \"swop\"") && said.contains("swap, "), "{said}");
    assert_eq!(machine.read(SWAPPINESS), "60\n");
}

#[test]
fn the_script_is_shell_and_changes_nothing() {
    let machine = Machine::new("script");
    let (ok, script) = machine.tune(&["--script"]);
    assert!(ok);
    for line in [
        "echo 1 > /proc/sys/vm/swappiness # was 60",
        "echo none > /sys/block/nvme0n1/queue/scheduler # was mq-deadline",
    ] {
        assert!(script.lines().any(|it| it == line), "{line}: {script}");
    }
    assert_eq!(machine.read(SWAPPINESS), "60\n");
    let file = machine.path("script.sh");
    fs::write(&file, script).unwrap();
    assert!(Command::new("sh").arg("-n").arg(&file).status().unwrap().success());
    assert!(machine.tune(&["apply", "swap", "--yes"]).0);
    let (ok, script) = machine.tune(&["undo", "--script"]);
    assert!(ok && script.lines().any(|it| it == "echo 60 > /proc/sys/vm/swappiness"), "{script}");
    assert_eq!(machine.read(SWAPPINESS), "1");
}

#[test]
fn cpus_that_are_not_there_are_refused() {
    let machine = Machine::new("cpus");
    for line in [&["check", "swap"][..], &["apply", "swap", "--yes"]] {
        let (ok, said) = machine.tune(&[line, &["--cores", "0-7"]].concat());
        assert!(!ok && said.contains("no CPU 2 "), "{said}");
    }
    assert_eq!(machine.read(SWAPPINESS), "60\n");
    // A unit may be for another machine.
    assert!(machine.tune(&["unit", "--cores", "0-7"]).0);
}
