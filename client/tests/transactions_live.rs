//! Transactions against a running broker; see `common`. One that has none is told, and nothing is tested.

mod common;

use common::{new_topic, read, unique, with_client};
use corelog_client::{
    Client, Consumer, ConsumerConfig, Error, ErrorCode, Isolation, NewTopic, OffsetReset, OffsetSpec,
    Producer, ProducerConfig, ProducerRecord, TopicPartition,
};
use std::collections::BTreeMap;
use std::time::Duration;

const PARTITIONS: i32 = 3;

/// None if the broker has no transactions.
async fn transactional(client: &Client, id: &str) -> Option<Producer> {
    let config = ProducerConfig { batch_bytes: 2000, ..ProducerConfig::transactional(id) };
    let producer = client.producer(config).unwrap();
    match producer.init_transactions().await {
        Err(error @ Error::Unsupported { .. }) => {
            eprintln!("SKIPPED: {error}");
            None
        }
        done => {
            done.unwrap();
            Some(producer)
        }
    }
}

/// One transaction of `values`, without its end.
async fn fill(producer: &Producer, topic: &str, values: std::ops::Range<i32>) {
    producer.begin_transaction().unwrap();
    for value in values {
        let record = ProducerRecord::to(topic).partition(value % PARTITIONS).value(value.to_string());
        drop(producer.send(record).await.unwrap());
    }
}

fn reader(client: &Client, topic: &str, isolation: Isolation) -> Consumer {
    let config = ConsumerConfig { isolation, offset_reset: OffsetReset::Earliest, ..Default::default() };
    let consumer = client.consumer(config).unwrap();
    consumer.assign((0..PARTITIONS).map(|at| TopicPartition::new(topic, at))).unwrap();
    consumer
}

/// What a partition's reader sees next, and that no more comes.
async fn seen(consumer: &Consumer, count: usize) -> Vec<Vec<i32>> {
    let mut values = vec![Vec::new(); PARTITIONS as usize];
    for record in read(consumer, count).await {
        let value = std::str::from_utf8(record.value.as_ref().unwrap()).unwrap().parse().unwrap();
        values[record.partition as usize].push(value);
    }
    let more = consumer.poll(Duration::from_millis(300)).await.unwrap();
    assert!(more.is_empty(), "{} more came", more.len());
    values
}

fn dealt(values: impl IntoIterator<Item = i32> + Clone) -> Vec<Vec<i32>> {
    let of = |partition| values.clone().into_iter().filter(|value| value % PARTITIONS == partition).collect();
    (0..PARTITIONS).map(of).collect()
}

#[test]
fn transactions_are_seen_whole_or_not_at_all() {
    with_client(async |client| {
        let topic = new_topic(&client, PARTITIONS).await;
        let Some(producer) = transactional(&client, &unique("whole")).await else { return };
        let reader_of = |isolation| reader(&client, &topic, isolation);
        let (committed, all) = (reader_of(Isolation::ReadCommitted), reader_of(Isolation::ReadUncommitted));

        fill(&producer, &topic, 0..300).await;
        producer.flush().await.unwrap();
        assert_eq!(seen(&all, 300).await, dealt(0..300));
        assert_eq!(seen(&committed, 0).await, dealt([]));
        let at = TopicPartition::new(&*topic, 0);
        let (stable, end) = (
            committed.offsets(vec![(at.clone(), OffsetSpec::Latest)]).await.unwrap(),
            all.offsets(vec![(at, OffsetSpec::Latest)]).await.unwrap(),
        );
        assert_eq!(stable[0].1.as_ref().unwrap().offset, Some(0), "the last stable offset");
        assert_eq!(end[0].1.as_ref().unwrap().offset, Some(100));
        producer.commit_transaction().await.unwrap();
        assert_eq!(seen(&committed, 300).await, dealt(0..300));

        // Some of it is written, some is dropped.
        fill(&producer, &topic, 300..450).await;
        producer.flush().await.unwrap();
        for value in 450..600 {
            drop(producer.send(ProducerRecord::to(&*topic).value(value.to_string())).await.unwrap());
        }
        producer.abort_transaction().await.unwrap();
        for turn in 2..12 {
            fill(&producer, &topic, turn * 300..(turn + 1) * 300).await;
            producer.commit_transaction().await.unwrap();
        }
        assert_eq!(seen(&committed, 3000).await, dealt(600..3600));
        let anew = reader_of(Isolation::ReadCommitted);
        assert_eq!(seen(&anew, 3300).await, dealt((0..300).chain(600..3600)));
        producer.close().await.unwrap();
    });
}

#[test]
fn a_newer_producer_fences_the_older_and_ends_what_it_left() {
    with_client(async |client| {
        let topic = new_topic(&client, PARTITIONS).await;
        let id = unique("fenced");
        let Some(older) = transactional(&client, &id).await else { return };
        fill(&older, &topic, 0..300).await;
        older.flush().await.unwrap();
        let newer = transactional(&client, &id).await.unwrap();
        fill(&newer, &topic, 300..600).await;
        newer.commit_transaction().await.unwrap();
        let error = older.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFatal { .. }), "{error}");
        assert!(
            matches!(error.code(), Some(ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH)),
            "{error}"
        );
        let consumer = reader(&client, &topic, Isolation::ReadCommitted);
        assert_eq!(seen(&consumer, 300).await, dealt(300..600));
    });
}

#[test]
fn a_refused_record_makes_the_commit_fail_and_the_next_transaction_does_not() {
    with_client(async |client| {
        let topic = unique("client-test");
        let new = NewTopic::new(&topic).partitions(PARTITIONS).config("max.message.bytes", "5000");
        client.admin().create_topic(new).await.unwrap();
        let Some(producer) = transactional(&client, &unique("refused")).await else { return };
        fill(&producer, &topic, 0..300).await;
        let large = ProducerRecord::to(&*topic).partition(0).value(vec![b'x'; 100_000]);
        drop(producer.send(large).await.unwrap());
        let error = producer.commit_transaction().await.unwrap_err();
        assert!(matches!(error, Error::TransactionFailed { .. }), "{error}");
        assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE));
        producer.abort_transaction().await.unwrap();
        fill(&producer, &topic, 300..600).await;
        producer.commit_transaction().await.unwrap();
        let consumer = reader(&client, &topic, Isolation::ReadCommitted);
        assert_eq!(seen(&consumer, 300).await, dealt(300..600));
    });
}

#[test]
fn a_group_s_offsets_are_committed_with_what_came_of_them() {
    with_client(async |client| {
        let (from, to) = (new_topic(&client, PARTITIONS).await, new_topic(&client, PARTITIONS).await);
        let Some(producer) = transactional(&client, &unique("offsets")).await else { return };
        fill(&producer, &from, 0..300).await;
        producer.commit_transaction().await.unwrap();

        let group = unique("group");
        let config = ConsumerConfig {
            isolation: Isolation::ReadCommitted,
            auto_commit: None,
            ..ConsumerConfig::group(&group).from_earliest()
        };
        let consumer = client.consumer(config).unwrap();
        consumer.subscribe([&*from]).unwrap();
        let mut offsets = BTreeMap::new();
        fill(&producer, &to, 0..0).await;
        for record in read(&consumer, 300).await {
            let at = TopicPartition::new(&*from, record.partition);
            offsets.insert(at, (record.offset + 1).into());
            let copy =
                ProducerRecord { topic: (&*to).into(), value: record.value.clone(), ..Default::default() };
            drop(producer.send(copy.partition(record.partition)).await.unwrap());
        }
        let all: Vec<TopicPartition> = offsets.keys().cloned().collect();
        let member = consumer.group_metadata().unwrap();
        assert!(member.generation > 0 && !member.member_id.is_empty(), "{member:?}");
        producer.send_offsets(offsets.clone(), member.clone()).await.unwrap();
        producer.commit_transaction().await.unwrap();
        let committed = consumer.committed(&all).await.unwrap();
        assert!(committed.len() == 3 && committed.values().all(|offset| *offset == 100), "{committed:?}");

        // Whoever is no longer a member is fenced.
        consumer.close().await.unwrap();
        producer.begin_transaction().unwrap();
        let error = producer.send_offsets(offsets, member).await.unwrap_err();
        assert!(matches!(error, Error::TransactionFailed { .. }), "{error}");
        producer.abort_transaction().await.unwrap();
        let reader = reader(&client, &to, Isolation::ReadCommitted);
        assert_eq!(seen(&reader, 300).await, dealt(0..300));
    });
}
