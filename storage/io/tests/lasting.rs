//! Storage faults that last, and what a failed sync forgets.

use bytes::Bytes;
use corelog_io::sim::{Disk, DiskOp, Process, Sim};
use corelog_io::{File, OpenOptions, fs};
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

const PAGE: usize = 4096;
const RW: OpenOptions = OpenOptions { read: true, write: true, create: true, direct: false };

async fn open(path: &str) -> File {
    File::open(Path::new(path), RW).await.unwrap()
}

fn bytes(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

fn errno<T>(outcome: io::Result<T>) -> Option<i32> {
    outcome.err().and_then(|error| error.raw_os_error())
}

/// A machine on which `main` runs until nothing happens any more.
fn run<F: Future<Output = ()> + 'static>(
    seed: u64,
    main: impl Fn(Disk) -> F + Clone + 'static,
) -> (Sim, Process) {
    let sim = Sim::new(seed);
    let machine = sim.process("machine");
    let disk = machine.disk();
    machine.start(1, move |_| main(disk.clone()));
    assert!(sim.run_until_idle(100_000), "seed {seed}");
    (sim, machine)
}

#[test]
fn a_dead_device_does_nothing_until_it_is_back_or_there_is_another() {
    let (sim, machine) = run(1, |disk| async move {
        let file = open("/f").await;
        file.write_at(0, bytes(1, PAGE), true).await.unwrap();
        disk.set_dead(true);
        assert_eq!(errno(file.read_at(0, PAGE).await), Some(libc::EIO));
        assert_eq!(errno(file.write_at(0, bytes(2, PAGE), false).await), Some(libc::EIO));
        assert_eq!(errno(file.sync_data().await), Some(libc::EIO));
        assert_eq!(errno(fs::read_dir(Path::new("/")).await), Some(libc::EIO));
        disk.clear_faults();
        assert_eq!(errno(fs::read_dir(Path::new("/")).await), Some(libc::EIO), "it is dead all the same");
        disk.set_dead(false);
        assert_eq!(file.read_at(0, PAGE).await.unwrap(), bytes(1, PAGE));
    });
    machine.kill();
    machine.wipe();
    assert!(machine.disk().files().is_empty());
    machine.start(1, |_| async { open("/f").await.write_at(0, bytes(3, PAGE), true).await.unwrap() });
    assert!(sim.run_until_idle(1000));
    assert_eq!(machine.disk().contents(Path::new("/f")).unwrap(), [3; PAGE]);
}

#[test]
fn a_read_only_file_system_is_read_and_not_changed() {
    let (_sim, machine) = run(2, |disk| async move {
        let file = open("/f").await;
        file.write_at(0, bytes(1, PAGE), true).await.unwrap();
        fs::sync_dir(Path::new("/")).await.unwrap();
        disk.set_read_only(true);
        for outcome in [
            file.write_at(0, bytes(2, PAGE), true).await,
            file.write_at(0, bytes(2, PAGE), false).await,
            file.sync_data().await,
            file.allocate(0, 10).await,
            file.truncate(0).await,
            fs::remove_file(Path::new("/f")).await,
            fs::create_dir_all(Path::new("/d")).await,
            fs::write_atomic(Path::new("/g"), b"g").await,
            File::open(Path::new("/f"), RW).await.map(drop),
        ] {
            assert_eq!(errno(outcome), Some(libc::EROFS));
        }
        assert_eq!(file.read_at(0, PAGE).await.unwrap(), bytes(1, PAGE));
        assert_eq!(fs::file_len(Path::new("/f")).await.unwrap(), PAGE as u64);
        let reading = OpenOptions { read: true, ..OpenOptions::default() };
        File::open(Path::new("/f"), reading).await.unwrap();
        disk.set_read_only(false);
        file.write_at(0, bytes(2, PAGE), true).await.unwrap();
        std::future::pending::<()>().await;
    });
    machine.crash();
    assert_eq!(machine.disk().contents(Path::new("/f")).unwrap(), [2; PAGE]);
}

#[test]
fn a_bad_page_is_neither_read_nor_written_ever_again() {
    let (_sim, machine) = run(3, |disk| async move {
        let file = open("/f").await;
        file.write_at(0, bytes(1, 3 * PAGE), true).await.unwrap();
        fs::sync_dir(Path::new("/")).await.unwrap();
        disk.make_bad(Path::new("/f"), PAGE as u64, 1).unwrap();
        assert_eq!(errno(file.write_at(PAGE as u64, bytes(2, PAGE), true).await), Some(libc::EIO));
        assert_eq!(errno(file.read_at(0, 2 * PAGE).await), Some(libc::EIO));
        file.write_at(2 * PAGE as u64, bytes(2, PAGE), true).await.unwrap();
        assert_eq!(file.read_at(2 * PAGE as u64, PAGE).await.unwrap(), bytes(2, PAGE));
        std::future::pending::<()>().await;
    });
    machine.crash();
    machine.start(1, |_| async {
        let file = open("/f").await;
        assert_eq!(errno(file.read_at(PAGE as u64, PAGE).await), Some(libc::EIO));
        file.truncate(PAGE as u64).await.unwrap();
        // Other pages.
        file.write_at(PAGE as u64, bytes(3, PAGE), true).await.unwrap();
    });
}

#[test]
fn a_full_disk_refuses_and_takes_again_when_space_is_freed() {
    let sim = Sim::new(6);
    sim.tester().disk().set_capacity(10 * PAGE as u64);
    sim.block_on(async {
        let file = open("/a").await;
        file.allocate(0, 6 * PAGE as u64).await.unwrap();
        assert_eq!(fs::space(Path::new("/")).await.unwrap().available, 4 * PAGE as u64);
        let other = open("/b").await;
        let error = other.write_at(0, bytes(1, 5 * PAGE), false).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        // What is allocated can be written.
        file.write_at(0, bytes(1, 6 * PAGE), true).await.unwrap();
        assert_eq!(file.allocate(0, 20 * PAGE as u64).await.unwrap_err().kind(), io::ErrorKind::StorageFull);
        fs::remove_file(Path::new("/a")).await.unwrap();
        drop(file);
        other.write_at(0, bytes(1, 5 * PAGE), false).await.unwrap();
    });
}

/// How a failed sync is asked for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    File,
    FileSystem,
    Write,
}

/// A page is synced with other bytes, which fails, and again, which works. What is there before and after a power loss.
fn twice_synced(seed: u64, kind: Kind) -> (u8, u8) {
    let (_sim, machine) = run(seed, move |disk| async move {
        let file = open("/f").await;
        file.write_at(0, bytes(1, PAGE), true).await.unwrap();
        fs::sync_dir(Path::new("/")).await.unwrap();
        disk.fail_nth(DiskOp::Sync, "/f", 0, io::ErrorKind::Other);
        let outcome = match kind {
            Kind::Write => file.write_at(0, bytes(2, PAGE), true).await,
            Kind::File => {
                file.write_at(0, bytes(2, PAGE), false).await.unwrap();
                file.sync_data().await
            }
            Kind::FileSystem => {
                file.write_at(0, bytes(2, PAGE), false).await.unwrap();
                file.sync_file_system().await
            }
        };
        assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::Other);
        // Says so once to who had it open.
        let _told = file.sync_data().await;
        file.sync_data().await.unwrap();
        std::future::pending::<()>().await;
    });
    let seen = machine.disk().contents(Path::new("/f")).unwrap()[0];
    machine.crash();
    (seen, machine.disk().contents(Path::new("/f")).unwrap()[0])
}

#[test]
fn what_a_failed_sync_did_not_write_no_later_one_does() {
    for kind in [Kind::File, Kind::FileSystem, Kind::Write] {
        let outcomes: BTreeSet<(u8, u8)> = (0..60).map(|seed| twice_synced(seed, kind)).collect();
        assert_eq!(outcomes, BTreeSet::from([(1, 1), (2, 1), (2, 2)]), "{kind:?}");
    }
}

#[test]
fn a_failed_sync_of_the_file_system_is_told_to_each_file_that_lost_by_it() {
    let mut told = BTreeSet::new();
    for seed in 0..40 {
        let (_sim, machine) = run(seed, |disk| async move {
            let (first, second) = (open("/1").await, open("/2").await);
            let idle = open("/idle").await;
            fs::sync_dir(Path::new("/")).await.unwrap();
            first.write_at(0, bytes(1, PAGE), false).await.unwrap();
            second.write_at(0, bytes(1, PAGE), false).await.unwrap();
            disk.fail_nth(DiskOp::Sync, "", 0, io::ErrorKind::Other);
            assert!(idle.sync_file_system().await.is_err());
            idle.sync_data().await.unwrap();
            // Once to each file system's descriptor, too.
            assert!(first.sync_file_system().await.is_err());
            let report = open("/report").await;
            let flags = [first.sync_data().await.is_err(), second.sync_data().await.is_err()].map(u8::from);
            report.write_at(0, Bytes::copy_from_slice(&flags), true).await.unwrap();
            first.sync_data().await.unwrap();
            second.sync_data().await.unwrap();
            fs::sync_dir(Path::new("/")).await.unwrap();
            std::future::pending::<()>().await;
        });
        let flags = machine.disk().contents(Path::new("/report")).unwrap();
        machine.crash();
        for (name, flag) in ["/1", "/2"].into_iter().zip(&flags) {
            let is_there = machine.disk().contents(Path::new(name)).unwrap() == [1; PAGE];
            assert!(is_there || *flag == 1, "seed {seed}: {name} has lost its bytes, and was not told");
        }
        told.insert(flags);
    }
    assert!(told.len() > 2, "{told:?}");
}

#[test]
fn who_opens_a_file_after_everybody_was_told_of_a_loss_is_not() {
    run(5, |disk| async move {
        let file = open("/f").await;
        file.write_at(0, bytes(1, PAGE), false).await.unwrap();
        disk.fail_nth(DiskOp::Sync, "/f", 0, io::ErrorKind::Other);
        let other = open("/f").await;
        assert!(file.sync_data().await.is_err());
        open("/f").await.sync_data().await.unwrap();
        assert!(other.sync_data().await.is_err(), "it was open");
        other.sync_data().await.unwrap();
    });
}
