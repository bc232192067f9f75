//! A panic on a core ends the process, and its reason is the last line.

mod common;

use corelog_io::{Queue, fs, sleep, spawn};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

/// Runs one of the panicking tests below in a process of its own; what it wrote to its standard error.
fn dies(test: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{test}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_last_line_is_the_reason() {
    for (test, reason) in [
        ("panics_in_main", "the reason in main"),
        ("panics_in_a_task", "the reason in a task"),
        ("panics_by_an_assertion", "is not aligned"),
    ] {
        let stderr = dies(test);
        let last = stderr.trim_end().rsplit("corelog: fatal: core-0:").next().unwrap();
        assert!(last.contains(reason) && last.ends_with("the process stops"), "{test}: {stderr}");
    }
}

#[test]
#[ignore = "ends the process: run by the test above"]
fn panics_in_main() {
    common::in_glommio(1, |_| async { panic!("the reason in main") });
}

#[test]
#[ignore = "ends the process: run by the test above"]
fn panics_in_a_task() {
    common::in_glommio(2, |world| async move {
        if world.ctx.core == 0 {
            spawn(Queue::Produce, async { panic!("the reason in a task") }).detach();
        }
        sleep(Duration::from_secs(60)).await;
    });
}

#[test]
#[ignore = "ends the process: run by the test above"]
fn panics_by_an_assertion() {
    common::in_glommio(1, |world| async move {
        fs::create_dir_all(&world.dir).await.unwrap();
        let options = corelog_io::OpenOptions { read: true, write: true, create: true, direct: true };
        let file = corelog_io::File::open(&world.dir.join("x"), options).await.unwrap();
        let _ = file.read_at(3, 4096).await;
    });
}
