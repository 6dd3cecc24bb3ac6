#!/usr/bin/env python3
"""The benchmark harness: every contestant in one run, alternating, medians and spread.

    bench/bench.py handoff            # CPU per request: Node's own cluster against phalanx
    bench/bench.py cpu                # ab -c200 -t10 on the CPU-bound example and script
    bench/bench.py --list

Everything listens on 127.0.0.1. CPU time is that of the whole process tree (utime + stime of /proc/PID/stat,
children included), taken before and after the load, divided by the requests that were answered.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
FIXTURES = ROOT / "fixtures"
TICK = os.sysconf("SC_CLK_TCK")
READY_SECONDS = 20


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def tree(pid):
    """The process and its descendants."""
    pids, todo = [], [pid]
    while todo:
        current = todo.pop()
        pids.append(current)
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children") as children:
                    todo.extend(int(child) for child in children.read().split())
        except FileNotFoundError:
            pass
    return pids


def cpu_seconds(pid):
    """CPU time of one process, with that of its threads, in seconds."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


class Contestant:
    """A server under test: a command with {port} in it, started and stopped by us alone."""

    def __init__(self, name, command, env=None, workers=2):
        self.name, self.command, self.env, self.workers = name, command, env or {}, workers
        self.process = None

    def start(self):
        self.port = free_port()
        words = [word.format(port=self.port) for word in self.command]
        env = dict(os.environ, XDG_RUNTIME_DIR=os.environ["BENCH_RUNTIME"], PORT=str(self.port), **self.env)
        self.process = subprocess.Popen(
            words, env=env, cwd=FIXTURES, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.wait_ready()

    def wait_ready(self):
        """Ready when every worker has answered, or after enough answers in a row."""
        deadline, seen = time.monotonic() + READY_SECONDS, set()
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                sys.exit(f"{self.name}: ended at once with status {self.process.returncode}")
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as client:
                    client.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                    answer = b""
                    while chunk := client.recv(65536):
                        answer += chunk
                match = re.search(rb"pid = (\d+)", answer)
                seen.add(match.group(1) if match else len(seen))
                if len(seen) >= self.workers:
                    return
            except OSError:
                time.sleep(0.05)
        if not seen:
            sys.exit(f"{self.name}: not ready within {READY_SECONDS} s")

    def cpu(self):
        pids = tree(self.process.pid)
        each = [cpu_seconds(pid) for pid in pids]
        return sum(each), each[0]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            pass
        for pid in tree(self.process.pid) if self.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def wrk(port, seconds, clients, close=True):
    words = ["wrk", "--latency", f"-c{clients}", "-t2", f"-d{seconds}s"]
    words += ["-H", "Connection: close"] if close else []
    text = subprocess.run([*words, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True).stdout
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    return {
        "requests": requests,
        "errors": sum(map(int, errors.groups())) if errors else 0,
        "bad": int(bad.group(1)) if bad else 0,
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "p99_ms": float(p99.group(1)) * scale[p99.group(2)] if p99 else None,
    }


def ab(port, seconds, clients):
    words = ["ab", "-q", f"-c{clients}", f"-t{seconds}", "-n10000000", f"http://127.0.0.1:{port}/"]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    value = lambda label: re.search(label + r":?\s+([\d.]+)", text)
    # Answers differ in length (pid, time), which ab calls a failure; count the others.
    failures = re.search(r"\(Connect: (\d+), Receive: (\d+), Length: \d+, Exceptions: (\d+)\)", text)
    p99 = re.search(r"99%\s+(\d+)", text)
    return {
        "requests": int(value("Complete requests").group(1)),
        "errors": sum(map(int, failures.groups())) if failures else 0,
        "bad": 0,
        "rate": float(value("Requests per second").group(1)),
        "p99_ms": float(p99.group(1)) if p99 else None,
    }


def measure(contestant, load):
    contestant.start()
    try:
        before, primary_before = contestant.cpu()
        result = load(contestant.port)
        after, primary_after = contestant.cpu()
    finally:
        contestant.stop()
    requests = max(result["requests"], 1)
    result["cpu_us"] = (after - before) / requests * 1e6
    result["primary_us"] = (primary_after - primary_before) / requests * 1e6
    return result


def compare(contestants, load, rounds):
    results = {contestant.name: [] for contestant in contestants}
    for number in range(rounds):
        for contestant in contestants:
            results[contestant.name].append(measure(contestant, load))
            print(f"round {number + 1}: {contestant.name}: {results[contestant.name][-1]}", file=sys.stderr)
    return results


def table(results, columns):
    median = lambda rows, key: statistics.median(row[key] for row in rows if row[key] is not None)
    spread = lambda rows, key: (min(row[key] for row in rows), max(row[key] for row in rows))
    print("| contestant | " + " | ".join(title for _, title, _ in columns) + " | lost |")
    print("|---" * (len(columns) + 2) + "|")
    for name, rows in results.items():
        cells = []
        for key, _, form in columns:
            low, high = spread(rows, key)
            cells.append(f"{form.format(median(rows, key))} ({form.format(low)}–{form.format(high)})")
        lost = sum(row["errors"] + row["bad"] for row in rows)
        print(f"| {name} | " + " | ".join(cells) + f" | {lost} |")


def node():
    return shutil.which("node")


def phalanx(*options):
    return [str(TARGET / "phalanx"), "run", "-q", *options]


COLUMNS = [
    ("cpu_us", "CPU µs/request", "{:.0f}"),
    ("primary_us", "primary's part", "{:.0f}"),
    ("rate", "requests/s", "{:.0f}"),
    ("p99_ms", "p99 ms", "{:.1f}"),
]


def bench_handoff(arguments):
    """Connection per request on an unmodified Node server, two workers."""
    contestants = [
        Contestant("Node cluster, round robin", [node(), "node-cluster.js", "http.js"], {"WORKERS": "2"}),
        Contestant("phalanx handoff", phalanx("-n2", "--dispatch", "handoff", "http.js")),
        Contestant("Node cluster, SCHED_NONE", [node(), "node-cluster.js", "http.js"],
                   {"WORKERS": "2", "NODE_CLUSTER_SCHED_POLICY": "none"}),
        Contestant("phalanx shared", phalanx("-n2", "--dispatch", "shared", "http.js")),
        Contestant("one process, no cluster", [node(), "http.js"], workers=1),
    ]
    load = lambda port: wrk(port, arguments.seconds, arguments.clients)
    results = compare(contestants, load, arguments.rounds)
    table(results, COLUMNS)
    ours = statistics.median(row["cpu_us"] for row in results["phalanx handoff"])
    theirs = statistics.median(row["cpu_us"] for row in results["Node cluster, round robin"])
    print(f"\nphalanx handoff / Node round robin, CPU per request: {ours / theirs:.2f}")
    return results


def bench_cpu(arguments):
    """The CPU-bound handler, single and clustered over all usable cores: ab -c200 -t10."""
    cores, steps = len(os.sched_getaffinity(0)), "20000000"
    example = str(TARGET / "examples" / "http_server")
    rust = [example, steps, "127.0.0.1:{port}"]
    contestants = [
        Contestant("Rust example, 1 worker", rust, {"PHALANX_WORKERS": "1"}, workers=1),
        Contestant("Rust example, clustered", rust, workers=cores),
        Contestant("Node script, single", [node(), "cpu.js", steps], workers=1),
        Contestant("Node script, phalanx run", phalanx("cpu.js", steps), workers=cores),
    ]
    load = lambda port: ab(port, 10, 200)
    results = compare(contestants, load, arguments.rounds)
    table(results, COLUMNS)
    rate = lambda name: statistics.median(row["rate"] for row in results[name])
    for single, clustered in [("Rust example, 1 worker", "Rust example, clustered"),
                              ("Node script, single", "Node script, phalanx run")]:
        print(f"\n{clustered} / ({cores} cores × {single}): {rate(clustered) / (cores * rate(single)):.2f}")
    return results


BENCHES = {"handoff": bench_handoff, "cpu": bench_cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, []], help="which; all when none is named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="length of one load")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list:
        for name, bench in BENCHES.items():
            print(f"{name}: {bench.__doc__}")
        return
    import tempfile
    figures = {}
    with tempfile.TemporaryDirectory() as runtime:
        os.environ["BENCH_RUNTIME"] = runtime
        for name in arguments.bench or BENCHES:
            print(f"\n### {name}: {BENCHES[name].__doc__}\n")
            figures[name] = BENCHES[name](arguments)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
