from collections import Counter

import pytest
from confluent_kafka import OFFSET_INVALID, ConsumerGroupState, ConsumerGroupTopicPartitions, KafkaError, TopicPartition

from conftest import TIMEOUT_S, drain, produce_all, unique, wait_for


def join_all(consumers, want_each):
    """Poll all of them until each has as many partitions as it should."""
    def settled():
        for c in consumers:
            c.poll(0.05)
        return [len(c.assignment()) for c in consumers] == want_each
    wait_for(settled)


def test_commit_and_resume(make_topic, make_producer, make_consumer):
    topic, group = make_topic(), unique("g")
    produce_all(make_producer(), topic, [{"value": b"%d" % i} for i in range(10)])
    first = make_consumer(group_id=group)
    first.subscribe([topic])
    got = drain(first, 10)
    first.commit(message=got[5], asynchronous=False)
    [committed] = first.committed([TopicPartition(topic, 0)], timeout=TIMEOUT_S)
    assert committed.offset == 6
    first.close()
    second = make_consumer(group_id=group)
    second.subscribe([topic])
    assert [m.value() for m in drain(second, 4)] == [b"6", b"7", b"8", b"9"]


def test_commit_with_metadata(make_topic, make_consumer):
    topic, group = make_topic(), unique("g")
    consumer = make_consumer(group_id=group)
    consumer.commit(offsets=[TopicPartition(topic, 0, 7, metadata="here — noted")], asynchronous=False)
    [p] = make_consumer(group_id=group).committed([TopicPartition(topic, 0)], timeout=TIMEOUT_S)
    assert (p.offset, p.metadata) == (7, "here — noted")
    [none] = make_consumer().committed([TopicPartition(topic, 0)], timeout=TIMEOUT_S)
    assert none.offset == OFFSET_INVALID


def test_auto_commit(make_topic, make_producer, make_consumer):
    topic, group = make_topic(), unique("g")
    produce_all(make_producer(), topic, [{"value": b"x"}] * 20)
    consumer = make_consumer(group_id=group, enable_auto_commit=True, auto_commit_interval_ms=100)
    consumer.subscribe([topic])
    drain(consumer, 20)
    consumer.close()
    [p] = make_consumer(group_id=group).committed([TopicPartition(topic, 0)], timeout=TIMEOUT_S)
    assert p.offset == 20


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_rebalance(make_topic, make_producer, make_consumer, strategy):
    """Three members come one after the other and one goes; every message is read exactly once by somebody."""
    topic, group = make_topic(partitions=6), unique("g")
    config = {"group_id": group, "partition_assignment_strategy": strategy, "max_poll_interval_ms": 60000}
    members = [make_consumer(**config)]
    members[0].subscribe([topic])
    join_all(members, [6])
    for want in ([3, 3], [2, 2, 2]):
        members.append(make_consumer(**config))
        members[-1].subscribe([topic])
        join_all(members, want)
    owned = Counter(p.partition for c in members for p in c.assignment())
    assert owned == Counter(range(6))
    produce_all(make_producer(), topic, [{"value": b"%d" % i, "partition": i % 6} for i in range(600)])
    got = []
    wait_for(lambda: got.extend(m for c in members for m in c.consume(50, 0.05)) or len(got) >= 600)
    assert sorted(int(m.value()) for m in got) == list(range(600))
    members.pop().close()
    join_all(members, [3, 3])


def test_static_member_keeps_its_partitions(make_topic, make_consumer):
    topic, group = make_topic(partitions=4), unique("g")
    rebalances = []

    def start(instance):
        c = make_consumer(group_id=group, group_instance_id=instance)
        c.subscribe([topic], on_assign=lambda c, p: rebalances.append(instance))
        return c
    a, b = start("a"), start("b")
    join_all([a, b], [2, 2])
    before = sorted(p.partition for p in b.assignment())
    rebalances.clear()
    b.close()
    b = start("b")
    join_all([a, b], [2, 2])
    assert sorted(p.partition for p in b.assignment()) == before
    assert rebalances == ["b"], "a was not disturbed"


def test_static_member_is_fenced_by_its_double(make_topic, make_consumer):
    topic, group = make_topic(), unique("g")
    first = make_consumer(group_id=group, group_instance_id="same")
    first.subscribe([topic])
    join_all([first], [1])
    second = make_consumer(group_id=group, group_instance_id="same")
    second.subscribe([topic])
    join_all([second], [1])

    def fenced():
        second.poll(0.05)
        m = first.poll(0.05)
        return m is not None and m.error() and m.error().code() == KafkaError._FATAL
    wait_for(fenced)


def test_member_that_vanishes_is_replaced(make_topic, make_consumer):
    """A member that stops polling past max.poll.interval leaves; its partitions go to the other."""
    topic, group = make_topic(partitions=2), unique("g")
    config = {"group_id": group, "session_timeout_ms": 6000, "max_poll_interval_ms": 6000}
    a, b = make_consumer(**config), make_consumer(**config)
    for c in (a, b):
        c.subscribe([topic])
    join_all([a, b], [1, 1])
    wait_for(lambda: a.poll(0.1) or len(a.assignment()) == 2, timeout_s=30)


def test_describe_list_and_delete(make_topic, make_producer, make_consumer, admin):
    topic, group = make_topic(partitions=2), unique("g")
    produce_all(make_producer(), topic, [{"value": b"x", "partition": i % 2} for i in range(10)])
    consumer = make_consumer(group_id=group, client_id="the-client")
    consumer.subscribe([topic])
    got = drain(consumer, 10)
    consumer.commit(asynchronous=False)
    assert len(got) == 10

    described = admin.describe_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result()
    assert described.state == ConsumerGroupState.STABLE
    assert described.partition_assignor == "range"
    [member] = described.members
    assert member.client_id == "the-client"
    assert sorted(p.partition for p in member.assignment.topic_partitions) == [0, 1]

    listed = {g.group_id: g for g in admin.list_consumer_groups(request_timeout=TIMEOUT_S).result().valid}
    assert listed[group].state == ConsumerGroupState.STABLE
    empty = admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}, request_timeout=TIMEOUT_S).result().valid
    assert group not in {g.group_id for g in empty}

    refused = admin.delete_consumer_groups([group], request_timeout=TIMEOUT_S)[group]
    assert refused.exception().args[0].code() == KafkaError.NON_EMPTY_GROUP

    consumer.close()
    offsets = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)], request_timeout=TIMEOUT_S)[group].result()
    assert sorted((p.partition, p.offset) for p in offsets.topic_partitions) == [(0, 5), (1, 5)]
    altered = admin.alter_consumer_group_offsets(
        [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 1, 2)])], request_timeout=TIMEOUT_S)[group].result()
    assert [p.error for p in altered.topic_partitions] == [None]
    again = make_consumer(group_id=group)
    again.subscribe([topic])
    assert sorted(m.offset() for m in drain(again, 3)) == [2, 3, 4]
    again.close()

    admin.delete_consumer_groups([group], request_timeout=TIMEOUT_S)[group].result()
    gone = admin.delete_consumer_groups([group], request_timeout=TIMEOUT_S)[group]
    assert gone.exception().args[0].code() == KafkaError.GROUP_ID_NOT_FOUND
