"""Produces and consumes until its input ends, on librdkafka. What it is to do and to print: see test_failover.py."""

import sys
import threading
import time

from confluent_kafka import Consumer, Producer

BOOTSTRAP, TOPIC = sys.argv[1:]
KEYS, RATE, READ_ALL_S = 20, 300, 60
acknowledged = {}    # key: how many
read = {}            # key: the next number
stop = threading.Event()
lock = threading.Lock()


def say(*words):
    with lock:
        print(*words, flush=True)


def delivered(error, message):
    if error:
        say("error", "producer:", error)
        return
    key, number = message.key().decode(), int(message.value())
    acknowledged[key] = number + 1
    say("sent", key, number, message.partition(), message.offset())


def produce():
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, "linger.ms": 5})
    sent = 0
    while not stop.is_set():
        producer.produce(TOPIC, key=f"k{sent % KEYS}", value=str(sent // KEYS), on_delivery=delivered)
        sent += 1
        producer.poll(1 / RATE)
    left = producer.flush(READ_ALL_S)
    if left:
        say("error", "producer:", left, "records were not delivered")


def consume():
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": TOPIC, "auto.offset.reset": "earliest", "session.timeout.ms": 10000})
    consumer.subscribe([TOPIC])
    until = None
    while until is None or time.monotonic() < until:
        if stop.is_set() and not producing.is_alive():
            until = until or time.monotonic() + READ_ALL_S
            if all(read.get(key, 0) >= count for key, count in acknowledged.items()):
                break
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            say("error", "consumer:", message.error())
            continue
        key, number = message.key().decode(), int(message.value())
        read[key] = max(read.get(key, 0), number + 1)
        say("read", key, number, message.partition(), message.offset())
    consumer.close()


producing, consuming = threading.Thread(target=produce), threading.Thread(target=consume)
producing.start()
consuming.start()
sys.stdin.read()
stop.set()
producing.join()
consuming.join()
