//! The cluster: brokers, what they speak, where they keep what.

use super::{Admin, Outcomes};
use crate::core::{Core, Lane, Node};
use crate::error::{Error, Result};
use crate::metadata::Broker;
use crate::topic_partition::TopicPartition;
use corelog_wire::messages::describe_cluster_response;
use corelog_wire::messages::{DescribeClusterRequest, DescribeLogDirsRequest, UnregisterBrokerRequest};
use corelog_wire::{ApiKey, ErrorCode};
use futures_util::future::join_all;
use std::rc::Rc;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// None where the broker does not say.
    pub id: Option<String>,
    /// The broker that takes changes, as far as the one that was asked knows it.
    pub controller: Option<i32>,
    pub brokers: Vec<Broker>,
}

/// A broker of the cluster, whether it is there or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredBroker {
    pub id: i32,
    /// Where it is reached, or was; none of one that never came.
    pub address: Option<String>,
    pub rack: Option<String>,
    /// It is not there, or not ready.
    pub is_fenced: bool,
}

/// Versions of one API that a broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    pub key: i16,
    /// None for keys that this client does not know.
    pub api: Option<ApiKey>,
    pub min_version: i16,
    pub max_version: i16,
}

/// One data directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    pub path: String,
    /// Of the file system, in bytes, where the broker says it (KIP-827).
    pub total_bytes: Option<i64>,
    pub usable_bytes: Option<i64>,
    pub replicas: Vec<ReplicaSize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSize {
    pub partition: TopicPartition,
    pub bytes: i64,
    /// How far it is behind the log end offset.
    pub offset_lag: i64,
    /// Being moved here from another directory.
    pub is_future: bool,
}

impl Admin {
    pub async fn describe_cluster(&self) -> Result<Cluster> {
        let described = self.handle.call(async |core| {
            core.retry("describe the cluster", core.deadline(), async || core.refresh(Some(&[])).await)
                .await?;
            let metadata = core.metadata.borrow();
            Ok(Cluster {
                id: metadata.cluster_id.clone(),
                controller: metadata.controller,
                brokers: metadata.brokers.values().cloned().collect(),
            })
        });
        described.await
    }

    /// All brokers that the cluster knows, by id. Brokers before Kafka 4.0 name only those that are there.
    pub async fn registered_brokers(&self) -> Result<Vec<RegisteredBroker>> {
        self.handle.call(async |core| registered_brokers(&core).await).await
    }

    /// The cluster forgets a broker that is gone for good, and has no replicas. One with its data directory is refused from then on.
    pub async fn unregister_broker(&self, broker: i32) -> Result<()> {
        let asked = self.handle.call(async move |core| {
            let what = format!("unregister broker {broker}");
            core.retry(&what, core.deadline(), async || {
                let request = UnregisterBrokerRequest { broker_id: broker };
                let response = core.controller().await?.call(&request).await?;
                Error::check_with(response.error_code, response.error_message.as_deref(), || what.clone())
            })
            .await
        });
        asked.await
    }

    /// What a broker speaks.
    pub async fn api_versions(&self, broker: i32) -> Result<Vec<ApiRange>> {
        let asked = self.handle.call(async move |core| {
            let what = format!("ask broker {broker} for its API versions");
            let connection = core.retry(&what, core.deadline(), async || known(&core, broker).await).await?;
            let range = |(key, (min_version, max_version))| ApiRange {
                key,
                api: ApiKey::from_i16(key),
                min_version,
                max_version,
            };
            Ok(connection.versions.all().map(range).collect())
        });
        asked.await
    }

    /// The data directories of all brokers, or of those given, with the size of every partition in them.
    pub async fn log_dirs(&self, brokers: Option<Vec<i32>>) -> Result<Outcomes<i32, Vec<Result<LogDir>>>> {
        let asked = self.handle.call(async move |core| {
            let brokers = match brokers {
                Some(brokers) => brokers,
                None => {
                    core.retry("list the brokers", core.deadline(), async || core.refresh(Some(&[])).await)
                        .await?;
                    core.metadata.borrow().brokers.keys().copied().collect()
                }
            };
            Ok(join_all(brokers.into_iter().map(async |broker| {
                let what = format!("describe the data directories of broker {broker}");
                let asked = core.retry(&what, core.deadline(), async || log_dirs(&core, broker, &what).await);
                (broker, asked.await)
            }))
            .await)
        });
        asked.await
    }
}

async fn registered_brokers(core: &Rc<Core>) -> Result<Vec<RegisteredBroker>> {
    let what = "list the brokers";
    let response = core
        .retry(what, core.deadline(), async || {
            let connection = core.any(Lane::SHARED).await?;
            let version = connection.pick::<DescribeClusterRequest>()?;
            let request =
                DescribeClusterRequest { include_fenced_brokers: version >= 2, ..Default::default() };
            let response = connection.call_version(&request, version, core.config.request_timeout).await?;
            Error::check_with(response.error_code, response.error_message.as_deref(), || what.into())?;
            Ok(response)
        })
        .await?;
    let is_known = |host: &str, port: i32| !host.is_empty() && port > 0;
    let broker = |broker: describe_cluster_response::Broker| RegisteredBroker {
        id: broker.broker_id,
        address: is_known(&broker.host, broker.port).then(|| format!("{}:{}", broker.host, broker.port)),
        rack: broker.rack.as_deref().map(str::to_owned),
        is_fenced: broker.is_fenced,
    };
    let mut brokers: Vec<RegisteredBroker> = response.brokers.into_iter().map(broker).collect();
    brokers.sort_by_key(|broker| broker.id);
    Ok(brokers)
}

/// The broker of this id. Who is named is there, or is not: nothing waits for it.
pub(super) async fn known(core: &Rc<Core>, broker: i32) -> Result<Rc<crate::net::Connection>> {
    if !core.metadata.borrow().brokers.contains_key(&broker) {
        core.refresh(Some(&[])).await?;
    }
    if !core.metadata.borrow().brokers.contains_key(&broker) {
        return Err(Error::Broker {
            code: ErrorCode::BROKER_NOT_AVAILABLE,
            what: format!("connect to broker {broker}"),
            message: Some("it is not among the cluster's brokers".into()),
        });
    }
    core.connection(Node::Id(broker), Lane::SHARED).await
}

async fn log_dirs(core: &Rc<Core>, broker: i32, what: &str) -> Result<Vec<Result<LogDir>>> {
    let response = known(core, broker).await?.call(&DescribeLogDirsRequest { topics: None }).await?;
    Error::check(response.error_code, || what.to_owned())?;
    let dirs = response.results.into_iter().map(|dir| {
        Error::check(dir.error_code, || format!("{what}: {}", dir.log_dir))?;
        let mut replicas = Vec::new();
        for topic in dir.topics {
            let name = topic.name.detach();
            replicas.extend(topic.partitions.into_iter().map(|partition| ReplicaSize {
                partition: TopicPartition { topic: name.clone(), partition: partition.partition_index },
                bytes: partition.partition_size,
                offset_lag: partition.offset_lag,
                is_future: partition.is_future_key,
            }));
        }
        Ok(LogDir {
            path: dir.log_dir.as_str().to_owned(),
            total_bytes: Some(dir.total_bytes).filter(|bytes| *bytes >= 0),
            usable_bytes: Some(dir.usable_bytes).filter(|bytes| *bytes >= 0),
            replicas,
        })
    });
    Ok(dirs.collect())
}
