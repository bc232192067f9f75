//! How soon an end notices that it is alone: within a second, with traffic and without.

use corelog_broker::peer::Lost;
use corelog_io::sim::{Sim, SimConfig};
use corelog_io::sleep;

use crate::for_seeds;
use crate::shard::Told;
use crate::world::{MS, SECOND, World};

/// Strikes two brokers, for good; the first notices, or both do.
fn notice(seed: u64, strike: fn(&World), who: &[usize]) {
    for has_frames in [false, true] {
        // Whoever loses its power leaves nobody a word.
        let config = SimConfig { half_open_one_in: 1, ..SimConfig::default() };
        let sim = Sim::with_config(seed, config);
        let world = World::new(&sim, 2);
        world.has_frames.set(has_frames);
        let story = world.clone();
        sim.block_on(async move {
            [0, 1].into_iter().for_each(|number| story.start(number, 2));
            story.all_get(1, SECOND * 3).await;
            sleep(MS * (story.sim.random_u64() % 300) as u32).await;
            assert!(story.all_have(1), "it stays connected by itself: {}", story.describe());
        });
        let wanted = [0, 1].map(|number| world.wanted_by(number));
        strike(&world);
        sim.run_for(SECOND);
        for &end in who {
            for traveller in world.brokers[end].travellers.borrow().iter() {
                for peer in &wanted[end] {
                    assert_eq!(traveller.received(*peer), None, "{peer} is missed, frames: {has_frames}");
                    let told = traveller.told.borrow();
                    let lost = told.iter().rev().find_map(|(_, of, told)| match told {
                        Told::Disconnected(lost) if of == peer => Some(lost),
                        _ => None,
                    });
                    assert!(matches!(lost, Some(Lost::Silent | Lost::Closed | Lost::Io(_))), "{lost:?}");
                }
            }
        }
    }
}

pub fn cut(seed: u64) {
    let cut = |world: &World| {
        let [a, b] = [0, 1].map(|number| &world.brokers[number].machine);
        world.sim.partition(a, b);
    };
    notice(seed, cut, &[0, 1]);
}

#[test]
fn a_cut_is_noticed() {
    for_seeds(10, cut);
}

#[test]
fn a_cut_of_one_direction_is_noticed_by_who_hears_nothing() {
    let there = |world: &World| world.sim.link(&world.brokers[0].machine, &world.brokers[1].machine).cut();
    let back = |world: &World| world.sim.link(&world.brokers[1].machine, &world.brokers[0].machine).cut();
    for_seeds(10, |seed| {
        notice(seed, there, &[1]);
        notice(seed, back, &[0]);
    });
}

#[test]
fn a_broker_that_stands_still_is_noticed() {
    for_seeds(10, |seed| {
        notice(seed, |world| world.brokers[1].machine.pause(), &[0]);
        notice(seed, |world| world.brokers[0].machine.pause(), &[1]);
    });
}

#[test]
fn a_broker_without_power_is_noticed() {
    for_seeds(10, |seed| notice(seed, |world| world.brokers[1].machine.crash(), &[0]));
}
