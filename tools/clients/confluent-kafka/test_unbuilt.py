"""What Corelog does not have yet is refused at once, in words that reach the application: librdkafka waits at most answers."""

import os

import pytest
from confluent_kafka import KafkaError, KafkaException

from conftest import TIMEOUT_S, unique, wait_for

pytestmark = pytest.mark.skipif(os.environ["BROKER"] in ("kafka", "kafka-3"), reason="Kafka has all of it")


def test_transactions_say_that_they_are_not_there(make_producer):
    with pytest.raises(KafkaException) as refused:
        make_producer(transactional_id=unique("tx")).init_transactions(TIMEOUT_S)
    error = refused.value.args[0]
    assert error.fatal() and error.code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, error
    assert "Corelog has no transactions yet" in error.str(), error


def test_the_consumer_protocol_is_refused(make_topic, make_consumer):
    consumer = make_consumer(group_protocol="consumer", session_timeout_ms=None, heartbeat_interval_ms=None)
    consumer.subscribe([make_topic()])
    errors = []

    def failed():
        message = consumer.poll(0.1)
        errors.extend([message.error()] if message is not None and message.error() else [])
        return errors

    wait_for(failed)
    assert errors[0].code() == KafkaError._FATAL and "API version not supported" in errors[0].str(), errors


def test_a_compacted_topic_is_made(make_topic):
    make_topic(cleanup_policy="compact")
