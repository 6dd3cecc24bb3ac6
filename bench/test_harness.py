"""The harness itself: a benchmark that miscounts is worse than none. `python3 -B -m unittest discover -s bench`"""

import http.server
import os
import re
import tempfile
import threading
import time
import unittest
from pathlib import Path

import client
import contestants
import load
import plots
import processes
import report
import verdicts

NAMES = ["bare process", verdicts.OWN_REUSEPORT, verdicts.KERNEL, verdicts.HANDOFF, verdicts.NODE_RR, verdicts.NODE_NONE]
STEERING = """
running 1 test
ns per connection, by number of positions
                         2      16      64     256
round-robin            324     318     372     442
least-connections      321     469     654     876
test what_a_choice_costs ... ok
"""


def sample(suite, contestant, workload, number, cost):
    common = {"requests": 100, "lost": 0, "rate": 50.0, "client_us": 9.0, "p50_ms": 1.0, "p99_ms": cost, "all_p99_ms": cost}
    where = {"suite": suite, "contestant": contestant, "workload": workload, "round": number}
    return {**where, **common, "cpu_us": cost, "primary_us": 0.0, "memory_mb": 7.0, "served": [60, 40]}


def results():
    """Three rounds of everything; the machine is twice as slow in the second."""
    samples = []
    for number, factor in enumerate((1, 2, 1)):
        for suite in ("node", "rust", "python"):
            for rank, name in enumerate(NAMES):
                samples += [sample(suite, name, workload, number, (10.0 + rank) * factor)
                            for workload in ("shares", *report.WORKLOADS)]
        for program in ("Node script", "Rust, linked", *verdicts.INTERCEPTED):
            samples += [sample("costs", name, program, number, (10.0 + rank) * factor) for rank, name in enumerate(NAMES)]
        for server in ("node", "rust"):
            for policy in ("round-robin", "fastest"):
                samples += [sample(f"tails-{server}", f"phalanx {policy}", workload, number, 10.0 * factor)
                            for workload in ("uneven", "slowed")]
    return {"samples": samples, "runs": {}, "checks": {}, "skipped": {}}


class Answering(http.server.BaseHTTPRequestHandler):
    """Says who it is; `/slow` after 50 ms, `/silent` nothing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/silent":
            return
        if self.path == "/slow":
            time.sleep(0.05)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"pid = 42\n")

    def log_message(self, *_):
        pass


class TheClient(unittest.TestCase):
    def setUp(self):
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def tearDown(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def test_a_closed_loop_gets_an_answer_for_each_request(self):
        answers = client.closed_loop(self.port, 50, 4)
        self.assertEqual([one.pid for one in answers], [42] * 50)

    def test_an_open_loop_charges_the_time_since_a_request_was_due(self):
        answers = client.open_loop(self.port, [(0.0, "/"), (0.01, "/slow"), (0.02, "/")])
        slow = next(one for one in answers if one.path == "/slow")
        self.assertEqual(len(answers), 3)
        self.assertGreaterEqual(slow.latency_ms, 50)

    def test_a_request_without_an_answer_is_lost(self):
        (silent,) = client.open_loop(self.port, [(0.0, "/silent")])
        self.assertIsNone(silent.pid)

    def test_shares_count_by_worker(self):
        self.assertEqual(load.shares(self.port, count=30, clients=3), ([30], 0))


class TheFigures(unittest.TestCase):
    def test_ratios_are_taken_within_a_round(self):
        middle, low, high = verdicts.ratio(results(), "node", verdicts.KERNEL, verdicts.NODE_RR, "close", "cpu_us")
        self.assertAlmostEqual(low, 12 / 14)
        self.assertAlmostEqual(middle, low)
        self.assertAlmostEqual(high, low)

    def test_every_cost_that_is_judged_is_measured(self):
        for program, group in contestants.costs().items():
            names = [one.name for one in group]
            judged = {verdicts.NODE_RR, verdicts.NODE_NONE} if program == "Node script" else {verdicts.OWN_REUSEPORT}
            self.assertLessEqual(judged | {verdicts.KERNEL}, set(names), program)
        self.assertLessEqual(set(verdicts.INTERCEPTED), set(contestants.costs()))
        for program, group in contestants.nodes().items():
            names = [one.name for one in group]
            self.assertLessEqual({verdicts.NODE_RR, verdicts.NODE_NONE, verdicts.KERNEL}, set(names), program)

    def test_what_was_not_measured_is_not_called_met(self):
        empty = {"samples": [], "runs": {}, "checks": {}, "skipped": {}}
        self.assertEqual({one.met for one in verdicts.all_of(empty, {})}, {None})

    def test_a_percentile_is_one_of_the_values(self):
        self.assertEqual(load.percentile(range(100), 0.99), 99)
        self.assertEqual(load.percentile([7], 0.99), 7)

    def test_cpu_time_grows_with_work(self):
        before, until = processes.cpu_seconds(os.getpid()), time.process_time() + 0.05
        while time.process_time() < until:
            pass
        self.assertGreater(processes.cpu_seconds(os.getpid()) - before, 0.03)


class ThePage(unittest.TestCase):
    def setUp(self):
        self.out = tempfile.TemporaryDirectory()
        (Path(self.out.name) / "steering.txt").write_text(STEERING)
        self.costs = report.steering(Path(self.out.name))

    def tearDown(self):
        self.out.cleanup()

    def test_the_cost_of_steering_is_read_from_its_benchmark(self):
        self.assertEqual(self.costs["round-robin"], {2: 324, 16: 318, 64: 372, 256: 442})
        self.assertEqual(list(self.costs), ["round-robin", "least-connections"])

    def test_every_section_has_its_place_in_the_page(self):
        page = report.PAGE.read_text()
        for name in [*report.sections(results(), self.costs), "run", "cpu"]:
            self.assertEqual(len(re.findall(rf"<!-- {name} -->\n.*?<!-- /{name} -->", page, re.S)), 1, name)

    def test_every_plot_is_well_formed(self):
        from xml.etree import ElementTree
        names = []
        for name, drawing in report.drawings(results(), self.costs):
            ElementTree.fromstring(drawing)
            names.append(name)
        self.assertEqual(names, ["node.svg", "rust.svg", "python.svg", "uneven.svg", "slowed.svg", "steering.svg"])

    def test_an_axis_reaches_beyond_the_highest_value(self):
        for highest in (0.3, 1, 7, 99, 1434):
            scale = plots.ticks(highest)
            self.assertGreaterEqual(scale[-1], highest)
            self.assertLessEqual(len(scale), 9)


if __name__ == "__main__":
    unittest.main()
