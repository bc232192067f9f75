//! Several brokers in one world. Each is still alone with its data, a cluster of one, and has its own clients; they start,
//! stop, die and fail side by side. A machine whose broker is gone gets an empty disk and a new broker with other data, at
//! the same address; or another machine takes its place.

use corelog_io::Dice;
use corelog_io::sim::{Process, Sim, SimConfig};
use corelog_io::sleep;
use futures_util::future::join_all;

use crate::plan::{Faults, Guests, Plan};
use crate::run_worlds;
use crate::story::Story;

/// What may befall a broker here.
const FAULTS: [Faults; 11] = [
    Faults::Crashes,
    Faults::Network,
    Faults::Links,
    Faults::Clocks,
    Faults::FullDisk,
    Faults::IoErrors,
    Faults::Stalls,
    Faults::DyingDisk,
    Faults::LastingErrors,
    Faults::Descriptors,
    Faults::BitFlips,
];

const HALF_OPEN_ONE_IN: u64 = 4;

/// Runs a world; a hash of all that happened.
pub fn run(seed: u64) -> u64 {
    let config = SimConfig { half_open_one_in: HALF_OPEN_ONE_IN, ..SimConfig::default() };
    let sim = Sim::with_config(seed, config);
    let mut dice = Dice(seed ^ 0xc1u64.rotate_left(40));
    let places = 2 + dice.below(2);
    let told = (0..places).map(|n| keep_a_place(sim.clone(), n, Dice(dice.next()))).collect::<Vec<_>>();
    sim.block_on(join_all(told));
    sim.trace_hash()
}

/// One place in the world, where one broker follows the other.
async fn keep_a_place(sim: Sim, place: u64, mut dice: Dice) {
    let mut machine = sim.process(&format!("broker {place}"));
    let followers = dice.below(2);
    for follower in 0..followers {
        sleep(dice.millis(500)).await;
        story(&sim, &machine, &mut dice).break_off().await;
        machine = succeed(&sim, machine, follower, &mut dice);
    }
    sleep(dice.millis(500)).await;
    story(&sim, &machine, &mut dice).tell().await;
}

fn story(sim: &Sim, machine: &Process, dice: &mut Dice) -> Story {
    Story::new(sim, machine.clone(), &plan(dice))
}

/// The machine of the next broker.
fn succeed(sim: &Sim, machine: Process, number: u64, dice: &mut Dice) -> Process {
    match dice.below(2) {
        0 => {
            machine.wipe();
            machine
        }
        _ => sim.process(&format!("{}, replaced {number}", machine.name())),
    }
}

/// A small one: there are several of them.
fn plan(dice: &mut Dice) -> Plan {
    let faults = dice.pick(&FAULTS);
    let plan = Plan::from_seed(dice.next(), faults);
    let guests = Guests { leavers: dice.below(2) as u32, ..plan.guests };
    Plan {
        incarnations: 1 + dice.below(2) as u32,
        producers: dice.below(2) as u32,
        idempotent_producers: 1,
        consumers: 1,
        members: 2,
        passing: dice.below(2) as u32,
        pace: plan.pace.max(std::time::Duration::from_millis(5)),
        // The world is shared.
        reset_one_in: 0,
        half_open_one_in: HALF_OPEN_ONE_IN,
        guests,
        ..plan
    }
}

#[test]
fn several_brokers() {
    run_worlds(6);
}

/// Paste a failing seed here.
#[test]
fn one_world() {
    run(1);
}

/// The same seed gives the same world, to the byte.
#[test]
fn worlds_can_be_repeated() {
    assert_eq!(run(2), run(2));
}
