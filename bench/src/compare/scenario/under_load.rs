//! Producing as fast as it goes until the broker is killed in the middle of it, and what was acknowledged by then.

use crate::load::plan::Plan;
use crate::load::stage::{join, spawn};
use anyhow::{Context, Result, bail};
use corelog_client::{Client, ClientConfig, Delivery, Producer, ProducerRecord, TrySendError, block_on};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const ROOM_WAIT: Duration = Duration::from_millis(1);
/// Looked at for their outcomes after so many records.
const BURST: usize = 128;

pub struct UnderLoad {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Result<Vec<i64>>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    bytes: AtomicU64,
}

/// What a broker that is started again must have.
pub struct Acknowledged {
    /// By partition, the offset behind the last record; 0 where there is none.
    pub ends: Vec<i64>,
    pub bytes: u64,
}

impl UnderLoad {
    /// Producing to the topic as the plan says, from now on.
    pub fn start(topic: &str, plan: &Plan) -> Result<UnderLoad> {
        let shared = Arc::new(Shared::default());
        let connect = |at: usize| -> Result<Loader> {
            let mut config = ClientConfig::new(&plan.bootstrap);
            config.client_id = format!("corebench-under-load-{at}");
            let client = block_on(Client::connect(config))?;
            let producer = client.producer(plan.producer_config(&format!("{topic}-under-load-{at}")))?;
            let partitions = block_on(producer.prepare(topic))?;
            let record = ProducerRecord::to(topic).value(vec![at as u8 + 1; plan.sizes.largest()]);
            let ends = vec![0; partitions];
            Ok(Loader {
                _client: client,
                producer,
                record,
                waiting: VecDeque::new(),
                ends,
                shared: shared.clone(),
            })
        };
        let loaders = (0..plan.producers).map(connect).collect::<Result<Vec<Loader>>>()?;
        Ok(UnderLoad { shared: shared.clone(), threads: spawn("under-load", loaders, Loader::run)? })
    }

    /// Bytes acknowledged so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// After the broker was killed: what it had acknowledged. What was under way may be there or not.
    pub fn over(self) -> Result<Acknowledged> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let all = join(self.threads)?;
        let greater =
            |all: Vec<i64>, one: Vec<i64>| all.into_iter().zip(one).map(|(all, one)| all.max(one)).collect();
        let ends = all.into_iter().reduce(greater).context("nobody produced")?;
        Ok(Acknowledged { ends, bytes: self.shared.bytes.load(Ordering::Relaxed) })
    }
}

struct Loader {
    /// Keeps the client's thread alive.
    _client: Client,
    producer: Producer,
    record: ProducerRecord,
    waiting: VecDeque<Delivery>,
    ends: Vec<i64>,
    shared: Arc<Shared>,
}

impl Loader {
    fn run(mut self) -> Result<Vec<i64>> {
        loop {
            while let Some(mut first) = self.waiting.pop_front() {
                if !self.look_at(&mut first)? {
                    self.waiting.push_front(first);
                    break;
                }
            }
            if self.shared.is_over.load(Ordering::Relaxed) {
                break;
            }
            for _ in 0..BURST {
                match self.producer.try_send(self.record.clone()) {
                    Ok(delivery) => self.waiting.push_back(delivery),
                    Err(TrySendError::NoRoom(_)) => {
                        thread::sleep(ROOM_WAIT);
                        break;
                    }
                    Err(TrySendError::NotPrepared(record)) => {
                        block_on(self.producer.prepare(&record.topic))?;
                    }
                    Err(TrySendError::Failed(_, error)) => return Err(error.into()),
                }
            }
        }
        // Later ones of other partitions may have been acknowledged.
        for mut delivery in std::mem::take(&mut self.waiting) {
            self.look_at(&mut delivery)?;
        }
        Ok(self.ends)
    }

    /// Whether it has an outcome.
    fn look_at(&mut self, delivery: &mut Delivery) -> Result<bool> {
        match Pin::new(delivery).poll(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(written)) => {
                let end = &mut self.ends[written.partition.partition as usize];
                *end = (*end).max(written.offset.unwrap_or(-1) + 1);
                let bytes = self.record.value.as_ref().map_or(0, |value| value.len());
                self.shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(true)
            }
            // A broker that is killed leaves errors behind.
            Poll::Ready(Err(_)) if self.shared.is_over.load(Ordering::Relaxed) => Ok(true),
            Poll::Ready(Err(error)) => bail!("a record was not written before the kill: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::load::stage::Stage;

    #[test]
    fn what_was_acknowledged_is_there() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let plan = Plan { partitions: 5, producers: 2, ..Plan::new(&endpoint.address.to_string()) };
        let stage = Stage::create("under-load", &plan).unwrap();
        let load = UnderLoad::start(&stage.topic, &plan).unwrap();
        while load.bytes() < 4 << 20 {
            thread::sleep(Duration::from_millis(1));
        }
        let acknowledged = load.over().unwrap();
        let counts = stage.counts().unwrap();
        let told: u64 = acknowledged.ends.iter().map(|end| *end as u64).sum();
        // Of two producers the later one tells a partition's end.
        assert!(told > 0 && acknowledged.bytes >= 4 << 20, "{told}");
        for (end, count) in acknowledged.ends.iter().zip(&counts) {
            assert!(*end as u64 <= *count, "{:?} {counts:?}", acknowledged.ends);
        }
        assert!(told * 1000 >= acknowledged.bytes, "{told}");
    }
}
