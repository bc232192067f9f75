//! A stop in good order, whatever the broker is about: it ends soon, and what was begun is answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::server::{Control, ShardControl};
use corelog_io::sim::Sim;
use corelog_io::{Queue, sleep, spawn};

use crate::broker::{Broker, Start};
use crate::plan::{Faults, Plan};
use crate::tailer::{PRODUCE_VERSION, batches, connect, create_topic, produce};

const PARTITIONS: i32 = 6;

fn plan(seed: u64) -> Plan {
    Plan { memory_bytes: 16 << 20, ..Plan::from_seed(seed, Faults::Crashes) }
}

/// A broker of three cores with something to recover.
fn killed_broker(seed: u64) -> (Sim, Broker) {
    let sim = Sim::new(seed);
    let mut broker = Broker::new(&sim);
    broker.start(&plan(seed), 3);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let address = broker.address();
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, PARTITIONS).await;
        produce(&mut connection, topic, 0..PARTITIONS, 3, 1000).await;
    });
    broker.machine.kill();
    (sim, broker)
}

#[test]
fn a_start_can_be_stopped_at_any_point() {
    for seed in 1..=60 {
        let (sim, mut broker) = killed_broker(seed);
        broker.start(&plan(seed), 1 + (seed % 3) as usize);
        sim.run_steps(seed * seed / 2);
        // The disk does nothing for a while, and whoever looks at the broker asks in vain.
        if seed % 2 == 0 {
            broker.machine.disk().stall(Duration::from_secs(20));
        }
        for control in &broker.controls {
            while control.ask(Control::Look(Box::new(|_| {}))) {}
        }
        broker.stop(&sim);
        if let Some(report) = broker.report() {
            assert!(!format!("{report:?}").contains("Failed"), "{report:?}");
        }
        // It gave up nothing that was there.
        sim.run_for(Duration::from_secs(20));
        broker.start(&plan(seed), 2);
        assert_eq!(broker.await_ready(&sim), Start::Ready);
        broker.stop(&sim);
    }
}

/// Whom the stop reaches last still has clients, whose batches are for those whom it reached first.
#[test]
fn a_shard_that_hears_of_the_stop_late_is_served_by_the_others() {
    let mut answered = 0;
    for seed in 1..=20 {
        let (sim, mut broker) = killed_broker(seed);
        broker.start(&plan(seed), 3);
        assert_eq!(broker.await_ready(&sim), Start::Ready);
        let address = broker.address();
        let (clients, count) = (sim.process("clients"), Rc::new(Cell::new(0)));
        let counted = count.clone();
        clients.start(1, move |_| {
            let count = counted.clone();
            async move {
                let topic = topic_id(&mut connect(address).await).await;
                for _ in 0..6 {
                    let count = count.clone();
                    spawn(Queue::Produce, async move {
                        let mut connection = connect(address).await;
                        sleep(Duration::from_millis(100)).await;
                        let request = batches(topic, 0..PARTITIONS, 1, 100);
                        // Where it was not read any more, the connection is closed.
                        let Ok(response) = connection.call(&request, PRODUCE_VERSION).await else { return };
                        for answer in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
                            assert_eq!(answer.error_code, 0, "partition {}", answer.index);
                        }
                        count.set(count.get() + 1);
                    })
                    .detach();
                }
            }
        });
        sim.run_for(Duration::from_millis(90));
        broker.machine.pause_core(0);
        broker.controls.iter().for_each(ShardControl::stop);
        sim.run_for(Duration::from_secs(1));
        broker.machine.resume_core(0);
        broker.stop(&sim);
        sim.run_for(Duration::from_secs(1));
        answered += count.get();
    }
    assert!(answered > 0, "no request was read after the others had heard of the stop");
}

async fn topic_id(connection: &mut crate::connection::Connection) -> corelog_wire::Uuid {
    use corelog_wire::messages::MetadataRequest;
    let request = MetadataRequest { topics: None, ..Default::default() };
    let response = connection.call(&request, 12).await.expect("an answer");
    response
        .topics
        .iter()
        .find(|topic| topic.name.as_deref() == Some("tailed"))
        .expect("it is there")
        .topic_id
}
