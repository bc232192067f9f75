//! A scrape: every shard is asked for what it counts, and for what it knows of groups and partitions in questions so
//! small that none holds its core up. One scrape at a time; others wait.

use std::time::Duration;

use corelog_storage::{LogId, LogStats};
use futures_util::future::join_all;
use tokio::sync::{Semaphore, oneshot};

use crate::config::describe::Entry;
use crate::groups::GroupRow;
use crate::metrics::{Entities, Page, families};
use crate::server::{self, Control, ShardControl};
use crate::shard::Shard;

/// Partitions that a shard is asked about at once: some twenty microseconds.
const PARTITIONS_A_TURN: usize = 256;

pub struct Scraper {
    controls: Vec<ShardControl>,
    /// A shard that does not answer a question within this is left out of the scrape.
    patience: Option<Duration>,
    turn: Semaphore,
}

impl Scraper {
    /// `patience`: `None` is for ever; with it, a tokio runtime has to be there.
    pub fn new(controls: Vec<ShardControl>, patience: Option<Duration>) -> Scraper {
        Scraper { controls, patience, turn: Semaphore::new(1) }
    }

    pub async fn scrape(&self) -> Page {
        let _turn = self.turn.acquire().await;
        let shards = self.controls.len();
        let counted = join_all((0..shards).map(|shard| self.ask(shard, server::snapshot))).await;
        let mut snapshots: Vec<_> = counted.into_iter().flatten().collect();
        let image = self.ask(0, |shard| (shard.image(), shard.broker(), shard.config().metrics)).await;
        let Some((image, broker, limits)) = image else { return Page { snapshots, entities: None } };
        let mut entities = Entities::new(image, broker, limits);
        let owned = entities.owned(shards);
        for snapshot in &mut snapshots {
            if let Some(owned) = snapshot.core.and_then(|core| owned.get(core)) {
                snapshot.put(&families::PARTITIONS, *owned);
            }
        }
        if entities.wants_groups() {
            for groups in join_all((0..shards).map(|shard| self.groups(shard))).await {
                entities.add_groups(groups);
            }
        }
        let wanted = entities.wanted(shards).into_iter().enumerate();
        for stats in join_all(wanted.map(|(shard, logs)| self.partitions(shard, logs))).await {
            entities.add_stats(stats);
        }
        Page { snapshots, entities: Some(entities) }
    }

    /// This broker's configs in effect, as shard 0 has them.
    pub async fn configs(&self) -> Vec<Entry> {
        self.ask(0, server::configs).await.unwrap_or_default()
    }

    async fn groups(&self, shard: usize) -> Vec<GroupRow> {
        let (mut rows, mut place) = (Vec::new(), None);
        loop {
            let Some((more, next)) = self.ask(shard, move |shard| shard.groups.observe(place)).await else {
                return rows;
            };
            rows.extend(more);
            if next.is_none() {
                return rows;
            }
            place = next;
        }
    }

    async fn partitions(&self, shard: usize, logs: Vec<LogId>) -> Vec<(LogId, LogStats)> {
        let mut all = Vec::with_capacity(logs.len());
        for some in logs.chunks(PARTITIONS_A_TURN) {
            let some = some.to_vec();
            match self.ask(shard, move |shard| stats(shard, some)).await {
                Some(stats) => all.extend(stats),
                None => break,
            }
        }
        all
    }

    /// What `look` sees on a shard. `None` if the shard does not answer.
    async fn ask<T: Send + 'static>(
        &self,
        shard: usize,
        look: impl FnOnce(&Shard) -> T + Send + 'static,
    ) -> Option<T> {
        let (sender, receiver) = oneshot::channel();
        let look = Control::Look(Box::new(move |shard| {
            let _ = sender.send(look(shard));
        }));
        self.controls.get(shard)?.ask(look).then_some(())?;
        match self.patience {
            Some(patience) => tokio::time::timeout(patience, receiver).await.ok()?.ok(),
            None => receiver.await.ok(),
        }
    }
}

/// Of a log that was never touched there is nothing in memory, and one that is refused says nothing.
fn stats(shard: &Shard, logs: Vec<LogId>) -> Vec<(LogId, LogStats)> {
    corelog_io::worked(logs.len() * size_of::<LogStats>());
    let known = logs.into_iter().filter_map(|id| match shard.partitions.opened(id) {
        None => Some((id, LogStats::EMPTY)),
        Some(partition) if partition.check_sound().is_err() => None,
        Some(partition) => Some((id, partition.stats())),
    });
    known.collect()
}
