//! `Admin`: topics, configs, groups, records, replicas, the cluster.

mod cluster;
mod configs;
mod groups;
mod quorum;
mod records;
mod replicas;
mod topics;

pub use cluster::{ApiRange, Cluster, LogDir, RegisteredBroker, ReplicaSize};
pub use configs::{ConfigChange, ConfigEntry, ConfigResource, ConfigSource, ConfigSynonym, ResourceType};
pub use groups::{CommittedOffset, GroupDescription, GroupListing, GroupMember, NewOffset};
pub use quorum::{Quorum, QuorumReplica};
pub use replicas::Reassignment;
pub use topics::{CreatedTopic, NewTopic};

use crate::core::Core;
use crate::driver::Handle;
use crate::error::Result;
use crate::leaders::{self, Isolation, ListedOffset, OffsetSpec};
use crate::topic_partition::TopicPartition;
use std::fmt;

/// For each thing asked about, its name and what came of it. One that fails does not fail the others.
pub type Outcomes<N, T> = Vec<(N, Result<T>)>;

/// Administers a cluster. Cheap to clone.
///
/// ```no_run
/// use corelog_client::{Client, ClientConfig, NewTopic};
/// # corelog_client::block_on(async {
/// let client = Client::connect(ClientConfig::new("127.0.0.1:9092")).await?;
/// let admin = client.admin();
/// admin.create_topic(NewTopic::new("orders").partitions(6).config("retention.ms", "3600000")).await?;
/// for topic in admin.list_topics().await? {
///     println!("{} has {} partitions", topic.name, topic.partitions.len());
/// }
/// # Ok::<(), corelog_client::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct Admin {
    handle: Handle<Core>,
}

impl Admin {
    pub(crate) fn new(handle: Handle<Core>) -> Admin {
        Admin { handle }
    }

    /// Offsets by time or position, from the partitions' leaders.
    pub async fn list_offsets(
        &self,
        partitions: Vec<(TopicPartition, OffsetSpec)>,
        isolation: Isolation,
    ) -> Outcomes<TopicPartition, ListedOffset> {
        let names: Vec<TopicPartition> = partitions.iter().map(|(name, _)| name.clone()).collect();
        let asked = self.handle.call(async move |core| {
            let deadline = core.deadline();
            Ok(leaders::list_offsets(&core, partitions, isolation, deadline).await)
        });
        match asked.await {
            Ok(answers) => answers,
            Err(error) => names.into_iter().map(|name| (name, Err(error.clone()))).collect(),
        }
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// Milliseconds as requests have them.
fn timeout_ms(core: &Core) -> i32 {
    core.config.request_timeout.as_millis().try_into().unwrap_or(i32::MAX)
}

/// The outcome of the only thing asked for.
fn only<N, T>(outcomes: Outcomes<N, T>, what: impl FnOnce() -> String) -> Result<T> {
    match outcomes.into_iter().next() {
        Some((_, outcome)) => outcome,
        None => Err(crate::Error::Broker {
            code: corelog_wire::ErrorCode::UNKNOWN_SERVER_ERROR,
            what: what(),
            message: Some("the answer does not name it".into()),
        }),
    }
}
