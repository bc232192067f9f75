//! Brokers exchange frames and calls while links are cut, slow, one-way and flapping, and brokers die, restart with other
//! shards, and stand still. What is delivered is checked as it is delivered (`shard.rs`); when the faults are over all is
//! connected soon, and carries.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::sim::{Sim, SimConfig};
use corelog_io::sleep;

use crate::for_seeds;
use crate::world::{MS, SECOND, World};

/// Brokers begin with these numbers of shards.
const SHARDS: [&[usize]; 4] = [&[1, 1], &[2, 3], &[4, 2], &[2, 1, 3]];
/// After the last fault: a pause between attempts, the kernel's next try of what a cut held up, a former life's silence.
const HEALED_MAX: Duration = Duration::from_secs(10);

/// A task's turn: longer ones hold up a core's other work.
const TURN_MAX: Duration = Duration::from_millis(5);

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most))
    }
}

fn run(seed: u64) -> u64 {
    let reset_one_in = if seed.is_multiple_of(3) { 5000 } else { 0 };
    let config = SimConfig { half_open_one_in: 3, reset_one_in, ..SimConfig::default() };
    let sim = Sim::with_config(seed, config);
    let shards = SHARDS[seed as usize % SHARDS.len()];
    let world = World::new(&sim, shards.len());
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9));
    let (story, shards) = (world.clone(), shards.to_vec());
    sim.block_on(async move {
        for (number, shards) in shards.iter().enumerate() {
            story.start(number, *shards);
            sleep(dice.millis(300)).await;
        }
        story.all_get(3, HEALED_MAX).await;
        for _ in 0..6 {
            strike(&story, &mut dice).await;
        }
        story.all_get(20, HEALED_MAX).await;
        // Calls get through, from each broker.
        for broker in &story.brokers {
            for traveller in broker.travellers.borrow().iter() {
                traveller.answered.set(0);
            }
        }
        sleep(SECOND * 10).await;
        for broker in &story.brokers {
            for traveller in broker.travellers.borrow().iter() {
                assert!(traveller.answered.get() > 0, "no call of broker {} was answered", broker.id.0);
            }
            let (descriptors, most) = (broker.machine.descriptors(), story.descriptors_max());
            assert!(descriptors <= most, "broker {} has {descriptors} descriptors of {most}", broker.id.0);
            let turn = broker.machine.longest_turn().expect("it ran");
            assert!(turn.cost < TURN_MAX, "{turn:?}");
        }
    });
    sim.trace_hash()
}

/// One fault, and its end.
async fn strike(world: &Rc<World>, dice: &mut Dice) {
    let victim = dice.below(world.brokers.len() as u64) as usize;
    let other = (victim + 1 + dice.below(world.brokers.len() as u64 - 1) as usize) % world.brokers.len();
    let (there, back) = {
        let [a, b] = [&world.brokers[victim].machine, &world.brokers[other].machine];
        (world.sim.link(a, b), world.sim.link(b, a))
    };
    match dice.below(11) {
        0 => {
            world.kill(victim);
            sleep(dice.millis(2000)).await;
            world.start(victim, 1 + dice.below(4) as usize);
        }
        1 => {
            world.crash(victim);
            // Sooner than its peers can notice, too.
            sleep(dice.millis(2000)).await;
            world.start(victim, 1 + dice.below(4) as usize);
        }
        2 => {
            there.cut();
            back.cut();
            sleep(dice.millis(5000)).await;
        }
        3 => {
            there.cut();
            sleep(dice.millis(5000)).await;
        }
        4 => {
            there.flap(MS * 400, MS * 400);
            back.flap(MS * 700, MS * 100);
            sleep(SECOND * 3).await;
        }
        5 => {
            there.set_bytes_per_second(200_000);
            back.set_delay(MS..MS * 150);
            sleep(SECOND * 3).await;
        }
        6 => {
            there.set_loss_one_in(8);
            sleep(SECOND * 3).await;
        }
        7 => {
            world.brokers[victim].machine.pause();
            sleep(dice.millis(4000)).await;
            world.brokers[victim].machine.resume();
        }
        8 => {
            let cores = world.brokers[victim].shards.get().unwrap_or(1) as u64;
            let core = dice.below(cores) as usize;
            world.brokers[victim].machine.pause_core(core);
            sleep(dice.millis(2000)).await;
            world.brokers[victim].machine.resume_core(core);
        }
        9 => {
            let drift_ppm = dice.below(200_000) as i32 - 100_000;
            world.brokers[victim].machine.set_clock(3_600_000, drift_ppm);
        }
        _ => {
            there.forget_connections();
            let unwanted = world.brokers[other].id;
            world.unwanted.borrow_mut().insert(unwanted);
            sleep(dice.millis(1000)).await;
            world.unwanted.borrow_mut().clear();
        }
    }
    there.heal();
    back.heal();
    sleep(dice.millis(1500)).await;
}

#[test]
fn frames_and_calls_under_faults() {
    for_seeds(12, |seed| {
        run(seed);
    });
}

#[test]
fn runs_can_be_repeated() {
    assert_eq!(run(3), run(3));
}
