//! Brokers found a cluster together, or join the one that there is, while they are killed and wiped at any moment and the
//! network between them is cut: there is one cluster as long as anybody is left who knows of it, and no replica of its
//! controller's log is two directories'. When the faults are over, all belong to it within seconds.

mod world;

use std::rc::Rc;
use std::time::Duration;

use corelog_broker::config::Endpoint;
use corelog_broker::identity::{Belongs, Life};
use corelog_io::sim::{Sim, SimConfig};
use corelog_io::{Dice, sleep, timeout};

use self::world::World;
use crate::for_seeds;
use crate::world::{MS, SECOND};

/// Half a cluster's connections may have to be found dead first.
const HEALED_MAX: Duration = Duration::from_secs(10);
const FORMED_MAX: Duration = Duration::from_secs(3);

fn world(seed: u64, machines: usize) -> Rc<World> {
    let config = SimConfig { half_open_one_in: 3, ..SimConfig::default() };
    World::new(&Sim::with_config(seed, config), machines, |_| None)
}

/// One fault, or one machine that is started.
async fn strike(world: &Rc<World>, dice: &mut Dice) {
    let number = dice.index(world.machines.len());
    let process = &world.machines[number].process;
    let other = &world.machines[dice.index(world.machines.len())].process;
    match dice.below(12) {
        0..3 if !process.is_running() => world.start(number, world.seeds()),
        0 => process.kill(),
        1 => process.crash(),
        // In the middle of whatever it is about.
        2 => {
            let _ = timeout(SECOND, world.sim.pass_steps(dice.below(500))).await;
            process.crash();
        }
        // A new disk, and back at once: what its former life said may be on its way.
        3..6 => {
            process.kill();
            process.wipe();
            sleep(dice.millis(20)).await;
            world.start(number, world.seeds());
        }
        6 if process.name() != other.name() => world.sim.link(process, other).cut(),
        7 if process.name() != other.name() => world.sim.partition(process, other),
        8..10 if process.name() != other.name() => {
            let most = MS + dice.millis(500);
            world.sim.link(process, other).set_delay(most / 2..most);
        }
        10 => world.heal(),
        _ => {
            let down = world.machines.iter().position(|machine| !machine.process.is_running());
            down.into_iter().for_each(|down| world.start(down, world.seeds()));
        }
    }
    let pause = if dice.one_in(3) { 1000 } else { 50 };
    sleep(dice.millis(pause)).await;
    world.look();
}

fn start_all(world: &Rc<World>) {
    for number in 0..world.machines.len() {
        if !world.machines[number].process.is_running() {
            world.start(number, world.seeds());
        }
    }
}

fn run(seed: u64) -> u64 {
    let mut dice = Dice(seed);
    let machines = [1, 3, 3, 5][dice.index(4)];
    let world = world(seed, machines);
    let story = world.clone();
    world.sim.block_on(async move {
        for _ in 0..10 + dice.below(30) {
            strike(&story, &mut dice).await;
        }
        story.heal();
        start_all(&story);
        let has_formed = story.all_form(HEALED_MAX).await;
        assert!(has_formed || !story.can_go_on(), "they do not come together");
        if !has_formed {
            // A majority of its founders was wiped: it cannot go on, and nobody founds another beside it.
            for machine in &story.machines {
                machine.process.kill();
                machine.process.wipe();
            }
            start_all(&story);
            assert!(story.all_form(HEALED_MAX).await, "empty machines do not come together");
        }
    });
    world.sim.trace_hash()
}

#[test]
fn one_cluster_whoever_is_wiped() {
    for_seeds(300, |seed| _ = run(seed));
}

#[test]
fn a_seed_repeats_it() {
    for_seeds(2, |seed| assert_eq!(run(seed), run(seed)));
}

/// Without faults, in whichever order they come.
pub fn together(seed: u64, machines: usize) {
    let world = world(seed, machines);
    let story = world.clone();
    world.sim.block_on(async move {
        let mut dice = Dice(seed);
        let first = dice.index(machines);
        for number in (0..machines).map(|number| (number + first) % machines) {
            if number != first {
                assert_eq!(story.look(), None, "a cluster is founded by all seeds, or not at all");
            }
            sleep(dice.millis(800)).await;
            story.start(number, story.seeds());
        }
        assert!(story.all_form(FORMED_MAX).await, "they do not come together");
        for number in 0..machines {
            let Some(Life::Member(identity)) = story.life(number) else { panic!("{number} is none") };
            assert!(matches!(identity.belongs, Belongs::Founder(founders) if founders.len() == machines));
        }
    });
}

#[test]
fn seeds_found_a_cluster_together() {
    for_seeds(20, |seed| [1, 3, 5].into_iter().for_each(|machines| together(seed, machines)));
}

#[test]
fn seeds_with_other_lists_wait_until_they_are_the_same() {
    for_seeds(10, |seed| {
        let world = world(seed, 3);
        let story = world.clone();
        world.sim.block_on(async move {
            let odd = seed as usize % 3;
            for number in 0..3 {
                let mut seeds = story.seeds();
                if number == odd {
                    seeds.push(Endpoint { host: "10.77.99.99".into(), port: 1 });
                }
                story.start(number, seeds);
            }
            sleep(SECOND * 5).await;
            assert_eq!(story.look(), None, "their lists differ");
            story.machines[odd].process.kill();
            story.start(odd, story.seeds());
            assert!(story.all_form(HEALED_MAX).await, "they do not come together");
        });
    });
}

/// A founder that was counted, and did not hear of it, comes back to its place; one that was wiped is somebody new.
pub fn counted_and_away(seed: u64, is_wiped: bool) {
    let world = world(seed, 3);
    let story = world.clone();
    world.sim.block_on(async move {
        // Those that come last in the list hear of the cluster from the first.
        let last = story.seeds().last().cloned();
        let away = story.machines.iter().position(|machine| Some(&machine.peer) == last.as_ref()).unwrap();
        start_all(&story);
        while story.look().is_none() {
            sleep(MS).await;
        }
        let process = &story.machines[away].process;
        assert!(matches!(story.life(away), Some(Life::Forming(_))), "it has not heard of it");
        process.kill();
        if is_wiped {
            process.wipe();
        }
        sleep(MS * 500).await;
        story.start(away, story.seeds());
        assert!(story.all_form(HEALED_MAX).await, "they do not come together");
        let Some(Life::Member(identity)) = story.life(away) else { panic!("it is none") };
        assert_eq!(matches!(identity.belongs, Belongs::Joined { .. }), is_wiped);
    });
}

#[test]
fn a_founder_is_its_directory() {
    for_seeds(10, |seed| [false, true].into_iter().for_each(|is_wiped| counted_and_away(seed, is_wiped)));
}

#[cfg(debug_assertions)]
pub fn until_found(seeds: u64) {
    (1..=seeds).for_each(|seed| _ = run(seed));
}
