//! What a shard holds of its peers' frames.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use corelog_broker::peer::envelope::{Frame, Kind};
use corelog_broker::peer::hello::{self, Greeting};
use corelog_broker::peer::{Introduction, Lost, ShardId};
use corelog_io::sim::Sim;
use corelog_io::{Queue, Stream, Task, sleep, spawn};

use crate::refusals::{answer, hello, made_up, send};
use crate::shard::Told;
use crate::strangers::{frame, ping};
use crate::world::{MS, SECOND, World};

/// A user that lets nothing go is sent no more than there is memory for; it is still heard, and goes on where it was.
#[test]
fn who_keeps_what_it_receives_is_sent_no_more() {
    for seed in 0..5 {
        let sim = Sim::new(seed);
        let world = World::new(&sim, 2);
        world.has_calls.set(false);
        sim.block_on(async move {
            [0, 1].into_iter().for_each(|number| world.start(number, 1));
            world.all_get(1, SECOND * 3).await;
            let [giver, keeper] = [0, 1].map(|broker| world.brokers[broker].travellers.borrow()[0].clone());
            world.keeps_all.set(true);
            keeper.keeps.set(true);
            giver.keeps.set(false);
            let there = world.peer(0, 0);
            let mut received = 0;
            for _ in 0..100 {
                sleep(MS * 100).await;
                let now = keeper.received(there).expect("it stays connected");
                if now == received {
                    break;
                }
                received = now;
            }
            let kept = keeper.kept_bytes();
            assert!((400 << 10..4 << 20).contains(&kept), "{kept} bytes are kept");
            sleep(SECOND * 5).await;
            world.keeps_all.set(false);
            sleep(SECOND).await;
            assert!(keeper.received(there).is_some_and(|now| now > received + 100));
            for traveller in [giver, keeper] {
                let told = traveller.told.borrow();
                assert!(!told.iter().any(|(_, _, told)| matches!(told, Told::Disconnected(_))), "{told:?}");
            }
        });
    }
}

/// Two peers send the largest frames that there are, byte by byte: what the first has got, the other waits for. Neither
/// holds up a third.
#[test]
fn who_trickles_gives_its_memory_back() {
    let sim = Sim::new(3);
    let world = World::new(&sim, 3);
    world.has_calls.set(false);
    sim.block_on(async move {
        world.brokers[0].shards.set(Some(2));
        [1, 2].into_iter().for_each(|number| world.start(number, 1));
        sleep(SECOND).await;
        let traveller = world.brokers[1].travellers.borrow()[0].clone();
        let mut trickling = Vec::new();
        for shard in 0..2 {
            trickling.push(trickle(world.address(1), shard).await);
            sleep(SECOND).await;
        }
        let other = world.peer(2, 0);
        let before = traveller.received(other).expect("it is connected");
        sleep(SECOND * 3).await;
        assert!(traveller.received(other).is_some_and(|now| now > before + 500), "it goes on");
        let lost = |peer| {
            let told = traveller.told.borrow();
            told.iter().find_map(|(_, of, told)| match told {
                Told::Disconnected(lost) if *of == peer => Some(lost.clone()),
                _ => None,
            })
        };
        assert_eq!(lost(world.peer(0, 0)), Some(Lost::Slow));
        assert_eq!([lost(world.peer(0, 1)), lost(other)], [None, None]);
    });
}

/// A made-up shard of broker 1, which begins a frame and goes on with a byte now and then.
async fn trickle(address: SocketAddr, shard: usize) -> [Task<()>; 2] {
    let stream = Stream::connect(address).await.unwrap();
    let who = Introduction { shard: ShardId(shard), shards: 2, ..made_up() };
    send(&stream, hello::encode(&Greeting::Hello(hello(who)))).await;
    assert!(matches!(answer(&stream).await, Some(Greeting::Welcome(_))));
    send(&stream, ping()).await;
    let large = Frame { head: Bytes::new(), body: vec![vec![0; (3 << 20) - 1000].into()] };
    let bytes = frame(Kind::Frame, 0, large);
    let reader = stream.clone();
    let reading = spawn(Queue::Background, async move {
        let mut buffer = BytesMut::new();
        while matches!(reader.read(&mut buffer, 10_000).await, Ok(1..)) {
            buffer.clear();
        }
    });
    let trickling = spawn(Queue::Background, async move {
        send(&stream, bytes.slice(..1 << 20)).await;
        for at in 1 << 20..bytes.len() {
            send(&stream, bytes.slice(at..at + 1)).await;
            sleep(MS * 100).await;
        }
    });
    [reading, trickling]
}
