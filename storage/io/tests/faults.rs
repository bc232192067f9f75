//! What the simulated world can do to a process beyond crashes: turns that are too long, descriptors that run out,
//! disks that stall, fail for long, lose a page or a file.

use bytes::Bytes;
use corelog_io::sim::{DiskOp, Sim};
use corelog_io::{
    File, ListenOptions, Listener, OpenOptions, Queue, Stream, fs, mesh, now, sleep, spawn, timeout, worked,
};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const PAGE: usize = 4096;
const RW: OpenOptions = OpenOptions { read: true, write: true, create: true, direct: false };

async fn open(path: &str) -> File {
    File::open(Path::new(path), RW).await.unwrap()
}

fn bytes(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

fn is_emfile(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMFILE)
}

#[test]
fn a_loop_that_takes_all_there_is_shows_as_the_longest_turn() {
    // Core 0 sends 500 messages while core 1 is held up; then core 1 takes them, so many in a turn.
    let longest = |in_a_turn: usize| {
        let sim = Sim::new(1);
        let process = sim.process("greedy");
        let taken = Rc::new(Cell::new(0usize));
        let count = taken.clone();
        process.start_with(mesh::<u64>(2, 1000), move |ctx, seat| {
            let count = count.clone();
            async move {
                let (senders, mut receiver) = seat.join(ctx.core).await;
                if ctx.core == 0 {
                    for message in 0..500 {
                        senders.send(1, message).await.unwrap();
                        sleep(MS / 10).await;
                    }
                    return;
                }
                while receiver.recv().await.is_some() {
                    count.set(count.get() + 1);
                    if count.get().is_multiple_of(in_a_turn) {
                        corelog_io::yield_now().await;
                    }
                }
            }
        });
        sim.run_for(MS);
        process.pause_core(1);
        sim.run_for(MS * 200);
        process.resume_core(1);
        sim.run_for(MS * 20);
        assert_eq!(taken.get(), 500);
        process.longest_turn().unwrap()
    };
    let greedy = longest(usize::MAX);
    assert!(greedy.cost >= MS * 4 / 10 && greedy.core == 1, "{greedy:?}");
    assert!(longest(16).cost <= MS / 20);
}

#[test]
fn bytes_gone_through_count_and_a_turn_is_forgotten_when_told() {
    let sim = Sim::new(2);
    sim.block_on(async {
        worked(100 << 20);
        sleep(MS).await;
        worked(1);
    });
    let longest = sim.tester().longest_turn().unwrap();
    assert!(longest.cost > MS * 100 && longest.cost < MS * 110, "{longest:?}");
    sim.tester().forget_turns();
    sim.block_on(async { worked(1) });
    assert!(sim.tester().longest_turn().unwrap().cost < MS);
}

#[test]
fn descriptors_run_out_and_come_back() {
    let sim = Sim::new(3);
    let tester = sim.tester();
    tester.set_descriptor_limit(3);
    let machine = tester.clone();
    sim.block_on(async move {
        let (a, b) = (open("/a").await, open("/b").await);
        let c = open("/c").await;
        assert_eq!(machine.descriptors(), 3);
        // What needs one waits for it.
        assert!(timeout(100 * MS, File::open(Path::new("/d"), RW)).await.is_err());
        assert!(fs::exists(Path::new("/d")).await.is_ok_and(|there| !there), "nothing was created");
        assert!(timeout(100 * MS, fs::sync_dir(Path::new("/"))).await.is_err());
        assert!(timeout(100 * MS, fs::read_dir(Path::new("/"))).await.is_err());
        assert_eq!(fs::waiting_for_descriptors(), 0, "who has given up waits no more");
        let waits = spawn(Queue::Background, fs::sync_dir(Path::new("/")));
        sleep(100 * MS).await;
        assert_eq!(fs::waiting_for_descriptors(), 1);
        // What is open works on, and what needs none does.
        a.write_at(0, bytes(1, 10), true).await.unwrap();
        fs::rename(Path::new("/c"), Path::new("/e")).await.unwrap();
        let clone = b.clone();
        drop(b);
        assert_eq!(machine.descriptors(), 3, "a clone holds it");
        drop((clone, c));
        waits.await.unwrap();
        open("/d").await;
        assert_eq!(machine.descriptors(), 1);
    });
}

#[test]
fn connections_take_descriptors_and_wait_to_be_accepted_without_one() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let server = sim.process("server");
        // The listener and two connections.
        server.set_descriptor_limit(3);
        let (accepted, refused) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(0)));
        let (streams, count) = (accepted.clone(), refused.clone());
        server.start(1, move |_| {
            let (streams, count) = (streams.clone(), count.clone());
            async move {
                let listener =
                    Listener::bind("0.0.0.0:9092".parse().unwrap(), ListenOptions::default()).unwrap();
                loop {
                    match listener.accept().await {
                        Ok((stream, _)) => streams.borrow_mut().push(stream),
                        Err(error) => {
                            assert!(is_emfile(&error), "{error}");
                            count.set(count.get() + 1);
                            sleep(MS * 10).await;
                        }
                    }
                }
            }
        });
        let addr = SocketAddr::new(server.ip(), 9092);
        let streams = accepted.clone();
        sim.block_on(async move {
            sleep(MS).await;
            let mut open = Vec::new();
            for _ in 0..4 {
                open.push(Stream::connect(addr).await.unwrap());
            }
            sleep(MS * 100).await;
            assert_eq!(streams.borrow().len(), 2);
            streams.borrow_mut().clear();
            sleep(MS * 100).await;
            assert_eq!(streams.borrow().len(), 2, "those that waited");
        });
        assert!(refused.get() > 2);
        assert_eq!(server.descriptors(), 3);
        accepted.borrow_mut().clear();
        server.kill();
        assert_eq!(server.descriptors(), 0);
    }
}

#[test]
fn an_open_that_is_given_up_leaves_no_descriptor() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        sim.block_on(async move {
            let opening = spawn(Queue::Control, async { open("/f").await });
            sleep(Duration::from_micros(seed * 20)).await;
            drop(opening);
        });
        assert!(sim.run_until_idle(1000));
        assert_eq!(sim.tester().descriptors(), 0, "seed {seed}");
    }
}

#[test]
fn errors_last_until_they_are_cleared() {
    let sim = Sim::new(5);
    let disk = sim.tester().disk();
    disk.fail_until_cleared(DiskOp::Write, "journal", libc::EIO);
    let cleared = disk.clone();
    sim.block_on(async move {
        let (journal, other) = (open("/journal").await, open("/other").await);
        for _ in 0..10 {
            let error = journal.write_at(0, bytes(1, 10), true).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EIO));
            other.write_at(0, bytes(1, 10), true).await.unwrap();
        }
        cleared.clear_faults();
        journal.write_at(0, bytes(1, 10), true).await.unwrap();
    });
}

#[test]
fn an_unreadable_page_stays_so_until_it_is_written_whole_and_synced() {
    for seed in 0..40 {
        let sim = Sim::new(seed);
        let process = sim.process("reader");
        let disk = process.disk();
        let synced = Rc::new(Cell::new(false));
        let (sector, done) = (disk.clone(), synced.clone());
        process.start(1, move |_| {
            let (disk, synced) = (sector.clone(), done.clone());
            async move {
                let file = open("/f").await;
                file.write_at(0, bytes(1, 4 * PAGE), true).await.unwrap();
                fs::sync_dir(Path::new("/")).await.unwrap();
                disk.make_unreadable(Path::new("/f"), PAGE as u64 + 10, 1).unwrap();
                assert_eq!(file.read_at(0, PAGE).await.unwrap(), bytes(1, PAGE));
                for (at, len) in [(0, PAGE + 1), (PAGE, 1), (PAGE + 100, PAGE)] {
                    let error = file.read_at(at as u64, len).await.unwrap_err();
                    assert_eq!(error.raw_os_error(), Some(libc::EIO));
                }
                assert!(file.write_at(PAGE as u64, bytes(2, 512), true).await.is_err());
                file.write_at(PAGE as u64, bytes(2, PAGE), false).await.unwrap();
                assert_eq!(file.read_at(PAGE as u64, PAGE).await.unwrap(), bytes(2, PAGE));
                if seed % 2 == 0 {
                    file.sync_data().await.unwrap();
                    synced.set(true);
                }
                std::future::pending::<()>().await;
            }
        });
        assert!(sim.run_until_idle(1000));
        process.crash();
        let readable = Rc::new(Cell::new(None));
        let report = readable.clone();
        process.start(1, move |_| {
            let report = report.clone();
            async move { report.set(Some(open("/f").await.read_at(PAGE as u64, PAGE).await.is_ok())) }
        });
        assert!(sim.run_until_idle(1000));
        assert!(readable.get().unwrap() || !synced.get(), "seed {seed}");
    }
}

#[test]
fn a_torn_page_may_be_unreadable_with_all_that_was_in_it() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let process = sim.process("writer");
        process.disk().set_torn_unreadable(2);
        process.start(1, |_| async {
            let file = open("/f").await;
            // The first half of the second page is acknowledged, then written again with more behind it.
            file.write_at(0, bytes(1, PAGE + 512), true).await.unwrap();
            fs::sync_dir(Path::new("/")).await.unwrap();
            file.write_at(PAGE as u64, bytes(1, 1024), false).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(sim.run_until_idle(1000));
        process.crash();
        let report = Rc::new(Cell::new(None));
        let told = report.clone();
        process.start(1, move |_| {
            let told = told.clone();
            async move {
                let file = open("/f").await;
                assert!(file.read_at(0, PAGE).await.is_ok(), "what was not written stays");
                told.set(Some(file.read_at(PAGE as u64, 512).await.is_ok()));
            }
        });
        assert!(sim.run_until_idle(1000));
        outcomes.insert(report.get().unwrap());
    }
    assert_eq!(outcomes.len(), 2);
}

#[test]
fn a_stalled_disk_does_nothing_and_then_all_that_was_asked() {
    let sim = Sim::new(7);
    let disk = sim.tester().disk();
    sim.block_on(async move {
        let file = open("/f").await;
        let began = now();
        let writing = file.write_at(0, bytes(1, 10), true);
        disk.stall(Duration::from_secs(300));
        let waited = timeout(Duration::from_secs(299), writing).await;
        assert!(waited.is_err());
        assert_eq!(disk.contents(Path::new("/f")).unwrap().len(), 0);
        // Asked during the stall; the first was given up, and is done all the same.
        file.read_at(0, 10).await.unwrap();
        assert!(now() - began >= Duration::from_secs(300));
        sleep(MS * 50).await;
        assert_eq!(disk.contents(Path::new("/f")).unwrap(), [1; 10]);
    });
}

#[test]
fn what_is_removed_from_outside_is_gone_after_a_crash_too() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let process = sim.process("victim");
        process.start(1, |_| async {
            fs::create_dir_all(Path::new("/d/deep")).await.unwrap();
            fs::write_atomic(Path::new("/d/deep/f"), b"1").await.unwrap();
            fs::write_atomic(Path::new("/d/g"), b"2").await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(sim.run_until_idle(1000));
        process.kill();
        process.disk().remove(Path::new("/d/deep")).unwrap();
        assert!(process.disk().remove(Path::new("/d/deep")).is_err());
        process.crash();
        assert_eq!(process.disk().files(), [Path::new("/d/g")]);
    }
}

#[test]
fn a_file_that_could_not_be_replaced_takes_no_space() {
    let sim = Sim::new(9);
    let disk = sim.tester().disk();
    sim.block_on(async move {
        let path = Path::new("/small");
        fs::write_atomic(path, &[1; PAGE]).await.unwrap();
        disk.set_capacity(8 * PAGE as u64);
        for _ in 0..50 {
            assert!(fs::write_atomic(path, &[2; 9 * PAGE]).await.is_err());
            assert_eq!(fs::space(path).await.unwrap().available, 7 * PAGE as u64);
        }
        fs::write_atomic(path, &[3; 7 * PAGE]).await.unwrap();
    });
}
