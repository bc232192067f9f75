//! The disk is one for all shards: what any of them has promised of its space counts for each.

use std::rc::Rc;
use std::time::Duration;

use corelog_io::sleep;

use crate::shard::Shard;

/// As often as each shard looks at the free space itself.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs on one shard, until it stops.
pub async fn run(shard: Rc<Shard>) {
    loop {
        sleep(PERIOD).await;
        if shard.is_stopping() {
            return;
        }
        let Ok(promised) = shard.on_all(|shard| async move { shard.storage.promised_bytes() }).await else {
            return;
        };
        let total: u64 = promised.into_iter().sum();
        let told = shard.on_all(move |shard| async move {
            let own = shard.storage.promised_bytes();
            shard.storage.set_promised_elsewhere(total.saturating_sub(own));
        });
        if told.await.is_err() {
            return;
        }
    }
}
