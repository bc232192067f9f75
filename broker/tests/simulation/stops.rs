//! A stop in good order, whatever the broker is about: it ends soon, and what was begun is answered.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use corelog_broker::server::Control;
use corelog_io::sim::Sim;
use corelog_io::{Queue, sleep, spawn};

use crate::broker::{Broker, Start};
use crate::plan::{Faults, Plan};
use crate::tailer::{connect, create_topic, produce};

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
            while control.ask(Control::Metrics(Box::new(|_| {}))) {}
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

#[test]
fn what_was_begun_is_answered_by_all_shards_before_any_closes_its_storage() {
    for seed in 1..=10 {
        let (sim, mut broker) = killed_broker(seed);
        broker.start(&plan(seed), 3);
        assert_eq!(broker.await_ready(&sim), Start::Ready);
        let address = broker.address();
        let (clients, answered) = (sim.process("clients"), Rc::new(Cell::new(0)));
        let disk = broker.machine.disk();
        let count = answered.clone();
        clients.start(1, move |_| {
            let count = count.clone();
            async move {
                let topic = topic_id(&mut connect(address).await).await;
                // Some shards have no connection, and each is asked by others.
                for partition in 0..2 * PARTITIONS {
                    let count = count.clone();
                    spawn(Queue::Produce, async move {
                        let mut connection = connect(address).await;
                        sleep(Duration::from_millis(100)).await;
                        let partition = partition % PARTITIONS;
                        produce(&mut connection, topic, partition..partition + 1, 1, 100).await;
                        count.set(count.get() + 1);
                    })
                    .detach();
                }
            }
        });
        sim.run_for(Duration::from_millis(90));
        disk.set_extra_latency(Duration::from_millis(500));
        // All have been read, and none is durable.
        sim.run_for(Duration::from_millis(100));
        assert_eq!(answered.get(), 0);
        broker.stop(&sim);
        disk.set_extra_latency(Duration::ZERO);
        sim.run_for(Duration::from_secs(1));
        assert_eq!(answered.get(), 2 * PARTITIONS, "seed {seed}");
    }
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
