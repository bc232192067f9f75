"""Three brokers, and three clients that carry on while brokers are killed and restarted.

A client is a program that gets BOOTSTRAP and TOPIC. Until its input ends it sends records as an idempotent producer: keys k0 to k19 in
turn, as values the numbers of each key from 0 on; and as a group of one it reads what is there. Then it delivers what is under way,
reads on until it has all that was acknowledged, and ends. It prints

    sent KEY NUMBER PARTITION OFFSET    when a record is acknowledged
    read KEY NUMBER PARTITION OFFSET
    error WHAT                          what reached its application: nothing is to
"""

import os
import pathlib
import subprocess
import threading
import time

import broker as brokers
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

CACHE, WORK = pathlib.Path(os.environ["CACHE"]), pathlib.Path(os.environ["WORK"])
HERE = pathlib.Path(__file__).resolve().parent
PROGRAMS = {
    "java": ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp",
             f"{CACHE}/classes:{os.environ['KAFKA_LIBS']}/*", f"-Dlog4j2.configurationFile={HERE.parent}/java/log4j2.yaml", "Failover"],
    "librdkafka": [f"{os.environ['VENV']}/bin/python", str(HERE / "librdkafka.py")],
    "franz-go": [str(CACHE / "franz-go")],
}
# Two leaders: one broker of three leads none of a topic's partitions.
PARTITIONS = 2
CARRY_ON_S = 40
CARRIED_ON = 200    # records sent and read
END_S = 90


class Client:
    def __init__(self, name, bootstrap):
        self.name, self.topic = name, f"failover-{name}"
        self.sent, self.read, self.errors = [], [], []
        self.log = open(WORK / f"{name}.log", "wb")
        self.process = subprocess.Popen(PROGRAMS[name] + [bootstrap, self.topic], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, preexec_fn=brokers.die_with_parent)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    def listen(self):
        for line in self.process.stdout:
            match line.split():
                case ["sent" | "read" as what, key, number, partition, offset]:
                    getattr(self, what).append((key, int(number), int(partition), int(offset)))
                case ["error", *what]:
                    self.errors.append(" ".join(what))

    def carries_on(self):
        """It sends and reads more."""
        sent, read = len(self.sent) + CARRIED_ON, len(self.read) + CARRIED_ON
        deadline = time.monotonic() + CARRY_ON_S
        while len(self.sent) < sent or len(self.read) < read:
            assert self.process.poll() is None, f"{self.name} ended"
            assert time.monotonic() < deadline, (
                f"{self.name} does not carry on: {len(self.sent)} sent, {len(self.read)} read where {sent} and {read} were awaited")
            time.sleep(0.05)

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(END_S)
        finally:
            self.process.kill()
            self.reader.join()


@pytest.fixture(scope="module")
def cluster():
    with brokers.Cluster(WORK / "broker", os.environ["CORELOG"], int(os.environ["CLUSTER"])) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def admin(cluster):
    return AdminClient({"bootstrap.servers": cluster.bootstrap})


@pytest.fixture(scope="module")
def clients(cluster, admin):
    topics = [NewTopic(f"failover-{name}", PARTITIONS, len(cluster.brokers)) for name in PROGRAMS]
    for future in admin.create_topics(topics).values():
        future.result(20)
    clients = [Client(name, cluster.bootstrap) for name in PROGRAMS]
    for client in clients:
        client.carries_on()
    yield clients
    for client in clients:
        client.process.kill()


def partitions(admin, topic):
    return admin.list_topics(topic, 10).topics[topic].partitions


def await_in_sync(cluster, admin, clients):
    """All replicas have caught up."""
    deadline = time.monotonic() + CARRY_ON_S
    while True:
        states = [(c.topic, p.id, p.isrs) for c in clients for p in partitions(admin, c.topic).values()]
        if all(len(isrs) == len(cluster.brokers) for _, _, isrs in states):
            return
        assert time.monotonic() < deadline, f"not in sync: {states}"
        time.sleep(0.2)


def kill(cluster, admin, clients, node_id):
    cluster.kill(node_id)
    for client in clients:
        client.carries_on()
    cluster.start(node_id)
    await_in_sync(cluster, admin, clients)


def test_a_leader_is_killed(cluster, admin, clients):
    await_in_sync(cluster, admin, clients)
    kill(cluster, admin, clients, partitions(admin, clients[0].topic)[0].leader)


def test_a_follower_is_killed(cluster, admin, clients):
    leaders = {p.leader for p in partitions(admin, clients[0].topic).values()}
    kill(cluster, admin, clients, next(id for id in cluster.brokers if id not in leaders))


def test_rolling_restart(cluster, admin, clients):
    for node_id in cluster.brokers:
        cluster.stop(node_id)
        cluster.start(node_id)
        await_in_sync(cluster, admin, clients)
    for client in clients:
        client.carries_on()


def test_all_is_there_once_and_in_order(cluster, clients):
    for client in clients:
        client.end()
    for client in clients:
        assert client.process.returncode == 0, f"{client.name} ended with {client.process.returncode}"
        assert not client.errors, f"{client.name} was told {len(client.errors)} errors: {client.errors[:5]}"
        there = read_all(cluster.bootstrap, client.topic)
        keys = {}
        for key, number, _partition, _offset in there:
            keys.setdefault(key, []).append(number)
        for key, numbers in keys.items():
            assert numbers == list(range(len(numbers))), f"{client.name} {key}: {out_of_order(numbers)}"
        lost = set(client.sent) - set(there)
        assert not lost, f"{client.name}: {len(lost)} acknowledged records are not where they were, such as {sorted(lost)[:5]}"
        unread = set(client.sent) - set(client.read)
        assert not unread, f"{client.name}: {len(unread)} acknowledged records were not read, such as {sorted(unread)[:5]}"
        wrong = set(client.read) - set(there)
        assert not wrong, f"{client.name}: {len(wrong)} records were read that are not there, such as {sorted(wrong)[:5]}"


def out_of_order(numbers):
    at = next(i for i, number in enumerate(numbers) if number != i)
    return f"{numbers[max(0, at - 3):at + 4]} from place {max(0, at - 3)} on"


def read_all(bootstrap, topic):
    """(key, number, partition, offset) of all records, partition by partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "read-all", "enable.auto.commit": False})
    there = []
    for partition in range(PARTITIONS):
        at = TopicPartition(topic, partition, 0)
        _, end = consumer.get_watermark_offsets(at, 10)
        consumer.assign([at])
        deadline = time.monotonic() + END_S
        offset = 0
        while offset < end:
            assert time.monotonic() < deadline, f"{topic}-{partition}: nothing comes after {offset} of {end}"
            for message in consumer.consume(1000, 0.5):
                assert message.error() is None, message.error()
                assert message.offset() == offset, f"{topic}-{partition}: offset {message.offset()} where {offset} is next"
                offset += 1
                there.append((message.key().decode(), int(message.value()), partition, message.offset()))
    consumer.close()
    return there
