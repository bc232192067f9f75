//! Checks before start-up, each with its remedy.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Something that keeps a process from running here, or from running well, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub what: String,
    pub remedy: String,
    /// It cannot run so; otherwise it can, up to the limit told.
    pub fatal: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Locked memory that one core's four rings count as, twice over: 6.18 counts about 260 KiB, and a process that has
/// just ended (a restart) is still counted for a moment.
pub const MEMLOCK_PER_CORE: u64 = 512 << 10;
/// glommio refuses to start below this, whatever it needs.
pub const MEMLOCK_MIN: u64 = 512 << 10;
/// Open files below which a broker with many partitions and connections soon runs out.
pub const NOFILE_MIN: u64 = 10_000;

/// Checks io_uring, locked memory, open files (raising the soft limits to the hard ones) and O_DIRECT in `data_dir`,
/// which must exist. `cores` is how many cores are to run. Blocking: call it before the cores start.
pub fn preflight(data_dir: &Path, cores: usize) -> Result<(), Vec<Problem>> {
    let checks = [check_io_uring(), check_memlock(cores as u64), check_nofile(), check_direct(data_dir)];
    let problems: Vec<Problem> = checks.into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { what: what.into(), remedy: remedy.into(), fatal: true }
}

fn check_io_uring() -> Result<(), Problem> {
    let error = match io_uring::IoUring::new(2) {
        Ok(ring) if ring.params().is_feature_ext_arg() => return Ok(()),
        Ok(_old) => {
            return Err(problem(
                "this kernel's io_uring cannot wait with a timeout",
                "run Linux 5.11 or later (6.1 is recommended)",
            ));
        }
        Err(error) => error,
    };
    let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    Err(io_uring_problem(&error, disabled.trim()))
}

/// `disabled`: the sysctl's value, empty where the kernel has none.
fn io_uring_problem(error: &io::Error, disabled: &str) -> Problem {
    let what = format!("io_uring is not available ({error})");
    let remedy = match (error.raw_os_error(), disabled) {
        (_, "1" | "2") => format!(
            "kernel.io_uring_disabled is {disabled}; allow it with `sysctl -w kernel.io_uring_disabled=0` (1 still \
             lets CAP_SYS_ADMIN and kernel.io_uring_group in)"
        ),
        (Some(libc::ENOSYS), _) => {
            "the kernel has no io_uring; run Linux 5.11 or later (6.1 is recommended) built with CONFIG_IO_URING, and \
             no sandbox that hides it"
                .to_string()
        }
        (Some(libc::EPERM | libc::EACCES), _) => {
            "a seccomp filter or security module forbids it; in containers use a profile that allows io_uring_setup, \
             io_uring_enter and io_uring_register (Docker: --security-opt seccomp=unconfined or an own profile; \
             systemd: drop SystemCallFilter or add @io-event io_uring_setup io_uring_enter io_uring_register)"
                .to_string()
        }
        (Some(libc::ENOMEM), _) => {
            "too little lockable memory; raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= in systemd)".to_string()
        }
        _ => "see io_uring_setup(2) for this error".to_string(),
    };
    problem(what, remedy)
}

/// Raises the soft limit to the hard one, and both to `need` where this process may; what the soft one then is.
fn raise_limit(resource: libc::__rlimit_resource_t, need: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the buffer is an rlimit.
    unsafe {
        if libc::getrlimit(resource, &mut limit) < 0 {
            return Err(io::Error::last_os_error());
        }
        for most in [limit.rlim_max, limit.rlim_max.max(need)] {
            let raised = libc::rlimit { rlim_cur: most, rlim_max: most };
            if limit.rlim_cur < most && libc::setrlimit(resource, &raised) == 0 {
                limit = raised;
            }
        }
    }
    Ok(limit.rlim_cur)
}

fn check_memlock(cores: u64) -> Result<(), Problem> {
    // glommio looks at the bare limit; the kernel lets the privileged lock what they like.
    let need = if has_ipc_lock() { MEMLOCK_MIN } else { MEMLOCK_MIN.max(cores * MEMLOCK_PER_CORE) };
    let limit = raise_limit(libc::RLIMIT_MEMLOCK, need)
        .map_err(|error| problem("the limit of locked memory cannot be read", error.to_string()))?;
    if limit >= need {
        return Ok(());
    }
    Err(problem(
        format!("only {limit} bytes of memory may be locked, {cores} cores need {need}"),
        format!(
            "raise RLIMIT_MEMLOCK: `ulimit -l {}`, LimitMEMLOCK={need} in a systemd unit, memlock in \
             /etc/security/limits.conf, --ulimit memlock={need} for Docker; or grant CAP_IPC_LOCK",
            need / 1024
        ),
    ))
}

/// Whether this process may lock memory without limit: root, or CAP_IPC_LOCK in its effective set.
fn has_ipc_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << CAP_IPC_LOCK) != 0)
}

fn check_nofile() -> Result<(), Problem> {
    let limit = raise_limit(libc::RLIMIT_NOFILE, NOFILE_MIN)
        .map_err(|error| problem("the limit of open files cannot be read", error.to_string()))?;
    if limit >= NOFILE_MIN {
        return Ok(());
    }
    let few = problem(
        format!(
            "only {limit} files and connections may be open at a time, fewer than the {NOFILE_MIN} advised"
        ),
        format!(
            "raise RLIMIT_NOFILE: `ulimit -Hn {NOFILE_MIN}`, LimitNOFILE={NOFILE_MIN} in a systemd unit, nofile in \
             /etc/security/limits.conf, --ulimit nofile={NOFILE_MIN} for Docker"
        ),
    );
    Err(Problem { fatal: false, ..few })
}

/// O_DIRECT by trying: tmpfs opens such files on new kernels and refuses them on old ones, overlays differ by what
/// lies below.
fn check_direct(data_dir: &Path) -> Result<(), Problem> {
    let path = data_dir.join(".direct-io-check.tmp");
    let open =
        |flags| OpenOptions::new().write(true).create(true).truncate(false).custom_flags(flags).open(&path);
    if let Err(error) = open(0) {
        return Err(problem(
            format!("{} cannot be written ({error})", data_dir.display()),
            "give the directory to the user the broker runs as",
        ));
    }
    let direct = open(libc::O_DIRECT).and_then(|file| {
        if on_tmpfs(&file)? { Err(io::Error::from_raw_os_error(libc::EINVAL)) } else { Ok(file) }
    });
    // A left-over is harmless, and the next check replaces it.
    let _ = fs::remove_file(&path);
    match direct {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(problem(
            format!("the file system of {} has no O_DIRECT", data_dir.display()),
            "put the data directory on XFS or ext4; tmpfs and some network and overlay file systems will not do",
        )),
        Err(error) => Err(problem(
            format!("{} cannot be opened with O_DIRECT ({error})", data_dir.display()),
            "see open(2) for this error",
        )),
    }
}

/// tmpfs takes O_DIRECT since 6.6 and ignores it; it keeps nothing over a restart either.
fn on_tmpfs(file: &fs::File) -> io::Result<bool> {
    use std::os::fd::AsRawFd;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the buffer is a statfs's size and read only when filled.
    let kind = unsafe {
        if libc::fstatfs(file.as_raw_fd(), stat.as_mut_ptr()) < 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init().f_type
    };
    Ok(kind == libc::TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_for_missing_io_uring_has_its_remedy() {
        let cases = [
            (libc::EPERM, "2", "sysctl -w kernel.io_uring_disabled=0"),
            (libc::EPERM, "0", "seccomp"),
            (libc::EPERM, "", "seccomp"),
            (libc::ENOSYS, "", "Linux 5.11 or later"),
            (libc::ENOMEM, "0", "RLIMIT_MEMLOCK"),
        ];
        for (errno, disabled, remedy) in cases {
            let problem = io_uring_problem(&io::Error::from_raw_os_error(errno), disabled);
            assert!(problem.remedy.contains(remedy), "errno {errno}: {problem}");
        }
    }

    #[test]
    fn a_missing_directory_is_told_from_one_without_direct_io() {
        let problem = check_direct(Path::new("/nonexistent")).unwrap_err();
        assert!(problem.what.contains("cannot be written"), "{problem}");
        if let Ok(true) = fs::File::open("/dev/shm").and_then(|shm| on_tmpfs(&shm)) {
            let problem = check_direct(Path::new("/dev/shm")).unwrap_err();
            assert!(problem.what.contains("has no O_DIRECT"), "{problem}");
        }
    }
}
