//! DescribeCluster, DescribeTopicPartitions, DescribeLogDirs, ListConfigResources, FindCoordinator, InitProducerId.

use super::super::Case;
use super::super::normalise::MADE_UP_PRODUCER_ID;
use super::super::session::Session;
use super::records::{batch, of_size};
use anyhow::Result;
use corelog_wire::Str;
use corelog_wire::messages::describe_log_dirs_request::DescribableLogDirTopic;
use corelog_wire::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use corelog_wire::messages::{
    DescribeClusterRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, FindCoordinatorRequest,
    InitProducerIdRequest, ListConfigResourcesRequest,
};

pub const CASES: &[Case] = &[
    Case { name: "describe cluster", run: describe_cluster },
    Case { name: "describe topic partitions", run: describe_topic_partitions },
    Case { name: "describe log dirs", run: describe_log_dirs },
    Case { name: "list config resources", run: list_config_resources },
    Case { name: "find coordinator", run: find_coordinator },
    Case { name: "init producer id", run: init_producer_id },
];

fn describe_cluster(s: &mut Session) -> Result<()> {
    s.each("plain", |_| DescribeClusterRequest::default());
    s.each("operations", |_| DescribeClusterRequest {
        include_cluster_authorized_operations: true,
        ..Default::default()
    });
    for v in 1..=s.newest::<DescribeClusterRequest>() {
        for endpoint_type in [0, 2, 3, -1] {
            let request = DescribeClusterRequest { endpoint_type, ..Default::default() };
            s.ask(&format!("endpoint type {endpoint_type}"), v, &request);
        }
    }
    for v in 2..=s.newest::<DescribeClusterRequest>() {
        s.ask(
            "fenced brokers too",
            v,
            &DescribeClusterRequest { include_fenced_brokers: true, ..Default::default() },
        );
    }
    Ok(())
}

fn describe_topic_partitions(s: &mut Session) -> Result<()> {
    let a = s.topic("a", 3, &[])?.name;
    let b = s.topic("b", 2, &[])?.name;
    let missing = s.name("missing");
    let ask = |s: &mut Session, step: &str, names: &[&Str], limit: i32, cursor: Option<(&Str, i32)>| {
        let request = DescribeTopicPartitionsRequest {
            topics: names.iter().map(|name| TopicRequest { name: (*name).clone() }).collect(),
            response_partition_limit: limit,
            cursor: cursor
                .map(|(name, partition_index)| Cursor { topic_name: name.clone(), partition_index }),
        };
        for v in s.versions::<DescribeTopicPartitionsRequest>() {
            s.ask(step, v, &request);
        }
    };
    ask(s, "one", &[&a], 2000, None);
    ask(s, "both, in another order", &[&b, &a], 2000, None);
    ask(s, "one is missing", &[&missing, &a], 2000, None);
    ask(s, "twice the same", &[&a, &a], 2000, None);
    ask(s, "bad name", &[&Str::from("a/b")], 2000, None);
    ask(s, "no name", &[&Str::new()], 2000, None);
    for limit in [1, 2, 3, 4, 5] {
        ask(s, &format!("limit {limit}"), &[&a, &b], limit, None);
        ask(s, &format!("limit {limit} from the second partition"), &[&a, &b], limit, Some((&a, 1)));
    }
    for limit in [0, -1, i32::MAX] {
        ask(s, &format!("limit {limit}"), &[&a], limit, None);
    }
    ask(s, "cursor at the second topic", &[&a, &b], 2000, Some((&b, 0)));
    ask(s, "cursor past the partitions", &[&a, &b], 2000, Some((&a, 7)));
    ask(s, "cursor at the last partition there could be", &[&a, &b], 2000, Some((&a, i32::MAX)));
    ask(s, "cursor at a negative partition", &[&a, &b], 2000, Some((&a, -1)));
    ask(s, "cursor at a missing topic", &[&a, &b], 2000, Some((&missing, 0)));
    ask(s, "cursor past all topics", &[&a, &b], 2000, Some((&Str::from("zzz"), 0)));
    Ok(())
}

fn describe_log_dirs(s: &mut Session) -> Result<()> {
    let t = s.topic("t", 2, &[])?;
    let missing = s.name("missing");
    s.produce(&t, 0, batch(&["one", "two"]))?;
    s.produce(&t, 1, of_size(5000))?;
    let of = |name: &Str, partitions: &[i32]| DescribableLogDirTopic {
        topic: name.clone(),
        partitions: partitions.to_vec(),
    };
    s.each("topic", |_| DescribeLogDirsRequest { topics: Some(vec![of(&t.name, &[0, 1])]) });
    s.each("unknown partition", |_| DescribeLogDirsRequest { topics: Some(vec![of(&t.name, &[1, 7])]) });
    s.each("unknown topic", |_| DescribeLogDirsRequest { topics: Some(vec![of(&missing, &[0])]) });
    s.each("no topics", |_| DescribeLogDirsRequest { topics: Some(Vec::new()) });
    s.each("no partitions", |_| DescribeLogDirsRequest { topics: Some(vec![of(&t.name, &[])]) });
    let all = s.quiet(4, &DescribeLogDirsRequest { topics: None })?;
    let mut sizes: Vec<i64> = all
        .results
        .iter()
        .flat_map(|dir| &dir.topics)
        .filter(|topic| topic.name == t.name)
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.partition_size)
        .collect();
    // In no order: Kafka keeps them in a map.
    sizes.sort_unstable();
    s.note("in all topics", format!("{sizes:?}"));
    Ok(())
}

fn list_config_resources(s: &mut Session) -> Result<()> {
    s.ask("version 0", 0, &ListConfigResourcesRequest::default());
    let topic = s.topic("t", 1, &[])?.name;
    for v in 1..=s.newest::<ListConfigResourcesRequest>() {
        for resource_type in [4, 8, 16, 32, 0, 1, 3, 64, -1] {
            let request = ListConfigResourcesRequest { resource_types: vec![resource_type] };
            s.ask(&format!("type {resource_type}"), v, &request);
        }
        s.ask("two types", v, &ListConfigResourcesRequest { resource_types: vec![4, 16] });
        // Topics of all cases are among them.
        for types in [vec![], vec![2]] {
            let found = s.quiet(v, &ListConfigResourcesRequest { resource_types: types.clone() })?;
            let ours = found
                .config_resources
                .iter()
                .filter(|r| r.resource_name == topic && r.resource_type == 2)
                .count();
            let mut kinds: Vec<i8> = found.config_resources.iter().map(|r| r.resource_type).collect();
            kinds.sort();
            kinds.dedup();
            s.note(
                &format!("types {types:?}"),
                format!("error {}, {ours} of ours, types {kinds:?}", found.error_code),
            );
        }
    }
    Ok(())
}

fn find_coordinator(s: &mut Session) -> Result<()> {
    let group = s.group("g")?;
    let find = |v: i16, key_type: i8, keys: &[&Str]| {
        let mut request = FindCoordinatorRequest { key_type, ..Default::default() };
        if v < 4 {
            request.key = keys[0].clone();
        } else {
            request.coordinator_keys = keys.iter().map(|key| (*key).clone()).collect();
        }
        request
    };
    for v in s.versions::<FindCoordinatorRequest>() {
        s.ask("group", v, &find(v, 0, &[&group]));
        s.ask("empty name", v, &find(v, 0, &[&Str::new()]));
        if v >= 1 {
            for key_type in [3, -1] {
                s.ask(&format!("key type {key_type}"), v, &find(v, key_type, &[&group]));
            }
        }
        if v >= 4 {
            s.ask("several", v, &find(v, 0, &[&group, &Str::from("other"), &group]));
            s.ask("none", v, &find(v, 0, &[]));
        }
    }
    Ok(())
}

fn init_producer_id(s: &mut Session) -> Result<()> {
    super::idempotence::new_producer(s)?;
    s.each("new", |_| InitProducerIdRequest { transaction_timeout_ms: 60_000, ..Default::default() });
    s.each("timeout 0", |_| InitProducerIdRequest { transaction_timeout_ms: 0, ..Default::default() });
    s.each("timeout negative", |_| InitProducerIdRequest {
        transaction_timeout_ms: -1,
        ..Default::default()
    });
    s.each("empty transactional id", |_| InitProducerIdRequest {
        transactional_id: Some(Str::new()),
        transaction_timeout_ms: 60_000,
        ..Default::default()
    });
    for v in 3..=s.newest::<InitProducerIdRequest>() {
        for (step, producer_id, producer_epoch) in [
            ("id and epoch", MADE_UP_PRODUCER_ID, 3),
            ("id without epoch", MADE_UP_PRODUCER_ID, -1),
            ("epoch without id", -1, 3),
            ("negative id", -2, 3),
        ] {
            s.ask(
                step,
                v,
                &InitProducerIdRequest {
                    transaction_timeout_ms: 60_000,
                    producer_id,
                    producer_epoch,
                    ..Default::default()
                },
            );
        }
    }
    Ok(())
}
