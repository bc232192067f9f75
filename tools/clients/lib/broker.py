"""Brokers the client suites run against: corelog itself, Apache Kafka as the oracle, or one that is already there."""

import ctypes
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
CLIENTS = ROOT / "tools" / "clients"
TEST_DIR = ROOT / ".test"
KAFKA_LIBS = TEST_DIR / "kafka" / "libs"

# What every suite is written for, in Kafka's names, which both brokers take.
SETTINGS = {
    "auto.create.topics.enable": "true",
    "num.partitions": "1",
    # A first member would otherwise wait three seconds for company, in every group of every test.
    "group.initial.rebalance.delay.ms": "0",
}

READY_TIMEOUT_S = 60
STOP_TIMEOUT_S = 30
PR_SET_PDEATHSIG = 1
# Of each of several brokers on one machine.
CLUSTER_MEMORY = "256MiB"


class BrokerError(Exception):
    pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def lasting_port():
    """One that stays free while its broker is down: the kernel takes those of clients from 32768 on."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                pass


def die_with_parent():
    """In the child: be told when the runner dies, however it dies."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def brokers_named(host, port):
    """How many brokers the one at host:port names in a Metadata v1 response; none while it does not answer."""
    client = b"ready"
    body = struct.pack(">hhih", 3, 1, 7, len(client)) + client + struct.pack(">i", 0)
    try:
        with socket.create_connection((host, port), timeout=2) as s:
            s.sendall(struct.pack(">i", len(body)) + body)
            answer = b""
            while len(answer) < 12:
                piece = s.recv(4096)
                if not piece:
                    return 0
                answer += piece
    except OSError:
        return 0
    _length, correlation, brokers = struct.unpack_from(">iii", answer)
    return brokers if correlation == 7 else 0


class External:
    """A broker that somebody else started; nothing is started or stopped."""

    kind = "external"

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap

    def __enter__(self):
        host, port = self.bootstrap.rsplit(":", 1)
        if not brokers_named(host, int(port)):
            raise BrokerError(f"no broker answers at {self.bootstrap}")
        return self

    def __exit__(self, *_):
        pass

    def running(self):
        return True


class Child:
    """A broker process of ours on loopback, with a fresh data directory, its output in `log`."""

    def __init__(self, directory, settings=None, port=None):
        self.directory = pathlib.Path(directory)
        self.settings = SETTINGS | (settings or {})
        self.log = self.directory / "broker.log"
        self.port = port or free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        self.launch()
        self.await_ready()
        return self

    def launch(self):
        """A later start goes on in the same log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self.started = time.monotonic()
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                cwd=self.directory, preexec_fn=die_with_parent)

    def await_ready(self, brokers=1):
        """Until it answers, and names so many brokers."""
        try:
            while brokers_named("127.0.0.1", self.port) < brokers:
                if self.process.poll() is not None:
                    raise BrokerError(f"{self.kind} ended with {self.process.returncode} before it was ready:\n{self.tail()}")
                if time.monotonic() - self.started > READY_TIMEOUT_S:
                    raise BrokerError(f"{self.kind} was not ready after {READY_TIMEOUT_S} s:\n{self.tail()}")
                time.sleep(0.02)
        except BaseException:
            self.stop()
            raise
        self.ready_s = time.monotonic() - self.started

    def __exit__(self, *_):
        self.stop()

    def running(self):
        return self.process.poll() is None

    def stop(self):
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise BrokerError(f"{self.kind} did not stop within {STOP_TIMEOUT_S} s of SIGTERM; its log: {self.log}")

    def tail(self, lines=30):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Corelog(Child):
    kind = "corelog"

    def __init__(self, directory, binary, settings=None, port=None):
        super().__init__(directory, settings, port)
        self.binary = pathlib.Path(binary).resolve()
        self.admin = f"127.0.0.1:{free_port()}"
        if not os.access(self.binary, os.X_OK):
            raise BrokerError(f"no corelog binary at {self.binary}: run `cargo build --release` or pass --binary")

    def command(self):
        command = [self.binary, "--data-dir", self.directory / "data", "--listen", self.bootstrap,
                   "--advertise", self.bootstrap, "--admin", self.admin]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        return command


class Cluster:
    """Several brokers of Corelog that form a cluster; a broker is named by its node id."""

    kind = "corelog"

    def __init__(self, directory, binary, count):
        self.directory = pathlib.Path(directory)
        ports = [(lasting_port(), lasting_port()) for _ in range(count)]
        seeds = ",".join(f"127.0.0.1:{peer}" for _, peer in ports)
        self.brokers = {}
        for node_id, (port, peer) in enumerate(ports, 1):
            settings = {"node.id": node_id, "corelog.peer": f"127.0.0.1:{peer}", "corelog.seeds": seeds,
                        "corelog.memory": CLUSTER_MEMORY}
            self.brokers[node_id] = Corelog(self.directory / f"broker-{node_id}", binary, settings, port)
        self.bootstrap = ",".join(broker.bootstrap for broker in self.brokers.values())

    def __enter__(self):
        try:
            # None is ready before the others are there.
            for broker in self.brokers.values():
                broker.launch()
            for broker in self.brokers.values():
                broker.await_ready(len(self.brokers))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for broker in self.brokers.values():
            if broker.process:
                broker.process.terminate()
        for broker in self.brokers.values():
            if broker.process:
                broker.stop()

    def start(self, node_id):
        self.brokers[node_id].launch()
        self.brokers[node_id].await_ready(len(self.brokers))

    def stop(self, node_id):
        self.brokers[node_id].stop()

    def kill(self, node_id):
        self.brokers[node_id].process.kill()
        self.brokers[node_id].process.wait()


class Kafka(Child):
    """Apache Kafka at the version of kafka/pom.xml, or at another one."""

    def __init__(self, directory, settings=None, version=None):
        super().__init__(directory, settings)
        self.kind = f"kafka-{version}" if version else "kafka"
        libs = TEST_DIR / self.kind / "libs"
        subprocess.run([CLIENTS / "kafka" / "prepare"] + ([version] if version else []), check=True,
                       env=os.environ | {"KAFKA_LIBS": str(libs)})
        self.JVM = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{libs}/*"]

    def command(self):
        properties = self.directory / "server.properties"
        text = (CLIENTS / "kafka" / "server.properties").read_text()
        for name, value in {"PORT": self.port, "CONTROLLER_PORT": free_port(), "DATA_DIR": self.directory / "data"}.items():
            text = text.replace(f"@{name}@", str(value))
        text += "".join(f"{name}={value}\n" for name, value in self.settings.items())
        properties.write_text(text)
        logging = f"-Dlog4j2.configurationFile={CLIENTS / 'kafka' / 'log4j2.yaml'}"
        with open(self.log, "wb") as log:
            subprocess.run(
                self.JVM + [logging, "kafka.tools.StorageTool", "format", "--standalone",
                            "-t", "Y29yZWxvZy1vcmFjbGUtMQ", "-c", properties],
                stdout=log, stderr=log, check=True)
        return self.JVM + [logging, "kafka.Kafka", properties]
