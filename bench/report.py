"""The results as tables and plots: what `--report` puts between the markers of docs/benchmarks.md."""

import re
import statistics

import plots
import verdicts
from contestants import ROOT, TAIL_WORKERS

PAGE = ROOT / "docs" / "benchmarks.md"
PLOTS = ROOT / "docs" / "benchmarks"
SERVERS = {"node": "Node", "rust": "Rust", "python": "Python"}
WORKLOADS = {
    "close": "a connection a request",
    "keep-alive": "keep-alive",
    "idle": "a connection a request, beside 1,000 idle connections",
}
IMAGES = {suite: [f"![CPU time a request, {said}](benchmarks/{suite}.svg)"] for suite, said in SERVERS.items()} | {
    "tails": ["![Uneven requests](benchmarks/uneven.svg)", "![A slowed worker](benchmarks/slowed.svg)"],
    "steering": ["![What a choice costs](benchmarks/steering.svg)"],
}


def rows_of(results, suite, workload):
    """Samples of a suite and workload, by contestant, in the order in which the first round had them."""
    found = {}
    for one in results["samples"]:
        if (one["suite"], one["workload"]) == (suite, workload):
            found.setdefault(one["contestant"], []).append(one)
    return found


def figure(samples, key, form="{:.0f}"):
    """Median, lowest and highest: `50 (48–53)`."""
    values = [one[key] for one in samples if one.get(key) is not None]
    if not values:
        return "–"
    middle, low, high = (form.format(value) for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low}–{high})"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def busiest(samples):
    """The share of the busiest worker, in per cent."""
    each = [{"share": 100 * one["served"][0] / max(sum(one["served"]), 1)} for one in samples if one["served"]]
    return figure(each, "share", "{:.1f}")


def lost(samples):
    return f"{sum(one['lost'] for one in samples):,}"


def throughput_table(results, suite, workload):
    shares = rows_of(results, suite, "shares")
    heads = ["contestant", "CPU µs/request", "primary's part", "client's CPU µs", "requests/s", "p50 ms", "p99 ms", "lost"]
    extra = {"close": "busiest worker's share %", "idle": "memory MB"}.get(workload)
    rows = []
    for name, samples in rows_of(results, suite, workload).items():
        fast = suite == "rust"
        parts = "–" if name.startswith("bare") else figure(samples, "primary_us", "{:.1f}")
        row = [name, figure(samples, "cpu_us", "{:.1f}" if fast else "{:.0f}"), parts, figure(samples, "client_us", "{:.1f}"),
               figure(samples, "rate"), figure(samples, "p50_ms", "{:.1f}"), figure(samples, "p99_ms", "{:.1f}"), lost(samples)]
        if workload == "close":
            row.append(busiest(shares.get(name, [])))
        if workload == "idle":
            row.append(figure(samples, "memory_mb"))
        rows.append(row)
    return table(heads + ([extra] if extra else []), rows) if rows else ""


def costs_table(results, suite):
    """A line for each server and way, and what it costs beside the first of its group."""
    heads = ["server", "dispatch", "CPU µs/request", "of the first", "primary's part", "client's CPU µs", "requests/s", "lost"]
    rows = []
    for program in dict.fromkeys(one["workload"] for one in results["samples"] if one["suite"] == suite):
        found = rows_of(results, suite, program)
        first = next(iter(found))
        for name, samples in found.items():
            parts = figure(samples, "primary_us", "{:.1f}") if name.startswith(("phalanx", "Node cluster")) else "–"
            middle, low, high = verdicts.ratio(results, suite, name, first, program, "cpu_us")
            beside = "1" if name == first else f"{middle:.2f} ({low:.2f}–{high:.2f})"
            rows.append([program, name, figure(samples, "cpu_us", "{:.1f}"), beside, parts,
                         figure(samples, "client_us", "{:.1f}"), figure(samples, "rate"), lost(samples)])
    return table(heads, rows) if rows else ""


def tails_table(results, suite):
    """Both tail workloads side by side, a line for each policy."""
    slowed = rows_of(results, suite, "slowed")
    heads = ["contestant", "uneven: p50 ms", "p99 ms", "p99 ms, all requests", "slowed: p50 ms", "p99 ms", "lost"]
    rows = []
    for name, samples in rows_of(results, suite, "uneven").items():
        other = slowed.get(name, [])
        rows.append([name, figure(samples, "p50_ms", "{:.1f}"), figure(samples, "p99_ms", "{:.1f}"), figure(samples, "all_p99_ms"),
                     figure(other, "p50_ms", "{:.1f}"), figure(other, "p99_ms", "{:.1f}"), lost(samples + other)])
    return table(heads, rows) if rows else ""


def steering(out):
    """What `just bench-steering` printed, as {policy: {positions: ns}}; nothing without its file."""
    path = out / "steering.txt"
    if not path.exists():
        return {}
    costs, counts = {}, []
    for line in path.read_text().splitlines():
        if re.fullmatch(r"\s+(\d+\s*)+", line):
            counts = [int(word) for word in line.split()]
        elif counts and (found := re.fullmatch(r"([a-z-]+)\s+((?:\d+\s*)+)", line)):
            costs[found.group(1)] = dict(zip(counts, map(int, found.group(2).split())))
    return costs


def steering_table(costs):
    counts = list(next(iter(costs.values())))
    rows = [[f"`{policy}`", *(str(found[count]) for count in counts)] for policy, found in costs.items()]
    return table(["positions", *map(str, counts)], rows)


def about(results):
    """Machine, versions, and how each suite was run."""
    if not results["runs"]:
        return ""
    latest = max(results["runs"].values(), key=lambda run: run["date"])
    here = latest["machine"]
    lines = [f"{here['cores']} cores ({here['processor']}), Linux {here['kernel']}, Node {here['node']}, PM2 {here['pm2']}, "
             f"Python {here['python']} with uvicorn {here['uvicorn']}, {here['rustc']}, phalanx {here['phalanx']}.", ""]
    rows = []
    for suite, run in results["runs"].items():
        rows.append([suite, run["date"], f"`{run['command']}`", str(run["rounds"]), f"{run['load_before']:.1f}"])
    lines.append(table(["suite", "run on", "command", "rounds", "load average before"], rows))
    lines += [f"\nNot run: {name}: {why}" for name, why in results["skipped"].items()]
    return "\n".join(lines)


def server_section(results, suite):
    parts = []
    for workload, said in WORKLOADS.items():
        if body := throughput_table(results, suite, workload):
            parts.append(f"**{said[0].upper()}{said[1:]}**\n\n{body}")
    return "\n\n".join(parts)


def tails_section(results):
    parts = []
    for server in ("node", "rust"):
        if body := tails_table(results, f"tails-{server}"):
            parts.append(f"**{SERVERS[server]}, {TAIL_WORKERS} workers**\n\n{body}")
    return "\n\n".join(parts)


def sections(results, costs):
    """What goes between the markers, by their names."""
    found = {"run": about(results), "verdicts": verdicts.text(verdicts.all_of(results, costs)), "tails": tails_section(results)}
    found |= {suite: server_section(results, suite) for suite in SERVERS}
    found |= {suite: costs_table(results, suite) for suite in ("costs", "nodes")}
    found["cpu"] = throughput_table(results, "cpu", "cpu")
    found["steering"] = steering_table(costs) if costs else ""
    return {name: "\n\n".join([body, *IMAGES.get(name, [])]) for name, body in found.items() if body}


def text(results):
    """All tables, for the terminal."""
    found = sections(results, {})
    return "\n\n".join(f"## {name}\n\n{body}" for name, body in found.items() if name != "verdicts")


def cost_bars(results, suite, workload):
    bars = []
    for name, samples in rows_of(results, suite, workload).items():
        costs = [one["cpu_us"] for one in samples]
        part = 0 if name.startswith("bare") else statistics.median(one["primary_us"] for one in samples)
        bars.append(plots.Bar(name, statistics.median(costs), min(costs), max(costs), part))
    return bars


def tail_bars(results, suite, workload):
    bars = []
    for name, samples in rows_of(results, suite, workload).items():
        tail = [one["p99_ms"] for one in samples]
        colour = plots.COLOURS[2 if samples[0].get("policy") else 0]
        bars.append(plots.Bar(name, statistics.median(tail), min(tail), max(tail), colour=colour))
    return bars


def drawings(results, costs):
    """(file name, SVG) of every plot for which there are figures."""
    cost_legend = [(plots.COLOURS[0], "all processes of the server"), (plots.COLOURS[1], "of which the primary")]
    for suite, server in SERVERS.items():
        groups = [(said[0].upper() + said[1:], cost_bars(results, suite, workload)) for workload, said in WORKLOADS.items()]
        if groups := [(name, bars) for name, bars in groups if bars]:
            title = f"{server}: CPU time a request"
            yield f"{suite}.svg", plots.bars(title, "µs of CPU time a request", groups, cost_legend)
    titles = {
        "uneven": "1 request in 100 burns 200 ms: p99 of the others",
        "slowed": "One of four workers stopped a third of the time: p99",
    }
    for workload, title in titles.items():
        groups = [(f"{SERVERS[server]} server", tail_bars(results, f"tails-{server}", workload)) for server in ("node", "rust")]
        if groups := [(name, bars) for name, bars in groups if bars]:
            entries = [(plots.COLOURS[0], "Node's own cluster"), (plots.COLOURS[2], "phalanx, by policy")]
            yield f"{workload}.svg", plots.bars(title, "p99 response time, ms", groups, entries)
    if costs:
        counts = list(next(iter(costs.values())))
        series = [(policy, list(found.values())) for policy, found in costs.items()]
        yield "steering.svg", plots.lines("What a choice in the kernel costs", "positions", "ns a connection", counts, series)


def write(results, out):
    """Puts tables into the page and plots beside it."""
    costs = steering(out)
    page = PAGE.read_text()
    for name, body in sections(results, costs).items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        page, count = pattern.subn(lambda found: f"{found.group(1)}{body}\n{found.group(2)}", page)
        if count != 1:
            raise SystemExit(f"{PAGE}: has {count} places for '{name}', needs one")
    PAGE.write_text(page)
    PLOTS.mkdir(exist_ok=True)
    for name, drawing in drawings(results, costs):
        (PLOTS / name).write_text(drawing)
    print(f"{PAGE.relative_to(ROOT)} and {PLOTS.relative_to(ROOT)}/: written")
