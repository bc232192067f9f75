//! A consuming thread: reads its partitions to the end of what was sent, and checks every record.

use super::ledger::Ledger;
use super::producer::nanos;
use super::stage::Stage;
use crate::stats::gauge::Gauge;
use crate::stats::recorder::{Recorder, Window};
use anyhow::{Result, bail};
use corelog_client::{Client, ClientConfig, Consumer, ConsumerRecord, TopicPartition, block_on};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(100);
/// Finding where to begin may take so long.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub struct ConsumerThread {
    /// Keeps the client's thread alive.
    _client: Client,
    consumer: Consumer,
    partitions: Vec<i32>,
    patience: Duration,
    ledger: Ledger,
    recorder: Recorder,
    /// From when on it fetches: before it is polled for the first time.
    began: Instant,
    until: Option<Instant>,
    /// Whether times due mean anything: they are of this run.
    timed: bool,
}

pub struct Consumed {
    pub ledger: Ledger,
    pub recorder: Recorder,
    /// From when it began to fetch to the last record: what the first poll gives was fetched before.
    pub reading: Duration,
    /// The longest time without a record between two.
    pub pause: Duration,
    pub count: u64,
    pub bytes: u64,
}

impl ConsumerThread {
    /// Connects, and finds where its partitions begin.
    pub fn connect(stage: &Stage, partitions: Vec<i32>) -> Result<ConsumerThread> {
        let (plan, topic) = (&stage.plan, stage.topic.as_str());
        let mut config = ClientConfig::new(&plan.bootstrap);
        config.client_id = "corebench-consume".to_owned();
        let client = block_on(Client::connect(config))?;
        let consumer = client.consumer(plan.consumer_config())?;
        let all: Vec<TopicPartition> = partitions.iter().map(|at| TopicPartition::new(topic, *at)).collect();
        let began = Instant::now();
        consumer.assign(all.clone())?;
        if let Some(starts) = stage.starts() {
            all.iter().try_for_each(|at| consumer.seek(at, starts[at.partition as usize]))?;
        }
        for at in &all {
            while consumer.position(at)?.is_none() {
                if began.elapsed() > START_TIMEOUT {
                    bail!("the broker did not say within {START_TIMEOUT:?} where {at} begins");
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(ConsumerThread {
            _client: client,
            consumer,
            partitions,
            patience: plan.patience,
            ledger: stage.blank_ledger(),
            began,
            recorder: Recorder::new(stage.window.clone()),
            until: None,
            timed: true,
        })
    }

    pub fn gauge(&self) -> Arc<Gauge> {
        self.recorder.gauge()
    }

    /// Stops then, whatever there is left.
    pub fn until(self, until: Instant) -> ConsumerThread {
        ConsumerThread { until: Some(until), ..self }
    }

    /// Records were written before, and it takes as long as it takes.
    pub fn untimed(self) -> ConsumerThread {
        ConsumerThread { timed: false, recorder: Recorder::new(Arc::new(Window::open())), ..self }
    }

    /// Records may be anybody's.
    pub fn of_strangers(self) -> ConsumerThread {
        let partitions = self.ledger.partitions();
        ConsumerThread { ledger: Ledger::of_strangers(partitions), ..self }
    }

    /// Reads until it has as many records as were `sent` to its partitions, which is known once producing is over.
    pub fn run(mut self, origin: Instant, sent: Arc<OnceLock<Vec<u64>>>) -> Result<Consumed> {
        let (mut count, mut bytes) = (0, 0);
        let mut pause = Duration::ZERO;
        let mut last = Instant::now();
        let mut due: Option<u64> = None;
        let mut is_dry = false;
        loop {
            if due.is_none() {
                due = sent.get().map(|sent| self.partitions.iter().map(|at| sent[*at as usize]).sum());
            }
            // One may have more than it should; strangers may go on writing.
            let may_end = is_dry || !self.ledger.is_of_run();
            if due.is_some_and(|due| may_end && count >= due || last.elapsed() > self.patience)
                || self.until.is_some_and(|until| Instant::now() >= until)
            {
                break;
            }
            let records = block_on(self.consumer.poll(POLL))?;
            is_dry = records.is_empty();
            if records.is_empty() {
                if due.is_none() {
                    last = Instant::now();
                }
                continue;
            }
            let now = Instant::now();
            if count > 0 {
                pause = pause.max(now - last);
            }
            last = now;
            count += records.len() as u64;
            bytes += self.take(origin, &records);
        }
        let reading = if count > 0 { last - self.began } else { Duration::ZERO };
        Ok(Consumed { ledger: self.ledger, recorder: self.recorder, reading, pause, count, bytes })
    }

    fn take(&mut self, origin: Instant, records: &[ConsumerRecord]) -> u64 {
        let now = nanos(origin);
        let mut bytes = 0;
        for record in records {
            bytes += record.size() as u64;
            let value = record.value.as_deref();
            if let Some(stamp) =
                self.ledger.read(record.partition, record.offset, record.key.as_deref(), value)
                && self.timed
            {
                self.recorder.latency(stamp.due, now);
            }
        }
        self.recorder.volume(now, records.len() as u64, bytes);
        bytes
    }
}
