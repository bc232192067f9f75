//! kill -9 while producers with acks=all write as fast as they can: what was acknowledged must be there, in order, once.
//!
//! Half of the producers are idempotent: after a crash they send again what was under way, and all that they ever sent must be there
//! exactly once. The others do not, and what was under way may be there or not. Every record says whose it is ([`crate::record`]), producers
//! remember what they were told ([`producer`]), and a reader compares ([`verify`]).

mod producer;
mod verify;

use crate::broker::{Broker, Program, free_address};
use crate::connection::Connection;
use crate::random::Random;
use crate::record::{Pool, Target};
use anyhow::{Context, Result, anyhow, bail};
use corelog_wire::messages::create_topics_request::{CreatableTopic, CreateTopicsRequest};
use corelog_wire::messages::list_offsets_request::{ListOffsetsRequest, Partition, Topic};
use corelog_wire::{ErrorCode, Str};
use producer::{Load, Producer};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use verify::Progress;

const TOPICS: [&str; 2] = ["crash-a", "crash-b"];
const PARTITIONS_PER_TOPIC: u32 = 16;
const PRODUCERS: u32 = 6;
const READERS: usize = 2;
/// From the first acknowledgement of a round to the kill.
const LOAD_MS: (u64, u64) = (50, 1500);
/// One kill in this many is followed by another, while the broker starts.
const CUT_SHORT_ONE_IN: u64 = 4;
const CUT_SHORT_MS_MAX: u64 = 250;
const FIRST_ACKNOWLEDGEMENT_TIMEOUT: Duration = Duration::from_secs(20);
const SERVED_TIMEOUT: Duration = Duration::from_secs(60);
const MIB: f64 = (1 << 20) as f64;

pub struct Options {
    pub rounds: u32,
    pub seed: u64,
    /// Bytes to write before the first round.
    pub data: u64,
    /// No start may take longer.
    pub ready_max: Option<Duration>,
}

/// Returns whether nothing was lost and every start was quick enough. The error tells what was lost.
pub fn run(program: &Program, directory: &Path, options: &Options) -> Result<bool> {
    let Options { rounds, seed, data, .. } = *options;
    println!("crash: {rounds} rounds, seed {seed}");
    let mut suite = Suite::begin(program, directory, options)?;
    if data > 0 {
        suite.preload(data)?;
    }
    println!(
        "{:>5} {:>9} {:>11} {:>9} {:>9} {:>9} {:>9} {:>10} {:>9}",
        "round", "load ms", "acked", "MiB", "in flight", "ready ms", "served ms", "read back", "verify ms"
    );
    for round in 1..=rounds {
        suite.round(round)?;
    }
    suite.finish()?;
    Ok(!suite.late)
}

struct Suite<'a> {
    program: &'a Program,
    directory: &'a Path,
    address: SocketAddr,
    ready_max: Option<Duration>,
    random: Random,
    pool: Pool,
    topics: Vec<Str>,
    producers: Vec<Producer>,
    progress: Vec<Progress>,
    broker: Option<Broker>,
    /// A start took longer than it may.
    late: bool,
    kills: u32,
}

impl<'a> Suite<'a> {
    fn begin(program: &'a Program, directory: &'a Path, options: &Options) -> Result<Self> {
        let address = free_address()?;
        let mut suite = Suite {
            program,
            directory,
            address,
            ready_max: options.ready_max,
            random: Random::new(options.seed),
            pool: Pool::new(options.seed),
            topics: TOPICS.map(Str::from_static).into(),
            producers: Vec::new(),
            progress: Vec::new(),
            broker: None,
            late: false,
            kills: 0,
        };
        let (ready, _) = suite.start(false)?;
        println!("ready on an empty directory in {:.1} ms", millis(ready));
        let mut connection = Connection::connect(address)?;
        let topic = |name: &Str| CreatableTopic {
            name: name.clone(),
            num_partitions: PARTITIONS_PER_TOPIC as i32,
            replication_factor: 1,
            ..Default::default()
        };
        let request = CreateTopicsRequest {
            topics: suite.topics.iter().map(topic).collect(),
            timeout_ms: 30_000,
            validate_only: false,
        };
        for created in connection.call(4, &request)?.topics {
            if created.error_code != 0 {
                bail!("creating {}: {}", created.name, ErrorCode(created.error_code));
            }
        }
        suite.await_served()?;
        let partitions = suite.target().partitions();
        for id in 0..PRODUCERS {
            suite.producers.push(Producer::new(id, id % 2 == 0, partitions, &mut connection, options.seed)?);
        }
        suite.progress = vec![Progress::default(); partitions as usize];
        Ok(suite)
    }

    fn target(&self) -> Target<'_> {
        Target { topics: &self.topics, partitions_per_topic: PARTITIONS_PER_TOPIC, pool: &self.pool }
    }

    /// Starts the broker. Returns the time to its first answer, and to the first answer of all leaders.
    fn start(&mut self, has_topics: bool) -> Result<(Duration, Duration)> {
        let started = Instant::now();
        let broker = Broker::start(self.program, self.directory, self.address, &[])?;
        let ready = broker.ready;
        self.broker = Some(broker);
        if has_topics {
            self.await_served()?;
        }
        if self.ready_max.is_some_and(|most| ready > most) {
            println!("TOO LATE: ready after {:.0} ms", millis(ready));
            self.late = true;
        }
        Ok((ready, started.elapsed()))
    }

    fn await_served(&self) -> Result<()> {
        let started = Instant::now();
        let partitions = (0..PARTITIONS_PER_TOPIC as i32).map(|partition_index| Partition {
            partition_index,
            timestamp: -1,
            ..Default::default()
        });
        let partitions: Vec<_> = partitions.collect();
        let topic = |name: &Str| Topic { name: name.clone(), partitions: partitions.clone() };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: self.topics.iter().map(topic).collect(),
            ..Default::default()
        };
        let mut connection = Connection::connect(self.address)?;
        loop {
            let answer = connection.call(5, &request)?;
            let error = answer.topics.iter().flat_map(|topic| &topic.partitions).find(|p| p.error_code != 0);
            match error {
                None => return Ok(()),
                Some(error) if started.elapsed() > SERVED_TIMEOUT => {
                    bail!("leaders after {SERVED_TIMEOUT:?}: {}", ErrorCode(error.error_code))
                }
                Some(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// All producers at once, each until it has enough or the connection ends. Meanwhile, `meanwhile`.
    fn load(
        &mut self,
        load: Load,
        enough: &(dyn Fn(&Producer) -> bool + Sync),
        meanwhile: impl FnOnce(&AtomicBool, &mut Option<Broker>) -> Result<()>,
    ) -> Result<bool> {
        let acknowledged_any = AtomicBool::new(false);
        let target =
            Target { topics: &self.topics, partitions_per_topic: PARTITIONS_PER_TOPIC, pool: &self.pool };
        let (address, acknowledged_any, target) = (self.address, &acknowledged_any, &target);
        let (producers, broker) = (&mut self.producers, &mut self.broker);
        std::thread::scope(|scope| {
            let running: Vec<_> = producers
                .iter_mut()
                .map(|producer| {
                    scope.spawn(move || producer.run(address, target, load, enough, acknowledged_any))
                })
                .collect();
            let done = meanwhile(acknowledged_any, broker);
            let mut ended = false;
            for producer in running {
                ended |= producer.join().map_err(|_| anyhow!("a producer panicked"))??;
            }
            done.map(|()| ended)
        })
    }

    fn preload(&mut self, bytes: u64) -> Result<()> {
        let started = Instant::now();
        let share = bytes / u64::from(PRODUCERS);
        if self.load(Load::Bulk, &|producer| producer.acknowledged_bytes >= share, |_, _| Ok(()))? {
            bail!(
                "the broker closed a connection: {}",
                self.broker.as_ref().map_or(String::new(), Broker::log_tail)
            );
        }
        let took = started.elapsed().as_secs_f64();
        println!(
            "wrote {:.0} MiB in {took:.1} s, {:.0} MiB/s",
            bytes as f64 / MIB,
            bytes as f64 / MIB / took
        );
        Ok(())
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let before = self.acknowledged();
        let load_for = Duration::from_millis(self.random.between(LOAD_MS.0, LOAD_MS.1));
        let ended = self.load(Load::Mixed, &|_| false, |acknowledged_any, broker| {
            let started = Instant::now();
            while !acknowledged_any.load(Ordering::Relaxed) {
                if started.elapsed() > FIRST_ACKNOWLEDGEMENT_TIMEOUT {
                    bail!("nothing was acknowledged within {FIRST_ACKNOWLEDGEMENT_TIMEOUT:?}");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(load_for);
            broker.take().context("no broker runs")?.kill()
        });
        if !ended.with_context(|| format!("round {round}"))? {
            bail!("round {round}: a producer ended before the broker did");
        }
        self.kills += 1;
        let in_flight: usize = self.producers.iter().map(Producer::in_flight).sum();
        self.producers.iter_mut().for_each(Producer::give_up_in_flight);

        let mut note = "";
        if self.random.below(CUT_SHORT_ONE_IN) == 0 {
            let broker = Broker::spawn(self.program, self.directory, self.address, &[])?;
            std::thread::sleep(Duration::from_millis(self.random.below(CUT_SHORT_MS_MAX)));
            broker.kill()?;
            self.kills += 1;
            note = "killed again while it started";
        }
        let (ready, served) = self.start(true)?;
        let verify = Instant::now();
        let mut progress = std::mem::take(&mut self.progress);
        let read_before: u64 = progress.iter().map(|progress| progress.bytes).sum();
        self.verify(&mut progress).with_context(|| format!("round {round}"))?;
        let read: u64 = progress.iter().map(|progress| progress.bytes).sum();
        self.progress = progress;
        let after = self.acknowledged();
        println!(
            "{round:>5} {:>9.0} {:>11} {:>9.1} {in_flight:>9} {:>9.1} {:>9.1} {:>10.1} {:>9.0} {note}",
            millis(load_for),
            after.0 - before.0,
            (after.1 - before.1) as f64 / MIB,
            millis(ready),
            millis(served),
            (read - read_before) as f64 / MIB,
            millis(verify.elapsed()),
        );
        Ok(())
    }

    /// Records and bytes.
    fn acknowledged(&self) -> (u64, u64) {
        self.producers.iter().fold((0, 0), |sum, producer| {
            (sum.0 + producer.acknowledged_records, sum.1 + producer.acknowledged_bytes)
        })
    }

    fn verify(&self, progress: &mut [Progress]) -> Result<()> {
        let target = &self.target();
        let share = progress.len().div_ceil(READERS);
        std::thread::scope(|scope| {
            let readers: Vec<_> = progress
                .chunks_mut(share)
                .enumerate()
                .map(|(reader, part)| {
                    scope.spawn(move || {
                        let mut connection = Connection::connect(self.address)?;
                        for (i, progress) in part.iter_mut().enumerate() {
                            progress.advance(
                                &mut connection,
                                target,
                                (reader * share + i) as u32,
                                &self.producers,
                            )?;
                        }
                        Ok(())
                    })
                })
                .collect();
            readers
                .into_iter()
                .try_for_each(|reader| reader.join().map_err(|_| anyhow!("a reader panicked"))?)
        })
    }

    /// What was under way is acknowledged now; a clean stop; and all of it is read once more from the beginning.
    fn finish(&mut self) -> Result<()> {
        if self.load(Load::Mixed, &|_| true, |_, _| Ok(()))? {
            bail!("the broker closed a connection at the end");
        }
        let broker = self.broker.take().context("no broker runs")?;
        let stopping = Instant::now();
        match self.program {
            Program::Corelog { .. } => broker.stop()?,
            // A JVM that is told to stop does not exit with 0.
            Program::Kafka(_) => drop(broker.stop()),
        }
        let stopped = stopping.elapsed();
        let (ready, served) = self.start(true)?;
        let mut progress = vec![Progress::default(); self.progress.len()];
        let verify = Instant::now();
        self.verify(&mut progress).context("reading all from the beginning")?;
        for (partition, progress) in progress.iter().enumerate() {
            for producer in self.producers.iter().filter(|producer| producer.idempotent) {
                let sequence = &producer.sequences[partition];
                if sequence.acknowledged != sequence.next {
                    bail!("producer {} has records under way at the end", producer.id);
                }
            }
            if progress.next_offset < self.progress[partition].next_offset {
                bail!(
                    "partition {partition} ends at {}, before it was {}",
                    progress.next_offset,
                    self.progress[partition].next_offset
                );
            }
        }
        let (records, bytes) = self.acknowledged();
        let read: u64 = progress.iter().map(|progress| progress.bytes).sum();
        let again: u64 = self.producers.iter().map(|producer| producer.sent_again).sum();
        println!(
            "clean stop in {:.0} ms, ready again in {:.1} ms, all leaders in {:.1} ms",
            millis(stopped),
            millis(ready),
            millis(served)
        );
        println!(
            "{} kills: {records} records in {:.0} MiB acknowledged, {again} requests sent again; {:.0} MiB read from the beginning in {:.1} s: nothing lost, nothing twice, all in order",
            self.kills,
            bytes as f64 / MIB,
            read as f64 / MIB,
            verify.elapsed().as_secs_f64()
        );
        self.broker.take().map_or(Ok(()), |broker| broker.kill())
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
