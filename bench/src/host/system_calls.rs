//! System calls of a process, counted by `perf`, where that is installed and may look.

use anyhow::{Context, Result, bail};
use std::io::Read;
use std::process::{Child, Command, Stdio};

pub struct SystemCalls {
    perf: Child,
}

const REMEDY: &str = "install perf and lower kernel.perf_event_paranoid, or do without --system-calls";

impl SystemCalls {
    /// Counts from now on, over all threads of the process.
    pub fn count(pid: u32) -> Result<SystemCalls> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()]);
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let perf = perf.spawn().with_context(|| format!("perf cannot be run: {REMEDY}"))?;
        Ok(SystemCalls { perf })
    }

    pub fn stop(mut self) -> Result<u64> {
        // SAFETY: no memory is involved; the child has not been waited for, so its pid is still its own.
        unsafe { libc::kill(self.perf.id() as i32, libc::SIGINT) };
        let mut text = String::new();
        if let Some(mut output) = self.perf.stderr.take() {
            output.read_to_string(&mut text)?;
        }
        self.perf.wait()?;
        match counted(&text) {
            Some(count) => Ok(count),
            None => bail!("perf counted no system calls: {}; {REMEDY}", text.trim()),
        }
    }
}

/// The first field of the line that names the event.
fn counted(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("raw_syscalls:sys_enter"))?;
    line.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_refusals() {
        assert_eq!(counted("1234,,raw_syscalls:sys_enter,99,100.00,,\n"), Some(1234));
        assert_eq!(counted("<not counted>,,raw_syscalls:sys_enter,0,100.00,,\n"), None);
        assert_eq!(counted("Error: no access\n"), None);
    }
}
