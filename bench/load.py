"""Load and what it shows: wrk and ab for throughput, our own client for tails and shares."""

import random
import re
import resource
import socket
import statistics
import subprocess
import time

import client

SCALE_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
# Open loop, four workers on two cores: docs/benchmarks.md says why these rates.
UNEVEN_RATE, UNEVEN_SHARE = 200, 0.01
SLOWED_RATE = 600


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else None


def _children_seconds():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _run(words):
    before = _children_seconds()
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return text, _children_seconds() - before


def wrk(port, seconds, clients, close):
    words = ["wrk", "--latency", f"-c{clients}", "-t2", f"-d{seconds}s"]
    words += ["-H", "Connection: close"] if close else []
    text, client_seconds = _run([*words, f"http://127.0.0.1:{port}/"])
    requests = int(re.search(r"(\d+) requests in", text).group(1))
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    sample = {
        "requests": requests,
        "lost": (sum(map(int, errors.groups())) if errors else 0) + (int(bad.group(1)) if bad else 0),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1)),
        "client_us": client_seconds / max(requests, 1) * 1e6,
    }
    for key, label in (("p50_ms", "50%"), ("p99_ms", "99%")):
        found = re.search(label + r"\s+([\d.]+)(us|ms|s|m)", text)
        sample[key] = float(found.group(1)) * SCALE_MS[found.group(2)] if found else None
    return sample


def ab(port, seconds, clients):
    words = ["ab", "-q", f"-c{clients}", f"-t{seconds}", "-n10000000", f"http://127.0.0.1:{port}/"]
    text, client_seconds = _run(words)
    requests = int(re.search(r"Complete requests:\s+(\d+)", text).group(1))
    # Answers differ in length (pid, time), which ab calls a failure; count the others.
    failures = re.search(r"\(Connect: (\d+), Receive: (\d+), Length: \d+, Exceptions: (\d+)\)", text)
    sample = {
        "requests": requests,
        "lost": sum(map(int, failures.groups())) if failures else 0,
        "rate": float(re.search(r"Requests per second:\s+([\d.]+)", text).group(1)),
        "client_us": client_seconds / max(requests, 1) * 1e6,
    }
    for key, label in (("p50_ms", "50%"), ("p99_ms", "99%")):
        sample[key] = float(re.search(label + r"\s+(\d+)", text).group(1))
    return sample


class Idle:
    """Connections that are held open and never say anything."""

    def __init__(self, port, count):
        self.port, self.count, self.held = port, count, []

    def __enter__(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for _ in range(self.count):
            self.held.append(socket.create_connection(("127.0.0.1", self.port), timeout=10))

    def __exit__(self, *_):
        for connection in self.held:
            connection.close()


def shares(port, count=1200, clients=16):
    """How many of `count` connections each worker served, most first; and how many got no answer."""
    answers = client.closed_loop(port, count, clients)
    served = {}
    for answer in answers:
        if answer.pid is not None:
            served[answer.pid] = served.get(answer.pid, 0) + 1
    return sorted(served.values(), reverse=True), sum(answer.pid is None for answer in answers)


def _tail(answers):
    """What the quick requests met with. The others take their 200 ms whoever serves them."""
    quick = [one.latency_ms for one in answers if one.pid is not None and one.path == "/"]
    every = [one.latency_ms for one in answers if one.pid is not None]
    late = [(one.began - one.due) * 1e3 for one in answers]
    return {
        "requests": len(answers),
        "lost": sum(one.pid is None for one in answers),
        "p50_ms": percentile(quick, 0.5),
        "p99_ms": percentile(quick, 0.99),
        "mean_ms": statistics.fmean(quick) if quick else None,
        "all_p99_ms": percentile(every, 0.99),
        "client_late_p99_ms": percentile(late, 0.99),
    }


def uneven(port, seconds, seed):
    """One request in a hundred burns 200 ms of CPU; which, is drawn, the same for all contestants of a round."""
    chance = random.Random(seed)
    arrivals = client.poisson(chance, UNEVEN_RATE, seconds, lambda: "/burn" if chance.random() < UNEVEN_SHARE else "/")
    with client.punctual():
        return _tail(client.open_loop(port, arrivals))


def slowed(port, seconds, seed, pidfd):
    """One worker is stopped for 200 ms of every 600 ms."""
    arrivals = client.poisson(random.Random(seed), SLOWED_RATE, seconds)
    with client.punctual(), client.Stutter(pidfd):
        return _tail(client.open_loop(port, arrivals))


def settle():
    """Lets the server finish what the load generator left behind, before its CPU time is read."""
    time.sleep(0.1)
