//! `Stage`: a topic on a broker, and all that is done with it: filled, measured, read to its end, checked.

use super::consumer::{Consumed, ConsumerThread};
use super::ledger::{Ledger, Verdict, key_name};
use super::plan::{Pace, Plan};
use super::probe;
use super::producer::{Produced, ProducerThread};
use crate::progress::Progress;
use crate::report::ReadBack;
use crate::stats::gauge::Reading;
use crate::stats::recorder::Window;
use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use corelog_client::{
    Client, ClientConfig, ErrorCode, Isolation, NewTopic, OffsetSpec, TopicPartition, block_on,
};
use corelog_conformance::random::Random;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub struct Stage {
    pub plan: Arc<Plan>,
    pub topic: String,
    /// Told by every record.
    pub run: u32,
    client: Client,
    keys: Arc<[Bytes]>,
    /// Of the one run on it.
    pub window: Arc<Window>,
    /// When it was asked for.
    asked: Instant,
    /// Where the records begin that count, behind those that asked whether partitions serve.
    starts: OnceLock<Vec<i64>>,
}

impl Stage {
    /// Makes a topic.
    pub fn create(name: &str, plan: &Plan) -> Result<Stage> {
        plan.check()?;
        let run = Random::fresh_seed() as u32;
        let topic = format!("corebench-{name}-{run:08x}");
        let stage = Stage::open(&topic, run, plan)?;
        let new = NewTopic::new(&topic).partitions(plan.partitions as i32);
        let new = plan.topic_configs.iter().fold(new, |new, (name, value)| new.config(name, value));
        block_on(stage.client.admin().create_topic(new))?;
        Ok(stage)
    }

    fn open(topic: &str, run: u32, plan: &Plan) -> Result<Stage> {
        Ok(Stage {
            plan: Arc::new(plan.clone()),
            topic: topic.to_owned(),
            run,
            client: block_on(Client::connect(ClientConfig::new(&plan.bootstrap)))?,
            keys: (0..plan.keys).map(|key| Bytes::from(key_name(key))).collect(),
            window: Arc::new(Window::undecided(plan.measured)),
            asked: Instant::now(),
            starts: OnceLock::new(),
        })
    }

    /// A topic that is there already, with as many partitions as it has. Returns how many records it has in each.
    pub fn existing(topic: &str, plan: &Plan) -> Result<(Stage, Vec<u64>)> {
        let mut stage = Stage::open(topic, 0, plan)?;
        let admin = stage.client.admin();
        let partitions = block_on(admin.describe_topic(topic))?.partitions.len();
        stage.plan = Arc::new(Plan { partitions, ..plan.clone() });
        stage.plan.check()?;
        let counts = stage.counts()?;
        Ok((stage, counts))
    }

    /// Waits until every partition takes a record and gives it. Returns how long that took since the topic was asked for.
    pub fn serve(&self) -> Result<Duration> {
        if let Some(starts) = probe::all(self).context("waiting until all partitions serve")? {
            let _ = self.starts.set(starts);
        }
        Ok(self.asked.elapsed())
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Where partitions' records begin, if that is known.
    pub fn starts(&self) -> Option<&[i64]> {
        self.starts.get().map(Vec::as_slice)
    }

    /// How many records the broker says that there are in each partition.
    pub fn counts(&self) -> Result<Vec<u64>> {
        let list = |spec| {
            let partition = |at| (TopicPartition::new(self.topic.as_str(), at as i32), spec);
            let all = (0..self.plan.partitions).map(partition).collect();
            let listed = block_on(self.client.admin().list_offsets(all, Isolation::ReadUncommitted));
            listed
                .into_iter()
                .map(|(_, offset)| Ok(offset?.offset.unwrap_or(0)))
                .collect::<Result<Vec<i64>>>()
        };
        let ends = list(OffsetSpec::Latest)?;
        let starts = match self.starts() {
            Some(starts) => starts.to_vec(),
            None => list(OffsetSpec::Earliest)?,
        };
        Ok(starts.iter().zip(&ends).map(|(start, end)| (end - start).max(0) as u64).collect())
    }

    /// What to say if it is not good: records that were not read may be there all the same.
    pub fn explain(&self, verdict: &Verdict) -> Option<String> {
        let problem = verdict.problem()?;
        Some(match self.counts() {
            Ok(counts) if verdict.lost > 0 => {
                let there: u64 = counts.iter().sum();
                let patience = self.plan.patience;
                format!(
                    "{problem}; the broker says that there are {there} records, and for {patience:?} gave no more of them"
                )
            }
            _ => problem,
        })
    }

    pub fn delete(&self) -> Result<()> {
        for (_, outcome) in block_on(self.client.admin().delete_topics(&[&self.topic]))? {
            match outcome {
                // A first try that took too long has done it.
                Err(error) if error.code() == Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION) => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }

    /// Producing threads, which send so many bytes, or as long as the plan says.
    pub fn producers(&self, bytes: Option<u64>) -> Result<Vec<ProducerThread>> {
        let shares = shares(self.plan.producers, self.plan.producer_threads);
        let limit = bytes.map(|bytes| bytes.div_ceil(shares.len() as u64));
        let connect = |(index, lanes)| ProducerThread::connect(self, index, lanes, self.keys.clone(), limit);
        shares.into_iter().enumerate().map(connect).collect()
    }

    /// A group. Its consumers fetch ahead from now on.
    pub fn consumers(&self, count: usize) -> Result<Vec<ConsumerThread>> {
        self.dealt(count).into_iter().map(|partitions| ConsumerThread::connect(self, partitions)).collect()
    }

    /// Partitions dealt to so many consumers in turn.
    pub fn dealt(&self, count: usize) -> Vec<Vec<i32>> {
        let to = |at: usize| (at..self.plan.partitions).step_by(count).map(|at| at as i32).collect();
        (0..count).map(to).collect()
    }

    /// Writes so many bytes as fast as they are taken. Returns what was acknowledged.
    pub fn fill(&self, bytes: u64, progress: &Progress) -> Result<Ledger> {
        let plan = Plan { pace: Pace::Saturate, ..(*self.plan).clone() };
        let filling = Stage {
            plan: Arc::new(plan),
            topic: self.topic.clone(),
            run: self.run,
            client: self.client.clone(),
            keys: self.keys.clone(),
            window: Arc::new(Window::open()),
            asked: self.asked,
            starts: OnceLock::new(),
        };
        let origin = Instant::now();
        let producers = filling.producers(Some(bytes))?;
        let gauges: Vec<_> = producers.iter().map(ProducerThread::gauge).collect();
        let producing = spawn("fill", producers, move |thread| thread.run(origin))?;
        while producing.iter().any(|thread| !thread.is_finished()) {
            let done = Reading::of(&gauges).bytes;
            progress.say(&format!("filling: {} of {} MB", done / 1_000_000, bytes / 1_000_000));
            thread::sleep(Duration::from_millis(200));
        }
        let produced = join(producing)?;
        if let Some(error) = produced.iter().find_map(|one| one.first_error.as_ref()) {
            bail!("filling the topic failed: {error}");
        }
        Ok(self.ledger(&produced))
    }

    /// With nothing in it.
    pub fn blank_ledger(&self) -> Ledger {
        let plan = &*self.plan;
        Ledger::new(self.run, plan.producers, plan.partitions)
            .with_markers(plan.transaction_every.is_some())
            .with_keys(plan.keys)
            .starting_at(self.starts())
    }

    /// What all producers together had acknowledged.
    pub fn ledger(&self, produced: &[Produced]) -> Ledger {
        let mut ledger = self.blank_ledger();
        produced.iter().for_each(|one| ledger.merge(&one.ledger));
        ledger
    }

    /// Reads everything with so many consumers.
    pub fn read(&self, sent: &Ledger, consumers: usize) -> Result<(Verdict, ReadBack)> {
        let origin = Instant::now();
        let counts = Arc::new(OnceLock::from(sent.by_partition()));
        let readers = self.consumers(consumers)?;
        let reading = spawn("consume", readers, move |thread| thread.run(origin, counts.clone()))?;
        let read = join(reading)?;
        let bytes = read.iter().map(|one| one.bytes).sum();
        let seconds = read.iter().map(|one| one.reading.as_secs_f64()).fold(0.0, f64::max);
        let pause_s = read.iter().map(|one| one.pause.as_secs_f64()).fold(0.0, f64::max);
        Ok((self.check(sent, &read, 1), ReadBack { bytes, seconds, pause_s }))
    }

    /// Every group must have read everything.
    pub fn check(&self, sent: &Ledger, consumed: &[Consumed], groups: usize) -> Verdict {
        let per_group = consumed.len() / groups;
        let verdicts = consumed.chunks(per_group.max(1)).map(|group| {
            let mut read = self.blank_ledger();
            group.iter().for_each(|one| read.merge(&one.ledger));
            sent.verdict(&read)
        });
        verdicts.reduce(Verdict::merge).unwrap_or_default()
    }

    /// Consumers that only read what was written before.
    pub fn readers(&self) -> usize {
        thread::available_parallelism().map_or(1, |cpus| cpus.get() / 2).clamp(1, self.plan.partitions)
    }
}

/// First and count of each thread's producers.
fn shares(all: usize, threads: usize) -> Vec<(usize, usize)> {
    let threads = threads.min(all).max(1);
    let first = |thread| all * thread / threads;
    (0..threads).map(|thread| (first(thread), first(thread + 1) - first(thread))).collect()
}

pub fn spawn<T: Send + 'static, R: Send + 'static>(
    name: &str,
    threads: Vec<T>,
    run: impl Fn(T) -> Result<R> + Clone + Send + 'static,
) -> Result<Vec<JoinHandle<Result<R>>>> {
    let start = |(index, thread): (usize, T)| {
        let run = run.clone();
        thread::Builder::new().name(format!("{name}-{index}")).spawn(move || run(thread))
    };
    threads.into_iter().enumerate().map(start).collect::<std::io::Result<_>>().context("no thread to be had")
}

pub fn join<R>(threads: Vec<JoinHandle<Result<R>>>) -> Result<Vec<R>> {
    let join = |thread: JoinHandle<Result<R>>| thread.join().map_err(|_| anyhow!("a thread panicked"))?;
    threads.into_iter().map(join).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_producer_is_on_one_thread() {
        for (all, threads) in [(1, 1), (50, 1), (50, 2), (50, 3), (2, 8)] {
            let mut next = 0;
            for (first, count) in shares(all, threads) {
                assert_eq!(first, next);
                assert!(count > 0);
                next += count;
            }
            assert_eq!(next, all);
        }
    }
}
