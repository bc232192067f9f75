//! What `perf` counts of a process, where it is installed and may look: system calls, and instructions where the machine has
//! a counter for them (a virtual one often has none).

use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::io::Read;
use std::process::{Child, Command, Stdio};

pub struct Perf {
    child: Child,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Counts {
    pub system_calls: Option<u64>,
    /// In user and kernel mode.
    pub instructions: Option<u64>,
}

const SYSTEM_CALLS: &str = "raw_syscalls:sys_enter";
const INSTRUCTIONS: &str = "instructions";
const REMEDY: &str = "install perf and lower kernel.perf_event_paranoid, or do without --perf";

impl Perf {
    /// Counts from now on, over all threads of the process.
    pub fn count(pid: u32) -> Result<Perf> {
        let mut perf = Command::new("perf");
        perf.args(["stat", "-x", ",", "-e", SYSTEM_CALLS, "-e", INSTRUCTIONS, "-p", &pid.to_string()]);
        perf.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = perf.spawn().with_context(|| format!("perf cannot be run: {REMEDY}"))?;
        Ok(Perf { child })
    }

    pub fn stop(mut self) -> Result<Counts> {
        // SAFETY: no memory is involved; the child has not been waited for, so its pid is still its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGINT) };
        let mut text = String::new();
        if let Some(mut output) = self.child.stderr.take() {
            output.read_to_string(&mut text)?;
        }
        self.child.wait()?;
        let counts = parse(&text);
        if counts == Counts::default() {
            bail!("perf counted nothing: {}; {REMEDY}", text.trim());
        }
        Ok(counts)
    }
}

/// A line for each event: its count first, its name third.
fn parse(text: &str) -> Counts {
    let count = |event: &str| {
        let line =
            text.lines().find(|line| line.split(',').nth(2).is_some_and(|name| name.starts_with(event)))?;
        line.split(',').next()?.parse().ok()
    };
    Counts { system_calls: count(SYSTEM_CALLS), instructions: count(INSTRUCTIONS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_refusals() {
        let text = "1234,,raw_syscalls:sys_enter,99,100.00,,\n<not supported>,,instructions,0,100.00,,\n";
        assert_eq!(parse(text), Counts { system_calls: Some(1234), instructions: None });
        assert_eq!(parse("77,,instructions:u,99,50.00,,\n").instructions, Some(77));
        assert_eq!(parse("Error: no access\n"), Counts::default());
    }
}
