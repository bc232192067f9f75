#!/usr/bin/env python3
"""Runs the code blocks of README.md, line by line, as a reader would: `make test-readme`.

The broker gets a data directory and ports of its own, by environment variables or in place of those written; nothing else is
changed. A line that starts a broker goes on while the block after it runs. What a line is to print stands behind it, as
`# prints hello`.
"""

import argparse
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
READY_S = 900     # The first command compiles.
LINE_S = 900


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def blocks(text):
    """The commands of each block of shell: lines that end in a backslash joined, comments taken off."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.M | re.S):
        lines = block.replace("\\\n", " ").splitlines()
        yield [re.split(r"\s+#\s*", line.strip() + " # ", maxsplit=1) for line in lines if line.strip()]


class Broker:
    def __init__(self, command, env, admin, log):
        self.log = log
        self.start(command, env)
        self.await_ready(lambda: urllib.request.urlopen(f"http://{admin}/health/ready", timeout=2).read())

    def start(self, command, env):
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(["bash", "-c", "exec " + command], cwd=ROOT, env=env, stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out, start_new_session=True)

    def await_ready(self, ask):
        deadline = time.monotonic() + READY_S
        while True:
            try:
                ask()
                return
            except (OSError, subprocess.SubprocessError):
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"no broker: {self.log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)
        except ProcessLookupError:
            pass


class Cluster(Broker):
    """Several brokers, started by corectl: on the client's port and those after it."""
    def __init__(self, command, env, client, work):
        self.log = work / "cluster-dev.log"
        self.start(f"{command} --port {client.rpartition(':')[2]} --data-dir {work}/dev", env)
        self.await_ready(self.all_there)

    def all_there(self):
        if "3 brokers" not in self.log.read_text(errors="replace"):
            raise OSError("not yet")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--totals", metavar="FILE", help="write 'PASSED FAILED' here")
    args = p.parse_args()
    work = pathlib.Path(tempfile.mkdtemp(prefix="corelog-readme-"))
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
    client, admin, peer = (f"127.0.0.1:{free_port()}" for _ in range(3))
    # In place of what is written: what this machine may lack, or others use.
    instead = {
        "127.0.0.1:9092": client, "0.0.0.0:9092": client, "broker1:9092": client,
        # This machine is one broker: its cluster has no other.
        "10.0.0.1:9192,10.0.0.2:9192,10.0.0.3:9192": peer, "10.0.0.1:9192": peer, "/data/corelog": str(work / "cluster"),
        "/nvme/corelog": str(work / "nvme"), "--cores 0-7": "--cores 0", "--memory 8GiB": "--memory 256MiB",
        "/etc/kafka/server.properties": str(ROOT / "tools/clients/kafka/server.properties"),
        "> corelog.toml": f"> {work}/corelog.toml",
    }
    env = os.environ | {
        "CORELOG_DATA_DIR": str(work / "data"), "CORELOG_LISTEN": client, "CORELOG_ADMIN": admin, "CORECTL_BOOTSTRAP": client,
        "PATH": f"{target}/release:{os.environ['PATH']}",
    }
    passed, failed, broker = 0, [], None
    try:
        for block in blocks((ROOT / "README.md").read_text()):
            for written, remark in block:
                if not written:
                    continue
                command = written
                for old, new in instead.items():
                    command = command.replace(old, new)
                name = command.split()[0]
                if written == "make test":
                    command = "make -n test"    # It is what runs this.
                elif not name.startswith("core") and shutil.which(name) is None:
                    print(f"readme  skipped: {written}: there is no {name} here", flush=True)
                    continue
                try:
                    if command.startswith("corectl cluster dev"):
                        if broker:
                            broker.stop()
                        broker = Cluster(command, env, client, work)
                    elif command == "cargo run --release" or re.match(r"corelog (?!--help|--print|--version)", command):
                        if broker:
                            broker.stop()
                        # Flags say it themselves here: none is given twice.
                        own = {k: v for k, v in env.items() if name != "corelog" or k not in ("CORELOG_DATA_DIR", "CORELOG_LISTEN")}
                        broker = Broker(command, own, admin, work / "broker.log")
                    else:
                        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=ROOT, env=env, timeout=LINE_S,
                                              stdin=subprocess.DEVNULL, capture_output=True, text=True)
                        assert done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-2000:]}"
                        prints = re.match(r"prints (.*?)\s*#?\s*$", remark)
                        if prints:
                            assert prints[1] in done.stdout, f"it prints {done.stdout!r}"
                    passed += 1
                    print(f"readme  passed: {written}", flush=True)
                except (AssertionError, subprocess.TimeoutExpired) as e:
                    failed.append(written)
                    print(f"readme  FAILED: {written}: {e}", flush=True)
    finally:
        if broker:
            broker.stop()
        shutil.rmtree(work, ignore_errors=True)
    if not passed:
        failed.append("no command found")
    print(f"readme: {passed} passed, {len(failed)} failed")
    if args.totals:
        pathlib.Path(args.totals).write_text(f"{passed} {len(failed)}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
