//! A broker whose disk was wiped comes back as another replica, and the group goes on with it.

use super::*;

/// Has a broker make a change, and waits for what comes of it.
fn order(sim: &Sim, world: &World, broker: usize, change: Change) -> Result<Made, ChangeError> {
    world.orders.borrow_mut().insert(broker, change);
    for _ in 0..200 {
        sim.run_for(MS * 100);
        if let Some(done) = world.done.borrow_mut().remove(&broker) {
            return done;
        }
    }
    panic!("broker {broker} does not answer");
}

fn run_seed(seed: u64) {
    let sim = Sim::new(seed);
    let world = World::new(&sim, 64 << 10, || 1);
    (0..BROKERS).for_each(|broker| start(&world, broker));
    sim.run_for(Duration::from_secs(8));
    let wiped = (seed % BROKERS as u64) as usize;
    let (other, third) = ((wiped + 1) % BROKERS, (wiped + 2) % BROKERS);
    world.machines[wiped].kill();
    world.machines[wiped].wipe();
    sim.run_for(Duration::from_secs(2));
    let request = JoinRequest {
        directory: Uuid([77; 16]),
        wanted: Some(id_of(wiped)),
        peer: Endpoint { host: "peer".into(), port: PORT },
        shards: 1,
        rack: None,
    };
    let join = || Change::Join(request.clone());
    let refused = order(&sim, &world, other, join()).expect_err("nobody has seen that it is gone");
    assert!(refused.message.contains("has another data directory"), "{refused}");
    let known = |broker: usize| world.images.borrow()[&broker].brokers[&id_of(wiped)].clone();
    let fence = Change::Fence { broker: id_of(wiped), epoch: known(other).epoch };
    order(&sim, &world, other, fence).expect("it is gone");
    // Whichever broker is asked, and however often, it is one answer.
    let joined =
        order(&sim, &world, third, join()).expect("it is let in").view.image.brokers[&id_of(wiped)].clone();
    let again =
        order(&sim, &world, other, join()).expect("it was let in").view.image.brokers[&id_of(wiped)].clone();
    assert_eq!(joined, again);
    let replica = joined.controller_replica.expect("it has one");
    assert!(replica.0 > BROKERS as u64);
    world.joined.borrow_mut().insert(wiped, (request.directory, replica));
    start(&world, wiped);
    sim.run_for(Duration::from_secs(10));
    assert!(!known(other).fenced, "it has registered");
    // Its vote counts: with it and one of the others the group goes on.
    world.machines[third].kill();
    sim.run_for(Duration::from_secs(3));
    let made = order(&sim, &world, other, Change::TakeProducerIds);
    let image = made.expect("two of three are there").view.image.clone();
    let former = Some(ReplicaId(wiped as u64 + 1));
    assert!(image.brokers.values().all(|broker| broker.controller_replica != former));
}

#[test]
fn a_wiped_broker_votes_again_as_another_replica() {
    (1..=3).for_each(run_seed);
}
