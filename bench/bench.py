#!/usr/bin/env python3
"""The benchmark harness: all contestants in one run, alternating round by round; medians and spread.

    bench/bench.py                       # everything behind docs/benchmarks.md, about 27 minutes
    bench/bench.py --quick               # 1 short round of everything, to see that it works
    bench/bench.py node rust             # some suites only
    bench/bench.py --report              # docs/benchmarks.md and its plots, from the results of the last run

Everything listens on 127.0.0.1. Results go to bench-out/results.json; suites that were not run keep their former results
there. The order of the contestants changes from round to round. Needs wrk, Node, and what `just bench` builds and fetches.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import checks
import contestants
import load
import processes
import report
import verdicts

OUT = contestants.ROOT / "bench-out"
IDLE = 1000
SUITES = ["node", "rust", "python", "costs", "nodes", "tails", "checks", "cpu"]
TURNS = 2  # for each round, of servers that are asked side by side
DEFAULT = SUITES[:-1]


class Run:
    """One run of the harness: what was asked for, and the samples so far."""

    def __init__(self, arguments):
        self.arguments, self.samples, self.skipped = arguments, [], {}

    def seconds(self, usual):
        return 1 if self.arguments.quick else usual

    def everyone(self, suite, number, group, measure):
        """Each contestant of the group in turn, another one first in every round."""
        first = number % len(group)
        for contestant in group[first:] + group[:first]:
            try:
                with contestant.start() as running:
                    for workload, sample in measure(running, number):
                        self.keep(suite, contestant, workload, number, sample)
            except contestants.NotRun as reason:
                self.skipped[f"{suite}: {contestant.name}"] = str(reason)
                print(f"NOT RUN: {suite}: {contestant.name}: {reason}", file=sys.stderr)

    def keep(self, suite, contestant, workload, number, sample):
        where = {"suite": suite, "contestant": contestant.name, "workload": workload, "round": number}
        if contestant.policy:
            where["policy"] = contestant.policy
        self.samples.append({**where, **sample})
        shown = {key: round(value, 1) for key, value in sample.items() if isinstance(value, (int, float))}
        print(f"round {number + 1}: {suite}: {contestant.name}: {workload}: {shown}", file=sys.stderr, flush=True)

    def throughput(self, running, number):
        """Shares, keep-alive, a connection a request, and that beside idle connections."""
        served, lost = load.shares(running.port, 400 if self.arguments.quick else 1200)
        yield "shares", {"served": served, "lost": lost}
        clients = self.arguments.clients
        # First, because it has the most requests: it warms compilers up for the others.
        yield "keep-alive", with_cpu(running, lambda: load.wrk(running.port, 1, clients, close=False))
        yield "close", with_cpu(running, lambda: load.wrk(running.port, self.seconds(2), clients, close=True))
        if running.contestant.is_short:
            return
        with load.Idle(running.port, IDLE):
            sample = with_cpu(running, lambda: load.wrk(running.port, 1, clients, close=True))
            yield "idle", {**sample, "memory_mb": running.memory() / 1e6}

    def tail(self, running, number):
        """The uneven workload, then one worker slowed down."""
        load.shares(running.port, 400)
        yield "uneven", load.uneven(running.port, self.seconds(4), number)
        held = running.pidfds[running.workers[0]]
        yield "slowed", load.slowed(running.port, self.seconds(3), number, held)

    def cpu_bound(self, running, number):
        yield "cpu", with_cpu(running, lambda: load.ab(running.port, self.seconds(10), 200))

    def side_by_side(self, suite):
        """Servers that are all up, asked in turn: what the machine does meanwhile falls on all of them."""
        for program, group in getattr(contestants, suite)().items():
            try:
                with contextlib.ExitStack() as stack:
                    every = [stack.enter_context(one.start()) for one in group]
                    for running in every:
                        self.warm(running)
                    for turn in range(self.arguments.rounds * TURNS):
                        first = turn % len(every)
                        for running in every[first:] + every[:first]:
                            self.keep(suite, running.contestant, program, turn, self.turn(running))
            except contestants.NotRun as reason:
                self.skipped[f"{suite}: {program}"] = str(reason)
                print(f"NOT RUN: {suite}: {program}: {reason}", file=sys.stderr)

    def warm(self, running):
        """Until compilers have done their work, in each of several workers: what a request costs a server that has run for long."""
        for close in (False, True):
            load.wrk(running.port, self.seconds(3), self.arguments.clients, close)

    def turn(self, running):
        """A second of connections."""
        before = running.connections() if running.contestant.is_phalanx else []
        sample = with_cpu(running, lambda: load.wrk(running.port, 1, self.arguments.clients, close=True))
        if before and None not in before:
            given = [after - earlier for after, earlier in zip(running.connections(), before)]
            sample |= {"given": given, "difference": max(given) - min(given)}
        return sample

    def round(self, number, suites):
        for suite in ("node", "rust", "python"):
            if suite in suites:
                self.everyone(suite, number, getattr(contestants, suite)(), self.throughput)
        if "tails" in suites:
            for server in ("node", "rust"):
                self.everyone(f"tails-{server}", number, contestants.tails(server), self.tail)
        if "cpu" in suites:
            self.everyone("cpu", number, contestants.cpu_bound(), self.cpu_bound)


def with_cpu(running, work):
    """What `work` shows, and the CPU time a request that the server's processes spent meanwhile."""
    load.settle()
    before, primary_before = running.cpu()
    sample = work()
    load.settle()
    after, primary_after = running.cpu()
    requests = max(sample["requests"], 1)
    sample["cpu_us"] = (after - before) / requests * 1e6
    sample["primary_us"] = (primary_after - primary_before) / requests * 1e6
    return sample


def first_line(*words):
    try:
        done = subprocess.run(words, capture_output=True, text=True)
        lines = (done.stdout or done.stderr).splitlines()
        return lines[0] if lines else "unknown"
    except OSError:
        return "not here"


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        model = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), "unknown")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": model,
        "kernel": platform.release(),
        "node": first_line(contestants.NODE, "--version"),
        "python": platform.python_version(),
        "rustc": first_line("rustc", "--version"),
        "wrk": first_line("wrk", "--version"),
        "pm2": version_of_pm2(),
        "uvicorn": first_line(sys.executable, "-c", "import uvicorn; print(uvicorn.__version__)"),
        "phalanx": first_line("git", "-C", str(contestants.ROOT), "describe", "--always", "--dirty"),
    }


def version_of_pm2():
    manifest = contestants.PM2.parent.parent / "pm2" / "package.json"
    return json.loads(manifest.read_text())["version"] if manifest.exists() else "not here"


def write(path, run, suites, began):
    """Replaces the samples of the suites that were run, and keeps the others."""
    results = json.loads(path.read_text()) if path.exists() else {"samples": [], "runs": {}, "checks": {}, "skipped": {}}
    ran = lambda name: name.split("-")[0].split(":")[0] in suites
    results["samples"] = [one for one in results["samples"] if not ran(one["suite"])] + run.samples
    results["skipped"] = {key: why for key, why in results["skipped"].items() if not ran(key)} | run.skipped
    about = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["bench/bench.py", *sys.argv[1:]]),
        "rounds": run.arguments.rounds,
        "quick": run.arguments.quick,
        "seconds": round(time.monotonic() - began),
        "load_before": run.load_before,
        "machine": machine(),
    }
    results["runs"].update({suite: about for suite in suites})
    if "checks" in suites:
        results["checks"] = run.checks
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1))
    return results


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"which: {', '.join(SUITES)}; all but cpu when none is named")
    parser.add_argument("--rounds", type=int, help="default 5; with --quick 1")
    parser.add_argument("--clients", type=int, default=50, help="connections of wrk at a time")
    parser.add_argument("--quick", action="store_true", help="loads of a second; writes to bench-out/quick.json")
    parser.add_argument("--report", action="store_true", help="only write the page, from bench-out/results.json")
    parser.add_argument("--nice", type=int, default=0, help="for a busy machine: precedence for client and servers, as -15 (root)")
    parser.add_argument("--results", type=Path, help="another file of results")
    given = parser.parse_args()
    if unknown := set(given.suites) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    given.rounds = given.rounds or (1 if given.quick else 5)
    given.results = given.results or OUT / ("quick.json" if given.quick else "results.json")
    return given


def main():
    given = arguments()
    if given.report:
        report.write(json.loads(given.results.read_text()), OUT)
        return
    suites, began, run = given.suites or DEFAULT, time.monotonic(), Run(given)
    run.load_before = os.getloadavg()[0]
    if given.nice:
        contestants.NICE = given.nice
        processes.put_first(os.getpid(), given.nice)
    for number in range(given.rounds):
        run.round(number, suites)
    for suite in ("costs", "nodes"):
        if suite in suites:
            run.side_by_side(suite)
    if "checks" in suites:
        run.checks = checks.run(given.quick)
    results = write(given.results, run, suites, began)
    print(report.text(results))
    print(verdicts.text(verdicts.all_of(results, report.steering(OUT))))
    print(f"\n{round(time.monotonic() - began)} s; written to {given.results}")


if __name__ == "__main__":
    main()
