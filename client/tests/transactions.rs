//! Transactions, whatever the broker and the network do: against a broker that misbehaves on demand.

#[path = "common/fake_broker.rs"]
mod fake_broker;

use corelog_client::{
    Client, Delivery, Error, ErrorCode, GroupMetadata, Producer, ProducerConfig, ProducerRecord,
    TopicPartition, block_on,
};
use corelog_wire::ApiKey;
use corelog_wire::testing::Random;
use fake_broker::{FakeBroker, Fault, PARTITIONS};
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::{Duration, Instant};

const ID: &str = "x";

fn config() -> ProducerConfig {
    ProducerConfig { batch_bytes: 300, linger: Duration::ZERO, ..ProducerConfig::transactional(ID) }
}

fn sound() -> FakeBroker {
    FakeBroker::start_transactional(Box::new(|_| Fault::None), Box::new(|_| Fault::None))
}

async fn connect(broker: &FakeBroker) -> Client {
    Client::connect(broker.client_config()).await.unwrap()
}

async fn begun(client: &Client, config: ProducerConfig) -> Producer {
    let producer = client.producer(config).unwrap();
    producer.init_transactions().await.unwrap();
    producer.begin_transaction().unwrap();
    producer
}

async fn send(producer: &Producer, range: Range<usize>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for value in range {
        let record = ProducerRecord::to("t").partition(value as i32 % PARTITIONS).value(value.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

/// Readers of committed records see these, once and in order, and no others.
fn check(broker: &FakeBroker, committed: impl IntoIterator<Item = usize>) {
    let committed: Vec<usize> = committed.into_iter().collect();
    let logs = broker.logs.lock().unwrap();
    for partition in 0..PARTITIONS {
        let expected: Vec<String> = committed
            .iter()
            .filter(|value| **value as i32 % PARTITIONS == partition)
            .map(|value| value.to_string())
            .collect();
        let seen = logs.get(&partition).map_or(&[][..], |log| &log.committed);
        assert_eq!(seen, expected, "partition {partition}");
    }
}

#[test]
fn what_is_committed_is_seen_once_and_in_order_and_what_is_aborted_is_not() {
    for seed in 0..8 {
        let (mut dice, mut others) = (Random(seed), Random(!seed));
        let broker = FakeBroker::start_transactional(
            Box::new(move |_| match dice.below(12) {
                0 => Fault::CutBefore,
                1 => Fault::CutAfter,
                2 => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
                _ => Fault::None,
            }),
            Box::new(move |_| match others.below(6) {
                0 => Fault::CutBefore,
                1 => Fault::CutAfter,
                2 => Fault::Refuse(ErrorCode::NOT_COORDINATOR),
                _ => Fault::None,
            }),
        );
        block_on(async {
            let client = connect(&broker).await;
            let producer = client.producer(config()).unwrap();
            producer.init_transactions().await.unwrap();
            let mut committed = Vec::new();
            for turn in 0..12 {
                let range = turn * 100..(turn + 1) * 100;
                producer.begin_transaction().unwrap();
                let deliveries = send(&producer, range.clone()).await;
                if turn % 3 == 1 {
                    producer.abort_transaction().await.unwrap();
                    continue;
                }
                producer.commit_transaction().await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
                committed.push(range);
                for delivery in deliveries {
                    delivery.await.unwrap();
                }
            }
            check(&broker, committed.into_iter().flatten());
            assert!(!broker.coordinator.lock().unwrap().transactional_ids[ID].is_ongoing);
        });
    }
}

#[test]
fn an_empty_transaction_costs_nothing() {
    let asked = |api| match api {
        ApiKey::InitProducerId => Fault::None,
        api => panic!("{api}"),
    };
    let broker = FakeBroker::start_transactional(Box::new(|_| Fault::None), Box::new(asked));
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        producer.commit_transaction().await.unwrap();
        producer.begin_transaction().unwrap();
        producer.abort_transaction().await.unwrap();
    });
}

#[test]
fn an_abort_drops_what_was_not_sent_and_needs_no_new_epoch() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { batch_bytes: 1 << 20, linger: Duration::from_secs(60), ..config() };
        let producer = begun(&client, config).await;
        let written = send(&producer, 0..3).await;
        producer.flush().await.unwrap();
        let dropped = send(&producer, 3..9).await;
        producer.abort_transaction().await.unwrap();
        for delivery in written {
            delivery.await.unwrap();
        }
        for delivery in dropped {
            assert!(matches!(delivery.await, Err(Error::TransactionAborted)));
        }
        producer.begin_transaction().unwrap();
        let _ = send(&producer, 9..30).await;
        producer.commit_transaction().await.unwrap();
        check(&broker, 9..30);
        assert_eq!(broker.logs.lock().unwrap()[&0].epochs, [0]);
    });
}

#[test]
fn a_newer_producer_fences_the_older() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let older = begun(&client, config()).await;
        let _ = send(&older, 0..30).await;
        older.flush().await.unwrap();
        let newer = begun(&client, config()).await;
        let _ = send(&newer, 30..60).await;
        newer.commit_transaction().await.unwrap();

        let error = older.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFatal { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::PRODUCER_FENCED));
        assert!(matches!(older.abort_transaction().await, Err(Error::TransactionFatal { .. })));
        assert!(matches!(older.begin_transaction(), Err(Error::TransactionFatal { .. })));
        let sent = older.send(ProducerRecord::to("t").value("late")).await;
        assert!(matches!(sent, Err(Error::TransactionFatal { .. })));
        older.close().await.unwrap();
        newer.begin_transaction().unwrap();
        newer.commit_transaction().await.unwrap();
        check(&broker, 30..60);
    });
}

#[test]
fn a_fenced_producer_hears_of_it_when_it_writes() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let older = begun(&client, config()).await;
        let _ = send(&older, 0..3).await;
        older.flush().await.unwrap();
        let _newer = begun(&client, config()).await;
        let delivery = older.send(ProducerRecord::to("t").partition(0).value("late")).await.unwrap();
        assert_eq!(delivery.await.unwrap_err().code(), Some(ErrorCode::INVALID_PRODUCER_EPOCH));
        let error = older.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFatal { .. }), "{error}");
        check(&broker, []);
    });
}

#[test]
fn a_refused_record_makes_the_commit_fail() {
    let faults = |batch: &fake_broker::Batch| match batch.values.iter().any(|value| value == "60") {
        true => Fault::Refuse(ErrorCode::MESSAGE_TOO_LARGE),
        false => Fault::None,
    };
    let broker = FakeBroker::start_transactional(Box::new(faults), Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        // Later ones may already be refused.
        for value in 0..600 {
            let record = ProducerRecord::to("t").partition(value % PARTITIONS).value(value.to_string());
            let _ = producer.send(record).await;
        }
        let error = producer.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFailed { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE));
        let sent = producer.send(ProducerRecord::to("t").value("late")).await;
        assert!(matches!(sent, Err(Error::TransactionFailed { .. })));
        assert!(matches!(producer.commit_transaction().await, Err(Error::TransactionFailed { .. })));
        assert!(matches!(producer.begin_transaction(), Err(Error::TransactionFailed { .. })));
        producer.abort_transaction().await.unwrap();
        check(&broker, []);

        producer.begin_transaction().unwrap();
        let _ = send(&producer, 600..900).await;
        producer.commit_transaction().await.unwrap();
        check(&broker, 600..900);
        let last = broker.logs.lock().unwrap()[&0].epochs.last().copied();
        assert_eq!(last, Some(1), "the sequence had a gap");
    });
}

#[test]
fn a_record_that_send_does_not_take_makes_the_commit_fail() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        let _ = send(&producer, 0..30).await;
        let too_large = ProducerRecord::to("t").value(vec![0; 2 << 20]);
        assert!(matches!(producer.send(too_large).await, Err(Error::RecordTooLarge { .. })));
        let error = producer.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFailed { .. }), "{error}");
        producer.abort_transaction().await.unwrap();
        check(&broker, []);
    });
}

#[test]
fn what_the_coordinator_refuses_is_to_be_aborted_or_fatal() {
    for (code, api, is_fatal) in [
        (ErrorCode::TRANSACTION_ABORTABLE, ApiKey::AddPartitionsToTxn, false),
        (ErrorCode::TRANSACTION_ABORTABLE, ApiKey::EndTxn, false),
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, ApiKey::AddPartitionsToTxn, false),
        (ErrorCode::INVALID_PRODUCER_EPOCH, ApiKey::EndTxn, true),
        (ErrorCode::INVALID_TXN_STATE, ApiKey::EndTxn, true),
        (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, ApiKey::AddPartitionsToTxn, true),
    ] {
        let mut left = 1;
        let faults = move |asked| match asked == api && left > 0 {
            true => {
                left -= 1;
                Fault::Refuse(code)
            }
            false => Fault::None,
        };
        let broker = FakeBroker::start_transactional(Box::new(|_| Fault::None), Box::new(faults));
        block_on(async {
            let client = connect(&broker).await;
            let producer = begun(&client, config()).await;
            let _ = producer.send(ProducerRecord::to("t").partition(0).value("x")).await;
            let error = producer.commit_transaction().await.unwrap_err();
            assert_eq!(error.code(), Some(code));
            assert_eq!(matches!(error, Error::TransactionFatal { .. }), is_fatal, "{error}");
            let aborted = producer.abort_transaction().await;
            assert_eq!(aborted.is_err(), is_fatal);
            check(&broker, []);
            if !is_fatal {
                producer.begin_transaction().unwrap();
                let _ = send(&producer, 0..30).await;
                producer.commit_transaction().await.unwrap();
                check(&broker, 0..30);
            }
        });
    }
}

#[test]
fn offsets_are_committed_with_the_transaction() {
    let offsets = |offset: i64| BTreeMap::from([(TopicPartition::new("t", 2), offset.into())]);
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        let committed = || broker.coordinator.lock().unwrap().offsets.get(&2).copied();
        producer.send_offsets(offsets(5), GroupMetadata::new("g")).await.unwrap();
        assert_eq!(committed(), None);
        producer.commit_transaction().await.unwrap();
        assert_eq!(committed(), Some(5));

        producer.begin_transaction().unwrap();
        producer.send_offsets(offsets(9), GroupMetadata::new("g")).await.unwrap();
        producer.abort_transaction().await.unwrap();
        assert_eq!(committed(), Some(5));

        producer.begin_transaction().unwrap();
        let gone = GroupMetadata { generation: 3, member_id: "gone".into(), ..GroupMetadata::new("g") };
        let error = producer.send_offsets(offsets(9), gone).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_MEMBER_ID));
        assert!(matches!(producer.commit_transaction().await, Err(Error::TransactionFailed { .. })));
        producer.abort_transaction().await.unwrap();
        assert_eq!(committed(), Some(5));
    });
}

#[test]
fn a_transaction_that_nobody_ends_is_aborted() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let is_ongoing = || broker.coordinator.lock().unwrap().transactional_ids[ID].is_ongoing;
        let producer = begun(&client, config()).await;
        let _ = send(&producer, 0..30).await;
        producer.flush().await.unwrap();
        assert!(is_ongoing());
        producer.close().await.unwrap();
        assert!(!is_ongoing());

        let producer = begun(&client, config()).await;
        let _ = send(&producer, 30..60).await;
        producer.flush().await.unwrap();
        drop(producer);
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_ongoing() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        check(&broker, []);
    });
}

#[test]
fn a_commit_that_was_given_up_is_taken_up_again() {
    let mut silent = true;
    let faults = move |api| match api == ApiKey::EndTxn && std::mem::take(&mut silent) {
        true => Fault::CutAfter,
        false => Fault::None,
    };
    let broker = FakeBroker::start_transactional(Box::new(|_| Fault::None), Box::new(faults));
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        let _ = send(&producer, 0..30).await;
        {
            // Polled once, then dropped.
            let mut commit = Box::pin(producer.commit_transaction());
            assert!(futures_util::poll!(&mut commit).is_pending());
        }
        let refused = producer.abort_transaction().await.unwrap_err();
        assert!(refused.to_string().ends_with("commit it again"), "{refused}");
        let refused = producer.send(ProducerRecord::to("t").value("late")).await.unwrap_err();
        assert!(refused.to_string().starts_with("the transaction is being ended"), "{refused}");
        producer.commit_transaction().await.unwrap();
        check(&broker, 0..30);
        assert_eq!(broker.coordinator.lock().unwrap().transactional_ids[ID].ends, 1);
    });
}

#[test]
fn closing_one_of_two_waits_for_the_commit_of_the_other() {
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let producer = begun(&client, config()).await;
        let _ = send(&producer, 0..300).await;
        let clone = producer.clone();
        let (committed, closed) = futures_util::join!(producer.commit_transaction(), clone.close());
        committed.unwrap();
        closed.unwrap();
        check(&broker, 0..300);
    });
}

#[test]
fn misuse_is_told() {
    let told = |outcome: Result<(), Error>| outcome.unwrap_err().to_string();
    let broker = sound();
    block_on(async {
        let client = connect(&broker).await;
        let without = ProducerConfig { idempotent: false, ..config() };
        assert!(client.producer(without).unwrap_err().to_string().contains("needs idempotence"));
        let plain = client.producer(ProducerConfig::default()).unwrap();
        assert!(told(plain.begin_transaction()).contains("no transactional id"));

        let producer = client.producer(config()).unwrap();
        let record = || ProducerRecord::to("t").value("v");
        assert!(told(producer.begin_transaction()).ends_with("call init_transactions first"));
        assert!(told(producer.send(record()).await.map(drop)).ends_with("call init_transactions first"));
        producer.init_transactions().await.unwrap();
        assert!(told(producer.init_transactions().await).contains("initialized already"));
        assert!(told(producer.send(record()).await.map(drop)).ends_with("call begin_transaction first"));
        assert!(told(producer.commit_transaction().await).ends_with("call begin_transaction first"));
        let offsets = producer.send_offsets(BTreeMap::new(), GroupMetadata::new("g"));
        assert!(told(offsets.await).ends_with("call begin_transaction first"));
        producer.begin_transaction().unwrap();
        assert!(told(producer.begin_transaction()).ends_with("commit or abort it first"));
        producer.commit_transaction().await.unwrap();
    });
}

#[test]
fn a_broker_without_transactions_is_told() {
    let broker = FakeBroker::start(Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let producer = client.producer(config()).unwrap();
        let error = producer.init_transactions().await.unwrap_err();
        assert!(matches!(error, Error::Unsupported { api: "AddPartitionsToTxn", .. }), "{error}");
    });
}
