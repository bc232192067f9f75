//! Which resource a config request is about, or why it is refused: Kafka's resource types, and its words.

use super::alter::Refusal;

/// A resource that has configs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic's name, which need be neither valid nor there.
    Topic(&'a str),
    /// This broker.
    Broker,
    /// The default of all brokers.
    Cluster,
    /// The loggers of this process (KIP-412).
    Loggers,
    /// Can be asked about, and has no configs: consumer groups and client metrics, as long as nothing of them can be
    /// set. Never to be altered.
    Empty,
}

/// Kafka's numbers of the resource types.
pub mod kind {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

/// The name of a resource type.
pub fn kind_name(kind: i8) -> &'static str {
    match kind {
        kind::TOPIC => "topic",
        kind::BROKER => "broker",
        kind::BROKER_LOGGER => "logger",
        kind::CLIENT_METRICS => "client-metrics",
        kind::GROUP => "group",
        _ => "unknown",
    }
}

fn refuse<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Request(what.into()))
}

impl<'a> Resource<'a> {
    /// For DescribeConfigs, on the broker `node`.
    pub fn to_describe(kind: i8, name: &'a str, node: i32) -> Result<Resource<'a>, Refusal> {
        let id = || match name.parse::<i32>() {
            Ok(id) => Ok(id),
            Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
        };
        match kind {
            kind::TOPIC => Ok(Resource::Topic(name)),
            kind::BROKER if name.is_empty() => Ok(Resource::Cluster),
            kind::BROKER if id()? == node => Ok(Resource::Broker),
            kind::BROKER => {
                refuse(format!("Unexpected broker id, expected {node} or empty string, but received {name}"))
            }
            kind::BROKER_LOGGER if name.is_empty() => refuse("Broker id must not be empty"),
            kind::BROKER_LOGGER if id()? == node => Ok(Resource::Loggers),
            kind::BROKER_LOGGER => {
                refuse(format!("Unexpected broker id, expected {node} but received {name}"))
            }
            kind::CLIENT_METRICS if name.is_empty() => {
                refuse("Client metrics subscription name must not be empty")
            }
            kind::GROUP if name.is_empty() => refuse("Group name must not be empty"),
            kind::CLIENT_METRICS | kind::GROUP => Ok(Resource::Empty),
            _ => refuse(format!("Unsupported resource type: {kind}")),
        }
    }

    /// For AlterConfigs and, `incremental`, IncrementalAlterConfigs. `first_key` is the first that is to be altered.
    pub fn to_alter(
        kind: i8,
        name: &'a str,
        node: i32,
        incremental: bool,
        first_key: Option<&str>,
    ) -> Result<Resource<'a>, Refusal> {
        let id = || match name.parse::<i32>() {
            Ok(id) => Ok(id),
            Err(_) => refuse(format!("Node id must be an integer, but it is: {name}")),
        };
        let key = first_key.unwrap_or_default();
        match kind {
            kind::TOPIC if name.is_empty() => refuse("Default topic resources are not allowed."),
            kind::TOPIC => Ok(Resource::Topic(name)),
            kind::BROKER if name.is_empty() => Ok(Resource::Cluster),
            kind::BROKER if id()? == node => Ok(Resource::Broker),
            kind::BROKER => refuse(format!("Unexpected broker id, expected {node}, but received {name}")),
            kind::BROKER_LOGGER if incremental && id()? == node => Ok(Resource::Loggers),
            kind::BROKER_LOGGER if incremental => {
                refuse(format!("Unexpected node id. Expected {node}, but received {name}"))
            }
            kind::CLIENT_METRICS if name.is_empty() => refuse("Subscription name can't be empty"),
            kind::CLIENT_METRICS => refuse(format!(
                "Unknown client metrics configuration: {key} (client telemetry, KIP-714, isn't built yet)"
            )),
            kind::GROUP if name.is_empty() => refuse("Default group resources are not allowed."),
            kind::GROUP => Err(Refusal::Config(format!(
                "Unknown group config name: {key} (classic groups have none; the protocols that do aren't built yet)"
            ))),
            _ => refuse(format!("Unknown resource type {kind}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outcome: Result<Resource<'_>, Refusal>) -> String {
        outcome.map_or_else(
            |refusal| format!("{} {refusal}", refusal.code()),
            |resource| format!("{resource:?}"),
        )
    }

    #[test]
    fn described() {
        for (kind, name, expected) in [
            (2, "t", "Topic(\"t\")"),
            (4, "", "Cluster"),
            (4, "1", "Broker"),
            (4, "2", "42 Unexpected broker id, expected 1 or empty string, but received 2"),
            (4, "x", "42 Broker id must be an integer, but it is: x"),
            (8, "1", "Loggers"),
            (8, "", "42 Broker id must not be empty"),
            (8, "2", "42 Unexpected broker id, expected 1 but received 2"),
            (16, "m", "Empty"),
            (16, "", "42 Client metrics subscription name must not be empty"),
            (32, "g", "Empty"),
            (32, "", "42 Group name must not be empty"),
            (0, "x", "42 Unsupported resource type: 0"),
        ] {
            assert_eq!(said(Resource::to_describe(kind, name, 1)), expected);
        }
    }

    #[test]
    fn altered() {
        for (kind, name, expected) in [
            (2, "t", "Topic(\"t\")"),
            (2, "", "42 Default topic resources are not allowed."),
            (4, "", "Cluster"),
            (4, "1", "Broker"),
            (4, "2", "42 Unexpected broker id, expected 1, but received 2"),
            (4, "x", "42 Node id must be an integer, but it is: x"),
            (8, "1", "Loggers"),
            (8, "", "42 Node id must be an integer, but it is: "),
            (8, "2", "42 Unexpected node id. Expected 1, but received 2"),
            (16, "", "42 Subscription name can't be empty"),
            (
                16,
                "m",
                "42 Unknown client metrics configuration: k (client telemetry, KIP-714, isn't built yet)",
            ),
            (32, "", "42 Default group resources are not allowed."),
            (
                32,
                "g",
                "40 Unknown group config name: k (classic groups have none; the protocols that do aren't built yet)",
            ),
            (99, "x", "42 Unknown resource type 99"),
        ] {
            assert_eq!(said(Resource::to_alter(kind, name, 1, true, Some("k"))), expected);
        }
        assert_eq!(said(Resource::to_alter(8, "1", 1, false, None)), "42 Unknown resource type 8");
    }
}
