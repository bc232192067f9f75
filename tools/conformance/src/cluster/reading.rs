//! All of all partitions, read once more from the beginning.

use super::checker::Rule;
use super::history::Reading;
use super::world::World;
use anyhow::{Context, Result, bail};
use corelog_client::{ConsumerConfig, OffsetReset, OffsetSpec, block_on};
use std::time::{Duration, Instant};

/// Without anything new.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// Reads up to the high watermarks as they are. What is wrong with records goes to `wrong`.
pub fn read_all(what: &str, world: &World, wrong: &mut Vec<(Rule, String)>) -> Result<Reading> {
    let mut partitions = vec![Vec::new(); world.target.partitions() as usize];
    block_on(async {
        let client = world.connect("reader").await?;
        let config = ConsumerConfig {
            offset_reset: OffsetReset::Earliest,
            poll_records_max: 5000,
            ..Default::default()
        };
        let consumer = client.consumer(config)?;
        let mut ends = Vec::new();
        let latest = world.partitions().into_iter().map(|at| (at, OffsetSpec::Latest)).collect();
        for (at, listed) in consumer.offsets(latest).await? {
            let number = world.number(&at.topic, at.partition).context("an answer to nothing")?;
            let listed = listed.with_context(|| format!("the end of {at}"))?;
            ends.push((number, listed.offset.unwrap_or(0)));
        }
        consumer.assign(world.partitions())?;
        let is_short = |partitions: &[Vec<(i64, _)>]| {
            ends.iter()
                .find(|(at, end)| partitions[*at as usize].last().map_or(0, |(last, _)| last + 1) < *end)
                .copied()
        };
        let mut last = (Instant::now(), None);
        while let Some((at, end)) = is_short(&partitions) {
            match consumer.poll(Duration::from_millis(500)).await {
                Ok(records) if !records.is_empty() => {
                    last.0 = Instant::now();
                    for record in &records {
                        match world.seen(record) {
                            Ok(seen) => {
                                partitions[seen.partition as usize].push((seen.offset, seen.identity))
                            }
                            Err(text) => wrong.push((Rule::Broken, format!("{what}: {text}"))),
                        }
                    }
                }
                Ok(_) => {}
                Err(error) => last.1 = Some(error),
            }
            if last.0.elapsed() > IDLE_MAX {
                let read = partitions[at as usize].len();
                bail!(
                    "{what}: nothing comes of {} from {read} on, and its end is {end}; last error: {:?}",
                    world.named(at),
                    last.1
                );
            }
        }
        Ok(())
    })?;
    Ok(Reading { what: what.to_owned(), partitions })
}
