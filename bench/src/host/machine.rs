//! What a reader has to know of the machine to make anything of its figures.

use serde::Serialize;
use std::fs;
use std::path::Path;

#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cpus: usize,
    pub memory: u64,
    pub kernel: String,
    /// Of the directory that holds the brokers' data, where that is on this machine.
    pub disk: Option<Disk>,
    pub governor: Option<String>,
    pub transparent_huge_pages: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Disk {
    pub device: String,
    pub file_system: String,
    pub options: String,
    pub model: Option<String>,
    pub scheduler: Option<String>,
    pub write_cache: Option<String>,
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The word in brackets of a list such as `always [madvise] never`.
fn chosen(text: String) -> Option<String> {
    let word = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    Some(word.map_or(text.clone(), str::to_owned))
}

impl Machine {
    pub fn here(directory: Option<&Path>) -> Machine {
        let cpu_info = read("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split(':').nth(1));
        let memory = read("/proc/meminfo").unwrap_or_default();
        let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        let version =
            ["ostype", "osrelease"].map(|it| read(format!("/proc/sys/kernel/{it}")).unwrap_or_default());
        Machine {
            cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |model| model.trim().to_owned()),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory: memory.unwrap_or(0) << 10,
            kernel: version.join(" "),
            disk: directory.and_then(Disk::under),
            governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            transparent_huge_pages: read("/sys/kernel/mm/transparent_hugepage/enabled").and_then(chosen),
        }
    }
}

/// Major and minor number of the device that has the directory's file system.
pub fn device_of(directory: &Path) -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    let device = fs::metadata(directory).ok()?.dev();
    Some((libc::major(device), libc::minor(device)))
}

impl Disk {
    /// The disk under a directory.
    pub fn under(directory: &Path) -> Option<Disk> {
        let (major, minor) = device_of(directory)?;
        let id = format!("{major}:{minor}");
        let mounts = read("/proc/self/mountinfo")?;
        let mount = mounts.lines().find(|line| line.split_whitespace().nth(2) == Some(&id))?;
        let (_, behind) = mount.split_once(" - ")?;
        let mut fields = behind.split_whitespace();
        let (file_system, device) = (fields.next()?, fields.next()?);
        let mounted = mount.split_whitespace().nth(5).unwrap_or_default();
        let queue = format!("/sys/dev/block/{id}/queue");
        // A partition's queue is that of its disk.
        let of_queue = |name: &str| {
            read(format!("{queue}/{name}")).or_else(|| read(format!("/sys/dev/block/{id}/../queue/{name}")))
        };
        Some(Disk {
            device: device.to_owned(),
            file_system: file_system.to_owned(),
            options: format!("{mounted},{}", fields.next().unwrap_or_default()),
            model: read(format!("/sys/dev/block/{id}/device/model"))
                .or_else(|| read(format!("/sys/dev/block/{id}/../device/model"))),
            scheduler: of_queue("scheduler").and_then(chosen),
            write_cache: of_queue("write_cache"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_a_kernel_memory_and_cpus() {
        let machine = Machine::here(Some(Path::new("/")));
        assert!(machine.kernel.starts_with("Linux ") && machine.memory > 1 << 26 && machine.cpus > 0);
        assert_eq!(chosen("always [madvise] never".into()).as_deref(), Some("madvise"));
    }
}
