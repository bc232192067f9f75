"""What Corelog does not have yet is refused at once."""

import os

import pytest
from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

BOOTSTRAP = os.environ["BOOTSTRAP"]
pytestmark = pytest.mark.skipif(os.environ["BROKER"] in ("kafka", "kafka-3"), reason="Kafka has all of it")


def test_transactions_say_that_they_are_not_there():
    with KafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id="unbuilt", max_block_ms=60000) as producer:
        with pytest.raises(KafkaError) as refused:
            producer.init_transactions()
    assert not isinstance(refused.value, KafkaTimeoutError) and "UnsupportedVersion" in str(refused.value), refused.value


def test_a_compacted_topic_is_made():
    name = f"compacted-{os.getpid()}"
    with KafkaAdminClient(bootstrap_servers=BOOTSTRAP) as admin:
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1, "configs": {"cleanup.policy": "compact"}}},
                            wait_for_metadata=True)
