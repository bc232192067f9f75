//! What the tests against a running broker share. `BOOTSTRAP=host:port cargo test -p corelog-client` runs them.

use corelog_client::{
    Client, ClientConfig, Consumer, ConsumerRecord, NewTopic, ProducerConfig, ProducerRecord, block_on,
};
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Runs a test against the broker at `BOOTSTRAP`; without it, says loudly that nothing was tested.
pub fn with_client<F: Future<Output = ()>>(test: impl FnOnce(Client) -> F) {
    let Ok(bootstrap) = std::env::var("BOOTSTRAP") else {
        let name = std::thread::current().name().unwrap_or("?").to_owned();
        eprintln!("SKIPPED {name}: set BOOTSTRAP=host:port to run it against a broker");
        return;
    };
    block_on(async {
        let client = Client::connect(ClientConfig::new(&bootstrap)).await.unwrap();
        test(client).await;
    });
}

/// A name that no other test, and no other run, uses.
pub fn unique(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    format!("{what}-{now}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[allow(dead_code)]
pub async fn new_topic(client: &Client, partitions: i32) -> String {
    let name = unique("client-test");
    let created = client.admin().create_topic(NewTopic::new(&name).partitions(partitions)).await.unwrap();
    assert!(created.partitions.is_none_or(|count| count == partitions));
    name
}

/// Polls until there are so many records, for 30 seconds at most.
#[allow(dead_code)]
pub async fn read(consumer: &Consumer, count: usize) -> Vec<ConsumerRecord> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", records.len());
        records.extend(consumer.poll(Duration::from_millis(200)).await.unwrap());
    }
    records
}

/// Writes values `0..count` to a partition.
#[allow(dead_code)]
pub async fn write(client: &Client, topic: &str, partition: i32, count: usize) {
    let producer = client.producer(ProducerConfig::default()).unwrap();
    let mut deliveries = Vec::new();
    for value in 0..count {
        let record = ProducerRecord::to(topic).partition(partition).value(value.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    producer.flush().await.unwrap();
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}
