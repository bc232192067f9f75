//! DescribeConfigs (KIP-133, KIP-226, KIP-569).

use corelog_wire::messages::describe_configs_request::Resource;
use corelog_wire::messages::describe_configs_response::{
    DescribeConfigsResult, ResourceResult, Synonym,
};
use corelog_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use corelog_wire::{ErrorCode, Str};

use super::Context;
use crate::config::describe::{self, Entry, Wanted};
use crate::config::Source;
use crate::logging;
use crate::topic_name;

/// Resource types, as the protocol numbers them.
pub const TOPIC: i8 = 2;
pub const BROKER: i8 = 4;
pub const BROKER_LOGGER: i8 = 8;

pub async fn handle(context: Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let mut results = Vec::with_capacity(request.resources.len());
    for resource in request.resources {
        let described = entries(&context, &resource);
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name,
            ..Default::default()
        };
        match described {
            Ok(entries) => {
                result.configs = entries
                    .into_iter()
                    .map(|entry| {
                        shown(entry, request.include_synonyms, request.include_documentation)
                    })
                    .collect();
            }
            Err((code, message)) => {
                result.error_code = code.0;
                result.error_message = Some(message.into());
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse { results, ..Default::default() }
}

fn entries(context: &Context, resource: &Resource) -> Result<Vec<Entry>, (ErrorCode, String)> {
    let shard = &context.shard;
    let image = shard.image();
    let node = shard.identity.node_id;
    let name: &str = &resource.resource_name;
    let keys: Option<Vec<&str>> =
        resource.configuration_keys.as_ref().map(|keys| keys.iter().map(|key| &**key).collect());
    let wanted = Wanted(keys.as_deref());
    let (own, cluster) = image.broker_layers(node);
    let layers = shard.settings.layers(own, cluster);
    let unexpected = || {
        (
            ErrorCode::INVALID_REQUEST,
            format!("Unexpected broker id, expected {node} or empty string, but received {name}"),
        )
    };
    match resource.resource_type {
        TOPIC => {
            topic_name::check(name)
                .map_err(|why| (ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {why}")))?;
            let topic = image.topic(name).ok_or_else(|| {
                let code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                (code, code.message().to_string())
            })?;
            Ok(describe::topic(&layers, &topic.overrides, wanted))
        }
        BROKER if name.is_empty() => Ok(describe::cluster(&layers, wanted)),
        BROKER if name == node.to_string() => Ok(describe::broker(&layers, wanted)),
        BROKER => Err(unexpected()),
        BROKER_LOGGER if name == node.to_string() => Ok(describe::loggers(logging::levels(), wanted)),
        BROKER_LOGGER => Err(unexpected()),
        other => Err((ErrorCode::INVALID_REQUEST, format!("resource type {other} has no configs here"))),
    }
}

fn shown(entry: Entry, synonyms: bool, documentation: bool) -> ResourceResult {
    let all = entry.synonyms.into_iter().map(|synonym| Synonym {
        name: synonym.name.into(),
        value: Some(synonym.value.into()),
        source: synonym.source as i8,
        ..Default::default()
    });
    ResourceResult {
        name: entry.name.into(),
        value: entry.value.map(Into::into),
        read_only: entry.read_only,
        is_default: matches!(entry.source, Source::Default),
        config_source: entry.source as i8,
        synonyms: if synonyms { all.collect() } else { Vec::new() },
        config_type: entry.kind.map_or(0, |kind| kind as i8),
        documentation: entry.documentation.filter(|_| documentation).map(Str::from),
        ..Default::default()
    }
}
