//! Crowds in small budgets: clients that send requests as large as the limits allow, that stop in the middle of one, that
//! do not read what they asked for. Others are served meanwhile, and none is left behind for ever.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use corelog_io::sim::Sim;
use corelog_io::{Instant, Queue, Stream, now, sleep, spawn, timeout};
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use corelog_wire::messages::MetadataRequest;
use corelog_wire::messages::metadata_request::Topic;
use corelog_wire::{Uuid, frame};
use futures_util::future::join_all;

use crate::broker::{Broker, Start};
use crate::plan::{Faults, Plan};
use crate::tailer::{PRODUCE_VERSION, batches, connect, create_topic, create_topic_with, produce};

const MIB: usize = 1 << 20;
const FETCH_VERSION: i16 = 13;
/// Whatever is due at once.
const SOON: Duration = Duration::from_secs(3);

/// Runs `test` against a broker of one core with this much memory.
fn with_memory<F: Future<Output = ()> + 'static>(memory: usize, test: impl FnOnce(SocketAddr) -> F) {
    in_world(3, memory, test);
}

fn in_world<F: Future<Output = ()> + 'static>(seed: u64, memory: usize, test: impl FnOnce(SocketAddr) -> F) {
    let sim = Sim::new(seed);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: memory as u64, ..Plan::from_seed(3, Faults::Crashes) };
    broker.start(&plan, 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    sim.block_on(test(broker.address()));
    broker.stop(&sim);
}

async fn open(address: SocketAddr) -> Stream {
    timeout(SOON, Stream::connect(address)).await.expect("in time").expect("the broker is there")
}

async fn send(stream: &Stream, bytes: impl Into<Bytes>) {
    let _ = stream.send(vec![bytes.into().into()]).await;
}

/// `request` as a frame of `size` bytes: what follows a request is let pass.
fn padded(request: &[u8], size: usize) -> Vec<u8> {
    let mut frame = ((size - 4) as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(&request[4..]);
    assert!(frame.len() <= size);
    frame.resize(size, 0);
    frame
}

/// An ApiVersions request of `size` bytes.
fn ask(size: usize) -> Vec<u8> {
    let header = [0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    padded(&[&[0; 4][..], &header].concat(), size)
}

fn fetch(topic: Uuid, partitions: i32, offset: i64, min_bytes: usize, max_wait_ms: i32) -> FetchRequest {
    let partitions = (0..partitions).map(|partition| FetchPartition {
        partition,
        current_leader_epoch: -1,
        fetch_offset: offset,
        partition_max_bytes: MIB as i32,
        ..Default::default()
    });
    let topic = FetchTopic { topic_id: topic, partitions: partitions.collect(), ..Default::default() };
    FetchRequest {
        max_wait_ms,
        min_bytes: min_bytes as i32,
        max_bytes: 50 << 20,
        session_epoch: -1,
        topics: vec![topic],
        ..Default::default()
    }
}

fn fetch_frame(request: &FetchRequest) -> Vec<u8> {
    frame::request(request, FETCH_VERSION, 1, None).expect("it is a request").concat()
}

/// An answer's bytes, or `None` when the connection ends.
async fn answer(stream: &Stream) -> Option<Bytes> {
    let mut buffer = BytesMut::new();
    loop {
        if let Some(prefix) = buffer.first_chunk() {
            let size = u32::from_be_bytes(*prefix) as usize;
            if buffer.len() >= 4 + size {
                buffer.advance(4);
                return Some(buffer.split_to(size).freeze());
            }
        }
        if stream.read(&mut buffer, 64 << 10).await.ok()? == 0 {
            return None;
        }
    }
}

async fn is_served(address: SocketAddr, frame: Vec<u8>) -> bool {
    let stream = open(address).await;
    let asked = async {
        send(&stream, frame).await;
        answer(&stream).await.is_some()
    };
    timeout(Duration::from_secs(60), asked).await.unwrap_or(false)
}

async fn all_are_served(address: SocketAddr, clients: usize, size: usize) {
    let served = join_all((0..clients).map(|_| is_served(address, ask(size)))).await;
    let count = served.iter().filter(|served| **served).count();
    assert_eq!(count, clients, "requests of {size} bytes were answered");
}

#[test]
fn requests_larger_than_the_budget_together_are_all_received() {
    for seed in 1..=20 {
        in_world(seed, 64 * MIB, |address| all_are_served(address, 3, 10 * MIB));
    }
}

#[test]
fn a_crowd_of_middling_requests_is_received() {
    with_memory(64 * MIB, |address| all_are_served(address, 200, MIB));
}

#[test]
fn the_largest_request_fits_and_a_larger_one_is_refused_at_its_length() {
    with_memory(64 * MIB, |address| async move {
        let largest = 4 + corelog_broker::config::request_bytes_max(16 << 20);
        assert!(is_served(address, ask(largest)).await);
        let stream = open(address).await;
        send(&stream, ask(largest + 1)[..10].to_vec()).await;
        assert_eq!(timeout(SOON, answer(&stream)).await, Ok(None));
    });
}

#[test]
fn who_sends_no_more_or_a_byte_now_and_then_is_closed_and_others_are_served_meanwhile() {
    with_memory(64 * MIB, |address| async move {
        let mut stuck = Vec::new();
        for silent in [true, false, false] {
            let stream = open(address).await;
            let rest = ask(10 * MIB);
            let began = now();
            stuck.push(async move {
                let (first, rest) = rest.split_at(9 * MIB);
                send(&stream, first.to_vec()).await;
                for byte in rest {
                    let pause = if silent { 3600 } else { 4 };
                    if let Ok(None) = timeout(Duration::from_secs(pause), answer(&stream)).await {
                        return now() - began;
                    }
                    send(&stream, vec![*byte]).await;
                }
                unreachable!("it takes too long")
            });
        }
        let others = async {
            sleep(Duration::from_secs(1)).await;
            for size in [14, 4_000, 60_000] {
                let asked = timeout(SOON, is_served(address, ask(size)));
                assert_eq!(asked.await, Ok(true), "{size} bytes");
            }
            assert!(is_served(address, ask(10 * MIB)).await, "one as large as those that are stuck");
        };
        let (ended, ()) = futures_util::future::join(join_all(stuck), others).await;
        assert!(ended.iter().all(|after| *after < Duration::from_secs(120)), "{ended:?}");
    });
}

/// Whoever never ends a large request has all the room for a while, and the next of them after that: others who come go first.
/// In MiB: the frames, and how much of them comes at once. In seconds: how long others may wait. Smaller ones are before others
/// for longer, and go side by side.
#[test]
fn a_crowd_of_large_requests_that_never_end_does_not_keep_others_waiting() {
    for (size, at_once, soon) in [(11, 10, 5), (11, 0, 5), (5, 4, 15)] {
        with_memory(64 * MIB, move |address| async move {
            let endless = join_all((0..40).map(|_| async move {
                let frame = ask(size * MIB);
                let (first, rest) = frame.split_at(at_once * MIB);
                for _ in 0..1000 {
                    let stream = open(address).await;
                    send(&stream, first.to_vec()).await;
                    // Fast enough never to stall.
                    for step in rest.chunks(20_000) {
                        send(&stream, step.to_vec()).await;
                        if timeout(Duration::from_millis(200), answer(&stream)).await.is_ok() {
                            break;
                        }
                    }
                }
            }));
            let others = async {
                sleep(Duration::from_secs(1)).await;
                for round in 0..40 {
                    let asked = timeout(Duration::from_secs(soon), is_served(address, ask(200_000)));
                    assert_eq!(asked.await, Ok(true), "{size} MiB, {at_once} at once, round {round}");
                    sleep(Duration::from_millis(500)).await;
                }
            };
            futures_util::future::select(std::pin::pin!(endless), std::pin::pin!(others)).await;
        });
    }
}

/// As slow as a peer may be while others wait: the largest request must not take the others' time for that.
#[test]
fn a_large_request_that_comes_slowly_does_not_keep_others_out() {
    with_memory(64 * MIB, |address| async move {
        let slow = open(address).await;
        spawn(Queue::Produce, async move {
            let request = ask(11 * MIB);
            let (first, rest) = request.split_at(4 * MIB);
            send(&slow, first.to_vec()).await;
            for second in rest.chunks(70 << 10) {
                sleep(Duration::from_secs(1)).await;
                send(&slow, second.to_vec()).await;
            }
        })
        .detach();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(timeout(Duration::from_secs(40), is_served(address, ask(MIB))).await, Ok(true));
    });
}

/// Requests are held until they are answered, in their order.
#[test]
fn requests_behind_answers_that_nobody_reads_do_not_keep_others_out() {
    with_memory(64 * MIB, |address| async move {
        let name = |n: usize| format!("{n:0>200}");
        let topics = (0..200).map(|n| Topic { name: Some(name(n).into()), ..Default::default() });
        let request = MetadataRequest { topics: Some(topics.collect()), ..Default::default() };
        let large_answers =
            frame::request(&request, 12, 1, None).expect("it is a request").concat().repeat(30);
        let reads_slowly = open(address).await;
        send(&reads_slowly, [large_answers, ask(3 * MIB)].concat()).await;
        spawn(Queue::Produce, async move {
            let mut buffer = BytesMut::new();
            while reads_slowly.read(&mut buffer, 30 << 10).await.is_ok_and(|read| read > 0) {
                buffer.clear();
                sleep(Duration::from_secs(1)).await;
            }
        })
        .detach();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(timeout(Duration::from_secs(20), is_served(address, ask(MIB))).await, Ok(true));
    });
}

#[test]
fn a_fetch_that_waits_holds_nothing_of_its_request() {
    with_memory(64 * MIB, |address| async move {
        let topic = create_topic(&mut connect(address).await, 1).await;
        let waiting = fetch_frame(&fetch(topic, 1, 0, 1, i32::MAX));
        let mut streams = Vec::new();
        for _ in 0..4 {
            let stream = open(address).await;
            send(&stream, padded(&waiting, 5 * MIB)).await;
            // Nor does what comes behind it, before its turn.
            send(&stream, ask(3 * MIB)[..10 << 10].to_vec()).await;
            streams.push(stream);
        }
        sleep(Duration::from_secs(1)).await;
        all_are_served(address, 2, 10 * MIB).await;
    });
}

/// Consumers that ask again and again and read nothing.
async fn stopped_consumers(address: SocketAddr, topic: Uuid, count: usize) -> Vec<Stream> {
    let request = fetch_frame(&fetch(topic, 1, 0, 1, 1000));
    let mut streams = Vec::new();
    for _ in 0..count {
        let stream = open(address).await;
        send(&stream, request.repeat(20)).await;
        streams.push(stream);
    }
    streams
}

/// An answer's records, in bytes.
fn records(response: &FetchResponse) -> usize {
    let partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.flat_map(|partition| partition.records.iter().flatten()).map(Bytes::len).sum()
}

#[test]
fn consumers_that_stop_reading_lose_their_connection_and_others_are_served() {
    with_memory(16 * MIB, |address| async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 1).await;
        for _ in 0..10 {
            produce(&mut connection, topic, 0..1, 1, 100_000).await;
        }
        let stopped = stopped_consumers(address, topic, 60).await;
        let mut reader = connect(address).await;
        for round in 0..20 {
            let began = now();
            let poll = reader.call(&fetch(topic, 1, 10, 1, 100), FETCH_VERSION).await.expect("an answer");
            assert_eq!(records(&poll), 0);
            assert!(now() - began < Duration::from_secs(1), "an empty poll, round {round}");
            let began = now();
            // Without room for long, an answer may come without records: then it is asked again.
            while records(&reader.call(&fetch(topic, 1, 0, 1, 100), FETCH_VERSION).await.expect("an answer"))
                == 0
            {}
            assert!(now() - began < 2 * SOON, "records, round {round}");
        }
        assert!(ended(&stopped).await > 0, "somebody made room");
    });
}

/// Hundreds that each read a batch to find that they have no room for it would hold them all at once.
#[test]
fn a_batch_that_there_is_no_room_for_is_not_read() {
    let sim = Sim::new(3);
    let mut broker = Broker::new(&sim);
    let plan =
        Plan { journal_file_bytes: 16 << 20, memory_bytes: 64 << 20, ..Plan::from_seed(3, Faults::Crashes) };
    broker.start(&plan, 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let (address, scraper) = (broker.address(), broker.scraper());
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 1).await;
        produce(&mut connection, topic, 0..1, 1, 900_000).await;
        let stopped = stopped_consumers(address, topic, 100).await;
        sleep(SOON).await;
        let text: String = scraper.scrape().await.pieces().collect();
        let bytes = |name: &str| -> usize {
            let of_it = text.lines().filter(|line| line.starts_with(name));
            of_it.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
        };
        let read = bytes("corelog_tail_read_bytes_total") + bytes("corelog_cold_read_bytes_total");
        let given = bytes("corelog_fetched_bytes_total");
        assert!(given > MIB && read < given + MIB / 2, "{read} bytes were read, and {given} given");
        drop(stopped);
    });
    broker.stop(&sim);
}

/// How many of the connections were closed. Nobody else has read what was sent on them.
async fn ended(streams: &[Stream]) -> usize {
    let mut ended = 0;
    for stream in streams {
        let read_all = async {
            let mut buffer = BytesMut::new();
            while stream.read(&mut buffer, MIB).await.is_ok_and(|read| read > 0) {
                buffer.clear();
            }
        };
        ended += usize::from(timeout(Duration::from_millis(500), read_all).await.is_ok());
    }
    ended
}

#[test]
fn what_the_brokers_own_grant_cuts_off_is_enough() {
    with_memory(64 * MIB, |address| async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 4).await;
        for _ in 0..10 {
            produce(&mut connection, topic, 0..4, 1, 100_000).await;
        }
        let began: Instant = now();
        let request = fetch(topic, 4, 0, 3 * MIB, 30_000);
        let response = connection.call(&request, FETCH_VERSION).await.expect("an answer");
        let bytes = records(&response);
        assert!(bytes > MIB / 2 && now() - began < SOON, "{bytes} bytes after {:?}", now() - began);
        // What is not there is waited for.
        let request = fetch(topic, 1, 0, 3 * MIB, 5_000);
        let began = now();
        let response = connection.call(&request, FETCH_VERSION).await.expect("an answer");
        assert!(records(&response) > MIB / 2 && now() - began >= Duration::from_secs(5));
    });
}

/// What one task may hold a core for. By the work that is told at the seam: no clock runs meanwhile.
const TURN_MAX: Duration = Duration::from_millis(1);

#[test]
fn a_request_of_many_batches_is_received_and_checked_in_many_turns() {
    let sim = Sim::new(5);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: 256 << 20, ..Plan::from_seed(5, Faults::Crashes) };
    broker.start(&plan, 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let (address, machine) = (broker.address(), broker.machine.clone());
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic(&mut connection, 100).await;
        machine.forget_turns();
        produce(&mut connection, topic, 0..100, 1, 50_000).await;
        let longest = machine.longest_turn().expect("there were some");
        assert!(longest.cost < TURN_MAX, "{longest:?}");
    });
    broker.stop(&sim);
}

/// The core goes on while another thread checks it.
#[test]
fn a_large_batch_is_no_turn_of_the_core() {
    let sim = Sim::new(5);
    let mut broker = Broker::new(&sim);
    let plan =
        Plan { memory_bytes: 256 << 20, journal_file_bytes: 16 << 20, ..Plan::from_seed(5, Faults::Crashes) };
    broker.start(&plan, 1);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let (address, machine) = (broker.address(), broker.machine.clone());
    sim.block_on(async move {
        let mut connection = connect(address).await;
        let topic = create_topic_with(&mut connection, 1, &[("max.message.bytes", "10000000")]).await;
        machine.forget_turns();
        let request = batches(topic, 0..1, 1, 4 * MIB);
        let response = connection.call(&request, PRODUCE_VERSION).await.expect("an answer");
        let answer = &response.responses[0].partition_responses[0];
        // Whether or not there is a journal for it.
        assert!([0, 10, 18].contains(&answer.error_code), "{answer:?}");
        let longest = machine.longest_turn().expect("there were some");
        assert!(longest.cost < 3 * TURN_MAX, "{longest:?}");
    });
    broker.stop(&sim);
}

#[test]
fn a_full_mailbox_is_worked_off_in_many_turns() {
    const CLIENTS: usize = 60;
    let sim = Sim::new(5);
    let mut broker = Broker::new(&sim);
    let plan = Plan { memory_bytes: 64 << 20, ..Plan::from_seed(5, Faults::Crashes) };
    broker.start(&plan, 2);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let (address, machine) = (broker.address(), broker.machine.clone());
    sim.block_on(async move {
        let topic = create_topic(&mut connect(address).await, 8).await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(connect(address).await);
            // Asks both shards, so that it is served by the one where it is.
            produce(clients.last_mut().expect("it is there"), topic, 0..8, 1, 10).await;
        }
        machine.pause_core(1);
        machine.forget_turns();
        let request = batches(topic, 0..8, 1, 10);
        for mut client in clients {
            let request = request.clone();
            spawn(Queue::Produce, async move {
                for _ in 0..60 {
                    client.send(&request, PRODUCE_VERSION).await.expect("it is sent");
                }
                sleep(Duration::from_secs(10)).await;
            })
            .detach();
        }
        sleep(Duration::from_millis(500)).await;
        machine.resume_core(1);
        sleep(Duration::from_millis(500)).await;
        let longest = machine.longest_turn().expect("there were some");
        assert!(longest.cost < TURN_MAX, "{longest:?}");
    });
    broker.stop(&sim);
}
