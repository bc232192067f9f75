//! AlterConfigs (KIP-133) and IncrementalAlterConfigs (KIP-339).

use std::collections::HashMap;

use corelog_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};
use corelog_wire::{ErrorCode, Str};

use super::context::{Context, told};
use super::unbuilt;
use crate::audit;
use crate::config::alter::{self, Op};
use crate::config::resource::{self, Resource};
use crate::config::{Kind, rows, split_list};
use crate::controller::{Change, ChangeError, ConfigChange, ResourceKey, Terms};
use crate::logging;

/// What a request asks of one resource.
impl ConfigChange {
    fn is_incremental(&self) -> bool {
        matches!(self, ConfigChange::Incremental(_))
    }

    fn first_key(&self) -> Option<&str> {
        match self {
            ConfigChange::Incremental(changes) => changes.first().map(|(name, _, _)| &**name),
            ConfigChange::Replace(configs) => configs.first().map(|(name, _)| &**name),
        }
    }

    /// Whether it turns compaction on, for a topic or as the default.
    fn compacts(&self) -> bool {
        let compacts = |name: &str, value: Option<&str>| {
            matches!(name, "cleanup.policy" | "log.cleanup.policy")
                && value.is_some_and(|value| split_list(value).contains(&"compact"))
        };
        match self {
            ConfigChange::Incremental(changes) => changes.iter().any(|(name, op, value)| {
                Op::from_wire(*op) != Some(Op::Subtract) && compacts(name, value.as_deref())
            }),
            ConfigChange::Replace(configs) => {
                configs.iter().any(|(name, value)| compacts(name, value.as_deref()))
            }
        }
    }

    /// What is to be done, for the audit.
    fn details(&self) -> String {
        let set = |name: &str, value: Option<&str>| match value {
            Some(value) if may_be_told(name) => format!("{name}={value}"),
            Some(_) => format!("{name}=[hidden]"),
            None => name.to_owned(),
        };
        match self {
            ConfigChange::Incremental(changes) => audit::list(changes.iter().map(|(name, op, value)| {
                let op = Op::from_wire(*op).map_or("?", Op::name);
                format!("{op} {}", set(name, value.as_deref()))
            })),
            ConfigChange::Replace(configs) => {
                let all = audit::list(configs.iter().map(|(name, value)| set(name, value.as_deref())));
                format!("all: {all}")
            }
        }
    }
}

/// Whether the log may have a value of this config: nobody knows what a config is about that is not known here.
fn may_be_told(name: &str) -> bool {
    let spec = rows::broker_named(name).or_else(|| rows::topic_named(name).map(|row| &row.spec));
    spec.is_some_and(|spec| spec.kind != Kind::Password)
        || logging::levels().iter().any(|(logger, _)| *logger == name)
}

pub async fn handle(context: Context, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let resources = request.resources.into_iter().map(|resource| {
        let configs = resource.configs.into_iter().map(|config| (config.name, config.value));
        (resource.resource_type, resource.resource_name, ConfigChange::Replace(configs.collect()))
    });
    let answers = alter_all(&context, resources.collect(), request.validate_only).await;
    let responses = answers.into_iter().map(|answer| alter_configs_response::ResourceResponse {
        error_code: answer.code.0,
        error_message: answer.message,
        resource_type: answer.resource_type,
        resource_name: answer.resource_name,
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

pub async fn handle_incremental(
    context: Context,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let resources = request.resources.into_iter().map(|resource| {
        let configs =
            resource.configs.into_iter().map(|config| (config.name, config.config_operation, config.value));
        (resource.resource_type, resource.resource_name, ConfigChange::Incremental(configs.collect()))
    });
    let answers = alter_all(&context, resources.collect(), request.validate_only).await;
    let responses =
        answers.into_iter().map(|answer| incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code: answer.code.0,
            error_message: answer.message,
            resource_type: answer.resource_type,
            resource_name: answer.resource_name,
        });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

struct Answer {
    resource_type: i8,
    resource_name: Str,
    code: ErrorCode,
    message: Option<Str>,
}

async fn alter_all(
    context: &Context,
    resources: Vec<(i8, Str, ConfigChange)>,
    validate_only: bool,
) -> Vec<Answer> {
    let mut named: HashMap<(i8, Str), usize> = HashMap::new();
    for (kind, name, _) in &resources {
        *named.entry((*kind, name.clone())).or_default() += 1;
    }
    let mut answers: Vec<Answer> = Vec::with_capacity(resources.len());
    for (resource_type, resource_name, asked) in resources {
        let result = if named[&(resource_type, resource_name.clone())] > 1 {
            Err(ChangeError::new(ErrorCode::INVALID_REQUEST, "Each resource must appear at most once."))
        } else {
            let compacts = asked.compacts();
            let audited = (!validate_only).then(|| {
                let on = format!("{}:{resource_name}", resource::kind_name(resource_type));
                context.change("alter configs", &on, asked.details())
            });
            let altered = alter_one(context, resource_type, &resource_name, asked, validate_only).await;
            if let Some(audited) = audited {
                audited.done(&altered);
            }
            altered.map(|()| unbuilt::remark(context, &resource_name, compacts))
        };
        let (code, message) = match result {
            Ok(remark) => (ErrorCode::NONE, remark.map(Str::from)),
            Err(error) => (error.code, told(error.message)),
        };
        answers.push(Answer { resource_type, resource_name, code, message });
    }
    answers
}

async fn alter_one(
    context: &Context,
    resource_type: i8,
    name: &Str,
    asked: ConfigChange,
    validate_only: bool,
) -> Result<(), ChangeError> {
    let shard = &context.shard;
    let node = shard.identity.node_id;
    let resource = Resource::to_alter(resource_type, name, node, asked.is_incremental(), asked.first_key())?;
    let resource = match resource {
        Resource::Topic(topic) => {
            crate::topic_name::check(topic).map_err(|why| {
                ChangeError::new(ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {why}"))
            })?;
            ResourceKey::Topic(name.clone())
        }
        Resource::Broker => ResourceKey::Broker(node.to_string()),
        Resource::Cluster => ResourceKey::Broker(String::new()),
        Resource::Loggers => return alter_loggers(&asked, validate_only),
        Resource::Empty => return Ok(()),
    };
    let change = Change::AlterConfigs { resource, change: asked };
    shard.change(change, Terms::new(validate_only, None)).await?;
    Ok(())
}

/// Levels of this process's loggers (KIP-412). They hold until the process ends.
fn alter_loggers(asked: &ConfigChange, validate_only: bool) -> Result<(), ChangeError> {
    let ConfigChange::Incremental(changes) = asked else { return Ok(()) };
    let changes: Vec<alter::Change<'_>> = changes
        .iter()
        .map(|(name, op, value)| alter::Change { name, op: *op, value: value.as_deref() })
        .collect();
    Ok(logging::alter_levels(&changes, validate_only)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audit_has_no_values_of_what_is_not_known() {
        let set = |name: &str| (Str::from(name), 0, Some(Str::from("hunter2")));
        let details = ConfigChange::Incremental(vec![set("retention.ms"), set("ssl.key.password")]).details();
        assert_eq!(details, "SET retention.ms=hunter2, SET ssl.key.password=[hidden]");
        let replaced =
            ConfigChange::Replace(vec![("sasl.jaas.config".into(), Some("hunter2".into()))]).details();
        assert_eq!(replaced, "all: sasl.jaas.config=[hidden]");
    }
}
