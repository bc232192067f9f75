"""What kafka-python's own integration tests leave out: header and null values, sizes, static members."""

import os
import time
import uuid

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import MessageSizeTooLargeError

BOOTSTRAP = os.environ["BOOTSTRAP"]
# max.message.bytes less what a batch of one record without key or headers needs.
LARGEST_VALUE = 1048588 - 72


@pytest.fixture
def topic():
    name = f"values-{uuid.uuid4().hex[:8]}"
    with KafkaAdminClient(bootstrap_servers=BOOTSTRAP) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
    return name


def send(topic, records, **config):
    with KafkaProducer(bootstrap_servers=BOOTSTRAP, **config) as producer:
        return [producer.send(topic, partition=0, **r).get(20) for r in records]


def read(topic, count, **config):
    with KafkaConsumer(bootstrap_servers=BOOTSTRAP, consumer_timeout_ms=20000, fetch_max_wait_ms=100, **config) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        got = [next(consumer) for _ in range(count)]
        assert consumer.poll(200) == {}
        return got


def test_headers_and_nulls(topic):
    records = [
        # kafka-python itself refuses a record with neither key nor value.
        {"key": None, "value": b"v0", "headers": [("a", b"1"), ("a", b"2"), ("empty", b"")]},
        {"key": b"", "value": b"", "headers": []},
        {"key": b"k", "value": None, "headers": [("größe", bytes(range(256)))]},
        {"key": None, "value": b"v", "headers": [], "timestamp_ms": 1_600_000_000_123},
    ]
    send(topic, records)
    got = read(topic, 4)
    assert [(m.key, m.value, list(m.headers)) for m in got] == [(r["key"], r["value"], r["headers"]) for r in records]
    assert got[3].timestamp == 1_600_000_000_123


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [True, False])
def test_codecs_and_idempotence(topic, codec, idempotent):
    records = [{"key": b"%d" % i, "value": b"some text " * (i % 50)} for i in range(500)]
    with KafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=codec, enable_idempotence=idempotent, linger_ms=20) as producer:
        for future in [producer.send(topic, partition=0, **r) for r in records]:
            future.get(20)
    assert [(m.key, m.value) for m in read(topic, 500)] == [(r["key"], r["value"]) for r in records]


def test_sizes(topic):
    send(topic, [{"value": b"x" * LARGEST_VALUE}], max_request_size=4_000_000)
    with pytest.raises(MessageSizeTooLargeError):
        send(topic, [{"value": b"x" * (LARGEST_VALUE + 1)}], max_request_size=4_000_000)
    send(topic, [{"value": b"small"}])
    got = read(topic, 2, max_partition_fetch_bytes=1000, fetch_max_bytes=2000)
    assert [len(m.value) for m in got] == [LARGEST_VALUE, 5]


def test_static_member_comes_back(topic):
    send(topic, [{"value": b"%d" % i} for i in range(10)])
    group = f"g-{uuid.uuid4().hex[:8]}"
    seen = []
    for _ in range(2):
        with KafkaConsumer(topic, bootstrap_servers=BOOTSTRAP, group_id=group, group_instance_id="one", auto_offset_reset="earliest",
                           max_poll_records=5, fetch_max_wait_ms=100) as consumer:
            deadline = time.monotonic() + 20
            batch = {}
            while not batch:
                assert time.monotonic() < deadline
                batch = consumer.poll(200)
            seen += [m.value for records in batch.values() for m in records]
            consumer.commit()
    assert seen == [b"%d" % i for i in range(10)]
