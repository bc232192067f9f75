//! Instructions per request, counted by valgrind's callgrind: a regression is seen on any machine, busy or not.
//!
//! The production broker runs on two cores of the simulated world, from one seed, and a client goes through rounds of
//! one case. What `N` more rounds cost, divided by `N`, is printed and compared with [`CASES`]; set-up falls out.
//! Counted is what the broker's tasks execute: connections, APIs, calls between the two shards, storage, allocator,
//! and the simulated files, sockets and mailboxes as far as those tasks call them. The world's own scheduling and the
//! client are not. `make instructions` runs it.

// The simulation's, each used in part.
#[allow(dead_code)]
#[path = "../tests/simulation/broker.rs"]
mod broker;
#[allow(dead_code)]
#[path = "../tests/simulation/connection.rs"]
mod connection;
#[allow(dead_code)]
#[path = "../tests/simulation/plan.rs"]
mod plan;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};

use bytes::Bytes;
use corelog_io::sim::Sim;
use corelog_io::wall_clock_ms;
use corelog_wire::Uuid;
use corelog_wire::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use corelog_wire::messages::CreateTopicsRequest;
use corelog_wire::messages::create_topics_request::CreatableTopic;
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};

use broker::{Broker, Start};
use connection::Connection;
use plan::{Faults, Plan};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A case and what one of its rounds may cost: what it did cost when this was last written down.
struct Case {
    name: &'static str,
    what: &'static str,
    instructions: u64,
}

const CASES: &[Case] = &[
    Case { name: "produce-16k", what: "Produce: one batch of 16 records of 1 KB", instructions: 67_888 },
    Case {
        name: "produce-100",
        what: "Produce: 100 batches of one record, 100 partitions",
        instructions: 598_792,
    },
    Case {
        name: "fetch-news",
        what: "Fetch: a session of 100 partitions, 10 have a batch",
        instructions: 325_191,
    },
    Case {
        name: "fetch-none",
        what: "Fetch: a session of 100 partitions, none has news",
        instructions: 239_004,
    },
    Case {
        name: "fetch-wait",
        what: "Fetch: the same session waits, then 10 have a batch",
        instructions: 699_915,
    },
];

/// A round may cost this much more, in percent, than what is written down. One that costs this much less is to be
/// written down anew, so that the gain is kept.
const TOLERANCE: u64 = 10;
/// Rounds of the shorter run; the longer has twice as many.
const ROUNDS: u64 = 100;
const SEED: u64 = 1;
const CORES: usize = 2;
const PARTITIONS: i32 = 100;
/// Partitions that get a batch in a round of a fetch case.
const NEWS: i32 = 10;
const PRODUCE_VERSION: i16 = 13;
const FETCH_VERSION: i16 = 17;
/// What callgrind counts: the polls of simulated processes' tasks.
const COUNTED: &str = "*sim::scheduler::poll_process*";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        [case, rounds] => {
            run(case, rounds.parse().expect("a number of rounds"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("instructions, or instructions CASE ROUNDS (what valgrind runs)");
            ExitCode::FAILURE
        }
    }
}

/// Counts all cases and compares.
fn check() -> ExitCode {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if valgrind.is_err() {
        let in_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        println!("instructions: SKIPPED, valgrind is not installed (apt-get install valgrind)");
        return if in_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let mut changed = Vec::new();
    for case in CASES {
        let per_round = per_round(case.name);
        let off = (per_round as f64 / case.instructions as f64 - 1.0) * 100.0;
        println!("{:12} {per_round:>9} instructions ({off:+5.1} %)  {}", case.name, case.what);
        if off.abs() > TOLERANCE as f64 {
            changed.push(format!(
                "{}: {per_round} instructions, written down are {}",
                case.name, case.instructions
            ));
        }
    }
    if changed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("more than {TOLERANCE} % off what is written down in CASES, broker/examples/instructions.rs:");
    changed.iter().for_each(|line| println!("  {line}"));
    println!(
        "More: find out where they went (valgrind --tool=callgrind --toggle-collect='{COUNTED}' \
         target/release/examples/instructions CASE {ROUNDS}, then callgrind_annotate) and take them back. Less, or \
         worth it: write the new numbers down."
    );
    ExitCode::FAILURE
}

/// What one round of a case costs. A fetch case also produces what it fetches: that is counted alone and taken off.
fn per_round(case: &str) -> u64 {
    let own = marginal(case);
    match case {
        "fetch-news" | "fetch-wait" => own - marginal("produce-10"),
        _ => own,
    }
}

fn marginal(case: &str) -> u64 {
    // Both at once: most machines have two cores.
    let (short, long) = (counting(case, ROUNDS), counting(case, 2 * ROUNDS));
    let (short, long) = (counted(short), counted(long));
    (long - short) / ROUNDS
}

fn counting(case: &str, rounds: u64) -> std::process::Child {
    let own = std::env::current_exe().expect("this program has a path");
    Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={COUNTED}"))
        .arg(own)
        .args([case, &rounds.to_string()])
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind runs")
}

/// The count that callgrind tells in the end: `==pid== Collected : 12345`.
fn counted(child: std::process::Child) -> u64 {
    let output = child.wait_with_output().expect("valgrind ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind failed:\n{told}");
    let line = told.lines().find_map(|line| line.split_once("Collected :"));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind told no count:\n{told}"))
}

/// One case in a world of its own.
fn run(case: &str, rounds: u64) {
    let sim = Sim::new(SEED);
    let plan = Plan {
        journal_file_bytes: 16 << 20,
        journal_files: 4,
        memory_bytes: 1 << 30,
        ..Plan::from_seed(SEED, Faults::Crashes)
    };
    let mut broker = Broker::new(&sim);
    broker.start(&plan, CORES);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    let (case, address) = (case.to_string(), broker.address());
    sim.block_on(async move {
        let mut client = Client::new(address).await;
        for round in 0..rounds {
            client.round(&case, round as i32).await;
        }
    });
}

struct Client {
    producer: Connection,
    consumer: Connection,
    topic: Uuid,
    session: (i32, i32),
    positions: BTreeMap<i32, i64>,
    /// Whose position the broker has not been told.
    moved: Vec<i32>,
}

impl Client {
    async fn new(address: SocketAddr) -> Client {
        let mut producer = connect(address).await;
        let topics = vec![CreatableTopic {
            name: "counted".into(),
            num_partitions: PARTITIONS,
            replication_factor: 1,
            ..Default::default()
        }];
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let created = producer.call(&request, 7).await.expect("an answer").topics.remove(0);
        assert_eq!(created.error_code, 0, "the topic is created");
        let mut client = Client {
            producer,
            consumer: connect(address).await,
            topic: created.topic_id,
            session: (0, 0),
            positions: (0..PARTITIONS).map(|partition| (partition, 0)).collect(),
            moved: (0..PARTITIONS).collect(),
        };
        // So that every log is open and every position has been told.
        client.produce(0..PARTITIONS, 1, 1000).await;
        client.catch_up(0, PARTITIONS).await;
        client.fetch(0).await;
        client
    }

    async fn round(&mut self, case: &str, round: i32) {
        let some = (0..NEWS).map(|n| (round + n * PARTITIONS / NEWS) % PARTITIONS);
        match case {
            "produce-16k" => self.produce([round % PARTITIONS].into_iter(), 16, 1000).await,
            "produce-100" => self.produce(0..PARTITIONS, 1, 100).await,
            "produce-10" => self.produce(some, 1, 100).await,
            "fetch-none" => assert_eq!(self.fetch(0).await, 0, "there is nothing to fetch"),
            "fetch-news" => {
                self.produce(some, 1, 100).await;
                assert_eq!(self.fetch(500).await, NEWS, "all is there");
            }
            "fetch-wait" => {
                let id = self.send_fetch(500).await;
                self.produce(some, 1, 100).await;
                let first = self.receive_fetch(id).await;
                self.catch_up(first, NEWS).await;
            }
            other => panic!("no such case: {other}"),
        }
    }

    /// Sends one batch to each of `partitions` and awaits that they are durable.
    async fn produce(&mut self, partitions: impl Iterator<Item = i32>, records: usize, bytes: usize) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..records {
            builder.append(wall_clock_ms(), None, Some(&vec![7; bytes]), &[]).expect("the record fits");
        }
        let batch = builder.build().expect("the batch can be built");
        let data = partitions.map(|index| PartitionProduceData { index, records: Some(batch.clone()) });
        let topic =
            TopicProduceData { topic_id: self.topic, partition_data: data.collect(), ..Default::default() };
        let request =
            ProduceRequest { acks: -1, timeout_ms: 30_000, topic_data: vec![topic], ..Default::default() };
        let response = self.producer.call(&request, PRODUCE_VERSION).await.expect("an answer");
        let answers = response.responses.iter().flat_map(|topic| &topic.partition_responses);
        answers.for_each(|answer| assert_eq!(answer.error_code, 0, "produce"));
    }

    /// Fetches until `wanted` partitions have given a batch, `had` of which have already.
    async fn catch_up(&mut self, had: i32, wanted: i32) {
        let mut had = had;
        while had < wanted {
            had += self.fetch(500).await;
        }
    }

    async fn fetch(&mut self, max_wait_ms: i32) -> i32 {
        let id = self.send_fetch(max_wait_ms).await;
        self.receive_fetch(id).await
    }

    async fn send_fetch(&mut self, max_wait_ms: i32) -> i32 {
        let moved = std::mem::take(&mut self.moved);
        let partitions = moved.into_iter().map(|partition| FetchPartition {
            partition,
            current_leader_epoch: 0,
            fetch_offset: self.positions[&partition],
            partition_max_bytes: 1 << 20,
            ..Default::default()
        });
        let topic =
            FetchTopic { topic_id: self.topic, partitions: partitions.collect(), ..Default::default() };
        let (session_id, session_epoch) = self.session;
        let request = FetchRequest {
            max_wait_ms,
            min_bytes: 1,
            max_bytes: 50 << 20,
            session_id,
            session_epoch,
            topics: if topic.partitions.is_empty() { Vec::new() } else { vec![topic] },
            ..Default::default()
        };
        self.consumer.send(&request, FETCH_VERSION).await.expect("the request is sent")
    }

    /// Takes an answer; how many partitions gave a batch.
    async fn receive_fetch(&mut self, id: i32) -> i32 {
        let response: FetchResponse = self.consumer.receive(FETCH_VERSION, id).await.expect("an answer");
        assert_eq!(response.error_code, 0, "fetch");
        self.session = (response.session_id, self.session.1 + 1);
        for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
            assert_eq!(partition.error_code, 0, "fetch of {}", partition.partition_index);
            if partition.records.iter().flatten().map(Bytes::len).sum::<usize>() > 0 {
                self.positions.insert(partition.partition_index, partition.high_watermark);
                self.moved.push(partition.partition_index);
            }
        }
        self.moved.len() as i32
    }
}

async fn connect(address: SocketAddr) -> Connection {
    Connection::open(address, "counted", || false).await.expect("the broker is there")
}
