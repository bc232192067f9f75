//! The simulated world keeps its promises: one seed, one run; what was synced survives; what was not may not; faults
//! strike where they were set.

use bytes::{Bytes, BytesMut};
use corelog_io::sim::{DiskOp, Process, Sim, SimConfig};
use corelog_io::{
    ALIGN, AlignedBuf, File, ListenOptions, Listener, OpenOptions, Part, Queue, Stream, fs, now, random_u64,
    sleep, spawn, timeout, wall_clock_ms, yield_now,
};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const RW: OpenOptions = OpenOptions { read: true, write: true, create: true, direct: false };

async fn open(path: &str) -> File {
    File::open(Path::new(path), RW).await.unwrap()
}

fn bytes(byte: u8, len: usize) -> Bytes {
    Bytes::from(vec![byte; len])
}

/// Starts a server on every core that answers each byte by its successor.
fn start_server(process: &Process) {
    process.start(2, |_| async {
        let listener = Listener::join("0.0.0.0:9092".parse().unwrap(), ListenOptions::default()).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            spawn(Queue::Fetch, async move {
                let mut buf = BytesMut::new();
                while stream.read(&mut buf, 100).await.unwrap_or(0) > 0 {
                    let answer: Vec<u8> = buf.split().iter().map(|byte| byte.wrapping_add(1)).collect();
                    if stream.send(vec![Part::Bytes(answer.into())]).await.is_err() {
                        break;
                    }
                }
            })
            .detach();
        }
    });
}

/// One request of one byte, on a connection of its own.
async fn ask(server: SocketAddr, byte: u8) -> io::Result<u8> {
    let stream = Stream::connect(server).await?;
    stream.send(vec![bytes(byte, 1).into()]).await?;
    let mut buf = BytesMut::new();
    match stream.read(&mut buf, 1).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(buf[0]),
    }
}

/// Disks, network, timers, randomness and a crash in the middle.
fn eventful_run(seed: u64) -> (u64, u64, Vec<u8>) {
    let sim = Sim::new(seed);
    let server = sim.process("server");
    let writer = sim.process("writer");
    start_server(&server);
    let addr = SocketAddr::new(server.ip(), 9092);
    writer.start(3, move |ctx| async move {
        let file = open(&format!("/log-{}", ctx.core)).await;
        for i in 0.. {
            let data = bytes(random_u64() as u8, 100 + (random_u64() % 5000) as usize);
            file.write_at(i * 1000, data, i % 3 == 0).await.unwrap();
            let _ = ask(addr, i as u8).await;
            sleep(Duration::from_micros(random_u64() % 1000)).await;
        }
    });
    writer.crash_after(500 + sim.random_u64() % 500);
    sim.run_steps(3000);
    assert!(!writer.is_running());
    let left = writer.disk().files().iter().flat_map(|path| writer.disk().contents(path).unwrap()).collect();
    (sim.trace_hash(), sim.steps(), left)
}

#[test]
fn one_seed_one_run() {
    let mut hashes = BTreeSet::new();
    for seed in 0..30 {
        let (first, second) = (eventful_run(seed), eventful_run(seed));
        assert!(first == second, "seed {seed} gave two runs");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 30, "seeds gave the same run");
}

#[test]
fn the_order_of_tasks_is_the_seeds() {
    let order = |seed| {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks: Vec<_> = (0..6)
                .map(|i| {
                    let order = Rc::clone(&order);
                    spawn(Queue::Control, async move {
                        order.borrow_mut().push(i);
                    })
                })
                .collect();
            for task in tasks {
                task.await;
            }
            order.take()
        })
    };
    let orders: BTreeSet<Vec<i32>> = (0..100).map(order).collect();
    assert!(orders.len() > 50, "only {} orders in 100 runs", orders.len());
}

#[test]
fn virtual_time_passes_at_once_and_clocks_may_be_wrong() {
    let sim = Sim::new(3);
    let start = std::time::Instant::now();
    let slow = sim.process("slow clock");
    let seen = Rc::new(Cell::new((Duration::ZERO, 0)));
    let report = Rc::clone(&seen);
    slow.start(1, move |_| {
        let report = Rc::clone(&report);
        async move {
            let (began, wall) = (now(), wall_clock_ms());
            sleep(Duration::from_secs(1000)).await;
            report.set((now() - began, wall_clock_ms() - wall));
        }
    });
    sim.run_for(MS);
    slow.set_clock(-5_000, -100_000);
    sim.run_for(Duration::from_secs(1050));
    assert_eq!(seen.get().1, 0, "1000 s by a clock that is 10 % slow take 1111 s");
    sim.run_for(Duration::from_secs(100));
    let (monotonic, wall) = seen.get();
    assert!(monotonic >= Duration::from_secs(1000) && monotonic < Duration::from_secs(1001), "{monotonic:?}");
    assert_eq!(wall / 1000, 995, "the wall clock jumped by −5 s");
    assert!(sim.elapsed() >= Duration::from_secs(1150));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn what_is_stuck_is_told_with_its_seed() {
    let sim = Sim::new(77);
    let stalled = sim.try_block_on(std::future::pending::<()>()).unwrap_err();
    assert_eq!((stalled.seed, stalled.tasks), (77, 1));
    let config = SimConfig { time_limit: Duration::from_secs(5), ..SimConfig::default() };
    let sim = Sim::with_config(78, config);
    let ticking = async {
        while sim_goes_on() {
            sleep(MS * 100).await;
        }
    };
    let stalled = sim.try_block_on(ticking).unwrap_err();
    assert!(stalled.at >= Duration::from_secs(5) && stalled.at < Duration::from_secs(6), "{stalled}");
}

fn sim_goes_on() -> bool {
    now().as_nanos() > 0
}

/// Writes numbered blocks with `sync`, one after the other, and says which were acknowledged.
fn append_until_crash(seed: u64) {
    let sim = Sim::new(seed);
    let process = sim.process("broker");
    let acked = Rc::new(Cell::new(0u64));
    let count = Rc::clone(&acked);
    process.start(1, move |_| {
        let count = Rc::clone(&count);
        async move {
            fs::create_dir_all(Path::new("/data")).await.unwrap();
            fs::sync_dir(Path::new("/")).await.unwrap();
            let file =
                File::open(Path::new("/data/journal"), OpenOptions { direct: true, ..RW }).await.unwrap();
            fs::sync_dir(Path::new("/data")).await.unwrap();
            for i in 0u64.. {
                let mut block = AlignedBuf::new(2 * ALIGN);
                block.fill(1 + (i % 255) as u8);
                file.write_at(i * 2 * ALIGN as u64, block.freeze(), true).await.unwrap();
                count.set(i + 1);
            }
        }
    });
    process.crash_after(50 + sim.random_u64() % 400);
    sim.run_steps(600);
    assert!(!process.is_running());
    if acked.get() > 0 {
        let left = process.disk().contents(Path::new("/data/journal")).unwrap();
        for i in 0..acked.get() {
            let block = &left[(i as usize) * 2 * ALIGN..][..2 * ALIGN];
            assert!(
                block.iter().all(|b| *b == 1 + (i % 255) as u8),
                "seed {seed}: block {i} of {} lost",
                acked.get()
            );
        }
    }
    // And a restart finds it.
    let acked = acked.get();
    let found = Rc::new(Cell::new(0));
    let report = Rc::clone(&found);
    process.start(1, move |_| {
        let report = Rc::clone(&report);
        async move {
            report.set(fs::file_len(Path::new("/data/journal")).await.unwrap_or(0));
        }
    });
    assert!(sim.run_until_idle(1000));
    assert!(found.get() >= acked * 2 * ALIGN as u64);
}

#[test]
fn acknowledged_writes_survive_a_crash_at_any_step() {
    for seed in 0..200 {
        append_until_crash(seed);
    }
}

#[test]
fn names_are_lost_unless_their_directory_is_synced() {
    let mut outcomes: BTreeMap<&str, BTreeSet<bool>> = BTreeMap::new();
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let process = sim.process("names");
        process.start(1, |_| async {
            fs::create_dir_all(Path::new("/d")).await.unwrap();
            fs::write_atomic(Path::new("/d/replaced"), b"old").await.unwrap();
            fs::sync_dir(Path::new("/")).await.unwrap();
            open("/d/synced").await.sync_data().await.unwrap();
            fs::write_atomic(Path::new("/d/atomic"), b"all").await.unwrap();
            // Synced bytes under a name that is not.
            let file = open("/d/unsynced").await;
            file.write_at(0, bytes(1, 10), true).await.unwrap();
            fs::remove_file(Path::new("/d/synced")).await.unwrap();
            fs::rename(Path::new("/d/unsynced"), Path::new("/d/replaced")).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(sim.run_until_idle(10_000));
        process.crash();
        let there = |path: &str| process.disk().contents(Path::new(path)).is_ok();
        assert_eq!(process.disk().contents(Path::new("/d/atomic")).unwrap(), b"all");
        let replaced = process.disk().contents(Path::new("/d/replaced")).unwrap();
        assert!(replaced == b"old" || replaced == [1; 10], "seed {seed}: {replaced:?}");
        // Changes of a directory are lost from the end: a later one never outlives an earlier one.
        if replaced == [1; 10] {
            assert!(!there("/d/synced") && !there("/d/unsynced"), "seed {seed}");
        }
        outcomes.entry("removed").or_default().insert(!there("/d/synced"));
        outcomes.entry("created").or_default().insert(there("/d/unsynced"));
        outcomes.entry("replaced").or_default().insert(replaced != b"old");
    }
    for (what, seen) in outcomes {
        assert_eq!(seen.len(), 2, "{what}: always the same outcome");
    }
}

#[test]
fn a_rename_between_directories_happens_in_both_or_in_neither() {
    for seed in 0..60 {
        let sim = Sim::new(seed);
        let process = sim.process("names");
        process.start(1, |_| async {
            for dir in ["/a", "/b"] {
                fs::create_dir_all(Path::new(dir)).await.unwrap();
            }
            fs::sync_dir(Path::new("/")).await.unwrap();
            fs::write_atomic(Path::new("/a/file"), b"x").await.unwrap();
            fs::write_atomic(Path::new("/b/other"), b"y").await.unwrap();
            fs::rename(Path::new("/a/file"), Path::new("/b/file")).await.unwrap();
            open("/b/later").await;
            if random_u64().is_multiple_of(2) {
                fs::sync_dir(Path::new("/b")).await.unwrap();
                open("/durable").await;
            }
        });
        assert!(sim.run_until_idle(10_000));
        let synced = process.disk().contents(Path::new("/durable")).is_ok();
        process.crash();
        let there = |path: &str| process.disk().contents(Path::new(path)).is_ok();
        assert_ne!(there("/a/file"), there("/b/file"), "seed {seed}");
        if synced {
            assert!(there("/b/file") && there("/b/later"));
        }
    }
}

#[test]
fn a_killed_process_leaves_what_it_wrote() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let process = sim.process("killed");
        process.start(1, |_| async {
            open("/f").await.write_at(0, bytes(9, 10_000), false).await.unwrap();
            std::future::pending::<()>().await;
        });
        assert!(sim.run_until_idle(1000));
        process.kill();
        assert_eq!(process.disk().contents(Path::new("/f")).unwrap(), [9; 10_000]);
    }
}

#[test]
fn a_write_under_way_ends_in_the_kernel_when_its_caller_is_gone() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..30 {
        let sim = Sim::new(seed);
        sim.block_on(async {
            let file = open("/f").await;
            let writing = spawn(Queue::Produce, async move { file.write_at(0, bytes(1, 100), false).await });
            yield_now().await;
            drop(writing);
        });
        assert!(sim.run_until_idle(1000));
        outcomes.insert(sim.tester().disk().contents(Path::new("/f")).unwrap().len());
    }
    assert_eq!(outcomes, BTreeSet::from([0, 100]));
}

#[test]
fn faults_strike_once_where_they_were_set() {
    let sim = Sim::new(5);
    let disk = sim.tester().disk();
    disk.fail_nth(DiskOp::Write, "journal", 1, io::ErrorKind::Other);
    disk.fail_nth(DiskOp::Read, "journal", 0, io::ErrorKind::TimedOut);
    disk.fail_nth(DiskOp::Sync, "other", 0, io::ErrorKind::Other);
    disk.fail_nth(DiskOp::Metadata, "new", 0, io::ErrorKind::PermissionDenied);
    sim.block_on(async {
        let (journal, other) = (open("/journal-1").await, open("/other").await);
        other.write_at(0, bytes(1, 10), false).await.unwrap();
        journal.write_at(0, bytes(1, 10), true).await.unwrap();
        assert_eq!(journal.write_at(0, bytes(2, 10), true).await.unwrap_err().kind(), io::ErrorKind::Other);
        journal.write_at(0, bytes(3, 10), true).await.unwrap();
        assert_eq!(journal.read_at(0, 10).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(journal.read_at(0, 10).await.unwrap(), bytes(3, 10));
        assert!(other.sync_data().await.is_err());
        other.sync_data().await.unwrap();
        let refused = File::open(Path::new("/new"), RW).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        open("/new").await;
    });
    disk.flip_bit(Path::new("/journal-1"), 8 * 3 + 1).unwrap();
    assert!(disk.flip_bit(Path::new("/journal-1"), 8 * 10).is_err());
    assert_eq!(sim.block_on(async { open("/journal-1").await.read_at(0, 10).await.unwrap() })[3], 3 ^ 2);
}

#[test]
fn a_cut_holds_everything_back_until_it_heals() {
    for seed in 0..20 {
        let sim = Sim::new(seed);
        let server = sim.process("server");
        start_server(&server);
        let addr = SocketAddr::new(server.ip(), 9092);
        let tester = sim.tester();
        let (world, peer) = (sim.clone(), server.clone());
        sim.block_on(async move {
            sleep(MS).await;
            let stream = Stream::connect(addr).await.unwrap();
            world.partition(&tester, &peer);
            stream.send(vec![bytes(7, 3).into()]).await.unwrap();
            let mut buf = BytesMut::new();
            assert!(
                timeout(MS * 500, stream.read(&mut buf, 10)).await.is_err(),
                "an answer came through the cut"
            );
            assert!(timeout(MS * 500, Stream::connect(addr)).await.is_err());
            world.heal(&tester, &peer);
            while buf.len() < 3 {
                assert!(stream.read(&mut buf, 10).await.unwrap() > 0);
            }
            assert_eq!(buf[..], [8; 3]);
            assert_eq!(ask(addr, 1).await.unwrap(), 2);

            world.reset_connections(&tester, &peer);
            assert!(stream.read(&mut buf, 10).await.is_err());
            assert!(stream.send(vec![bytes(7, 3).into()]).await.is_err());
        });
    }
}

#[test]
fn a_crash_breaks_connections_and_a_restart_serves_again() {
    for seed in 0..30 {
        let sim = Sim::new(seed);
        let server = sim.process("server");
        start_server(&server);
        let addr = SocketAddr::new(server.ip(), 9092);
        let peer = server.clone();
        sim.block_on(async move {
            sleep(MS).await;
            let stream = Stream::connect(addr).await.unwrap();
            if seed % 2 == 0 {
                peer.crash()
            } else {
                peer.kill()
            }
            let mut buf = BytesMut::new();
            let ended = timeout(Duration::from_secs(5), stream.read(&mut buf, 1)).await.unwrap();
            assert!(matches!(ended, Ok(0) | Err(_)), "seed {seed}");
            assert_eq!(ask(addr, 1).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
            start_server(&peer);
            sleep(MS).await;
            assert_eq!(ask(addr, 1).await.unwrap(), 2);
        });
    }
}

#[test]
fn connections_break_at_random_when_asked_to() {
    let config = SimConfig { reset_one_in: 20, ..SimConfig::default() };
    let sim = Sim::with_config(1, config);
    let server = sim.process("server");
    start_server(&server);
    let addr = SocketAddr::new(server.ip(), 9092);
    let (good, bad) = sim.block_on(async move {
        sleep(MS).await;
        let (mut good, mut bad) = (0, 0);
        for i in 0..200u8 {
            match ask(addr, i).await {
                Ok(answer) => {
                    assert_eq!(answer, i + 1);
                    good += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
                    bad += 1;
                }
            }
        }
        (good, bad)
    });
    assert!(good > 100 && bad > 5, "{good} answered, {bad} reset");
}

#[test]
fn a_paused_process_does_nothing_until_it_is_resumed() {
    let sim = Sim::new(9);
    let process = sim.process("paused");
    let ticks = Rc::new(Cell::new(0));
    let count = Rc::clone(&ticks);
    process.start(1, move |_| {
        let count = Rc::clone(&count);
        async move {
            loop {
                sleep(MS).await;
                count.set(count.get() + 1);
            }
        }
    });
    sim.run_for(MS * 20);
    let before = ticks.get();
    assert!(before > 10);
    process.pause();
    sim.run_for(MS * 500);
    assert_eq!(ticks.get(), before);
    process.resume();
    sim.run_for(MS * 20);
    assert!(ticks.get() > before + 10);
}

#[test]
fn a_world_that_ends_frees_what_its_tasks_hold() {
    let held = Rc::new(());
    {
        let sim = Sim::new(4);
        let process = sim.process("holder");
        let for_main = Rc::clone(&held);
        process.start(2, move |_| {
            let held = Rc::clone(&for_main);
            async move {
                let _file = open("/f").await;
                let listener =
                    Listener::join("0.0.0.0:1".parse().unwrap(), ListenOptions::default()).unwrap();
                let _ = listener.accept().await;
                drop(held);
            }
        });
        sim.run_for(MS * 10);
        assert!(Rc::strong_count(&held) > 1);
    }
    assert_eq!(Rc::strong_count(&held), 1);
}
