//! Links between simulated machines: delay, loss, rates, cuts of one direction, flapping; what TCP makes of them.

use bytes::{Bytes, BytesMut};
use corelog_io::sim::{Link, Process, Sim, SimConfig};
use corelog_io::{ListenOptions, Listener, Queue, Stream, now, sleep, spawn, timeout};
use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DEAD_AFTER: Duration = Duration::from_secs(20);

/// What a server has taken: the bytes of all connections, and how the last that ended did.
#[derive(Clone, Default)]
struct Taken {
    bytes: Rc<RefCell<Vec<u8>>>,
    ended: Rc<Cell<Option<io::ErrorKind>>>,
}

/// Takes what comes and answers each piece by its length, modulo 256.
fn serve(process: &Process, taken: &Taken) -> SocketAddr {
    let taken = taken.clone();
    process.start(1, move |_| {
        let taken = taken.clone();
        async move {
            let options = ListenOptions { dead_after: DEAD_AFTER, ..ListenOptions::default() };
            let listener = Listener::join("0.0.0.0:9092".parse().unwrap(), options).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let taken = taken.clone();
                spawn(Queue::Fetch, async move {
                    let mut buffer = BytesMut::new();
                    loop {
                        match stream.read(&mut buffer, 64 << 10).await {
                            Ok(0) => return taken.ended.set(Some(io::ErrorKind::UnexpectedEof)),
                            Ok(n) => {
                                taken.bytes.borrow_mut().extend_from_slice(&buffer.split());
                                let _ = stream.send(vec![Bytes::from(vec![n as u8]).into()]).await;
                            }
                            Err(error) => return taken.ended.set(Some(error.kind())),
                        }
                    }
                })
                .detach();
            }
        }
    });
    SocketAddr::new(process.ip(), 9092)
}

struct World {
    sim: Sim,
    addr: SocketAddr,
    taken: Taken,
    there: Link,
    back: Link,
}

fn world(seed: u64) -> World {
    let sim = Sim::new(seed);
    let (server, taken) = (sim.process("server"), Taken::default());
    let addr = serve(&server, &taken);
    sim.run_for(MS);
    let (there, back) = (sim.link(&sim.tester(), &server), sim.link(&server, &sim.tester()));
    World { sim, addr, taken, there, back }
}

fn counted(len: usize) -> Bytes {
    (0..len).map(|at| (at / 7) as u8).collect::<Vec<u8>>().into()
}

async fn send(stream: &Stream, bytes: Bytes) -> io::Result<()> {
    stream.send(vec![bytes.into()]).await
}

/// Waits for an answer.
async fn answer(stream: &Stream) -> io::Result<usize> {
    stream.read(&mut BytesMut::new(), 1).await
}

#[test]
fn bytes_arrive_once_and_in_order_whatever_the_links_do() {
    for seed in 0..30 {
        let world = world(seed);
        world.there.set_loss_one_in(2 + seed % 5 * 2);
        world.back.set_loss_one_in(3);
        world.there.set_delay(MS..MS * 100);
        world.back.flap(MS * 300, MS * 300);
        world.there.flap(MS * 500, MS * 200);
        let addr = world.addr;
        world.sim.block_on(async move {
            let stream = loop {
                if let Ok(stream) = Stream::connect(addr).await {
                    break stream;
                }
            };
            let reader = stream.clone();
            spawn(Queue::Fetch, async move { while answer(&reader).await.is_ok_and(|n| n > 0) {} }).detach();
            send(&stream, counted(300_000)).await.unwrap();
            sleep(Duration::from_secs(300)).await;
            drop(stream);
        });
        assert!(world.taken.bytes.take() == counted(300_000), "seed {seed}");
    }
}

#[test]
fn a_cut_of_one_direction_holds_back_what_goes_there_and_what_answers_it() {
    for seed in 0..20 {
        let world = world(seed);
        let (addr, there, back) = (world.addr, world.there.clone(), world.back.clone());
        let taken = world.taken.bytes.clone();
        world.sim.block_on(async move {
            let stream = Stream::connect(addr).await.unwrap();
            back.cut();
            // It gets there, and nobody learns of it.
            send(&stream, counted(1000)).await.unwrap();
            assert!(timeout(SECOND * 5, answer(&stream)).await.is_err());
            assert_eq!(taken.borrow().len(), 1000);
            assert_eq!(stream.taken(), 0);
            // More than the sender may send without an acknowledgement.
            assert!(timeout(SECOND * 5, send(&stream, counted(600_000))).await.is_err());
            back.heal();
            assert_eq!(answer(&stream).await.unwrap(), 1);
            there.cut();
            let before = taken.borrow().len();
            sleep(SECOND).await;
            let under_way = taken.borrow().len() - before;
            let again = spawn(Queue::Fetch, {
                let stream = stream.clone();
                async move { send(&stream, counted(1000)).await }
            });
            sleep(SECOND).await;
            assert_eq!(taken.borrow().len(), before + under_way, "something came through the cut");
            there.heal();
            sleep(SECOND * 5).await;
            again.await.unwrap();
        });
    }
}

#[test]
fn who_hears_nothing_for_too_long_gives_up_and_the_other_side_learns_of_it_when_it_can() {
    for seed in 0..10 {
        let world = world(seed);
        let (addr, there, back) = (world.addr, world.there.clone(), world.back.clone());
        let ended = world.taken.ended.clone();
        world.sim.block_on(async move {
            let stream = Stream::connect(addr).await.unwrap();
            there.cut();
            sleep(DEAD_AFTER - SECOND).await;
            assert_eq!(ended.get(), None);
            sleep(SECOND * 2).await;
            assert_eq!(ended.get(), Some(io::ErrorKind::TimedOut), "keepalive");
            // Its reset came back: only one direction is cut.
            assert_eq!(answer(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            there.heal();

            let stream = Stream::connect(addr).await.unwrap();
            ended.set(None);
            there.cut();
            back.cut();
            sleep(DEAD_AFTER + SECOND).await;
            assert_eq!(ended.get(), Some(io::ErrorKind::TimedOut));
            there.heal();
            back.heal();
            // Half open: the reset is lost, and who only waits learns nothing.
            assert!(timeout(SECOND * 3000, answer(&stream)).await.is_err());
            send(&stream, counted(10)).await.unwrap();
            assert_eq!(answer(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        });
    }
}

#[test]
fn a_connection_that_the_network_has_forgotten_ends_by_its_timeouts() {
    let world = world(3);
    let (addr, there, ended) = (world.addr, world.there.clone(), world.taken.ended.clone());
    world.sim.block_on(async move {
        let (stream, idle) = (Stream::connect(addr).await.unwrap(), Stream::connect(addr).await.unwrap());
        there.forget_connections();
        send(&stream, counted(10)).await.unwrap();
        let began = now();
        let outcome = answer(&stream).await.unwrap_err();
        assert_eq!(outcome.kind(), io::ErrorKind::ConnectionReset);
        assert!(now() - began <= DEAD_AFTER + SECOND, "the server's keepalive");
        assert_eq!(ended.get(), Some(io::ErrorKind::TimedOut));
        assert!(answer(&idle).await.is_err());
        // New ones work.
        let stream = Stream::connect(addr).await.unwrap();
        send(&stream, counted(10)).await.unwrap();
        assert_eq!(answer(&stream).await.unwrap(), 1);
    });
}

#[test]
fn a_sender_gives_up_in_the_end() {
    let world = world(4);
    let (addr, there, back) = (world.addr, world.there.clone(), world.back.clone());
    world.sim.block_on(async move {
        let stream = Stream::connect(addr).await.unwrap();
        there.cut();
        back.cut();
        send(&stream, counted(10)).await.unwrap();
        let began = now();
        assert_eq!(answer(&stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let after = now() - began;
        assert!(after > SECOND * 900 && after < SECOND * 950, "{after:?}");
    });
}

#[test]
fn a_connection_attempt_that_nobody_answers_times_out() {
    for one_way in [false, true] {
        let world = world(5);
        let (addr, there, back) = (world.addr, world.there.clone(), world.back.clone());
        world.sim.block_on(async move {
            if one_way {
                back.cut();
            } else {
                there.cut();
            }
            let began = now();
            assert_eq!(Stream::connect(addr).await.err().unwrap().kind(), io::ErrorKind::TimedOut);
            let after = now() - began;
            assert!(after > SECOND * 126 && after < SECOND * 129, "{after:?}");
        });
    }
}

#[test]
fn a_slow_link_carries_so_many_bytes_a_second_for_all() {
    let world = world(6);
    world.there.set_bytes_per_second(100_000);
    let (addr, taken) = (world.addr, world.taken.bytes.clone());
    world.sim.block_on(async move {
        let began = now();
        for _ in 0..4 {
            spawn(Queue::Fetch, async move {
                let stream = Stream::connect(addr).await.unwrap();
                send(&stream, counted(100_000)).await.unwrap();
                std::future::pending::<()>().await;
            })
            .detach();
        }
        while taken.borrow().len() < 400_000 {
            sleep(MS * 10).await;
        }
        let after = now() - began;
        assert!(after > SECOND * 39 / 10 && after < SECOND * 45 / 10, "{after:?}");
    });
}

#[test]
fn a_peer_that_lost_its_power_may_leave_a_connection_half_open() {
    let mut half_open = 0;
    for seed in 0..20 {
        let config = SimConfig { half_open_one_in: 2, ..SimConfig::default() };
        let sim = Sim::with_config(seed, config);
        let (server, taken) = (sim.process("server"), Taken::default());
        let addr = serve(&server, &taken);
        sim.run_for(MS);
        let peer = server.clone();
        half_open += sim.block_on(async move {
            let stream = Stream::connect(addr).await.unwrap();
            sleep(MS).await;
            peer.crash();
            let Err(_) = timeout(SECOND * 10, answer(&stream)).await else { return 0 };
            // The machine is up again, and knows nothing of it.
            send(&stream, counted(10)).await.unwrap();
            assert_eq!(answer(&stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            1
        });
    }
    assert!(half_open > 4 && half_open < 16, "{half_open}");
}

#[test]
fn links_are_each_machines_own() {
    let sim = Sim::new(8);
    let machines: Vec<Process> = (0..3).map(|n| sim.process(&format!("machine-{n}"))).collect();
    let addrs: Vec<SocketAddr> = machines.iter().map(|machine| serve(machine, &Taken::default())).collect();
    sim.run_for(MS);
    sim.link(&machines[0], &machines[1]).cut();
    let reached = Rc::new(RefCell::new(Vec::new()));
    // From the second and the third to the others.
    for (from, machine) in machines.iter().enumerate().skip(1) {
        let (addrs, reached) = (addrs.clone(), reached.clone());
        machine.kill();
        machine.start(1, move |_| {
            let (addrs, reached) = (addrs.clone(), reached.clone());
            async move {
                let outcome = timeout(SECOND, Stream::connect(addrs[0])).await;
                reached.borrow_mut().push((from, outcome.is_ok()));
            }
        });
    }
    sim.run_for(SECOND * 2);
    reached.borrow_mut().sort_unstable();
    assert_eq!(*reached.borrow(), [(1, false), (2, true)]);
    assert!(machines.iter().all(Process::is_running) && sim.elapsed() > SECOND);
}

#[test]
fn who_connected_notices_a_silent_peer_too_if_it_asks_for_it() {
    for seed in 0..20 {
        let world = world(seed);
        let (addr, back) = (world.addr, world.back.clone());
        world.sim.block_on(async move {
            let [patient, other] =
                [Stream::connect(addr).await.unwrap(), Stream::connect(addr).await.unwrap()];
            other.set_dead_after(SECOND * 10).unwrap();
            back.cut();
            let since = now();
            assert_eq!(answer(&other).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!((now() - since).as_secs(), 10);
            assert!(timeout(SECOND * 60, answer(&patient)).await.is_err());
        });
    }
}
