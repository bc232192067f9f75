//! From exec to ready: empty; with many partitions and much data after a clean stop; and after kill -9 while it was written to.
//!
//! A broker is ready when it answers. It is there when every partition tells its end, and serves when each has given its last record.

use super::partitions::MANY;
use super::recovery::{Before, Found};
use super::under_load::UnderLoad;
use super::{Figure, Options, Outcome, Running, Subjects, circumstance, less, plan_for};
use crate::load::plan::Plan;
use crate::load::stage::Stage;
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use corelog_client::{Client, ClientConfig, Isolation, OffsetSpec, TopicPartition, block_on};
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

/// Longer than the longest start that was seen.
const SERVES_TIMEOUT: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(100);

pub fn turn(
    subjects: &Subjects,
    running: &mut Running,
    options: &Options,
    progress: &Progress,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    outcome.figures.push(less("ready, empty", "ms", millis(running.broker()?.ready)));
    let plan = Plan { partitions: MANY, ..plan_for(running, options)? };
    let stage = Stage::create("start", &plan)?;
    let filled = stage.fill(options.data_bytes, progress)?.by_partition();
    let topic = stage.topic.clone();
    drop(stage);

    outcome.settle("a clean stop", running, options, progress)?;
    running.stop()?;
    progress.say("starting after a clean stop");
    let ends: Vec<i64> = filled.iter().map(|count| *count as i64).collect();
    let served = start(subjects, running, &topic, &ends)?;
    outcome.figures.extend(served.figures("after a clean stop"));

    outcome.settle("a kill under load", running, options, progress)?;
    let load = UnderLoad::start(&topic, &plan)?;
    let begun = Instant::now();
    while begun.elapsed() < options.measured {
        thread::sleep(LOOK);
        progress.say(&format!("producing until the kill: {} MB", load.bytes() / 1_000_000));
    }
    let before = Before::now(running)?;
    running.kill()?;
    let acknowledged = load.over()?;
    if acknowledged.bytes == 0 {
        bail!("nothing was acknowledged in {:?} of load before the kill", options.measured);
    }
    let found = before.found(running)?;
    let ends: Vec<i64> =
        ends.iter().zip(&acknowledged.ends).map(|(filled, loaded)| *filled.max(loaded)).collect();
    progress.say("starting after kill -9 under load");
    let served = start(subjects, running, &topic, &ends)?;
    outcome.figures.extend(served.figures("after kill -9 under load"));
    outcome.figures.extend(at_the_kill(&found, acknowledged.bytes));
    Ok(outcome)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn at_the_kill(found: &Found, written: u64) -> [Figure; 4] {
    let of = |name: &str, bytes: u64| circumstance(format!("at the kill: {name}"), "MB", bytes as f64 / 1e6);
    [
        of("acknowledged under load", written),
        of("to be recovered", found.to_recover),
        of("of its files in the page cache", found.in_memory),
        of("not written back, whole machine", found.dirty),
    ]
}

/// Since exec.
struct Served {
    ready: Duration,
    /// Every partition has told its end.
    ends: Duration,
    /// Every partition has given its last record.
    records: Duration,
}

impl Served {
    fn figures(&self, what: &str) -> [Figure; 3] {
        [
            less(format!("first answer {what}"), "ms", millis(self.ready)),
            less(format!("all partitions tell their ends {what}"), "ms", millis(self.ends)),
            less(format!("all give their last record {what}"), "ms", millis(self.records)),
        ]
    }
}

/// Starts the broker and waits until it serves everything. At least so much must be there.
fn start(subjects: &Subjects, running: &mut Running, topic: &str, least: &[i64]) -> Result<Served> {
    let started = Instant::now();
    subjects.restart(running)?;
    let ready = running.broker()?.ready;
    let client = block_on(Client::connect(ClientConfig::new(&running.bootstrap()?)))?;
    let ends = ends(&client, topic, least.len(), started)?;
    let told = started.elapsed();
    if let Some(at) = (0..least.len()).find(|at| ends[*at] < least[*at]) {
        bail!(
            "{topic}-{at} had {} records acknowledged, and ends at {} after the start",
            least[at],
            ends[at]
        );
    }
    last_records(&client, topic, &ends, started)?;
    Ok(Served { ready, ends: told, records: started.elapsed() })
}

/// Asks until every partition tells its end.
fn ends(client: &Client, topic: &str, partitions: usize, started: Instant) -> Result<Vec<i64>> {
    loop {
        let ask = |at| (TopicPartition::new(topic, at as i32), OffsetSpec::Latest);
        let all = (0..partitions).map(ask).collect();
        let listed = block_on(client.admin().list_offsets(all, Isolation::ReadUncommitted));
        let ends: std::result::Result<Vec<i64>, _> =
            listed.into_iter().map(|(_, listed)| listed.map(|listed| listed.offset.unwrap_or(0))).collect();
        match ends {
            Ok(ends) => return Ok(ends),
            Err(error) if started.elapsed() > SERVES_TIMEOUT => {
                return Err(error).context("not all partitions told their ends after the start");
            }
            Err(_) => thread::sleep(AGAIN),
        }
    }
}

/// Reads until every partition that has records has given its last one.
fn last_records(client: &Client, topic: &str, ends: &[i64], started: Instant) -> Result<()> {
    let consumer = client.consumer(corelog_client::ConsumerConfig::default())?;
    let with_records = (0..ends.len()).filter(|at| ends[*at] > 0);
    let partition = |at| TopicPartition::new(topic, at as i32);
    let mut missing: BTreeSet<i32> = with_records.map(|at| at as i32).collect();
    consumer.assign(missing.iter().map(|at| partition(*at as usize)).collect::<Vec<_>>())?;
    for at in &missing {
        consumer.seek(&partition(*at as usize), ends[*at as usize] - 1)?;
    }
    while !missing.is_empty() {
        if started.elapsed() > SERVES_TIMEOUT {
            bail!(
                "{} partitions have not given their last record {SERVES_TIMEOUT:?} after the start",
                missing.len()
            );
        }
        for record in block_on(consumer.poll(POLL))? {
            if record.offset + 1 >= ends[record.partition as usize] {
                missing.remove(&record.partition);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;

    #[test]
    fn every_partition_tells_its_end_and_gives_its_last_record() {
        let endpoint = Endpoint::start(1 << 30).unwrap();
        let bootstrap = endpoint.address.to_string();
        let plan = Plan { partitions: 40, batch_bytes: 4096, ..Plan::new(&bootstrap) };
        let stage = Stage::create("serves", &plan).unwrap();
        let filled = stage.fill(1 << 20, &Progress::new("test")).unwrap().by_partition();
        let client = block_on(Client::connect(ClientConfig::new(&bootstrap))).unwrap();
        let ends = ends(&client, &stage.topic, 40, Instant::now()).unwrap();
        assert_eq!(ends, filled.iter().map(|count| *count as i64).collect::<Vec<_>>());
        last_records(&client, &stage.topic, &ends, Instant::now()).unwrap();
    }
}
