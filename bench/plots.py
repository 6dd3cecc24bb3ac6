"""Plots as SVG, written by hand: bars with whiskers, and lines. No more than the page needs."""

import math
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 760, 200, 90, 74, 30, 16
INK, GRID, WHISKER = "#222", "#ddd", "#111"
COLOURS = ["#3b6ea8", "#d98032", "#5a9a57", "#8a5fa3", "#b0483f", "#7a7a7a", "#3aa0a0", "#a89236"]
FONT = "font-family='DejaVu Sans, Helvetica, Arial, sans-serif'"


@dataclass
class Bar:
    """A row: the median with its lowest and highest round, and the part of it that is shown apart."""

    label: str
    middle: float
    low: float
    high: float
    part: float = 0.0
    colour: str = COLOURS[0]


def text(x, y, words, size=12, anchor="start", weight="normal", colour=INK):
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' text-anchor='{anchor}' font-weight='{weight}' "
            f"fill='{colour}'>{escape(words)}</text>")


def rectangle(x, y, width, height, colour):
    return f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height}' fill='{colour}'/>"


def line(x1, y1, x2, y2, colour=GRID, width=1.0):
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{colour}' stroke-width='{width}'/>"


def ticks(highest, wanted=6):
    """Round numbers from 0 to a little above the highest."""
    raw = max(highest, 1e-9) / wanted
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    return [step * number for number in range(math.ceil(highest / step - 1e-9) + 1)]


def number(value):
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def page(height, title, parts):
    head = (f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' width='{WIDTH}' height='{height}' {FONT}>"
            f"\n{rectangle(0, 0, WIDTH, height, '#fff')}")
    return "\n".join([head, text(16, 24, title, 15, weight="bold"), *parts, "</svg>", ""])


def legend(y, entries, whiskers=True):
    """Swatches with their meaning, in a row."""
    parts, x = [], 16
    for colour, words in entries:
        parts += [rectangle(x, y - 10, 12, 12, colour), text(x + 18, y, words, 11)]
        x += 18 + 6.6 * len(words) + 18
    if whiskers:
        parts += [*whisker(x, x + 22, y - 4), text(x + 30, y, "lowest and highest round", 11)]
    return parts


def whisker(low, high, y):
    ends = [line(end, y - 4, end, y + 4, WHISKER, 1.3) for end in (low, high)]
    return [line(low, y, high, y, WHISKER, 1.3), *ends]


def bars(title, unit, groups, entries):
    """Horizontal bars in named groups, `groups` being (name, [Bar]); the axis starts at 0."""
    rows = sum(len(group) for _, group in groups)
    named = [name for name, _ in groups if name]
    bottom = TOP + rows * ROW + len(named) * 24
    scale = ticks(max(bar.high for _, group in groups for bar in group))
    at = lambda value: LEFT + value / scale[-1] * (WIDTH - LEFT - RIGHT)
    parts = legend(48, entries)
    for value in scale:
        parts += [line(at(value), TOP - 6, at(value), bottom), text(at(value), bottom + 16, number(value), 11, "middle")]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, unit, 12, "middle"))
    y = TOP
    for name, group in groups:
        if name:
            parts.append(text(16, y + 15, name, 12, weight="bold"))
            y += 24
        for bar in group:
            parts += one_bar(bar, y, at)
            y += ROW
    return page(bottom + 48, title, parts)


def one_bar(bar, y, at):
    top, centre = y + (ROW - BAR) / 2, y + ROW / 2
    parts = [text(LEFT - 8, centre + 4, bar.label, 12, "end"), rectangle(LEFT, top, at(bar.middle) - LEFT, BAR, bar.colour)]
    if bar.part:
        parts.append(rectangle(LEFT, top, at(bar.part) - LEFT, BAR, COLOURS[1]))
    parts += whisker(at(bar.low), at(bar.high), centre)
    return [*parts, text(at(bar.high) + 8, centre + 4, number(bar.middle), 12, weight="bold")]


def lines(title, across, unit, xs, series):
    """One line for each (name, values), over points that stand at equal distances."""
    height, bottom = 380, 300
    scale = ticks(max(max(values) for _, values in series))
    x_of = lambda index: 80 + index * (WIDTH - 260) / (len(xs) - 1)
    y_of = lambda value: bottom - value / scale[-1] * (bottom - 60)
    parts = []
    for value in scale:
        parts += [line(80, y_of(value), WIDTH - 180, y_of(value)), text(72, y_of(value) + 4, number(value), 11, "end")]
    for index, x in enumerate(xs):
        parts.append(text(x_of(index), bottom + 18, str(x), 11, "middle"))
    parts += [text((80 + WIDTH - 180) / 2, bottom + 40, across, 12, "middle"), text(16, 46, unit, 12)]
    for rank, (name, values) in enumerate(series):
        colour = COLOURS[rank % len(COLOURS)]
        points = " ".join(f"{x_of(index):.1f},{y_of(value):.1f}" for index, value in enumerate(values))
        parts.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [rectangle(WIDTH - 160, 66 + rank * 22, 12, 12, colour), text(WIDTH - 142, 76 + rank * 22, name, 12)]
    return page(height, title, parts)
