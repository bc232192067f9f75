//! Who is refused, and what it is told.

use bytes::{Bytes, BytesMut};
use corelog_broker::peer::hello::{
    self, GREETING_BYTES_MAX, Greeting, Hello, PREFIX_BYTES, Prefix, Purpose, Refusal, RefusalKind,
};
use corelog_broker::peer::{BrokerId, Incarnation, Introduction, PeerId, ShardId};
use corelog_io::sim::Sim;
use corelog_io::{Stream, sleep, timeout};
use std::net::SocketAddr;
use std::rc::Rc;

use crate::shard::Told;
use crate::world::{CLUSTER, MS, SECOND, World};

/// A broker that this test makes up: number 1, which connects to number 2.
pub fn made_up() -> Introduction {
    Introduction {
        cluster: Some(CLUSTER.into()),
        broker: BrokerId(1),
        incarnation: Incarnation(77),
        shard: ShardId(0),
        shards: 1,
        feature_level: 1,
        feature_level_required: 1,
    }
}

pub fn hello(from: Introduction) -> Hello {
    Hello { from, purpose: Purpose::Frames, to_broker: Some(BrokerId(2)), to_shard: ShardId(0) }
}

pub async fn send(stream: &Stream, bytes: Bytes) {
    // Who is refused may be told before all is sent.
    let _ = stream.send(vec![bytes.into()]).await;
}

/// What comes back, until the other end closes: nothing, or one greeting.
pub async fn answer(stream: &Stream) -> Option<Greeting> {
    let mut buffer = BytesMut::new();
    loop {
        if buffer.len() >= PREFIX_BYTES {
            let prefix = Prefix::parse(*buffer.first_chunk().unwrap()).unwrap();
            if buffer.len() >= PREFIX_BYTES + prefix.length {
                return Some(
                    hello::decode(prefix, &buffer[PREFIX_BYTES..PREFIX_BYTES + prefix.length]).unwrap(),
                );
            }
        }
        match timeout(SECOND * 5, stream.read(&mut buffer, GREETING_BYTES_MAX))
            .await
            .expect("an end, or an answer")
        {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn ask(address: SocketAddr, bytes: Bytes) -> Option<Greeting> {
    let stream = Stream::connect(address).await.unwrap();
    send(&stream, bytes).await;
    answer(&stream).await
}

/// A world in which broker 2 is real, and wants links with broker 1, which is not there.
pub fn with_one(sim: &Sim, test: impl AsyncFnOnce(Rc<World>, SocketAddr) + 'static) {
    let world = World::new(sim, 2);
    sim.block_on(async move {
        world.start(1, 2);
        // As far as broker 2 knows.
        world.brokers[0].shards.set(Some(1));
        sleep(MS * 200).await;
        world.brokers[1].travellers.borrow().iter().for_each(|traveller| traveller.has_liars.set(true));
        let address = world.address(1);
        test(world, address).await;
    });
}

#[test]
fn each_is_told_why() {
    let change = |change: fn(&mut Hello)| {
        let mut hello = hello(made_up());
        change(&mut hello);
        hello::encode(&Greeting::Hello(hello))
    };
    let cases: Vec<(RefusalKind, Bytes, &str)> = vec![
        (RefusalKind::Cluster, change(|hello| hello.from.cluster = Some("another".into())), "another"),
        (RefusalKind::Forming, change(|hello| hello.from.cluster = None), "no cluster"),
        (RefusalKind::Broker, change(|hello| hello.to_broker = Some(BrokerId(3))), "this is broker 2"),
        (RefusalKind::OwnId, change(|hello| hello.from.broker = BrokerId(2)), "node.id"),
        (
            RefusalKind::Itself,
            change(|hello| (hello.from.broker, hello.from.incarnation) = (BrokerId(2), Incarnation(1))),
            "itself",
        ),
        (
            RefusalKind::FeatureLevel,
            change(|hello| (hello.from.feature_level, hello.from.feature_level_required) = (0, 0)),
            "upgrade",
        ),
        (
            RefusalKind::FeatureLevel,
            change(|hello| (hello.from.feature_level, hello.from.feature_level_required) = (9, 9)),
            "level 9",
        ),
        (RefusalKind::Shard, change(|hello| hello.to_shard = ShardId(2)), "2 shards"),
        (RefusalKind::NotWanted, change(|hello| hello.from.broker = BrokerId(0)), "nothing to say"),
        (RefusalKind::Malformed, change(|hello| hello.from.broker = BrokerId(3)), "lower id"),
        (RefusalKind::Malformed, hello::encode(&Greeting::Welcome(made_up())), "hello"),
        (RefusalKind::Version, of_versions(2, 3), "versions 1 to 1"),
    ];
    let sim = Sim::new(1);
    with_one(&sim, async move |_, address| {
        for (kind, bytes, says) in cases {
            let Some(Greeting::Refusal(refusal)) = ask(address, bytes).await else {
                panic!("{kind:?}: no refusal")
            };
            assert_eq!(refusal.kind, kind, "{refusal}");
            assert!(refusal.text.contains(says), "{refusal}");
            assert_eq!(refusal.shards, (kind == RefusalKind::Shard).then_some(2));
        }
        // Who belongs to no cluster may call.
        let mut calls = hello(Introduction { cluster: None, ..made_up() });
        calls.purpose = Purpose::Calls;
        let answer = ask(address, hello::encode(&Greeting::Hello(calls))).await;
        assert!(matches!(answer, Some(Greeting::Welcome(who)) if who.broker == BrokerId(2)));
    });
}

fn of_versions(min: u16, max: u16) -> Bytes {
    let mut bytes = hello::encode(&Greeting::Hello(hello(made_up()))).to_vec();
    bytes[8..10].copy_from_slice(&min.to_le_bytes());
    bytes[10..12].copy_from_slice(&max.to_le_bytes());
    bytes.into()
}

/// Broker 1 as two processes, which may both be alive.
pub fn two_of_one_id(seed: u64, first_lives: bool) {
    let sim = Sim::new(seed);
    let world = World::new(&sim, 2);
    sim.block_on(async move {
        [0, 1].into_iter().for_each(|number| world.start(number, 1));
        world.all_get(3, SECOND * 3).await;
        if !first_lives {
            // Nobody learns of it yet.
            world.sim.link(&world.brokers[0].machine, &world.brokers[1].machine).cut();
        }
        let since = corelog_io::now();
        let second = Introduction { incarnation: Incarnation(99), ..made_up() };
        let stream = Stream::connect(world.address(1)).await.unwrap();
        send(&stream, hello::encode(&Greeting::Hello(hello(second)))).await;
        let answer = answer(&stream).await;
        match first_lives {
            true => {
                assert!(
                    matches!(&answer, Some(Greeting::Refusal(Refusal { kind: RefusalKind::Alive, text, .. })) if text.contains("node.id")),
                    "{answer:?}"
                );
                let received = world.brokers[1].travellers.borrow()[0].received(world.peer(0, 0));
                assert!(received.is_some_and(|received| received > 100), "the first goes on");
            }
            false => {
                assert!(matches!(answer, Some(Greeting::Welcome(_))), "{answer:?}");
                assert!(since.elapsed() < SECOND);
            }
        }
    });
}

#[test]
fn of_two_brokers_with_one_id_the_first_stays() {
    (0..10).for_each(|seed| two_of_one_id(seed, true));
    (0..10).for_each(|seed| two_of_one_id(seed, false));
}

#[test]
fn an_incarnation_that_another_has_followed_is_refused() {
    let sim = Sim::new(1);
    with_one(&sim, async |world, address| {
        let connect = async |incarnation: u64| {
            let who = Introduction { incarnation: Incarnation(incarnation), ..made_up() };
            let stream = Stream::connect(address).await.unwrap();
            send(&stream, hello::encode(&Greeting::Hello(hello(who)))).await;
            let answer = answer(&stream).await;
            send(&stream, crate::strangers::ping()).await;
            sleep(MS * 50).await;
            (stream, answer)
        };
        let (former, answer) = connect(5).await;
        assert!(matches!(answer, Some(Greeting::Welcome(_))));
        drop(former);
        sleep(MS * 50).await;
        let (later, answer) = connect(6).await;
        assert!(matches!(answer, Some(Greeting::Welcome(_))));
        let told: Vec<_> = world.brokers[1].travellers.borrow()[0]
            .told
            .borrow()
            .iter()
            .map(|(_, _, told)| told.clone())
            .collect();
        let lives = told.iter().filter_map(|told| match told {
            Told::Connected(who) => Some(who.incarnation.0),
            _ => None,
        });
        assert_eq!(lives.collect::<Vec<_>>(), [5, 6]);
        for _ in 0..2 {
            let (_, answer) = connect(5).await;
            let Some(Greeting::Refusal(refusal)) = answer else { panic!("{answer:?}") };
            assert_eq!(refusal.kind, RefusalKind::Former);
            assert!(refusal.text.contains("two brokers have its id"));
        }
        drop(later);
    });
}

/// What is configured wrongly is told to both ends' users, and does no harm beyond.
#[test]
fn both_ends_learn_of_it() {
    let told_of = |world: &World, broker: usize, peer: PeerId| {
        let told = world.brokers[broker].travellers.borrow()[0].told.borrow().clone();
        told.into_iter().filter(|(_, of, _)| *of == peer).map(|(_, _, told)| told).collect::<Vec<_>>()
    };
    let sim = Sim::new(1);
    let world = World::new(&sim, 3);
    *world.configure.borrow_mut() = Box::new(|number, config| {
        if number == 2 {
            config.cluster = Some("another".into());
        }
    });
    sim.block_on(async move {
        [0, 1, 2].into_iter().for_each(|number| world.start(number, 1));
        sleep(SECOND * 3).await;
        for (here, there) in [(0, 2), (2, 0)] {
            let told = told_of(&world, here, world.peer(there, 0));
            assert!(
                !told.is_empty()
                    && told.iter().all(|told| *told == Told::Refused(RefusalKind::Cluster, None))
            );
        }
        assert!(
            world.brokers[0].travellers.borrow()[0]
                .received(world.peer(1, 0))
                .is_some_and(|frames| frames > 100)
        );
    });
}
