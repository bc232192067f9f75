import pytest
from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, NewPartitions, NewTopic,
                                   OffsetSpec, ResourceType)

from conftest import TIMEOUT_S, produce_all, unique, wait_for


def code(future):
    return future.exception(TIMEOUT_S).args[0].code()


def test_cluster(admin):
    cluster = admin.describe_cluster(request_timeout=TIMEOUT_S).result()
    assert cluster.cluster_id
    [node] = cluster.nodes
    assert cluster.controller.id == node.id
    metadata = admin.list_topics(timeout=TIMEOUT_S)
    assert metadata.cluster_id == cluster.cluster_id
    assert list(metadata.brokers) == [node.id]


def test_create_and_delete(admin):
    name = unique("t")
    new = NewTopic(name, num_partitions=3, replication_factor=1, config={"retention.ms": "1000000"})
    # Only a check: nothing is made.
    assert admin.create_topics([new], validate_only=True)[name].result(TIMEOUT_S) is None
    assert name not in admin.list_topics(timeout=TIMEOUT_S).topics
    admin.create_topics([new])[name].result(TIMEOUT_S)
    topic = admin.list_topics(name, timeout=TIMEOUT_S).topics[name]
    assert sorted(topic.partitions) == [0, 1, 2]
    assert all(p.leader == p.replicas[0] == p.isrs[0] for p in topic.partitions.values())
    assert code(admin.create_topics([new])[name]) == KafkaError.TOPIC_ALREADY_EXISTS
    admin.delete_topics([name])[name].result(TIMEOUT_S)
    wait_for(lambda: name not in admin.list_topics(timeout=TIMEOUT_S).topics)
    assert code(admin.delete_topics([name])[name]) == KafkaError.UNKNOWN_TOPIC_OR_PART


@pytest.mark.parametrize("new, error", [
    (NewTopic("bad/name", 1, 1), KafkaError.TOPIC_EXCEPTION),
    (NewTopic("x" * 250, 1, 1), KafkaError.TOPIC_EXCEPTION),
    (NewTopic("..", 1, 1), KafkaError.TOPIC_EXCEPTION),
    (NewTopic("no-partitions", 0, 1), KafkaError.INVALID_PARTITIONS),
    (NewTopic("too-many-replicas", 1, 3), KafkaError.INVALID_REPLICATION_FACTOR),
    (NewTopic("unknown-config", 1, 1, config={"no.such.config": "1"}), KafkaError.INVALID_CONFIG),
    (NewTopic("bad-config", 1, 1, config={"retention.ms": "soon"}), KafkaError.INVALID_CONFIG),
], ids=lambda v: v.topic[:20] if isinstance(v, NewTopic) else None)
def test_create_refused(admin, new, error):
    assert code(admin.create_topics([new])[new.topic]) == error
    assert new.topic not in admin.list_topics(timeout=TIMEOUT_S).topics


def test_colliding_names(admin):
    name = unique("a.b")
    admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_S)
    other = name.replace(".", "_")
    assert code(admin.create_topics([NewTopic(other, 1, 1)])[other]) == KafkaError.TOPIC_EXCEPTION


def test_burst_of_topics(admin, make_producer):
    """As soon as Metadata shows a topic, it can be written."""
    names = [unique("burst") for _ in range(50)]
    for future in admin.create_topics([NewTopic(n, 2, 1) for n in names]).values():
        future.result(TIMEOUT_S)
    producer = make_producer()
    for name in names:
        produce_all(producer, name, [{"value": b"x", "partition": 1}])


def test_describe_topics(admin, make_topic):
    name = make_topic(partitions=2)
    found = admin.describe_topics(TopicCollection([name, "nobody-made-this"]), request_timeout=TIMEOUT_S)
    topic = found[name].result()
    assert [p.id for p in topic.partitions] == [0, 1] and not topic.is_internal
    assert code(found["nobody-made-this"]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_create_partitions(admin, make_topic):
    name = make_topic(partitions=2)
    admin.create_partitions([NewPartitions(name, 5)])[name].result(TIMEOUT_S)
    wait_for(lambda: len(admin.list_topics(name, timeout=TIMEOUT_S).topics[name].partitions) == 5)
    for count in (5, 3):
        assert code(admin.create_partitions([NewPartitions(name, count)])[name]) == KafkaError.INVALID_PARTITIONS


def configs(admin, kind, name):
    resource = ConfigResource(kind, name)
    return admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()


def test_topic_configs(admin, make_topic):
    name = make_topic(retention_ms=123456789)
    entries = configs(admin, ResourceType.TOPIC, name)
    retention = entries["retention.ms"]
    assert retention.value == "123456789"
    assert retention.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert not retention.is_default and not retention.is_read_only
    assert entries["max.message.bytes"].value == "1048588"
    assert entries["max.message.bytes"].source == ConfigSource.DEFAULT_CONFIG.value
    assert "message.max.bytes" in entries["max.message.bytes"].synonyms

    def alter(name_, value, operation):
        resource = ConfigResource(ResourceType.TOPIC, name)
        resource.add_incremental_config(ConfigEntry(name_, value, incremental_operation=operation))
        return admin.incremental_alter_configs([resource], request_timeout=TIMEOUT_S)[resource]
    alter("retention.bytes", "1000000", AlterConfigOpType.SET).result()
    alter("retention.ms", None, AlterConfigOpType.DELETE).result()
    entries = wait_for(lambda: (e := configs(admin, ResourceType.TOPIC, name))["retention.bytes"].value == "1000000" and e)
    assert entries["retention.ms"].value == "604800000"
    assert code(alter("no.such.config", "1", AlterConfigOpType.SET)) == KafkaError.INVALID_CONFIG
    assert code(alter("segment.bytes", "many", AlterConfigOpType.SET)) == KafkaError.INVALID_CONFIG


def test_broker_configs(admin):
    [node] = admin.list_topics(timeout=TIMEOUT_S).brokers
    entries = configs(admin, ResourceType.BROKER, str(node))
    assert entries["auto.create.topics.enable"].value == "true"
    assert entries["message.max.bytes"].value == "1048588"


def test_configs_of_unknown_topic(admin):
    resource = ConfigResource(ResourceType.TOPIC, "nobody-made-this")
    assert code(admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_list_offsets(admin, make_topic, make_producer):
    name = make_topic()
    produce_all(make_producer(), name, [{"value": b"x", "timestamp": 1_700_000_000_000 - i} for i in range(10)])

    def offset(spec):
        asked = TopicPartition(name, 0)
        future = admin.list_offsets({asked: spec}, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=TIMEOUT_S)[asked]
        return future.result().offset
    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 10
    assert offset(OffsetSpec.max_timestamp()) == 0
    assert offset(OffsetSpec.for_timestamp(1_700_000_000_000)) == 0


def test_delete_records(admin, make_topic, make_producer, make_consumer):
    name = make_topic()
    produce_all(make_producer(), name, [{"value": b"%d" % i} for i in range(10)])
    [deleted] = admin.delete_records([TopicPartition(name, 0, 4)], request_timeout=TIMEOUT_S).values()
    assert deleted.result().low_watermark == 4
    consumer = make_consumer()
    assert consumer.get_watermark_offsets(TopicPartition(name, 0), timeout=TIMEOUT_S) == (4, 10)
    [beyond] = admin.delete_records([TopicPartition(name, 0, 11)], request_timeout=TIMEOUT_S).values()
    assert code(beyond) == KafkaError.OFFSET_OUT_OF_RANGE


def test_topic_made_again_is_empty(admin, make_topic, make_producer, make_consumer):
    name = make_topic()
    produce_all(make_producer(), name, [{"value": b"old"}] * 5)
    admin.delete_topics([name])[name].result(TIMEOUT_S)
    wait_for(lambda: name not in admin.list_topics(timeout=TIMEOUT_S).topics)

    def made():
        try:
            return admin.create_topics([NewTopic(name, 1, 1)])[name].result(TIMEOUT_S) is None
        except KafkaException as e:
            assert e.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS
    wait_for(made)
    [sent] = produce_all(make_producer(), name, [{"value": b"new"}])
    assert sent.offset() == 0
