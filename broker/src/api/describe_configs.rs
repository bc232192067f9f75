//! DescribeConfigs (KIP-133, KIP-226, KIP-569).

use std::collections::HashSet;

use corelog_io::yield_if_needed;
use corelog_wire::messages::describe_configs_request::Resource as Asked;
use corelog_wire::messages::describe_configs_response::{DescribeConfigsResult, ResourceResult, Synonym};
use corelog_wire::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use corelog_wire::{ErrorCode, Str};

use super::context::{Context, told};
use crate::config::alter::Refusal;
use crate::config::describe::{self, Entry, Wanted};
use crate::config::resource::Resource;
use crate::config::{Kind, Source};
use crate::logging;
use crate::topic_name;

/// What of an entry a request and its version ask for.
#[derive(Clone, Copy)]
struct Shown {
    version: i16,
    synonyms: bool,
    documentation: bool,
}

pub async fn handle(context: Context, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let shown = Shown {
        version: context.api_version,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let mut results = Vec::new();
    // One that is named again is described already: some bytes more of the request would be kilobytes of the answer.
    let mut seen = HashSet::new();
    for asked in request.resources {
        if !seen.insert((asked.resource_type, asked.resource_name.clone())) {
            continue;
        }
        yield_if_needed().await;
        let described = entries(&context, &asked);
        let mut result = DescribeConfigsResult {
            resource_type: asked.resource_type,
            resource_name: asked.resource_name,
            ..Default::default()
        };
        match described {
            Ok(entries) => {
                result.configs = entries.into_iter().map(|entry| shown.result(entry)).collect();
                // As Kafka has it: null would mean that a code comes without a message.
                result.error_message = Some(Str::default());
            }
            Err((code, message)) => {
                result.error_code = code.0;
                result.error_message = told(message);
            }
        }
        results.push(result);
    }
    DescribeConfigsResponse { results, ..Default::default() }
}

fn entries(context: &Context, asked: &Asked) -> Result<Vec<Entry>, (ErrorCode, String)> {
    let shard = &context.shard;
    let image = shard.image();
    let node = shard.identity.node_id;
    let keys: Option<Vec<&str>> =
        asked.configuration_keys.as_ref().map(|keys| keys.iter().map(|key| &**key).collect());
    let wanted = Wanted(keys.as_deref());
    let (own, cluster) = image.broker_layers(node);
    let layers = shard.settings.layers(own, cluster);
    let resource = Resource::to_describe(asked.resource_type, &asked.resource_name, node)
        .map_err(|refusal: Refusal| (ErrorCode(refusal.code()), refusal.to_string()))?;
    match resource {
        Resource::Topic(name) => {
            topic_name::check(name).map_err(|why| {
                (ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {why}"))
            })?;
            // Kafka says nothing beyond the code, in an empty message.
            let unknown = || (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, String::new());
            let topic = image.topic(name).ok_or_else(unknown)?;
            Ok(describe::topic(&layers, &topic.overrides, wanted))
        }
        Resource::Cluster => Ok(describe::cluster(&layers, wanted)),
        Resource::Broker => Ok(describe::broker(&layers, wanted)),
        Resource::Loggers => Ok(describe::loggers(logging::levels(), wanted)),
        Resource::Empty => Ok(Vec::new()),
    }
}

impl Shown {
    fn result(self, entry: Entry) -> ResourceResult {
        let is_secret = entry.kind == Some(Kind::Password);
        let synonyms = entry.synonyms.into_iter().map(|synonym| Synonym {
            name: synonym.name.into(),
            value: Some(synonym.value.into()).filter(|_| !is_secret),
            source: synonym.source as i8,
        });
        ResourceResult {
            name: entry.name.into(),
            value: entry.value.map(Into::into).filter(|_| !is_secret),
            is_sensitive: is_secret,
            read_only: entry.read_only,
            // Later versions tell the source instead, and have no place for this.
            is_default: self.version == 0 && entry.source == Source::Default,
            config_source: entry.source as i8,
            synonyms: if self.synonyms { synonyms.collect() } else { Vec::new() },
            config_type: entry.kind.map_or(0, |kind| kind as i8),
            documentation: entry.documentation.filter(|_| self.documentation).map(Str::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use corelog_wire::frame;

    use super::*;
    use crate::config::{ConfigMap, Layers, StaticConfig};

    #[test]
    fn a_secret_is_told_to_nobody() {
        let synonym = describe::Synonym { name: "x", value: "hunter2".into(), source: Source::Static };
        let entry = |kind| Entry {
            name: "x",
            value: Some("hunter2".into()),
            source: Source::Static,
            synonyms: vec![synonym.clone()],
            kind: Some(kind),
            documentation: None,
            read_only: true,
        };
        let shown = Shown { version: 4, synonyms: true, documentation: true };
        let open = shown.result(entry(Kind::String));
        assert!(!open.is_sensitive && open.value.is_some() && open.synonyms[0].value.is_some());
        let secret = shown.result(entry(Kind::Password));
        assert!(secret.is_sensitive && secret.value.is_none() && secret.synonyms[0].value.is_none());
    }

    /// A field that is set but absent from a version makes the whole answer impossible to encode.
    #[test]
    fn entries_fit_every_version() {
        let (none, fixed) = (ConfigMap::new(), StaticConfig::default());
        let layers = Layers { broker: &none, cluster: &none, fixed: &fixed };
        for version in 0..=4 {
            let shown = Shown { version, synonyms: version >= 1, documentation: version >= 3 };
            let entries = describe::broker(&layers, Wanted(None)).into_iter().chain(describe::topic(
                &layers,
                &none,
                Wanted(None),
            ));
            let configs: Vec<ResourceResult> = entries.map(|entry| shown.result(entry)).collect();
            assert!(configs.len() > 100);
            let results = vec![DescribeConfigsResult { configs, ..Default::default() }];
            let response = DescribeConfigsResponse { results, ..Default::default() };
            frame::response(&response, version, 1).unwrap_or_else(|error| panic!("v{version}: {error}"));
        }
    }
}
