"""What was promised, what was measured, and whether that is enough.

Ratios are taken round by round, between runs that followed each other closely, and the median of them counts: a machine that gets
slower during the run changes both sides.
"""

import statistics
from dataclasses import dataclass

NODE_RR, NODE_NONE = "Node cluster, round robin", "Node cluster, SCHED_NONE"
OWN_REUSEPORT = "own SO_REUSEPORT"
KERNEL, HANDOFF = "phalanx kernel", "phalanx handoff"
MAJORS = (18, 20, 22, 24, 26)
INTERCEPTED = ["C, intercepted", "Rust, intercepted", "Python, intercepted"]


@dataclass
class Verdict:
    target: str
    needed: str
    measured: str
    met: bool | None  # None: not measured

    @property
    def word(self):
        return {True: "yes", False: "**no**", None: "not measured"}[self.met]


def pick(results, suite, contestant, workload, key):
    """One figure, by round."""
    return {
        one["round"]: one[key]
        for one in results["samples"]
        if (one["suite"], one["contestant"], one["workload"]) == (suite, contestant, workload) and one.get(key) is not None
    }


def ratio(results, suite, ours, theirs, workload, key):
    """Median, lowest and highest of ours / theirs, round by round; None without a round that has both."""
    top = pick(results, suite, ours, workload, key)
    bottom = pick(results, suite, theirs, workload, key)
    each = [top[number] / bottom[number] for number in top if bottom.get(number)]
    return (statistics.median(each), min(each), max(each)) if each else None


def at_most(target, limit, found):
    if found is None:
        return Verdict(target, f"≤ {limit:.2f}", "", None)
    middle, low, high = found
    spread = "" if low == high else f" ({low:.2f}–{high:.2f})"
    return Verdict(target, f"≤ {limit:.2f}", f"{middle:.2f}{spread}", middle <= limit)


def _nodes(results):
    """Every version of Node by itself."""
    for major in MAJORS:
        cost = lambda theirs: ratio(results, "nodes", KERNEL, theirs, f"Node {major}", "cpu_us")
        yield at_most(f"Node {major}, CPU a request: kernel / Node's round robin", 0.40, cost(NODE_RR))
        yield at_most(f"Node {major}, CPU a request: kernel / Node's SCHED_NONE", 1.05, cost(NODE_NONE))


def _cost(results):
    cost = lambda program, ours, theirs: ratio(results, "costs", ours, theirs, program, "cpu_us")
    yield at_most("Rust, CPU a request: kernel / own SO_REUSEPORT", 1.03, cost("Rust, linked", KERNEL, OWN_REUSEPORT))
    yield at_most("Rust, CPU a request: handoff / own SO_REUSEPORT", 1.40, cost("Rust, linked", HANDOFF, OWN_REUSEPORT))
    for program in INTERCEPTED:
        target = f"{program.split(',')[0]}, unmodified, CPU a request: intercepted / own SO_REUSEPORT"
        yield at_most(target, 1.03, cost(program, KERNEL, OWN_REUSEPORT))


LINKED = {"Node": "Node script", "Rust": "Rust, linked"}


def _primary(results):
    """What it spends must not grow with the connections; it looks after its slots twice a second whatever comes."""
    needed = "0 (< 0.1 % of a core)"
    for server, program in LINKED.items():
        spent = pick(results, "costs", KERNEL, program, "primary_us")
        rates = pick(results, "costs", KERNEL, program, "rate")
        target = f"{server}, kernel dispatch: the primary's CPU a connection"
        if not spent:
            yield Verdict(target, needed, "", None)
            continue
        of_a_core = statistics.median(spent[number] * rates[number] / 1e6 for number in spent)
        measured = f"{statistics.median(spent.values()):.2f} µs, {of_a_core:.2%} of a core"
        yield Verdict(target, needed, measured, of_a_core < 0.001)


def _evenness(results):
    for server, program in LINKED.items():
        apart = pick(results, "costs", KERNEL, program, "difference").values()
        target = f"{server}, kernel round robin: how far the shares of two workers are apart, in connections"
        if not apart:
            yield Verdict(target, "≤ 1", "", None)
            continue
        total = sum(map(sum, pick(results, "costs", KERNEL, program, "given").values()))
        yield Verdict(target, "≤ 1", f"{max(apart)} at most ({len(apart)} × full load, {total:,} connections)", max(apart) <= 1)


def _tails(results):
    kinds = {"uneven": "uneven requests", "slowed": "one worker slowed"}
    for workload, said in kinds.items():
        for server in ("node", "rust"):
            for policy in ("least-connections", "fastest"):
                found = ratio(results, f"tails-{server}", f"phalanx {policy}", "phalanx round-robin", workload, "p99_ms")
                yield at_most(f"{server.capitalize()}, {said}, p99: {policy} / round-robin", 0.50, found)


def _checks(results):
    made = results.get("checks", {})
    for name in ("weighted kernel", "weighted handoff", "weighted handoff, full"):
        found = made.get(name, {})
        if "given" not in found:
            yield Verdict(f"Weights 3:1: {name}", "3:1 within 1 %", found.get("failed", ""), None)
            continue
        target = f"Weights 3:1, {found['dispatch']}, {found['clients']} clients"
        first, second = found["given"]
        quotient = first / max(second, 1)
        yield Verdict(target, "3:1 within 1 %", f"{quotient:.4f} : 1 ({first:,} and {second:,})", abs(quotient / 3 - 1) <= 0.01)
    found = made.get("sticky", {})
    if "clients" in found:
        clients, workers, limit = found["clients"], found["workers"], found["limit"]
        yield Verdict("source-hash: clients moved by a reload", "0", f"{found['moved_by_reload']} of {clients}",
                      found["moved_by_reload"] == 0)
        yield Verdict(f"source-hash: clients moved by scaling from {workers} to {workers + 1}", f"≤ {limit:.0f}",
                      f"{found['moved_by_scaling']} of {clients}", found["moved_by_scaling"] <= limit)
    found = made.get("changes", {})
    if "lost" in found:
        yield Verdict(f"{found['changes']} changes of policy, weights and size under full load: lost", "0",
                      f"{found['lost']} of {found['requests']:,}", found["lost"] == 0)


def _restart(results):
    made = results.get("checks", {})
    found = made.get("reload latency", {})
    ratios = found.get("ratios")
    spread = (statistics.median(ratios), min(ratios), max(ratios)) if ratios else None
    yield at_most("Rust example under the drill's mix, p99: while it is reloaded / in calm", 1.50, spread)
    if ratios:
        said = f"{found['lost']} of {found['requests']:,}"
        yield Verdict(f"The same, {found['reloads']} reloads: lost", "0", said, found["lost"] == 0)
    for name, said in (("restart", "that start at once"), ("restart, slow start", "that take 50 ms to get ready")):
        found = made.get(name, {})
        target = f"Rolling restart of 64 Rust workers {said}, surge 8, 500 requests a second: its time / that of one worker"
        ratios = found.get("ratios")
        if not ratios:
            yield Verdict(target, "≤ 10", found.get("failed", ""), None)
            continue
        middle = statistics.median(ratios)
        measured = f"{middle:.1f} ({min(ratios):.1f}–{max(ratios):.1f}); {found['many_ms']:.0f} and {found['one_ms']:.0f} ms, {found['lost']} lost"
        yield Verdict(target, "≤ 10", measured, middle <= 10 and found["lost"] == 0)


def _steering(results, steering):
    target = "Cost a connection in the kernel, round robin: 256 positions − 2 positions"
    if not steering:
        yield Verdict(target, "within noise", "", None)
        return
    costs = steering["round-robin"]
    more = costs[256] - costs[2]
    whole = pick(results, "costs", KERNEL, LINKED["Rust"], "cpu_us").values()
    said = f"{more:+d} ns"
    share = more / 1e3 / statistics.median(whole) if whole else None
    if share is not None:
        said += f", {share:+.1%} of what a connection costs the Rust server"
    yield Verdict(target, "within noise", said, share is not None and share <= 0.02)


def all_of(results, steering):
    return [
        *_nodes(results), *_cost(results), *_primary(results), *_evenness(results), *_tails(results), *_checks(results),
        *_restart(results), *_steering(results, steering),
    ]


def text(verdicts):
    """A table in Markdown."""
    rows = ["| target | needed | measured | met |", "|---|---|---|---|"]
    rows += [f"| {one.target} | {one.needed} | {one.measured} | {one.word} |" for one in verdicts]
    return "\n".join(rows)
