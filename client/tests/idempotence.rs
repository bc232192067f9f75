//! Exactly once and in order, whatever the broker and the network do: against a broker that misbehaves on demand.

#[path = "common/fake_broker.rs"]
mod fake_broker;

use corelog_client::{
    Client, ClientConfig, Compression, Delivery, Error, ErrorCode, Producer, ProducerConfig, ProducerRecord,
    block_on,
};
use corelog_wire::testing::Random;
use fake_broker::{FakeBroker, Fault, PARTITIONS};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn config() -> ProducerConfig {
    ProducerConfig { batch_bytes: 300, linger: Duration::ZERO, ..Default::default() }
        .compression(Compression::Lz4)
}

async fn connect(broker: &FakeBroker) -> Client {
    Client::connect(broker.client_config()).await.unwrap()
}

async fn send(producer: &Producer, range: std::ops::Range<usize>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for value in range {
        let partition = value as i32 % PARTITIONS;
        let record = ProducerRecord::to("t").partition(partition).value(value.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

/// Each partition holds its share of `0..count`, once and in order.
fn check(broker: &FakeBroker, count: usize) {
    let logs = broker.logs.lock().unwrap();
    for partition in 0..PARTITIONS {
        let expected: Vec<String> = (0..count)
            .filter(|value| *value as i32 % PARTITIONS == partition)
            .map(|value| value.to_string())
            .collect();
        assert_eq!(logs[&partition].values, expected, "partition {partition}");
    }
}

#[test]
fn cut_connections_and_refusals_neither_lose_nor_repeat_nor_reorder() {
    for seed in 0..8 {
        let mut dice = Random(seed);
        let faults = move |_: &fake_broker::Batch| match dice.below(12) {
            0 => Fault::CutBefore,
            1 => Fault::CutAfter,
            2 => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            3 => Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS),
            4 => Fault::RefuseAfter(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            _ => Fault::None,
        };
        let broker = FakeBroker::start(Box::new(faults));
        block_on(async {
            const COUNT: usize = 1500;
            let client = connect(&broker).await;
            let producer = client.producer(config()).unwrap();
            for (value, delivery) in send(&producer, 0..COUNT).await.into_iter().enumerate() {
                let written = delivery.await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                assert_eq!(written.offset, Some(value as i64 / i64::from(PARTITIONS)), "seed {seed}");
            }
            check(&broker, COUNT);
            let logs = broker.logs.lock().unwrap();
            assert!(logs.values().all(|log| log.epochs == [0]), "seed {seed}: no need for another epoch");
        });
    }
}

#[test]
fn a_leader_that_is_not_ready_does_not_change_the_order() {
    for refusals in 1..6 {
        let mut left = refusals;
        let faults = move |batch: &fake_broker::Batch| match batch.partition == 0 && left > 0 {
            true => {
                left -= 1;
                Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER)
            }
            false => Fault::None,
        };
        let broker = FakeBroker::start(Box::new(faults));
        block_on(async {
            let client = connect(&broker).await;
            let producer = client.producer(config()).unwrap();
            for delivery in send(&producer, 0..600).await {
                delivery.await.unwrap();
            }
            check(&broker, 600);
            assert_eq!(broker.logs.lock().unwrap()[&0].epochs, [0]);
        });
    }
}

#[test]
fn a_refused_batch_takes_only_itself_along() {
    let faults = |batch: &fake_broker::Batch| match batch.values.iter().any(|value| value == "600") {
        true => Fault::Refuse(ErrorCode::MESSAGE_TOO_LARGE),
        false => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let producer = client.producer(config()).unwrap();
        let mut failed = HashSet::new();
        for (value, delivery) in send(&producer, 0..1500).await.into_iter().enumerate() {
            if let Err(error) = delivery.await {
                assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE), "{value}: {error}");
                failed.insert(value);
            }
        }
        assert!(failed.contains(&600) && failed.len() < 60, "{failed:?}");
        let logs = broker.logs.lock().unwrap();
        let expected: Vec<String> = (0..1500)
            .step_by(3)
            .filter(|value| !failed.contains(value))
            .map(|value| value.to_string())
            .collect();
        assert_eq!(logs[&0].values, expected);
        assert_eq!(
            (&*logs[&0].epochs, &*logs[&1].epochs),
            (&[0, 1][..], &[0][..]),
            "a new epoch for that partition alone"
        );
    });
}

#[test]
fn a_broker_that_forgot_the_producer_is_told_anew() {
    let broker = FakeBroker::start(Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let producer = client.producer(config()).unwrap();
        for turn in 0..3 {
            for delivery in send(&producer, turn * 300..(turn + 1) * 300).await {
                delivery.await.unwrap();
            }
            broker.logs.lock().unwrap().values_mut().for_each(|log| log.forget_producers());
        }
        check(&broker, 900);
    });
}

#[test]
fn what_is_not_answered_in_time_fails_and_what_follows_does_not() {
    let mut silent = true;
    let faults = move |_: &fake_broker::Batch| match std::mem::take(&mut silent) {
        true => Fault::Silence,
        false => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { delivery_timeout: Duration::from_millis(400), ..config() };
        let producer = client.producer(config).unwrap();
        let record = || ProducerRecord::to("t").partition(0).value("x");
        let error = producer.send(record()).await.unwrap().await.unwrap_err();
        assert!(matches!(error, Error::NotAcknowledged { .. }), "{error}");
        // Whether the first was written is not known (it was): the second is numbered so that it is taken either way.
        producer.send(record()).await.unwrap().await.unwrap();
        assert_eq!(broker.logs.lock().unwrap()[&0].epochs, [0, 1]);
    });
}

#[test]
fn what_the_broker_may_have_does_not_fail_as_if_it_had_not() {
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    for faults in [[Fault::CutAfter, Fault::Refuse(code)], [Fault::Unnamed, Fault::None]] {
        let mut left = faults.into_iter();
        let broker = FakeBroker::start(Box::new(move |_| left.next().unwrap_or(Fault::None)));
        block_on(async {
            let client = connect(&broker).await;
            let producer = client.producer(config()).unwrap();
            let record = |value: &str| ProducerRecord::to("t").partition(0).value(value.to_owned());
            let error = producer.send(record("a")).await.unwrap().await.unwrap_err();
            assert!(matches!(error, Error::NotAcknowledged { .. }), "{faults:?}: {error}");
            producer.send(record("b")).await.unwrap().await.unwrap();
            assert_eq!(broker.logs.lock().unwrap()[&0].values, ["a", "b"]);
        });
    }
}

#[test]
fn what_a_leader_refuses_that_has_written_it_may_be_there() {
    for code in [ErrorCode::NOT_LEADER_OR_FOLLOWER, ErrorCode::KAFKA_STORAGE_ERROR] {
        let mut faults = [Fault::RefuseAfter(code)].into_iter();
        let broker = FakeBroker::start(Box::new(move |_| {
            faults.next().unwrap_or(Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS))
        }));
        block_on(async {
            let client = connect(&broker).await;
            let config = ProducerConfig { delivery_timeout: Duration::from_millis(300), ..config() };
            let producer = client.producer(config).unwrap();
            let record = ProducerRecord::to("t").partition(0).value("a");
            let error = producer.send(record).await.unwrap().await.unwrap_err();
            assert!(matches!(error, Error::NotAcknowledged { .. }), "{code}: {error}");
        });
    }
}

#[test]
fn a_lost_identity_is_replaced_before_anything_is_sent_again() {
    let faults = |batch: &fake_broker::Batch| match batch.producer_id == 7 && batch.sequence >= 40 {
        true => Fault::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH),
        false => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config() };
        let producer = client.producer(config).unwrap();
        for delivery in send(&producer, 0..600).await {
            delivery.await.unwrap();
        }
        check(&broker, 600);
    });
}

#[test]
fn epochs_that_are_used_up_make_a_new_identity() {
    let faults = |batch: &fake_broker::Batch| match batch.values.iter().any(|value| value == "300") {
        true => Fault::Refuse(ErrorCode::MESSAGE_TOO_LARGE),
        false => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    *broker.identity.lock().unwrap() = (7, i16::MAX);
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(10), ..config() };
        let producer = client.producer(config).unwrap();
        for (value, delivery) in send(&producer, 0..600).await.into_iter().enumerate() {
            if let Err(error) = delivery.await {
                assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE), "{value}: {error}");
            }
        }
        assert_eq!(broker.logs.lock().unwrap()[&0].epochs, [i16::MAX, 0]);
    });
}

#[test]
fn what_the_broker_has_is_not_written_again_when_what_was_before_it_is_given_up() {
    let is_silent = Arc::new(AtomicBool::new(false));
    let silent = is_silent.clone();
    let broker = FakeBroker::start(Box::new(move |_| match silent.load(Ordering::SeqCst) {
        true => Fault::Silence,
        false => Fault::None,
    }));
    block_on(async {
        let client_config =
            ClientConfig { request_timeout: Duration::from_secs(60), ..broker.client_config() };
        let client = Client::connect(client_config).await.unwrap();
        let config = ProducerConfig { delivery_timeout: Duration::from_secs(3), ..config() };
        let producer = client.producer(config).unwrap();
        let record = |value: &str| ProducerRecord::to("t").partition(0).value(value.to_owned());
        producer.send(record("known")).await.unwrap().await.unwrap();
        is_silent.store(true, Ordering::SeqCst);
        let first = producer.send(record("first")).await.unwrap();
        // Its time is over when most of the second's is left.
        std::thread::sleep(Duration::from_millis(2500));
        let second = producer.send(record("second")).await.unwrap();
        std::thread::sleep(Duration::from_millis(700));
        is_silent.store(false, Ordering::SeqCst);
        broker.cut();
        let error = first.await.unwrap_err();
        assert!(error.is_retriable(), "{error}");
        assert_eq!(second.await.unwrap().offset, Some(2));
        let third = producer.send(record("third")).await.unwrap().await.unwrap();
        assert_eq!(third.offset, Some(3));
        let logs = broker.logs.lock().unwrap();
        assert_eq!(logs[&0].values, ["known", "first", "second", "third"]);
        assert_eq!(logs[&0].epochs, [0], "nothing is missing");
    });
}

#[test]
fn what_is_given_up_is_neither_repeated_nor_reordered() {
    for seed in 0..8 {
        let mut dice = Random(seed);
        let faults = move |_: &fake_broker::Batch| match dice.below(12) {
            0 => Fault::CutBefore,
            1 => Fault::CutAfter,
            2 => Fault::Silence,
            3..6 => Fault::Refuse(ErrorCode::NOT_ENOUGH_REPLICAS),
            6 => Fault::RefuseAfter(ErrorCode::NOT_LEADER_OR_FOLLOWER),
            7 if dice.below(4) == 0 => Fault::Unnamed,
            _ => Fault::None,
        };
        let broker = FakeBroker::start(Box::new(faults));
        block_on(async {
            let request_timeout = Duration::from_millis(30);
            let client_config = ClientConfig { request_timeout, ..broker.client_config() };
            // Asking for the cluster may take longer than that.
            let client = loop {
                if let Ok(client) = Client::connect(client_config.clone()).await {
                    break client;
                }
            };
            let config = ProducerConfig { delivery_timeout: Duration::from_millis(40), ..config() };
            let producer = client.producer(config).unwrap();
            let mut deliveries = Vec::new();
            for turn in 0..20 {
                deliveries.extend(send(&producer, turn * 60..(turn + 1) * 60).await);
                std::thread::sleep(Duration::from_millis(10));
            }
            let mut outcomes = Vec::new();
            for delivery in deliveries {
                outcomes.push(delivery.await.map(drop));
            }
            // What may have been on its way is there by now, or never.
            drop((producer, client));
            while broker.connections() > 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let logs = broker.logs.lock().unwrap();
            let mut written = HashSet::new();
            for log in logs.values() {
                let values: Vec<usize> = log.values.iter().map(|value| value.parse().unwrap()).collect();
                assert!(values.is_sorted_by(|a, b| a < b), "seed {seed}: {values:?}");
                written.extend(values);
            }
            for (value, outcome) in outcomes.into_iter().enumerate() {
                match outcome {
                    Ok(()) => assert!(written.contains(&value), "seed {seed}: {value} is lost"),
                    Err(Error::NotAcknowledged { .. }) => {}
                    Err(error) => {
                        assert!(!written.contains(&value), "seed {seed}: {value} is there: {error}")
                    }
                }
            }
        });
    }
}

#[test]
fn with_one_request_in_flight_the_order_needs_no_idempotence() {
    let mut dice = Random(3);
    let faults = move |_: &fake_broker::Batch| match dice.below(3) {
        0 => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        _ => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { idempotent: false, requests_in_flight_max: 1, ..config() };
        let producer = client.producer(config).unwrap();
        for delivery in send(&producer, 0..600).await {
            delivery.await.unwrap();
        }
        check(&broker, 600);
    });
}

#[test]
fn without_idempotence_cut_connections_repeat_but_do_not_lose() {
    let mut dice = Random(5);
    let faults = move |_: &fake_broker::Batch| match dice.below(8) {
        0 => Fault::CutBefore,
        1 => Fault::CutAfter,
        _ => Fault::None,
    };
    let broker = FakeBroker::start(Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { idempotent: false, requests_in_flight_max: 1, ..config() };
        let producer = client.producer(config).unwrap();
        for delivery in send(&producer, 0..1500).await {
            delivery.await.unwrap();
        }
        let logs = broker.logs.lock().unwrap();
        let all: Vec<&String> = logs.values().flat_map(|log| &log.values).collect();
        assert!(all.len() > 1500, "the dice cut after writing at least once");
        assert_eq!(all.into_iter().collect::<HashSet<_>>().len(), 1500);
    });
}

#[test]
fn a_dropped_client_tells_those_who_wait() {
    let broker = FakeBroker::start(Box::new(|_| Fault::Silence));
    block_on(async {
        let client = connect(&broker).await;
        let producer = client.producer(config()).unwrap();
        let delivery = producer.send(ProducerRecord::to("t").value("v")).await.unwrap();
        drop((client, producer));
        // Whether it was on its way by then is chance.
        assert!(matches!(delivery.await, Err(Error::Closed | Error::NotAcknowledged { .. })));
    });
}
