//! Data directories that earlier builds wrote are read, with all that was acknowledged there.
//!
//! `earlier/N.txt` holds one for each set of formats that a release wrote. [`write`] makes the next, which is done once,
//! before a format changes: `WRITE_EARLIER=2 cargo test -p corelog-broker --test simulation earlier::write -- --ignored`.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use corelog_io::sim::{Disk, Process, Sim};
use corelog_io::{File, OpenOptions, fs, sleep};
use corelog_wire::ErrorCode;
use corelog_wire::messages::delete_topics_request::State;
use corelog_wire::messages::list_offsets_request;
use corelog_wire::messages::{
    DeleteRecordsRequest, DeleteTopicsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    ListOffsetsRequest, MetadataRequest, delete_records_request, describe_configs_request,
    incremental_alter_configs_request,
};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions, Producer, Scratch, split_batches};

use crate::broker::{Broker, Start};
use crate::connection::Connection;
use crate::groups::{commit, committed, find};
use crate::plan::{DATA_DIR, Faults, Plan};
use crate::tailer::{Tailer, connect, create_topic_with};

/// What a chunk of a file that is not all zeros is written as a line for.
const CHUNK: usize = 32;
const TOPIC: &str = "tailed";
const PARTITIONS: i32 = 3;
const PRODUCER: i64 = 77;
const BATCHES: i32 = 8;
const RECORDS_PER_BATCH: i32 = 2;
/// Records before this are deleted, in the first partition.
const START: i64 = 5;
const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
/// Where lists of offsets end.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

fn plan() -> Plan {
    Plan {
        journal_file_bytes: 64 << 10,
        journal_files: 2,
        memory_bytes: 16 << 20,
        ..Plan::from_seed(1, Faults::Crashes)
    }
}

fn start(sim: &Sim, broker: &mut Broker, cores: usize) -> SocketAddr {
    broker.start(&plan(), cores);
    assert_eq!(broker.await_ready(sim), Start::Ready);
    broker.address()
}

/// Two records, whose values say where they belong.
fn batch(partition: i32, number: i32, producer: i64) -> ProduceRequest {
    let producer = Producer { id: producer, epoch: 0, base_sequence: number * RECORDS_PER_BATCH };
    let mut builder = BatchBuilder::new(BatchOptions { producer: Some(producer), ..Default::default() });
    for record in 0..RECORDS_PER_BATCH {
        let offset = i64::from(number * RECORDS_PER_BATCH + record);
        builder.append(1_000 + offset, Some(b"key"), Some(&value(partition, offset)), &[]).expect("it fits");
    }
    let records = Some(builder.build().expect("a batch"));
    let data = PartitionProduceData { index: partition, records };
    let topic = TopicProduceData { name: TOPIC.into(), partition_data: vec![data], ..Default::default() };
    ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() }
}

fn value(partition: i32, offset: i64) -> Vec<u8> {
    format!("{partition}/{offset}").into_bytes()
}

/// Before topics went by their ids.
const BY_NAME: i16 = 9;

async fn produce(connection: &mut Connection, partition: i32, numbers: std::ops::Range<i32>) {
    for number in numbers {
        let request = batch(partition, number, PRODUCER + i64::from(partition));
        let answer = connection.call(&request, BY_NAME).await.expect("an answer");
        let answer = &answer.responses[0].partition_responses[0];
        assert_eq!(ErrorCode(answer.error_code), ErrorCode::NONE);
        assert_eq!(answer.base_offset, i64::from(number * RECORDS_PER_BATCH), "once, whoever sends it again");
    }
}

async fn offset(connection: &mut Connection, partition: i32, timestamp: i64) -> i64 {
    let asked =
        list_offsets_request::Partition { partition_index: partition, timestamp, ..Default::default() };
    let topic = list_offsets_request::Topic { name: TOPIC.into(), partitions: vec![asked] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    let answer = connection.call(&request, 7).await.expect("an answer");
    answer.topics[0].partitions[0].offset
}

/// All that a broker keeps: sealed segments and one that is written, a journal with batches in no segment, a former
/// generation's end, log starts, producers, configs, a deleted topic, commits of one that is there and of one that is not.
async fn fill(address: SocketAddr) {
    let mut connection = connect(address).await;
    let configs = [("segment.ms", "50"), ("retention.ms", "-1"), ("max.message.bytes", "123456")];
    create_topic_with(&mut connection, PARTITIONS, &configs).await;
    find(&mut connection).await;
    for number in 0..BATCHES / 2 {
        for partition in 0..PARTITIONS {
            produce(&mut connection, partition, number..number + 1).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let partition = delete_records_request::Partition { partition_index: 0, offset: START };
    let topic = delete_records_request::Topic { name: TOPIC.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    let answer = connection.call(&request, 2).await.expect("an answer");
    assert_eq!(answer.topics[0].partitions[0].low_watermark, START);
    assert_eq!(commit(&mut connection, "group", TOPIC, "noted").await, ErrorCode::NONE);
    let set = incremental_alter_configs_request::AlterableConfig {
        name: "max.connections.per.ip".into(),
        value: Some("321".into()),
        ..Default::default()
    };
    let resource = incremental_alter_configs_request::AlterConfigsResource {
        resource_type: BROKER_RESOURCE,
        configs: vec![set],
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = connection.call(&request, 1).await.expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0);
}

/// In the second life: what only its journal has when it is killed.
async fn fill_again(address: SocketAddr) {
    let mut connection = connect(address).await;
    for partition in 0..PARTITIONS {
        produce(&mut connection, partition, BATCHES / 2..BATCHES).await;
    }
    crate::groups::create(&mut connection, "gone").await;
    assert_eq!(commit(&mut connection, "group", "gone", "").await, ErrorCode::NONE);
    let topics = vec![State { name: Some("gone".into()), ..Default::default() }];
    let request = DeleteTopicsRequest { topics, ..Default::default() };
    let answer = connection.call(&request, 6).await.expect("an answer");
    assert_eq!(answer.responses[0].error_code, 0);
}

async fn config(connection: &mut Connection, resource_type: i8, resource: &str, name: &str) -> String {
    let resource = describe_configs_request::Resource {
        resource_type,
        resource_name: resource.into(),
        configuration_keys: Some(vec![name.into()]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let answer = connection.call(&request, 4).await.expect("an answer");
    answer.results[0].configs[0].value.as_ref().map_or(String::new(), ToString::to_string)
}

/// All is there that [`fill`] and [`fill_again`] left.
async fn check(address: SocketAddr) {
    let mut connection = connect(address).await;
    let all = connection
        .call(&MetadataRequest { topics: None, ..Default::default() }, 12)
        .await
        .expect("an answer");
    let named = |name: &str| {
        let is_it = |it: &&corelog_wire::messages::metadata_response::Topic| it.name.as_deref() == Some(name);
        all.topics.iter().find(is_it)
    };
    assert!(named("gone").is_none() && named("__consumer_offsets").is_some(), "{:?}", all.topics);
    let topic = named(TOPIC).expect("the topic is there");
    assert_eq!(topic.partitions.len(), PARTITIONS as usize);
    assert_eq!(config(&mut connection, TOPIC_RESOURCE, TOPIC, "max.message.bytes").await, "123456");
    assert_eq!(config(&mut connection, BROKER_RESOURCE, "", "max.connections.per.ip").await, "321");
    assert_eq!(committed(&mut connection, "group", TOPIC).await, 5);
    let end = i64::from(BATCHES * RECORDS_PER_BATCH);
    let mut records = Tailer::new(connect(address).await, topic.topic_id, PARTITIONS);
    for partition in 0..PARTITIONS {
        let start = if partition == 0 { START } else { 0 };
        assert_eq!(offset(&mut connection, partition, EARLIEST).await, start);
        assert_eq!(offset(&mut connection, partition, LATEST).await, end);
        assert_eq!(offset(&mut connection, partition, 1_000 + end - 1).await, end - 1, "by its timestamp");
        records.go_to(partition, start);
    }
    for told in records.fetch(0).await {
        let mut next = if told.partition_index == 0 { START } else { 0 };
        let mut scratch = Scratch::default();
        for batch in
            told.records.iter().flatten().flat_map(split_batches).map(|batch| batch.expect("a batch"))
        {
            batch.verify_checksum().expect("it is as it was");
            let base = batch.header().base_offset;
            for (record, offset) in batch.records(&mut scratch, 1 << 20).expect("records").zip(base..) {
                if offset >= next {
                    let record = record.expect("a record");
                    assert_eq!(record.value, Some(&value(told.partition_index, next)[..]));
                    next += 1;
                }
            }
        }
        assert_eq!(next, end, "partition {}", told.partition_index);
    }
    // Its producers are known, and go on.
    for partition in 0..PARTITIONS {
        produce(&mut connection, partition, BATCHES - 1..BATCHES + 1).await;
        assert_eq!(offset(&mut connection, partition, LATEST).await, end + i64::from(RECORDS_PER_BATCH));
    }
}

/// A directory as text: each file with its length, and each chunk of it that is not all zeros.
fn page(disk: &Disk) -> String {
    let mut page = String::new();
    for path in disk.files() {
        let bytes = disk.contents(&path).expect("it is there");
        let name = path.strip_prefix(DATA_DIR).expect("all is there");
        let _ = writeln!(page, "{} {}", bytes.len(), name.display());
        for (place, chunk) in
            bytes.chunks(CHUNK).enumerate().filter(|(_, chunk)| chunk.iter().any(|b| *b != 0))
        {
            let hex: String = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = writeln!(page, " {} {}", place * CHUNK, hex.trim_end_matches("00"));
        }
    }
    page
}

/// What [`page`] made text of.
fn files(page: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for line in page.lines() {
        let number = |text: &str| text.parse::<usize>().expect("a number");
        if let Some((place, hex)) = line.strip_prefix(' ').and_then(|line| line.split_once(' ')) {
            let (_, bytes) = files.last_mut().expect("a file comes first");
            for (byte, at) in (0..hex.len()).step_by(2).zip(number(place)..) {
                bytes[at] = u8::from_str_radix(&hex[byte..byte + 2], 16).expect("hexadecimal digits");
            }
        } else {
            let (len, name) = line.split_once(' ').expect("length and name");
            files.push((Path::new(DATA_DIR).join(name), vec![0; number(len)]));
        }
    }
    files
}

/// Puts the files on the machine's disk.
fn restore(sim: &Sim, machine: &Process, files: Vec<(PathBuf, Vec<u8>)>) {
    let (done, is_done) = (std::rc::Rc::new(std::cell::Cell::new(false)), Duration::from_secs(10));
    let told = done.clone();
    let files = std::cell::RefCell::new(Some(files));
    machine.start(1, move |_| {
        let (files, told) = (files.borrow_mut().take().expect("one core"), told.clone());
        async move {
            for (path, bytes) in files {
                let directory = path.parent().expect("it has one");
                fs::create_dir_all(directory).await.expect("a directory");
                let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
                let file = File::open(&path, options).await.expect("a file");
                file.write_at(0, Bytes::from(bytes), true).await.expect("it is written");
                for directory in directory.ancestors() {
                    fs::sync_dir(directory).await.expect("its name lasts");
                }
            }
            told.set(true);
        }
    });
    sim.run_for(is_done);
    assert!(done.get(), "the files are written");
    machine.kill();
}

#[test]
fn what_earlier_builds_wrote_is_read() {
    for (version, page) in [(1, include_str!("earlier/1.txt")), (2, include_str!("earlier/2.txt"))] {
        for cores in [1, 2, 3] {
            let sim = Sim::new(version);
            let mut broker = Broker::new(&sim);
            restore(&sim, &broker.machine, files(page));
            let address = start(&sim, &mut broker, cores);
            sim.block_on(check(address));
            broker.stop(&sim);
        }
    }
}

/// And what this one writes.
#[test]
fn what_this_build_writes_is_read() {
    let written = written();
    let sim = Sim::new(2);
    let mut broker = Broker::new(&sim);
    restore(&sim, &broker.machine, files(&written));
    let address = start(&sim, &mut broker, 2);
    sim.block_on(check(address));
}

/// What a newer build wrote is not read, not taken for damage, and left as it is.
#[test]
fn what_newer_builds_wrote_is_refused() {
    let written = files(&written());
    // Where the checksum of a file's first bytes is, which hold the version.
    for (ending, checksum_at) in [(".journal", 4092), (".checkpoint", 76)] {
        let mut newer = written.clone();
        for (path, bytes) in &mut newer {
            if path.to_string_lossy().trim_end_matches(".copy").ends_with(ending) && bytes.len() > checksum_at
            {
                bytes[8] += 1;
                let checksum = crc32c::crc32c(&bytes[..checksum_at]);
                bytes[checksum_at..checksum_at + 4].copy_from_slice(&checksum.to_le_bytes());
            }
        }
        let sim = Sim::new(3);
        let mut broker = Broker::new(&sim);
        restore(&sim, &broker.machine, newer.clone());
        broker.start(&plan(), 2);
        let Start::Failed(why) = broker.await_ready(&sim) else { panic!("it reads {ending} of the future") };
        assert!(why.contains("is newer than this build") && why.contains(ending), "{why}");
        broker.machine.kill();
        for (path, bytes) in newer {
            assert!(broker.machine.disk().contents(&path).is_ok_and(|there| there == bytes), "{path:?}");
        }
    }
}

/// One life that ends in good order, and one that does not.
fn written() -> String {
    let sim = Sim::new(1);
    let mut broker = Broker::new(&sim);
    let address = start(&sim, &mut broker, 2);
    sim.block_on(fill(address));
    broker.stop(&sim);
    let address = start(&sim, &mut broker, 2);
    sim.block_on(fill_again(address));
    broker.machine.kill();
    page(&broker.machine.disk())
}

#[test]
#[ignore = "makes a file, once for each set of formats"]
fn write() {
    let number = crate::setting("WRITE_EARLIER").expect("WRITE_EARLIER says which");
    let path = format!("{}/tests/simulation/earlier/{number}.txt", env!("CARGO_MANIFEST_DIR"));
    std::fs::write(path, written()).expect("the file is written");
}
