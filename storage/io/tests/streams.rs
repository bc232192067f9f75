//! Connections behave alike in both worlds.

mod common;

use bytes::{Bytes, BytesMut};
use common::in_both_worlds;
use corelog_io::{
    AlignedBuf, Detached, File, ListenOptions, Listener, OpenOptions, Part, Queue, Seat, Stream, mesh, sleep,
    spawn, timeout, yield_now,
};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn listen() -> (Listener, SocketAddr) {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), ListenOptions::default()).unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

async fn connected() -> (Stream, Stream) {
    let (listener, addr) = listen();
    let accepting = spawn(Queue::Control, async move { listener.accept().await.unwrap() });
    let client = Stream::connect(addr).await.unwrap();
    let (server, peer) = accepting.await;
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(client.peer_addr().unwrap(), addr);
    (client, server)
}

async fn read_all(stream: &Stream, most: usize) -> Vec<u8> {
    let mut buf = BytesMut::new();
    while stream.read(&mut buf, most).await.unwrap() > 0 {}
    buf.to_vec()
}

fn pattern(len: usize) -> Bytes {
    let mut buf = AlignedBuf::new(len);
    for (i, byte) in buf.iter_mut().enumerate() {
        *byte = (i % 251) as u8;
    }
    buf.freeze()
}

#[test]
fn requests_and_answers() {
    in_both_worlds(1, |_| async {
        let (client, server) = connected().await;
        let echo = spawn(Queue::Fetch, async move {
            let mut buf = BytesMut::new();
            while server.read(&mut buf, 4096).await.unwrap() > 0 {
                server.send(vec![Part::Bytes(buf.split().freeze())]).await.unwrap();
            }
        });
        for round in 0..50usize {
            let request = vec![round as u8; 1 + round * 13];
            client.send(vec![Bytes::from(request.clone()).into()]).await.unwrap();
            let mut answer = BytesMut::new();
            while answer.len() < request.len() {
                assert!(client.read(&mut answer, 100).await.unwrap() <= 100);
            }
            assert_eq!(answer, request);
        }
        drop(client);
        echo.await;
    });
}

#[test]
fn a_large_vectored_send_waits_for_a_slow_reader() {
    in_both_worlds(1, |world| async move {
        let (client, server) = connected().await;
        let whole = pattern(if world.simulated { 3 << 20 } else { 24 << 20 });
        // Small, large and empty parts, more of them than one system call takes.
        let mut parts = Vec::new();
        let mut at = 0;
        for n in std::iter::repeat_n(37, 2000).chain([0, 1 << 20, 0, 5]) {
            parts.push(Part::Bytes(whole.slice(at..at + n)));
            at += n;
        }
        parts.push(Part::Bytes(whole.slice(at..)));
        let sending = spawn(Queue::Fetch, async move {
            server.send(parts).await.unwrap();
        });
        sleep(MS * 5).await;
        let mut got = BytesMut::new();
        let mut reads = 0;
        while client.read(&mut got, 300_000).await.unwrap() > 0 {
            reads += 1;
            if reads % 20 == 0 {
                sleep(MS).await;
            }
        }
        sending.await;
        assert!(got == whole, "{} of {} bytes, or others", got.len(), whole.len());
    });
}

#[test]
fn file_ranges_go_out_between_bytes() {
    in_both_worlds(1, |world| async move {
        let data = pattern((1 << 20) + 8192);
        for direct in [false, true] {
            let options = OpenOptions { read: true, write: true, create: true, direct };
            let file = File::open(&world.dir.join("ranges"), options).await.unwrap();
            file.write_at(0, data.clone(), true).await.unwrap();
            let (client, server) = connected().await;
            // Aligned and not, short and long, empty, up to the end of the file.
            let ranges = [
                (0u64, 4096u64),
                (1, 1),
                (5000, 0),
                (777, 700_001),
                (4096, 1 << 20),
                (data.len() as u64 - 3, 3),
            ];
            let mut parts = vec![Part::Bytes(Bytes::from_static(b"head"))];
            let mut expected = b"head".to_vec();
            for (pos, len) in ranges {
                parts.push(Part::File { file: file.clone(), pos, len });
                parts.push(Part::Bytes(Bytes::from_static(b"|")));
                expected.extend_from_slice(&data[pos as usize..(pos + len) as usize]);
                expected.push(b'|');
            }
            let sending = spawn(Queue::Fetch, async move { server.send(parts).await.unwrap() });
            let got = read_all(&client, 1 << 16).await;
            sending.await;
            assert!(got == expected, "direct {direct}: {} of {} bytes, or others", got.len(), expected.len());

            let (_client, server) = connected().await;
            let beyond = Part::File { file, pos: data.len() as u64 - 10, len: 20 };
            let error = server.send(vec![beyond]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
    });
}

#[test]
fn a_dropped_read_loses_nothing() {
    in_both_worlds(1, |_| async {
        let (client, server) = connected().await;
        let writing = spawn(Queue::Produce, async move {
            for i in 0..60u8 {
                client.send(vec![Bytes::from(vec![i; 10]).into()]).await.unwrap();
                sleep(MS).await;
            }
        });
        let mut buf = BytesMut::new();
        let mut given_up = 0;
        loop {
            match timeout(Duration::from_micros(300), server.read(&mut buf, 7)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(error)) => panic!("{error}"),
                Err(_) => given_up += 1,
            }
        }
        writing.await;
        let expected: Vec<u8> = (0..60u8).flat_map(|i| [i; 10]).collect();
        assert_eq!(buf, expected);
        assert!(given_up > 0, "no read was ever given up");
    });
}

#[test]
fn shutdown_wakes_both_sides() {
    in_both_worlds(1, |_| async {
        let (client, server) = connected().await;
        let reader = client.clone();
        let reading = spawn(Queue::Fetch, async move { read_all(&reader, 100).await });
        let other = spawn(Queue::Fetch, async move { read_all(&server, 100).await });
        yield_now().await;
        client.shutdown();
        assert!(reading.await.is_empty());
        assert!(other.await.is_empty());
        assert!(client.send(vec![Bytes::from_static(b"x").into()]).await.is_err());
    });
}

#[test]
fn a_peer_that_leaves_ends_a_send_that_waits() {
    in_both_worlds(1, |world| async move {
        let (client, server) = connected().await;
        // More than the kernel's buffers take.
        let data = pattern(if world.simulated { 2 << 20 } else { 64 << 20 });
        let sending = spawn(Queue::Fetch, async move { server.send(vec![data.into()]).await });
        sleep(MS * 5).await;
        drop(client);
        assert!(timeout(Duration::from_secs(20), sending).await.unwrap().is_err());
    });
}

/// A block of which parts are sent: tells when it is let go.
struct Block(Vec<u8>, Arc<AtomicBool>);

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.1.store(true, Ordering::Relaxed);
    }
}

#[test]
fn what_a_peer_makes_wait_keeps_its_own_bytes_and_no_more() {
    in_both_worlds(1, |world| async move {
        let (client, server) = connected().await;
        let fill = pattern(if world.simulated { 2 << 20 } else { 64 << 20 });
        let gone = Arc::new(AtomicBool::new(false));
        let block = Bytes::from_owner(Block(vec![7; 1 << 20], gone.clone()));
        let slice = block.slice(100..200);
        drop(block);
        let expected: Vec<u8> = fill.iter().chain(&slice).copied().collect();
        let before = server.taken();
        let sender = server.clone();
        let sending = spawn(Queue::Fetch, async move { sender.send(vec![fill.into(), slice.into()]).await });
        while !gone.load(Ordering::Relaxed) {
            sleep(MS * 10).await;
        }
        let taken = server.taken() - before;
        assert!(taken < expected.len() as u64);
        // It is sent whole all the same.
        let mut received = BytesMut::new();
        while received.len() < expected.len() {
            assert!(client.read(&mut received, 1 << 20).await.unwrap() > 0);
        }
        assert!(received == expected);
        sending.await.unwrap();
        while server.taken() - before < expected.len() as u64 {
            sleep(MS).await;
        }
    });
}

#[test]
fn nobody_listens() {
    in_both_worlds(1, |_| async {
        let (listener, addr) = listen();
        drop(listener);
        let error = Stream::connect(addr).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn every_core_listens_on_one_address() {
    // A free port; the simulated world's are its own.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    common::in_glommio_with(mesh(2, 1), move |world, seat| serve_and_ask(world.ctx.core, seat, free));
    for seed in 0..20 {
        common::in_simulation_with(seed, mesh(2, 1), move |world, seat| {
            serve_and_ask(world.ctx.core, seat, SocketAddr::from(([127, 0, 0, 1], 9092)))
        });
    }
}

async fn serve_and_ask(core: usize, seat: Seat<()>, addr: SocketAddr) {
    let (senders, mut receiver) = seat.join(core).await;
    let options = ListenOptions { backlog: 64, ..ListenOptions::default() };
    let listener = if core == 0 {
        let listener = Listener::bind(addr, options).unwrap();
        senders.send(1, ()).await.unwrap();
        listener
    } else {
        receiver.recv().await.unwrap();
        Listener::join(addr, options).unwrap()
    };
    let serving = spawn(Queue::Control, async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.send(vec![Bytes::from_static(b"!").into()]).await.unwrap();
        }
    });
    for _ in 0..20 {
        let stream = Stream::connect(addr).await.unwrap();
        assert_eq!(read_all(&stream, 10).await, b"!");
    }
    // The other core may still ask this one.
    senders.send(1 - core, ()).await.unwrap();
    receiver.recv().await.unwrap();
    drop(serving);
}

#[test]
fn a_connection_moves_to_another_core() {
    common::in_glommio_with(mesh(2, 1), |world, seat| move_connections(world.ctx.core, seat));
    for seed in 0..20 {
        common::in_simulation_with(seed, mesh(2, 1), |world, seat| move_connections(world.ctx.core, seat));
    }
}

/// Core 0 reads the first byte of each connection, core 1 serves the rest.
async fn move_connections(core: usize, seat: Seat<Detached>) {
    let (senders, mut receiver) = seat.join(core).await;
    if core == 1 {
        drop(senders);
        while let Some((_, detached)) = receiver.recv().await {
            let stream = detached.attach();
            let mut rest = BytesMut::new();
            while rest.len() < 99 {
                assert!(stream.read(&mut rest, 1000).await.unwrap() > 0);
            }
            stream.send(vec![Part::Bytes(rest.freeze())]).await.unwrap();
        }
        return;
    }
    for round in 0..10 {
        let (client, server) = connected().await;
        client.send(vec![pattern(100).into()]).await.unwrap();
        let mut first = BytesMut::new();
        server.read(&mut first, 1).await.unwrap();
        assert!(server.clone().detach().is_err(), "a clone of it is still here");
        let detached = server.detach().unwrap_or_else(|_| panic!("nothing else has it"));
        if round == 0 {
            // Nobody takes it.
            drop(detached);
            assert!(matches!(client.read(&mut BytesMut::new(), 10).await, Ok(0) | Err(_)));
            continue;
        }
        senders.send(1, detached).await.unwrap();
        assert_eq!(read_all(&client, 1000).await, pattern(100)[1..]);
        assert_eq!(client.taken(), 100);
    }
}

#[test]
fn an_ipv4_peer_is_one_whatever_was_listened_on() {
    common::in_glommio(1, |_| async {
        let listener = Listener::bind("[::]:0".parse().unwrap(), ListenOptions::default()).unwrap();
        let addr = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let accepting = spawn(Queue::Control, async move { listener.accept().await.unwrap() });
        let client = Stream::connect(addr).await.unwrap();
        let (_server, peer) = accepting.await;
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(peer.is_ipv4());
    });
}

#[test]
fn an_address_that_is_served_is_refused() {
    in_both_worlds(1, |_| async {
        let (first, addr) = listen();
        // As the other cores do; then there are several to be found.
        let second = Listener::join(addr, ListenOptions::default()).unwrap();
        for host in ["127.0.0.1", "0.0.0.0", "[::]"] {
            let wanted: SocketAddr = format!("{host}:{}", addr.port()).parse().unwrap();
            let refused = Listener::bind(wanted, ListenOptions::default()).err();
            assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::AddrInUse), "{wanted}");
        }
        // The attempts took nothing from those who were there.
        let client = Stream::connect(addr).await.unwrap();
        let accepting = |listener: Listener| spawn(Queue::Control, async move { listener.accept().await });
        let (first, second) = (accepting(first), accepting(second));
        let accepted = futures_util::future::select(first, second).await;
        let (accepted, other) = accepted.into_inner();
        let (server, _) = accepted.unwrap();
        // The side that closes first keeps the port in TIME_WAIT; that must not be in the way of a restart.
        drop(server);
        assert_eq!(read_all(&client, 10).await, b"");
        drop((client, other));
        // A listener that was accepting is closed once the kernel has let go of it.
        let free = || Listener::bind(addr, ListenOptions::default()).is_ok();
        while !free() {
            sleep(MS).await;
        }
    });
}

#[test]
fn many_connections_wait_without_taking_the_disks_place() {
    in_both_worlds(1, |world| async move {
        let n = if world.simulated { 50 } else { 1500 };
        let mut streams = Vec::new();
        for _ in 0..n {
            streams.push(connected().await);
        }
        let waiting: Vec<_> = streams
            .iter()
            .map(|(client, _)| {
                let client = client.clone();
                spawn(Queue::Fetch, async move { read_all(&client, 10).await })
            })
            .collect();
        sleep(MS).await;
        // More waits than the ring is deep: a file still opens.
        let options = OpenOptions { read: true, write: true, create: true, direct: false };
        let file = File::open(&world.dir.join("beside"), options).await.unwrap();
        file.write_at(0, Bytes::from_static(b"x"), true).await.unwrap();
        for (_, server) in &streams {
            server.send(vec![Bytes::from_static(b"go").into()]).await.unwrap();
            server.shutdown();
        }
        for task in waiting {
            assert_eq!(task.await, b"go");
        }
    });
}

#[test]
fn a_silent_peer_takes_no_memory() {
    common::in_glommio(1, |_| async {
        let (client, server) = connected().await;
        let mut buf = BytesMut::with_capacity(1 << 20);
        assert!(timeout(MS * 5, server.read(&mut buf, 1 << 20)).await.is_err());
        assert_eq!(buf.capacity(), 0);
        client.send(vec![Bytes::from_static(b"short").into()]).await.unwrap();
        assert_eq!(server.read(&mut buf, 4096).await.unwrap(), 5);
        assert!(buf.capacity() < 4096, "a short read took {} bytes", buf.capacity());
        // A long one receives in place, behind what is there.
        client.send(vec![pattern(100_000).into()]).await.unwrap();
        while buf.len() < 100_005 {
            server.read(&mut buf, 100_005).await.unwrap();
        }
        assert!(buf[..5] == b"short"[..] && buf[5..] == pattern(100_000)[..]);
    });
}

#[test]
fn a_core_ends_with_its_main_whatever_else_it_does() {
    common::in_glommio(2, |world| async move {
        let (listener, addr) = listen();
        let accepting = spawn(Queue::Control, async move {
            loop {
                let _ = listener.accept().await;
            }
        });
        accepting.detach();
        let (client, server) = connected().await;
        let stuck = server.clone();
        spawn(Queue::Fetch, async move { stuck.send(vec![pattern(64 << 20).into()]).await }).detach();
        spawn(Queue::Fetch, async move { server.read(&mut BytesMut::new(), 100).await }).detach();
        let options = OpenOptions { read: true, write: true, create: true, direct: false };
        let file = File::open(&world.dir.join(format!("file-{}", world.ctx.core)), options).await.unwrap();
        for i in 0..50 {
            let file = file.clone();
            spawn(Queue::Produce, async move {
                loop {
                    let _ = file.write_at(i << 16, pattern(1 << 16), true).await;
                }
            })
            .detach();
        }
        let _ = Stream::connect(addr).await.unwrap();
        sleep(MS * 20).await;
        drop(client);
    });
}
