//! Configs of topics and brokers: describe, change one by one (KIP-339).

use super::cluster::known;
use super::{Admin, Outcomes, only};
use crate::core::{Core, Lane};
use crate::error::{Error, Result};
use crate::net::Connection;
use corelog_wire::messages::describe_configs_request::Resource;
use corelog_wire::messages::describe_configs_response::{DescribeConfigsResult, ResourceResult};
use corelog_wire::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use corelog_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use std::fmt;
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResourceType {
    Topic,
    /// By node id; the empty name stands for the default of all brokers.
    Broker,
}

impl ResourceType {
    fn on_the_wire(self) -> i8 {
        match self {
            ResourceType::Topic => 2,
            ResourceType::Broker => 4,
        }
    }
}

/// What has configs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConfigResource {
    pub kind: ResourceType,
    pub name: String,
}

impl ConfigResource {
    pub fn topic(name: impl Into<String>) -> ConfigResource {
        ConfigResource { kind: ResourceType::Topic, name: name.into() }
    }

    pub fn broker(id: i32) -> ConfigResource {
        ConfigResource { kind: ResourceType::Broker, name: id.to_string() }
    }
}

impl fmt::Display for ConfigResource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.kind {
            ResourceType::Topic => write!(f, "topic {:?}", self.name),
            ResourceType::Broker if self.name.is_empty() => f.write_str("all brokers"),
            ResourceType::Broker => write!(f, "broker {}", self.name),
        }
    }
}

/// Where a value comes from (KIP-226).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConfigSource {
    Topic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    Other(i8),
}

impl ConfigSource {
    fn from_wire(code: i8) -> ConfigSource {
        match code {
            1 => ConfigSource::Topic,
            2 => ConfigSource::DynamicBroker,
            3 => ConfigSource::DynamicDefaultBroker,
            4 => ConfigSource::StaticBroker,
            5 => ConfigSource::Default,
            other => ConfigSource::Other(other),
        }
    }
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            ConfigSource::Topic => f.pad("topic"),
            ConfigSource::DynamicBroker => f.pad("broker (dynamic)"),
            ConfigSource::DynamicDefaultBroker => f.pad("all brokers (dynamic)"),
            ConfigSource::StaticBroker => f.pad("broker (static)"),
            ConfigSource::Default => f.pad("default"),
            ConfigSource::Other(code) => f.pad(&format!("source {code}")),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: String,
    /// None for secrets, which brokers do not tell, and for what is not set.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    /// Where the value could come from, what holds first.
    pub synonyms: Vec<ConfigSynonym>,
    pub documentation: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One change of [`Admin::alter_configs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    Set(String, String),
    /// Back to what holds without it.
    Reset(String),
    /// Adds to a list, such as `cleanup.policy`.
    Append(String, String),
    /// Takes out of a list.
    Subtract(String, String),
}

impl Admin {
    /// The configs of topics and brokers; with `documentation`, what each is for.
    pub async fn describe_configs(
        &self,
        resources: Vec<ConfigResource>,
        documentation: bool,
    ) -> Result<Outcomes<ConfigResource, Vec<ConfigEntry>>> {
        let described = self.handle.call(async move |core| {
            let mut outcomes = Vec::new();
            // A broker's own configs are known to itself alone; the rest anybody can tell.
            for resource in resources {
                let what = format!("describe the configs of {resource}");
                let outcome = core.retry(&what, core.deadline(), async || {
                    describe(&core, &resource, documentation, &what).await
                });
                let outcome = outcome.await;
                outcomes.push((resource, outcome));
            }
            Ok(outcomes)
        });
        described.await
    }

    /// Changes some configs and leaves the others; all of these changes or none are made. With `validate_only` they are only checked.
    /// Returns what the broker remarks, if it does, such as that a value is not built.
    pub async fn alter_configs(
        &self,
        resource: ConfigResource,
        changes: Vec<ConfigChange>,
        validate_only: bool,
    ) -> Result<Option<String>> {
        let altered = self.handle.call(async move |core| {
            let what = format!("change the configs of {resource}");
            core.retry(&what, core.deadline(), async || {
                alter(&core, &resource, &changes, validate_only, &what).await
            })
            .await
        });
        altered.await
    }
}

async fn connection(core: &Rc<Core>, resource: &ConfigResource, controller: bool) -> Result<Rc<Connection>> {
    if resource.kind == ResourceType::Broker && !resource.name.is_empty() {
        let id = resource.name.parse().map_err(|_| {
            Error::config(format!("{:?} is no broker", resource.name), "give its node id, a number")
        })?;
        return known(core, id).await;
    }
    if controller { core.controller().await } else { core.any(Lane::SHARED).await }
}

async fn describe(
    core: &Rc<Core>,
    resource: &ConfigResource,
    documentation: bool,
    what: &str,
) -> Result<Vec<ConfigEntry>> {
    let connection = connection(core, resource, false).await?;
    let version = connection.pick::<DescribeConfigsRequest>()?;
    let request = DescribeConfigsRequest {
        resources: vec![Resource {
            resource_type: resource.kind.on_the_wire(),
            resource_name: resource.name.as_str().into(),
            configuration_keys: None,
        }],
        include_synonyms: version >= 1,
        include_documentation: documentation && version >= 3,
    };
    let response = connection.call_version(&request, version, core.config.request_timeout).await?;
    let entries = response.results.into_iter().map(|result: DescribeConfigsResult| {
        let checked =
            Error::check_with(result.error_code, result.error_message.as_deref(), || what.to_owned());
        ((), checked.map(|()| result.configs.into_iter().map(entry).collect()))
    });
    only(entries.collect(), || what.to_owned())
}

fn entry(config: ResourceResult) -> ConfigEntry {
    let text = |text: Option<corelog_wire::Str>| text.map(|text| text.as_str().to_owned());
    let source = match config.is_default {
        // Version 0 says no more than this.
        true => ConfigSource::Default,
        false => ConfigSource::from_wire(config.config_source),
    };
    ConfigEntry {
        name: config.name.as_str().to_owned(),
        value: text(config.value),
        source,
        is_read_only: config.read_only,
        is_sensitive: config.is_sensitive,
        synonyms: config
            .synonyms
            .into_iter()
            .map(|synonym| ConfigSynonym {
                name: synonym.name.as_str().to_owned(),
                value: text(synonym.value),
                source: ConfigSource::from_wire(synonym.source),
            })
            .collect(),
        documentation: text(config.documentation).filter(|text| !text.is_empty()),
    }
}

async fn alter(
    core: &Rc<Core>,
    resource: &ConfigResource,
    changes: &[ConfigChange],
    validate_only: bool,
    what: &str,
) -> Result<Option<String>> {
    let change = |change: &ConfigChange| {
        let (operation, name, value) = match change {
            ConfigChange::Set(name, value) => (0, name, Some(value)),
            ConfigChange::Reset(name) => (1, name, None),
            ConfigChange::Append(name, value) => (2, name, Some(value)),
            ConfigChange::Subtract(name, value) => (3, name, Some(value)),
        };
        AlterableConfig {
            name: name.as_str().into(),
            config_operation: operation,
            value: value.map(|value| value.as_str().into()),
        }
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: resource.kind.on_the_wire(),
            resource_name: resource.name.as_str().into(),
            configs: changes.iter().map(change).collect(),
        }],
        validate_only,
    };
    let response = connection(core, resource, true).await?.call(&request).await?;
    let checked = response.responses.into_iter().map(|answer| {
        let checked =
            Error::check_with(answer.error_code, answer.error_message.as_deref(), || what.to_owned());
        let remark = answer.error_message.filter(|text| !text.is_empty());
        ((), checked.map(|()| remark.map(|text| text.as_str().to_owned())))
    });
    only(checked.collect(), || what.to_owned())
}
