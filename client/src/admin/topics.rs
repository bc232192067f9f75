//! Topics: list, describe, create, delete, add partitions.

use super::{Admin, Outcomes, only, timeout_ms};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::metadata::Topic;
use corelog_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use corelog_wire::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, create_partitions_request,
    delete_topics_request,
};
use corelog_wire::{ErrorCode, Str, Uuid};
use std::rc::Rc;

/// A topic to be created. Where nothing else is said the broker's defaults hold.
#[derive(Clone, Debug)]
pub struct NewTopic {
    name: String,
    partitions: i32,
    replication: i16,
    assignments: Vec<Vec<i32>>,
    configs: Vec<(String, String)>,
}

impl NewTopic {
    pub fn new(name: impl Into<String>) -> NewTopic {
        NewTopic {
            name: name.into(),
            partitions: -1,
            replication: -1,
            assignments: Vec::new(),
            configs: Vec::new(),
        }
    }

    pub fn partitions(mut self, count: i32) -> NewTopic {
        self.partitions = count;
        self
    }

    /// Replicas per partition.
    pub fn replication(mut self, count: i16) -> NewTopic {
        self.replication = count;
        self
    }

    /// For each partition its brokers, the preferred leader first; in place of counts.
    pub fn assignments(mut self, brokers: Vec<Vec<i32>>) -> NewTopic {
        (self.partitions, self.replication) = (-1, -1);
        self.assignments = brokers;
        self
    }

    /// A topic config, such as `retention.ms`.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> NewTopic {
        self.configs.push((name.into(), value.into()));
        self
    }

    fn into_request(self) -> CreatableTopic {
        let config = |(name, value): (String, String)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let assignments = self.assignments.into_iter().enumerate();
        CreatableTopic {
            name: self.name.into(),
            num_partitions: self.partitions,
            replication_factor: self.replication,
            assignments: assignments
                .map(|(at, broker_ids)| CreatableReplicaAssignment { partition_index: at as i32, broker_ids })
                .collect(),
            configs: self.configs.into_iter().map(config).collect(),
        }
    }
}

/// What the broker made, as far as it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Zero where the broker knows no ids, and when it was only validated.
    pub id: Uuid,
    pub partitions: Option<i32>,
    pub replication: Option<i16>,
    /// What the broker remarks on it, such as that one of its configs is not built.
    pub remark: Option<String>,
}

impl Admin {
    /// All topics, by name, internal ones too.
    pub async fn list_topics(&self) -> Result<Vec<Topic>> {
        let told = self.handle.call(async |core| {
            let deadline = core.deadline();
            let told = core.retry("list topics", deadline, async || core.refresh(None).await).await?;
            // Topics in error cannot be described; those that are being created come with the next call.
            let mut topics: Vec<Topic> =
                told.into_values().filter_map(|topic| topic.ok()).map(|topic| (*topic).clone()).collect();
            topics.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(topics)
        });
        told.await
    }

    pub async fn describe_topics(&self, names: &[&str]) -> Result<Outcomes<String, Topic>> {
        let names: Vec<Str> = names.iter().map(|name| Str::from(*name)).collect();
        self.handle.call(async move |core| describe(&core, names).await).await
    }

    pub async fn describe_topic(&self, name: &str) -> Result<Topic> {
        only(self.describe_topics(&[name]).await?, || format!("describe topic {name:?}"))
    }

    /// With `validate_only` nothing is created, only checked.
    pub async fn create_topics(
        &self,
        topics: Vec<NewTopic>,
        validate_only: bool,
    ) -> Result<Outcomes<String, CreatedTopic>> {
        let topics: Vec<CreatableTopic> = topics.into_iter().map(NewTopic::into_request).collect();
        self.handle.call(async move |core| create(&core, topics, validate_only).await).await
    }

    /// Creates one topic. When this returns the topic can be used.
    pub async fn create_topic(&self, topic: NewTopic) -> Result<CreatedTopic> {
        let name = topic.name.clone();
        only(self.create_topics(vec![topic], false).await?, || format!("create topic {name:?}"))
    }

    /// Deletes topics and all that is in them.
    pub async fn delete_topics(&self, names: &[&str]) -> Result<Outcomes<String, ()>> {
        let names: Vec<Str> = names.iter().map(|name| Str::from(*name)).collect();
        self.handle.call(async move |core| delete(&core, names).await).await
    }

    /// Raises a topic's partition count to `count`. Keys may then belong to other partitions than before.
    pub async fn create_partitions(&self, topic: &str, count: i32, validate_only: bool) -> Result<()> {
        let topic = Str::from(topic);
        self.handle.call(async move |core| add_partitions(&core, topic, count, validate_only).await).await
    }
}

async fn describe(core: &Rc<Core>, names: Vec<Str>) -> Result<Outcomes<String, Topic>> {
    let told =
        core.retry("describe topics", core.deadline(), async || core.refresh(Some(&names)).await).await?;
    let outcome = |name: &Str| match told.get(name) {
        Some(Ok(topic)) => Ok((**topic).clone()),
        Some(Err(code)) => Err(Error::broker(*code, format!("describe topic {name:?}"))),
        None => Err(Error::broker(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, format!("describe topic {name:?}"))),
    };
    Ok(names.iter().map(|name| (name.as_str().to_owned(), outcome(name))).collect())
}

async fn create(
    core: &Rc<Core>,
    topics: Vec<CreatableTopic>,
    validate_only: bool,
) -> Result<Outcomes<String, CreatedTopic>> {
    let response = core
        .retry("create topics", core.deadline(), async || {
            let connection = core.controller().await?;
            let mut request =
                CreateTopicsRequest { topics: topics.clone(), timeout_ms: timeout_ms(core), validate_only };
            let version = connection.pick::<CreateTopicsRequest>()?;
            if version < 4 {
                // Older brokers have no defaults for counts (KIP-464).
                for topic in request.topics.iter_mut().filter(|topic| topic.assignments.is_empty()) {
                    topic.num_partitions = topic.num_partitions.max(1);
                    topic.replication_factor = topic.replication_factor.max(1);
                }
            }
            let response = connection.call_version(&request, version, core.config.request_timeout).await?;
            if response.topics.iter().any(|topic| ErrorCode(topic.error_code) == ErrorCode::NOT_CONTROLLER) {
                return Err(Error::broker(ErrorCode::NOT_CONTROLLER, "create topics"));
            }
            Ok(response)
        })
        .await?;
    let mut outcomes = Vec::new();
    for topic in response.topics {
        let name = topic.name.as_str().to_owned();
        let what = || format!("create topic {name:?}");
        let mut outcome = Error::check_with(topic.error_code, topic.error_message.as_deref(), what);
        if outcome.is_ok() && !validate_only {
            outcome = usable(core, &topic.name.detach()).await;
        }
        let created = CreatedTopic {
            id: topic.topic_id,
            partitions: Some(topic.num_partitions).filter(|count| *count >= 0),
            replication: Some(topic.replication_factor).filter(|count| *count >= 0),
            remark: topic.error_message.filter(|text| !text.is_empty()).map(|text| text.as_str().to_owned()),
        };
        outcomes.push((name, outcome.map(|()| created)));
    }
    Ok(outcomes)
}

/// Waits until a broker names leaders for all partitions.
async fn usable(core: &Rc<Core>, name: &Str) -> Result<()> {
    let what = format!("wait for leaders of topic {name:?}");
    core.retry(&what, core.deadline(), async || {
        let told = core.refresh(Some(std::slice::from_ref(name))).await?;
        match told.get(name) {
            Some(Ok(topic)) if topic.partitions.iter().all(|partition| partition.leader.is_some()) => Ok(()),
            // It was made just now: that it is not known yet is no news.
            _ => Err(Error::broker(ErrorCode::LEADER_NOT_AVAILABLE, &*what)),
        }
    })
    .await
}

async fn delete(core: &Rc<Core>, names: Vec<Str>) -> Result<Outcomes<String, ()>> {
    let response = core
        .retry("delete topics", core.deadline(), async || {
            let connection = core.controller().await?;
            let version = connection.pick::<DeleteTopicsRequest>()?;
            let mut request = DeleteTopicsRequest { timeout_ms: timeout_ms(core), ..Default::default() };
            match version {
                0..6 => request.topic_names = names.clone(),
                _ => {
                    let state = |name: &Str| delete_topics_request::State {
                        name: Some(name.clone()),
                        topic_id: Uuid::ZERO,
                    };
                    request.topics = names.iter().map(state).collect();
                }
            }
            let response = connection.call_version(&request, version, core.config.request_timeout).await?;
            if response.responses.iter().any(|topic| ErrorCode(topic.error_code) == ErrorCode::NOT_CONTROLLER)
            {
                return Err(Error::broker(ErrorCode::NOT_CONTROLLER, "delete topics"));
            }
            Ok(response)
        })
        .await?;
    let outcomes = response.responses.into_iter().map(|topic| {
        let name = topic.name.as_deref().unwrap_or_default().to_owned();
        core.metadata.borrow_mut().topics.remove(name.as_str());
        let what = || format!("delete topic {name:?}");
        let outcome = Error::check_with(topic.error_code, topic.error_message.as_deref(), what);
        (name, outcome)
    });
    Ok(outcomes.collect())
}

async fn add_partitions(core: &Rc<Core>, topic: Str, count: i32, validate_only: bool) -> Result<()> {
    let what = format!("raise topic {topic:?} to {count} partitions");
    core.retry(&what, core.deadline(), async || {
        let request = CreatePartitionsRequest {
            topics: vec![create_partitions_request::Topic { name: topic.clone(), count, assignments: None }],
            timeout_ms: timeout_ms(core),
            validate_only,
        };
        let response = core.controller().await?.call(&request).await?;
        let results = response.results.into_iter().map(|result| {
            let checked =
                Error::check_with(result.error_code, result.error_message.as_deref(), || what.clone());
            ((), checked)
        });
        only(results.collect(), || what.clone())
    })
    .await?;
    if validate_only { Ok(()) } else { usable(core, &topic).await }
}
