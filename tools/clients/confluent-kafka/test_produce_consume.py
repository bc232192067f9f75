import pytest
from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaError,
                             KafkaException, TopicPartition)

from conftest import TIMEOUT_S, drain, produce_all

# The largest value of a record with neither key nor headers, alone in its batch, under the default max.message.bytes.
LARGEST_VALUE = 1048588 - 72


def from_start(consumer, topic, partition=0):
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    return consumer


def test_order_and_offsets(make_topic, make_producer, make_consumer):
    topic = make_topic()
    sent = produce_all(make_producer(), topic, [{"value": b"%d" % i} for i in range(5000)])
    assert [m.offset() for m in sent] == list(range(5000))
    got = drain(from_start(make_consumer(), topic), 5000)
    assert [m.value() for m in got] == [b"%d" % i for i in range(5000)]
    assert [m.offset() for m in got] == list(range(5000))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("idempotent", [False, True])
def test_codecs(make_topic, make_producer, make_consumer, codec, idempotent):
    topic = make_topic()
    messages = [{"key": b"k%d" % i, "value": (b"value-%d-" % i) * (i % 50)} for i in range(2000)]
    produce_all(make_producer(compression_type=codec, enable_idempotence=idempotent, linger_ms=50), topic, messages)
    got = drain(from_start(make_consumer(), topic), len(messages))
    assert [(m.key(), m.value()) for m in got] == [(m["key"], m["value"]) for m in messages]


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd", "snappy", "uncompressed"])
def test_topic_compression(make_topic, make_producer, make_consumer, codec):
    """The topic's codec differs from the producer's: the broker recompresses; what is read is what was sent."""
    topic = make_topic(compression_type=codec)
    messages = [{"value": b"text " * (i % 40)} for i in range(500)]
    for producer_codec in ["none", "gzip", "zstd"]:
        produce_all(make_producer(compression_type=producer_codec), topic, messages)
    got = drain(from_start(make_consumer(), topic), 1500)
    assert [m.value() for m in got] == [m["value"] for m in messages] * 3


def test_headers_nulls_and_timestamps(make_topic, make_producer, make_consumer):
    topic = make_topic()
    messages = [
        {"key": None, "value": None},
        {"key": b"", "value": b""},
        {"key": b"k", "value": None, "headers": [("a", b"1"), ("a", b"2"), ("null", None), ("empty", b"")]},
        {"key": None, "value": "grüße".encode(), "headers": [("schlüssel", bytes(range(256)))], "timestamp": 1_600_000_000_123},
    ]
    produce_all(make_producer(), topic, messages)
    got = drain(from_start(make_consumer(), topic), 4)
    assert [(m.key(), m.value(), m.headers()) for m in got] == [
        (m["key"], m["value"], m.get("headers")) for m in messages]
    assert got[3].timestamp() == (TIMESTAMP_CREATE_TIME, 1_600_000_000_123)


def test_log_append_time(make_topic, make_producer, make_consumer):
    topic = make_topic(message_timestamp_type="LogAppendTime")
    [sent] = produce_all(make_producer(), topic, [{"value": b"x", "timestamp": 1000}])
    [got] = drain(from_start(make_consumer(), topic), 1)
    kind, time_ms = got.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME and time_ms > 1_600_000_000_000
    # The response told the producer the same time.
    assert sent.timestamp() == (TIMESTAMP_LOG_APPEND_TIME, time_ms)


def test_timestamp_out_of_range_is_refused(make_topic, make_producer):
    topic = make_topic(message_timestamp_before_max_ms=3_600_000)
    with pytest.raises(AssertionError, match="timestamp"):
        produce_all(make_producer(), topic, [{"value": b"x", "timestamp": 1_600_000_000_000}])


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(make_topic, make_producer, make_consumer, acks):
    topic = make_topic()
    produce_all(make_producer(acks=acks), topic, [{"value": b"%d" % i} for i in range(100)])
    assert len(drain(from_start(make_consumer(), topic), 100)) == 100


def test_idempotent_order_over_partitions(make_topic, make_producer, make_consumer):
    topic = make_topic(partitions=6)
    producer = make_producer(enable_idempotence=True, batch_num_messages=20, max_in_flight_requests_per_connection=5)
    produce_all(producer, topic, [{"value": b"%d" % i, "partition": i % 6} for i in range(6000)])
    for partition in range(6):
        got = drain(from_start(make_consumer(), topic, partition), 1000)
        assert [m.value() for m in got] == [b"%d" % i for i in range(partition, 6000, 6)]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_large_message_up_to_the_limit(make_topic, make_producer, make_consumer, codec):
    topic = make_topic()
    value = b"x" * LARGEST_VALUE
    produce_all(make_producer(message_max_bytes=4_000_000, compression_type=codec), topic, [{"value": value}])
    # First batch always served, however little the consumer asks for.
    [got] = drain(from_start(make_consumer(fetch_message_max_bytes=1000, fetch_max_bytes=2000, message_max_bytes=1500), topic), 1)
    assert got.value() == value


def test_too_large_message_is_refused(make_topic, make_producer, make_consumer):
    topic = make_topic()
    producer = make_producer(message_max_bytes=4_000_000)
    errors = []
    producer.produce(topic, b"x" * (LARGEST_VALUE + 1), on_delivery=lambda e, m: errors.append(e))
    producer.flush(TIMEOUT_S)
    assert [e.code() for e in errors] == [KafkaError.MSG_SIZE_TOO_LARGE]
    produce_all(producer, topic, [{"value": b"small"}])
    [got] = drain(from_start(make_consumer(), topic), 1)
    assert (got.offset(), got.value()) == (0, b"small")


def test_limit_of_the_topic(make_topic, make_producer, make_consumer):
    small, big = make_topic(max_message_bytes=10_000), make_topic(max_message_bytes=5_000_000)
    producer = make_producer(message_max_bytes=6_000_000)
    with pytest.raises(AssertionError, match="MSG_SIZE_TOO_LARGE"):
        produce_all(producer, small, [{"value": b"x" * 10_001}])
    produce_all(producer, big, [{"value": b"y" * 4_900_000}])
    [got] = drain(from_start(make_consumer(), big), 1)
    assert len(got.value()) == 4_900_000


def test_compressed_batch_counts_compressed(make_topic, make_producer, make_consumer):
    """The limit is on the batch as it travels: 3 MB of zeros are small."""
    topic = make_topic()
    produce_all(make_producer(message_max_bytes=4_000_000, compression_type="gzip"), topic, [{"value": bytes(3_000_000)}])
    [got] = drain(from_start(make_consumer(), topic), 1)
    assert got.value() == bytes(3_000_000)


def test_seek_pause_and_position(make_topic, make_producer, make_consumer):
    topic = make_topic()
    produce_all(make_producer(), topic, [{"value": b"%d" % i} for i in range(100)])
    consumer = from_start(make_consumer(), topic)
    drain(consumer, 100)
    here = TopicPartition(topic, 0)
    assert consumer.position([here])[0].offset == 100
    assert consumer.get_watermark_offsets(here, timeout=TIMEOUT_S) == (0, 100)
    consumer.seek(TopicPartition(topic, 0, 40))
    assert drain(consumer, 60)[0].value() == b"40"
    consumer.pause([here])
    produce_all(make_producer(), topic, [{"value": b"late"}])
    assert consumer.consume(1, 0.5) == []
    consumer.resume([here])
    assert drain(consumer, 1)[0].value() == b"late"


def test_read_from_end(make_topic, make_producer, make_consumer):
    topic = make_topic()
    producer = make_producer()
    produce_all(producer, topic, [{"value": b"old"}])
    consumer = make_consumer()
    consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
    assert consumer.consume(1, 1.0) == []
    produce_all(producer, topic, [{"value": b"new"}])
    assert drain(consumer, 1)[0].value() == b"new"


def test_offsets_for_times(make_topic, make_producer, make_consumer):
    topic = make_topic()
    base = 1_700_000_000_000
    produce_all(make_producer(), topic, [{"value": b"v", "timestamp": base + i * 1000} for i in range(50)])
    consumer = make_consumer()

    def offset_at(ms):
        [p] = consumer.offsets_for_times([TopicPartition(topic, 0, ms)], timeout=TIMEOUT_S)
        assert p.error is None
        return p.offset
    assert offset_at(base) == 0
    assert offset_at(base + 1) == 1
    assert offset_at(base + 20_000) == 20
    assert offset_at(base + 1_000_000) == OFFSET_END


def test_offset_out_of_range(make_topic, make_producer, make_consumer):
    topic = make_topic()
    produce_all(make_producer(), topic, [{"value": b"x"}])
    consumer = make_consumer(auto_offset_reset="error")
    consumer.assign([TopicPartition(topic, 0, 1000)])
    with pytest.raises(KafkaException) as refused:
        for _ in range(100):
            for m in consumer.consume(1, 0.2):
                if m.error():
                    raise KafkaException(m.error())
    assert refused.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET


def test_unknown_topic_without_auto_creation(make_consumer, make_producer):
    consumer = make_consumer(allow_auto_create_topics=False)
    consumer.subscribe(["nobody-made-this"])
    errors = [m.error().code() for m in consumer.consume(1, 5.0)]
    assert errors == [KafkaError.UNKNOWN_TOPIC_OR_PART]
