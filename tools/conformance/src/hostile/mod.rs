//! Clients that send what no client should, or take what they never give back: the broker lives, its memory stays within a bound, and
//! a producer and a consumer who do nothing wrong are served throughout.

mod crowd;
mod frames;
mod honest;

use crate::broker::{Broker, Program, free_address};
use crate::connection::Connection;
use anyhow::{Context, Result, anyhow, bail};
use corelog_wire::ErrorCode;
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use corelog_wire::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use corelog_wire::records::{BatchBuilder, BatchOptions};
use honest::{PARTITIONS, Watch};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// What the broker is given.
const MEMORY: &str = "512MiB";
/// The most that it may ever hold: its budget, and what its program, stacks and rings take.
const RSS_MAX: u64 = (512 + 192) << 20;
/// The honest two may wait no longer for an answer, however many others there are.
const WAIT_MS_MAX: u32 = 3000;
const HALF_OPEN: usize = 2000;
const IDLE: usize = 10_000;
const SLOW_READERS: usize = 200;
const SLOW_SENDERS: usize = 300;
const RANDOM_THREADS: u64 = 3;
/// Of records that slow readers ask for.
const BULK_BYTES: usize = 96 << 20;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// After all have hung up, the broker must have let go of their descriptors by then.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(10);
const MIB: f64 = (1 << 20) as f64;

pub struct Options {
    pub seed: u64,
    /// Of each phase that lasts as long as one likes.
    pub phase: Duration,
}

/// Returns whether all bounds held.
pub fn run(binary: &Path, directory: &Path, options: &Options) -> Result<bool> {
    let files = raise_open_files()?;
    let needed = (HALF_OPEN + IDLE + SLOW_READERS + SLOW_SENDERS + 500) as u64;
    if files < needed {
        bail!("{needed} open files are needed, and the limit is {files}: raise it with ulimit -Hn");
    }
    println!(
        "hostile: seed {}, bound of memory {:.0} MiB with --memory {MEMORY}",
        options.seed,
        RSS_MAX as f64 / MIB
    );
    let program =
        Program::Corelog { binary: binary.to_owned(), flags: vec!["--memory".into(), MEMORY.into()] };
    let broker = Broker::start(&program, directory, free_address()?, &[])?;
    create_topics(broker.address)?;
    fill(broker.address)?;
    let watch = Watch::default();
    let rss_max = AtomicU32::new(0);
    let outcome = std::thread::scope(|scope| {
        let producer = scope.spawn(|| honest::produce(broker.address, &watch));
        let consumer = scope.spawn(|| honest::consume(broker.address, &watch));
        let sampler = scope.spawn(|| sample(&broker, &watch, &rss_max));
        let mut report = Report { broker: &broker, watch: &watch, rss_max: &rss_max, held: true };
        let phases = phases(&mut report, options);
        watch.done.store(true, Ordering::Relaxed);
        let joined = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().map_err(|_| anyhow!("a thread panicked"))?
        };
        let held = report.held;
        // What the honest ones met tells more than what became of the hostile ones.
        joined(producer)?;
        joined(consumer)?;
        joined(sampler)?;
        phases.map(|()| held)
    });
    let held = match outcome {
        Ok(held) => held,
        Err(e) => return Err(e.context(format!("the broker's log ends with:\n{}", broker.log_tail()))),
    };
    let (produced, consumed) = (watch.produced.into_inner(), watch.consumed.into_inner());
    println!("honest: {produced} records produced, {consumed} consumed, each once and in order");
    broker.stop()?;
    Ok(held && produced == consumed)
}

/// One line per phase.
struct Report<'a> {
    broker: &'a Broker,
    watch: &'a Watch,
    rss_max: &'a AtomicU32,
    held: bool,
}

impl Report<'_> {
    fn phase(&mut self, name: &str, run: impl FnOnce() -> Result<String>) -> Result<()> {
        let started = Instant::now();
        self.watch.take();
        self.rss_max.store(0, Ordering::Relaxed);
        let what = run().context(name.to_owned())?;
        let rss = u64::from(self.rss_max.load(Ordering::Relaxed)) << 10;
        let service = self.watch.take();
        println!(
            "{name:<16} {:>5.1} s  RSS max {:>5.0} MiB  honest: produce max {:>7.1} ms, lag max {:>5} ms  {what}",
            started.elapsed().as_secs_f64(),
            rss as f64 / MIB,
            service.produce_ms_max,
            service.lag_ms_max,
        );
        if rss > RSS_MAX {
            println!("TOO MUCH MEMORY: {:.0} MiB of {:.0}", rss as f64 / MIB, RSS_MAX as f64 / MIB);
            self.held = false;
        }
        if service.lag_ms_max > WAIT_MS_MAX || service.produce_ms_max > f64::from(WAIT_MS_MAX) {
            println!("TOO SLOW: honest clients may wait {WAIT_MS_MAX} ms");
            self.held = false;
        }
        Ok(())
    }
}

fn phases(report: &mut Report, options: &Options) -> Result<()> {
    let broker = report.broker;
    let address = broker.address;
    let before = descriptors(broker)?;
    let phase = options.phase;
    report.phase("nobody else", || {
        std::thread::sleep(phase / 2);
        Ok(String::new())
    })?;
    report.phase("random frames", || {
        let until = Instant::now() + phase * 2;
        let sent = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..RANDOM_THREADS)
                .map(|thread| {
                    scope.spawn(move || frames::random(address, options.seed ^ thread << 40, until))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect::<Vec<_>>()
        });
        let frames: u64 = sent.iter().map(|sent| sent.frames).sum();
        let connections: u64 = sent.iter().map(|sent| sent.connections).sum();
        Ok(format!("{frames} frames on {connections} connections"))
    })?;
    report.phase("impossible", || {
        let frames = frames::impossible();
        let sent = frames::send_each(address, &frames);
        Ok(format!("{} lengths and arrays that cannot be", sent.frames))
    })?;
    let mut held = Vec::new();
    report.phase("half open", || {
        held = crowd::open(address, HALF_OPEN, &crowd::half_open_frame())?;
        std::thread::sleep(phase);
        Ok(format!("{HALF_OPEN} announce {} MiB and send 10 bytes", crowd::ANNOUNCED >> 20))
    })?;
    let mut idle = Vec::new();
    report.phase("idle", || {
        idle = crowd::open(address, IDLE, &[])?;
        std::thread::sleep(phase);
        Ok(format!("{IDLE} more say nothing"))
    })?;
    report.phase("slow readers", || {
        let mut readers = crowd::open(address, SLOW_READERS, &crowd::greedy_fetches()?)?;
        crowd::sip(&mut readers, Instant::now() + phase * 2);
        Ok(format!("{SLOW_READERS} more ask for {} MiB many times, and take 2 kB/s", BULK_BYTES >> 20))
    })?;
    report.phase("slow senders", || {
        let mut senders = crowd::open(address, SLOW_SENDERS, &[])?;
        let open = crowd::drip(&mut senders, Instant::now() + phase);
        Ok(format!("{SLOW_SENDERS} more send a byte in 50 ms; {open} still may"))
    })?;
    drop((held, idle));
    report.phase("all gone", || {
        let started = Instant::now();
        loop {
            let now = descriptors(broker)?;
            if now <= before + 16 {
                return Ok(format!("{now} descriptors, {before} before"));
            }
            if started.elapsed() > LET_GO_TIMEOUT {
                bail!("{now} descriptors are open {LET_GO_TIMEOUT:?} after all have hung up, {before} were before");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

fn descriptors(broker: &Broker) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", broker.pid())).context("is the broker gone?")?.count())
}

fn sample(broker: &Broker, watch: &Watch, rss_max: &AtomicU32) -> Result<()> {
    while !watch.done.load(Ordering::Relaxed) {
        let kib = broker.memory("VmRSS")? >> 10;
        rss_max.fetch_max(kib as u32, Ordering::Relaxed);
        std::thread::sleep(SAMPLE_INTERVAL);
    }
    Ok(())
}

fn create_topics(address: SocketAddr) -> Result<()> {
    let topic = |name: &str| CreatableTopic {
        name: name.into(),
        num_partitions: PARTITIONS,
        replication_factor: 1,
        ..Default::default()
    };
    let topics = vec![topic(honest::TOPIC), topic(crowd::BULK_TOPIC)];
    let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false };
    for created in Connection::connect(address)?.call(4, &request)?.topics {
        if created.error_code != 0 {
            bail!("creating {}: {}", created.name, ErrorCode(created.error_code));
        }
    }
    Ok(())
}

fn fill(address: SocketAddr) -> Result<()> {
    let mut connection = Connection::connect(address)?;
    let value = vec![b'b'; 900_000];
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(crate::clock::now_ms(), None, Some(&value), &[])?;
    let records = builder.build()?;
    for i in 0..BULK_BYTES / records.len() {
        let data = PartitionProduceData { index: i as i32 % PARTITIONS, records: Some(records.clone()) };
        let topic = TopicProduceData {
            name: crowd::BULK_TOPIC.into(),
            partition_data: vec![data],
            ..Default::default()
        };
        let request =
            ProduceRequest { transactional_id: None, acks: -1, timeout_ms: 10_000, topic_data: vec![topic] };
        let answer = connection.call(9, &request)?;
        let error = answer.responses[0].partition_responses[0].error_code;
        if error != 0 {
            bail!("filling {}: {}", crowd::BULK_TOPIC, ErrorCode(error));
        }
    }
    Ok(())
}

/// Raises the limit of open files as far as it goes, for this process and the brokers that it starts; returns it.
fn raise_open_files() -> Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls are given a whole rlimit of this frame.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if !done {
        bail!("raising the limit of open files: {}", std::io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}
