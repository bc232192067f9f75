//! Before a run: a record for each partition, written and read. A topic that was just made is known before its partitions serve, and what
//! is due meanwhile would wait for that.

use super::stage::Stage;
use anyhow::{Result, bail};
use corelog_client::{Consumer, ProducerConfig, ProducerRecord, TopicPartition, block_on};
use std::time::{Duration, Instant};

/// A broker may take so long.
const LIMIT: Duration = Duration::from_secs(300);
const POLL: Duration = Duration::from_millis(100);
const VALUE: &[u8] = b"corebench: does this partition serve?";

/// Returns the offset behind each partition's probe, where the run's own records begin; none where nothing is to be read.
pub fn all(stage: &Stage) -> Result<Option<Vec<i64>>> {
    let until = Instant::now() + LIMIT;
    let (plan, client) = (&stage.plan, stage.client());
    let producer = client.producer(ProducerConfig {
        send_timeout: LIMIT,
        delivery_timeout: LIMIT,
        create_topics: false,
        ..Default::default()
    })?;
    let mut deliveries = Vec::with_capacity(plan.partitions);
    for partition in 0..plan.partitions as i32 {
        // With a key, since a compacted topic takes no record without.
        let record = ProducerRecord::to(stage.topic.as_str()).partition(partition).key("probe").value(VALUE);
        deliveries.push(block_on(producer.send(record))?);
    }
    for delivery in deliveries {
        block_on(delivery)?;
    }
    block_on(producer.close())?;
    if plan.groups == 0 && !plan.read_back {
        return Ok(None);
    }
    let consumer = client.consumer(plan.consumer_config())?;
    let topic = stage.topic.as_str();
    consumer.assign((0..plan.partitions as i32).map(|at| TopicPartition::new(topic, at)))?;
    read(&consumer, plan.partitions, until).map(Some)
}

fn read(consumer: &Consumer, partitions: usize, until: Instant) -> Result<Vec<i64>> {
    let mut starts = vec![None; partitions];
    let (mut missing, mut last_error) = (partitions, None);
    while missing > 0 {
        if Instant::now() >= until {
            let first = starts.iter().position(Option::is_none).unwrap_or(0);
            let why = last_error.map_or(String::new(), |error| format!(": {error}"));
            bail!(
                "{missing} partitions took a record and did not give it within {LIMIT:?}, {first} among them{why}"
            );
        }
        match block_on(consumer.poll(POLL)) {
            Ok(records) => {
                for record in records {
                    if let Some(start) = starts.get_mut(record.partition as usize) {
                        missing -= usize::from(start.is_none());
                        *start = Some(record.offset + 1);
                    }
                }
            }
            // A partition that does not serve yet may say so.
            Err(error) => last_error = Some(error),
        }
    }
    Ok(starts.into_iter().flatten().collect())
}
