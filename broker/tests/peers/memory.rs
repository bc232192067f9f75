//! What a shard holds of its peers' frames.

use corelog_io::sim::Sim;
use corelog_io::sleep;

use crate::shard::Told;
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
