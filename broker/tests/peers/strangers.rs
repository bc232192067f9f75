//! What who is no broker can do at the port for brokers, and what a broker can that does not keep to the protocol.

use bytes::{BufMut, Bytes, BytesMut};
use corelog_broker::peer::envelope::{Envelope, Frame, Kind};
use corelog_broker::peer::hello::{self, Greeting, PREFIX_BYTES, Purpose};
use corelog_io::sim::Sim;
use corelog_io::{Queue, Stream, now, random_u64, sleep, spawn, timeout};

use crate::refusals::{answer, hello, made_up, send, with_one};
use crate::shard::{Told, head_of};
use crate::world::{MS, SECOND, World};

pub fn ping() -> Bytes {
    frame(Kind::Ping, 0, Frame::default())
}

fn frame(kind: Kind, number: u64, frame: Frame) -> Bytes {
    let mut out = BytesMut::new();
    Envelope::write(kind, number, &frame, &mut out).unwrap();
    out.put_slice(&frame.head);
    frame.body.iter().for_each(|part| out.put_slice(part));
    out.freeze()
}

fn greeting() -> Bytes {
    hello::encode(&Greeting::Hello(hello(made_up())))
}

/// Whether the other end closes within `limit`, whatever it says before.
async fn is_closed(stream: &Stream, seconds: u32) -> bool {
    let mut buffer = BytesMut::new();
    let closed = timeout(SECOND * seconds, async {
        while matches!(stream.read(&mut buffer, 1000).await, Ok(bytes) if bytes > 0) {
            buffer.clear();
        }
    });
    closed.await.is_ok()
}

#[test]
fn garbage_and_silence_are_closed_soon() {
    let begun = |bytes: Bytes, much: usize| bytes.slice(..much);
    let damaged = {
        let mut bytes = greeting().to_vec();
        bytes[PREFIX_BYTES + 9] ^= 4;
        Bytes::from(bytes)
    };
    let endless = {
        let mut bytes = greeting().to_vec();
        bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
        Bytes::from(bytes)
    };
    let cases = vec![
        Bytes::new(),
        begun(greeting(), 7),
        begun(greeting(), PREFIX_BYTES + 30),
        damaged,
        endless,
        Bytes::from_static(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n"),
        // A Kafka client's first request.
        Bytes::from_static(b"\0\0\0\x20\0\x12\0\x03\0\0\0\x01\0\x04java\0\x05kafka\x060000"),
        vec![0xa5; 100_000].into(),
    ];
    with_one(&Sim::new(1), async move |world, address| {
        for bytes in cases {
            let stream = Stream::connect(address).await.unwrap();
            send(&stream, bytes.clone()).await;
            assert!(is_closed(&stream, 2).await, "{bytes:?}");
        }
        assert!(world.brokers[1].machine.is_running());
    });
}

#[test]
fn a_crowd_that_says_nothing_keeps_no_broker_out() {
    for seed in 0..5 {
        let sim = Sim::new(seed);
        let world = World::new(&sim, 3);
        sim.block_on(async move {
            world.start(1, 2);
            sleep(MS * 50).await;
            let address = world.address(1);
            let crowd = spawn(Queue::Background, async move {
                let mut held = Vec::new();
                loop {
                    held.extend(Stream::connect(address).await.ok());
                    sleep(MS * (random_u64() % 5) as u32).await;
                    if held.len() > 500 {
                        held.clear();
                    }
                }
            });
            sleep(SECOND * 2).await;
            [0, 2].into_iter().for_each(|number| world.start(number, 2));
            world.all_get(100, SECOND * 3).await;
            assert!(
                world.brokers[1].machine.descriptors() < 100,
                "{}",
                world.brokers[1].machine.descriptors()
            );
            drop(crowd);
        });
    }
}

/// A peer that is welcome, and then sends these; how the link ended.
fn liar(lies: Vec<Bytes>) -> String {
    let told = std::rc::Rc::new(std::cell::RefCell::new(String::new()));
    let heard = told.clone();
    with_one(&Sim::new(1), async move |world, address| {
        let traveller = world.brokers[1].travellers.borrow()[0].clone();
        let stream = Stream::connect(address).await.unwrap();
        send(&stream, greeting()).await;
        assert!(matches!(answer(&stream).await, Some(Greeting::Welcome(_))));
        send(&stream, ping()).await;
        sleep(MS * 50).await;
        assert!(traveller.received(world.peer(0, 0)).is_some());
        for lie in lies {
            send(&stream, lie).await;
        }
        let since = now();
        loop {
            let ended = traveller.told.borrow().iter().find_map(|(_, _, told)| match told {
                Told::Disconnected(lost) => Some(lost.to_string()),
                _ => None,
            });
            if let Some(ended) = ended {
                heard.replace(ended);
                break;
            }
            assert!(since.elapsed() < SECOND * 2, "it is still connected");
            sleep(MS * 10).await;
        }
    });
    told.take()
}

#[test]
fn a_peer_that_lies_loses_its_link() {
    let head = |text: &'static str| Frame { head: Bytes::from_static(text.as_bytes()), body: Vec::new() };
    let changed = |at: usize| {
        let mut bytes = frame(Kind::Frame, 0, head("something")).to_vec();
        bytes[at] ^= 1;
        Bytes::from(bytes)
    };
    let large = Frame { head: Bytes::new(), body: vec![vec![0; 5 << 20].into()] };
    let endless = Frame { head: vec![0; 2 << 20].into(), body: Vec::new() };
    assert!(Envelope::write(Kind::Frame, 0, &endless, &mut BytesMut::new()).is_none());
    for (lies, says) in [
        (vec![frame(Kind::Frame, 1, head("x"))], "frame 0 is next"),
        (vec![frame(Kind::Request, 0, head("x"))], "frame 0 is next"),
        (vec![changed(0)], "envelope's checksum"),
        (vec![changed(9)], "envelope's checksum"),
        (vec![changed(30)], "frame's head"),
        (vec![frame(Kind::Frame, 0, large).slice(..100)], "memory for 3"),
        // Half a frame, and then nothing.
        (vec![frame(Kind::Frame, 0, head("something")).slice(..30)], "nothing was heard"),
    ] {
        let lost = liar(lies);
        assert!(lost.contains(says), "{lost}");
    }
}

/// A peer that reads nothing, and one that calls and reads no answers, are cut off after a while, and hold up nobody else.
#[test]
fn who_does_not_read_stalls_alone() {
    let sim = Sim::new(5);
    let world = World::new(&sim, 3);
    sim.block_on(async move {
        [1, 2].into_iter().for_each(|number| world.start(number, 1));
        world.brokers[0].shards.set(Some(1));
        sleep(MS * 300).await;
        let mut streams = Vec::new();
        for purpose in [Purpose::Frames, Purpose::Calls] {
            let stream = Stream::connect(world.address(1)).await.unwrap();
            let hello = hello::Hello { purpose, ..hello(made_up()) };
            send(&stream, hello::encode(&Greeting::Hello(hello))).await;
            assert!(matches!(answer(&stream).await, Some(Greeting::Welcome(_))));
            streams.push(stream);
        }
        let sending = spawn(Queue::Background, async move {
            let head = head_of([77, 0, 1 << 20, 0]);
            let mut sent = 0;
            loop {
                send(&streams[0], ping()).await;
                if sent < 40 {
                    let request = Frame { head: head.clone(), body: Vec::new() };
                    let _ =
                        timeout(MS, streams[1].send(vec![frame(Kind::Request, sent, request).into()])).await;
                    sent += 1;
                } else {
                    let _ = timeout(MS, streams[1].send(vec![ping().into()])).await;
                }
                sleep(MS * 100).await;
            }
        });
        let (traveller, mute, other) =
            (world.brokers[1].travellers.borrow()[0].clone(), world.peer(0, 0), world.peer(2, 0));
        sleep(SECOND * 5).await;
        assert!(traveller.received(mute).is_some(), "it lives");
        let before = traveller.received(other).expect("it is connected");
        sleep(SECOND * 8).await;
        assert_eq!(traveller.received(mute), None, "it took nothing for too long");
        let after = traveller.received(other).expect("it is still connected");
        assert!(after > before + 1000, "{before} to {after}");
        drop(sending);
    });
}
