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
#[path = "instructions/commits.rs"]
mod commits;
#[allow(dead_code)]
#[path = "../tests/simulation/connection.rs"]
mod connection;
#[path = "instructions/crowd.rs"]
mod crowd;
#[allow(dead_code)]
#[path = "../tests/simulation/plan.rs"]
mod plan;
#[allow(dead_code)]
#[path = "../tests/simulation/tailer.rs"]
mod tailer;

use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};

use corelog_io::sim::{Sim, SimConfig};

use broker::{Broker, Start};
use connection::Connection;
use plan::{Faults, Plan};
use tailer::Tailer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A case and what one of its rounds may cost: what it did cost when this was last written down.
struct Case {
    name: &'static str,
    what: &'static str,
    instructions: u64,
}

const CASES: &[Case] = &[
    Case { name: "produce-16k", what: "Produce: one batch of 16 records of 1 KB", instructions: 70_296 },
    Case {
        name: "produce-100",
        what: "Produce: 100 batches of one record, 100 partitions",
        instructions: 516_791,
    },
    Case {
        name: "fetch-news",
        what: "Fetch: a session of 100 partitions, 10 have a batch",
        instructions: 69_295,
    },
    Case {
        name: "fetch-none",
        what: "Fetch: a session of 100 partitions, none has news",
        instructions: 23_171,
    },
    Case {
        name: "fetch-wait",
        what: "Fetch: the same session waits, then 10 have a batch",
        instructions: 80_965,
    },
    Case { name: "commit-10", what: "OffsetCommit: 10 partitions that have offsets", instructions: 106_129 },
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
const WAIT_MS: i32 = 500;
/// The argument in place of a case that has all cases of [`crowd`] run.
const CROWD: &str = "crowd";
/// What callgrind counts: the polls of simulated processes' tasks.
const COUNTED: &str = "*sim::scheduler::poll_process*";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        [CROWD, sessions] => {
            let sessions = sessions.parse().expect("a number of sessions");
            in_world(8 << 30, move |address| crowd::run(address, sessions));
            ExitCode::SUCCESS
        }
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
    let alone = CASES.iter().map(|case| (case, per_round(case.name)));
    let in_crowd = crowd::CASES.iter().zip(crowds_per_round());
    let mut changed = Vec::new();
    for (case, per_round) in alone.chain(in_crowd) {
        let off = (per_round as f64 / case.instructions as f64 - 1.0) * 100.0;
        println!("{:13} {per_round:>9} instructions ({off:+5.1} %)  {}", case.name, case.what);
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

fn counting(case: &str, rounds: u64) -> Child {
    callgrind(&["--callgrind-out-file=/dev/null"], &[case, &rounds.to_string()])
}

/// Runs this program, its tasks counted.
fn callgrind(options: &[&str], args: &[&str]) -> Child {
    let own = std::env::current_exe().expect("this program has a path");
    Command::new("valgrind")
        .args(["--tool=callgrind", &format!("--toggle-collect={COUNTED}")])
        .args(options)
        .arg(own)
        .args(args)
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind runs")
}

/// What a round of each of the crowds' cases costs.
fn crowds_per_round() -> Vec<u64> {
    let folder = std::env::temp_dir().join(format!("corelog-instructions-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("there is room for callgrind's files");
    let file = |sessions: usize| folder.join(sessions.to_string()).display().to_string();
    let runs = crowd::SIZES.map(|sessions| {
        let out = format!("--callgrind-out-file={}", file(sessions));
        let dump = format!("--dump-after={}", crowd::COUNT_ENDS);
        callgrind(&[&out, &dump], &[CROWD, &sessions.to_string()])
    });
    for run in runs {
        counted(run);
    }
    let of_size = |sessions| crowd::per_round(|count| format!("{}.{count}", file(sessions)).into());
    let per_round = crowd::SIZES.into_iter().flat_map(of_size).collect();
    std::fs::remove_dir_all(&folder).expect("callgrind's files can be removed");
    per_round
}

/// The count that callgrind tells in the end: `==pid== Collected : 12345`.
fn counted(child: Child) -> u64 {
    let output = child.wait_with_output().expect("valgrind ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "valgrind failed:\n{told}");
    let line = told.lines().find_map(|line| line.split_once("Collected :"));
    let count = line.and_then(|(_, count)| count.trim().parse().ok());
    count.unwrap_or_else(|| panic!("callgrind told no count:\n{told}"))
}

/// One case in a world of its own.
fn run(case: &str, rounds: u64) {
    let case = case.to_string();
    in_world(1 << 30, async move |address| {
        let mut client = Client::new(address).await;
        if case == "commit-10" {
            commits::begin(&mut client.producer, 0..PARTITIONS).await;
        }
        for round in 0..rounds {
            client.round(&case, round as i32).await;
        }
    });
}

/// A broker with so much memory, and what its clients do.
fn in_world<F: Future<Output = ()> + 'static>(memory_bytes: u64, clients: impl FnOnce(SocketAddr) -> F) {
    // Giving way by chance is the simulation's: on real cores a task does when its turn is over.
    let sim = Sim::with_config(SEED, SimConfig { yield_one_in: 0, ..SimConfig::default() });
    let plan = Plan {
        journal_file_bytes: 16 << 20,
        journal_files: 4,
        memory_bytes,
        fetch_sessions_max: 2_000,
        // As by default: snapshots are not what is counted here.
        metadata_bytes: 20 << 20,
        ..Plan::from_seed(SEED, Faults::Crashes)
    };
    let mut broker = Broker::new(&sim);
    broker.start(&plan, CORES);
    assert_eq!(broker.await_ready(&sim), Start::Ready);
    sim.block_on(clients(broker.address()));
}

struct Client {
    producer: Connection,
    tailer: Tailer,
}

impl Client {
    async fn new(address: SocketAddr) -> Client {
        let mut producer = tailer::connect(address).await;
        let topic = tailer::create_topic(&mut producer, PARTITIONS).await;
        let tailer = Tailer::new(tailer::connect(address).await, topic, PARTITIONS);
        let mut client = Client { producer, tailer };
        // So that every log is open and every position has been told.
        client.produce(0..PARTITIONS, 1, 1000).await;
        client.catch_up(0, PARTITIONS).await;
        client.tailer.fetch(0).await;
        client
    }

    async fn round(&mut self, case: &str, round: i32) {
        let some = (0..NEWS).map(|n| (round + n * PARTITIONS / NEWS) % PARTITIONS);
        match case {
            "produce-16k" => self.produce([round % PARTITIONS].into_iter(), 16, 1000).await,
            "produce-100" => self.produce(0..PARTITIONS, 1, 100).await,
            "produce-10" => self.produce(some, 1, 100).await,
            "commit-10" => commits::commit(&mut self.producer, some, round).await,
            "fetch-none" => assert!(self.tailer.fetch(0).await.is_empty(), "there is nothing to fetch"),
            "fetch-news" => {
                self.produce(some, 1, 100).await;
                assert_eq!(self.tailer.fetch(WAIT_MS).await.len(), NEWS as usize, "all is there");
            }
            "fetch-wait" => {
                let id = self.tailer.send(WAIT_MS).await;
                self.produce(some, 1, 100).await;
                let first = self.tailer.receive(id).await.len();
                self.catch_up(first as i32, NEWS).await;
            }
            other => panic!("no such case: {other}"),
        }
    }

    async fn produce(&mut self, partitions: impl Iterator<Item = i32>, records: usize, bytes: usize) {
        tailer::produce(&mut self.producer, self.tailer.topic, partitions, records, bytes).await;
    }

    /// Fetches until `wanted` partitions have given a batch, `had` of which have already.
    async fn catch_up(&mut self, had: i32, wanted: i32) {
        let mut had = had;
        while had < wanted {
            had += self.tailer.fetch(WAIT_MS).await.len() as i32;
        }
    }
}
