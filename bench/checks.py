"""What must be true rather than fast: shares by weight, clients that stay where they are, changes that lose nothing."""

import concurrent.futures
import json
import random
import statistics
import subprocess
import sys
import threading
import time

import client
import contestants
import load

CLIENTS = 400
MANY, RESTART_RATE = 64, 500
SERVER = ["--adopt", "channel", "--", contestants.SERVER, "worker", "127.0.0.1:{port}"]


def _rust(name, *options, workers=2):
    return contestants.phalanx(name, *options, command=SERVER, workers=workers, needs=contestants.SERVER)


def weighted(dispatch, clients, quick):
    """3:1 by weight, under load."""
    with _rust("weighted", "--dispatch", dispatch, "--policy", "weighted", "--weights", "3,1").start() as running:
        before = running.connections()
        load.wrk(running.port, 1 if quick else 2, clients, close=True)
        given = [after - earlier for after, earlier in zip(running.connections(), before)]
        return {"dispatch": running.dispatch(), "clients": clients, "given": given}


def _homes(running, sources):
    """Which position each client lands on, by its address."""
    answers = {}
    positions = {worker: position for position, worker in enumerate(pids(running))}
    for source in sources:
        (answer,) = client.closed_loop(running.port, 1, 1, [source])
        answers[source] = positions.get(answer.pid)
    return answers


def pids(running):
    """Process ids by position."""
    workers = running.status()["workers"]
    return [worker["pid"] for worker in sorted(workers, key=lambda worker: worker["position"])]


def sticky():
    """source-hash: clients stay through a reload, and few move when a position is added."""
    sources = [f"127.1.{number // 250}.{number % 250 + 1}" for number in range(CLIENTS)]
    workers = 3
    with _rust("sticky", "--dispatch", "kernel", "--policy", "source-hash", workers=workers).start() as running:
        first = _homes(running, sources)
        running.verb("reload")
        reloaded = _homes(running, sources)
        running.verb("scale", str(workers + 1))
        scaled = _homes(running, sources)
    moved = lambda before, after: sum(before[source] != after[source] for source in sources)
    return {
        "clients": CLIENTS,
        "workers": workers,
        "moved_by_reload": moved(first, reloaded),
        "moved_by_scaling": moved(reloaded, scaled),
        "limit": 1.5 / (workers + 1) * CLIENTS,
    }


def changes(quick):
    """Policy, weights and size changed again and again under full load."""
    count = 12 if quick else 100
    turns = [
        ("policy", "least-connections"), ("policy", "weighted", "--weights", "3,1"), ("scale", "+1"),
        ("policy", "round-robin"), ("policy", "weighted", "--weights", "1,2"), ("scale", "-1"),
    ]
    over, loads = threading.Event(), []
    with _rust("changes", "--dispatch", "kernel").start() as running:
        def keep_loading():
            while not over.is_set():
                loads.append(load.wrk(running.port, 1, 50, close=True))
        loading = threading.Thread(target=keep_loading)
        loading.start()
        try:
            for number in range(count):
                running.verb(*turns[number % len(turns)])
        finally:
            over.set()
            loading.join()
    return {
        "changes": count,
        "requests": sum(one["requests"] for one in loads),
        "lost": sum(one["lost"] for one in loads),
    }


def _reload_ms(workers, server):
    """One rolling restart under a light load, and how many of its requests were lost."""
    one = contestants.phalanx("restart", "--max-surge", "8", command=server, workers=workers, needs=contestants.SERVER)
    arrivals = client.poisson(random.Random(workers), RESTART_RATE, 2)
    with one.start() as running, concurrent.futures.ThreadPoolExecutor() as pool:
        running.wait_serving()
        loading = pool.submit(client.open_loop, running.port, arrivals)
        time.sleep(0.5)
        began = time.monotonic()
        running.verb("reload")
        took = (time.monotonic() - began) * 1e3
        return took, sum(answer.pid is None for answer in loading.result())


def restart(start_ms, quick):
    """How long a rolling restart of many workers takes, beside that of one: its start and its drain."""
    rounds, server = 1 if quick else 5, [*SERVER, str(start_ms)]
    each = [[_reload_ms(workers, server) for workers in (1, MANY)] for _ in range(rounds)]
    one, many = ([pair[index][0] for pair in each] for index in range(2))
    return {"start_ms": start_ms, "workers": MANY, "one_ms": statistics.median(one), "many_ms": statistics.median(many),
            "ratios": [ours / alone for ours, alone in zip(many, one)], "lost": sum(lost for pair in each for _, lost in pair)}


def reload_latency(quick):
    """The drill's whole mix on an example that computes little: p99 in calm and while it is reloaded."""
    seconds, reloads = (5, 5) if quick else (15, 30)
    words = [contestants.PHALANX, "drill", "-q", "--json", "--for", f"{seconds}s", "--rate", "1000", "-n2", "--reloads", str(reloads),
             "--kills", "0", "--scales", "0", "--upload-path", "/upload", "--", contestants.LIGHT, "127.0.0.1:0"]
    calm, reloading, requests, lost = [], [], 0, 0
    for _ in range(1 if quick else 5):
        report = json.loads(subprocess.run(words, capture_output=True, text=True, timeout=120).stdout)
        calm.append(report["latency_ms"]["calm"]["p99"])
        reloading.append(report["latency_ms"]["reload"]["p99"])
        requests, lost = requests + report["requests"], lost + report["lost"]
    ratios = [ours / theirs for ours, theirs in zip(reloading, calm)]
    return {"calm_ms": statistics.median(calm), "reload_ms": statistics.median(reloading), "ratios": ratios,
            "reloads": reloads * len(ratios), "requests": requests, "lost": lost}


def run(quick):
    """Every check; one that cannot be made says why."""
    each = {
        "weighted kernel": lambda: weighted("kernel", 50, quick),
        "weighted handoff": lambda: weighted("handoff", 8, quick),
        "weighted handoff, full": lambda: weighted("handoff", 50, quick),
        "sticky": sticky,
        "changes": lambda: changes(quick),
        "reload latency": lambda: reload_latency(quick),
        "restart": lambda: restart(0, quick),
        "restart, slow start": lambda: restart(50, quick),
    }
    found = {}
    for name, check in each.items():
        try:
            found[name] = check()
        except (contestants.NotRun, RuntimeError) as reason:
            found[name] = {"failed": str(reason)}
        print(f"check: {name}: {found[name]}", file=sys.stderr, flush=True)
    return found
