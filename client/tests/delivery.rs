//! What is promised of time: whatever the broker does, a producer's calls and deliveries end when they must, go on when they can, and
//! leave nothing behind.

#[path = "common/fake_broker.rs"]
mod fake_broker;

use corelog_client::{
    Acks, Client, ClientConfig, Error, ErrorCode, Producer, ProducerConfig, ProducerRecord, block_on,
};
use fake_broker::{FakeBroker, Fault};
use futures_util::future::{Either, select};
use futures_util::stream::{FuturesUnordered, StreamExt};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longer than anything here may take, and shorter than what must not be waited for.
const LIMIT: Duration = Duration::from_secs(15);
const TOO_LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// The future's output, if it comes within [`LIMIT`].
async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let (tx, limit) = futures_channel::oneshot::channel::<()>();
    std::thread::spawn(move || {
        std::thread::sleep(LIMIT);
        drop(tx);
    });
    match select(pin!(future), limit).await {
        Either::Left((output, _)) => output,
        Either::Right(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < limit, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Every limit is too long; tests shorten those that are to be seen.
async fn connect(broker: &FakeBroker) -> Client {
    let config = ClientConfig {
        connect_timeout: TOO_LONG,
        request_timeout: TOO_LONG,
        api_timeout: TOO_LONG,
        ..broker.client_config()
    };
    Client::connect(config).await.unwrap()
}

fn config() -> ProducerConfig {
    ProducerConfig {
        linger: Duration::ZERO,
        send_timeout: TOO_LONG,
        delivery_timeout: TOO_LONG,
        ..Default::default()
    }
}

fn record() -> ProducerRecord {
    ProducerRecord::to("t").partition(0).value("v")
}

async fn prepared(client: &Client, config: ProducerConfig) -> Producer {
    let producer = client.producer(config).unwrap();
    producer.prepare("t").await.unwrap();
    producer
}

#[test]
fn a_leader_is_asked_for_until_there_is_one() {
    let is_led = Arc::new(AtomicBool::new(false));
    let (led, leads) = (is_led.clone(), is_led);
    let broker = FakeBroker::start(Box::new(move |_| match led.load(Ordering::SeqCst) {
        false => Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER),
        true => Fault::None,
    }));
    block_on(async {
        let client = connect(&broker).await;
        let producer = prepared(&client, config()).await;
        let mut faults =
            [Fault::Refuse(ErrorCode::LEADER_NOT_AVAILABLE), Fault::CutBefore, Fault::CutBefore].into_iter();
        *broker.metadata_faults.lock().unwrap() = Box::new(move || {
            faults.next().unwrap_or_else(|| {
                leads.store(true, Ordering::SeqCst);
                Fault::None
            })
        });
        let delivery = producer.send(record()).await.unwrap();
        in_time("delivery", delivery).await.unwrap();
    });
}

#[test]
fn what_has_no_leader_says_so_when_its_time_is_over() {
    let broker = FakeBroker::start(Box::new(|_| Fault::Refuse(ErrorCode::NOT_LEADER_OR_FOLLOWER)));
    block_on(async {
        let client = connect(&broker).await;
        let producer = prepared(&client, ProducerConfig { delivery_timeout: SHORT, ..config() }).await;
        *broker.metadata_faults.lock().unwrap() = Box::new(|| Fault::Refuse(ErrorCode::LEADER_NOT_AVAILABLE));
        let delivery = producer.send(record()).await.unwrap();
        let error = in_time("delivery", delivery).await.unwrap_err();
        assert!(error.to_string().contains("LEADER_NOT_AVAILABLE"), "{error}");
    });
}

#[test]
fn what_is_in_flight_ends_at_its_time() {
    for acks in [Acks::All, Acks::Leader] {
        let broker = FakeBroker::start(Box::new(|_| Fault::Silence));
        block_on(async {
            let client = connect(&broker).await;
            let config = ProducerConfig { delivery_timeout: SHORT, ..config() }.acks(acks);
            let producer = prepared(&client, config).await;
            let delivery = producer.send(record()).await.unwrap();
            in_time("flush", producer.flush()).await.unwrap();
            let error = in_time("delivery", delivery).await.unwrap_err();
            assert!(matches!(error, Error::NotAcknowledged { .. }), "{error}");
            assert!(error.to_string().contains("whether it is written is not known"), "{error}");

            let delivery = producer.send(record()).await.unwrap();
            in_time("close", producer.close()).await.unwrap();
            let error = in_time("delivery", delivery).await.unwrap_err();
            // What is behind the first may not have been sent.
            assert!(error.is_retriable(), "{error}");
        });
    }
}

#[test]
fn sending_without_a_broker_ends_at_its_time() {
    let broker = FakeBroker::start(Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let producer = client.producer(ProducerConfig { send_timeout: SHORT, ..config() }).unwrap();
        broker.vanish();
        let error = in_time("send", producer.send(record())).await.unwrap_err();
        assert!(error.is_retriable(), "{error}");
    });
}

#[test]
fn closing_without_a_broker_ends_at_its_time() {
    let broker = FakeBroker::start_transactional(Box::new(|_| Fault::None), Box::new(|_| Fault::None));
    block_on(async {
        let config = ClientConfig {
            api_timeout: Duration::from_secs(1),
            connect_timeout: TOO_LONG,
            ..broker.client_config()
        };
        let client = Client::connect(config).await.unwrap();
        let config = ProducerConfig { transactional_id: Some("x".into()), ..self::config() };
        for sends in [true, false] {
            broker.holds.store(false, Ordering::SeqCst);
            let producer = client.producer(config.clone()).unwrap();
            // Until it is back.
            while producer.init_transactions().await.is_err() {}
            producer.begin_transaction().unwrap();
            if sends {
                producer.send(record()).await.unwrap().await.unwrap();
            } else {
                // The transaction fails before the coordinator has heard of it, and only needs another epoch.
                producer.send(record().value(vec![0; 2 << 20])).await.unwrap_err();
            }
            broker.vanish();
            in_time("close", producer.close()).await.unwrap_err();
        }
    });
}

#[test]
fn closing_tells_those_who_wait_for_room() {
    let broker = FakeBroker::start(Box::new(|_| Fault::Silence));
    block_on(async {
        let client = connect(&broker).await;
        let bytes = 1 << 10;
        let config = ProducerConfig {
            batch_bytes: bytes,
            request_bytes_max: bytes,
            buffer_bytes_max: bytes,
            ..config()
        };
        let producer = prepared(&client, config).await;
        let large = || record().value(vec![0; 700]);
        let _first = producer.send(large()).await.unwrap();
        // Polled again only if it is woken.
        let mut waiting = FuturesUnordered::from_iter([producer.send(large())]);
        assert!(futures_util::poll!(waiting.next()).is_pending());
        let mut closing = pin!(producer.clone().close());
        assert!(futures_util::poll!(&mut closing).is_pending());
        let error = in_time("send", waiting.next()).await.unwrap().unwrap_err();
        assert!(matches!(error, Error::Closed), "{error}");
    });
}

#[test]
fn a_producer_dropped_in_an_outage_leaves_no_connection() {
    let broker = FakeBroker::start(Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let producer = prepared(&client, ProducerConfig { delivery_timeout: SHORT, ..config() }).await;
        assert_eq!(broker.connections(), 1);
        broker.holds.store(true, Ordering::SeqCst);
        let delivery = producer.send(record()).await.unwrap();
        eventually("connecting", || broker.connections() == 2);
        let error = in_time("delivery", delivery).await.unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "it was not sent: {error}");
        drop(producer);
        // Its sender has ended when another's is there: the driver takes jobs in order, and this takes a turn more.
        let next = prepared(&client, config()).await;
        broker.holds.store(false, Ordering::SeqCst);
        eventually("one connection is left", || broker.connections() == 1);
        in_time("delivery", next.send(record()).await.unwrap()).await.unwrap();
        drop((client, next));
        eventually("no connection is left", || broker.connections() == 0);
    });
}

#[test]
fn a_broker_that_takes_nothing_is_given_up_also_without_acks() {
    let mut taken = 0;
    let broker = FakeBroker::start(Box::new(move |_| {
        taken += 1;
        if taken == 2 { Fault::Stall } else { Fault::None }
    }));
    block_on(async {
        let client_config = ClientConfig { request_timeout: SHORT, ..broker.client_config() };
        let client = Client::connect(client_config).await.unwrap();
        let producer = prepared(&client, config().acks(Acks::None)).await;
        let large = || record().value("v".repeat(900 << 10));
        // Until neither side's kernel takes more.
        let mut sent = 0;
        let error = loop {
            let delivery = producer.send(large()).await.unwrap();
            if let Err(error) = in_time("delivery", delivery).await {
                break error;
            }
            sent += 1;
            assert!(sent < 1000);
        };
        assert!(error.to_string().contains("took no Produce"), "{error}");
        in_time("delivery", producer.send(record()).await.unwrap()).await.unwrap();
    });
}

#[test]
fn times_may_be_as_long_as_can_be() {
    const MAX: Duration = Duration::MAX;
    let broker = FakeBroker::start(Box::new(|_| Fault::None));
    block_on(async {
        let client = connect(&broker).await;
        let config = ProducerConfig { linger: MAX, send_timeout: MAX, delivery_timeout: MAX, ..config() };
        let producer = client.producer(config).unwrap();
        let delivery = in_time("send", producer.send(record())).await.unwrap();
        in_time("flush", producer.flush()).await.unwrap();
        in_time("delivery", delivery).await.unwrap();
    });
}

#[test]
fn what_is_written_is_told_so_also_if_its_topic_seems_gone_meanwhile() {
    let is_writing = Arc::new(AtomicBool::new(false));
    let (writes, knows) = (is_writing.clone(), is_writing);
    let broker = FakeBroker::start(Box::new(move |_| {
        writes.store(true, Ordering::SeqCst);
        std::thread::sleep(SHORT);
        Fault::None
    }));
    broker.has_ids.store(true, Ordering::SeqCst);
    block_on(async {
        let metadata_max_age = Duration::from_millis(20);
        let client = ClientConfig { metadata_max_age, request_timeout: TOO_LONG, ..broker.client_config() };
        let client = Client::connect(client).await.unwrap();
        let producer = prepared(&client, config()).await;
        // As by a broker that has only just started.
        *broker.metadata_faults.lock().unwrap() = Box::new(move || match knows.load(Ordering::SeqCst) {
            true => Fault::Refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            false => Fault::None,
        });
        let delivery = producer.send(record()).await.unwrap();
        assert_eq!(in_time("delivery", delivery).await.unwrap().offset, Some(0));
    });
}

#[test]
fn an_identity_that_is_refused_is_not_asked_for_without_end() {
    let broker = FakeBroker::start(Box::new(|_| Fault::Refuse(ErrorCode::INVALID_PRODUCER_EPOCH)));
    block_on(async {
        let client = connect(&broker).await;
        let producer = prepared(&client, config()).await;
        *broker.identity_refusal.lock().unwrap() = Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED);
        let _delivery = producer.send(record()).await.unwrap();
        let asked = || broker.identities_asked.load(Ordering::SeqCst);
        eventually("it asks for another", || asked() > 0);
        std::thread::sleep(SHORT);
        assert!(asked() < 50, "asked {} times", asked());
    });
}
