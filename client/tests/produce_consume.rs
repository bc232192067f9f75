//! Producing and consuming against a running broker; see `common`.

mod common;

use common::{new_topic, read, unique, with_client, write};
use corelog_client::{
    Acks, Compression, ConsumerConfig, Error, ErrorCode, Isolation, OffsetReset, OffsetSpec, Partitioner,
    ProducerConfig, ProducerRecord, TopicPartition, TrySendError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

fn from_earliest() -> ConsumerConfig {
    ConsumerConfig { offset_reset: OffsetReset::Earliest, ..Default::default() }
}

#[test]
fn records_come_back_as_they_were_sent_in_every_codec_and_acks() {
    with_client(async |client| {
        let topic = new_topic(&client, 1).await;
        let consumer = client.consumer(from_earliest()).unwrap();
        consumer.assign([TopicPartition::new(&*topic, 0)]).unwrap();
        let mut next = 0;
        for codec in Compression::ALL {
            for acks in [Acks::All, Acks::Leader, Acks::None] {
                let config = ProducerConfig::default().compression(codec).acks(acks);
                let producer = client.producer(config).unwrap();
                let sent = [
                    ProducerRecord::to(&*topic)
                        .key("k")
                        .value("v")
                        .header("a", "1")
                        .header("a", "")
                        .timestamp(1234),
                    ProducerRecord::to(&*topic).key("tombstone"),
                    ProducerRecord::to(&*topic).value(vec![7; 100_000]),
                    ProducerRecord::to(&*topic).key("").value(""),
                ];
                let mut deliveries = Vec::new();
                for record in &sent {
                    deliveries.push(producer.send(record.clone()).await.unwrap());
                }
                producer.flush().await.unwrap();
                for (at, delivery) in deliveries.into_iter().enumerate() {
                    let written = delivery.await.unwrap();
                    assert_eq!(written.offset, (acks != Acks::None).then_some(next + at as i64));
                }
                let got = read(&consumer, sent.len()).await;
                for (at, (got, sent)) in got.iter().zip(&sent).enumerate() {
                    assert_eq!(got.offset, next + at as i64);
                    assert_eq!((&got.key, &got.value), (&sent.key, &sent.value), "{codec} {acks:?}");
                    assert_eq!(got.headers, sent.headers);
                    assert!(sent.timestamp.is_none_or(|timestamp| timestamp == got.timestamp));
                }
                next += sent.len() as i64;
                producer.close().await.unwrap();
            }
        }
    });
}

#[test]
fn many_records_over_many_partitions_keep_their_order() {
    with_client(async |client| {
        const COUNT: usize = 100_000;
        let topic = new_topic(&client, 7).await;
        let config =
            ProducerConfig { batch_bytes: 16 << 10, ..Default::default() }.compression(Compression::Lz4);
        let producer = client.producer(config).unwrap();
        let mut deliveries = Vec::new();
        for value in 0..COUNT {
            let record =
                ProducerRecord::to(&*topic).key(format!("key-{}", value % 100)).value(value.to_string());
            deliveries.push(producer.send(record).await.unwrap());
        }
        let mut written = BTreeSet::new();
        for delivery in deliveries {
            let at = delivery.await.unwrap();
            assert!(written.insert((at.partition, at.offset)), "no offset twice");
        }
        let consumer = client.consumer(from_earliest()).unwrap();
        consumer.assign((0..7).map(|partition| TopicPartition::new(&*topic, partition))).unwrap();
        let mut latest = BTreeMap::new();
        let mut offsets: BTreeMap<i32, i64> = BTreeMap::new();
        for record in read(&consumer, COUNT).await {
            let value: usize = std::str::from_utf8(&record.value.unwrap()).unwrap().parse().unwrap();
            let key = record.key.unwrap();
            let (partition, before) =
                latest.insert(key.clone(), (record.partition, value)).unwrap_or((record.partition, 0));
            assert_eq!(partition, record.partition, "value {value} of key {key:?} at {}", record.offset);
            assert!(before <= value, "{before} before {value} at {partition}-{}", record.offset);
            assert_eq!(*offsets.entry(record.partition).or_default(), record.offset);
            *offsets.entry(record.partition).or_default() += 1;
        }
        assert_eq!(latest.len(), 100);
        assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
    });
}

#[test]
fn seek_pause_and_times() {
    with_client(async |client| {
        let topic = new_topic(&client, 2).await;
        let (a, b) = (TopicPartition::new(&*topic, 0), TopicPartition::new(&*topic, 1));
        let producer = client.producer(ProducerConfig::default()).unwrap();
        for at in 0..50 {
            let record = ProducerRecord::to(&*topic).partition(0).value(at.to_string()).timestamp(1000 + at);
            drop(producer.send(record).await.unwrap());
        }
        producer.flush().await.unwrap();
        write(&client, &topic, 1, 10).await;

        let consumer = client.consumer(ConsumerConfig { poll_records_max: 5, ..from_earliest() }).unwrap();
        consumer.assign([a.clone()]).unwrap();
        assert_eq!(read(&consumer, 5).await.last().unwrap().offset, 4);
        assert_eq!(consumer.position(&a).unwrap(), Some(5));
        consumer.seek(&a, 40).unwrap();
        assert_eq!(read(&consumer, 5).await[0].offset, 40);
        assert_eq!(consumer.high_watermark(&a).unwrap(), Some(50));
        let asked =
            vec![(a.clone(), OffsetSpec::Timestamp(1020)), (b.clone(), OffsetSpec::Timestamp(i64::MAX))];
        let found: Vec<_> =
            consumer.offsets(asked).await.unwrap().into_iter().map(|(_, listed)| listed.unwrap()).collect();
        assert_eq!((found[0].offset, found[0].timestamp, found[1].offset), (Some(20), Some(1020), None));
        consumer.seek_to(&a, OffsetSpec::Timestamp(1020)).unwrap();
        assert_eq!(read(&consumer, 5).await[0].offset, 20);
        consumer.seek_to(&a, OffsetSpec::Earliest).unwrap();
        assert_eq!(read(&consumer, 5).await[0].offset, 0);
        consumer.seek_to(&a, OffsetSpec::Timestamp(99_999_999_999_999)).unwrap();
        assert!(
            consumer.poll(Duration::from_millis(500)).await.unwrap().is_empty(),
            "nothing is as late as that"
        );
        write(&client, &topic, 0, 1).await;
        assert_eq!(read(&consumer, 1).await[0].offset, 50);

        consumer.assign([a.clone(), b.clone()]).unwrap();
        consumer.seek(&a, 0).unwrap();
        consumer.pause(std::slice::from_ref(&b)).unwrap();
        assert!(read(&consumer, 51).await.iter().all(|record| record.partition == 0));
        consumer.resume(std::slice::from_ref(&b)).unwrap();
        assert!(read(&consumer, 10).await.iter().all(|record| record.partition == 1));
        assert!(consumer.seek(&TopicPartition::new("elsewhere", 0), 0).is_err());
    });
}

#[test]
fn offsets_out_of_range_are_reset_as_configured() {
    with_client(async |client| {
        let topic = new_topic(&client, 1).await;
        let at = TopicPartition::new(&*topic, 0);
        write(&client, &topic, 0, 20).await;
        let deleted = client.admin().delete_records(vec![(at.clone(), 10)]).await.unwrap();
        assert_eq!(*deleted[0].1.as_ref().unwrap(), 10);
        for (reset, first) in
            [(OffsetReset::Earliest, Some(10)), (OffsetReset::Latest, None), (OffsetReset::Fail, None)]
        {
            let config = ConsumerConfig { offset_reset: reset, ..Default::default() };
            let consumer = client.consumer(config).unwrap();
            consumer.assign([at.clone()]).unwrap();
            consumer.seek(&at, 3).unwrap();
            match (reset, first) {
                (_, Some(first)) => assert_eq!(read(&consumer, 10).await[0].offset, first),
                (OffsetReset::Fail, _) => {
                    let error = consumer.poll(Duration::from_secs(10)).await.unwrap_err();
                    assert!(matches!(error, Error::Config { .. }), "{error}");
                }
                _ => {
                    assert!(consumer.poll(Duration::from_millis(700)).await.unwrap().is_empty());
                    assert_eq!(consumer.position(&at).unwrap(), Some(20));
                }
            }
        }
        let specs = [OffsetSpec::Earliest, OffsetSpec::Latest, OffsetSpec::MaxTimestamp];
        let mut offsets = Vec::new();
        for spec in specs {
            let listed =
                client.admin().list_offsets(vec![(at.clone(), spec)], Isolation::ReadUncommitted).await;
            offsets.push(listed[0].1.as_ref().unwrap().offset);
        }
        assert_eq!(offsets[..2], [Some(10), Some(20)]);
        assert!(offsets[2].is_some());
    });
}

#[test]
fn what_cannot_be_sent_is_told() {
    with_client(async |client| {
        let topic = new_topic(&client, 2).await;
        let config = ProducerConfig { create_topics: false, ..Default::default() };
        let producer = client.producer(config).unwrap();
        let error = producer.send(ProducerRecord::to(&*topic).partition(2).value("v")).await.unwrap_err();
        assert!(error.to_string().contains("2 partitions"), "{error}");
        let error = producer.send(ProducerRecord::to(&*topic).value(vec![0; 2 << 20])).await.unwrap_err();
        assert!(matches!(error, Error::RecordTooLarge { .. }), "{error}");
        let error = producer.send(ProducerRecord::to(unique("not-there")).value("v")).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION), "{error}");
        assert!(matches!(
            producer.try_send(ProducerRecord::to("not-prepared").value("v")),
            Err(TrySendError::NotPrepared(_))
        ));
        // Larger than the topic allows: that one fails, and those after it are written.
        let config = ProducerConfig {
            request_bytes_max: 8 << 20,
            linger: Duration::ZERO,
            partitioner: Partitioner::RoundRobin,
            ..Default::default()
        };
        let producer = client.producer(config).unwrap();
        let large =
            producer.send(ProducerRecord::to(&*topic).partition(0).value(vec![0; 4 << 20])).await.unwrap();
        let mut small = Vec::new();
        for _ in 0..20 {
            small.push(producer.send(ProducerRecord::to(&*topic).partition(0).value("v")).await.unwrap());
        }
        let error = large.await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE), "{error}");
        let mut offsets = Vec::new();
        for delivery in small {
            offsets.push(delivery.await.unwrap().offset.unwrap());
        }
        assert_eq!(offsets, (0..20).collect::<Vec<i64>>());
    });
}

#[test]
fn a_full_buffer_holds_senders_back() {
    with_client(async |client| {
        let topic = new_topic(&client, 1).await;
        let config = ProducerConfig {
            batch_bytes: 10_000,
            request_bytes_max: 20_000,
            buffer_bytes_max: 40_000,
            linger: Duration::from_secs(60),
            ..Default::default()
        };
        let producer = client.producer(config).unwrap();
        assert_eq!(producer.prepare(&topic).await.unwrap(), 1);
        let mut taken = 0;
        // Open batches are not sent for a minute; the full ones are, but not all at once.
        loop {
            match producer.try_send(ProducerRecord::to(&*topic).value(vec![0; 9_000])) {
                Ok(delivery) => drop(delivery),
                Err(TrySendError::NoRoom(record)) => break assert_eq!(record.value.unwrap().len(), 9_000),
                Err(error) => panic!("{error:?}"),
            }
            taken += 1;
        }
        assert!(taken >= 4);
        let started = Instant::now();
        for _ in 0..100 {
            drop(producer.send(ProducerRecord::to(&*topic).value(vec![0; 9_000])).await.unwrap());
        }
        producer.close().await.unwrap();
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "whoever waits for room does not wait for linger"
        );
    });
}

#[test]
fn polling_ends_when_its_time_is_over() {
    with_client(async |client| {
        let topic = new_topic(&client, 1).await;
        let consumer = client.consumer(ConsumerConfig::default()).unwrap();
        consumer.assign([TopicPartition::new(&*topic, 0)]).unwrap();
        let started = Instant::now();
        assert!(consumer.poll(Duration::from_millis(300)).await.unwrap().is_empty());
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(3), "{took:?}");
    });
}
