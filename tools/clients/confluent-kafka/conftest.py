import os
import time
import uuid

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

BOOTSTRAP = os.environ["BOOTSTRAP"]
TIMEOUT_S = 20


def unique(name):
    return f"{name}-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="session")
def admin():
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def leaders_answer(admin, name, partitions):
    """Kafka shows a topic before its leaders take requests; only a leader can answer this."""
    ends = {TopicPartition(name, p): OffsetSpec.latest() for p in range(partitions)}
    return all(f.exception(TIMEOUT_S) is None for f in admin.list_offsets(ends, request_timeout=TIMEOUT_S).values())


@pytest.fixture
def make_topic(admin, request):
    """make_topic(partitions=1, **config) -> the name of a new topic."""
    def make(partitions=1, **config):
        name = unique(request.node.originalname.replace("_", "-"))
        config = {k.replace("_", "."): str(v) for k, v in config.items()}
        for future in admin.create_topics([NewTopic(name, partitions, 1, config=config)]).values():
            future.result(TIMEOUT_S)
        wait_for(lambda: leaders_answer(admin, name, partitions))
        return name
    return make


@pytest.fixture
def make_producer():
    def make(**config):
        base = {"bootstrap.servers": BOOTSTRAP, "linger.ms": 5}
        return Producer(base | {k.replace("_", "."): v for k, v in config.items()})
    return make


@pytest.fixture
def make_consumer():
    made = []

    def make(**config):
        base = {
            "bootstrap.servers": BOOTSTRAP, "group.id": unique("group"), "auto.offset.reset": "earliest",
            "enable.auto.commit": False, "fetch.wait.max.ms": 50, "session.timeout.ms": 10000, "heartbeat.interval.ms": 500,
        }
        config = base | {k.replace("_", "."): v for k, v in config.items()}
        consumer = Consumer({k: v for k, v in config.items() if v is not None})
        made.append(consumer)
        return consumer
    yield make
    for consumer in made:
        try:
            consumer.close()
        except RuntimeError:
            pass  # the test has closed it


def wait_for(condition, timeout_s=TIMEOUT_S):
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "condition not met in time"
        time.sleep(0.05)


def produce_all(producer, topic, messages):
    """Send (key, value, kwargs...) dicts; return the delivered messages in order of delivery. Any error raises."""
    delivered, errors = [], []

    def done(error, message):
        (errors if error else delivered).append(error or message)
    for m in messages:
        while True:
            try:
                producer.produce(topic, on_delivery=done, **m)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    assert producer.flush(TIMEOUT_S) == 0, "not all was delivered in time"
    assert not errors, errors
    return delivered


def drain(consumer, count, timeout_s=TIMEOUT_S):
    """Exactly `count` messages, and then none for a moment."""
    got = []
    deadline = time.monotonic() + timeout_s
    while len(got) < count:
        assert time.monotonic() < deadline, f"{len(got)} of {count} messages in time"
        for m in consumer.consume(count - len(got), 0.2):
            assert m.error() is None, m.error()
            got.append(m)
    assert consumer.consume(1, 0.2) == []
    return got
