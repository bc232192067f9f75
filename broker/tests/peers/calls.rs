//! Calls: their limits, whom they reach, what they cost others.

use std::rc::Rc;

use bytes::Bytes;
use corelog_broker::peer::envelope::HEAD_BYTES_MAX;
use corelog_broker::peer::{
    BrokerId, CALL_BYTES_MAX, CallError, Callee, Frame, PeerId, RefusalKind, ShardId,
};
use corelog_io::sim::Sim;
use corelog_io::{now, sleep};
use futures_util::future::join_all;

use crate::shard::{Told, request};
use crate::world::{MS, SECOND, World};

fn with_two(seed: u64, test: impl AsyncFnOnce(Rc<World>) + 'static) {
    let sim = Sim::new(seed);
    let world = World::new(&sim, 2);
    world.has_calls.set(false);
    sim.block_on(async move {
        [0, 1].into_iter().for_each(|number| world.start(number, 2));
        world.all_get(1, SECOND * 3).await;
        test(world).await;
    });
}

#[test]
fn a_call_that_cannot_be_says_why_and_in_time() {
    with_two(1, async |world| {
        let there = world.peer(1, 1);
        world
            .on(0, 0, move |links, _| async move {
                let large = Frame { head: Bytes::new(), body: vec![vec![0; CALL_BYTES_MAX + 1].into()] };
                let error = links.call(Callee::Peer(there), large, SECOND).await.err();
                assert_eq!(error, Some(CallError::TooLarge(CALL_BYTES_MAX + 1)));
                let head = Bytes::from(vec![0; HEAD_BYTES_MAX + 1]);
                let error = links.call(Callee::Peer(there), head.into(), SECOND).await.err();
                assert_eq!(error, Some(CallError::HeadTooLarge(HEAD_BYTES_MAX + 1)));
                let nobody = PeerId { broker: BrokerId(9), shard: ShardId(0) };
                let error = links.call(Callee::Peer(nobody), Frame::default(), SECOND).await.err();
                assert_eq!(error, Some(CallError::NoAddress(BrokerId(9))));
                let since = now();
                let late = request(1, 0, [10, 10, 5000]);
                let error = links.call(Callee::Peer(there), late, SECOND).await.err();
                assert_eq!(error, Some(CallError::TimedOut(SECOND)));
                assert!(since.elapsed() < SECOND + MS * 5);
                let beyond = PeerId { shard: ShardId(7), ..there };
                let error = links.call(Callee::Peer(beyond), Frame::default(), SECOND).await.err();
                let Some(CallError::Refused(refusal)) = error else { panic!("{error:?}") };
                assert_eq!((refusal.kind, refusal.shards), (RefusalKind::Shard, Some(2)));
                let error = links.call(Callee::Peer(there), request(1, 9, [0, 0, 0]), SECOND).await.err();
                assert!(matches!(error, Some(CallError::Failed(_))), "{error:?}");
                let longest = request(1, 1, [1 << 20, 1 << 20, 0]);
                links.call(Callee::Peer(there), longest, SECOND).await.expect("it is answered");
            })
            .await;
        // Of one that is gone it is known at once, or soon.
        world.kill(1);
        world
            .on(0, 0, move |links, _| async move {
                let since = now();
                let error =
                    links.call(Callee::Peer(there), request(1, 0, [1, 1, 0]), SECOND * 10).await.err();
                assert!(matches!(error, Some(CallError::Lost(_) | CallError::Unreachable(_))), "{error:?}");
                assert!(since.elapsed() < SECOND * 2);
            })
            .await;
    });
}

#[test]
fn a_seed_is_known_by_its_address_alone() {
    with_two(2, async |world| {
        let [own, other] = [0, 1].map(|broker| Callee::Address(world.address(broker)));
        world
            .on(0, 1, move |links, _| async move {
                let answer = links.call(other, request(1, 3, [5, 5, 0]), SECOND).await.expect("it answers");
                assert_eq!((answer.from.broker, answer.from.shards), (BrokerId(2), 2));
                let error = links.call(own, request(1, 3, [5, 5, 0]), SECOND).await.err();
                let Some(CallError::Refused(refusal)) = error else { panic!("{error:?}") };
                assert_eq!(refusal.kind, RefusalKind::Itself);
            })
            .await;
    });
}

#[test]
fn large_answers_hold_up_neither_frames_nor_small_calls() {
    with_two(3, async |world| {
        world.sim.link(&world.brokers[1].machine, &world.brokers[0].machine).set_bytes_per_second(3 << 20);
        let there = world.peer(1, 0);
        let received = world.brokers[0].travellers.borrow()[0].received(there).unwrap();
        world
            .on(0, 0, move |links, _| async move {
                // Another shard's line, and this one's.
                let large = (0..12).map(|_| async {
                    let request = request(1, 0, [0, 1 << 20, 0]);
                    // Its memory counts as long as it is held.
                    links.call(Callee::Peer(there), request, SECOND * 20).await.map(drop)
                });
                let small = async {
                    for _ in 0..20 {
                        let since = now();
                        let other = PeerId { shard: ShardId(1), ..there };
                        links
                            .call(Callee::Peer(other), request(1, 0, [1, 1, 0]), SECOND * 5)
                            .await
                            .expect("answered");
                        assert!(since.elapsed() < SECOND, "{:?}", since.elapsed());
                        sleep(MS * 50).await;
                    }
                };
                let (large, ()) = futures_util::future::join(join_all(large), small).await;
                assert!(large.iter().all(Result::is_ok), "{large:?}");
            })
            .await;
        for broker in &world.brokers {
            for traveller in broker.travellers.borrow().iter() {
                let told = traveller.told.borrow();
                assert!(!told.iter().any(|(_, _, told)| matches!(told, Told::Disconnected(_))), "{told:?}");
            }
        }
        let after = world.brokers[0].travellers.borrow()[0].received(there).unwrap();
        assert!(after > received + 1000, "{received} to {after}");
    });
}

#[test]
fn a_line_that_is_not_used_ends() {
    with_two(4, async |world| {
        let there = world.peer(1, 0);
        let descriptors = || [0, 1].map(|broker| world.brokers[broker].machine.descriptors());
        // What knocked is gone.
        sleep(SECOND).await;
        let before = descriptors();
        let ask = move |links: Rc<corelog_broker::peer::Links>, _| async move {
            links.call(Callee::Peer(there), request(1, 0, [1, 1, 0]), SECOND).await.expect("answered");
        };
        world.on(0, 0, ask).await;
        assert_eq!(descriptors(), before.map(|before| before + 1));
        sleep(SECOND * 8).await;
        world.on(0, 0, ask).await;
        sleep(SECOND * 8).await;
        assert_eq!(descriptors(), before.map(|before| before + 1));
        sleep(SECOND * 8).await;
        assert_eq!(descriptors(), before);
        world.on(0, 0, ask).await;
    });
}
